//! From records to what transactions did.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::content::Content;
use super::super::event::{Event, Record};
use super::super::field::u32_at;
use super::super::page::WalVersion;
use super::super::record::{RecordBody, RelationFile, ResourceManager};
use super::super::xid::Xid;
use super::catalog::{self, CatalogFiles};
use super::ending::{Ending, RelationOid};
use super::rows::{RowChange, row_change};
use super::succession::{self, ClassChange};
use super::tuple;
use super::work::{OpenWork, Work};
use crate::lsn::Lsn;

/// The longest body that a walk needs to hand out for this; a commit that drops hundreds of thousands of relations has as many bytes.
pub const BODY_LIMIT: u32 = 16 << 20;

/// Entries that all open transactions keep together, about 100 bytes each (I11); what comes beyond is left out, and said to be.
const MOST_ENTRIES: usize = 1_000_000;

// Kinds of records, by resource manager.
const STORAGE_CREATE: u8 = 0x10;
const HEAP_OPERATION: u8 = 0x70;
const HEAP_INSERT: u8 = 0x00;
const HEAP_TRUNCATE: u8 = 0x30;
const RUNNING_TRANSACTIONS: u8 = 0x10;
const MAP_UPDATE: u8 = 0x00;

/// A walk that keeps what open transactions did so far. Memory: bounded, see [`Work::left_out`].
#[derive(Debug)]
pub struct ChangeWalk {
    /// As many entries at most.
    most: usize,
    open: HashMap<u32, OpenWork>,
    /// The sum of the weights of `open`.
    entries: usize,
    files: CatalogFiles,
    /// The file that was made last by a transaction that had no id yet, and where.
    unowned: Option<(Lsn, RelationFile)>,
    /// Transactions from this one on began after the walk did.
    known_from: Option<Xid>,
    /// The newest transaction for which there was no room at all, while it or an older one may still run.
    turned_away: Option<Xid>,
}

impl Default for ChangeWalk {
    fn default() -> ChangeWalk {
        ChangeWalk::keeping(MOST_ENTRIES)
    }
}

impl ChangeWalk {
    /// A walk that keeps at most so many entries of open transactions, of about 100 bytes each.
    pub fn keeping(most: usize) -> ChangeWalk {
        let (open, files) = (HashMap::new(), CatalogFiles::default());
        ChangeWalk { most, open, entries: 0, files, unowned: None, known_from: None, turned_away: None }
    }

    /// Goes on where another walk was.
    pub fn resuming(state: WalkState) -> ChangeWalk {
        let entries = state.open.iter().map(|(_, work)| work.weight()).sum();
        let open = state.open.into_iter().map(|(xid, work)| (xid.0, work)).collect();
        let WalkState { files, known_from, turned_away, .. } = state;
        ChangeWalk { open, entries, files, known_from, turned_away, ..ChangeWalk::default() }
    }

    /// Where it is, for [`ChangeWalk::resuming`].
    pub fn state(&self) -> WalkState {
        let mut open: Vec<(Xid, OpenWork)> = self.open.iter().map(|(xid, work)| (Xid(*xid), work.clone())).collect();
        open.sort_by_key(|(xid, _)| xid.0);
        let (known_from, turned_away) = (self.known_from, self.turned_away);
        WalkState { open, files: self.files.clone(), known_from, turned_away }
    }

    /// Takes the next event of a walk that hands out bodies of up to [`BODY_LIMIT`] bytes. Returns what a transaction did, where the
    /// record is its commit.
    pub fn add(&mut self, version: WalVersion, event: &Event<'_>) -> Option<Work> {
        match event {
            Event::Record(record) => self.record(version, record),
            Event::LeadingSkipped { .. } => None,
        }
    }

