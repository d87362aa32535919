//! Repositories made by hand, for tests: WAL laid out as PostgreSQL does, sealed as the archiver does, in a folder.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]
#![allow(dead_code, unused_imports)] // Each room's tests use a part of it.

mod late;
mod meter;
mod repository;
mod wal;

pub(crate) use late::LateStore;
pub(crate) use meter::Meter;
pub(crate) use repository::{SYSTEM, SampleRepository};
pub(crate) use wal::{SampleWal, Spot};
