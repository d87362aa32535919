//! What the repository says, beside what the model says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::truth::{Adopted, Loss, Piece, Truth, UNITS, Units};
use super::world::World;
use crate::lsn::{Lsn, LsnRange};
use crate::repository::{
    BaseId, Beyond, CatalogPage, FlawKind, Gap, Heads, ObjectName, Reader, Reading, Repository, Step, Survey,
    WalListing, Witness, extents_along,
};
use crate::segment::{SegmentName, SegmentNumber};
use crate::timeline::Branch;

type Verdict = Result<(), TestCaseError>;

/// Asks everything, and compares.
pub(super) async fn check(world: &World) -> Verdict {
    let (repository, truth) = (&world.repository, &world.truth);
    let branches: Vec<Branch> =
        truth.wal.iter().filter(|(_, pieces)| !pieces.is_empty()).map(|(branch, _)| *branch).collect();
    for branch in &branches {
        let listing = names(repository, truth, *branch).await?;
        ends(repository, truth, &listing).await?;
        beyond(repository, truth, &listing).await?;
    }
    gaps(repository, truth).await?;
    small_objects(repository, truth).await?;
    let heads = survey(repository, truth, None).await?;
    let mut seen = Heads::none(heads.cluster, Timestamp::UNIX_EPOCH);
    truth.seen.iter().for_each(|(branch, unit)| seen.note(*branch, truth.lsn(*unit)));
    seen.base.clone_from(&truth.seen_base);
    survey(repository, truth, Some(seen)).await?;
    for branch in truth.routes.keys() {
        pages(repository, truth, *branch).await?;
    }
    ways(world).await
}

/// By name: each object is listed where it belongs, whatever part of the names is asked for.
async fn names(repository: &Repository, truth: &Truth, branch: Branch) -> Result<WalListing, TestCaseError> {
    let size = truth.size;
    let listing = repository.wal_listing(branch, size, None).await.expect("a listing");
    let whole = truth.whole(branch);
    let asked = truth.asked(branch);
    for number in asked.iter().copied() {
        let start = truth.lsn(number * UNITS);
        let number = SegmentNumber(number);
        prop_assert_eq!(number.start(size), start);
        prop_assert_eq!(listing.has_segment(number), whole.contains(&number.0), "segment {}", number.0);
        let mut listed = listing.objects_of(number);
        listed.sort();
        let there: Vec<ObjectName> = truth
            .pieces(branch)
            .filter(|(_, piece)| piece.start / UNITS == number.0)
            .map(|(name, _)| name.clone())
            .collect();
        prop_assert_eq!(listed, there);
    }
    let first = whole.first().copied().unwrap_or(0);
    for number in asked.into_iter().filter(|number| *number >= first) {
        let all = (first..=number).all(|number| whole.contains(&number));
        let told = repository.has_all(branch, size, SegmentNumber(first), SegmentNumber(number)).await;
        prop_assert_eq!(told.expect("a listing"), all, "{} to {}", first, number);
    }
    let ranges = [(SegmentNumber(0), SegmentNumber(u64::MAX))];
    let outline = repository.wal_outline(branch, size, &ranges).await.expect("an outline");
    prop_assert_eq!((&outline.runs, &outline.partials), (&listing.runs, &listing.partials));
    prop_assert_eq!(outline.parts, listing.parts.clone());
    let below_wal = truth.pieces(branch).filter(|(name, _)| !matches!(name, ObjectName::Tail(..)));
    let first = below_wal.map(|(_, piece)| Truth::number(piece.start)).min();
    prop_assert_eq!(repository.first_segment(branch, size, None).await.expect("a listing"), first);
    Ok(listing)
}