    /// As [`ChangeWalk::add`], of a record.
    pub fn record(&mut self, version: WalVersion, record: &Record<'_>) -> Option<Work> {
        let body = record.body.and_then(|body| Some((RecordBody::parse(version, body).ok()?, body)));
        if let Content::Transaction(_) = &record.content {
            return self.ended(version, record, body.as_ref().map(|(body, _)| body));
        }
        match (record.manager, record.info & 0xF0) {
            (ResourceManager::STANDBY, RUNNING_TRANSACTIONS) => {
                if let Some((body, _)) = &body {
                    self.running(body.main);
                }
            }
            (ResourceManager::RELATION_MAP, MAP_UPDATE) => {
                // What is not such a map says nothing.
                let _ = body.as_ref().and_then(|(body, _)| self.files.remap(body.main));
            }
            _ => {}
        }
        if let Content::Checkpoint(checkpoint) = &record.content {
            self.known_from = self.known_from.or(Some(checkpoint.next_xid.xid()));
        }
        if record.xid == Xid::INVALID {
            let made = body.as_ref().and_then(|(body, _)| made_file(record, body).ok().flatten());
            self.unowned = made.map(|file| (record.start, file)).or(self.unowned);
            return None;
        }
        let room = self.entries < self.most;
        if !room && !self.open.contains_key(&record.xid.0) {
            let newest = self.turned_away.filter(|newest| precedes(record.xid, *newest));
            self.turned_away = newest.or(Some(record.xid));
            return None;
        }
        let adopted = if self.open.contains_key(&record.xid.0) { None } else { self.adopt(record, body.as_ref()) };
        let files = &self.files;
        let work = self.open.entry(record.xid.0).or_insert_with(|| {
            let mut work = OpenWork::new(record.start);
            work.made = adopted;
            work.created.extend(adopted);
            self.entries += work.weight();
            work
        });
        work.records += 1;
        work.bytes = work.bytes.saturating_add(u64::from(record.length));
        let before = work.weight();
        let taken = body.as_ref().map(|(body, bytes)| take(version, record, body, bytes, files, work, room));
        if taken.is_none_or(|taken| taken.is_err()) && record.length > HEADER_ONLY {
            work.left_out += 1;
        }
        self.entries += work.weight() - before;
        None
    }

    /// A subtransaction that empties a table again may have no id yet when it makes the file: its first record with one is the update
    /// of the row of `pg_class`, which follows at once.
    fn adopt(&mut self, record: &Record<'_>, body: Option<&(RecordBody<'_>, &[u8])>) -> Option<RelationFile> {
        let block = body.and_then(|(body, _)| body.blocks.first())?;
        if record.manager != ResourceManager::HEAP || !self.files.is_pg_class(&block.relation) {
            return None;
        }
        let (at, file) = self.unowned.take_if(|(_, file)| file.database == block.relation.database)?;
        (record.start.bytes_since(at) <= AT_ONCE).then_some(file)
    }

    /// A transaction ended, and with it its subtransactions.
    fn ended(&mut self, version: WalVersion, record: &Record<'_>, body: Option<&RecordBody<'_>>) -> Option<Work> {
        let Content::Transaction(end) = record.content else { return None };
        let parsed = body.map(|body| Ending::parse(version, record.info, body.main)).and_then(Result::ok);
        let unread = u64::from(parsed.is_none());
        let ending = parsed.unwrap_or_default();
        let own = self.close(end.xid);
        let mut missed = own.is_none() && self.may_have_been_turned_away(end.xid);
        let mut work = own.unwrap_or_else(|| OpenWork::new(record.start));
        for child in &ending.subtransactions {
            match self.close(*child) {
                Some(theirs) => work.merge(theirs),
                None => missed |= self.may_have_been_turned_away(*child),
            }
        }
        work.left_out += u64::from(missed);
        if !end.outcome.is_commit() || end.xid == Xid::INVALID {
            return None;
        }
        work.class_changes.sort_by_key(|change| change.at);
        let replaced =
            (!ending.removed.is_empty()).then(|| succession::replaced(&work.class_changes, &ending.removed)).flatten();
        let may_have_begun_before = self.known_from.is_none_or(|known| precedes(end.xid, known));
        Some(Work {
            end,
            first: work.first,
            commit: record.start,
            commit_end: record.end,
            records: work.records + 1,
            bytes: work.bytes.saturating_add(u64::from(record.length)),
            relations: work.relations,
            created: work.created,
            replaced,
            removed: ending.removed,
            dropped: ending.dropped,
            truncated: work.truncated,
            dropped_databases: work.dropped_databases,
            new_relations: work.new_relations,
            new_schemas: work.new_schemas,
            may_have_begun_before,
            left_out: work.left_out + unread,
        })
    }

    fn may_have_been_turned_away(&self, xid: Xid) -> bool {
        self.turned_away.is_some_and(|newest| !precedes(newest, xid))
    }

    fn close(&mut self, xid: Xid) -> Option<OpenWork> {
        let work = self.open.remove(&xid.0)?;
        self.entries -= work.weight();
        Some(work)
    }

    /// What ran when this was written (`xl_running_xacts`): transactions that are older than the oldest of it ended unheard in a crash.
    fn running(&mut self, main: &[u8]) -> Option<()> {
        let (next, oldest) = (Xid(u32_at(main, 12)?), Xid(u32_at(main, 16)?));
        self.known_from = self.known_from.or(Some(next));
        self.turned_away = self.turned_away.filter(|newest| !precedes(*newest, oldest));
        let gone: Vec<u32> = self.open.keys().copied().filter(|xid| precedes(Xid(*xid), oldest)).collect();
        for xid in gone {
            self.close(Xid(xid));
        }
        Some(())
    }
}

