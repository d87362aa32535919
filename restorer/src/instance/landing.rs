//! Where a restore landed, and what to type next.

use std::path::Path;

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::time::PgTimestamp;

use super::Programs;
use super::settings::log_of;
use crate::plan::{Plan, Target, TransactionPoint};
use crate::rebuild::{ConfigFiles, Restored};
use crate::shell::{quoted, quoted_path};

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
    /// When the last replayed transaction ended, as the server said; nothing where it replayed none, or did not end
    /// recovery.
    pub last_time: Option<PgTimestamp>,
    /// Where replay began: behind the base backup's start where recovery was gone on with. Nothing where there was
    /// nothing to replay.
    #[serde(skip)]
    pub begun: Option<Lsn>,
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

    /// Why this is not where the plan leads: recovery ended at an earlier transaction, at another one than the plan's,
    /// or without any. WAL that the plan counted on was then not what its objects said.
    pub fn missed(&self, plan: &Plan) -> Option<String> {
        let is_latest = plan.request.target == Target::Latest;
        let planned = match (plan.last_before, self.last_time) {
            (None, Some(time)) if !is_latest => {
                return Some(format!(
                    "recovery ended with a transaction of {time}, but by the plan none lies before the target"
                ));
            }
            (None, _) => return None,
            (Some(planned), _) if !is_logged(plan, &planned) => return None,
            (Some(planned), _) => planned,
        };
        let found = match self.last_time {
            // On the way to the latest moment, a repository that is still written to may hold more than the plan saw.
            Some(time) if time == planned.time || (is_latest && time > planned.time) => return None,
            Some(time) => format!("with a transaction of {time}"),
            None if self.should_have_replayed(&planned) => "without a single transaction".to_owned(),
            None => return None,
        };
        Some(format!("recovery ended {found}, but the plan leads to transaction {} of {}", planned.xid, planned.time))
    }

    /// Whether the server, which says at a promotion what it has replayed since it was started, would have said so of
    /// this transaction.
    fn should_have_replayed(&self, planned: &TransactionPoint) -> bool {
        self.reached == Reached::Promoted && self.begun.is_some_and(|begun| planned.lsn >= begun)
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
fn is_logged(plan: &Plan, last: &TransactionPoint) -> bool {
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
    let (data, owner) = (quoted_path(&restored.layout.data), &restored.layout.owner);
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
    let pg_ctl = programs.map_or_else(|| "pg_ctl".to_owned(), |programs| quoted_path(&programs.pg_ctl));
    let run_as = if owner.is_other { format!("runuser -u {} -- ", quoted(&owner.name)) } else { String::new() };
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
    let shown = restored.layout.data.display();
    let configuration = if restored.has_configuration {
        String::new()
    } else if let Some(file) = brought.of("config_file") {
        lines.push(format!(
            "The backup has no postgresql.conf in {shown}; the one that it brought along is named below."
        ));
        configuration_option(file, &restored.layout.data, brought)
    } else {
        lines.push(format!(
            "The backup has no postgresql.conf: the cluster keeps it elsewhere (Debian: /etc/postgresql/{major}/main). Put one \
             into {shown}, or name it as below."
        ));
        let file = format!("/etc/postgresql/{major}/main/postgresql.conf");
        configuration_option(Path::new(&file), &restored.layout.data, &ConfigFiles::default())
    };
    let log = quoted_path(&log_of(&restored.layout.data));
    let start = format!("  {run_as}{pg_ctl} -D {data}{configuration} -l {log} start");
    match landing.map(|landing| &landing.reached) {
        Some(Reached::Paused { socket, pid }) => {
            let socket = quoted(socket);
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
             ALTER SYSTEM SET archive_mode = on; and restart."
                .to_owned(),
        );
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// ` -o …` by which `pg_ctl` starts the server with `file` as its configuration, and with what was brought along with
/// it. `pg_ctl` hands the words to a shell of its own: they are quoted twice.
fn configuration_option(file: &Path, data: &Path, brought: &ConfigFiles) -> String {
    let setting = |name: &str, path: &Path| quoted(&format!("{name}={}", path.display()));
    let mut words = vec![setting("config_file", file), setting("data_directory", data)];
    let named = |name| brought.of(name).map(|path| setting(name, path));
    words.extend(["hba_file", "ident_file"].into_iter().filter_map(named));
    let options: Vec<String> = words.iter().map(|word| format!("-c {word}")).collect();
    format!(" -o {}", quoted(&options.join(" ")))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::wal::{TransactionOutcome, Xid};

    use super::*;
    use crate::plan::Request;
    use crate::rebuild::{Layout, Owner, Swept, Traffic};

    const BEGUN: Lsn = Lsn(0x30_0000);

    fn time(clock: &str) -> PgTimestamp {
        format!("2026-11-21 {clock}+00").parse().expect("a time")
    }

    fn plan(target: &str, last: Option<&str>) -> Plan {
        let (lsn, end, outcome) = (Lsn(0x30_5000), Lsn(0x30_5040), TransactionOutcome::Commit);
        let point = |clock: &str| TransactionPoint { xid: Xid(700), time: time(clock), lsn, end, outcome };
        let request = Request::to(target.parse().expect("a target"));
        Plan { last_before: last.map(point), ..crate::plan::sample::plan(request, BEGUN, Lsn(0x30_6000)) }
    }

    fn promoted(last: Option<&str>) -> Landing {
        Landing {
            reached: Reached::Promoted,
            timeline: Some(2),
            server_said: None,
            last_time: last.map(time),
            begun: Some(BEGUN),
        }
    }

    #[test]
    fn recovery_that_ends_elsewhere_than_the_plan_leads_has_missed() {
        let missed = |target: &str, planned, found| promoted(found).missed(&plan(target, planned));
        for (target, planned, found) in [
            ("latest", Some("10:00:00"), Some("10:00:00")),
            // More than the plan saw has come.
            ("latest", Some("10:00:00"), Some("10:00:01")),
            ("latest", None, Some("10:00:01")),
            ("2026-11-21T10:00:05Z", Some("10:00:00"), Some("10:00:00")),
            ("2026-11-21T10:00:05Z", None, None),
            // The server stops before it has looked at the end of this one.
            ("lsn:0/305000", Some("10:00:00"), None),
        ] {
            assert_eq!(missed(target, planned, found), None, "{target} {planned:?} {found:?}");
        }
        for (target, planned, found, why) in [
            ("latest", Some("10:00:00"), Some("09:59:59"), "with a transaction of 2026-11-21 09:59:59+00, but"),
            ("latest", Some("10:00:00"), None, "without a single transaction, but"),
            ("2026-11-21T10:00:05Z", Some("10:00:00"), Some("10:00:01"), "leads to transaction 700 of"),
            ("2026-11-21T10:00:05Z", None, Some("10:00:01"), "by the plan none lies before the target"),
            ("xid:700", Some("10:00:00"), None, "without a single transaction, but"),
        ] {
            let said = missed(target, planned, found).unwrap_or_default();
            assert!(said.contains(why), "{target} {planned:?} {found:?}: {said}");
        }
    }

    #[test]
    fn a_server_that_had_no_occasion_to_name_the_last_transaction_has_missed_nothing() {
        let plan = plan("xid:700", Some("10:00:00"));
        // It went on behind that one, or had nothing left to replay.
        for begun in [Some(Lsn(0x30_5001)), None] {
            assert_eq!(Landing { begun, ..promoted(None) }.missed(&plan), None);
        }
        // It says so only at the end of recovery.
        let paused = Reached::Paused { socket: "/run".to_owned(), pid: 7 };
        for reached in [Reached::ShutDown, paused] {
            assert_eq!(Landing { reached, ..promoted(None) }.missed(&plan), None);
        }
    }

    #[test]
    fn what_is_to_be_typed_survives_a_shell() {
        let owner = Owner { name: "postgres".to_owned(), uid: 5, gid: 5, groups: vec![5], is_other: true };
        let data = Path::new("/srv/it's here").to_owned();
        let layout = Layout {
            data: data.clone(),
            mode: 0o700,
            waldir: None,
            tablespaces: Vec::new(),
            owner,
            existing: Vec::new(),
            stands: false,
        };
        let restored = Restored {
            layout,
            plan_file: data,
            has_configuration: true,
            bytes: 0,
            config_files: ConfigFiles::default(),
            traffic: Traffic::default(),
            swept: Swept::default(),
            is_standby: false,
            inherited: None,
        };
        let (plan, landing) = (plan("latest", None), promoted(None));
        let text = next_steps(&plan, &restored, Some(&landing), false, None);
        let start =
            r"  runuser -u postgres -- pg_ctl -D '/srv/it'\''s here' -l '/srv/it'\''s here.walseal/server.log' start";
        assert!(text.lines().any(|line| line == start), "{text}");
        assert!(text.contains("\n  ALTER SYSTEM SET archive_mode = on; and restart.\n"), "{text}");
        let bare = Restored { has_configuration: false, ..restored };
        let text = next_steps(&plan, &bare, Some(&landing), true, None);
        // Once for the shell that is typed into, and once for pg_ctl's.
        let file = "-c config_file=/etc/postgresql/15/main/postgresql.conf";
        let option = format!(r" -o '{file} -c '\''data_directory=/srv/it'\''\'\'''\''s here'\''' -l ");
        assert!(text.contains(&option), "{text}");
        assert!(!text.contains("archive_mode"), "{text}");
    }
}
