//! Where a stream begins, by what lies in the repository and by where the slot stands.

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Adoption, Adoptions, Cover, RepositoryError};
use walseal_common::seal::WriterKey;
use walseal_common::segment::SegmentNumber;
use walseal_common::store::fault::Call;
use walseal_common::timeline::Branch;

use super::toy::{Server, Toy, cutter, history, keys_with, root};
use crate::shipment::{PieceKind, ShipError};
use crate::stream::StreamError;
use crate::stream::resume::{Past, ServerPosition, after_loss};
use crate::stream::start::StartPoint;

const KIB: u64 = 1 << 10;

fn one(toy: &Toy) -> Branch {
    root().branch(toy.repository.cluster())
}

fn positions(point: &StartPoint) -> (Lsn, Lsn) {
    (point.start, point.frontier)
}

#[tokio::test]
async fn an_empty_repository_begins_with_the_slots_segment() {
    let toy = Toy::new(1);
    let point = toy.begins(&root(), Some(toy.at(5, 70))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(5, 0)));
    let point = toy.begins(&root(), None).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(1000, 0), toy.at(1000, 0)), "without a slot, where the server is");
}

#[tokio::test]
async fn i2_a_tail_beyond_a_segment_that_never_landed_is_not_the_frontier() {
    // Segment 5 was in flight when a kill came; the first tail of segment 6 had overtaken it.
    let toy = Toy::new(1);
    toy.tail(one(&toy), toy.at(6, 0), toy.at(6, 100)).await;
    let point = toy.begins(&root(), Some(toy.at(5, 70))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(5, 0)));
    // The same with whole segments beyond the hole, and with older WAL before it.
    toy.whole(one(&toy), 7).await;
    toy.tail(one(&toy), toy.at(8, 0), toy.at(8, 100)).await;
    let point = toy.begins(&root(), Some(toy.at(5, 70))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(5, 0)));
    toy.whole(one(&toy), 4).await;
    let point = toy.begins(&root(), Some(toy.at(5, 70))).await.expect("a start");
    assert_eq!(point.frontier, toy.at(5, 0));
}

#[tokio::test]
async fn i2_a_tail_whose_predecessor_never_landed_is_not_the_frontier() {
    let toy = Toy::new(1);
    toy.whole(one(&toy), 4).await;
    toy.tail(one(&toy), toy.at(5, 0), toy.at(5, 100)).await;
    toy.tail(one(&toy), toy.at(5, 200), toy.at(5, 300)).await;
    let point = toy.begins(&root(), Some(toy.at(5, 50))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(5, 100)));
}

#[tokio::test]
async fn the_frontier_reaches_as_far_as_pieces_follow_each_other() {
    let toy = Toy::new(1);
    let (branch, at) = (one(&toy), |offset| toy.at(5, offset));
    toy.whole(branch, 4).await;
    for (from, to) in [(0, 10), (10, 20), (20, 30), (0, 30), (30, 40), (40, 55)] {
        toy.tail(branch, at(from), at(to)).await;
    }
    let point = toy.begins(&root(), Some(at(30))).await.expect("a start");
    assert_eq!(positions(&point), (at(0), at(55)));
    // A later stream had begun at 40 and cut elsewhere; what the first had in flight landed, too.
    toy.tail(branch, at(40), at(50)).await;
    toy.tail(branch, at(50), at(80)).await;
    let point = toy.begins(&root(), Some(at(30))).await.expect("a start");
    assert_eq!(positions(&point), (at(0), at(80)));
    assert_eq!(point.durable.map(|durable| durable.digest.to_string()), Some(digest(&toy, 5, 80)));
}

fn digest(toy: &Toy, number: u64, offset: u64) -> String {
    toy.server.digest(&toy.keys, SegmentNumber(number), toy.at(number, offset)).to_string()
}

