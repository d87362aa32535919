//! `find`: which transaction did what, and the restore that undoes it.

mod activity;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use walseal_common::lsn::LsnRange;
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Progress, Schema, printable, to_json, units, width_of_stdout};
use walseal_common::time::PgTimestamp;

use super::target::{parse_target, refusal};
use super::{extract, restore};
use crate::access::Access;
use crate::extract::{Extraction, Format, Part, QualifiedTable};
use crate::find::{FindError, Finding, Kind, Question, RecordLine, Searched, TablePattern, Wanted, search};
use crate::plan::{Request, Target, TimelineChoice};
use crate::shell::quoted;

const SCHEMA: Schema = Schema { name: "find", version: 1 };

/// How far back is looked where nothing else is said.
const LOOK_BACK: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Tables that are named of a transaction.
const MOST_TABLES: usize = 6;

/// What `find` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Look at transactions from this time on [default: an hour before --until, or before now]
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Look at transactions up to this time [default: the end of the WAL]
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only what was done to this table: [DATABASE.]SCHEMA.TABLE
    #[arg(long, value_name = "TABLE")]
    table: Option<TablePattern>,
    /// Only these kinds, with commas between: drop, truncate, delete, update, ddl, insert [default: all but insert]
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kind: Vec<Kind>,
    /// Only where so many rows were deleted or updated; drops, truncates and ddl have no number
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_rows: u64,
    /// List so many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Draw rows and bytes of each table over this time, the --limit tables with the most WAL
    #[arg(long, conflicts_with_all = ["kind", "min_rows", "at", "xid"])]
    activity: bool,
    /// Show the commits around this time, in order
    #[arg(long, value_name = "T", conflicts_with_all = ["since", "until", "table", "kind", "min_rows"])]
    at: Option<String>,
    /// Show this transaction, and its records: the newest with this id
    #[arg(long, value_name = "N", conflicts_with_all = ["since", "until", "table", "kind", "min_rows", "at"])]
    xid: Option<u64>,
    /// Also take this table out as it was just before the transaction, whole, as SQL: DATABASE.SCHEMA.TABLE
    #[arg(long, value_name = "TABLE", requires_all = ["xid", "into"], conflicts_with = "json")]
    restore_diff: Option<QualifiedTable>,
    /// The file that it goes to; one that is there is never overwritten
    #[arg(long, value_name = "FILE", requires = "restore_diff")]
    into: Option<PathBuf>,
    /// Where the whole cluster is restored to for as long as that takes [default: drill.scratch_dir]
    #[arg(long, value_name = "D", requires = "restore_diff")]
    scratch_dir: Option<PathBuf>,
    /// The timeline to look at, by number or branch [default: the one with the newest WAL]
    #[arg(long, value_name = "TIMELINE")]
    timeline: Option<TimelineChoice>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What is asked.
    ///
    /// Errors: wrong usage.
    pub fn question(&self) -> Result<Question, Failure> {
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if let Some(xid) = self.xid {
            return Ok(Question::Transaction { xid, most });
        }
        if let Some(at) = &self.at {
            return Ok(Question::Around { time: time(at)?, each: most.div_ceil(2) });
        }
        let until = self.until.as_deref().map(time).transpose()?;
        let since = match &self.since {
            Some(since) => time(since)?,
            None => {
                let from = until.map_or_else(jiff::Timestamp::now, PgTimestamp::to_jiff_saturating);
                PgTimestamp::from_jiff(from.saturating_sub(LOOK_BACK).unwrap_or(from))
            }
        };
        if until.is_some_and(|until| until < since) {
            return Err(Failure::saying("--until is earlier than --since").exit(Exit::Usage));
        }
        if self.activity {
            let steps = activity::steps(self.json, width_of_stdout());
            return Ok(Question::Activity { table: self.table.clone(), since, until, steps });
        }
        let wanted = Wanted { table: self.table.clone(), kinds: self.kind.clone(), min_rows: self.min_rows };
        Ok(Question::Worst { wanted, since, until, most })
    }
}

impl Arguments {
    /// The table as it was, as SQL.
    fn extraction(&self, table: &QualifiedTable, into: &Path, access: &Access) -> Result<Extraction, Failure> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| Failure::from_error("find a path", &error));
        let scratch_dir = match &self.scratch_dir {
            Some(folder) => absolute(folder)?,
            None => access.config.drill.scratch_dir.value.clone(),
        };
        let (drill, cluster) = (&access.config.drill.pg_bin, &access.config.cluster.pg_bin);
        Ok(Extraction {
            part: Part::Tables { database: table.database.clone(), tables: vec![table.table.clone()] },
            file: absolute(into)?,
            format: Format::Plain,
            scratch_dir,
            pg_bin: drill.as_ref().or(cluster.as_ref()).map(|setting| setting.value.clone()),
            jobs: restore::default_jobs(),
        })
    }
}

fn time(text: &str) -> Result<PgTimestamp, Failure> {
    match parse_target(text)? {
        Target::Time(time) => Ok(time),
        other => {
            Err(Failure::saying(format!("{other} is no time; expected one such as 2026-11-21T02:30:00Z"))
                .exit(Exit::Usage))
        }
    }
}

/// What was found, for machines.
#[derive(Serialize)]
struct Report<'a> {
    /// Transactions that committed in the range.
    commits: u64,
    /// How many are wanted, those beyond the limit among them.
    found: u64,
    /// Transactions that summaries count and do not list; none of them is worse than what is listed.
    counted: u64,
    read: Option<LsnRange>,
    /// WAL in between that the repository does not hold.
    gaps: &'a [LsnRange],
    transactions: Vec<Told<'a>>,
    /// With `--xid`.
    #[serde(skip_serializing_if = "<[RecordLine]>::is_empty")]
    records: &'a [RecordLine],
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    /// The restore that is everything before it, and not it.
    undo: Option<String>,
}

