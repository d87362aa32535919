//! Tests of this room against a scripted server and a real one.

mod real_backup;
mod real_login;
mod real_replication;
