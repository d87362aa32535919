//! How a request ended, for PostgreSQL and for its log.

use walseal_common::terminal::FetchExit;

use super::{Ending, Outcome};

/// What is replied to PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The file is where it was wanted.
    Delivered,
    /// It is proven that nothing is known there: the reason.
    NotThere(String),
    /// A standby is told "not there", because the store does not answer: what it said last.
    StandbyWaits(String),
    /// Anything else: the reason.
    Failed(String),
}

impl Reply {
    /// The exit code (case 1).
    pub fn exit(&self) -> FetchExit {
        match self {
            Reply::Delivered => FetchExit::Delivered,
            Reply::NotThere(_) | Reply::StandbyWaits(_) => FetchExit::NotThere,
            Reply::Failed(_) => FetchExit::Failed,
        }
    }
}

impl From<Ending<Outcome>> for Reply {
    fn from(ending: Ending<Outcome>) -> Reply {
        match ending {
            Ending::Answered(Outcome::Delivered) => Reply::Delivered,
            Ending::Answered(Outcome::NotThere(why)) => Reply::NotThere(why),
            Ending::StandbyWaits(error) => Reply::StandbyWaits(error.to_string()),
            Ending::Failed(error) => Reply::Failed(error.to_string()),
        }
    }
}
