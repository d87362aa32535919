//! Tables and indexes, by `pg_amcheck`.

use walseal_common::config::Amcheck;

use crate::drill::report::Found;
use crate::instance::{Instance, InstanceError};

/// Lines of what it reports that are kept.
const MOST: usize = 100;

/// What is expected, in words.
pub fn expected(depth: Amcheck) -> &'static str {
    match depth {
        Amcheck::Heap => "pg_amcheck finds nothing in any table",
        Amcheck::Indexes => "pg_amcheck finds nothing in any table or B-tree index",
        Amcheck::HeapAllIndexed => "pg_amcheck finds nothing, and every row in its indexes",
    }
}

/// Checks all databases, templates too.
///
/// Errors: the program or its extension is not there; it ended otherwise than with an answer.
pub async fn look(instance: &Instance, user: &str, depth: Amcheck) -> Result<Found, InstanceError> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut call = instance.command("pg_amcheck")?;
    call.args(["--all", "--install-missing", "--no-password", "--port", "5432", "--username", user]);
    call.arg("--host").arg(instance.socket()).args(["--maintenance-db", "postgres", "--jobs", &jobs.to_string()]);
    match depth {
        Amcheck::Heap => drop(call.args(["--exclude-index", "*.*"])),
        Amcheck::Indexes => {}
        Amcheck::HeapAllIndexed => drop(call.arg("--heapallindexed")),
    }
    let output = call.output().await.map_err(InstanceError::io("run pg_amcheck in", instance.data()))?;
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines = || -> Vec<String> {
        said.lines()
            .chain(complaints.lines())
            .filter(|line| !line.trim().is_empty())
            .take(MOST)
            .map(str::to_owned)
            .collect()
    };
    match output.status.code() {
        // A database that was passed over is named with status 0.
        Some(0) if complaints.contains("amcheck is not installed") || complaints.contains("skipping database") => {
            Err(InstanceError::Call { program: "pg_amcheck".to_owned(), said: lines().join("; ") })
        }
        Some(0) => Ok(Found::good("nothing is wrong").with(lines())),
        // Corruption was found; 1 is anything else (pg_amcheck's documentation, "Exit status").
        Some(2) => {
            let found = lines();
            let first = found.first().cloned().unwrap_or_default();
            Ok(Found::bad(format!("pg_amcheck found corruption: {first}")).with(found))
        }
        _ => Err(InstanceError::Call { program: "pg_amcheck".to_owned(), said: lines().join("; ") }),
    }
}
