//! What was there before: the backup that is compared with, and what attempts left.

use jiff::Timestamp;
use walseal_common::clock;
use walseal_common::repository::{Label, Repository, RepositoryError};

use super::{BackupOptions, Source};
use crate::base::decision::{Candidate, Decision, Facts, Found};
use crate::base::error::BaseError;
use crate::base::known::{Known, PageReader, Sources};
use crate::base::progress::{Progress, Stage};

/// What was there before.
pub struct Earlier {
    /// The backup that is compared with; none for a full one.
    pub parent: Option<Label>,
    /// Frames that are referred to.
    pub known: Known,
    /// Reads pages of lists and manifests.
    pub reader: PageReader,
}

impl Earlier {
    /// Decides whether the backup is full or incremental, says so, and reads what is known of frames.
    ///
    /// Errors: the repository's. A list that cannot be used makes the backup full.
    pub async fn look(
        repository: &Repository,
        options: &BackupOptions,
        source: &Source,
        progress: &mut dyn Progress,
    ) -> Result<Earlier, BaseError> {
        let seal = |source| BaseError::Seal { name: "resume".to_owned(), source };
        let reader = PageReader::new(repository.clone(), options.cache.clone(), &options.keys.writer).map_err(seal)?;
        let writer = options.keys.writer.public().to_string();
        let facts = Facts { writer: &writer, ancestry: &source.ancestry };
        let found = find(repository, &facts).await?;
        let since = found.parent.as_ref().map(|parent| parent.id.clone()).or_else(|| found.newest.clone());
        let (parent, known) = match found.decide(options.mode, options.policy, Timestamp::now()) {
            Decision::Full { why } => {
                progress.report(Stage::Full { why });
                (None, None)
            }
            Decision::Incremental { parent } => {
                progress.report(Stage::Comparing { parent: parent.id.clone() });
                let sources = Sources { parent: Some(*parent.clone()), since: since.clone() };
                match Known::read(reader.clone(), &sources).await {
                    Ok(known) => (Some(*parent), Some(known)),
                    Err(error) => {
                        let why = format!("the list of frames of {} cannot be used: {error}", parent.id);
                        tracing::warn!(why, "the base backup is full");
                        progress.report(Stage::Full { why });
                        (None, None)
                    }
                }
            }
        };
        let known = match known {
            Some(known) => known,
            None => Known::read(reader.clone(), &Sources { parent: None, since }).await?,
        };
        if !known.attempts.is_empty() {
            progress.report(Stage::GoingOn { attempts: known.attempts.clone() });
        }
        if known.missing > 0 {
            progress.report(Stage::ObjectsMissing { count: known.missing });
        }
        Ok(Earlier { parent, known, reader })
    }
}

/// Reads labels from the newest on, for as long as older ones may matter.
async fn find(repository: &Repository, facts: &Facts<'_>) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    let now = Timestamp::now();
    for id in repository.base_ids().await?.iter().rev() {
        if id.begun().is_some_and(|begun| clock::was_wrong(begun, now)) {
            // It would be the newest one, and young, for as long as its time is still to come: no full one would be due until then.
            tracing::info!(%id, "this base backup was begun by a clock that was wrong, and is not compared with");
            continue;
        }
        match repository.signed_label(id).await {
            Ok((label, writer)) => {
                if found.take(facts, Candidate { label, writer }) {
                    break;
                }
            }
            Err(error) if error.is_permanent() => tracing::warn!(%id, %error, "this base backup does not count"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
