//! What the server says of the slot.

use walseal_common::lsn::Lsn;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient, SqlClient};

/// Where the physical slot `slot` keeps WAL from, on the server of `client`. `None`: there is no such slot. `Some(None)`: it keeps
/// nothing. Before PostgreSQL 15 a connection of its own is made for this, under `application_name`.
pub async fn read_slot(
    client: &mut ReplicationClient,
    conninfo: &Conninfo,
    slot: &str,
    application_name: &str,
) -> Result<Option<Option<Lsn>>, PostgresError> {
    const DOING: &str = "reading pg_replication_slots failed";
    match client.read_slot(slot).await {
        Ok(state) => Ok(state.map(|state| state.restart)),
        Err(PostgresError::Unsupported { .. }) => {
            let sql = SqlClient::connect_to(conninfo, client.host(), application_name).await?;
            let query =
                "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical'";
            let Some(row) = sql.query_opt(DOING, query, &[&slot]).await? else { return Ok(None) };
            let restart: Option<String> = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
            Ok(Some(restart.and_then(|text| text.parse().ok())))
        }
        Err(error) => Err(error),
    }
}
