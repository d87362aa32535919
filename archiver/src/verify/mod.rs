//! Whether the repository is whole, without keys that open it: names and records first, then every object. A round over everything can
//! be stopped at any time, and goes on where it was; that it was lost costs time and nothing else (I8).

mod keeper;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::config::{Config, OpenError, StoreUse};
use walseal_common::repository::{BranchFrontier, Heads, Reader, Repository, RepositoryError, Survey, Witness};
use walseal_common::seal::{TrustedWriter, TrustedWriters};
use walseal_common::state_file;
use walseal_common::store::{Throttle, ThrottleLimits};
use walseal_common::terminal::Verification;
use walseal_common::timeline::SystemIdentifier;

pub use keeper::Keeper;
pub use record::Verified;

use crate::archive::{Archive, ArchiveError};
use crate::stream::Progress;
use crate::told::Told;
use record::{Record, Round};

/// The newest of the repository, as this host has seen it: a file of `cluster.state_dir`.
const HEADS: &str = "heads.json";

/// It could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The configuration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No repository could be chosen.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Nobody is trusted.
    #[error(
        "no writer is trusted, and what nobody trusted has signed cannot be told from a forgery; name the archiver's writer in \
         keys.trusted_writers (walsealw1…, on the recovery card), or its key in keys.writer_key_file"
    )]
    NobodyTrusted,
    /// The state folder.
    #[error("{}: {source}; what this host remembers is in cluster.state_dir", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is to be verified, and how.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Names and records only.
    pub quick: bool,
    /// Go on with the round that was interrupted.
    pub resume: bool,
    /// Only objects that the store took after this, in seconds since 1970.
    pub since: Option<i64>,
    /// Take what is there now for what was.
    pub accept: bool,
    /// What somebody has seen, beside what this host remembers.
    pub seen: Vec<BranchFrontier>,
}

/// Verifies one repository.
#[derive(Debug)]
pub struct Verifier {
    repository: Repository,
    /// `None`: nothing is remembered.
    state_dir: Option<PathBuf>,
}

impl Verifier {
    /// Verifies `repository`, reading at most so many bytes of objects a second; `None` or 0 is no limit.
    pub fn new(repository: &Repository, state_dir: Option<PathBuf>, bytes_per_second: Option<u64>) -> Verifier {
        let limits = ThrottleLimits { bytes_per_second, ..ThrottleLimits::default() };
        let store = match bytes_per_second.filter(|rate| *rate > 0) {
            Some(_) => Arc::new(Throttle::new(repository.store().clone(), limits)),
            None => repository.store().clone(),
        };
        Verifier { repository: Repository::new(store, repository.cluster(), repository.trust().clone()), state_dir }
    }

    /// As the configuration says. Needs no server where the repository holds one cluster, or `cluster` names it.
    ///
    /// Errors: no trusted writer; no repository; the configuration.
    pub async fn open(
        config: Config,
        cluster: Option<SystemIdentifier>,
        bytes_per_second: Option<u64>,
    ) -> Result<Verifier, VerifyError> {
        let mut trust = TrustedWriters::new(config.open_trusted_writers()?);
        if config.keys.writer_key_file.is_some() {
            trust.add(TrustedWriter::archiver(config.open_writer_key()?.public()));
        }
        if trust.is_empty() {
            return Err(VerifyError::NobodyTrusted);
        }
        let state_dir = config.need_state_dir().ok();
        let store = config.open_store(StoreUse::Conditional).await?;
        let repository = match Repository::find(store, cluster, trust).await {
            Err(RepositoryError::SeveralClusters { .. }) if config.need_conninfo().is_ok() => {
                let archive = Archive::open(config, StoreUse::Conditional).await?;
                let conninfo = archive.config.open_conninfo()?;
                archive.repository(&conninfo).await?.0
            }
            found => found?,
        };
        Ok(Verifier::new(&repository, state_dir, bytes_per_second))
    }

