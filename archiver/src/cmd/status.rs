//! `status`: how far back and how close to now.

use std::time::Duration;
use walseal_common::show;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BaseId, Label, Repository, RepositoryIdentity};
use walseal_common::terminal::{Align, CheckExit, Failure, Look, Schema, Table, to_json, units};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use crate::archive::Archive;
use crate::socket::{self, Client, Request};
use crate::stream::Progress;

/// What `status` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// One line, and exit 0, 1 or 2 for monitors
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

#[derive(Serialize)]
struct Status {
    repository: String,
    cluster: String,
    /// None when no daemon runs.
    daemon_pid: Option<u32>,
    stream: Option<Progress>,
    branches: Vec<BranchStatus>,
    bases: Vec<BaseStatus>,
}

#[derive(Serialize)]
struct BranchStatus {
    branch: Branch,
    /// Runs of whole segments.
    runs: Vec<walseal_common::lsn::LsnRange>,
    /// End of the contiguous WAL of the last run, by name.
    end: Lsn,
}

#[derive(Serialize)]
struct BaseStatus {
    id: BaseId,
    branch: Branch,
    start: Lsn,
    stop: Lsn,
    stop_time: Timestamp,
    cluster_size: u64,
    stored_size: u64,
    suspect: u64,
}

/// Shows the status. With `--check` the exit code tells it.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let gathered = gather(&archive).await;
    if arguments.check {
        let (line, exit) = match &gathered {
            Ok(status) => status.check(Timestamp::now()),
            Err(failure) => (failure.to_string().replace('\n', ";"), CheckExit::Critical),
        };
        show!("{line}");
        std::process::exit(exit as i32);
    }
    let status = gathered?;
    if arguments.json {
        let text = to_json(Schema { name: "status", version: 1 }, &status)
            .map_err(|error| Failure::from_error("print the status", &error))?;
        show!("{text}");
    } else {
        status.print(Timestamp::now());
    }
    Ok(())
}

async fn gather(archive: &Archive) -> Result<Status, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error("read the repository", error);
    let state_dir = archive.config.need_state_dir()?;
    let (daemon_pid, stream) = match Client::connect(&socket::path(&state_dir)).await {
        None => (None, None),
        Some(client) => {
            let pid = client.pid();
            let answer = client.ask(&Request::Status, |_, _, _| ()).await;
            let value = answer.map_err(|error| Failure::from_error("ask the daemon", &error))?;
            let progress: Progress = serde_json::from_value(value)
                .map_err(|error| Failure::from_error("read the daemon's answer", &error))?;
            (Some(pid), Some(progress))
        }
    };
    let conninfo = archive.config.open_conninfo().map_err(Failure::saying)?;
    let (repository, identity) = archive.repository(&conninfo).await.map_err(|error| failed(&error))?;
    let branches = branches(&repository, &identity).await.map_err(|error| failed(&error))?;
    let mut bases = Vec::new();
    for id in repository.base_ids().await.map_err(|error| failed(&error))? {
        bases.push(BaseStatus::of(&repository.label(&id).await.map_err(|error| failed(&error))?));
    }
    Ok(Status {
        repository: repository.describe(),
        cluster: repository.cluster().to_string(),
        daemon_pid,
        stream,
        branches,
        bases,
    })
}

async fn branches(
    repository: &Repository,
    identity: &RepositoryIdentity,
) -> Result<Vec<BranchStatus>, walseal_common::repository::RepositoryError> {
    let mut found = Vec::new();
    for branch in repository.branches().await? {
        let listing = repository.wal_listing(branch, identity.segment_size, None).await?;
        if let Some(highest) = listing.highest() {
            let last = listing.runs.last().map_or(highest, |run| run.start);
            let end = repository.contiguous_end(&listing, last).await?;
            found.push(BranchStatus { branch, runs: listing.runs, end });
        }
    }
    Ok(found)
}

