//! Limits of time that a role or a database sets: a drill takes as long as it takes, and a session that it keeps waits for that long.

use walseal_common::postgres::sql::quoted;
use walseal_common::postgres::{PostgresError, SqlClient};

/// The limits that a server of this version (as `server_version_num`) knows.
fn limits(version: u32) -> impl Iterator<Item = &'static str> {
    let limits = [
        ("statement_timeout", 0),
        ("lock_timeout", 0),
        ("idle_in_transaction_session_timeout", 0),
        ("idle_session_timeout", 140_000),
        ("transaction_timeout", 170_000),
    ];
    limits.into_iter().filter(move |(_, since)| version >= *since).map(|(name, _)| name)
}

/// Lifts those of this session.
///
/// Errors: the server's.
pub async fn lift(client: &SqlClient) -> Result<(), PostgresError> {
    let orders: Vec<String> = limits(client.server_version_num()).map(|name| format!("set {name} = 0")).collect();
    client.simple_query("lifting the limits of time failed", &orders.join("; ")).await.map(|_| ())
}

/// Lifts those of all sessions of this role in `database` from now on, those of programs among them. It is forgotten with the database.
///
/// Errors: the server's.
pub async fn lift_for_sessions(client: &SqlClient, database: &str) -> Result<(), PostgresError> {
    let alter = format!("alter role current_user in database {} set", quoted(database));
    let orders: Vec<String> = limits(client.server_version_num()).map(|name| format!("{alter} {name} = 0")).collect();
    client.simple_query("lifting the limits of time failed", &orders.join("; ")).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_of_the_limits_that_it_knows() {
        assert_eq!(limits(160_010).last(), Some("idle_session_timeout"));
        assert_eq!(limits(170_000).last(), Some("transaction_timeout"));
        assert_eq!(limits(0).count(), 3);
    }
}
