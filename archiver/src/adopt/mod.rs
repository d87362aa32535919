//! `adopt`: two servers wrote the same timeline, and somebody says which of them is alive (case 17).
//!
//! | module | holds |
//! | --- | --- |
//! | [`split`] | where the WAL of the two parts |
//!
//! Run on the living host. Where the repository's names hold the other server's WAL, this server's goes on on a branch of its own: its
//! first piece is stored there, and then the adoption is written, which everybody reads. So nobody ever finds the branch empty, and
//! whoever comes with other bytes is refused by what is there.

mod split;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::{
    Act, Adoption, Gap, Ledger, Leg, Repository, RepositoryError, RepositoryIdentity, RunId,
};
use walseal_common::seal::{Kind, SealError, WriterPublic};
use walseal_common::timeline::Branch;

use crate::heal::{ServerSource, Source, SourceError};
use crate::keys::ArchiveKeys;
use crate::memory::Memory;
use crate::primary;
use crate::shipment::ShipError;
use crate::stream::{Cutter, ServerPosition, StreamError, WAL_MEMORY, identify, read_slot, store_histories};
use split::{Compared, Comparison, Split, wal};

/// What the server shows in `pg_stat_activity`.
const NAME: &str = "walseal adopt";

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Adopted {
    /// The repository holds this server's WAL and no other.
    Nothing {
        /// On this branch.
        branch: Branch,
        /// Up to here, at least.
        through: Lsn,
    },
    /// The server that was named holds the branch already: this one is not the living one.
    Theirs {
        /// Who was named.
        writer: String,
        /// The branch.
        branch: Branch,
        /// From here on this server's WAL is another.
        from: Lsn,
    },
    /// This server's WAL goes on on a branch of its own.
    Ours {
        /// The adoption.
        name: String,
        /// The branch that is left, with the other server's WAL.
        branch: Branch,
        /// From here on.
        from: Lsn,
        /// The branch on which this server's WAL lies.
        to: Branch,
        /// Who wrote the other server's WAL.
        holder: String,
        /// WAL between `from` and here is lost: this server has it no more.
        gap_to: Option<Lsn>,
    },
}

/// It could not be adopted. Nothing has changed then, but for WAL on a branch to which nothing leads.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Its WAL.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is another server, or what the repository holds cannot be compared.
    #[error(transparent)]
    Stream(#[from] Box<StreamError>),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// WAL could not be stored.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] SealError),
    /// Nobody knows this writer.
    #[error(
        "{writer} is no writer of WAL that this archiver trusts; it trusts {known}. Name the key of the living server's archiver: its key \
         file says it (\"# public half\"), and it stands in keys.trusted_writers of the others"
    )]
    UnknownWriter {
        /// Who was named.
        writer: String,
        /// Who is known.
        known: String,
    },
    /// The writer has nothing to do with it.
    #[error(
        "from {from} on branch {branch} holds WAL that {holder} wrote, and this archiver is {ours}: {writer} is neither. Name one of the two"
    )]
    NeitherOfThem {
        /// Who was named.
        writer: String,
        /// The branch.
        branch: Branch,
        /// Where the two part.
        from: Lsn,
        /// Who holds it.
        holder: String,
        /// This archiver.
        ours: String,
    },
    /// There is nothing left to compare, and no reason to say anything.
    #[error(
        "this server has no WAL from {from} on any more, which would have to be compared with what branch {branch} holds. Nobody adopted WAL of \
         this timeline, so there is nothing to say: the daemon records what is missing, and goes on"
    )]
    Gone {
        /// The branch.
        branch: Branch,
        /// What is gone.
        from: Lsn,
    },
    /// The server gives something else than a moment ago.
    #[error("{0} does not give the WAL again that it gave a moment ago; try again")]
    Changed(String),
}