impl BaseStatus {
    fn of(label: &Label) -> BaseStatus {
        BaseStatus {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            stop_time: label.stop_time,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            suspect: label.suspect,
        }
    }
}

fn ago(now: Timestamp, moment: Timestamp) -> String {
    units::ago(PgTimestamp::from_jiff(now), PgTimestamp::from_jiff(moment))
}

impl Status {
    /// The one line that says it all.
    fn first_line(&self, now: Timestamp) -> String {
        let from = match self.bases.iter().find(|base| base.suspect == 0) {
            None => "Nothing can be restored yet: there is no base backup.".to_owned(),
            Some(base) => {
                let from = units::time_argument(PgTimestamp::from_jiff(base.stop_time));
                match self.stream.as_ref().filter(|stream| stream.connected) {
                    Some(stream) => format!(
                        "Any second from {from} to {}. If the primary died now: {} lost.",
                        match stream.frontier_moved {
                            _ if stream.frontier >= stream.server_end => "now".to_owned(),
                            Some(moved) => ago(now, moved),
                            None => "the last durable WAL".to_owned(),
                        },
                        units::duration(stream.behind(now)),
                    ),
                    None => format!(
                        "Any second from {from} to the end of the WAL in the repository; no WAL is being streamed now."
                    ),
                }
            }
        };
        format!("{from} Proven: never (no drill has run).")
    }

    fn check(&self, now: Timestamp) -> (String, CheckExit) {
        let exit = match &self.stream {
            _ if self.bases.iter().all(|base| base.suspect > 0) => CheckExit::Critical,
            None => CheckExit::Critical,
            Some(stream) if !stream.connected => CheckExit::Critical,
            Some(stream) if stream.behind(now) > Duration::from_secs(60) => CheckExit::Warning,
            Some(_) => CheckExit::Fine,
        };
        let mut line = self.first_line(now);
        if let Some(trouble) = self.stream.as_ref().and_then(|stream| stream.trouble.as_ref()) {
            line = format!("{line} {trouble}");
        }
        (line.replace('\n', " "), exit)
    }

    fn print(&self, now: Timestamp) {
        show!("{}", self.first_line(now));
        show!();
        show!("repository  {} (cluster {})", self.repository, self.cluster);
        match (&self.daemon_pid, &self.stream) {
            (Some(pid), Some(stream)) => {
                let state = if stream.connected { "streaming" } else { "NOT streaming" };
                show!("daemon      pid {pid}, {state}");
                if let Some(trouble) = &stream.trouble {
                    show!("            {trouble}");
                }
                show!(
                    "frontier    {}{}; {} behind the server's {}",
                    stream.frontier,
                    stream.branch.map_or_else(String::new, |branch| format!(" on branch {branch}")),
                    units::distance(stream.frontier, stream.server_end.max(stream.frontier)),
                    stream.server_end
                );
            }
            _ => show!("daemon      not running; start it with: walseal-archiver run"),
        }
        for branch in &self.branches {
            let runs = branch.runs.len();
            show!(
                "branch      {} to {}{}",
                branch.branch,
                branch.end,
                if runs > 1 { format!(", with {} gaps", runs - 1) } else { String::new() }
            );
        }
        if self.bases.is_empty() {
            show!("bases       none; take one with: walseal-archiver backup");
            return;
        }
        let mut table = Table::new([
            ("base backup", Align::Left),
            ("consistent from", Align::Left),
            ("taken", Align::Left),
            ("cluster", Align::Right),
            ("stored", Align::Right),
            ("", Align::Left),
        ]);
        for base in &self.bases {
            table.row([
                base.id.to_string(),
                base.stop.to_string(),
                ago(now, base.stop_time),
                units::size(base.cluster_size),
                units::size(base.stored_size),
                if base.suspect > 0 { "SUSPECT".to_owned() } else { String::new() },
            ]);
        }
        show!("\n{}", table.render(Look::of_stdout()));
    }
}