#[tokio::test]
async fn case_17_pieces_of_two_servers_never_make_one_frontier() {
    let toy = Toy::new(1);
    let (branch, at) = (one(&toy), |offset| toy.at(5, offset));
    let other = Server { seed: 1, ..toy.server };
    toy.tail(branch, at(0), at(100)).await;
    // Ours from 100 to 200 never landed, but the next one did. The other server's fits by name.
    toy.tail(branch, at(200), at(300)).await;
    toy.ship(&other.piece(&toy.keys, branch, PieceKind::Tail, at(100), at(200))).await;
    let point = toy.begins(&root(), Some(at(0))).await.expect("a start");
    assert_eq!(point.frontier, at(100), "what the slot keeps from 100 on is nowhere else");
}

#[tokio::test]
async fn i1_what_no_trusted_writer_signed_does_not_count() {
    let toy = Toy::new(1);
    let stranger = keys_with(WriterKey::generate().expect("random bytes"));
    let foreign = toy.trusting(&[&stranger]);
    toy.whole(one(&toy), 4).await;
    // A whole segment between what is confirmed and what is trusted.
    let fake = toy.server.piece(&stranger, one(&toy), PieceKind::Whole, toy.at(5, 0), toy.at(6, 0));
    fake.ship(&foreign, &stranger, &crate::memory::Room::elsewhere()).await.expect("the store takes everything");
    toy.whole(one(&toy), 6).await;
    let error = toy.begins(&root(), Some(toy.at(4, 10))).await.expect_err("nobody knows what segment 5 is");
    assert!(
        matches!(&error, StreamError::Repository(RepositoryError::Object { name, .. }) if name.contains("/000000010000000000000005")),
        "{error}"
    );
    // What was confirmed before is not read again.
    let point = toy.begins(&root(), Some(toy.at(6, 10))).await.expect("a start");
    assert_eq!(point.frontier, toy.at(7, 0));
}

#[tokio::test]
async fn case_17_whole_segments_that_the_slot_did_not_see_come_again() {
    let toy = Toy::new(1);
    for number in 4..8 {
        toy.whole(one(&toy), number).await;
    }
    toy.tail(one(&toy), toy.at(8, 0), toy.at(8, 100)).await;
    // The slot stands where this server's own bytes were confirmed: nothing to compare but the tail.
    let point = toy.begins(&root(), Some(toy.at(8, 0))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(8, 0), toy.at(8, 100)));
    // It has not seen segment 5, which another server may have written.
    let point = toy.begins(&root(), Some(toy.at(5, 10))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(8, 100)));
    let mut cut = cutter(&toy, &point);
    let mut pieces = Vec::new();
    let other = Server { seed: 1, ..toy.server };
    cut.push(&other.bytes(toy.at(5, 0), toy.at(5, 1000)), &mut pieces).expect("nothing to compare yet");
    assert!(cut.cut_tail().is_none(), "a tail would be confirmed before its segment is compared");
    cut.push(&toy.server.bytes(toy.at(5, 1000), toy.at(8, 0)), &mut pieces).expect("nothing to compare yet");
    assert_eq!(pieces.len(), 3, "whole segments are compared by being shipped");
    let error = pieces[0]
        .clone()
        .ship(&toy.repository, &toy.keys, &crate::memory::Room::elsewhere())
        .await
        .expect_err("other bytes");
    assert!(matches!(error, ShipError::Repository(RepositoryError::Conflict { .. })), "{error}");
    let outcome = cut.push(&other.bytes(toy.at(8, 0), toy.at(8, 100)), &mut pieces);
    assert!(outcome.is_err_and(|differs| differs.at == toy.at(8, 100)), "the frontier's own segment by its digest");
}

