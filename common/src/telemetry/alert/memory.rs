//! Alerts that stand, kept beside a daemon's state, so that a restart neither tells them anew nor forgets to tell their end. Losing the
//! file costs that, and nothing else (I8).

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{AlertKind, Alerts, OpenAlert};
use crate::state_file;

/// Alerts that are kept, at most (I11).
const MOST: usize = 1000;

/// What stood when it was last written.
#[derive(Serialize, Deserialize)]
struct Content {
    of: String,
    alerts: Vec<OpenAlert>,
}

/// What was written of a repository of `place`: whose alerts they are, and these.
fn content_in(path: &Path, place: &str) -> Option<(String, Vec<OpenAlert>)> {
    let content = state_file::load::<Content>(path)?;
    let owner = content.of.strip_suffix(&format!(" in {place}"))?;
    Some((owner.to_owned(), content.alerts))
}

/// A file that remembers what stands.
#[derive(Clone, Debug)]
pub struct AlertMemory {
    path: PathBuf,
    of: String,
    /// Held by whoever writes, so that what was seen last is written last.
    writing: Arc<Mutex<()>>,
}

impl AlertMemory {
    /// The file. `of` says whose alerts they are: those of another repository are nobody's.
    pub fn new(path: PathBuf, of: impl Into<String>) -> AlertMemory {
        AlertMemory { path, of: of.into(), writing: Arc::default() }
    }

    /// Puts back what stood when the last daemon ended, before anything is raised. Whether that was anything.
    pub fn recall(&self, alerts: &Alerts) -> bool {
        let standing = self.standing();
        let any = !standing.is_empty();
        for alert in &standing {
            let OpenAlert { kind, subject, since, text, .. } = alert;
            tracing::info!(alert = %kind, %subject, %since, "stood when the last daemon ended: {text}");
        }
        alerts.recall(standing);
        any
    }

    /// What stood when it was last written.
    pub fn standing(&self) -> Vec<OpenAlert> {
        let content = state_file::load::<Content>(&self.path).filter(|content| content.of == self.of);
        content.map(|content| content.alerts).unwrap_or_default()
    }

    /// Puts back what stood of these kinds in a repository of `place`, for a daemon that does not know yet which one is its own.
    pub fn recall_kinds(path: &Path, place: &str, kinds: &[AlertKind], alerts: &Alerts) {
        let mut standing = content_in(path, place).map(|(_, alerts)| alerts).unwrap_or_default();
        standing.retain(|alert| kinds.contains(&alert.kind));
        alerts.recall(standing);
    }

    /// Whose alerts of a repository of `place` were written there last: what stands before ` in PLACE`.
    pub fn owner(path: &Path, place: &str) -> Option<String> {
        content_in(path, place).map(|(owner, _)| owner)
    }

    /// Writes down what stands, whenever that changes.
    pub async fn keep(self, alerts: Alerts) -> Infallible {
        let mut changed = alerts.changes();
        loop {
            // What changes while it is written is written the next time.
            changed.mark_unchanged();
            let (memory, of) = (self.clone(), alerts.clone());
            let saved = tokio::task::spawn_blocking(move || memory.save(&of)).await;
            if let Err(error) = saved {
                tracing::debug!(%error, "the alerts that stand were not written down");
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Removes the file: nothing stands that it knows.
    pub fn forget(&self) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "it cannot be removed; after a restart the end of what it holds is told again");
        }
    }

    /// Writes down what stands now. That it cannot is in the log: the next daemon then tells it anew.
    pub fn save(&self, alerts: &Alerts) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = alerts.standing();
        standing.truncate(MOST);
        let content = Content { of: self.of.clone(), alerts: standing };
        let folder = self.path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| state_file::save(&self.path, &content)) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the alerts that stand are not written down; after a restart they are told anew");
        }
    }
}
