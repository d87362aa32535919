//! Snapshots of the instance: logical dumps that cost production nothing.
//!
//! The archiver's program makes them, started as a child: no code is shared with it.

use std::process::Stdio;
use std::time::Instant;

use super::course::Course;
use super::next_base::{PROGRAM, program};
use super::report::{Check, Found, Kind};
use crate::instance::{Instance, InstanceError};
use crate::plan::Plan;

/// What is expected, in words.
const EXPECTED: &str = "the databases of drill.snapshot are dumped";

impl Course<'_> {
    /// Dumps what `drill.snapshot` names, where all that was checked until now passed.
    pub(super) async fn dump(&mut self, instance: &Instance, plan: &Plan) {
        let Some(databases) = self.access.config.drill.snapshot.as_ref().map(|setting| setting.value.clone()) else {
            return;
        };
        if !self.report.is_good_so_far() {
            tracing::warn!("drill.snapshot: nothing is dumped of an instance that failed the drill");
            return;
        }
        let begun = Instant::now();
        let dumped = self.start_dump(instance, plan, &databases);
        let check = Check::run(Kind::Snapshot, "snapshots", EXPECTED, dumped).await;
        self.add(std::future::ready(check)).await;
        self.stage("snapshots", begun);
    }

    async fn start_dump(&self, instance: &Instance, plan: &Plan, databases: &[String]) -> Result<Found, InstanceError> {
        let access = self.access;
        let program = program();
        let mut call = tokio::process::Command::new(&program);
        if let Some(file) = access.config.file() {
            call.arg("--config").arg(file);
        }
        call.args(["snapshot", "--json", "--label"]).arg(format!("drill of {} to {}", plan.base.id, plan.stop));
        for name in databases {
            if name == "*" {
                call.arg("--all")
            } else {
                call.arg(format!("--database={name}"))
            };
        }
        let user = access.config.drill.user.value.as_str();
        call.env("WALSEAL_CLUSTER_CONNINFO", instance.conninfo(user, "postgres"));
        if let Some(pg_bin) = &access.config.drill.pg_bin {
            call.env("WALSEAL_CLUSTER_PG_BIN", &pg_bin.value);
        }
        if access.config.keys.recipients.is_none() {
            let recipients: Vec<String> = access.identities.iter().map(|one| one.recipient().to_string()).collect();
            call.env("WALSEAL_KEYS_RECIPIENTS", recipients.join(","));
        }
        // Where the instance lives, so that it goes with its folder.
        if let Some(scratch) = &self.scratch {
            call.current_dir(scratch.folder());
        }
        call.stdin(Stdio::null()).kill_on_drop(true);
        let output = call.output().await.map_err(InstanceError::io("run", &program))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().skip_while(|line| !line.starts_with("error:")).collect::<Vec<_>>().join("\n");
            return Err(InstanceError::Call { program: PROGRAM.to_owned(), said });
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ids = report["snapshots"].as_array().into_iter().flatten();
        let ids: Vec<String> = ids.filter_map(|one| one["id"].as_str()).map(str::to_owned).collect();
        Ok(if ids.is_empty() { Found::bad("none was taken") } else { Found::good(ids.join(", ")) })
    }
}
