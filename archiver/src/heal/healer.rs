//! Looks for what is missing, and says what of it can be filled.

use std::collections::BTreeMap;
use std::sync::Arc;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Gap, Ledger, Repository, RepositoryIdentity, Stretch};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::{Branch, TimelineHistory};

use super::examine::{Examiner, Rules, Unfit};
use super::known::{Knowledge, Known};
use super::plan::{Fill, GapPlan, HealPlan, without};
use super::source::{Brought, Lineage, Reading, Source};
use super::{HealError, SourceError};
use crate::keys::ArchiveKeys;
use crate::memory::Memory;
use crate::stream::WAL_MEMORY;

/// Fills gaps of one repository.
#[derive(Clone, Debug)]
pub struct Healer {
    pub(super) repository: Repository,
    pub(super) identity: RepositoryIdentity,
    pub(super) keys: Arc<ArchiveKeys>,
    pub(super) memory: Memory,
    pub(super) ledger: Ledger,
}

/// WAL of a source that hangs together.
struct Run {
    start: Lsn,
    /// Everything before it is valid.
    end: Lsn,
    digests: BTreeMap<Lsn, walseal_common::seal::CompareDigest>,
    agreed: Vec<String>,
    /// Why nothing of it counts.
    refused: Option<String>,
    /// Why it ended before all was read, where its bytes are the reason.
    broke: Option<String>,
    /// Where to go on looking.
    next: Lsn,
}

/// What was found of a stretch.
#[derive(Default)]
struct Found {
    fills: Vec<Fill>,
    findings: Vec<String>,
}

impl Healer {
    /// For this repository.
    pub fn new(repository: Repository, identity: RepositoryIdentity, keys: Arc<ArchiveKeys>) -> Healer {
        Healer { repository, identity, keys, memory: Memory::new(WAL_MEMORY), ledger: Ledger::none() }
    }

    /// Records there what is filled.
    #[must_use]
    pub fn recording(self, ledger: Ledger) -> Healer {
        Healer { ledger, ..self }
    }

    fn size(&self) -> SegmentSize {
        self.identity.segment_size
    }

    /// The gaps that are open, with whether each is on record: all, or the one at `at`, which may be a hole that nobody
    /// recorded.
    ///
    /// Errors: [`HealError::NoGap`]; the repository's.
    pub async fn gaps(&self, at: Option<Lsn>) -> Result<Vec<(Gap, bool)>, HealError> {
        let mut open = Vec::new();
        for gap in self.repository.gaps().await? {
            if !self.repository.missing(&gap, self.size()).await?.is_empty() {
                open.push((gap, true));
            }
        }
        let Some(at) = at else { return Ok(open) };
        let mut wanted: Vec<(Gap, bool)> = open.iter().filter(|(gap, _)| gap.range().contains(at)).cloned().collect();
        if wanted.is_empty() {
            wanted.extend(self.repository.holes_at(at, self.size()).await?.into_iter().map(|gap| (gap, false)));
        }
        if wanted.is_empty() {
            let list = open.iter().map(|(gap, _)| gap.from.to_string()).collect::<Vec<_>>().join(", ");
            let open = if list.is_empty() { String::new() } else { format!("; open gaps begin at {list}") };
            return Err(HealError::NoGap { at, open });
        }
        Ok(wanted)
    }

    /// Looks for what is missing of `gaps` in `sources`, in their order. Reads all that is found of it once; stores nothing.
    ///
    /// Errors: the repository's; a source that does not answer, or is another cluster's. WAL that is found and does not verify is
    /// no error but a finding.
    pub async fn plan(&self, gaps: Vec<(Gap, bool)>, sources: &[Arc<dyn Source>]) -> Result<HealPlan, HealError> {
        let mut plan = HealPlan { gaps: Vec::new() };
        for (gap, recorded) in gaps {
            let missing = self.repository.missing(&gap, self.size()).await?;
            let mut planned =
                GapPlan { gap, recorded, left: missing.clone(), missing, fills: Vec::new(), findings: Vec::new() };
            for (place, source) in sources.iter().enumerate() {
                for stretch in planned.left.clone() {
                    let found = self.look(source.as_ref(), place, &stretch).await?;
                    planned.fills.extend(found.fills);
                    for finding in found.findings {
                        if !planned.findings.contains(&finding) {
                            planned.findings.push(finding);
                        }
                    }
                }
                planned.left = without(&planned.missing, &planned.fills);
            }
            plan.gaps.push(planned);
        }
        Ok(plan)
    }

    /// What a branch's WAL must be.
    pub(super) fn rules(&self, branch: Branch, lineage: Option<&TimelineHistory>) -> Rules {
        Rules {
            system: self.repository.cluster(),
            timeline: branch.timeline,
            begin: lineage.map(TimelineHistory::begin),
            size: self.size(),
            key: self.keys.writer.compare().clone(),
        }
    }

