//! `snapshot list`.

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use walseal_common::repository::{RepositoryError, SnapshotId, SnapshotProof};
use walseal_common::show;
use walseal_common::terminal::{Align, Failure, Look, Schema, Table, printable, to_json, units};

use super::failure;
use crate::access::Access;
use crate::cmd::list::proven_words;
use crate::record;
use crate::snapshot::contents::Counted;
use crate::snapshot::{Contents, SnapshotError};

const LIST: Schema = Schema { name: "snapshots", version: 1 };

/// Labels and facts that are read at a time.
const AT_ONCE: usize = 8;

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only this one, with its tables
    id: Option<SnapshotId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One snapshot of the list.
#[derive(Serialize)]
pub(in crate::cmd) struct Line {
    id: SnapshotId,
    /// What is wrong with it; then nothing else is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    found: Option<Found>,
}

#[derive(Serialize)]
struct Found {
    database: String,
    label: Option<String>,
    start_time: Timestamp,
    stop_time: Timestamp,
    postgres_version: u32,
    dump_version: u32,
    lsn: Option<String>,
    hold_until: Option<Timestamp>,
    whole: bool,
    selection: Vec<String>,
    dump_size: u64,
    stored_size: u64,
    globals: bool,
    /// Whether a drill passed; null before one has run.
    proven: Option<bool>,
    /// When one last did.
    proven_at: Option<Timestamp>,
    tables: usize,
    rows: u64,
    unread: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<Counted>>,
}

#[derive(Serialize)]
struct Document<'a> {
    snapshots: &'a [Line],
}

pub(super) async fn show(arguments: &List, access: &Access) -> Result<(), Failure> {
    let lines = lines(arguments.id.as_ref(), access).await;
    let lines = lines.map_err(|error| failure("list the snapshots", &error.into()))?;
    if arguments.json {
        let text = to_json(LIST, &Document { snapshots: &lines });
        show!("{}", text.map_err(|error| Failure::from_error("print the list", &error))?);
    } else {
        print(&lines);
    }
    match lines.iter().find_map(|line| line.error.as_ref()) {
        None => Ok(()),
        Some(first) => Err(Failure::new("read every snapshot", printable(first))),
    }
}

/// What each snapshot says of itself, or this one, with its tables.
///
/// Errors: the store's; what is wrong with a snapshot stands in its line.
pub(in crate::cmd) async fn lines(only: Option<&SnapshotId>, access: &Access) -> Result<Vec<Line>, RepositoryError> {
    let ids = match only {
        Some(id) => vec![id.clone()],
        None => access.repository.snapshot_ids().await?,
    };
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let drills = record::with_own(access).snapshot_drills().await?;
    let proof = SnapshotProof::of(&drills, Timestamp::now());
    let proof = &proof;
    let lines = stream::iter(ids).map(|id| async move {
        match look(&id, only.is_some(), proof, access).await {
            Ok(found) => Line { id, error: None, found: Some(found) },
            Err(error) => Line { id, error: Some(error.to_string()), found: None },
        }
    });
    Ok(lines.buffered(AT_ONCE).collect().await)
}

async fn look(
    id: &SnapshotId,
    with_counts: bool,
    proof: &SnapshotProof,
    access: &Access,
) -> Result<Found, SnapshotError> {
    let label = access.repository.snapshot(id).await?;
    let contents = Contents::read(&access.repository, &label, &access.identities).await?;
    let (tables, rows) = (contents.tables.len(), contents.rows());
    Ok(Found {
        database: contents.database,
        label: contents.label,
        start_time: label.start_time,
        stop_time: label.stop_time,
        postgres_version: label.postgres_version,
        dump_version: label.dump_version,
        lsn: label.lsn.map(|lsn| lsn.to_string()),
        hold_until: label.hold_until,
        whole: label.whole,
        selection: contents.selection,
        dump_size: label.dump_size,
        stored_size: label.stored_size,
        globals: !label.globals.is_empty(),
        proven: proof.of_snapshot(id),
        proven_at: proof.proven_at(id),
        tables,
        rows,
        unread: contents.unread.iter().map(ToString::to_string).collect(),
        counts: with_counts.then_some(contents.tables),
    })
}

fn print(lines: &[Line]) {
    if lines.is_empty() {
        show!("No snapshots. One is taken with: walseal-archiver snapshot");
        return;
    }
    show!("{}", table(lines, Look::of_stdout(), Timestamp::now()));
    for found in lines.iter().filter_map(|line| line.found.as_ref()) {
        let Some(counts) = &found.counts else { continue };
        let mut table = Table::new([("schema", Align::Left), ("table", Align::Left), ("rows", Align::Right)]);
        for one in counts {
            table.row([one.schema.clone(), one.name.clone(), one.rows.to_string()]);
        }
        show!("\n{}", table.render(Look::of_stdout()));
        for words in &found.unread {
            show!("not in it: {}", printable(words));
        }
    }
}

/// A line for each.
pub(in crate::cmd) fn table(lines: &[Line], look: Look, now: Timestamp) -> String {
    let mut table = Table::new([
        ("snapshot", Align::Left),
        ("database", Align::Left),
        ("dump", Align::Right),
        ("stored", Align::Right),
        ("tables", Align::Right),
        ("rows", Align::Right),
        ("proven", Align::Left),
        ("held until", Align::Left),
        ("label", Align::Left),
    ]);
    for line in lines {
        match &line.found {
            Some(found) => table.row([
                line.id.to_string(),
                if found.whole { found.database.clone() } else { format!("part of {}", found.database) },
                units::size(found.dump_size),
                units::size(found.stored_size),
                found.tables.to_string(),
                found.rows.to_string(),
                proven_words(found.proven, found.proven_at, now),
                found.hold_until.map(|time| format!("{time:.0}")).unwrap_or_default(),
                found.label.clone().unwrap_or_default(),
            ]),
            None => table.row([line.id.to_string(), "cannot be read".to_owned()]),
        }
    }
    table.render(look)
}
