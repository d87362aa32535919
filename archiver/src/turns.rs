//! One base backup at a time: whose turn it is, how far that one is, and how it is asked to stop.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use walseal_common::postgres::replication::Checkpoint;
use walseal_common::repository::BaseId;
use walseal_common::terminal::units;

/// Why a base backup is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// Somebody asked for it and waits.
    ByHand,
    /// Its time has come.
    Schedule,
    /// There was none, and nothing restores without.
    First,
    /// WAL was lost, and what follows the gap cannot be restored without.
    Gap,
}

impl Occasion {
    /// How the server makes its checkpoint: spread, unless somebody waits, or nothing can be restored until it is there.
    pub fn checkpoint(self) -> Checkpoint {
        if self == Occasion::Schedule { Checkpoint::Spread } else { Checkpoint::Fast }
    }

    /// For a sentence: "a base backup … is under way".
    fn words(self) -> &'static str {
        match self {
            Occasion::ByHand => "asked for by hand",
            Occasion::Schedule => "by schedule",
            Occasion::First => "the first one",
            Occasion::Gap => "after a gap",
        }
    }
}

/// The base backup that is being taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnderWay {
    /// Its id; not known before the server was asked.
    pub id: Option<BaseId>,
    /// Why it is taken.
    pub occasion: Occasion,
    /// When it began, by this host's clock.
    pub since: Timestamp,
    /// What is being done, for a person.
    pub stage: String,
    /// Bytes copied, where bytes are counted.
    pub done: Option<u64>,
    /// Bytes expected.
    pub total: Option<u64>,
}

/// How far a backup is.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backup.
    pub id: BaseId,
    /// What is being done, for a person.
    pub text: String,
    /// Bytes copied, where bytes are counted.
    pub done: Option<u64>,
    /// Bytes expected.
    pub total: Option<u64>,
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.id {
            write!(f, "{id}, ")?;
        }
        let age = Duration::try_from(Timestamp::now().duration_since(self.since)).unwrap_or_default();
        write!(f, "{}, begun {} ago: {}", self.occasion.words(), units::duration(age), self.stage)?;
        match (self.done, self.total) {
            (Some(done), Some(total)) if total > 0 => {
                let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
                write!(f, ", {} of {} ({percent} %)", units::size(done), units::size(total))
            }
            (Some(done), _) => write!(f, ", {}", units::size(done)),
            _ => Ok(()),
        }
    }
}

#[derive(Default, Debug)]
struct State {
    now: Option<UnderWay>,
    /// Whether it was asked to stop.
    stop: bool,
    /// Nobody may begin any more.
    closed: bool,
}

/// Whose turn it is. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Turns(watch::Sender<State>);

impl Turns {
    /// Takes the turn, and keeps it until the answer is dropped.
    ///
    /// Errors: the backup that is under way; `None` when the daemon is about to end.
    pub fn begin(&self, occasion: Occasion) -> Result<Turn, Option<Box<UnderWay>>> {
        let mut refused = Ok(());
        self.0.send_modify(|state| match &state.now {
            _ if state.closed => refused = Err(None),
            Some(now) => refused = Err(Some(Box::new(now.clone()))),
            None => {
                let stage = "connecting to the server".to_owned();
                let since = Timestamp::now();
                state.now = Some(UnderWay { id: None, occasion, since, stage, done: None, total: None });
                state.stop = false;
            }
        });
        refused.map(|()| Turn(self.clone()))
    }

    /// The backup that is being taken.
    pub fn now(&self) -> Option<UnderWay> {
        self.0.borrow().now.clone()
    }

    /// Returns when none is being taken.
    pub async fn free(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|state| state.now.is_none()).await;
    }

    /// Lets nobody begin any more, and asks the one that is under way to stop.
    pub fn close(&self) {
        self.0.send_modify(|state| (state.stop, state.closed) = (true, true));
    }
}

/// The turn of one base backup; over when it is dropped.
#[derive(Debug)]
pub struct Turn(Turns);

impl Turn {
    /// It has come this far.
    pub fn report(&self, report: &Report) {
        self.0.0.send_modify(|state| {
            if let Some(now) = &mut state.now {
                now.id = Some(report.id.clone());
                report.text.clone_into(&mut now.stage);
                (now.done, now.total) = (report.done, report.total);
            }
        });
    }

    /// Returns when it was asked to stop.
    pub async fn stopped(&self) {
        let _ = self.0.0.subscribe().wait_for(|state| state.stop).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.now = None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_backup_is_told_which_one_is_under_way_and_how_far_it_is() {
        let turns = Turns::default();
        let turn = turns.begin(Occasion::Schedule).expect("nobody else");
        let id: BaseId = "20261121T023000Z-9f3a01bc".parse().unwrap();
        turn.report(&Report { id, text: "copying".to_owned(), done: Some(2 << 30), total: Some(4 << 30) });
        let busy = turns.begin(Occasion::ByHand).expect_err("it is taken").expect("by one").to_string();
        assert!(busy.starts_with("20261121T023000Z-9f3a01bc, by schedule, begun "), "{busy}");
        assert!(busy.ends_with(" ago: copying, 2 GiB of 4 GiB (50 %)"), "{busy}");
        drop(turn);
        assert_eq!(turns.now(), None);
        assert!(turns.begin(Occasion::ByHand).is_ok());
    }

    #[tokio::test]
    async fn closing_stops_the_one_that_runs_and_lets_nobody_else_begin() {
        let turns = Turns::default();
        let turn = turns.begin(Occasion::First).expect("nobody else");
        turns.close();
        turn.stopped().await;
        drop(turn);
        turns.free().await;
        assert!(matches!(turns.begin(Occasion::ByHand), Err(None)));
    }
}
