//! New timelines and branches begin, and WAL is lost before and behind the places where they do.

use jiff::Timestamp;

use super::{CLUSTER, FIRST, Server, World};
use crate::repository::model::truth::{Adopted, Loss, UNITS, Units};
use crate::repository::{Adoption, Ancestry, Gap, Leg, ObjectName};
use crate::timeline::{Branch, HistoryEntry, TimelineId};

impl World {
    pub(super) async fn fork(&mut self, back: u64, skip: u32, partial: bool) {
        // A timeline begins after its parent.
        let (switch, begin) = (self.server.position.saturating_sub(back), self.truth.unit(self.server.history.begin()));
        if switch <= begin.max(FIRST * UNITS) {
            return;
        }
        if partial {
            self.partial().await;
        }
        self.promote(switch, skip).await;
    }

    /// A new timeline begins at `switch`, which is archived from the start of that segment on.
    async fn promote(&mut self, switch: u64, skip: u32) {
        self.count += 1;
        let mut history = self.server.history.clone();
        let reason = format!("lost {}", self.count).into_bytes();
        let entry = HistoryEntry { timeline: history.timeline, switch: self.truth.lsn(switch), reason };
        history.timeline = TimelineId::new(history.timeline.number() + 1 + skip).expect("not zero");
        history.entries.push(entry);
        let branch = history.branch(CLUSTER);
        let body = Ancestry::of(&history, CLUSTER);
        self.put_sealed(&ObjectName::History(branch), None, Some(&body)).await;
        self.truth.fork(self.server.branch, switch, branch);
        self.histories.insert(branch, history.clone());
        let server = Server { history, branch, position: switch / UNITS * UNITS };
        self.left.push(std::mem::replace(&mut self.server, server));
    }

    pub(super) async fn adopt(&mut self, lost: u64, apart: bool) {
        let Server { history, branch, position } = self.server.clone();
        let from = position / UNITS * UNITS;
        let adoptions = self.repository.adoptions().await.expect("a store of our own");
        let writer = self.writer.public().to_string();
        let (number, to) = adoptions.next_of(&history, branch, self.truth.lsn(from), &writer);
        (self.server.branch, self.server.position) = (to, from + lost * UNITS);
        if lost > 0 {
            let way = vec![(branch, from)];
            self.lose_behind(from, way, true).await;
        }
        self.tail(1).await;
        let later = |other: &&Branch| other.timeline > branch.timeline;
        let found = self.now();
        let adoption = Adoption {
            branch,
            from: self.truth.lsn(from),
            to,
            writer,
            found,
            apart: self.truth.routes.keys().filter(|_| apart).filter(later).copied().collect(),
        };
        self.repository.put_adoption(number, &adoption, &self.writer).await.expect("a number that nothing has");
        self.truth.adopt(Adopted { branch, from, to, apart });
    }

    pub(super) async fn gap(&mut self, segments: u64) {
        self.partial().await;
        let from = self.server.position;
        self.server.position = (from / UNITS + segments) * UNITS;
        self.lose_behind(from, Vec::new(), true).await;
    }

    pub(super) async fn blind(&mut self, before: u64, between: Option<u64>, behind: u64, told: bool) {
        self.partial().await;
        let from = self.server.position;
        let mut switch = from + before;
        // A timeline begins after its parent.
        if switch <= self.truth.unit(self.server.history.begin()) {
            return;
        }
        let mut way = vec![(self.server.branch, switch)];
        self.promote(switch, 0).await;
        if let Some(between) = between {
            switch += between;
            way.push((self.server.branch, switch));
            self.promote(switch, 0).await;
        }
        self.server.position = (switch + behind) / UNITS * UNITS;
        if self.server.position > from {
            self.lose_behind(from, way, told).await;
        }
    }

    /// Records that WAL is lost from `from` on, along the branches of `way`, each with where it is left, up to where the server is.
    async fn lose_behind(&mut self, from: u64, way: Vec<(Branch, u64)>, told: bool) {
        let (next, to) = (self.server.branch, self.server.position);
        let branch = way.first().map_or(next, |(branch, _)| *branch);
        let leg = |(branch, end): &(Branch, u64)| Leg { branch: *branch, end: self.truth.lsn(*end) };
        let gap = Gap {
            branch,
            from: self.truth.lsn(from),
            to: self.truth.lsn(to),
            next,
            found: Timestamp::UNIX_EPOCH,
            highest_time: None,
            why: "the slot was dropped".to_owned(),
            way: way.iter().map(leg).filter(|_| told).collect(),
        };
        self.repository.put_gap(&gap, &self.writer).await.expect("a store of our own");
        let (mut of, mut known, mut begin) = (Vec::new(), Vec::new(), from);
        for (branch, end) in way.into_iter().chain([(next, to)]) {
            let end = end.min(to);
            of.push((branch, (begin..end).collect()));
            known.push((branch, end));
            // A timeline's first segment holds what lies before, too.
            begin = end / UNITS * UNITS;
        }
        if !told && branch != next {
            let all: Units = (from..to).collect();
            (of, known) = (vec![(branch, all.clone()), (next, all)], vec![(branch, from), (next, to)]);
        }
        // One that was recorded before stays as it is.
        if !self.truth.losses.iter().any(|known| (known.gap.branch, known.gap.from) == (gap.branch, gap.from)) {
            self.truth.losses.push(Loss { gap, of, known });
        }
    }
}