/// Where WAL without a hole begins and ends (I2).
async fn ends(repository: &Repository, truth: &Truth, listing: &WalListing) -> Verdict {
    let readable = truth.readable(listing.branch, true);
    let by_name = truth.readable(listing.branch, false);
    for number in truth.asked(listing.branch) {
        let unit = number * UNITS;
        let end = truth.lsn(Truth::end_of(&readable, unit));
        prop_assert_eq!(repository.contiguous_end(listing, truth.lsn(unit)).await.expect("readable"), end);
        let end = truth.lsn(Truth::end_of(&by_name, unit));
        prop_assert_eq!(listing.contiguous_end(truth.lsn(unit + UNITS / 2)), end, "by name, from segment {}", number);
    }
    let extents = repository.extents(listing).await.expect("readable");
    prop_assert_eq!(&LsnRange::joined(extents.clone()), &extents, "none overlaps or touches another");
    prop_assert_eq!(truth.all_units(&extents), readable);
    Ok(())
}

/// What lies beyond the first hole: whether anything tells that it was confirmed.
async fn beyond(repository: &Repository, truth: &Truth, listing: &WalListing) -> Verdict {
    let readable = truth.readable(listing.branch, true);
    let Some(begin) = truth.begun(listing.branch).first().copied() else { return Ok(()) };
    let end = Truth::end_of(&readable, begin * UNITS);
    let pieces = || truth.pieces(listing.branch).map(|(_, piece)| piece).filter(|piece| piece.end > end);
    let known = pieces().any(|piece| piece.durable.is_none_or(|durable| durable > end));
    let units: Units = pieces().flat_map(|piece| piece.start..piece.end).collect();
    let told = repository.beyond(listing, truth.lsn(end)).await.expect("readable");
    match &told {
        Beyond::Nothing => prop_assert!(units.is_empty(), "{:?} and nothing beyond {}", units, end),
        Beyond::Known { name, .. } => prop_assert!(known, "{name} beyond {end}"),
        Beyond::Unconfirmed(surplus) => {
            prop_assert!(!known && !units.is_empty(), "{:?} beyond {}", surplus, end);
            let span = units.first().zip(units.last()).map(|(first, last)| truth.range(*first, last + 1));
            prop_assert_eq!(Some(surplus.span), span);
            prop_assert_eq!(surplus.bytes, truth.lsn(units.len() as u64).0);
        }
    }
    Ok(())
}

async fn gaps(repository: &Repository, truth: &Truth) -> Verdict {
    let mut recorded: Vec<Gap> = truth.losses.iter().map(|loss| loss.gap.clone()).collect();
    recorded.sort_by_key(|gap| (gap.branch, gap.from));
    prop_assert_eq!(&repository.gaps().await.expect("readable"), &recorded);
    for Loss { gap, of, .. } in &truth.losses {
        let is_told = gap.branch == gap.next || !gap.way.is_empty();
        let mut missing: BTreeMap<Branch, Units> = BTreeMap::new();
        for (branch, units) in of.iter().filter(|(branch, _)| is_told || *branch == gap.branch) {
            let readable = truth.readable(*branch, true);
            let lacking = units.iter().filter(|unit| !is_told || !readable.contains(*unit));
            missing.entry(*branch).or_default().extend(lacking);
        }
        missing.retain(|_, units| !units.is_empty());
        let mut told: BTreeMap<Branch, Units> = BTreeMap::new();
        for stretch in repository.missing(gap, truth.size).await.expect("readable") {
            told.entry(stretch.branch).or_default().extend(truth.units(stretch.range));
        }
        prop_assert_eq!(told, missing, "{:?}", gap);
    }
    Ok(())
}

