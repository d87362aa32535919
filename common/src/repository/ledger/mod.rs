//! The ledger: what happened to a repository, as its writers signed it. Section 9 of the format.
//!
//! Every process that acts on a repository is a *run*, with a random id, and numbers its entries from 0. Each entry names the
//! digest of the one before; a run's first entry names the last entries of all other runs that it saw. So nobody races for a
//! number, and an entry that is changed, missing, moved or cut off shows, unless it is the very last that nobody has seen.

mod act;
mod chain;
mod finding;
mod reading;
mod scribe;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use act::{Act, DrillFacts, EvidenceFact, FailureClass, TargetFact, obscured};
pub use chain::Chain;
pub use finding::Finding;
pub(super) use reading::AT_A_TIME;
pub use reading::{KnownEntries, LedgerEntry, LedgerReading};
pub use scribe::{Ledger, LedgerSigner};

use crate::seal::{ObjectDigest, SealError, WriterPublic};

/// Random id of a process that writes the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; 8]);

impl RunId {
    /// A new one.
    ///
    /// Errors: no random bytes.
    pub fn random() -> Result<RunId, SealError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| SealError::NoEntropy(error.to_string()))?;
        Ok(RunId(bytes))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no id of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a run's id has 16 lower-case hexadecimal digits")]
pub struct NoRunId;

impl FromStr for RunId {
    type Err = NoRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| plain).ok_or(NoRunId)?;
        Ok(RunId(number.to_be_bytes()))
    }
}

/// Serialised as their text.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(RunId);
as_text!(WriterPublic);

/// The last entry of a run, as another one saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Whose run.
    pub writer: WriterPublic,
    /// The run.
    pub run: RunId,
    /// The entry's number.
    pub sequence: u32,
    /// The entry's object digest.
    pub digest: ObjectDigest,
}

/// The body of an entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Body {
    /// The run, as in the name.
    pub run: RunId,
    /// Its number in the run, from 0, as in the name.
    pub sequence: u32,
    /// Object digest of the entry before; `None` in the first.
    pub previous: Option<ObjectDigest>,
    /// In the first entry: the last entries of all other runs that its writer saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Vec<Head>>,
    /// When it happened, by the writer's clock.
    pub time: Timestamp,
    /// Who acted: `walseal.actor`, else the login and the host.
    pub actor: String,
    /// The program and its version.
    pub program: String,
    /// What happened, in a word. Readers keep words that they do not know.
    pub act: String,
    /// What else is to be said of it.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests;