/// What open transactions did so far, and what is known of files.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WalkState {
    /// By their ids, subtransactions apart.
    pub open: Vec<(Xid, OpenWork)>,
    #[serde(default)]
    files: CatalogFiles,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known_from: Option<Xid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turned_away: Option<Xid>,
}

/// WAL of others between a file that was made and the row that names it, in bytes.
const AT_ONCE: u64 = 256 << 10;

/// Bytes of a record that has no body.
const HEADER_ONLY: u32 = 24;

/// Ids wrap around (`TransactionIdPrecedes`, `transam.c`).
const fn precedes(one: Xid, other: Xid) -> bool {
    one.0.wrapping_sub(other.0).cast_signed() < 0
}

const SHORT: &str = "a record is shorter than PostgreSQL writes it";

/// The file that the record says was made, of the main fork (`xl_smgr_create`).
fn made_file(record: &Record<'_>, body: &RecordBody<'_>) -> Result<Option<RelationFile>, &'static str> {
    if (record.manager, record.info & 0xF0) != (ResourceManager::STORAGE, STORAGE_CREATE) {
        return Ok(None);
    }
    let number = |at| u32_at(body.main, at).ok_or(SHORT);
    let file = RelationFile { tablespace: number(0)?, database: number(4)?, number: number(8)? };
    Ok((number(12)? == 0).then_some(file))
}

/// Adds what a record does to the work of its transaction.
fn take(
    version: WalVersion,
    record: &Record<'_>,
    body: &RecordBody<'_>,
    bytes: &[u8],
    files: &CatalogFiles,
    work: &mut OpenWork,
    room: bool,
) -> Result<(), &'static str> {
    let operation = record.info & HEAP_OPERATION;
    match (record.manager, record.info & 0xF0) {
        (ResourceManager::STORAGE, STORAGE_CREATE) if room => {
            let made = made_file(record, body)?;
            work.created.extend(made);
            work.made = made.or(work.made);
        }
        (ResourceManager::DATABASE, kind) if kind == dropped_database(version) && room => {
            work.dropped_databases.push(u32_at(body.main, 0).ok_or(SHORT)?);
        }
        (ResourceManager::HEAP, _) if operation == HEAP_TRUNCATE && room => {
            let database = u32_at(body.main, 0).ok_or(SHORT)?;
            let count = u32_at(body.main, 4).ok_or(SHORT)? as usize;
            let oids = body.main.get(12..).ok_or(SHORT)?.chunks_exact(4).take(count);
            work.truncated.extend(oids.filter_map(|oid| Some(RelationOid { database, oid: u32_at(oid, 0)? })));
        }
        _ => {}
    }
    let Some(block) = body.blocks.first() else { return Ok(()) };
    let change = row_change(record.manager, record.info, body)?;
    let change = change.map(|(_, change)| change);
    work.count(block.relation, u64::from(record.length), change, room);
    if let Some(change) = change
        && files.is_pg_class(&block.relation)
    {
        let made = work.made.take();
        let file = made.filter(|_| change == RowChange::Updated);
        if room && (file.is_some() || change == RowChange::Deleted) {
            work.class_changes.push(ClassChange { at: record.start, file });
        }
    }
    if change == Some(RowChange::Inserted(1))
        && record.manager == ResourceManager::HEAP
        && operation == HEAP_INSERT
        && room
    {
        let database = block.relation.database;
        if files.is_pg_class(&block.relation) {
            let row = tuple::inserted(body, bytes).and_then(|row| catalog::relation(version, database, &row));
            work.new_relations.extend(row);
        } else if CatalogFiles::is_pg_namespace(&block.relation) {
            let row = tuple::inserted(body, bytes).and_then(|row| catalog::schema(database, &row));
            work.new_schemas.extend(row);
        }
    }
    Ok(())
}

/// `XLOG_DBASE_DROP`.
const fn dropped_database(version: WalVersion) -> u8 {
    match version {
        WalVersion::V14 => 0x10,
        _ => 0x20,
    }
}