#[tokio::test]
async fn what_this_process_has_shipped_does_not_come_again() {
    // The store is slow, and the connection broke before anything was confirmed: the slot stands where it stood.
    let toy = Toy::new(1);
    for number in 4..8 {
        toy.whole(one(&toy), number).await;
    }
    let seen = |end| Past { seen: Some((one(&toy), end)), ..Past::default() };
    let begins = async |past| {
        let point = toy.begins_in(&toy.repository, &root(), Some(toy.at(5, 10)), past).await.expect("a start");
        (point.start, point.frontier, point.durable.is_some())
    };
    assert_eq!(begins(seen(toy.at(7, 0))).await, (toy.at(7, 0), toy.at(8, 0), true));
    assert_eq!(begins(seen(toy.at(8, 0))).await, (toy.at(7, 0), toy.at(8, 0), true), "is it the same server still?");
    toy.tail(one(&toy), toy.at(8, 0), toy.at(8, 100)).await;
    assert_eq!(begins(seen(toy.at(8, 100))).await, (toy.at(8, 0), toy.at(8, 100), true));
    // Another branch's position says nothing, and a server that has no WAL there any more is not asked for it.
    let other = history(2, &[(1, toy.at(3, 0))]).branch(toy.repository.cluster());
    let past = Past { seen: Some((other, toy.at(8, 0))), ..Past::default() };
    assert_eq!(begins(past).await, (toy.at(5, 0), toy.at(8, 100), true));
    let past = Past { lost: Some(toy.at(5, 0)), ..Past::default() };
    assert_eq!(begins(past).await, (toy.at(8, 0), toy.at(8, 100), true));
}

#[tokio::test]
async fn case_17_a_frontier_between_segments_is_compared_too() {
    let toy = Toy::new(1);
    toy.whole(one(&toy), 4).await;
    toy.whole(one(&toy), 5).await;
    let point = toy.begins(&root(), Some(toy.at(6, 0))).await.expect("a start");
    assert_eq!((positions(&point), point.durable.is_none()), ((toy.at(6, 0), toy.at(6, 0)), true));
    let point = toy.begins(&root(), Some(toy.at(5, 10))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(6, 0)));
    let other = Server { seed: 1, ..toy.server };
    let outcome = cutter(&toy, &point).push(&other.bytes(toy.at(5, 0), toy.at(6, 0)), &mut Vec::new());
    assert!(outcome.is_err_and(|differs| differs.at == toy.at(6, 0)));
    let mut cut = cutter(&toy, &point);
    cut.push(&toy.server.bytes(toy.at(5, 0), toy.at(6, 0)), &mut Vec::new()).expect("the same bytes");
    assert!(!cut.is_comparing());
}

#[tokio::test]
async fn digests_of_another_compare_key_are_not_taken_for_other_bytes() {
    let toy = Toy::new(1);
    let stranger = keys_with(WriterKey::generate().expect("random bytes"));
    let both = toy.trusting(&[&stranger]);
    let tail = toy.server.piece(&stranger, one(&toy), PieceKind::Tail, toy.at(5, 0), toy.at(5, 100));
    tail.ship(&both, &stranger, &crate::memory::Room::elsewhere()).await.expect("the store takes it");
    let error = toy.begins_in(&both, &root(), Some(toy.at(5, 0)), Past::default()).await.expect_err("nobody can tell");
    assert!(matches!(error, StreamError::Repository(RepositoryError::OtherCompareKey { .. })), "{error}");
}

#[tokio::test]
async fn a_hole_before_the_slot_is_tried_first() {
    let toy = Toy::new(1);
    toy.whole(one(&toy), 3).await;
    toy.tail(one(&toy), toy.at(4, 0), toy.at(4, 100)).await;
    let point = toy.begins(&root(), Some(toy.at(9, 10))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(4, 0), toy.at(4, 100)));
    // Once there is WAL where the slot stands, the hole is behind.
    toy.whole(one(&toy), 9).await;
    let point = toy.begins(&root(), Some(toy.at(9, 10))).await.expect("a start");
    assert_eq!(point.frontier, toy.at(10, 0));
}

