//! `list`: what can be restored.

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::BaseId;
use walseal_common::show;
use walseal_common::terminal::{Align, Failure, Look, Schema, Table, printable, to_json, units};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::target::refusal;
use crate::access::Access;
use crate::plan::windows::{Window, windows};
use crate::plan::{Inventory, PlanError};

const SCHEMA: Schema = Schema { name: "list", version: 1 };

/// What `list` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a repository can restore.
#[derive(Serialize)]
struct Listing {
    repository: String,
    cluster: String,
    postgres_major: u32,
    segment_size: u64,
    windows: Vec<Window>,
    bases: Vec<Base>,
    /// Base backups whose label does not verify.
    unusable: Vec<Unusable>,
}

#[derive(Serialize)]
struct Base {
    id: BaseId,
    branch: Branch,
    start: Lsn,
    stop: Lsn,
    start_time: Timestamp,
    stop_time: Timestamp,
    postgres_version: u32,
    cluster_size: u64,
    stored_size: u64,
    tablespaces: u32,
    suspect: u64,
}

#[derive(Serialize)]
struct Unusable {
    id: BaseId,
    why: String,
}

/// Shows windows and base backups.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let inventory = Inventory::read(&access.repository, &access.identities)
        .await
        .map_err(|error| refusal(&PlanError::from(error)))?;
    let found = windows(&access.repository, &access.identities, &inventory).await.map_err(|error| refusal(&error))?;
    let listing = Listing::new(&inventory, found);
    if arguments.json {
        let text = to_json(SCHEMA, &listing).map_err(|error| Failure::from_error("print the list", &error))?;
        show!("{text}");
    } else {
        print!("{}", listing.render(Look::of_stdout()));
    }
    Ok(())
}

impl Listing {
    fn new(inventory: &Inventory, windows: Vec<Window>) -> Listing {
        let bases = inventory.bases.iter().map(|label| Base {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            start_time: label.start_time,
            stop_time: label.stop_time,
            postgres_version: label.postgres_version,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            tablespaces: label.tablespaces,
            suspect: label.suspect,
        });
        let unusable = inventory.unusable.iter().map(|base| Unusable { id: base.id.clone(), why: base.why.clone() });
        Listing {
            repository: inventory.store.clone(),
            cluster: inventory.identity.cluster.to_string(),
            postgres_major: inventory.identity.postgres_major,
            segment_size: inventory.identity.segment_size.bytes(),
            windows,
            bases: bases.collect(),
            unusable: unusable.collect(),
        }
    }

    fn render(&self, look: Look) -> String {
        let mut text = format!(
            "{}: cluster {}, PostgreSQL {}, WAL segments of {}\n\n",
            self.repository,
            self.cluster,
            self.postgres_major,
            units::size(self.segment_size)
        );
        if self.windows.is_empty() {
            text.push_str("Nothing can be restored: no base backup has its WAL here.\n");
        } else {
            let mut table = Table::new([
                ("timeline", Align::Right),
                ("any second from", Align::Left),
                ("to", Align::Left),
                ("WAL from", Align::Right),
                ("to", Align::Right),
                ("base backups", Align::Right),
            ]);
            for window in &self.windows {
                table.row([
                    window.timeline.number().to_string(),
                    time(window.from_time),
                    time(window.to_time),
                    window.from.to_string(),
                    window.to.to_string(),
                    window.bases.len().to_string(),
                ]);
            }
            text.push_str(&format!("{}\n", table.render(look)));
        }
        for window in &self.windows {
            if let Some(gap) = &window.gap {
                let size = units::size(gap.len());
                let timeline = window.timeline.number();
                text.push_str(&format!(
                    "Gap on timeline {timeline}: {} to {} ({size}) is missing.\n",
                    gap.start, gap.end
                ));
            }
        }
        if !self.bases.is_empty() {
            let mut table = Table::new([
                ("base backup", Align::Left),
                ("timeline", Align::Right),
                ("ended", Align::Left),
                ("complete at", Align::Right),
                ("files", Align::Right),
                ("stored", Align::Right),
                ("", Align::Left),
            ]);
            for base in &self.bases {
                let suspect = match base.suspect {
                    0 => String::new(),
                    failures => format!("suspect: {failures} page checksum failure(s)"),
                };
                table.row([
                    base.id.to_string(),
                    base.branch.timeline.number().to_string(),
                    PgTimestamp::from_jiff(base.stop_time).to_string(),
                    base.stop.to_string(),
                    units::size(base.cluster_size),
                    units::size(base.stored_size),
                    suspect,
                ]);
            }
            text.push_str(&format!("\n{}\n", table.render(look)));
        }
        for base in &self.unusable {
            text.push_str(&format!("Not usable: base backup {}: {}\n", base.id, base.why));
        }
        printable(&text)
    }
}

fn time(time: Option<PgTimestamp>) -> String {
    time.map_or_else(|| "(no transaction)".to_owned(), |time| time.to_string())
}
