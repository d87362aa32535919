//! Somebody else who streams from our slot: named, and never taken over (case 52, and two archivers on one slot).

use walseal_common::postgres::{Host, PostgresError, SqlClient};

use super::StreamError;
use super::streamer::Streamer;

/// What the server says of a process that holds a slot. What this role may not see is missing.
const QUERY: &str = "SELECT coalesce(a.application_name, ''), coalesce(a.client_hostname, host(a.client_addr), ''), \
    a.client_addr IS NULL AND a.client_port = -1, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"') \
    FROM pg_stat_activity a WHERE a.pid = $1";

impl Streamer {
    /// The same error, or where it says that the slot is in use: who uses it.
    pub(super) async fn name_rival(&self, host: &Host, error: PostgresError) -> StreamError {
        let Some(pid) = error.slot_holder() else { return error.into() };
        let who = match self.ask_for(host, pid).await {
            Ok(Some(who)) => who,
            Ok(None) => "of which the server tells nothing more".to_owned(),
            Err(error) => {
                tracing::debug!(%error, "the server was not asked who holds the slot");
                "who it is only an ordinary connection would tell, and there is none".to_owned()
            }
        };
        StreamError::SlotHeld { slot: self.slot.clone(), host: host.to_string(), pid, who }
    }

    async fn ask_for(&self, host: &Host, pid: u32) -> Result<Option<String>, PostgresError> {
        const DOING: &str = "reading pg_stat_activity failed";
        let sql = SqlClient::connect_to(&self.conninfo, host, &self.application_name).await?;
        let pid = i32::try_from(pid).unwrap_or(i32::MAX);
        let row = sql.query_opt(DOING, QUERY, &[&pid]).await?;
        sql.close().await;
        let Some(row) = row else { return Ok(None) };
        let failed = |error| SqlClient::error(DOING, &error);
        let (name, address): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let (local, since): (Option<bool>, Option<String>) =
            (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        Ok(Some(who(&name, &address, local == Some(true), since.as_deref())))
    }
}

fn who(name: &str, address: &str, local: bool, since: Option<&str>) -> String {
    let name = if name.is_empty() { "a client without a name".to_owned() } else { format!("application {name}") };
    let from = match (address, local) {
        (_, true) => " on the server's own host".to_owned(),
        ("", false) => String::new(),
        (address, false) => format!(" on {address}"),
    };
    let since = since.map_or_else(String::new, |since| format!(", connected since {since}"));
    format!("{name}{from}{since}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_the_slot_is_named_as_far_as_the_server_tells() {
        let since = Some("2026-11-21 02:30:00 UTC");
        assert_eq!(
            who("walseal_orders", "192.0.2.7", false, since),
            "application walseal_orders on 192.0.2.7, connected since 2026-11-21 02:30:00 UTC"
        );
        assert_eq!(who("pg_receivewal", "", true, None), "application pg_receivewal on the server's own host");
        assert_eq!(who("", "", false, None), "a client without a name");
    }
}