#[tokio::test]
async fn case_18_segments_over_16_mib_resume_within_their_parts() {
    let toy = Toy::new(32);
    let (branch, at) = (one(&toy), |offset| toy.at(5, offset));
    const PART: u64 = 16 << 20;
    toy.ship(&toy.server.piece(&toy.keys, branch, PieceKind::Whole, at(0), at(PART))).await;
    let point = toy.begins(&root(), Some(at(10))).await.expect("a start");
    assert_eq!(positions(&point), (at(0), at(PART)));
    toy.tail(branch, at(PART), at(PART + 10)).await;
    toy.tail(branch, at(PART + 10), at(PART + 20)).await;
    let point = toy.begins(&root(), Some(at(10))).await.expect("a start");
    assert_eq!(positions(&point), (at(0), at(PART + 20)));
    // The first part is missing: the second one counts for nothing.
    let toy = Toy::new(32);
    toy.ship(&toy.server.piece(&toy.keys, branch, PieceKind::Whole, at(PART), at(2 * PART))).await;
    let point = toy.begins(&root(), Some(toy.at(5, 10))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), toy.at(5, 0)));
}

#[tokio::test]
async fn case_11_an_ancestor_is_kept_as_partial_before_its_child_is_streamed() {
    let toy = Toy::new(1);
    let fork = toy.at(5, 300);
    let path = history(2, &[(1, fork)]);
    toy.whole(one(&toy), 4).await;
    toy.tail(one(&toy), toy.at(5, 0), toy.at(5, 100)).await;
    let branch = |point: &StartPoint| point.branch.timeline.number();
    // Not at the fork yet.
    let point = toy.begins(&path, Some(toy.at(5, 40))).await.expect("a start");
    assert_eq!((branch(&point), positions(&point)), (1, (toy.at(5, 0), toy.at(5, 100))));
    // At the fork, but a kill came before the partial.
    toy.tail(one(&toy), toy.at(5, 100), fork).await;
    let point = toy.begins(&path, Some(toy.at(5, 40))).await.expect("a start");
    assert_eq!((branch(&point), positions(&point)), (1, (toy.at(5, 0), fork)));
    toy.partial(one(&toy), toy.at(5, 0), fork).await;
    // This server's slot has not seen its end: it is compared, once.
    let point = toy.begins(&path, Some(toy.at(5, 40))).await.expect("a start");
    assert_eq!((branch(&point), positions(&point)), (1, (toy.at(5, 0), fork)));
    let done = Past { done: Some(one(&toy)), ..Past::default() };
    let point = toy.begins_in(&toy.repository, &path, Some(toy.at(5, 40)), done).await.expect("a start");
    assert_eq!((branch(&point), positions(&point)), (2, (toy.at(5, 0), toy.at(5, 0))));
    let point = toy.begins(&path, Some(toy.at(5, 300))).await.expect("a start");
    assert_eq!((branch(&point), positions(&point)), (2, (toy.at(5, 0), toy.at(5, 0))));
}

#[tokio::test]
async fn case_11_a_partial_alone_is_the_end_of_its_branch() {
    // Its tails were pruned: the partial holds their bytes.
    let toy = Toy::new(1);
    let fork = toy.at(5, 300);
    toy.partial(one(&toy), toy.at(5, 0), fork).await;
    let point = toy.begins(&history(2, &[(1, fork)]), Some(fork)).await.expect("a start");
    assert_eq!((point.branch.timeline.number(), positions(&point)), (2, (toy.at(5, 0), toy.at(5, 0))));
    // Seen from a server that is still on the timeline, it is a piece like others.
    let point = toy.begins(&root(), Some(toy.at(5, 40))).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(5, 0), fork));
}

#[tokio::test]
async fn case_11_a_fork_at_the_end_of_a_part_needs_no_partial() {
    let toy = Toy::new(32);
    let fork = toy.at(5, 16 << 20);
    toy.ship(&toy.server.piece(&toy.keys, one(&toy), PieceKind::Whole, toy.at(5, 0), fork)).await;
    let point = toy.begins(&history(2, &[(1, fork)]), Some(fork)).await.expect("a start");
    assert_eq!((point.branch.timeline.number(), positions(&point)), (2, (toy.at(5, 0), toy.at(5, 0))));
}