/// Base backups, holds, what was removed, and how far WAL was.
async fn small_objects(repository: &Repository, truth: &Truth) -> Verdict {
    let labelled: Vec<BaseId> =
        truth.bases.iter().filter(|(_, base)| base.labelled).map(|(id, _)| id.clone()).collect();
    prop_assert_eq!(repository.base_ids().await.expect("a listing"), labelled);
    let pruned = repository.pruned().await.expect("readable");
    for (branch, units) in &truth.pruned {
        prop_assert_eq!(&truth.all_units(pruned.on(*branch)), units);
    }
    prop_assert!(truth.bases.keys().all(|id| pruned.has_base(id) == truth.pruned_bases.contains(id)));
    let holds = repository.holds().await.expect("readable");
    let held: BTreeMap<BaseId, bool> =
        holds.iter().map(|hold| (hold.record.base.clone(), hold.holds(Timestamp::now()))).collect();
    prop_assert_eq!(&held, &truth.holds);
    for branch in truth.wal.keys() {
        let told = repository.recorded_frontier(*branch).await.expect("readable").map(|(lsn, _)| lsn);
        prop_assert_eq!(told, truth.frontier(*branch).map(|unit| truth.lsn(unit)));
    }
    Ok(())
}

/// What a scrub finds missing is what is lost without a word, and nothing else (I5).
async fn survey(repository: &Repository, truth: &Truth, witness: Option<Heads>) -> Result<Heads, TestCaseError> {
    let seen = |branch: Branch| truth.seen.get(&branch).copied().filter(|_| witness.is_some());
    let seen_base = truth.seen_base.clone().filter(|_| witness.is_some());
    let witnesses: Vec<Witness> =
        witness.iter().map(|heads| Witness { heads: heads.clone(), who: "this host remembers".to_owned() }).collect();
    let survey = Survey::take(repository, &witnesses).await.expect("a store of our own");
    let mut missing: BTreeMap<Branch, Units> = BTreeMap::new();
    let mut objects: BTreeMap<String, BTreeSet<BaseId>> = BTreeMap::new();
    let mut cut_off: Vec<&str> = Vec::new();
    for flaw in &survey.flaws {
        match (flaw.kind, flaw.object.strip_prefix("wal/")) {
            (FlawKind::Hole | FlawKind::CutOff, Some(branch)) => {
                let branch = branch.parse().expect("a branch");
                let words: Vec<&str> = flaw.what.split(' ').collect();
                let at = |word: usize| words[word].parse::<Lsn>().expect("a position");
                let range = LsnRange { start: at(2), end: at(4) };
                missing.entry(branch).or_default().extend(truth.units(range));
                let (start, end) = (truth.unit(range.start), truth.unit(range.end));
                // Only who is outside tells of it, and nothing lies behind.
                let by_name = |(name, piece): (&ObjectName, &Piece)| match name {
                    ObjectName::Partial(..) => piece.start / UNITS * UNITS + 1,
                    _ => piece.end,
                };
                let is_told = truth.vouched(branch).is_some_and(|inside| inside > start);
                let is_amid = truth.pieces(branch).map(by_name).any(|known| known > end);
                prop_assert!(flaw.kind == FlawKind::Hole || !is_told, "{}", flaw);
                // Of what is recorded, or was removed, only what is left of a hole is told.
                if truth.explained(branch).is_empty() {
                    prop_assert_eq!(flaw.kind == FlawKind::Hole, is_told || is_amid, "{}", flaw);
                }
            }
            (FlawKind::Missing, None) => {
                objects.insert(flaw.object.clone(), flaw.bases.iter().cloned().collect());
            }
            (FlawKind::CutOff, None) => cut_off.push(&flaw.object),
            _ => prop_assert!(false, "nothing else is wrong: {flaw}"),
        }
    }
    for branch in truth.routes.keys() {
        let told = missing.remove(branch).unwrap_or_default();
        if truth.pieces(*branch).next().is_some() {
            prop_assert_eq!(told, truth.missing(*branch, seen(*branch)), "on branch {}", branch);
        } else if let Some(last) = truth.frontier(*branch).max(seen(*branch)).filter(|end| *end > 0) {
            // Of a branch of which nothing is left nobody knows where it began, but that it was there.
            let is_gap = truth.losses.iter().any(|loss| loss.known.contains(&(*branch, last)));
            let speaking = truth.vouched(*branch) <= Some(last) && !is_gap;
            let (explained, last) = (truth.explained(*branch), last - 1);
            let before = truth.pruned.get(branch).and_then(|pruned| pruned.first()).is_some_and(|first| last < *first);
            prop_assert!(!speaking || told.contains(&last) != (explained.contains(&last) || before), "{}", branch);
        }
    }
    prop_assert!(missing.is_empty(), "of branches that nobody knows: {missing:?}");
    let newest = truth.bases.iter().filter(|(_, base)| base.labelled).map(|(id, _)| id).next_back();
    let seen_base = seen_base.filter(|id| newest < Some(id) && !truth.pruned_bases.contains(id));
    let seen_base: Vec<String> = seen_base.into_iter().map(|id| ObjectName::Label(id).to_string()).collect();
    prop_assert_eq!(cut_off, seen_base);
    let mut expected: BTreeMap<String, BTreeSet<BaseId>> = BTreeMap::new();
    for (id, base) in truth.bases.iter().filter(|(_, base)| base.labelled) {
        for name in base.needs.difference(&truth.data) {
            expected.entry(name.to_string()).or_default().insert(id.clone());
        }
    }
    prop_assert_eq!(objects, expected);
    if witness.is_none() {
        // Who remembers what was seen just now misses nothing.
        let heads = survey.heads.clone();
        for branch in truth.wal.keys() {
            let end = heads.end_of(*branch).map(|end| truth.unit(end));
            let there = truth.readable(*branch, true).last().map(|last| last + 1);
            prop_assert!(end <= there.max(truth.vouched(*branch)), "{:?} of {}", end, branch);
        }
        let witness = Witness { heads, who: "this host remembers".to_owned() };
        let again = Survey::take(repository, &[witness]).await.expect("a store of our own");
        let told =
            |survey: &Survey| survey.flaws.iter().map(|flaw| (flaw.kind, flaw.object.clone())).collect::<BTreeSet<_>>();
        prop_assert_eq!(told(&again), told(&survey));
    }
    Ok(survey.heads)
}

