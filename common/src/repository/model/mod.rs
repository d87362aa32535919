//! Model check: what the repository says after a random history of everything that writers, retention and accidents do to it is what a
//! plain model in memory says that knows nothing but the list of what was done.
#![allow(clippy::expect_used, clippy::panic)]

mod agreement;
mod truth;
mod world;

use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;

use world::World;

/// Something that happens to a repository. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The next bytes are shipped.
    Tail(u64),
    /// The segment that is being filled becomes whole.
    Whole,
    /// The part of a large segment that is being filled becomes whole; in a small one as `Whole`.
    Part,
    /// A piece arrives of which those before it, so many units, are lost with the server.
    Ahead(u64, u64),
    /// `archive_command` pushes a segment so far ahead of what is streamed; nobody knows what was confirmed.
    Push(u64),
    /// The valid part of the segment that is being filled is shipped as `.partial`.
    Partial,
    /// An object of WAL is lost.
    Lose(usize),
    /// Data of a base backup is lost.
    LoseData(usize),
    /// Retention removes the oldest so many segments of the current branch, and base backups that need them. It may be broken off.
    Prune(u64, bool),
    /// The server is lost; a standby that was so many units behind goes on on a new timeline, of the next number or a later one.
    Fork { back: u64, skip: u32, partial: bool },
    /// What is archived from now on is another server, which goes on where it was: on a timeline that others have left.
    Return(usize),
    /// Two servers write the timeline: WAL of the living one goes on on a branch of its own, so many segments of it are lost. Later
    /// timelines that are there come from the other one, or nobody says that they do.
    Adopt { lost: u64, apart: bool },
    /// WAL is lost: it goes on so many segments later.
    Gap(u64),
    /// WAL is lost on both sides of where the next timelines begin: so many units before the first of them, so many up to the second
    /// one where there are two, so many behind the last. The record tells the way, or does not.
    Blind { before: u64, between: Option<u64>, behind: u64, told: bool },
    /// So many segments become whole at once: none of them knows of the others.
    Together(u64),
    /// One of the newest objects of the branch that is written is lost, so many before the last one.
    LoseNewest(usize),
    /// The page of the 256 segments before what is written is made, where they are there.
    Page,
    /// A page of the segments that are being written comes from elsewhere, made when others were there: it says other things than one
    /// of their headers, so many before the last of them, or is that of other segments.
    Stray { wrong: Option<u64>, fits: bool },
    /// A page is lost.
    LosePage(usize),
    /// A base backup, of which so many of its data objects are those of the one before.
    Base(usize),
    /// One of several writers writes down how far WAL is. The last of them is a stranger.
    Frontier(usize),
    /// Somebody outside the repository remembers what is there.
    Remember,
    /// Whoever controls the store cuts off its newest end: so many objects of WAL of the branch that is written, so many of the newest
    /// records of frontiers of each writer, and the label of the newest base backup.
    CutOff { objects: usize, frontiers: usize, label: bool },
    /// A base backup is held, or released.
    Hold(usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..=10u64).prop_map(Event::Tail),
        6 => Just(Event::Whole),
        3 => Just(Event::Part),
        1 => (1..8u64, 1..8u64).prop_map(|(skip, length)| Event::Ahead(skip, length)),
        1 => (0..4u64).prop_map(Event::Push),
        1 => Just(Event::Partial),
        3 => any::<usize>().prop_map(Event::Lose),
        1 => any::<usize>().prop_map(Event::LoseData),
        2 => (1..4u64, any::<bool>()).prop_map(|(segments, broken)| Event::Prune(segments, broken)),
        2 => (0..40u64, 0..2u32, any::<bool>()).prop_map(|(back, skip, partial)| Event::Fork { back, skip, partial }),
        1 => any::<usize>().prop_map(Event::Return),
        1 => (0..3u64, any::<bool>()).prop_map(|(lost, apart)| Event::Adopt { lost, apart }),
        1 => (1..4u64).prop_map(Event::Gap),
        1 => blind(),
        1 => (2..5u64).prop_map(Event::Together),
        2 => (0..3usize).prop_map(Event::Base),
        2 => (0..3usize).prop_map(Event::Frontier),
        1 => Just(Event::Remember),
        1 => (0..8usize, 0..3usize, any::<bool>())
            .prop_map(|(objects, frontiers, label)| Event::CutOff { objects, frontiers, label }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(base, holds)| Event::Hold(base, holds)),
    ]
}

/// What happens where the last of 256 segments are written.
fn event_of_pages() -> impl Strategy<Value = Event> {
    let wrong = proptest::option::of(0..4u64);
    prop_oneof![
        8 => event(),
        3 => (2..5u64).prop_map(Event::Together),
        3 => (0..6usize).prop_map(Event::LoseNewest),
        4 => Just(Event::Page),
        1 => (wrong, prop::bool::weighted(0.7)).prop_map(|(wrong, fits)| Event::Stray { wrong, fits }),
        1 => any::<usize>().prop_map(Event::LosePage),
    ]
}

fn blind() -> impl Strategy<Value = Event> {
    let between = proptest::option::of(1..20u64);
    (0..20u64, between, 0..40u64, any::<bool>()).prop_map(|(before, between, behind, told)| Event::Blind {
        before,
        between,
        behind,
        told,
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn agrees(world: impl Future<Output = World>, events: &[Event]) -> Result<(), TestCaseError> {
    block_on(async {
        let mut world = world.await;
        for event in events {
            world.happen(*event).await;
        }
        agreement::check(&world).await
    })
}

/// A thousand histories, or as many as `PROPTEST_CASES` asks for.
fn longer() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(1000), ..usual }
}

/// A repository with almost all segments of a page: made once, because it takes long.
fn grown() -> &'static World {
    static GROWN: OnceLock<World> = OnceLock::new();
    GROWN.get_or_init(|| block_on(World::grown()))
}

proptest! {
    #![proptest_config(longer())]

    /// No hole is passed (I2), and none is silent (I5).
    #[test]
    fn i5_after_any_history_the_repository_tells_what_it_holds_and_what_was_lost(events in vec(event(), 1..25)) {
        agrees(World::new(1), &events)?;
    }

    /// The same where a segment has parts.
    #[test]
    fn case_18_after_any_history_a_repository_of_large_segments_tells_the_same(events in vec(event(), 1..25)) {
        agrees(World::new(64), &events)?;
    }
}

proptest! {
    // Of 256 segments each takes longer.
    #![proptest_config(ProptestConfig { cases: longer().cases / 10, ..longer() })]

    /// The same where catalog pages tell of segments: what they vouch for is missed (I5), and whom they contradict is told.
    #[test]
    fn i5_after_any_history_what_catalog_pages_say_is_held_against_what_is_there(events in vec(event_of_pages(), 1..30)) {
        agrees(grown().copy(), &events)?;
    }
}