    /// Looks for one stretch in one source.
    async fn look(&self, source: &dyn Source, place: usize, stretch: &Stretch) -> Result<Found, HealError> {
        let (size, branch, range) = (self.size(), stretch.branch, stretch.range);
        let mut found = Found::default();
        // A source tells the branch of its history; whether its WAL is that of the living server, its bytes tell.
        let adoptions = self.repository.adoptions().await?;
        let lineage = match source.lineage(adoptions.origin(branch)).await? {
            Lineage::Other(why) => {
                found.findings.push(format!("{} has another history: {why}", source.describe()));
                return Ok(found);
            }
            known => known,
        };
        let history = lineage.history();
        // From before the gap, and to beyond it, so that the repository can tell whether it fits.
        let first = match size.offset(range.start) {
            0 => Lsn(range.start.0.saturating_sub(size.bytes())),
            _ => size.align_down(range.start),
        };
        let begin = history.map(|history| size.align_down(history.begin()));
        let first = begin.map_or(first, |begin| first.max(begin));
        let until = if stretch.is_end { range.end } else { size.number(range.end).end(size) };
        let parent = history.and_then(|history| {
            let way = adoptions.way_to(history, branch);
            let before = way.iter().rev().nth(1)?;
            Some((before.branch, before.switch?))
        });
        let about = LsnRange { start: first, end: until };
        let key = self.keys.writer.compare().id();
        let Knowledge { known, findings } = Knowledge::of(&self.repository, key, size, (branch, about), parent).await?;
        let rules = self.rules(branch, history);
        let mut at = first;
        let mut seen = false;
        while at < range.end {
            let Some(reading) = source.read(branch.timeline, at, until).await? else { break };
            if reading.start >= range.end {
                break;
            }
            let run = examine(reading, &rules, &known, until).await?;
            at = run.next.max(size.number(at).end(size));
            seen |= run.end > range.start;
            if let Some(broke) = run.broke.as_ref().filter(|_| run.end < range.end) {
                found.findings.push(format!("{}: {broke}", source.describe()));
            }
            if let Some(refused) = run.refused {
                found.findings.push(format!("{}: {refused}", source.describe()));
                continue;
            }
            let fill = LsnRange { start: run.start.max(size.align_down(range.start)), end: run.end.min(range.end) };
            if fill.end <= range.start.max(fill.start) {
                continue;
            }
            if run.agreed.is_empty() {
                found.findings.push(format!(
                    "{}: WAL from {} to {}: nothing of it touches what the repository holds, so that nobody can tell whether it is this server's or \
                     that of a copy which went its own way; the segment before it, or the one behind the gap, would tell",
                    source.describe(),
                    fill.start,
                    fill.end
                ));
                continue;
            }
            found.fills.push(Fill {
                source: source.describe(),
                branch,
                range: fill,
                agrees_with: run.agreed,
                place,
                read_from: run.start,
                is_end: stretch.is_end && fill.end == range.end,
                digests: run.digests,
                history: history.cloned(),
            });
        }
        if !seen && found.findings.is_empty() {
            let words = super::plan::place(stretch);
            found.findings.push(format!("{} has nothing of {words}", source.describe()));
        }
        found.findings.extend(source.notes(branch.timeline).await?);
        found.findings.extend(findings);
        Ok(found)
    }
}

/// Reads on until the WAL does not hang together any more, or all is read.
async fn examine(
    mut reading: Reading,
    rules: &Rules,
    known: &BTreeMap<Lsn, Known>,
    until: Lsn,
) -> Result<Run, SourceError> {
    let size = rules.size;
    let start = reading.start;
    let refused = |why: String| Run {
        start,
        end: start,
        digests: BTreeMap::new(),
        agreed: Vec::new(),
        refused: Some(why),
        broke: None,
        next: size.number(start).end(size),
    };
    let mut examiner = match Examiner::new(rules, known, start) {
        Ok(examiner) => examiner,
        Err(unfit) => return Ok(refused(unfit.to_string())),
    };
    let mut finished = start;
    let mut unfit = None;
    while let Some(brought) = reading.brought.recv().await {
        match brought? {
            Brought::Wal(bytes) => {
                let room = usize::try_from(until.bytes_since(examiner.at())).unwrap_or(usize::MAX);
                if let Err(why) = examiner.push(bytes.get(..bytes.len().min(room)).unwrap_or_default()) {
                    unfit = Some(why);
                    break;
                }
            }
            Brought::Finished(end) => finished = end,
            Brought::End(_) => break,
        }
    }
    let (end, broke, next) = match unfit {
        // What is stored can't be taken back: where bytes differ, nothing that leads there or comes from there counts.
        Some(Unfit::Differs { at, name, writer }) => {
            let why = Unfit::Differs { at, name, writer };
            return Ok(Run { next: size.number(examiner.at()).end(size), ..refused(why.to_string()) });
        }
        // Up to the last record that is whole. Where the segment lies that is torn, nobody knows: the one in which it begins, or
        // one of those that follow.
        Some(Unfit::Ends(end)) => {
            let next = size.number(end.at).end(size);
            (examiner.checked(), Some(end.to_string()), next)
        }
        Some(why @ Unfit::Header { at, .. }) => (examiner.checked(), Some(why.to_string()), size.number(at).end(size)),
        // A segment that is finished counts to its end, also where its last record goes on in one that is not there.
        None => {
            let at = examiner.at();
            let whole = if at == until { finished } else { size.align_down(finished.min(at)) };
            (examiner.checked().max(whole.min(at)), None, at)
        }
    };
    Ok(Run {
        start,
        end,
        digests: examiner.digests().clone(),
        agreed: examiner.agreed().to_vec(),
        refused: None,
        broke,
        next: next.max(size.number(start).end(size)),
    })
}
