//! `snapshot`: dumps of databases now.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use walseal_common::config::parse_duration;
use walseal_common::postgres::SqlClient;
use walseal_common::repository::{SnapshotFact, SnapshotLabel};
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, Schema, to_json, units};

use super::backup::stop_asked;
use crate::archive::{Archive, LAST_ENTRIES};
use crate::snapshot::{Databases, Home, Order, Round, SnapshotError, Taken};

const SCHEMA: Schema = Schema { name: "snapshot", version: 1 };

/// What `snapshot` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// This database; may be given several times [default: the one that the connection string names]
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    database: Vec<String>,
    /// Every database that takes connections
    #[arg(long)]
    all: bool,
    /// Only these schemas: a pattern as pg_dump takes it; may be given several times
    #[arg(long, value_name = "PATTERN")]
    schema: Vec<String>,
    /// Only these tables
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// Not these schemas
    #[arg(long, value_name = "PATTERN")]
    exclude_schema: Vec<String>,
    /// Not these tables
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// Not the rows of these tables
    #[arg(long, value_name = "PATTERN")]
    exclude_table_data: Vec<String>,
    /// What to call it, as in "before-migration"; sealed
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Keep it at least until then: a time with an offset, or how long from now, as in 7d
    #[arg(long, value_name = "T", value_parser = moment)]
    hold_until: Option<Timestamp>,
    /// How many databases at a time [default: snapshot.jobs, which is 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: Option<u8>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A time, or how long from now.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || {
        "it is neither a time with an offset, as in 2026-12-01T00:00:00Z, nor how long from now, as in 7d".to_owned()
    };
    let length = parse_duration(text).map_err(|_| wrong())?;
    let length = SignedDuration::try_from(length).map_err(|_| wrong())?;
    Timestamp::now().checked_add(length).map_err(|_| wrong())
}

impl Arguments {
    fn databases(&self) -> Databases {
        match (self.all, self.database.as_slice()) {
            (true, _) => Databases::All,
            (false, []) => Databases::Connected,
            (false, names) => Databases::Named(names.to_vec()),
        }
    }

    fn order(&self) -> Order {
        let kinds = [
            ("schema", &self.schema),
            ("table", &self.table),
            ("exclude-schema", &self.exclude_schema),
            ("exclude-table", &self.exclude_table),
            ("exclude-table-data", &self.exclude_table_data),
        ];
        let selection =
            kinds.iter().flat_map(|(word, values)| values.iter().map(move |value| format!("--{word}={value}")));
        Order { selection: selection.collect(), label: self.label.clone(), hold_until: self.hold_until }
    }
}

/// What was dumped, for machines.
#[derive(Serialize)]
struct Report {
    snapshots: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    database: String,
    id: String,
    start_time: Timestamp,
    seconds: f64,
    dump_size: u64,
    stored_size: u64,
    postgres_version: u32,
    dump_version: u32,
    whole: bool,
    tables: usize,
    rows: u64,
    unread: Vec<String>,
    hold_until: Option<Timestamp>,
}

/// Dumps each database, and says what it took. One that cannot be dumped does not keep the others away.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let conninfo = archive.config.open_conninfo()?;
    let home = Home::find(&archive, conninfo, &arguments.databases())
        .await
        .map_err(|error| failure("take a snapshot", &error))?;
    let ledger = home.ledger(&archive);
    let order = arguments.order();
    let jobs = arguments.jobs.map_or(archive.config.snapshot.jobs.value, usize::from);
    let round = Round::new(&home, &order, &ledger, jobs);
    let title = match home.databases.as_slice() {
        [one] => format!("dump of {one}"),
        several => format!("dump of {} databases", several.len()),
    };
    let progress = Progress::new(&title, size_of(&home).await);
    let (mut outcomes, mut stopped) = (BTreeMap::new(), false);
    {
        let mut dumps = std::pin::pin!(round.take(&home.databases, |bytes| progress.advance(bytes)));
        let mut asked = std::pin::pin!(stop_asked("the dump"));
        loop {
            tokio::select! {
                outcome = dumps.next() => match outcome {
                    Some((place, outcome)) => {
                        if let (Ok(taken), true) = (&outcome, home.databases.len() > 1) {
                            progress.message(&format!("{} is complete", taken.database));
                        }
                        outcomes.insert(place, outcome);
                    }
                    None => break,
                },
                () = &mut asked => {
                    stopped = true;
                    break;
                }
            }
        }
    }
    let taken: Vec<&Taken> = outcomes.values().filter_map(|outcome| outcome.as_ref().ok()).collect();
    match taken.as_slice() {
        [] => progress.abandon(),
        [one] => progress.finish(&format!("snapshot {} is complete", one.label.id)),
        several => progress.finish(&format!("{} snapshots are complete", several.len())),
    }
    ledger.finish(LAST_ENTRIES).await;
    if !arguments.json {
        taken.iter().for_each(|taken| print(taken));
    } else if !taken.is_empty() || outcomes.is_empty() && !stopped {
        let text = to_json(SCHEMA, &Report { snapshots: taken.into_iter().map(line).collect() });
        show!("{}", text.map_err(|error| Failure::from_error("print the snapshots", &error))?);
    }
    let mut failures: Vec<Failure> = Vec::new();
    for (place, outcome) in &outcomes {
        let (Some(database), Err(error)) = (home.databases.get(*place), outcome) else { continue };
        failures.push(failure(&format!("take a snapshot of {database}"), error));
    }
    if stopped {
        let words = "it was asked to stop; nothing is visible of what was not complete";
        failures.push(Failure::new("dump every database", words));
    }
    // The last one is told at the end.
    let last = failures.pop();
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    last.map_or(Ok(()), Err)
}

