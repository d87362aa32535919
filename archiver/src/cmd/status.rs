//! `status`: how far back and how close to now.

use jiff::Timestamp;
use walseal_common::config::Config;
use walseal_common::show;
use walseal_common::terminal::{Align, CheckExit, Failure, Look, Schema, Table, to_json, units, usage};
use walseal_common::time::PgTimestamp;

use crate::gaps::GapStatus;
use crate::status::{self, BaseStatus, BranchStatus, Status, ago};
use crate::stream::Progress;
use crate::verify::Verified;

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

/// Shows the status. With `--check` the exit code tells it.
pub async fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    super::warn_of(&config);
    let gathered = status::gather(config).await.map_err(Failure::from);
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
        print(&status, Timestamp::now());
    }
    match &status.error {
        None => Ok(()),
        Some(why) => Err(Failure::new("read all of the status", why)),
    }
}

fn print(status: &Status, now: Timestamp) {
    show!("{}", status.first_line(now));
    show!();
    match &status.cluster {
        Some(cluster) => show!("repository  {} (cluster {cluster})", status.repository),
        None => show!("repository  {}", status.repository),
    }
    if let Some(error) = &status.error {
        show!("            NOT READ: {error}");
    }
    match (&status.daemon_pid, &status.stream) {
        (Some(pid), Some(stream)) => {
            let state = if stream.connected { "streaming" } else { "NOT streaming" };
            show!("daemon      pid {pid}, {state}");
            for trouble in status.troubles() {
                show!("            {trouble}");
            }
            print_frontier(stream);
        }
        (Some(pid), None) => {
            show!("daemon      pid {pid}, which does not say where it is; its log says what it waits for")
        }
        _ => show!("daemon      not running; start it with: walseal-archiver run"),
    }
    for (alert, text) in status.standing() {
        let subject = if alert.subject.is_empty() { String::new() } else { format!(" ({})", alert.subject) };
        show!("alert       {}{subject}, {}, since {}", alert.kind, alert.severity.word(), ago(now, alert.since));
        if let Some(text) = text {
            show!("            {text}");
        }
    }
    if let Some(verified) = &status.verified {
        print_verified(verified, now);
    }
    print_branches(status.branches.as_deref().unwrap_or_default());
    for GapStatus { gap, open, given_up } in status.gaps.iter().flatten() {
        let state = match open {
            Some(_) if *given_up => "the cluster went back to before it".to_owned(),
            Some(rest) => format!("{} lost", units::distance(rest.start, rest.end)),
            None => "filled since".to_owned(),
        };
        show!(
            "gap         {} to {} on branch {}, found {}: {state}",
            gap.from,
            gap.to,
            gap.branch,
            ago(now, gap.found)
        );
    }
    if let Some(backup) = &status.backup {
        show!("backup      under way: {backup}");
    }
    if let Some(next) = &status.next_backup {
        let when = if next.at > now { ago(now, next.at) } else { "now".to_owned() };
        show!("next base   {when}, at {} (\"{}\", {})", time_argument(next.at), next.schedule, next.timezone);
    }
    if let Some(retention) = &status.retention {
        show!("retention   {}", retention.words(now));
        show!("stored      {}, {}", usage(&retention.stored), ago(now, retention.at));
    }
    if let Some(requests) = &status.requests {
        show!("store       {}", requests.words());
    }
    if let Some(kept) = &status.objectives {
        show!("last 30 d   {}", kept.words());
    }
    for adoption in status.adoptions.iter().flatten() {
        show!(
            "split       {} was left for {} at {}, where the WAL of the living server lies; named {}: {}",
            adoption.branch,
            adoption.to,
            adoption.from,
            ago(now, adoption.found),
            adoption.writer
        );
    }
    if let Some(words) = status.snapshots.and_then(|snapshots| snapshots.words(now)) {
        show!("snapshots   {words}");
    }
    if let Some(bases) = &status.bases {
        print_bases(bases, now);
    }
}

fn time_argument(moment: Timestamp) -> String {
    units::time_argument(PgTimestamp::from_jiff(moment))
}

fn print_frontier(stream: &Progress) {
    if stream.frontier.is_invalid() {
        show!("frontier    not known before the first connection to the server");
        return;
    }
    show!(
        "frontier    {}{}; {} behind the server's {}",
        stream.frontier,
        stream.branch.map_or_else(String::new, |branch| format!(" on branch {branch}")),
        units::distance(stream.frontier, stream.server_end.max(stream.frontier)),
        stream.server_end
    );
}

fn print_verified(verified: &Verified, now: Timestamp) {
    let Some(surveyed) = verified.surveyed else { return };
    let found = match verified.flaws {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong; what, and what cures it: walseal-archiver verify".to_owned(),
        many => format!("{many} things are wrong; what, and what cures them: walseal-archiver verify"),
    };
    let read = match verified.round_began {
        None => String::new(),
        Some(began) => {
            let state = if verified.round_ended { "read" } else { "read so far" };
            format!(" ({} objects {state}, from {} on)", verified.objects, ago(now, began))
        }
    };
    show!("verified    {}{read}: {found}", ago(now, surveyed));
}

fn print_branches(branches: &[BranchStatus]) {
    for branch in branches {
        let runs = branch.runs.len();
        let gaps = if runs > 1 { format!(", with {} gaps", runs - 1) } else { String::new() };
        show!("branch      {} to {}{gaps}", branch.branch, branch.end);
    }
}

fn print_bases(bases: &[BaseStatus], now: Timestamp) {
    if bases.is_empty() {
        show!("bases       none; take one with: walseal-archiver backup");
        return;
    }
    let mut table = Table::new([
        ("base backup", Align::Left),
        ("consistent from", Align::Left),
        ("taken", Align::Left),
        ("cluster", Align::Right),
        ("type", Align::Left),
        ("stored", Align::Right),
        ("referenced", Align::Right),
        ("proven", Align::Left),
        ("", Align::Left),
    ]);
    for base in bases {
        table.row([
            base.id.to_string(),
            base.stop.to_string(),
            ago(now, base.stop_time),
            units::size(base.cluster_size),
            base.kind.word().to_owned(),
            units::size(base.stored_size),
            units::size(base.referenced_size),
            match (base.proven, base.proven_at) {
                (None, _) => "no drill yet".to_owned(),
                (Some(_), Some(time)) => ago(now, time),
                (Some(_), None) => "NO: its drill failed".to_owned(),
            },
            match base {
                base if base.suspect > 0 => "SUSPECT".to_owned(),
                base if base.cut_off => "WAL behind it is MISSING".to_owned(),
                base if base.given_up => format!("given up with branch {}", base.branch),
                _ => String::new(),
            },
        ]);
    }
    show!("\n{}", table.render(Look::of_stdout()));
}
