//! A restore or a drill that serves the server which it has started: that server's user needs neither configuration nor keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use walseal_common::config::Config;

use super::{Prefetcher, Premises, PremisesError};
use crate::fetch::{Opening, WorkingDirectory};
use crate::rebuild::{RebuildError, Restored, served_command};

/// How long a prefetcher of an earlier restore to the same place may take to notice that there is another plan.
const MOVING_OUT: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const GLANCE: Duration = Duration::from_millis(100);

/// One who answers everybody. Dropped, it ends.
#[derive(Debug)]
pub struct Serving {
    folder: PathBuf,
    task: JoinHandle<()>,
}

impl Serving {
    /// Answers whoever runs recovery on a directory that was just restored, with what `config` names.
    ///
    /// Errors: another process serves there; the disk.
    pub async fn begin(config: &Arc<Config>, restored: &Restored) -> Result<Serving, PremisesError> {
        let (data, owner) = (&restored.layout.data, &restored.layout.owner);
        let begun = Instant::now();
        loop {
            let opening = Opening {
                config: config.clone(),
                plan: Some(restored.plan_file.clone()),
                cluster: None,
                place: WorkingDirectory::at(data),
            };
            let premises = Premises::beside(data, owner.uid, false)?;
            match Prefetcher::move_in(premises, data, owner, opening, config.fetch.prefetch.value) {
                Err(PremisesError::Taken(_)) if begun.elapsed() < MOVING_OUT => tokio::time::sleep(GLANCE).await,
                moved => return Ok(moved?.serve_all()),
            }
        }
    }

    pub(super) fn new(folder: PathBuf, task: JoinHandle<()>) -> Serving {
        Serving { folder, task }
    }

    /// The `restore_command` by which `program`, this one's path, asks it.
    ///
    /// Errors: a path that cannot stand in a command.
    pub fn command(&self, program: &Path) -> Result<String, RebuildError> {
        served_command(program, &self.folder)
    }

    /// Where it is asked: what `fetch --from` names.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
