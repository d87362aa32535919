//! What verifying a repository found, for people and machines.

use jiff::Timestamp;
use serde::Serialize;

use super::{Failure, printable, units};
use crate::repository::{Flaw, Heads, Leftover, Reading, Repository, Survey, Witness};

/// What was opened, with keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Opened {
    /// Base backups of which every file was put together.
    pub bases: u64,
    /// Files of them, and bytes in these.
    pub files: u64,
    /// See `files`.
    pub file_bytes: u64,
    /// Of the files, those that were compared with the server's manifest.
    pub compared: u64,
    /// Bytes of WAL of which every record was read.
    pub wal_bytes: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Where the repository is.
    pub repository: String,
    /// The cluster's system identifier.
    pub cluster: String,
    /// When this began, by this host's clock.
    pub began: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Whether objects were not read.
    pub quick: bool,
    /// Base backups with a label that verifies.
    pub bases: usize,
    /// Snapshots with a label that verifies.
    pub snapshots: usize,
    /// Objects that were read, and bytes in them.
    pub objects: u64,
    /// See `objects`.
    pub bytes: u64,
    /// Objects that are none of this format.
    pub foreign: u64,
    /// The names of the first of them.
    pub foreign_names: Vec<String>,
    /// What was opened; `None` where nobody had a key.
    pub opened: Option<Opened>,
    /// What outside the repository it was compared with, in words; empty: that its newest end was cut off could not have been seen.
    pub witnesses: Vec<String>,
    /// The newest of it, to compare with later.
    pub heads: Heads,
    /// Whether nothing was found.
    pub whole: bool,
    /// What is on record as removed, and is still there.
    pub to_be_removed: Leftover,
    /// What was found.
    pub flaws: Vec<Flaw>,
    /// How many more there are.
    pub more_flaws: u64,
}

impl Verification {
    /// What a survey and a reading have found. `began`: when this began.
    pub fn of(
        repository: &Repository,
        began: Timestamp,
        quick: bool,
        witnesses: &[Witness],
        survey: Survey,
        reading: Reading,
    ) -> Verification {
        let mut flaws = Vec::new();
        let bases = survey.bases();
        let Survey { flaws: by_name, heads, leftover, snapshots, .. } = survey;
        let Reading { objects, bytes, foreign, foreign_names, flaws: read, more_flaws, .. } = reading;
        for flaw in by_name.into_iter().chain(read) {
            // What was found by its name may be found again when it is read.
            let known =
                |other: &Flaw| (other.kind, &other.object, &other.what) == (flaw.kind, &flaw.object, &flaw.what);
            if !flaws.iter().any(known) {
                flaws.push(flaw);
            }
        }
        let now = Timestamp::now();
        Verification {
            repository: repository.describe(),
            cluster: repository.cluster().to_string(),
            began,
            seconds: now.duration_since(began).as_secs_f64().max(0.0),
            quick,
            bases,
            snapshots,
            objects,
            bytes,
            foreign,
            foreign_names,
            opened: None,
            witnesses: witnesses.iter().map(|witness| witness.who.clone()).collect(),
            heads,
            whole: flaws.is_empty() && more_flaws == 0,
            to_be_removed: leftover,
            flaws,
            more_flaws,
        }
    }

    /// Adds what was found with keys.
    pub fn add_opened(&mut self, opened: Opened, flaws: Vec<Flaw>) {
        self.opened = Some(opened);
        self.flaws.extend(flaws);
        self.whole &= self.flaws.is_empty();
        self.seconds = Timestamp::now().duration_since(self.began).as_secs_f64().max(0.0);
    }

    /// How the verb fails, where anything is wrong.
    pub fn failure(&self) -> Option<Failure> {
        let count = self.count();
        let things = if count == 1 { "thing is" } else { "things are" };
        let failure = || Failure::saying(format!("the repository is not whole: {count} {things} wrong, as listed"));
        (count > 0).then(failure)
    }

    /// How many things are wrong.
    pub fn count(&self) -> u64 {
        self.flaws.len() as u64 + self.more_flaws
    }

    /// Lines for a person.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for flaw in &self.flaws {
            text.push_str(&format!("{flaw}\n"));
            if !flaw.bases.is_empty() {
                let ids: Vec<&str> = flaw.bases.iter().map(|id| id.as_str()).collect();
                text.push_str(&format!("  cannot be restored: base backup {}\n", ids.join(", ")));
            }
            if !flaw.snapshots.is_empty() {
                let ids: Vec<&str> = flaw.snapshots.iter().map(|id| id.as_str()).collect();
                text.push_str(&format!("  cannot be restored: snapshot {}\n", ids.join(", ")));
            }
            for lost in &flaw.lost {
                text.push_str(&format!("  cannot be reached: {lost}\n"));
            }
            for cure in &flaw.cure {
                text.push_str(&format!("  -> {cure}\n"));
            }
        }
        if self.more_flaws > 0 {
            text.push_str(&format!("And {} more.\n", self.more_flaws));
        }
        if self.foreign > 0 {
            let names = self.foreign_names.join(", ");
            text.push_str(&format!(
                "{} objects are none of walseal's, or of writers that are not trusted, and were left alone: {names}\n",
                self.foreign
            ));
        }
        text.extend(to_be_removed(&self.to_be_removed));
        let read = match self.quick {
            true => "Names, labels, records and the ledger".to_owned(),
            false => format!("{} objects, {}", self.objects, units::size(self.bytes)),
        };
        if let Some(opened) = &self.opened {
            text.push_str(&format!(
                "Opened: {} base backups, {} files, {}, {} of them compared with the server's manifest; {} of WAL, record by record.\n",
                opened.bases,
                opened.files,
                units::size(opened.file_bytes),
                opened.compared,
                units::size(opened.wal_bytes)
            ));
        }
        let verdict = match self.count() {
            0 => "nothing is wrong".to_owned(),
            1 => "1 thing is wrong".to_owned(),
            many => format!("{many} things are wrong"),
        };
        let snapshots = match self.snapshots {
            0 => String::new(),
            1 => " and 1 snapshot".to_owned(),
            many => format!(" and {many} snapshots"),
        };
        text.push_str(&format!("{read}, and {} base backups{snapshots}: {verdict}. ", self.bases));
        text.push_str(&match self.witnesses.as_slice() {
            [] => "Compared with nothing outside the repository: a newest end that was cut off would not have shown."
                .to_owned(),
            some => format!("Compared with what {}.", some.join(", and what ")),
        });
        printable(&text)
    }
}

/// In a line; none where nothing is.
fn to_be_removed(Leftover { bases, wal }: &Leftover) -> Option<String> {
    let bytes: u64 = wal.iter().map(|one| one.to.bytes_since(one.from)).sum();
    let bases = match bases.as_slice() {
        [] => None,
        [one] => Some(format!("base backup {one}")),
        some => Some(format!("{} base backups", some.len())),
    };
    let wal = (bytes > 0).then(|| format!("{} of WAL", units::size(bytes)));
    let what: Vec<String> = bases.into_iter().chain(wal).collect();
    let line = || {
        format!(
            "On record as removed, and still there: {}. The next prune removes it, or keeps it.\n",
            what.join(" and ")
        )
    };
    (!what.is_empty()).then(line)
}
