//! Timelines, their histories, and branches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// A timeline's number; PostgreSQL's are 1 and up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline that `initdb` makes.
    pub const FIRST: TimelineId = TimelineId(1);

    /// A timeline, or `None` for 0, which PostgreSQL never uses.
    pub const fn new(number: u32) -> Option<TimelineId> {
        if number == 0 { None } else { Some(TimelineId(number)) }
    }

    /// The plain number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// As in the names of WAL files: eight hexadecimal digits.
impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl TryFrom<u32> for TimelineId {
    type Error = &'static str;
    fn try_from(number: u32) -> Result<Self, Self::Error> {
        TimelineId::new(number).ok_or("0 is not a timeline")
    }
}

impl From<TimelineId> for u32 {
    fn from(timeline: TimelineId) -> u32 {
        timeline.0
    }
}

/// The 64-bit number that tells one cluster from another, made by `initdb`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SystemIdentifier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| plain).map(SystemIdentifier).ok_or_else(|| {
            format!("\"{text}\" is not a system identifier; expected a decimal number such as 7437123456789012345")
        })
    }
}

impl Serialize for SystemIdentifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One line of a history file: `timeline` ended at `switch`, for `reason`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// Where it ended: its first byte that the child does not share.
    pub switch: Lsn,
    /// What PostgreSQL noted, in whatever encoding; may name a restore point, so it is user data.
    pub reason: Vec<u8>,
}

impl HistoryEntry {
    /// The line without its end, as PostgreSQL writes it.
    fn line(&self) -> Vec<u8> {
        [format!("{}\t{}\t", self.timeline.number(), self.switch).as_bytes(), &self.reason].concat()
    }
}

/// The first word of a line, when it is text, and what follows it.
fn first_word(line: &[u8]) -> (Option<&str>, &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (std::str::from_utf8(word).ok(), rest.trim_ascii_start())
}

/// The ancestry of a timeline, oldest first. Empty for a timeline without ancestors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// Its ancestors, oldest first; numbers and switch points increase.
    pub entries: Vec<HistoryEntry>,
}

/// The bytes are not a timeline history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the history of timeline {timeline} is not readable: {why}")]
pub struct HistoryError {
    /// The timeline whose history was read.
    pub timeline: u32,
    /// What is wrong, with the line.
    pub why: String,
}

impl TimelineHistory {
    /// The history of a timeline that has no ancestors, as timeline 1.
    pub fn root(timeline: TimelineId) -> TimelineHistory {
        TimelineHistory { timeline, entries: Vec::new() }
    }

    /// Reads a history file as PostgreSQL does (`timeline.c`, `readTimeLineHistory`): blank lines and
    /// comments are skipped, numbers must increase.
    ///
    /// Errors: a line that does not parse, numbers or switch points that do not increase.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<TimelineHistory, HistoryError> {
        let fail = |why: String| HistoryError { timeline: timeline.number(), why };
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bad = || fail(format!("line {} is not \"timeline switchpoint reason\"", index + 1));
            let (number, rest) = first_word(line);
            let (switch, reason) = first_word(rest);
            let number = number.and_then(|word| word.parse().ok()).and_then(TimelineId::new).ok_or_else(bad)?;
            let switch: Lsn = switch.and_then(|word| word.parse().ok()).ok_or_else(bad)?;
            if entries.last().is_some_and(|last| last.timeline >= number || last.switch > switch) || number >= timeline
            {
                return Err(fail(format!("timelines do not increase at line {}", index + 1)));
            }
            entries.push(HistoryEntry { timeline: number, switch, reason: reason.to_vec() });
        }
        Ok(TimelineHistory { timeline, entries })
    }

    /// The history file with exactly these entries, as PostgreSQL writes it.
    pub fn render(&self) -> Vec<u8> {
        let lines: Vec<Vec<u8>> = self.entries.iter().map(|entry| [&entry.line()[..], b"\n"].concat()).collect();
        lines.join(&b'\n')
    }

    /// The history of one of the ancestors, derived from this one (case 2 of the cases that bite).
    pub fn ancestor(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        if timeline == self.timeline {
            return Some(self.clone());
        }
        let at = self.entries.iter().position(|entry| entry.timeline == timeline)?;
        Some(TimelineHistory { timeline, entries: self.entries[..at].to_vec() })
    }

    /// Where `timeline` ends on this path: its switch point, or `None` for the path's own (last) timeline
    /// and for timelines that are not on it.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.switch)
    }

    /// Where this timeline itself began: the switch point of its parent; 0/0 without one.
    pub fn begin(&self) -> Lsn {
        self.entries.last().map_or(Lsn::INVALID, |entry| entry.switch)
    }

    /// The timeline of this path that holds the byte at `lsn`.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.entries.iter().find(|entry| lsn < entry.switch).map_or(self.timeline, |entry| entry.timeline)
    }

    /// Whether `timeline` is this one or one of its ancestors.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        self.timeline == timeline || self.entries.iter().any(|entry| entry.timeline == timeline)
    }

    /// The branches of its ancestors in the cluster `system`, by their histories alone, oldest first: what of a history is no user's
    /// data.
    pub fn legs(&self, system: SystemIdentifier) -> Vec<Leg> {
        let entries = self.entries.iter().enumerate();
        let leg = |(at, entry): (usize, &HistoryEntry)| {
            let own = TimelineHistory { timeline: entry.timeline, entries: self.entries[..at].to_vec() };
            Leg { branch: own.branch(system), end: entry.switch }
        };
        entries.map(leg).collect()
    }

    /// The branch of this timeline in the cluster `system`, by its history alone: what adoptions make of it, the repository
    /// tells.
    pub fn branch(&self, system: SystemIdentifier) -> Branch {
        self.branch_after(system, &[])
    }

    /// The branch of this timeline in the cluster `system` after `adopted`, a line for each adoption on the way to it.
    pub fn branch_after(&self, system: SystemIdentifier, adopted: &[String]) -> Branch {
        // The digest covers what PostgreSQL wrote, line by line, so that a derived copy of an ancestor's
        // history (without its comments and blank lines) names the same branch.
        let mut hasher = blake3::Hasher::new_derive_key("walseal 2026-11 branch");
        hasher.update(system.to_string().as_bytes());
        for entry in &self.entries {
            hasher.update(b"\n").update(&entry.line());
        }
        for line in adopted {
            hasher.update(b"\n").update(line.as_bytes());
        }
        let digest = hasher.finalize();
        let b = digest.as_bytes();
        Branch { timeline: self.timeline, digest: u32::from_be_bytes([b[0], b[1], b[2], b[3]]) }
    }
}

