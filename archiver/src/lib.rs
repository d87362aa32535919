//! The archiver: what takes base backups and WAL from PostgreSQL into a sealed repository.

pub mod base;