#[tokio::test]
async fn case_11_a_frontier_beyond_the_fork_starts_the_child_at_the_forks_segment() {
    let toy = Toy::new(1);
    toy.whole(one(&toy), 4).await;
    toy.whole(one(&toy), 5).await;
    toy.tail(one(&toy), toy.at(6, 0), toy.at(6, 100)).await;
    let path = history(2, &[(1, toy.at(5, 300))]);
    let point = toy.begins(&path, Some(toy.at(5, 350))).await.expect("a start");
    assert_eq!((point.branch.timeline.number(), positions(&point)), (2, (toy.at(5, 0), toy.at(5, 0))));
    // With a slot that stands before the fork, the ancestor is compared up to there first.
    let point = toy.begins(&path, Some(toy.at(4, 200))).await.expect("a start");
    assert_eq!((point.branch.timeline.number(), point.start), (1, toy.at(4, 0)));
    // This process has shipped more: the server has nothing of it beyond the fork.
    let past = Past { seen: Some((one(&toy), toy.at(6, 100))), ..Past::default() };
    let point = toy.begins_in(&toy.repository, &path, Some(toy.at(4, 200)), past).await.expect("a start");
    assert_eq!((point.branch.timeline.number(), point.start), (1, toy.at(5, 0)));
    // Once the child has WAL, it is the child's frontier that counts.
    let child = path.branch(toy.repository.cluster());
    toy.tail(child, toy.at(5, 0), toy.at(5, 400)).await;
    let point = toy.begins(&path, Some(toy.at(5, 200))).await.expect("a start");
    assert_eq!((point.branch, positions(&point)), (child, (toy.at(5, 0), toy.at(5, 400))));
}

#[tokio::test]
async fn case_05_where_a_history_goes_back_the_child_is_streamed_at_once() {
    // Timeline 3 left timeline 1 before timeline 2 had begun, and names timeline 2 as its parent.
    let toy = Toy::new(1);
    for number in [4, 5, 6] {
        toy.whole(one(&toy), number).await;
    }
    let path = history(3, &[(1, toy.at(6, 800)), (2, toy.at(5, 300))]);
    for slot in [toy.at(4, 200), toy.at(5, 350)] {
        let point = toy.begins(&path, Some(slot)).await.expect("a start");
        assert_eq!((point.branch.timeline.number(), positions(&point)), (3, (toy.at(5, 0), toy.at(5, 0))));
        let followed = point.followed.expect("it leaves timeline 1");
        assert_eq!((followed.branch, followed.fork), (one(&toy), toy.at(5, 300)));
    }
}

#[tokio::test]
async fn a_reader_needs_no_more_gets_after_many_restarts() {
    // Each life ships a few tails and is killed: what the lives left must be coalesced by one of them.
    let toy = Toy::new(1);
    let mut slot = toy.at(5, 0);
    for life in 0..12u64 {
        let point = toy.begins(&root(), Some(slot)).await.expect("a start");
        let listing = toy.repository.wal_listing(one(&toy), toy.server.size, None).await.expect("a listing");
        let tails = listing.tails_of(SegmentNumber(5));
        let gets = Cover::of(toy.at(5, 0), tails).pieces.len();
        assert!(gets <= 64, "{gets} gets after {life} lives");
        let mut cut = cutter(&toy, &point);
        let mut pieces = Vec::new();
        cut.push(&toy.server.bytes(point.start, point.frontier), &mut pieces).expect("the same bytes");
        for _ in 0..20 {
            let received = cut.received();
            cut.push(&toy.server.bytes(received, received.advance(KIB)), &mut pieces).expect("new bytes");
            pieces.extend(cut.cut_tail());
        }
        for piece in &pieces {
            toy.ship(piece).await;
        }
        slot = cut.received();
    }
    assert_eq!(slot, toy.at(5, 240 * KIB));
}

#[tokio::test]
async fn a_reconnect_lists_only_what_lies_about_the_slot() {
    // Tails are never expired: months of them must not be listed each time a connection breaks.
    let toy = Toy::new(1);
    toy.forge_tails(one(&toy), 3, 2500);
    toy.whole(one(&toy), 8).await;
    toy.tail(one(&toy), toy.at(9, 0), toy.at(9, 10)).await;
    let before = toy.store.calls(Call::List);
    let point = toy.begins(&root(), Some(toy.at(9, 5))).await.expect("a start");
    assert_eq!(point.frontier, toy.at(9, 10));
    // Whether anything was adopted; and two prefixes.
    assert_eq!(toy.store.calls(Call::List) - before, 3);
}

