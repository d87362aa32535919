//! `plan`: explain a restore before a byte moves.

use std::fmt::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, printable, to_json, units};

use super::place::PlaceArguments;
use super::target::{TargetArguments, refusal};
use crate::access::Access;
use crate::heads;
use crate::plan::{self, Estimate, PLAN_SCHEMA, Plan, Request};
use crate::rebuild::{Destination, Room, check_space, needs, room_for};

/// What `plan` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    /// The data directory that a restore would make: also tells the space that it needs there, and what is free
    #[arg(long, value_name = "D")]
    target_dir: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The plan, with what is not kept beside the data directory.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    estimate: Estimate,
    /// Where a target was given.
    space: Option<&'a [Room]>,
}

/// Makes the plan and explains it.
pub async fn run(arguments: &Arguments, request: &Request, access: &Access) -> Result<(), Failure> {
    let destination = arguments.target_dir.as_deref().map(|data| arguments.place.destination(data)).transpose()?;
    run_for(destination.as_ref(), request, access, arguments.json).await
}

/// The same for a restore to `destination`, where there is one.
pub(super) async fn run_for(
    destination: Option<&Destination>,
    request: &Request,
    access: &Access,
    json: bool,
) -> Result<(), Failure> {
    let plan = make(access, request).await?;
    let rooms = match destination {
        None => None,
        Some(destination) => {
            let rooms = room_for(&plan, destination, &access.repository, &access.identities).await;
            Some(rooms.map_err(|error| super::restore::failure(&error))?)
        }
    };
    if json {
        let report = Report { plan: &plan, estimate: plan.estimate(), space: rooms.as_deref() };
        let text = to_json(PLAN_SCHEMA, &report).map_err(|error| Failure::from_error("print the plan", &error))?;
        show!("{text}");
    } else {
        print!("{}{}", plan.explain(), printable(&rooms.as_deref().map(space).unwrap_or_default()));
    }
    Ok(())
}

/// Makes the plan, with progress on standard error while WAL is read.
pub async fn make(access: &Access, request: &Request) -> Result<Plan, Failure> {
    let progress = Progress::new("reading WAL", None);
    let planned = plan::plan(&access.repository, &access.identities, request, Some(&progress)).await;
    progress.abandon();
    let mut plan = planned.map_err(|error| refusal(&error))?;
    plan::check_presence(&access.repository, &plan).await.map_err(|error| refusal(&error))?;
    let missed = heads::missed(access, plan.segment_size).await;
    let missed = missed.map_err(|error| refusal(&plan::InventoryError::from(error).into()))?;
    plan.warnings.extend(missed.iter().map(|cut| format!("{}.", cut.words())));
    plan.warnings.extend(plan::leaving(&access.repository, &plan, Timestamp::now()).await);
    Ok(plan)
}

/// What is needed where, and what is free there, a line for each folder.
fn space(rooms: &[Room]) -> String {
    let mut text = "\nSpace:\n".to_owned();
    for room in rooms {
        let (needed, free) = (units::size(room.files.saturating_add(room.wal)), units::size(room.free));
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:<16} needs {needed}, {free} free in {}", room.what, room.folder);
    }
    let filesystems = needs(rooms);
    if filesystems.len() < rooms.len() {
        let _ = writeln!(text, "  (some of these folders share a file system, and what is free on it)");
    }
    if let Err(short) = check_space(&filesystems) {
        let _ = writeln!(text, "Warning: {short}.");
    }
    text
}
