//! Every precondition, one line each, with its fix; and at the end a message that goes the whole way.
//!
//! Each check is told as soon as it has ended, because some take a while. A check that needs what an earlier one did not find is
//! left out; the earlier one says why. A check that could not be made is no pass.

mod failover;
mod finding;
mod holdings;
mod home;
mod keys;
mod message;
mod retention;
mod server;
pub mod settings;
mod store;
pub mod synchronous;
pub mod wal_room;

use walseal_common::config::{Config, OpenError, StoreUse};
use walseal_common::store::RetryPolicy;

pub use finding::{Finding, Verdict};
pub use message::Message;

use self::server::Seen;
use crate::archive::Archive;
use crate::canary;

/// The findings, as they come.
pub struct Examination<'a> {
    findings: Vec<Finding>,
    tell: &'a mut (dyn FnMut(&Finding) + Send),
}

impl Examination<'_> {
    fn add(&mut self, finding: Finding) {
        (self.tell)(&finding);
        self.findings.push(finding);
    }

    /// What was opened; else a finding that says why it was not.
    fn opened<T>(&mut self, check: &'static str, opened: Result<T, impl Into<OpenError>>) -> Option<T> {
        opened.map_err(|error| self.add(keys::refused(check, error.into()))).ok()
    }
}

/// What was found.
#[derive(Debug)]
pub struct Diagnosis {
    /// One for each precondition.
    pub findings: Vec<Finding>,
    /// The message that went the whole way; `None` where it did not, or none could be written, and a finding says why.
    pub message: Option<Message>,
}

impl Diagnosis {
    /// Whether all is as it must be, or at least works.
    pub fn is_healthy(&self) -> bool {
        let arrives = self.message.is_some() || self.findings.iter().any(|finding| finding.check == message::CHECK);
        arrives && self.findings.iter().all(Finding::passes)
    }
}

/// Looks at everything. `tell` hears of each finding at once.
pub async fn examine(config: Config, tell: &mut (dyn FnMut(&Finding) + Send)) -> Diagnosis {
    let mut examination = Examination { findings: Vec::new(), tell };
    let message = run(config, &mut examination).await;
    Diagnosis { findings: examination.findings, message }
}

async fn run(config: Config, examination: &mut Examination<'_>) -> Option<Message> {
    let file =
        config.file().map_or_else(|| "no file, the environment alone".to_owned(), |file| file.display().to_string());
    examination.add(Finding::fine("configuration", file));
    for warning in config.warnings() {
        examination.add(Finding::warning("configuration", warning));
    }
    let keys = keys::examine(&config, examination);
    let state_dir = examination.opened("state folder", config.need_state_dir());
    let progress = match &state_dir {
        Some(state_dir) => {
            examination.add(home::folder(state_dir));
            home::daemon(state_dir, examination).await
        }
        None => None,
    };

    // With keys the whole archive is opened, without them at least the store.
    let archive = match keys.is_some() {
        true => {
            let patience = RetryPolicy::while_a_person_waits();
            examination.opened("store", Archive::open_with(config.clone(), StoreUse::Conditional, patience).await)
        }
        false => None,
    };
    let probed = match &archive {
        Some(archive) => store::examine(archive.store.as_ref(), &archive.place(), examination).await,
        None => None,
    };

    if let (Some(archive), Some(probed)) = (&archive, &probed) {
        retention::examine(&config, archive.store.as_ref(), probed.capabilities.delete, examination).await;
    }

    let slot = examination.opened::<String>("slot", config.need_slot());
    let conninfo = examination.opened("server", config.open_conninfo());
    let streams = progress.as_ref().is_some_and(|progress| progress.connected);
    let seen = match (&conninfo, &slot) {
        (Some(conninfo), Some(slot)) => server::examine(&config, conninfo, slot, streams, examination).await,
        _ => None,
    };
    if let Some(Seen { sql: Some(sql), standby, .. }) = &seen {
        if let (Some(conninfo), Some(slot), false) = (&conninfo, &slot, standby) {
            failover::examine(conninfo, slot, sql, examination).await;
        }
        server::examine_archiving(sql, examination).await;
        if let (true, false, Some(conninfo)) = (config.wal.canary.value, standby, &conninfo) {
            examination.add(canary::finding(sql, conninfo.user()).await);
        }
    }
    if let (Some(archive), true) = (&archive, probed.is_some()) {
        let witness = holdings::Witness {
            cluster: seen.as_ref().map(|seen| seen.cluster),
            capabilities: probed.map(|probed| probed.capabilities),
            slot: seen.as_ref().and_then(|seen| seen.slot),
            branch: progress.as_ref().and_then(|progress| progress.branch),
        };
        holdings::examine(archive, &witness, examination).await;
    }

    let (Some(seen), Some(state_dir)) = (&seen, &state_dir) else { return None };
    let sql = seen.sql.as_ref()?;
    if seen.standby {
        examination.add(message::look(sql, state_dir, config.wal.ship_interval.value).await);
        return None;
    }
    match message::send(sql, state_dir, config.wal.ship_interval.value).await {
        Ok(message) => Some(message),
        Err(finding) => {
            examination.add(finding);
            None
        }
    }
}