/// About how large the dumps will be, together; for progress only, and only where all of them tell.
async fn size_of(home: &Home) -> Option<u64> {
    let mut size = 0;
    for database in &home.databases {
        size += size_of_one(home, database).await?;
    }
    Some(size)
}

async fn size_of_one(home: &Home, database: &str) -> Option<u64> {
    let to = home.conninfo.with_dbname(database);
    let client = SqlClient::connect_to(&to, &home.host, "walseal snapshot").await.ok()?;
    // By the planner's figure, which takes no lock. Indexes and what belongs to the server itself are not dumped.
    let sql = "select (coalesce(sum(relpages::int8), 0) * current_setting('block_size')::int8)::int8 from pg_class \
               where relkind in ('r', 't') and oid >= 16384";
    let row = client.query_one("asking for the size failed", sql, &[]).await.ok()?;
    client.close().await;
    u64::try_from(row.get::<_, i64>(0)).ok()
}

fn line(taken: &Taken) -> Line {
    let SnapshotLabel {
        id, start_time, dump_size, stored_size, postgres_version, dump_version, whole, hold_until, ..
    } = taken.label.clone();
    let (tables, rows) = counted(&taken.facts);
    Line {
        database: taken.database.clone(),
        id: id.to_string(),
        start_time,
        seconds: taken.took.as_secs_f64(),
        dump_size,
        stored_size,
        postgres_version,
        dump_version,
        whole,
        tables,
        rows,
        unread: unread(&taken.facts),
        hold_until,
    }
}

/// How many tables were counted, and the rows of all of them.
fn counted(facts: &[SnapshotFact]) -> (usize, u64) {
    facts.iter().fold((0, 0), |(tables, all), fact| match fact {
        SnapshotFact::Table { rows, .. } => (tables + 1, all + rows),
        _ => (tables, all),
    })
}

fn unread(facts: &[SnapshotFact]) -> Vec<String> {
    let words = |fact: &SnapshotFact| match fact {
        SnapshotFact::Unread { schema: Some(schema), name, why } => Some(format!("{schema}.{name}: {why}")),
        SnapshotFact::Unread { schema: None, name, why } => Some(format!("{name}: {why}")),
        _ => None,
    };
    facts.iter().filter_map(words).collect()
}

fn print(taken: &Taken) {
    let label = &taken.label;
    let (tables, rows) = counted(&taken.facts);
    show!(
        "Snapshot {} of {}: {} in {} ({} stored), {tables} tables with {rows} rows, by pg_dump {}.{} ({}).",
        label.id,
        taken.database,
        units::size(label.dump_size),
        units::duration(Duration::from_secs_f64(taken.took.as_secs_f64())),
        units::size(label.stored_size),
        label.dump_version / 10_000,
        label.dump_version % 10_000,
        taken.program.path.display(),
    );
    if !label.whole {
        show!("It is a part of the database: counted is what is in it.");
    }
    for words in unread(&taken.facts) {
        show!("Not in it: {words}");
    }
    for remark in &taken.remarks {
        show!("pg_dump: {remark}");
    }
}

fn failure(doing: &str, error: &SnapshotError) -> Failure {
    let failure = Failure::from_error(doing, error);
    match error {
        SnapshotError::Failed { said, .. } if said.contains("permission denied for large object") => failure
            .next("as a superuser, for each: GRANT SELECT ON LARGE OBJECT … TO the role of the connection string")
            .next("dump as their owner or as a superuser"),
        SnapshotError::Failed { said, .. } if said.contains("permission denied") => failure
            .next("as a superuser: GRANT pg_read_all_data TO the role of the connection string")
            .next("leave out what it may not read: --exclude-table, --exclude-schema"),
        SnapshotError::Failed { said, .. } if said.contains("row-level security") => failure
            .next("dump as a role that row security does not apply to: ALTER ROLE … BYPASSRLS")
            .next("leave the table out: --exclude-table"),
        SnapshotError::Server(error) if error.sqlstate() == Some("3D000") => {
            failure.next("name a database that is there with --database")
        }
        _ => failure,
    }
}
