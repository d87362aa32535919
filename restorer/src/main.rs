//! `walseal-restorer`: from a repository back to a PostgreSQL cluster.
fn main() {}