#[tokio::test]
async fn where_nothing_lies_about_the_slot_the_last_catalog_page_tells_where_to_look() {
    let toy = Toy::new(1);
    toy.forge_segments(one(&toy), 3..=3000);
    toy.whole(one(&toy), 3001).await;
    toy.tail(one(&toy), toy.at(3002, 0), toy.at(3002, 10)).await;
    let lists = async |slot| {
        let before = toy.store.calls(Call::List);
        let point = toy.begins(&root(), slot).await.expect("a start");
        assert_eq!(point.frontier, toy.at(3002, 10));
        toy.store.calls(Call::List) - before
    };
    let far = Some(toy.at(5000, 0));
    let (without_slot, without_page) = (lists(None).await, lists(far).await);
    toy.forge_page(one(&toy), SegmentNumber(1024));
    toy.forge_page(one(&toy), SegmentNumber(2816));
    let (with_slot, with_page) = (lists(None).await, lists(far).await);
    assert!(
        with_slot <= without_slot && with_page < without_page,
        "{with_slot} {without_slot} {with_page} {without_page}"
    );
    // A page beyond all that is there leads nowhere, and is no reason to begin elsewhere.
    toy.forge_page(one(&toy), SegmentNumber(4096));
    lists(far).await;
}

#[tokio::test]
async fn case_14_after_a_loss_the_stream_begins_on_the_timeline_that_the_slot_keeps() {
    let toy = Toy::new(1);
    let path = history(2, &[(1, toy.at(5, 300))]);
    let (history, adoptions) = (path.clone(), Adoptions::none(toy.repository.cluster()));
    let server = ServerPosition { history, adoptions, position: toy.at(9, 5), segment_size: toy.server.size };
    let begins = |slot| {
        let point = after_loss(&server, slot);
        (point.branch, point.start, point.frontier)
    };
    let child = path.branch(toy.repository.cluster());
    assert_eq!(begins(Some(toy.at(7, 40))), (child, toy.at(7, 0), toy.at(7, 0)));
    assert_eq!(
        begins(Some(toy.at(5, 400))),
        (child, toy.at(5, 0), toy.at(5, 0)),
        "the fork's segment is the child's, too"
    );
    assert_eq!(begins(Some(toy.at(5, 200))), (one(&toy), toy.at(5, 0), toy.at(5, 0)));
    assert_eq!(begins(None), (child, toy.at(9, 0), toy.at(9, 0)), "a slot that keeps nothing");
}

/// Writes that WAL from segment `number` on goes on on another branch, and says on which.
async fn adopted(toy: &Toy, number: u64) -> Branch {
    let writer = toy.keys.writer.public().to_string();
    let (branch, from) = (one(toy), toy.at(number, 0));
    let (count, to) = Adoptions::none(toy.repository.cluster()).next_of(&root(), branch, from, &writer);
    let (found, apart) = (jiff::Timestamp::now(), Vec::new());
    let adoption = Adoption { branch, from, to, writer, found, apart };
    toy.repository.put_adoption(count, &adoption, &toy.keys.writer).await.expect("put");
    to
}

