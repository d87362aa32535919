//! A repository with WAL made of noise: what a stream finds when it begins.

use std::sync::Arc;

use bytes::Bytes;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{CatalogPage, ObjectName, Repository, WalPut};
use walseal_common::seal::{CompareDigest, Identity, Transactions, TrustedWriters, WriterKey};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::DirectoryStore;
use walseal_common::store::fault::Faulty;
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use crate::index::MemoryIndex;
use crate::keys::ArchiveKeys;
use crate::memory::Room;
use crate::shipment::{Piece, PieceKind};
use crate::stream::resume::{Past, ServerPosition, start_point};
use crate::stream::start::StartPoint;
use crate::stream::{Cutter, StreamError};

pub const SYSTEM: SystemIdentifier = SystemIdentifier(7_437_123_456_789_012_345);

/// A server's WAL: its bytes follow from position and seed, so that two servers of one branch differ.
#[derive(Clone, Copy)]
pub struct Server {
    pub seed: u8,
    pub size: SegmentSize,
}

impl Server {
    pub fn bytes(&self, from: Lsn, to: Lsn) -> Vec<u8> {
        (from.0..to.0).map(|at| (at ^ (at >> 8) ^ (at >> 17)) as u8 ^ self.seed).collect()
    }

    /// The digest of `at`'s segment up to there; of the whole segment when that ends there.
    pub fn digest(&self, keys: &ArchiveKeys, segment: SegmentNumber, at: Lsn) -> CompareDigest {
        let mut hasher = keys.writer.compare().hasher();
        hasher.update(&self.bytes(segment.start(self.size), at));
        hasher.digest()
    }

    pub fn piece(&self, keys: &ArchiveKeys, branch: Branch, kind: PieceKind, from: Lsn, to: Lsn) -> Piece {
        let segment = self.size.number(from);
        Piece {
            kind,
            branch,
            segment_size: self.size,
            start: from,
            bytes: Bytes::from(self.bytes(from, to)).into(),
            digest_start: self.digest(keys, segment, from),
            digest_end: self.digest(keys, segment, to),
            transactions: Transactions::default(),
            leading_unread: false,
            durable: None,
        }
    }
}

/// A repository in a folder of its own, and an archiver's keys.
pub struct Toy {
    pub store: Arc<Faulty>,
    pub repository: Repository,
    pub keys: Arc<ArchiveKeys>,
    pub server: Server,
    folder: tempfile::TempDir,
}

pub fn keys_with(writer: WriterKey) -> Arc<ArchiveKeys> {
    let identity = Identity::generate().expect("random bytes");
    Arc::new(ArchiveKeys { recipients: vec![identity.recipient().clone()], writer })
}

impl Toy {
    pub fn new(segment_mib: u64) -> Toy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned()))));
        let keys = keys_with(WriterKey::generate().expect("random bytes"));
        let trust = keys.trust(Vec::new());
        let repository = Repository::new(store.clone(), SYSTEM, trust);
        let server = Server { seed: 0, size: SegmentSize::new(segment_mib << 20).expect("a legal size") };
        Toy { store, repository, keys, server, folder }
    }

    /// The same repository, seen by somebody who trusts these writers, too.
    pub fn trusting(&self, others: &[&ArchiveKeys]) -> Repository {
        let mut trust: TrustedWriters = self.keys.trust(Vec::new());
        for other in others {
            trust.add(walseal_common::seal::TrustedWriter::archiver(other.writer.public()));
        }
        Repository::new(self.store.clone(), SYSTEM, trust)
    }

    /// `offset` into segment `number`.
    pub fn at(&self, number: u64, offset: u64) -> Lsn {
        SegmentNumber(number).start(self.server.size).advance(offset)
    }

    pub async fn ship(&self, piece: &Piece) {
        let put = piece
            .clone()
            .ship(&self.repository, &self.keys, &Room::elsewhere())
            .await
            .expect("the repository takes it");
        assert_eq!(put, WalPut::Stored);
    }

    pub async fn whole(&self, branch: Branch, number: u64) {
        let mut from = self.at(number, 0);
        while from < self.at(number + 1, 0) {
            let to = from.advance((16 << 20).min(self.server.size.bytes()));
            self.ship(&self.server.piece(&self.keys, branch, PieceKind::Whole, from, to)).await;
            from = to;
        }
    }

    pub async fn tail(&self, branch: Branch, from: Lsn, to: Lsn) {
        self.ship(&self.server.piece(&self.keys, branch, PieceKind::Tail, from, to)).await;
    }

    /// So many names of tails of segment `number`; nothing is in them.
    pub fn forge_tails(&self, branch: Branch, number: u64, count: u64) {
        for offset in 0..count {
            let range = LsnRange { start: self.at(number, offset), end: self.at(number, offset + 1) };
            let segment = SegmentName::new(branch.timeline, SegmentNumber(number), self.server.size);
            self.forge(&ObjectName::Tail(branch, segment, range));
        }
    }

    /// Names of whole segments; nothing is in them.
    pub fn forge_segments(&self, branch: Branch, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let segment = SegmentName::new(branch.timeline, SegmentNumber(number), self.server.size);
            self.forge(&ObjectName::Wal(branch, segment, None));
        }
    }

    /// The name of a catalog page; nothing is in it.
    pub fn forge_page(&self, branch: Branch, first: SegmentNumber) {
        self.forge(&CatalogPage::name(branch, first, self.server.size));
    }

    fn forge(&self, name: &ObjectName) {
        let path = self.folder.path().join(name.key(SYSTEM));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, b"").expect("a file");
    }

    pub async fn partial(&self, branch: Branch, from: Lsn, to: Lsn) {
        self.ship(&self.server.piece(&self.keys, branch, PieceKind::Partial, from, to)).await;
    }

    /// Where a stream from a server of this history begins, when its slot keeps WAL from `slot` on.
    pub async fn begins(&self, history: &TimelineHistory, slot: Option<Lsn>) -> Result<StartPoint, StreamError> {
        self.begins_in(&self.repository, history, slot, Past::default()).await
    }

    pub async fn begins_in(
        &self,
        repository: &Repository,
        history: &TimelineHistory,
        slot: Option<Lsn>,
        past: Past,
    ) -> Result<StartPoint, StreamError> {
        let position = self.at(1000, 0);
        let adoptions = repository.adoptions().await?;
        let history = history.clone();
        let server = ServerPosition { history, adoptions, position, segment_size: self.server.size };
        let (key, index) = (self.keys.writer.compare().id(), MemoryIndex::default());
        Ok(start_point(repository, key, &server, slot, &index, past).await?.comparing(past.lost))
    }
}

/// What cuts the WAL of a stream that begins there.
pub fn cutter(toy: &Toy, point: &StartPoint) -> Cutter {
    let durable = point.durable.clone().map(|durable| (point.frontier, durable));
    Cutter::new(point.branch, toy.server.size, toy.keys.writer.compare(), point.start, durable)
}

pub fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("not zero")
}

pub fn root() -> TimelineHistory {
    TimelineHistory::root(TimelineId::FIRST)
}

/// The history of a timeline with these ancestors.
pub fn history(number: u32, ancestors: &[(u32, Lsn)]) -> TimelineHistory {
    let lines: Vec<String> = ancestors.iter().map(|(tli, switch)| format!("{tli}\t{switch}\tfor a test\n")).collect();
    TimelineHistory::parse(timeline(number), lines.concat().as_bytes()).expect("a legal history")
}