/// A timeline told apart by its history: two clusters that both made timeline 2 are on two branches.
///
/// Printed as `<timeline>-<digest>`, eight hexadecimal digits each: `00000002-9f3a01bc`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch {
    /// The timeline's number.
    pub timeline: TimelineId,
    digest: u32,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.timeline, self.digest)
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Branch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (timeline, digest) = text.split_once('-')?;
            let timeline = TimelineId::new(u32::from_str_radix(timeline, 16).ok()?)?;
            let branch = Branch { timeline, digest: u32::from_str_radix(digest, 16).ok()? };
            (branch.to_string() == text).then_some(branch)
        };
        parse().ok_or_else(|| format!("\"{text}\" is not a branch; expected one such as 00000002-9f3a01bc"))
    }
}

/// A branch on the way to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// The branch.
    pub branch: Branch,
    /// Where the way leaves it.
    pub end: Lsn,
}

impl Serialize for Branch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Branch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: &[u8] = b"1\t0/3000158\tno recovery target specified\n\n2\t0/50000A0\tbefore 2026-11-01 10:00:00+00\n";

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).expect("not zero")
    }

    #[test]
    fn history_is_read_as_postgres_wrote_it() {
        let history = TimelineHistory::parse(timeline(3), THREE).expect("a legal history");
        assert_eq!(history.entries.len(), 2);
        assert_eq!(history.begin(), Lsn(0x50000A0));
        assert_eq!(history.end_of(timeline(1)), Some(Lsn(0x3000158)));
        assert_eq!(history.timeline_at(Lsn(0x3000157)), timeline(1));
        assert_eq!(history.timeline_at(Lsn(0x3000158)), timeline(2));
        assert_eq!(history.timeline_at(Lsn(0x60000000)), timeline(3));
        assert_eq!(history.render(), THREE);
    }

    #[test]
    fn case_02_the_history_of_an_ancestor_is_derived_and_names_the_same_branch() {
        let system = SystemIdentifier(7_437_123_456_789_012_345);
        let child = TimelineHistory::parse(timeline(3), THREE).expect("a legal history");
        let parent = TimelineHistory::parse(timeline(2), b"# a comment\n1\t0/3000158\tno recovery target specified\n");
        assert_eq!(child.ancestor(timeline(2)).map(|h| h.branch(system)), parent.ok().map(|h| h.branch(system)));
        assert_eq!(child.ancestor(timeline(1)), Some(TimelineHistory::root(timeline(1))));
        assert_eq!(child.ancestor(timeline(4)), None);
    }

    #[test]
    fn case_17_two_histories_of_one_timeline_are_two_branches() {
        let system = SystemIdentifier(7_437_123_456_789_012_345);
        let branch = |text: &[u8]| TimelineHistory::parse(timeline(2), text).expect("legal").branch(system);
        assert_ne!(branch(b"1\t0/3000158\tx\n"), branch(b"1\t0/3000160\tx\n"));
        let one = TimelineHistory::root(TimelineId::FIRST);
        assert_ne!(one.branch(system), one.branch(SystemIdentifier(7_437_123_456_789_012_346)));
    }

    #[test]
    fn history_refuses_what_does_not_increase() {
        for text in [
            &b"2\t0/3000158\tx\n"[..],
            b"1\t0/5000000\tx\n1\t0/6000000\tx\n",
            b"x\n",
            b"1\n",
            b"1 0-3\n",
            b"3\t0/1\tx\n",
        ] {
            assert!(TimelineHistory::parse(timeline(2), text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn history_never_panics(content: Vec<u8>, number in 1u32..) {
            let parsed = TimelineHistory::parse(timeline(number), &content);
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
