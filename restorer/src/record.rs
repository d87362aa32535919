//! What of a restore goes to the ledger, where this side has a key to sign it with.

use std::path::Path;
use std::time::Duration;

use walseal_common::config::{Config, OpenError};
use walseal_common::repository::{Act, FailureClass, Ledger, LedgerSigner, Repository, TargetFact, obscured};
use walseal_common::seal::{Role, TrustedWriter};

use crate::access::Access;
use crate::instance::{Landing, Reached};
use crate::plan::{Plan, Target};
use crate::rebuild::RebuildError;

/// How long the end of a restore may wait for its last entries.
pub const LAST_ENTRIES: Duration = Duration::from_secs(10);

/// Who signs; `None` where no writer key is configured.
pub fn signer(config: &Config) -> Result<Option<LedgerSigner>, OpenError> {
    if config.keys.writer_key_file.is_none() {
        return Ok(None);
    }
    let program = concat!("walseal-restorer ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(Some(LedgerSigner { writer: config.open_writer_key()?, actor: config.actor(), program }))
}

/// The ledger to record in. Where there is no key, that is said, and nothing is recorded: a restore must not fail for want of
/// a record.
pub fn ledger(access: &Access) -> Ledger {
    match signer(&access.config) {
        Ok(Some(signer)) => Ledger::start(&access.repository, signer),
        Ok(None) => {
            tracing::info!("not recorded in the ledger: keys.writer_key_file names no key for this host");
            Ledger::none()
        }
        Err(error) => {
            tracing::warn!(%error, "not recorded in the ledger: the writer key cannot be used on this host");
            Ledger::none()
        }
    }
}

/// The repository, read with the eyes of somebody who also trusts what this host recorded itself.
pub fn with_own(access: &Access) -> Repository {
    let mut trust = access.repository.trust().clone();
    match signer(&access.config) {
        Ok(Some(signer)) => trust.add(TrustedWriter { key: signer.writer.public(), roles: vec![Role::Drill] }),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the writer key cannot be used on this host"),
    }
    Repository::new(access.repository.store().clone(), access.repository.cluster(), trust)
}

/// A restore begins to write.
pub fn started(plan: &Plan, directory: &Path) -> Act {
    let target = match &plan.request.target {
        Target::Latest => TargetFact::Latest,
        Target::Immediate => TargetFact::Immediate,
        Target::Time(time) => TargetFact::Time(time.to_jiff_saturating()),
        Target::Lsn(lsn) => TargetFact::Lsn(*lsn),
        Target::Xid(xid) => TargetFact::Xid(*xid),
        Target::Name(name) => TargetFact::Name(obscured(name)),
    };
    let branch = plan.path.last().map_or(plan.base.branch, |step| step.branch);
    Act::RestoreStarted { target, base: plan.base.id.clone(), branch, stop: plan.stop, directory: shown(directory) }
}

/// A restore is done.
pub fn finished(directory: &Path, bytes: u64, took: Duration, landing: Option<&Landing>) -> Act {
    let recovery = landing.map(|landing| match landing.reached {
        Reached::Promoted => "promoted",
        Reached::Paused { .. } => "paused",
        Reached::ShutDown => "shut-down",
    });
    let last_time = landing.and_then(|landing| landing.last_time).and_then(|time| time.to_jiff());
    Act::RestoreFinished { directory: shown(directory), bytes, seconds: took.as_secs_f64(), recovery, last_time }
}

/// A restore came to nothing.
pub fn failed(directory: &Path, class: FailureClass) -> Act {
    Act::RestoreFailed { directory: shown(directory), class }
}

/// What failed, for the ledger.
pub fn class(error: &RebuildError) -> FailureClass {
    match error {
        RebuildError::Backup { .. } | RebuildError::Repository(_) => FailureClass::Repository,
        RebuildError::Refused { .. } | RebuildError::Io { .. } => FailureClass::Machine,
        RebuildError::Thread(_) => FailureClass::Other,
    }
}

fn shown(directory: &Path) -> String {
    obscured(&directory.to_string_lossy())
}
