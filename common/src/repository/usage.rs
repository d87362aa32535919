//! How much lies in a repository, by what it is for.

use serde::{Deserialize, Serialize};

use super::{Repository, RepositoryError};

/// Objects that nobody counts one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, bytes: u64) {
        self.merge(Sum { objects: 1, bytes });
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: Sum) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// What is left of it without a part of it.
    #[must_use]
    pub fn less(self, part: Sum) -> Sum {
        Sum { objects: self.objects.saturating_sub(part.objects), bytes: self.bytes.saturating_sub(part.bytes) }
    }
}

/// What lies in a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Base backups.
    pub base: Sum,
    /// Whole segments, and valid parts of last ones.
    pub wal: Sum,
    /// Tails.
    pub tail: Sum,
    /// Summaries.
    pub summary: Sum,
    /// Snapshots.
    pub snapshot: Sum,
    /// The rest: records, catalog pages, the ledger, and what is not of the format.
    pub rest: Sum,
}

impl Usage {
    /// Takes in objects of which the names begin with this part.
    pub fn take(&mut self, first_part: &str, sum: Sum) {
        let kind = match first_part {
            "base" => &mut self.base,
            "wal" => &mut self.wal,
            "tail" => &mut self.tail,
            "summary" => &mut self.summary,
            "snapshot" => &mut self.snapshot,
            _ => &mut self.rest,
        };
        kind.merge(sum);
    }

    /// All of it.
    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.kinds().iter().for_each(|(_, sum)| total.merge(*sum));
        total
    }

    /// Each kind with its name, for messages.
    pub fn kinds(&self) -> [(&'static str, Sum); 6] {
        [
            ("base backups", self.base),
            ("WAL", self.wal),
            ("tails", self.tail),
            ("summaries", self.summary),
            ("snapshots", self.snapshot),
            ("the rest", self.rest),
        ]
    }
}

impl Repository {
    /// What lies in it, by name and size. Cost: a listing of everything, a call for each thousand objects.
    ///
    /// Errors: the store's.
    pub async fn usage(&self) -> Result<Usage, RepositoryError> {
        let mut usage = Usage::default();
        let mut pages = self.all_objects();
        while let Some(page) = pages.next().await? {
            for meta in &page {
                let first_part = meta.key.split('/').next().unwrap_or_default();
                usage.take(first_part, Sum { objects: 1, bytes: meta.size });
            }
        }
        Ok(usage)
    }
}
