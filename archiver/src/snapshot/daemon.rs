//! The daemon of those who only dump: no stream, no slot, no socket, and nothing on this host's disk.

use std::sync::Arc;
use std::time::Duration;

use walseal_common::config::Config;
use walseal_common::repository::{Act, Ledger};
use walseal_common::telemetry::{self, AlertMemory, Alerts};

use super::figures::FigurePages;
use super::keeper::Keeper;
use crate::archive::{Archive, LAST_ENTRIES};
use crate::daemon::{DaemonError, Signals, couriers, dead_man_switch, listen, notify};
use crate::lookout;

/// How long its end may wait for alerts to be told.
const LAST_ALERTS: Duration = Duration::from_secs(5);

/// Takes snapshots when they are due, until SIGTERM or SIGINT. A dump that is under way is broken off: nothing of it is visible (I7).
///
/// Errors: nothing is configured to be dumped; what the configuration names cannot be used.
pub async fn run(archive: Archive) -> Result<(), DaemonError> {
    let conninfo = archive.config.open_conninfo()?;
    // The ledger begins with the first look at the repository, which may not be there yet.
    let couriers = couriers(&archive.config, &Ledger::none())?;
    let alerts = Alerts::to(couriers.outlets());
    let memory = memory(&archive.config);
    if let Some(memory) = &memory {
        memory.recall(&alerts);
    }
    lookout::judge_recipients(&alerts, &archive.keys.recipients);
    let keeper = Keeper::of(&archive, conninfo, alerts.clone(), None).map_err(DaemonError::SnapshotZone)?;
    let keeper = keeper.ok_or(DaemonError::NothingToDo)?.telling(dead_man_switch(&archive.config)?);
    let keeper = keeper.expecting_proof(archive.config.alerts.proven_within.value);
    let listener = listen(&archive.config).await?;
    let mut signals = Signals::new()?;
    tracing::info!("wal.enabled is false: snapshots are taken, and nothing else");
    let figures = keeper.figures.clone();
    let ledger = keeper.ledger.clone();
    let serving = async {
        match listener {
            Some(listener) => telemetry::serve(&listener, Arc::new(FigurePages(figures))).await,
            None => std::future::pending().await,
        }
    };
    let after = archive.config.alerts.remind_after.value;
    let reminding = async { match alerts.remind(after).await {} };
    let (kept, standing) = (memory.clone(), alerts.clone());
    let remembering = async {
        match kept {
            Some(memory) => match memory.keep(standing).await {},
            None => std::future::pending().await,
        }
    };
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        () = keeper.keep() => {}
        () = serving => {}
        () = reminding => {}
        () = remembering => {}
        name = signals.next() => tracing::info!("{name}: stopping"),
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    if let Some(memory) = &memory {
        memory.save(&alerts);
    }
    let written = async {
        if let Some(ledger) = ledger.get() {
            ledger.record(Act::DaemonStopped { bytes_left: 0, asked: true });
            ledger.finish(LAST_ENTRIES).await;
        }
    };
    tokio::join!(couriers.finish(LAST_ALERTS), written);
    Ok(())
}

/// What remembers alerts, where a folder is configured: else nothing is written on this host.
fn memory(config: &Config) -> Option<AlertMemory> {
    let folder = &config.cluster.state_dir.as_ref()?.value;
    let of = config.need_repository().ok()?.value.to_string();
    Some(AlertMemory::new(folder.join("snapshot-alerts.json"), of))
}
