//! `list`: what can be restored.

mod listing;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use walseal_common::repository::Proof;
use walseal_common::show;
use walseal_common::terminal::{Failure, Look, Progress, Schema, to_json, units};
use walseal_common::time::PgTimestamp;

use self::listing::Listing;
use super::snapshot::list as snapshots;
use super::target::refusal;
use crate::access::Access;
use crate::heads;
use crate::plan::points::restore_points;
use crate::plan::windows::windows;
use crate::plan::{Inventory, InventoryError, PlanError};
use crate::record;

const SCHEMA: Schema = Schema { name: "list", version: 1 };

/// What `list` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also list the named restore points: opens all WAL from the first base backup on
    #[arg(long)]
    restore_points: bool,
    /// Also say how many bytes lie there, by kind: lists every object
    #[arg(long)]
    usage: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows windows, base backups and snapshots, and the restore points where they are asked for.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let mut listing = survey(arguments.restore_points, access).await.map_err(|error| refusal(&error))?;
    let missed = heads::missed(access, listing.segment_size()).await;
    listing.cut_off = missed.map_err(|error| refusal(&InventoryError::from(error).into()))?;
    if arguments.usage {
        let usage = access.repository.usage().await.map_err(|error| refusal(&InventoryError::from(error).into()))?;
        listing.usage = Some(usage);
    }
    if arguments.json {
        let text = to_json(SCHEMA, &listing).map_err(|error| Failure::from_error("print the list", &error))?;
        show!("{text}");
    } else {
        print!("{}", listing.render(Look::of_stdout(), Timestamp::now()));
    }
    Ok(())
}

async fn survey(with_points: bool, access: &Access) -> Result<Listing, PlanError> {
    let (repository, identities) = (&access.repository, &access.identities);
    let mut inventory = Inventory::read(repository, identities).await?;
    let points = if with_points {
        let progress = Progress::new("reading WAL", None);
        let found = restore_points(repository, identities, &mut inventory, &progress).await;
        progress.abandon();
        Some(found?)
    } else {
        None
    };
    // Last, because what is of no use shows only when WAL is opened.
    let found = windows(repository, identities, &mut inventory).await?;
    let drills = record::with_own(access).drills().await.map_err(InventoryError::from)?;
    let now = Timestamp::now();
    let proof = Proof::of(&drills, now);
    let snapshots = snapshots::lines(None, access).await.map_err(InventoryError::from)?;
    Ok(Listing::new(&inventory, found, points, &proof, snapshots, now))
}

/// Whether a drill of something passed, and how long ago.
pub(super) fn proven_words(proven: Option<bool>, at: Option<Timestamp>, now: Timestamp) -> String {
    match (proven, at) {
        (None, _) => "no drill yet".to_owned(),
        (Some(_), Some(time)) => units::ago(PgTimestamp::from_jiff(now), PgTimestamp::from_jiff(time)),
        (Some(_), None) => "NO: its drill failed".to_owned(),
    }
}
