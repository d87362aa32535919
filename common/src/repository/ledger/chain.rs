//! One run: its entries, in order, each bound to the one before.

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::reading::AT_A_TIME;
use super::{Act, Body, Head, LedgerSigner, RunId};
use crate::repository::{ObjectName, Repository, RepositoryError};
use crate::seal::{Kind, ObjectDigest, SealedObject};
use crate::store::PutOutcome;

/// A run of this process. An entry is sealed once, and stored until it is there; then comes the next.
#[derive(Debug)]
pub struct Chain {
    repository: Repository,
    signer: LedgerSigner,
    run: RunId,
    next: u32,
    previous: Option<ObjectDigest>,
    /// Sealed and perhaps stored.
    pending: Option<SealedObject>,
}

impl Chain {
    /// A run without entries.
    ///
    /// Errors: no random bytes.
    pub fn new(repository: Repository, signer: LedgerSigner) -> Result<Chain, RepositoryError> {
        let run = RunId::random().map_err(|source| RepositoryError::Object { name: "ledger".to_owned(), source })?;
        Ok(Chain { repository, signer, run, next: 0, previous: None, pending: None })
    }

    /// Goes on as another run, from its first entry.
    ///
    /// Errors: no random bytes.
    pub(super) fn begin_anew(&mut self) -> Result<(), RepositoryError> {
        *self = Chain::new(self.repository.clone(), self.signer.clone())?;
        Ok(())
    }

    /// The run's id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The last entry that was stored; none before the first.
    pub fn head(&self) -> Option<Head> {
        let (digest, sequence) = (self.previous?, self.next.checked_sub(1)?);
        Some(Head { writer: self.signer.writer.public(), run: self.run, sequence, digest })
    }

    /// Stores an entry. After an error it is to be called with the same act again: the entry that was sealed is stored then.
    ///
    /// Errors: the store's; the name is taken by other bytes, which is no accident.
    pub async fn write(&mut self, time: Timestamp, act: &Act) -> Result<(), RepositoryError> {
        let object = match self.pending.take() {
            Some(object) => object,
            None => self.seal(time, act).await?,
        };
        let object = self.pending.insert(object);
        if self.repository.put(object).await? == PutOutcome::AlreadyExists {
            // An answer that was lost, most likely: the name holds a random number that nobody else has drawn.
            let key = format!("{}/{}", self.repository.cluster(), object.name);
            let there = self.repository.store().get(&key).await?;
            if there != object.bytes {
                let writer = self.signer.writer.public().to_string();
                return Err(RepositoryError::Conflict { name: object.name.clone(), writer });
            }
        }
        self.previous = Some(object.digest());
        self.next += 1;
        self.pending = None;
        Ok(())
    }

    async fn seal(&self, time: Timestamp, act: &Act) -> Result<SealedObject, RepositoryError> {
        let heads = match self.next {
            0 => Some(self.heads().await?),
            _ => None,
        };
        let (word, facts) = act.parts();
        let body = Body {
            run: self.run,
            sequence: self.next,
            previous: self.previous,
            heads,
            time,
            actor: self.signer.actor.clone(),
            program: self.signer.program.clone(),
            act: word,
            facts,
        };
        let name = ObjectName::Ledger(Box::new(self.signer.writer.public()), self.run, self.next);
        self.repository.signed(Kind::Ledger, &name, &body, &self.signer.writer)
    }

    /// The last entries of all other runs. One that cannot be verified is left out, with a word in the log: whoever checks the
    /// ledger finds it by itself.
    async fn heads(&self) -> Result<Vec<Head>, RepositoryError> {
        let mut heads = Vec::new();
        let runs: Vec<_> = self.repository.ledger_runs().await?.last().collect();
        let others = runs.into_iter().filter(|((_, run), _)| *run != self.run);
        let reads = others.map(|((writer, run), sequence)| async move {
            (writer, run, sequence, self.repository.ledger_entry(writer, run, sequence).await)
        });
        let mut reads = stream::iter(reads).buffered(AT_A_TIME);
        while let Some((writer, run, sequence, read)) = reads.next().await {
            match read {
                Ok(entry) => heads.push(Head { writer, run, sequence, digest: entry.digest }),
                Err(error @ RepositoryError::Object { .. }) => tracing::debug!(%error, "no entry of the ledger"),
                Err(error) => return Err(error),
            }
        }
        Ok(heads)
    }
}