/// Names the living writer.
pub struct Adopter {
    /// The server that was asked on its own host.
    pub conninfo: Conninfo,
    /// Its slot.
    pub slot: String,
    /// The repository.
    pub repository: Repository,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// This archiver's keys.
    pub keys: Arc<ArchiveKeys>,
    /// Where it is recorded.
    pub ledger: Ledger,
}

impl Adopter {
    /// Compares this server with the repository, and where they differ does what naming `living` means.
    ///
    /// Errors: see [`AdoptError`].
    pub async fn adopt(&self, living: WriterPublic) -> Result<Adopted, AdoptError> {
        let ours = self.keys.writer.public();
        let trusted = |key: WriterPublic| self.repository.trust().allows(key, Kind::Wal);
        if living != ours && !trusted(living) {
            let known = self.repository.trust().to_string();
            return Err(AdoptError::UnknownWriter { writer: living.to_string(), known });
        }
        let mut client = primary::connect_within(&self.conninfo, NAME, self.repository.cluster()).await?;
        let wanted = self.conninfo.target_session_attrs();
        let server = identify(&mut client, &self.repository, &self.identity, wanted).await.map_err(Box::new)?;
        let slot = read_slot(&mut client, &self.conninfo, &self.slot, NAME).await?.flatten();
        let host = client.host().clone();
        client.close().await;
        let source = ServerSource::primary(&self.conninfo, &self.repository, &self.identity).await?;
        let (repository, identity, keys) = (&self.repository, &self.identity, self.keys.as_ref());
        let compared = Compared { repository, identity, keys, server: &server, source: &source, slot };
        let split = match compared.compare().await? {
            Comparison::Same { branch, through } => return Ok(Adopted::Nothing { branch, through }),
            Comparison::Differs(split) => split,
            Comparison::Gone { branch, from } => {
                // Somebody adopted WAL of this timeline, and now somebody says that it is this server's all the same.
                let Some((name, adoption)) = server.adoptions.leading_to(branch) else {
                    return Err(AdoptError::Gone { branch, from });
                };
                let (name, holder) = (name.to_string(), adoption.writer.clone());
                let segment = identity.segment_size.number(from);
                // What is gone is a hole that no restore crosses.
                Split { branch, segment, name, holder, is_first: true, is_seen: false }
            }
        };
        let size = identity.segment_size;
        let from = split.segment.start(size);
        if living != ours {
            if living.to_string() == split.holder {
                self.ledger.record(Act::Adopted { writer: split.holder.clone(), branch: split.branch, from });
                return Ok(Adopted::Theirs { writer: split.holder, branch: split.branch, from });
            }
            return Err(AdoptError::NeitherOfThem {
                writer: living.to_string(),
                branch: split.branch,
                from,
                holder: split.holder,
                ours: ours.to_string(),
            });
        }
        self.take_over(&server, &host, split).await
    }

    /// Lets this server's WAL go on on a branch of its own.
    async fn take_over(&self, server: &ServerPosition, host: &Host, split: Split) -> Result<Adopted, AdoptError> {
        let (size, branch) = (self.identity.segment_size, split.branch);
        let first = split.segment.start(size);
        // Where nobody knows where they part, no restore must go from one to the other: what is missing keeps it from that.
        let from = if split.is_first { first } else { Lsn(first.0.saturating_sub(size.bytes())) };
        let writer = self.keys.writer.public().to_string();
        let (number, to) = server.adoptions.next_of(&server.history, branch, from, &writer);
        store_histories(&self.repository, &self.keys, &server.history).await.map_err(Box::new)?;
        // What is stored there first tells this server's WAL from the other one's.
        let until =
            if split.is_seen { size.number(first).end(size).min(server.position) } else { self.mark(host).await? };
        let source = ServerSource::primary(&self.conninfo, &self.repository, &self.identity).await?;
        let begin = self.begin(&source, to, first, until).await?;
        let gap_to = (begin > from).then_some(begin);
        if let Some(begin) = gap_to {
            self.record_gap(branch, from, to, begin).await?;
        }
        let own: Vec<Branch> = server.way().iter().map(|step| step.branch).collect();
        let mut apart = self.repository.branches().await?;
        apart.retain(|other| other.timeline > branch.timeline && !own.contains(other));
        let found = Timestamp::now();
        let adoption = Adoption { branch, from, to, writer: writer.clone(), found, apart };
        let name = self.repository.put_adoption(number, &adoption, &self.keys.writer).await?;
        self.ledger.record(Act::Adopted { writer, branch: to, from });
        Ok(Adopted::Ours { name: name.to_string(), branch, from, to, holder: split.holder, gap_to })
    }

