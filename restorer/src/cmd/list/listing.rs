//! What a repository can restore, for people and for machines.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::clock;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{
    Adoption, BaseId, BaseType, Label, Lineage, ObjectName, Proof, Usage, WrittenFrontier, silence,
};
use walseal_common::segment::SegmentSize;
use walseal_common::terminal::{Align, Look, Table, printable, units, usage};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::proven_words;
use crate::cmd::snapshot::list::{self as snapshots, Line};
use crate::heads::CutOff;
use crate::plan::points::{RestorePoint, wal_size};
use crate::plan::windows::Window;
use crate::plan::{Hole, Inventory, Path, ends, surplus};
use crate::shell::quoted;

/// Objects of no use that are named on a terminal.
const MOST_NAMED: usize = 20;

/// What a repository can restore.
#[derive(Serialize)]
pub(super) struct Listing {
    pub(super) repository: String,
    cluster: String,
    postgres_major: u32,
    segment_size: SegmentSize,
    pub(super) windows: Vec<Window>,
    /// No state of the cluster is older that can be restored: nothing that only older ones refer to is needed.
    oldest: Option<Timestamp>,
    /// What this host has seen of the newest end, and is not there any more.
    pub(super) cut_off: Vec<CutOff>,
    /// The newest word of any writer on how far WAL was durable.
    pub(super) fresh: Option<Fresh>,
    /// WAL that is missing, with the records of it, by position.
    pub(super) gaps: Vec<Hole>,
    /// Where two servers wrote the same timeline, and which of them is the living one.
    adoptions: Vec<Adoption>,
    /// The named restore points in all windows; null where they were not asked for.
    pub(super) restore_points: Option<Vec<RestorePoint>>,
    /// What lies in the repository, by kind; null where it was not asked for.
    pub(super) usage: Option<Usage>,
    /// Bytes of WAL in all windows, which have to be opened for them.
    wal_size: u64,
    pub(super) bases: Vec<Base>,
    /// Dumps of databases.
    snapshots: Vec<Line>,
    /// Base backups whose label does not verify.
    unusable: Vec<Unusable>,
    /// Objects of WAL that were found to be of no use. Not all objects are read for this.
    pub(super) damaged: Vec<Damaged>,
    /// Records of gaps that cannot be read, and why.
    unreadable_gaps: Vec<String>,
    /// Why branches are left out.
    unreadable: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Base {
    pub(super) id: BaseId,
    /// Whether it refers to others.
    #[serde(rename = "type")]
    kind: BaseType,
    /// The one that it refers to.
    parent: Option<BaseId>,
    branch: Branch,
    start: Lsn,
    stop: Lsn,
    start_time: Timestamp,
    stop_time: Timestamp,
    /// From its start to its stop.
    seconds: f64,
    postgres_version: u32,
    /// Bytes of all files.
    cluster_size: u64,
    /// Bytes of the data objects that it stored itself.
    stored_size: u64,
    /// Bytes of data objects of others that it needs.
    referenced_size: u64,
    tablespaces: u32,
    suspect: u64,
    /// Whether a drill passed; null before one has run.
    proven: Option<bool>,
    /// When one last did.
    proven_at: Option<Timestamp>,
    /// What it comes from, where a drill made it.
    derived: Option<Lineage>,
    /// Whether that is proven; null where no drill made it.
    derived_from_proven: Option<bool>,
}

impl Base {
    fn of(label: &Label, referenced_size: u64, proof: &Proof) -> Base {
        Base {
            id: label.id.clone(),
            kind: label.kind,
            parent: label.parent.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            start_time: label.start_time,
            stop_time: label.stop_time,
            seconds: label.stop_time.duration_since(label.start_time).as_secs_f64(),
            postgres_version: label.postgres_version,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            referenced_size,
            tablespaces: label.tablespaces,
            suspect: label.suspect,
            proven: proof.of_base(&label.id),
            proven_at: proof.proven.get(&label.id).copied(),
            derived: label.derived.clone(),
            derived_from_proven: label.derived.as_ref().map(|from| proof.of_base(&from.base) == Some(true)),
        }
    }

    fn version(&self) -> String {
        format!("{}.{}", self.postgres_version / 10_000, self.postgres_version % 10_000)
    }