    /// Verifies, and says what was found. `told` hears how far it is: bytes that were read since it was told last, and in words.
    ///
    /// Errors: the store's, where it does not answer; the state folder.
    pub async fn run(&self, wish: &Wish, mut told: impl FnMut(u64, &str)) -> Result<Verification, VerifyError> {
        let began = Timestamp::now();
        told(0, "listing names, reading labels and records");
        let witnesses = self.witnesses(wish).await;
        let survey = Survey::take(&self.repository, &witnesses).await?;
        self.note(&survey, wish.accept)?;
        let last = self.record().round;
        let mut round = Round::after(last.as_ref(), began);
        if !wish.quick {
            // What was read of the newest only is no part of a round.
            let whole = wish.since.is_none();
            let known = last.filter(|round| wish.resume && whole && !round.reading.ended);
            round = known.unwrap_or(round);
            let mut reader = Reader::new(&self.repository, &survey, wish.since);
            while !round.reading.ended {
                let before = round.reading.bytes;
                reader.next(&mut round.reading).await?;
                told(round.reading.bytes - before, round.reading.after.as_deref().unwrap_or_default());
                if whole {
                    self.save_round(&round)?;
                }
            }
        }
        Ok(Verification::of(&self.repository, began, wish.quick, &witnesses, survey, round.reading))
    }

    /// Remembers what was seen.
    fn note(&self, survey: &Survey, accept: bool) -> Result<(), VerifyError> {
        self.remember(&survey.heads, accept)?;
        let record = Record { surveyed: Some(survey.heads.seen), flaws: survey.flaws.len() as u64, ..self.record() };
        self.save(&record)
    }

    /// What was seen from outside the repository; read before it is.
    async fn witnesses(&self, wish: &Wish) -> Vec<Witness> {
        let cluster = self.repository.cluster();
        let mut witnesses = Vec::new();
        witnesses.extend(self.remembered_witness().filter(|_| !wish.accept));
        let said = match &self.state_dir {
            Some(state_dir) => Told::ask(state_dir).await,
            None => None,
        };
        if let Some((pid, Ok(told))) = said {
            witnesses.extend(self.daemon(&told.progress, format!("the daemon (pid {pid}) says")));
        }
        if !wish.seen.is_empty() {
            let mut heads = Heads::none(cluster, Timestamp::now());
            wish.seen.iter().for_each(|seen| heads.note(seen.branch, seen.frontier));
            witnesses.push(Witness { heads, who: "--witness says".to_owned() });
        }
        witnesses
    }

    /// What a stream has made durable, and so must be there.
    fn daemon(&self, progress: &Progress, who: String) -> Option<Witness> {
        let branch = progress.branch.filter(|_| !progress.frontier.is_invalid())?;
        let mut heads = Heads::none(self.repository.cluster(), Timestamp::now());
        heads.note(branch, progress.frontier);
        Some(Witness { heads, who })
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.state_dir.as_ref().map(|folder| folder.join(name))
    }

    fn remembered_witness(&self) -> Option<Witness> {
        let heads = self.remembered()?;
        let who = format!("this host remembers (since {})", heads.seen.strftime("%Y-%m-%dT%H:%M:%SZ"));
        Some(Witness { heads, who })
    }

    fn remembered(&self) -> Option<Heads> {
        let heads: Heads = state_file::load(&self.file(HEADS)?)?;
        Some(heads).filter(|heads| heads.cluster == self.repository.cluster())
    }

    /// Remembers what is there now, beside what was; or in its place, where somebody accepts that it is gone.
    fn remember(&self, now: &Heads, accept: bool) -> Result<(), VerifyError> {
        let Some(path) = self.file(HEADS) else { return Ok(()) };
        let mut heads = self.remembered().filter(|_| !accept).unwrap_or_else(|| now.clone());
        heads.merge(now);
        save(&path, &heads)
    }

    /// What is known of earlier runs.
    fn record(&self) -> Record {
        let cluster = self.repository.cluster();
        let known = self.state_dir.as_deref().and_then(Record::load).filter(|record| record.cluster == cluster);
        known.unwrap_or_else(|| Record::none(cluster))
    }

    fn save_round(&self, round: &Round) -> Result<(), VerifyError> {
        self.save(&Record { round: Some(round.clone()), ..self.record() })
    }

    fn save(&self, record: &Record) -> Result<(), VerifyError> {
        self.file(record::FILE).map_or(Ok(()), |path| save(&path, record))
    }
}

fn save<T: Serialize>(path: &Path, content: &T) -> Result<(), VerifyError> {
    state_file::save(path, content).map_err(|source| VerifyError::State { path: path.to_owned(), source })
}