/// Of which segments there are pages, and what they are held against: a page that is not the one of its name counts for nothing.
async fn pages(repository: &Repository, truth: &Truth, branch: Branch) -> Verdict {
    let size = truth.size;
    let all: Vec<u64> = truth.pages.keys().filter(|(of, _)| *of == branch).map(|(_, first)| *first).collect();
    for from in [0, 1, CatalogPage::SEGMENTS, 2 * CatalogPage::SEGMENTS - 1] {
        let listed = repository.catalog_pages(branch, size, Some(SegmentNumber(from))).await.expect("a listing");
        let there = all.iter().copied().filter(|first| first + CatalogPage::SEGMENTS > from);
        prop_assert_eq!(listed, there.map(SegmentNumber).collect::<Vec<_>>(), "from {}", from);
    }
    for first in (0..4).map(|page| page * CatalogPage::SEGMENTS) {
        let told = repository.cataloged(branch, SegmentNumber(first), size).await.expect("a store of our own");
        let page = truth.pages.get(&(branch, first)).filter(|page| page.fits);
        let end = page.map(|_| truth.lsn((first + CatalogPage::SEGMENTS) * UNITS));
        prop_assert_eq!(told.map(|(end, _)| end), end, "the page from {} on", first);
    }
    // Of the first page nothing is there.
    for first in all.into_iter().filter(|first| *first > 0) {
        contradicted(repository, truth, branch, first).await?;
    }
    Ok(())
}