    /// Writes to this server's WAL what no other server's has. Returns the end of what is flushed with it in it.
    async fn mark(&self, host: &Host) -> Result<Lsn, AdoptError> {
        const DOING: &str = "writing a message to the WAL failed";
        let sql = SqlClient::connect_to(&self.conninfo, host, NAME).await?;
        let nonce = RunId::random()?;
        sql.execute(DOING, "SET synchronous_commit = local", &[]).await?;
        let words = format!("adopted {nonce}");
        sql.execute(DOING, "SELECT pg_logical_emit_message(true, 'walseal', $1)", &[&words]).await?;
        let row = sql.query_one(DOING, "SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        let text: String = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
        let why = |error| PostgresError::Protocol { doing: DOING.to_owned(), why: format!("{error}") };
        Ok(text.parse().map_err(why)?)
    }

    /// Stores the first pieces of this server's WAL on `to`: all that it has from `from` up to `end`. Returns where that begins.
    async fn begin(&self, source: &ServerSource, to: Branch, from: Lsn, end: Lsn) -> Result<Lsn, AdoptError> {
        let changed = || AdoptError::Changed(source.describe());
        let reading = source.read(to.timeline, from, Lsn(u64::MAX)).await?;
        let mut reading = reading.ok_or_else(changed)?;
        let start = reading.start;
        // Behind a gap, at least what it still has of one segment.
        let size = self.identity.segment_size;
        let end = end.max(size.number(start).end(size).min(source.position()));
        let mut cutter = Cutter::new(to, size, self.keys.writer.compare(), start, None);
        let memory = Memory::new(WAL_MEMORY);
        let mut pieces = Vec::new();
        while cutter.received() < end {
            let bytes = wal(&mut reading).await?.ok_or_else(changed)?;
            let room = usize::try_from(end.bytes_since(cutter.received())).unwrap_or(usize::MAX);
            let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            cutter.push(bytes, &mut pieces).map_err(|_| changed())?;
            if cutter.received() == end {
                pieces.extend(cutter.cut_tail());
            }
            for piece in pieces.drain(..) {
                let room = memory.room(piece.footprint()).await;
                piece.ship(&self.repository, &self.keys, &room).await?;
            }
        }
        Ok(start)
    }

    /// WAL of this server before `begin` is lost (I5).
    async fn record_gap(&self, branch: Branch, from: Lsn, to: Branch, begin: Lsn) -> Result<(), AdoptError> {
        let gap = Gap {
            branch,
            from,
            to: begin,
            next: to,
            found: Timestamp::now(),
            highest_time: None,
            why: format!(
                "two servers wrote this timeline, and the living one had no WAL before {begin} any more when it was named: nobody knows where \
                 the two parted"
            ),
            way: vec![Leg { branch, end: from }],
        };
        self.repository.put_gap(&gap, &self.keys.writer).await?;
        self.ledger.record(Act::GapRecorded { branch, from, to: begin, next: to });
        Ok(())
    }
}

impl Adopted {
    /// The branch on which this server's WAL lies now, where that is another one than before.
    pub fn goes_on(&self) -> Option<Branch> {
        match self {
            Adopted::Ours { to, .. } => Some(*to),
            _ => None,
        }
    }
}