#[tokio::test]
async fn case_17_after_an_adoption_the_stream_goes_on_on_the_new_branch_and_the_other_server_is_refused_there() {
    let toy = Toy::new(1);
    for number in 4..9 {
        toy.whole(one(&toy), number).await;
    }
    toy.tail(one(&toy), toy.at(9, 0), toy.at(9, 100)).await;
    let to = adopted(&toy, 6).await;
    let living = Server { seed: 1, ..toy.server };
    toy.ship(&living.piece(&toy.keys, to, PieceKind::Tail, toy.at(6, 0), toy.at(6, 500))).await;

    // The living one's slot stands where its WAL was last confirmed: before the split.
    let point = toy.begins(&root(), Some(toy.at(5, 70))).await.expect("a start");
    assert_eq!((point.branch, positions(&point)), (to, (toy.at(6, 0), toy.at(6, 500))));
    let pushed = |server: &Server, point: &StartPoint| {
        let bytes = server.bytes(point.start, point.frontier);
        cutter(&toy, point).push(&bytes, &mut Vec::new()).is_ok()
    };
    assert!(pushed(&living, &point), "its own bytes");
    assert!(!pushed(&toy.server, &point), "the other one's");

    // The other one's stands beyond.
    let point = toy.begins(&root(), Some(toy.at(9, 100))).await.expect("a start");
    assert_eq!((point.branch, positions(&point)), (to, (toy.at(6, 0), toy.at(6, 500))));
    assert!(!pushed(&toy.server, &point));

    // Also where the branch ends with a whole segment, of which nothing would have to be sent again.
    toy.ship(&living.piece(&toy.keys, to, PieceKind::Whole, toy.at(6, 0), toy.at(7, 0))).await;
    for slot in [toy.at(7, 0), toy.at(9, 100)] {
        let point = toy.begins(&root(), Some(slot)).await.expect("a start");
        assert_eq!((point.branch, positions(&point)), (to, (toy.at(6, 0), toy.at(7, 0))));
        assert!(pushed(&living, &point) && !pushed(&toy.server, &point), "slot at {slot}");
    }
    // An attempt that was refused began somewhere, and has proven nothing.
    let past = Past { seen: Some((to, toy.at(6, 0))), ..Past::default() };
    let point = toy.begins_in(&toy.repository, &root(), Some(toy.at(9, 100)), past).await.expect("a start");
    assert!(!pushed(&toy.server, &point));
    // What this process has sent itself it knows.
    let past = Past { seen: Some((to, toy.at(7, 0))), ..Past::default() };
    let point = toy.begins_in(&toy.repository, &root(), Some(toy.at(7, 0)), past).await.expect("a start");
    assert_eq!(positions(&point), (toy.at(7, 0), toy.at(7, 0)));
}

#[tokio::test]
async fn case_17_a_promotion_after_an_adoption_leaves_the_new_branch() {
    let toy = Toy::new(1);
    for number in 4..9 {
        toy.whole(one(&toy), number).await;
    }
    let to = adopted(&toy, 6).await;
    let living = Server { seed: 1, ..toy.server };
    toy.ship(&living.piece(&toy.keys, to, PieceKind::Whole, toy.at(6, 0), toy.at(7, 0))).await;
    toy.ship(&living.piece(&toy.keys, to, PieceKind::Partial, toy.at(7, 0), toy.at(7, 300))).await;
    let promoted = history(2, &[(1, toy.at(7, 300))]);
    let point = toy.begins(&promoted, Some(toy.at(7, 300))).await.expect("a start");
    let child = promoted.branch(toy.repository.cluster());
    assert_eq!((point.branch, positions(&point)), (child, (toy.at(7, 0), toy.at(7, 0))));
    assert_eq!(point.followed.map(|followed| (followed.branch, followed.fork)), Some((to, toy.at(7, 300))));
}

#[tokio::test]
async fn case_17_an_adoption_that_nobody_trusted_wrote_stops_the_stream() {
    let toy = Toy::new(1);
    toy.whole(one(&toy), 4).await;
    let stranger = keys_with(WriterKey::generate().expect("random bytes"));
    let (branch, from, found) = (one(&toy), toy.at(5, 0), jiff::Timestamp::now());
    let writer = stranger.writer.public().to_string();
    let (number, to) = Adoptions::none(toy.repository.cluster()).next_of(&root(), branch, from, &writer);
    let adoption = Adoption { branch, from, to, writer, found, apart: Vec::new() };
    toy.repository.put_adoption(number, &adoption, &stranger.writer).await.expect("the store takes everything");
    let error = toy.begins(&root(), Some(toy.at(5, 0))).await.expect_err("nobody knows which branch it is");
    assert!(matches!(&error, StreamError::Repository(RepositoryError::Adoption { .. })), "{error}");
    assert!(!error.is_permanent(), "somebody may add the writer, or remove the object");
}
