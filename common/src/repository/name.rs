//! Names of objects, made and taken apart in one place.

use std::fmt;
use std::str::FromStr;

use crate::lsn::{Lsn, LsnRange};
use crate::seal::{Kind, WriterPublic};
use crate::segment::SegmentName;
use crate::timeline::{Branch, SystemIdentifier};

use super::{BaseId, RunId, SnapshotId};

/// The name of an object below its cluster's folder, as in section 1 of the format.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectName {
    /// What the repository is.
    Identity,
    /// A whole segment, or a part (by number) of one over 16 MiB.
    Wal(Branch, SegmentName, Option<u8>),
    /// The valid part of a branch's last segment.
    Partial(Branch, SegmentName),
    /// A durable piece of the segment that is being filled.
    Tail(Branch, SegmentName, LsnRange),
    /// A timeline's history.
    History(Branch),
    /// A base backup's label.
    Label(BaseId),
    /// A page of its list of files.
    Manifest(BaseId, u32),
    /// Frames of its files.
    Data(BaseId, u32),
    /// What the next base backup has to know of it.
    Resume(BaseId, u32),
    /// A page of which relation each file is.
    Names(BaseId, u32),
    /// A page of its configuration files that lie elsewhere.
    Config(BaseId, u32),
    /// A snapshot's label.
    Snapshot(SnapshotId),
    /// What it holds.
    Dump(SnapshotId, u32),
    /// WAL that is missing on a branch from a position on.
    Gap(Branch, Lsn),
    /// The adoption of that number by which WAL leaves a branch.
    Adopt(Branch, u32),
    /// Up to where WAL was durable, as a writer said; the numbers count down, so that its newest is listed first.
    Frontier(Box<WriterPublic>, u64),
    /// The index page of a branch's segments, from the first to the last.
    Catalog(Branch, SegmentName, SegmentName),
    /// What the transactions of a branch's segments did, from the first to the last.
    Summary(Branch, SegmentName, SegmentName),
    /// An entry of the ledger: whose, of which run, its number.
    Ledger(Box<WriterPublic>, RunId, u32),
    /// What a writer at work relies on: whose, its number.
    Lease(RunId, u32),
    /// What a drill found: whose, of which run of the ledger, its number.
    Evidence(Box<WriterPublic>, RunId, u32),
    /// That a base backup stays until some time: which, its number.
    Hold(BaseId, u32),
    /// A page of what is about to be removed: by which run, its number.
    Intent(RunId, u32),
    /// What retention removed up to that run.
    Pruned(RunId),
    /// Bytes that were refused because the name was taken by others: the name, and a random word.
    Conflict(Box<ObjectName>, String),
}

impl ObjectName {
    /// The key in the store: the cluster's folder and the name.
    pub fn key(&self, cluster: SystemIdentifier) -> String {
        format!("{cluster}/{self}")
    }

    /// What an object of this name must be.
    pub fn kind(&self) -> Kind {
        match self {
            ObjectName::Identity => Kind::Identity,
            ObjectName::Wal(..) => Kind::Wal,
            ObjectName::Partial(..) => Kind::Partial,
            ObjectName::Tail(..) => Kind::Tail,
            ObjectName::History(_) => Kind::History,
            ObjectName::Label(_) => Kind::Label,
            ObjectName::Manifest(..) => Kind::Manifest,
            ObjectName::Data(..) => Kind::Data,
            ObjectName::Resume(..) => Kind::Resume,
            ObjectName::Names(..) => Kind::Names,
            ObjectName::Config(..) => Kind::Config,
            ObjectName::Gap(..) => Kind::Gap,
            ObjectName::Adopt(..) => Kind::Adopt,
            ObjectName::Frontier(..) => Kind::Frontier,
            ObjectName::Catalog(..) => Kind::Catalog,
            ObjectName::Ledger(..) => Kind::Ledger,
            ObjectName::Lease(..) => Kind::Lease,
            ObjectName::Evidence(..) => Kind::Evidence,
            ObjectName::Snapshot(_) => Kind::Snapshot,
            ObjectName::Dump(..) => Kind::Dump,
            ObjectName::Hold(..) => Kind::Hold,
            ObjectName::Intent(..) => Kind::Intent,
            ObjectName::Summary(..) => Kind::Summary,
            ObjectName::Pruned(_) => Kind::Pruned,
            ObjectName::Conflict(name, _) => name.kind(),
        }
    }

