//! Talking to a PostgreSQL server: SQL, and the replication protocol.
