//! What a backup says while it goes on.

use std::time::Duration;

use walseal_common::lsn::Lsn;
use walseal_common::repository::BaseId;

/// Where a backup stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is incremental: what the backup before has is read.
    Comparing {
        /// The backup that is compared with.
        parent: BaseId,
    },
    /// It is full.
    Full {
        /// Why.
        why: String,
    },
    /// It is incremental, and the server sends only what has changed.
    Native,
    /// It is incremental, and the server, which might do otherwise, sends everything.
    NotNative {
        /// Why.
        why: String,
    },
    /// Backups that were interrupted had stored frames, which are referred to.
    GoingOn {
        /// Which.
        attempts: Vec<BaseId>,
    },
    /// Objects that earlier backups need are not in the repository any more: their frames are stored anew.
    ObjectsMissing {
        /// How many.
        count: usize,
    },
    /// The server makes its checkpoint; nothing is sent before that.
    Checkpoint {
        /// The backup's id.
        id: BaseId,
    },
    /// The server sends its files.
    Copying {
        /// Bytes received.
        done: u64,
        /// Bytes that the server expected at the start; the cluster may have grown or shrunk since. At the end
        /// `done` may be less or more.
        total: Option<u64>,
    },
    /// Everything has arrived; the last objects are being stored.
    Storing,
    /// The files are stored; the WAL that they need is not yet. Said again every second.
    WaitingForWal {
        /// What must be durable in the repository.
        through: Lsn,
        /// For how long it has been waited for.
        waited: Duration,
    },
    /// All is there; the label is being written. From here on the backup may be visible.
    Labelling,
    /// The server found page checksums that fail; the backup goes on and will be marked (case 31).
    ChecksumFailure {
        /// What the server says, in its language.
        message: String,
    },
}

/// Takes reports of a backup; called often, so it must not block.
pub trait Progress: Send {
    /// The backup has come this far.
    fn report(&mut self, stage: Stage);
}

/// Nobody looks.
impl Progress for () {
    fn report(&mut self, _: Stage) {}
}

/// A function that is called with each report.
impl<F: FnMut(Stage) + Send> Progress for F {
    fn report(&mut self, stage: Stage) {
        self(stage);
    }
}
