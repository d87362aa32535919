//! Tests of this room against a scripted server and a real one.

mod fake_backup;
mod fake_login;
mod fake_manifest;
mod fake_stream;
mod real_backup;
mod real_incremental;
mod real_login;
mod real_replication;
mod real_sql;
