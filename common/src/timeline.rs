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

/// The ancestry of a timeline as PostgreSQL wrote it. Empty for a timeline without ancestors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// The lines of its file, oldest first; numbers increase. [`TimelineHistory::way`] says what they mean.
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
    /// Errors: a line that does not parse, numbers that do not increase.
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
            if entries.last().is_some_and(|newest| newest.timeline >= number) || number >= timeline {
                return Err(fail(format!("timelines do not increase at line {}", index + 1)));
            }
            entries.push(HistoryEntry { timeline: number, switch, reason: reason.to_vec() });
        }
        Ok(TimelineHistory { timeline, entries })
    }

    /// The ancestors on the way to this timeline, oldest first, each with its end: its first byte that the next one does not share.
    /// Numbers increase, and no end lies before an earlier one.
    ///
    /// A recovery that stopped before its target timeline had begun names that timeline as the parent all the same (`StartupXLOG`), and
    /// whoever reads it takes the newest timeline that had begun at a position (`tliOfPointInHistory`). On the way is the one that
    /// was left in truth, and none that had not begun.
    pub fn way(&self) -> Vec<(TimelineId, Lsn)> {
        let mut way: Vec<(TimelineId, Lsn)> = Vec::new();
        for entry in &self.entries {
            let mut left = entry.timeline;
            while let Some((later, _)) = way.pop_if(|(_, end)| *end > entry.switch) {
                left = later;
            }
            way.push((left, entry.switch));
        }
        way
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
        self.end_of(timeline).map(|_| self.derived(timeline))
    }

    /// The history of a timeline on the way: the lines of all older ones.
    fn derived(&self, timeline: TimelineId) -> TimelineHistory {
        let older = self.entries.iter().take_while(|entry| entry.timeline < timeline);
        TimelineHistory { timeline, entries: older.cloned().collect() }
    }

    /// Where `timeline` ends on this path: its switch point, or `None` for the path's own (last) timeline
    /// and for timelines that are not on it.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.way().into_iter().find(|(ancestor, _)| *ancestor == timeline).map(|(_, end)| end)
    }

    /// Where a server with this history ends its stream of `timeline`: by the line alone (`tliSwitchPoint`), which where the history goes
    /// back lies beyond the end on the way.
    pub fn streamed_to(&self, timeline: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.switch)
    }

    /// Where this timeline itself began: the switch point of its parent; 0/0 without one.
    pub fn begin(&self) -> Lsn {
        self.entries.last().map_or(Lsn::INVALID, |entry| entry.switch)
    }

    /// The timeline of this path that holds the byte at `lsn`.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.way().into_iter().find(|(_, end)| lsn < *end).map_or(self.timeline, |(timeline, _)| timeline)
    }

    /// Whether `timeline` is this one or one of its ancestors.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        self.timeline == timeline || self.end_of(timeline).is_some()
    }

    /// The branches of its ancestors in the cluster `system`, by their histories alone, oldest first: what of a history is no user's
    /// data.
    pub fn legs(&self, system: SystemIdentifier) -> Vec<Leg> {
        let leg = |(timeline, end)| Leg { branch: self.derived(timeline).branch(system), end };
        self.way().into_iter().map(leg).collect()
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

    #[test]
    fn case_05_a_recovery_that_stopped_before_its_target_timeline_began_left_an_earlier_one() {
        // As PostgreSQL 15 wrote them: timeline 3 is a recovery along timeline 2 to a time before that had begun.
        let three =
            b"1\t0/1209DF0\tno recovery target specified\n\n2\t0/E06A48\tbefore 2026-11-28 00:08:16.269427+00\n";
        let four = [&three[..], b"\n\n3\t0/E06B38\tno recovery target specified\n"].concat();
        let history = TimelineHistory::parse(timeline(4), &four).expect("a legal history");
        assert_eq!(history.way(), [(timeline(1), Lsn(0xE0_6A48)), (timeline(3), Lsn(0xE0_6B38))]);
        let parent = TimelineHistory::parse(timeline(3), three).expect("a legal history");
        assert_eq!(history.ancestor(timeline(3)), Some(parent.clone()));
        assert_eq!(history.ancestor(timeline(2)), None, "nothing of it is on the way");
        assert_eq!(
            (history.end_of(timeline(1)), history.streamed_to(timeline(1))),
            (Some(Lsn(0xE0_6A48)), Some(Lsn(0x120_9DF0)))
        );
        let system = SystemIdentifier(7_437_123_456_789_012_345);
        let root = TimelineHistory::root(timeline(1)).branch(system);
        let branches: Vec<Branch> = history.legs(system).iter().map(|leg| leg.branch).collect();
        assert_eq!(branches, [root, parent.branch(system)]);
        // And again, to before any of them.
        let again = [&four[..], b"\n4\t0/A00000\tx\n"].concat();
        let history = TimelineHistory::parse(timeline(5), &again).expect("a legal history");
        assert_eq!(history.way(), [(timeline(1), Lsn(0xA0_0000))]);
        assert_eq!(history.begin(), Lsn(0xA0_0000));
    }

    proptest! {
        /// PostgreSQL's own way to read one: the newest timeline first, each from where the one before it ended (`readTimeLineHistory`,
        /// `tliOfPointInHistory`).
        #[test]
        fn case_05_every_position_lies_on_the_timeline_that_postgres_finds(
            switches in proptest::collection::vec(1u64..20, 0..6),
            position in 0u64..25,
        ) {
            let number = u32::try_from(switches.len()).expect("few") + 1;
            let lines: Vec<String> =
                (1..).zip(&switches).map(|(number, at)| format!("{number}\t{}\tx\n", Lsn(*at))).collect();
            let history = TimelineHistory::parse(timeline(number), lines.concat().as_bytes()).expect("a legal history");
            let begins = [None].into_iter().chain(switches.iter().copied().map(Some));
            let ends = switches.iter().copied().map(Some).chain([None]);
            let pieces: Vec<(u32, Option<u64>, Option<u64>)> =
                (1..).zip(begins.zip(ends)).map(|(number, (begin, end))| (number, begin, end)).collect();
            let newest_first = pieces.iter().rev().find(|(_, begin, end)| {
                begin.is_none_or(|begin| begin <= position) && end.is_none_or(|end| position < end)
            });
            prop_assert_eq!(Some(history.timeline_at(Lsn(position)).number()), newest_first.map(|(number, ..)| *number));
            let way = history.way();
            prop_assert!(way.is_sorted_by(|(a, a_ends), (b, b_ends)| a < b && a_ends <= b_ends));
            for (at, (ancestor, _)) in way.iter().enumerate() {
                let own = history.ancestor(*ancestor).map(|own| own.way());
                prop_assert_eq!(own.as_deref(), way.get(..at));
            }
            prop_assert_eq!(TimelineHistory::parse(timeline(number), &history.render()), Ok(history));
        }

        #[test]
        fn history_never_panics(content: Vec<u8>, number in 1u32..) {
            let parsed = TimelineHistory::parse(timeline(number), &content);
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