    /// The writer in whose folder it lies, where it lies in one: nobody else may sign it.
    pub fn owner(&self) -> Option<&WriterPublic> {
        match self {
            ObjectName::Frontier(writer, _) => Some(writer),
            ObjectName::Ledger(writer, ..) | ObjectName::Evidence(writer, ..) => Some(writer),
            _ => None,
        }
    }

    /// Prefix of all segments of a branch.
    pub fn wal_prefix(branch: Branch) -> String {
        format!("wal/{branch}/")
    }

    /// Prefix of all tails of a branch.
    pub fn tail_prefix(branch: Branch) -> String {
        format!("tail/{branch}/")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectName::Identity => f.write_str("identity"),
            ObjectName::Wal(branch, segment, None) => write!(f, "wal/{branch}/{segment}"),
            ObjectName::Wal(branch, segment, Some(part)) => write!(f, "wal/{branch}/{segment}/{part:02}"),
            ObjectName::Partial(branch, segment) => write!(f, "wal/{branch}/{segment}.partial"),
            ObjectName::Tail(branch, segment, range) => {
                write!(f, "tail/{branch}/{segment}/{:016X}-{:016X}", range.start.0, range.end.0)
            }
            ObjectName::History(branch) => write!(f, "history/{branch}"),
            ObjectName::Label(id) => write!(f, "base/{id}/label"),
            ObjectName::Manifest(id, page) => write!(f, "base/{id}/manifest/{page:08}"),
            ObjectName::Data(id, number) => write!(f, "base/{id}/data/{number:08}"),
            ObjectName::Resume(id, number) => write!(f, "base/{id}/resume/{number:08}"),
            ObjectName::Names(id, page) => write!(f, "base/{id}/names/{page:08}"),
            ObjectName::Config(id, page) => write!(f, "base/{id}/config/{page:08}"),
            ObjectName::Snapshot(id) => write!(f, "snapshot/{id}/label"),
            ObjectName::Dump(id, number) => write!(f, "snapshot/{id}/data/{number:08}"),
            ObjectName::Gap(branch, from) => write!(f, "gap/{branch}/{:016X}", from.0),
            ObjectName::Adopt(branch, number) => write!(f, "adopt/{branch}/{number:08}"),
            ObjectName::Frontier(writer, number) => write!(f, "frontier/{writer}/{number:010}"),
            ObjectName::Catalog(branch, first, last) => write!(f, "catalog/{branch}/{first}-{last}"),
            ObjectName::Summary(branch, first, last) => write!(f, "summary/{branch}/{first}-{last}"),
            ObjectName::Ledger(writer, run, sequence) => write!(f, "ledger/{writer}/{run}/{sequence:08}"),
            ObjectName::Lease(run, number) => write!(f, "lease/{run}/{number:08}"),
            ObjectName::Evidence(writer, run, number) => write!(f, "evidence/{writer}/{run}/{number:08}"),
            ObjectName::Hold(id, number) => write!(f, "hold/{id}/{number:08}"),
            ObjectName::Intent(run, number) => write!(f, "intent/{run}/{number:08}"),
            ObjectName::Pruned(run) => write!(f, "pruned/{run}"),
            ObjectName::Conflict(name, word) => write!(f, "conflict/{name}/{word}"),
        }
    }
}

/// The text is no name that this format knows. Readers ignore such objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name of this format")]
pub struct UnknownName(pub String);

fn number(text: &str, length: usize) -> Option<u32> {
    digits(text, length).and_then(|number| u32::try_from(number).ok())
}

