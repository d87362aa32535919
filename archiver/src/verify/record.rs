//! What is known of verifications, in a file of `cluster.state_dir`: losing it costs time and nothing else (I8).

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use walseal_common::repository::Reading;
use walseal_common::state_file;
use walseal_common::timeline::SystemIdentifier;

/// The file.
pub(super) const FILE: &str = "verify.json";

/// The last survey, and the last round over every object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) cluster: SystemIdentifier,
    /// When names and records were last compared.
    pub(super) surveyed: Option<Timestamp>,
    /// What was wrong with them.
    pub(super) flaws: u64,
    /// The round that is under way, or was the last.
    pub(super) round: Option<Round>,
}

/// One round over every object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Round {
    pub(super) began: Timestamp,
    pub(super) reading: Reading,
    /// What the round before found wrong: as long as this one has not ended, nobody has seen that it is mended.
    #[serde(default)]
    before: u64,
}

impl Round {
    /// One that follows `last`.
    pub(super) fn after(last: Option<&Round>, began: Timestamp) -> Round {
        Round { began, reading: Reading::default(), before: last.map_or(0, Round::wrong) }
    }

    /// Objects that are known to be wrong from what was read.
    pub(super) fn wrong(&self) -> u64 {
        let found = self.reading.flaws.len() as u64 + self.reading.more_flaws;
        if self.reading.ended { found } else { found.max(self.before) }
    }
}

impl Record {
    pub(super) fn none(cluster: SystemIdentifier) -> Record {
        Record { cluster, surveyed: None, flaws: 0, round: None }
    }

    pub(super) fn load(state_dir: &Path) -> Option<Record> {
        state_file::load(&state_dir.join(FILE))
    }
}

/// What verifications of the repository found, by verb or daemon of this host, for those who show it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Verified {
    /// When names and records were last compared.
    pub surveyed: Option<Timestamp>,
    /// What is known to be wrong: with those, and with objects that the round at hand has read, or until it ends the one before it.
    pub flaws: u64,
    /// When the round over every object began that is under way, or was the last.
    pub round_began: Option<Timestamp>,
    /// Whether it has ended.
    pub round_ended: bool,
    /// Objects that it has read.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Verified {
    /// What the state folder tells; `None` where nothing was verified yet.
    pub fn load(state_dir: &Path) -> Option<Verified> {
        Record::load(state_dir).map(|record| Verified::of(&record))
    }

    pub(super) fn of(record: &Record) -> Verified {
        let reading = record.round.as_ref().map(|round| &round.reading);
        Verified {
            surveyed: record.surveyed,
            flaws: record.flaws + record.round.as_ref().map_or(0, Round::wrong),
            round_began: record.round.as_ref().map(|round| round.began),
            round_ended: reading.is_some_and(|reading| reading.ended),
            objects: reading.map_or(0, |reading| reading.objects),
            bytes: reading.map_or(0, |reading| reading.bytes),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_round_found_is_wrong_until_another_one_has_read_everything() {
        let began = Timestamp::UNIX_EPOCH;
        let mut first = Round::after(None, began);
        assert_eq!(first.wrong(), 0);
        (first.reading.more_flaws, first.reading.ended) = (2, true);
        let mut second = Round::after(Some(&first), began);
        assert_eq!(second.wrong(), 2, "nothing was read again yet");
        second.reading.more_flaws = 1;
        assert_eq!(second.wrong(), 2);
        second.reading.ended = true;
        assert_eq!(second.wrong(), 1);
        // A file of an earlier version does not say what there was before.
        let mut old = serde_json::to_value(Round::after(None, began)).expect("JSON");
        old.as_object_mut().expect("an object").remove("before");
        assert_eq!(serde_json::from_value::<Round>(old).expect("still read").wrong(), 0);
    }
}
