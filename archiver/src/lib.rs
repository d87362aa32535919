//! The archiver: what takes base backups and WAL from PostgreSQL into a sealed repository.

pub mod base;
pub mod keys;
pub mod shipment;
pub mod socket;
pub mod stream;