fn digits(text: &str, length: usize) -> Option<u64> {
    (text.len() == length && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn position(text: &str) -> Option<Lsn> {
    let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if plain { u64::from_str_radix(text, 16).ok().map(Lsn) } else { None }
}

impl FromStr for ObjectName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            if let Some(rest) = text.strip_prefix("conflict/") {
                let (name, word) = rest.rsplit_once('/')?;
                let nested = !name.starts_with("conflict/") && !word.is_empty();
                return nested.then(|| Some(ObjectName::Conflict(Box::new(name.parse().ok()?), word.to_owned())))?;
            }
            let parts: Vec<&str> = text.splitn(5, '/').collect();
            Some(match parts.as_slice() {
                ["identity"] => ObjectName::Identity,
                ["wal", branch, segment] => match segment.strip_suffix(".partial") {
                    Some(segment) => ObjectName::Partial(branch.parse().ok()?, segment.parse().ok()?),
                    None => ObjectName::Wal(branch.parse().ok()?, segment.parse().ok()?, None),
                },
                ["wal", branch, segment, part] => {
                    let part = u8::try_from(number(part, 2)?).ok()?;
                    ObjectName::Wal(branch.parse().ok()?, segment.parse().ok()?, Some(part))
                }
                ["tail", branch, segment, range] => {
                    let (from, to) = range.split_once('-')?;
                    let range = LsnRange::new(position(from)?, position(to)?).filter(|range| !range.is_empty())?;
                    ObjectName::Tail(branch.parse().ok()?, segment.parse().ok()?, range)
                }
                ["history", branch] => ObjectName::History(branch.parse().ok()?),
                ["base", id, "label"] => ObjectName::Label(id.parse().ok()?),
                ["base", id, "manifest", page] => ObjectName::Manifest(id.parse().ok()?, number(page, 8)?),
                ["base", id, "data", data] => ObjectName::Data(id.parse().ok()?, number(data, 8)?),
                ["base", id, "resume", page] => ObjectName::Resume(id.parse().ok()?, number(page, 8)?),
                ["base", id, "names", page] => ObjectName::Names(id.parse().ok()?, number(page, 8)?),
                ["base", id, "config", page] => ObjectName::Config(id.parse().ok()?, number(page, 8)?),
                ["snapshot", id, "label"] => ObjectName::Snapshot(id.parse().ok()?),
                ["snapshot", id, "data", data] => ObjectName::Dump(id.parse().ok()?, number(data, 8)?),
                ["frontier", writer, counted] => {
                    let key: WriterPublic = writer.parse().ok()?;
                    // Bech32m may be written in capitals; a name is written one way.
                    let name = ObjectName::Frontier(Box::new(key), digits(counted, 10)?);
                    return (name.to_string() == text).then_some(name);
                }
                ["catalog", branch, range] => {
                    let (first, last) = range.split_once('-')?;
                    ObjectName::Catalog(branch.parse().ok()?, first.parse().ok()?, last.parse().ok()?)
                }
                ["summary", branch, range] => {
                    let (first, last) = range.split_once('-')?;
                    ObjectName::Summary(branch.parse().ok()?, first.parse().ok()?, last.parse().ok()?)
                }
                ["adopt", branch, count] => ObjectName::Adopt(branch.parse().ok()?, number(count, 8)?),
                ["gap", branch, from] => ObjectName::Gap(branch.parse().ok()?, position(from)?),
                ["hold", id, counted] => ObjectName::Hold(id.parse().ok()?, number(counted, 8)?),
                ["intent", run, counted] => ObjectName::Intent(run.parse().ok()?, number(counted, 8)?),
                ["pruned", run] => ObjectName::Pruned(run.parse().ok()?),
                ["lease", run, counted] => ObjectName::Lease(run.parse().ok()?, number(counted, 8)?),
                ["ledger", writer, run, sequence] => {
                    let writer = writer.parse().ok().filter(|key: &WriterPublic| key.to_string() == *writer)?;
                    ObjectName::Ledger(Box::new(writer), run.parse().ok()?, number(sequence, 8)?)
                }
                ["evidence", writer, run, counted] => {
                    let writer = writer.parse().ok().filter(|key: &WriterPublic| key.to_string() == *writer)?;
                    ObjectName::Evidence(Box::new(writer), run.parse().ok()?, number(counted, 8)?)
                }
                _ => return None,
            })
        };
        parse().ok_or_else(|| UnknownName(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_format() {
        for text in [
            "identity",
            "wal/00000001-a2dd04c7/000000010000000000000003",
            "wal/00000001-a2dd04c7/000000010000000000000003/07",
            "wal/00000001-a2dd04c7/000000010000000000000003.partial",
            "tail/00000001-a2dd04c7/000000010000000000000003/0000000003000064-0000000003000BB8",
            "history/00000002-a2dd04c7",
            "base/20261121T023000Z-0000002a/label",
            "base/20261121T023000Z-0000002a/manifest/00000000",
            "base/20261121T023000Z-0000002a/data/00000012",
            "base/20261121T023000Z-0000002a/resume/00000003",
            "base/20261121T023000Z-0000002a/names/00000000",
            "base/20261121T023000Z-0000002a/config/00000001",
            "snapshot/20261121T023000Z-0000002a/label",
            "snapshot/20261121T023000Z-0000002a/data/00000012",
            "gap/00000001-a2dd04c7/0000000003000064",
            "adopt/00000001-a2dd04c7/00000000",
            "frontier/WRITER/9999999999",
            "catalog/00000001-a2dd04c7/000000010000000000000001-000000010000000100000000",
            "summary/00000001-a2dd04c7/000000010000000000000010-00000001000000000000001F",
            "ledger/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/00112233aabbccdd/00000017",
            "lease/00112233aabbccdd/00000003",
            "hold/20261121T023000Z-0000002a/00000000",
            "intent/00112233aabbccdd/00000003",
            "pruned/00112233aabbccdd",
            "evidence/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/00112233aabbccdd/00000001",
            "conflict/wal/00000001-a2dd04c7/000000010000000000000003/0011aabb",
        ] {
            let writer = crate::seal::WriterKey::generate().expect("random bytes").public().to_string();
            let text = &text.replace("WRITER", &writer);
            let name: ObjectName = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(name.to_string(), *text);
        }
    }

    #[test]
    fn names_of_strangers_are_refused() {
        for text in [
            "",
            "identity/x",
            "wal/00000001-a2dd04c7/00000001000000000000000",
            "wal/00000001-A2DD04C7/000000010000000000000003",
            "wal/00000001-a2dd04c7/000000010000000000000003/7",
            "tail/00000001-a2dd04c7/000000010000000000000003/0000000003000064-0000000003000064",
            "base/x/label",
            "base/20261121T023000Z-0000002a/label/x",
            "base/20261121T023000Z-0000002a/resume",
            "snapshot/20261121T023000Z-0000002a/label/x",
            "snapshot/x/data/00000012",
            "adopt/00000001-a2dd04c7/0",
            "frontier/walsealw1x/9999999999",
            "catalog/00000001-a2dd04c7/000000010000000000000001",
            "summary/00000001-a2dd04c7/000000010000000000000010",
            "ledger/walsealw1/00112233aabbccdd/00000017",
            "evidence/walsealw1/00112233aabbccdd/00000001",
            "lease/00112233AABBCCDD/00000003",
            "lease/00112233aabbccdd/3",
            "hold/20261121T023000Z-0000002a",
            "intent/00112233aabbccdd",
            "pruned/00112233aabbccdd/00000003",
            "conflict/conflict/identity/a/b",
            "notes.txt",
        ] {
            assert!(text.parse::<ObjectName>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn names_never_panic(text: String) {
            let parsed = text.parse::<ObjectName>();
            prop_assert!(parsed.is_err() || parsed.is_ok_and(|name| name.to_string() == text));
        }
    }
}