/// Who reads everything finds what a page contradicts; here among the last segments of the page.
async fn contradicted(repository: &Repository, truth: &Truth, branch: Branch, first: u64) -> Verdict {
    let size = truth.size;
    let last = first + CatalogPage::SEGMENTS - 4;
    let name = SegmentName::new(branch.timeline, SegmentNumber(last - 1), size);
    let survey = Survey::take(repository, &[]).await.expect("a store of our own");
    let mut reading = Reading { after: Some(format!("wal/{branch}/{name}~")), ..Reading::default() };
    let mut reader = Reader::new(repository, &survey, None);
    while !reading.ended {
        reader.next(&mut reading).await.expect("a store of our own");
    }
    let read: BTreeSet<String> = reading.flaws.iter().map(|flaw| format!("{:?} {}", flaw.kind, flaw.object)).collect();
    let contradicted = |(name, piece): &(&ObjectName, &Piece)| {
        let number = piece.start / UNITS;
        let page = truth.pages.get(&(branch, number / CatalogPage::SEGMENTS * CatalogPage::SEGMENTS));
        let wrong = page.filter(|page| page.fits).and_then(|page| page.wrong);
        number >= last && wrong == Some(number) && matches!(name, ObjectName::Wal(..))
    };
    let told = truth.pieces(branch).filter(contradicted).map(|(name, _)| format!("Replaced {name}")).collect();
    let below = format!("wal/{branch}/");
    let read: BTreeSet<String> = read.into_iter().filter(|flaw| flaw.contains(&below)).collect();
    prop_assert_eq!(read, told);
    Ok(())
}

/// To the end of each branch one way leads, and along it WAL is read as the model says.
async fn ways(world: &World) -> Verdict {
    let (repository, truth) = (&world.repository, &world.truth);
    let adoptions = repository.adoptions().await.expect("readable");
    let mut held: BTreeMap<Branch, (Vec<LsnRange>, Lsn)> = BTreeMap::new();
    for branch in truth.wal.keys() {
        let listing = repository.wal_listing(*branch, truth.size, None).await.expect("a listing");
        let extents = repository.extents(&listing).await.expect("readable");
        let known = extents.last().map_or(Lsn::INVALID, |last| last.end);
        held.insert(*branch, (extents, known));
    }
    for (end, route) in &truth.routes {
        let origin = truth.origin(*end);
        let left = |at: usize| route.get(at + 1).map(|(_, left)| *left);
        let step = |(at, (branch, begin)): (usize, &(Branch, u64))| Step {
            branch: *branch,
            begin: truth.lsn(*begin),
            switch: left(at).map(|left| truth.lsn(left)),
        };
        let steps: Vec<Step> = route.iter().enumerate().map(step).collect();
        let way = adoptions.way_to(&world.histories[&origin], *end);
        prop_assert_eq!(&way, &steps, "to the end of {}", end);
        let told = repository.ancestry(origin).await.expect("readable").expect("a history tells");
        prop_assert_eq!(&adoptions.way_along(&told.ancestors, *end), &steps, "to the end of {}", end);
        prop_assert_eq!(adoptions.origin(*end), origin);
        let passed = |adopted: &Adopted| {
            let at = route.iter().position(|(branch, _)| *branch == adopted.branch);
            at.is_some_and(|at| {
                route.get(at + 1).is_none_or(|(next, _)| *next != adopted.to)
                    && left(at).is_none_or(|left| left > adopted.from)
            })
        };
        prop_assert_eq!(adoptions.is_abandoned(&steps), truth.adopted.iter().any(passed), "the way to {}", end);
        if !truth.adopted.iter().any(|adopted| adopted.branch == *end) {
            prop_assert_eq!(adoptions.way(&world.histories[&origin]), steps);
            prop_assert_eq!(adoptions.branch_of(&world.histories[&origin]), *end);
            for (at, (branch, begin)) in route.iter().enumerate().filter(|(_, (one, _))| one.timeline == end.timeline) {
                for unit in [*begin, left(at).unwrap_or(begin + 1) - 1].into_iter().filter(|unit| unit >= begin) {
                    // Where two begin, it is the last of them.
                    if left(at) != Some(*begin) {
                        prop_assert_eq!(adoptions.at(origin, truth.lsn(unit)), *branch, "at {} of {}", unit, end);
                    }
                }
            }
        }
        let along = extents_along(&way, truth.size, |step: &Step| {
            held.get(&step.branch).map(|(extents, known)| (extents.as_slice(), *known))
        });
        prop_assert_eq!(truth.all_units(&along), truth.along(*end), "along the way to {}", end);
    }
    Ok(())
}