/// Searches and shows what was found.
pub async fn run(arguments: &Arguments, question: &Question, access: &Access) -> Result<(), Failure> {
    let progress = Progress::new("reading WAL", None);
    let searched = search(access, question, arguments.timeline, &progress).await;
    progress.abandon();
    let searched = searched.map_err(|error| match error {
        FindError::Plan(error) => refusal(&error),
        other => Failure::from_error("search the WAL", &other),
    })?;
    if let Some(activity) = &searched.activity {
        return activity::show(activity, &searched, arguments);
    }
    let command = Command::of_this_process(arguments.timeline);
    if arguments.json {
        let told = |finding| Told { finding, undo: command.undo(finding) };
        let report = Report {
            commits: searched.commits,
            found: searched.found,
            counted: searched.counted,
            read: searched.read,
            gaps: &searched.gaps,
            transactions: searched.findings.iter().map(told).collect(),
            records: &searched.records,
        };
        let text = to_json(SCHEMA, &report).map_err(|error| Failure::from_error("print what was found", &error))?;
        show!("{text}");
    } else {
        show!("{}", printable(&render(&searched, &command)).trim_end());
    }
    let (Some(table), Some(into)) = (&arguments.restore_diff, &arguments.into) else { return Ok(()) };
    let Some(finding) = searched.findings.first() else {
        return Err(Failure::saying("the transaction did not commit, so it changed nothing that could be compared"));
    };
    let extraction = arguments.extraction(table, into, access)?;
    let target = Request { exclusive: true, timeline: arguments.timeline, ..Request::to(Target::Lsn(finding.before)) };
    extract::take_out(&extraction, &target, access, false, false).await
}

/// The flags of this call that a restore needs, too.
struct Command {
    words: Vec<String>,
    timeline: Option<TimelineChoice>,
}

impl Command {
    fn of_this_process(timeline: Option<TimelineChoice>) -> Command {
        Command { words: shared(std::env::args()), timeline }
    }

    /// The restore that lands just before a transaction; `None` where no base backup leads there.
    fn undo(&self, finding: &Finding) -> Option<String> {
        finding.restorable.then(|| {
            let mut words = self.words.clone();
            words.extend(["restore", "--to"].map(str::to_owned));
            words.push(format!("lsn:{}", finding.before));
            words.push("--exclusive".to_owned());
            if let Some(timeline) = self.timeline {
                words.extend(["--timeline".to_owned(), timeline.to_string()]);
            }
            words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
        })
    }
}

/// The program, and of its flags those that say which repository.
fn shared(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = vec![arguments.next().unwrap_or_else(|| "walseal-restorer".to_owned())];
    while let Some(word) = arguments.next() {
        if matches!(word.as_str(), "--config" | "--cluster-id") {
            words.extend([Some(word), arguments.next()].into_iter().flatten());
        } else if word.starts_with("--config=") || word.starts_with("--cluster-id=") {
            words.push(word);
        }
    }
    words
}

fn render(searched: &Searched, command: &Command) -> String {
    let mut text = String::new();
    for finding in &searched.findings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}  transaction {}, commit at {}", finding.time, finding.xid, finding.lsn);
        for line in finding.lines(MOST_TABLES) {
            let _ = writeln!(text, "  {line}");
        }
        if finding.incomplete {
            let _ = writeln!(text, "  there may be more to it: it may have begun before the WAL that was read");
        }
        match command.undo(finding) {
            Some(undo) => {
                let _ = writeln!(text, "  all before it, without it: {undo} --target-dir DIR");
            }
            None => {
                let _ = writeln!(text, "  no base backup leads there, so nothing can be restored to it");
            }
        }
        if let Some(table) = finding
            .tables
            .iter()
            .map(|change| &change.table)
            .find(|table| table.is_named())
            .filter(|_| finding.restorable)
        {
            let undo = command.undo(finding).unwrap_or_default();
            let table = quoted(&table.to_string());
            let _ = writeln!(text, "  only that table: {undo} --table {table} --into FILE");
        }
        text.push('\n');
    }
    for record in &searched.records {
        let place = match (&record.file, record.block) {
            (Some(file), Some(block)) => format!("  file {file} block {block}"),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "{}  {} {}  {}{place}",
            record.lsn,
            record.manager,
            record.kind,
            units::size(record.length.into())
        );
    }
    let shown = searched.findings.len() as u64;
    let more = searched.found.saturating_sub(shown);
    let of = format!("of {} that committed in {} of WAL", searched.commits, span(searched.read));
    match (shown, more) {
        (0, _) => {
            let _ = writeln!(text, "no transaction like that, {of}");
        }
        (_, 0) => {
            let _ = writeln!(text, "{shown} {of}");
        }
        _ => {
            let _ = writeln!(text, "{shown} {of}; {more} more are like that: --limit, --kind, --min-rows, --table");
        }
    }
    if searched.counted > 0 {
        let _ = writeln!(text, "{} smaller ones are only counted", searched.counted);
    }
    text + &gaps(searched)
}

/// A line for each range that nobody could look at.
fn gaps(searched: &Searched) -> String {
    let mut text = String::new();
    for gap in &searched.gaps {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "WAL from {} to {} is not in the repository; nobody can say what happened there",
            gap.start, gap.end
        );
    }
    text
}

fn span(read: Option<LsnRange>) -> String {
    read.map_or_else(|| "0 B".to_owned(), |read| units::size(read.len()))
}
