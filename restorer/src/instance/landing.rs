//! Where a restore landed, and what to type next.

use serde::Serialize;
use walseal_common::time::PgTimestamp;

use super::Programs;
use crate::plan::{Plan, Target, TransactionPoint};
use crate::rebuild::Restored;

/// How recovery ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Reached {
    /// The cluster is on a timeline of its own; the private server was stopped again.
    Promoted,
    /// The private server waits at the target, readable.
    Paused {
        /// The folder of its socket.
        socket: String,
        /// Its process.
        pid: u32,
    },
    /// The server stopped at the target, still in recovery.
    ShutDown,
}

/// Where recovery landed, by the server's own words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Landing {
    /// How it ended.
    #[serde(flatten)]
    pub reached: Reached,
    /// The timeline that `pg_control` names now.
    pub timeline: Option<u32>,
    /// What the server said where it stopped; nothing without a target.
    pub server_said: Option<String>,
    /// When the last replayed transaction ended, as the server said; nothing where it replayed none.
    pub last_time: Option<PgTimestamp>,
}

impl Landing {
    /// One word for progress.
    pub(super) fn word(&self) -> &'static str {
        match self.reached {
            Reached::Promoted => "done, promoted and stopped",
            Reached::Paused { .. } => "paused at the target",
            Reached::ShutDown => "shut down at the target",
        }
    }

    /// Why this is not where the plan leads: recovery ended at an earlier transaction, or at another one than the plan's.
    /// WAL that the plan counted on was then not what its objects said.
    pub fn missed(&self, plan: &Plan) -> Option<String> {
        let planned = plan.last_before.filter(|planned| is_logged(plan, planned))?;
        let time = self.last_time?;
        // On the way to the latest moment, a repository that is still written to may hold more than the plan saw.
        let as_planned = time == planned.time || (plan.request.target == Target::Latest && time > planned.time);
        (!as_planned).then(|| {
            format!(
                "recovery ended with a transaction of {time}, but the plan leads to transaction {} of {}",
                planned.xid, planned.time
            )
        })
    }

    /// Where it landed, in lines. `plan` says which transactions stand on both sides of that point.
    pub fn explain(&self, plan: &Plan) -> String {
        let mut lines = Vec::new();
        if let Some(said) = &self.server_said {
            lines.push(format!("PostgreSQL says: {said}"));
        }
        let as_logged =
            |last: &TransactionPoint| self.last_time.is_none_or(|time| time == last.time) || !is_logged(plan, last);
        let last = plan.last_before.filter(as_logged);
        match (last, self.last_time) {
            (Some(last), _) => lines.push(format!("Last transaction: {}", transaction(&last))),
            (None, Some(time)) => lines.push(format!("Last transaction: of {time}")),
            (None, None) => lines.push("No transaction was replayed after the base backup.".to_owned()),
        }
        if let Some(first) = &plan.first_after {
            lines.push(format!("The one after it, which is not in: {}", transaction(first)));
        }
        if let Some(timeline) = self.timeline {
            lines.push(format!("Timeline: {timeline}"));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Whether PostgreSQL logs the time of the last transaction of a plan. It stops for a position behind the first record that begins there
/// or later, and before it has looked whether that one ends a transaction (`recoveryStopsAfter` in `xlogrecovery.c`).
pub fn is_logged(plan: &Plan, last: &TransactionPoint) -> bool {
    !matches!(plan.request.target, Target::Lsn(lsn) if !plan.request.exclusive && last.lsn >= lsn)
}

fn transaction(point: &TransactionPoint) -> String {
    format!("{} of {}, at {}", point.xid, point.time, point.lsn)
}

/// What holds now, and what to type to go live. `programs` are those that are on this machine.
pub fn next_steps(
    plan: &Plan,
    restored: &Restored,
    landing: Option<&Landing>,
    kept_archiving: bool,
    programs: Option<&Programs>,
) -> String {
    let (data, owner) = (restored.layout.data.display(), &restored.layout.owner);
    let major = plan.base.postgres_version / 10_000;
    let mut lines = Vec::new();
    lines.push(if restored.is_standby {
        let archiving = if kept_archiving { "as it was (--keep-archiving)" } else { "off" };
        format!("It is a standby: it goes on from the repository until it is promoted. Archiving is {archiving}.")
    } else if kept_archiving {
        "Archiving is as it was (--keep-archiving): the cluster archives as soon as it runs.".to_owned()
    } else {
        "Archiving is off, synchronous_standby_names is empty, and the cluster follows no other server \
         (postgresql.auto.conf)."
            .to_owned()
    });
    let pg_ctl = programs.map_or_else(|| "pg_ctl".to_owned(), |programs| programs.pg_ctl.display().to_string());
    let run_as = if owner.is_other { format!("runuser -u {} -- ", owner.name) } else { String::new() };
    let brought = &restored.config_files;
    if !brought.files.is_empty() {
        lines.push(format!(
            "{} configuration file(s) that lay outside the data directory are in {}, by their old paths: look at them before you use \
             them.",
            brought.files.len(),
            brought.folder.display()
        ));
    }
    for missing in &brought.missing {
        lines.push(format!("A configuration file that lay outside the data directory is not there: {missing}."));
    }
    let configuration = if restored.has_configuration {
        String::new()
    } else if let Some(file) = brought.of("config_file") {
        let named = |setting| {
            let file = brought.of(setting)?;
            Some(format!(" -c {setting}={}", file.display()))
        };
        let others = ["hba_file", "ident_file"].into_iter().filter_map(named).collect::<String>();
        lines.push(format!(
            "The backup has no postgresql.conf in {data}; the one that it brought along is named below."
        ));
        format!(" -o \"-c config_file={} -c data_directory={data}{others}\"", file.display())
    } else {
        lines.push(format!(
            "The backup has no postgresql.conf: the cluster keeps it elsewhere (Debian: /etc/postgresql/{major}/main). Put one \
             into {data}, or name it as below."
        ));
        format!(" -o \"-c config_file=/etc/postgresql/{major}/main/postgresql.conf -c data_directory={data}\"")
    };
    let start = format!("  {run_as}{pg_ctl} -D {data}{configuration} -l {data}.walseal/server.log start");
    match landing.map(|landing| &landing.reached) {
        Some(Reached::Paused { socket, pid }) => {
            lines.push(format!("The server is readable (process {pid}): {run_as}psql -h {socket} -p 5432 -d postgres"));
            lines.push("To go live from here, or to stop it:".to_owned());
            lines.push(format!("  {run_as}{pg_ctl} -D {data} promote"));
            lines.push(format!("  {run_as}{pg_ctl} -D {data} stop"));
        }
        Some(Reached::Promoted) => {
            lines.push("To go live:".to_owned());
            lines.push(start);
        }
        None if restored.is_standby => {
            lines.push("To let it follow, and some day to make it the primary:".to_owned());
            lines.push(start);
            lines.push(format!("  {run_as}{pg_ctl} -D {data} promote"));
        }
        Some(Reached::ShutDown) | None => {
            lines.push("To go live, which replays the WAL to the target:".to_owned());
            lines.push(start);
        }
    }
    if !kept_archiving {
        lines.push(
            "When it replaces the old cluster: point the archiver at it, and where it used archive_mode:\n  \
             ALTER SYSTEM RESET archive_mode; and restart."
                .to_owned(),
        );
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
