//! What `pg_control` says, as `pg_controldata` prints it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use super::programs::command;
use super::{InstanceError, Programs};
use crate::rebuild::Owner;

/// Settings that must be at least what they were where the WAL was written ("Hot Standby" in PostgreSQL's documentation),
/// with their names in `pg_controldata`'s output.
const AT_LEAST: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
];

/// What `pg_control` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlData(BTreeMap<String, String>);

impl ControlData {
    /// Asks `pg_controldata` about the data directory `data`.
    ///
    /// Errors: it fails, with what it said.
    pub fn read(programs: &Programs, owner: &Owner, data: &Path) -> Result<ControlData, InstanceError> {
        let output = command(&programs.pg_controldata, owner, data)
            .arg(data)
            .stdin(Stdio::null())
            .output()
            .map_err(InstanceError::io("run", &programs.pg_controldata))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(InstanceError::Call { program: "pg_controldata".to_owned(), said });
        }
        Ok(ControlData::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn parse(text: &str) -> ControlData {
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        ControlData(text.lines().filter_map(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The cluster's state: `in archive recovery`, `in production`, `shut down`, `shut down in recovery`, …
    pub fn state(&self) -> &str {
        self.get("Database cluster state").unwrap_or("unknown")
    }

    /// The timeline of the last checkpoint.
    pub fn timeline(&self) -> Option<u32> {
        self.get("Latest checkpoint's TimeLineID")?.parse().ok()
    }

    /// Whether pages have checksums.
    pub fn has_checksums(&self) -> bool {
        self.get("Data page checksum version").is_some_and(|version| version != "0")
    }

    /// Bytes of a page (`BLCKSZ`).
    pub fn page_size(&self) -> Option<usize> {
        self.get("Database block size")?.parse().ok()
    }

    /// Settings that a server must not go below, with their least values.
    pub fn at_least(&self) -> impl Iterator<Item = (&'static str, u64)> {
        AT_LEAST.iter().filter_map(|(name, printed)| Some((*name, self.get(printed)?.parse().ok()?)))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_pg_controldata_prints_them() {
        let control = ControlData::parse(
            "Database cluster state:               in archive recovery\n\
             Latest checkpoint's TimeLineID:       2\n\
             max_connections setting:              40\n\
             max_prepared_xacts setting:           5\n",
        );
        assert_eq!((control.state(), control.timeline()), ("in archive recovery", Some(2)));
        let least: Vec<_> = control.at_least().collect();
        assert_eq!(least, [("max_connections", 40), ("max_prepared_transactions", 5)]);
    }
}
