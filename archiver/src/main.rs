//! `walseal-archiver`: PostgreSQL into a sealed repository.

fn main() {}