    /// How long it took. A clock that was set back meanwhile shows as nothing.
    fn took(&self) -> Duration {
        Duration::try_from(self.stop_time.duration_since(self.start_time)).unwrap_or_default()
    }
}

/// How fresh a repository is, by the newest signed word of any writer; nobody else has to be asked.
#[derive(Serialize)]
pub(super) struct Fresh {
    /// The branch that was streamed.
    branch: Branch,
    /// Up to where its WAL was durable.
    frontier: Lsn,
    /// Whether that was all that the server had.
    complete: bool,
    /// The highest transaction time in it that the writer saw.
    highest_time: Option<Timestamp>,
    /// When the writer said so.
    written: Timestamp,
    /// Seconds after which it meant to say so again.
    interval_seconds: u64,
    writer: String,
}

impl Fresh {
    fn of(written: &WrittenFrontier) -> Fresh {
        let record = &written.record;
        let writer = match &written.name {
            ObjectName::Frontier(writer, _) => writer.to_string(),
            other => other.to_string(),
        };
        Fresh {
            branch: record.at.branch,
            frontier: record.at.frontier,
            complete: record.server_end <= record.at.frontier,
            highest_time: record.highest_time,
            written: record.written,
            interval_seconds: record.interval_seconds,
            writer,
        }
    }

    fn words(&self, now: Timestamp) -> String {
        let at = |time: Timestamp| PgTimestamp::from_jiff(time);
        let all = if self.complete { ", all that the server had" } else { "" };
        let last =
            self.highest_time.map_or_else(String::new, |time| format!("; the last transaction is of {}", at(time)));
        let written = units::ago(at(now), at(self.written));
        let mut text = format!(
            "Fresh: {written}, at {}, WAL was durable up to {} on timeline {}{all}{last}.",
            at(self.written),
            self.frontier,
            self.branch.timeline.number()
        );
        let due = Duration::from_secs(self.interval_seconds);
        if silence(self.written, self.interval_seconds, now).is_some() {
            text.push_str(&format!(
                " Nothing was heard since, although a word is due every {}: the archiver does not run, or does not reach the server \
                 or the store.",
                units::duration(due)
            ));
        }
        text
    }
}

#[derive(Serialize)]
struct Unusable {
    id: BaseId,
    why: String,
}

#[derive(Serialize)]
pub(super) struct Damaged {
    pub(super) name: String,
    branch: Branch,
    /// The bytes that it is there for.
    start: Lsn,
    end: Lsn,
    why: String,
}

impl Listing {
    pub(super) fn new(
        inventory: &Inventory,
        windows: Vec<Window>,
        restore_points: Option<Vec<RestorePoint>>,
        proof: &Proof,
        snapshots: Vec<Line>,
        now: Timestamp,
    ) -> Listing {
        let referenced = |label: &Label| inventory.referenced.get(&label.id).copied().unwrap_or(0);
        let bases = inventory.bases.iter().map(|label| Base::of(label, referenced(label), proof));
        let unusable = inventory.unusable.iter().map(|base| Unusable { id: base.id.clone(), why: base.why.clone() });
        let damaged = inventory.branches.values().flat_map(|facts| {
            facts.damaged.iter().map(|(held, damage)| Damaged {
                name: damage.name.to_string(),
                branch: facts.branch,
                start: held.start,
                end: held.end,
                why: damage.why.clone(),
            })
        });
        Listing {
            repository: inventory.store.clone(),
            cluster: inventory.identity.cluster.to_string(),
            postgres_major: inventory.identity.postgres_major,
            segment_size: inventory.identity.segment_size,
            cut_off: Vec::new(),
            oldest: inventory.bases.iter().map(Label::shows).min(),
            windows,
            fresh: inventory
                .frontiers
                .iter()
                // The word of a clock that was ahead would be the newest until its time comes.
                .filter(|one| !clock::was_wrong(one.record.written, now))
                .max_by_key(|one| one.record.written)
                .map(Fresh::of),
            gaps: gaps(inventory),
            adoptions: inventory.adoptions.iter().map(|(_, adoption)| adoption.clone()).collect(),
            restore_points,
            usage: None,
            wal_size: wal_size(inventory),
            bases: bases.collect(),
            snapshots,
            unusable: unusable.collect(),
            damaged: damaged.collect(),
            unreadable_gaps: inventory
                .gaps
                .iter()
                .filter_map(|gap| Some(gap.content.as_ref().err()?.to_string()))
                .collect(),
            unreadable: ends(inventory).unreadable.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    pub(super) fn render(&self, look: Look, now: Timestamp) -> String {
        let mut text = format!(
            "{}: cluster {}, PostgreSQL {}, WAL segments of {}\n\n",
            self.repository,
            self.cluster,
            self.postgres_major,
            units::size(self.segment_size.bytes())
        );
        for cut in &self.cut_off {
            text.push_str(&format!("{}\n\n", cut.words()));
        }
        if self.windows.is_empty() && self.bases.is_empty() && !self.snapshots.is_empty() {
            text.push_str("No base backup is here, and no WAL: what can be restored are snapshots.\n");
        } else if self.windows.is_empty() {
            text.push_str("Nothing can be restored: no base backup has its WAL here.\n");
        } else {
            let mut table = Table::new([
                ("timeline", Align::Right),
                ("any second from", Align::Left),
                ("to", Align::Left),
                ("WAL from", Align::Right),
                ("to", Align::Right),
                ("base backups", Align::Right),
            ]);
            for window in &self.windows {
                table.row([
                    window.timeline.number().to_string(),
                    time(window.from_time),
                    time(window.to_time),
                    window.from.to_string(),
                    window.to.to_string(),
                    window.bases.len().to_string(),
                ]);
            }
            text.push_str(&format!("{}{}\n", self.headline(now), table.render(look)));
        }
        if let Some(fresh) = &self.fresh {
            text.push_str(&format!("{}\n", fresh.words(now)));
        }
        if let Some(there) = &self.usage {
            text.push_str(&format!("Stored: {}.\n", usage(there)));
        }
        for hole in &self.gaps {
            let named =
                self.damaged.iter().any(|damaged| damaged.start < hole.range.end && hole.range.start < damaged.end);
            let usable = if named { ". Some of it is there and not usable, see below" } else { "" };
            text.push_str(&format!("{}{usable}.\n", hole.words()));
        }
        if self.gaps.iter().any(|hole| !hole.pruned) {
            let unrecorded = self.gaps.iter().find(|hole| hole.record.is_none() && !hole.pruned);
            let which = unrecorded.map_or_else(String::new, |hole| format!(" --gap {}", hole.range.start));
            text.push_str(&format!(
                "Where the server, a standby or another archive still has it: walseal-archiver heal{which}\n"
            ));
        }
        for adoption in &self.adoptions {
            let number = adoption.branch.timeline.number();
            text.push_str(&format!(
                "Two servers wrote timeline {number}: from {} on the WAL of the living one lies on branch {}. The other one's is reached by name \
                 alone: --timeline {}\n",
                adoption.from, adoption.to, adoption.branch
            ));
        }
        for window in &self.windows {
            if let Some(surplus) = &window.surplus {
                let words = surplus::words(surplus, window.to);
                text.push_str(&format!("On timeline {}, {words}.\n", window.timeline.number()));
            }
        }
        if !self.bases.is_empty() {
            let mut table = Table::new([
                ("base backup", Align::Left),
                ("type", Align::Left),
                ("timeline", Align::Right),
                ("WAL from", Align::Right),
                ("ended", Align::Left),
                ("complete at", Align::Right),
                ("took", Align::Right),
                ("version", Align::Right),
                ("files", Align::Right),
                ("stored", Align::Right),
                ("referenced", Align::Right),
                ("proven", Align::Left),
                ("", Align::Left),
            ]);
            for base in &self.bases {
                let in_a_window = self.windows.iter().any(|window| window.bases.contains(&base.id));
                let remark = match base.suspect {
                    0 if in_a_window => String::new(),
                    0 => "in no window".to_owned(),
                    failures => format!("suspect: {failures} page checksum failure(s)"),
                };
                table.row([
                    base.id.to_string(),
                    base.kind.word().to_owned(),
                    base.branch.timeline.number().to_string(),
                    base.start.to_string(),
                    PgTimestamp::from_jiff(base.stop_time).to_string(),
                    base.stop.to_string(),
                    units::duration(base.took()),
                    base.version(),
                    units::size(base.cluster_size),
                    units::size(base.stored_size),
                    units::size(base.referenced_size),
                    match (base.proven, base.proven_at) {
                        (None, _) if base.derived_from_proven == Some(true) => "derived from proven".to_owned(),
                        (proven, at) => proven_words(proven, at, now),
                    },
                    remark,
                ]);
            }
            text.push_str(&format!("\n{}\n", table.render(look)));
        }
        if !self.snapshots.is_empty() {
            text.push_str(&format!("\n{}\n", snapshots::table(&self.snapshots, look, now)));
        }
        text.push_str(&self.restore_points_words(look));
        for base in &self.unusable {
            text.push_str(&format!(
                "\nNot usable: base backup {}: its label (base/{}/label): {}\n",
                base.id, base.id, base.why
            ));
        }
        for damaged in self.damaged.iter().take(MOST_NAMED) {
            text.push_str(&format!(
                "\nNot usable: {}, with the WAL from {} to {}: {}\n",
                damaged.name, damaged.start, damaged.end, damaged.why
            ));
        }
        if self.damaged.len() > MOST_NAMED {
            text.push_str(&format!("\nand {} more; --json names them all\n", self.damaged.len() - MOST_NAMED));
        }
        if !self.damaged.is_empty() || !self.unusable.is_empty() {
            text.push_str(
                "\nNothing that needs an object which is not usable can be restored. If the store keeps older versions, or there \
                 is another copy of the repository, put back what was written; a window that needs none of them begins with: \
                 walseal-archiver backup\n",
            );
        }
        for why in &self.unreadable_gaps {
            text.push_str(&format!("\nNot usable: a record of a gap: {why}\n"));
        }
        for why in &self.unreadable {
            text.push_str(&format!("\nLeft out: {why}\n"));
        }
        printable(&text)
    }
}

impl Listing {
    /// The windows of the way that lived longest, in a line.
    fn headline(&self, now: Timestamp) -> String {
        let Some(newest) = self.windows.iter().max_by_key(|window| (window.to_time, window.timeline)) else {
            return String::new();
        };
        let same: Vec<&Window> = self.windows.iter().filter(|window| window.branch == newest.branch).collect();
        let ended = || same.iter().filter(|window| window.gap.is_some());
        let pruned = ended().filter(|window| window.gap_pruned).count();
        let gaps = match ended().count() - pruned {
            0 => "no gap".to_owned(),
            1 => "1 gap".to_owned(),
            more => format!("{more} gaps"),
        };
        let gaps = match pruned {
            0 => gaps,
            1 => format!("but for 1 stretch that retention removed, {gaps}"),
            more => format!("but for {more} stretches that retention removed, {gaps}"),
        };
        let from = same.first().map_or_else(|| time(None), |first| time(first.from_time));
        let to = newest.to_time.map_or_else(
            || "where its base backup is complete".to_owned(),
            |to| format!("{to} ({})", units::ago(PgTimestamp::from_jiff(now), to)),
        );
        format!("Any second from {from} to {to}, {gaps}.\n\n")
    }

    fn restore_points_words(&self, look: Look) -> String {
        let points = match self.restore_points.as_deref() {
            None if self.windows.is_empty() => return String::new(),
            None => {
                return format!(
                    "\nNamed restore points are in the WAL itself. To open all of it ({}) and list them: list --restore-points\n",
                    units::size(self.wal_size)
                );
            }
            Some([]) => return "\nThere is no named restore point in these windows.\n".to_owned(),
            Some(points) => points,
        };
        let mut table = Table::new([
            ("restore point", Align::Left),
            ("timeline", Align::Right),
            ("made", Align::Left),
            ("at", Align::Right),
            ("to restore to it", Align::Left),
        ]);
        for point in points {
            let alone = points.iter().filter(|other| other.name == point.name).count() == 1;
            let target = if alone { quoted(&format!("name:{}", point.name)) } else { format!("lsn:{}", point.lsn) };
            table.row([
                point.name.clone(),
                point.timeline.number().to_string(),
                point.time.to_string(),
                point.lsn.to_string(),
                format!("--to {target}"),
            ]);
        }
        format!("\n{}\n", table.render(look))
    }
}

/// What is missing on any way to where the cluster may have lived on, once.
fn gaps(inventory: &Inventory) -> Vec<Hole> {
    let mut gaps: Vec<Hole> = Vec::new();
    for end in ends(inventory).ends {
        let holes = Path::new(&end, inventory).holes();
        for hole in holes {
            if !gaps.contains(&hole) {
                gaps.push(hole);
            }
        }
    }
    gaps.sort_by_key(|hole| (hole.branch, hole.range));
    gaps
}

fn time(time: Option<PgTimestamp>) -> String {
    time.map_or_else(|| "(no transaction)".to_owned(), |time| time.to_string())
}
