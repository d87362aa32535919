use std::sync::Arc;

use super::*;
use crate::seal::{TrustedWriter, TrustedWriters};
use crate::store::{DirectoryStore, ObjectStore};
use crate::timeline::TimelineId;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);
const W: &str = "walsealw1w";

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("not zero")
}

fn root() -> TimelineHistory {
    TimelineHistory::root(TimelineId::FIRST)
}

/// Timeline 2, which left timeline 1 at `switch`.
fn child(switch: u64, reason: &str) -> TimelineHistory {
    let text = format!("1\t{}\t{reason}\n", Lsn(switch));
    TimelineHistory::parse(timeline(2), text.as_bytes()).expect("a legal history")
}

fn one(history: &TimelineHistory) -> Branch {
    history.branch(CLUSTER)
}

/// Adopts WAL of `history`, which lies on `branch`, from `from` on, and says to which branch.
fn adopt(all: &mut Adoptions, history: &TimelineHistory, branch: Branch, from: u64, apart: &[Branch]) -> Branch {
    let (number, to) = all.next_of(history, branch, Lsn(from), W);
    let (writer, found) = (W.to_owned(), Timestamp::UNIX_EPOCH);
    let adoption = Adoption { branch, from: Lsn(from), to, writer, found, apart: apart.to_vec() };
    all.add(number, adoption).expect("it can be true");
    to
}

fn told(steps: &[Step]) -> Vec<(Branch, u64, Option<u64>)> {
    steps.iter().map(|step| (step.branch, step.begin.0, step.switch.map(|switch| switch.0))).collect()
}

#[test]
fn without_adoptions_the_way_is_the_historys() {
    let all = Adoptions::none(CLUSTER);
    let two = child(0x500, "x");
    assert_eq!(told(&all.way(&two)), [(one(&root()), 0, Some(0x500)), (one(&two), 0x500, None)]);
    assert_eq!(all.branch_of(&two), one(&two));
    assert_eq!((all.origin(one(&two)), all.at(one(&two), Lsn(9))), (one(&two), one(&two)));
    assert!(!all.is_abandoned(&all.way(&two)));
}

#[test]
fn case_17_wal_of_the_living_server_goes_on_on_a_branch_of_its_own() {
    let mut all = Adoptions::none(CLUSTER);
    let old = one(&root());
    let to = adopt(&mut all, &root(), old, 0x300, &[]);
    assert_eq!(to.timeline, old.timeline);
    assert_ne!(to, old);
    assert_eq!(told(&all.way(&root())), [(old, 0, Some(0x300)), (to, 0x300, None)]);
    assert_eq!((all.at(old, Lsn(0x2ff)), all.at(old, Lsn(0x300))), (old, to));
    assert_eq!((all.origin(to), all.origin(old)), (old, old));
    assert_eq!(told(&all.way_to(&root(), old)), [(old, 0, None)], "the other one's WAL can still be asked for");
    assert!(all.is_abandoned(&all.way_to(&root(), old)));
    assert!(!all.is_abandoned(&all.way(&root())));
}

#[test]
fn case_17_timelines_that_left_before_are_as_they_were_and_later_ones_come_from_the_living() {
    let mut all = Adoptions::none(CLUSTER);
    let old = one(&root());
    let (before, dead) = (child(0x300, "before"), child(0x400, "the other's standby"));
    let to = adopt(&mut all, &root(), old, 0x300, &[one(&before), one(&dead)]);
    let later = child(0x400, "after");
    assert_eq!(told(&all.way(&before)), [(old, 0, Some(0x300)), (one(&before), 0x300, None)]);
    assert_eq!(told(&all.way(&dead)), [(old, 0, Some(0x400)), (one(&dead), 0x400, None)]);
    let living = [(old, 0, Some(0x300)), (to, 0x300, Some(0x400)), (one(&later), 0x400, None)];
    assert_eq!(told(&all.way(&later)), living);
    let abandoned: Vec<bool> = [&before, &dead, &later].map(|history| all.is_abandoned(&all.way(history))).to_vec();
    assert_eq!(abandoned, [false, true, false]);
    // The same fork, asked for at the very place of the split, needs nothing of the new branch.
    assert_eq!(told(&all.way(&child(0x300, "another")))[0], (old, 0, Some(0x300)));
}

#[test]
fn case_17_where_two_servers_part_in_the_first_segment_of_their_timeline_the_living_one_is_not_taken_for_the_other() {
    let mut all = Adoptions::none(CLUSTER);
    let two = child(0x350, "both");
    // The segment begins before the timeline.
    let to = adopt(&mut all, &two, one(&two), 0x300, &[]);
    let living = [(one(&root()), 0, Some(0x350)), (one(&two), 0x350, Some(0x350)), (to, 0x350, None)];
    assert_eq!(told(&all.way(&two)), living);
    assert!(!all.is_abandoned(&all.way(&two)));
    assert!(all.is_abandoned(&all.way_to(&two, one(&two))));
}

#[test]
fn case_17_a_branch_can_be_split_again_before_and_after() {
    let mut all = Adoptions::none(CLUSTER);
    let old = one(&root());
    let second = adopt(&mut all, &root(), old, 0x300, &[]);
    // Beyond: of the branch that was adopted.
    let third = adopt(&mut all, &root(), second, 0x500, &[]);
    assert_eq!(told(&all.way(&root())), [(old, 0, Some(0x300)), (second, 0x300, Some(0x500)), (third, 0x500, None)]);
    let stays = child(0x400, "between");
    assert_eq!(told(&all.way(&stays))[1], (second, 0x300, Some(0x400)));
    // Before: the last word on the first branch counts, and the others' are left.
    let fourth = adopt(&mut all, &root(), old, 0x200, &[one(&stays)]);
    assert_eq!(told(&all.way(&root())), [(old, 0, Some(0x200)), (fourth, 0x200, None)]);
    assert_eq!(told(&all.way(&stays))[1], (second, 0x300, Some(0x400)), "it came from the second one");
    assert!(all.is_abandoned(&all.way_to(&root(), third)));
    assert_eq!(all.at(old, Lsn(0x600)), fourth);
    let distinct: BTreeSet<Branch> = [old, second, third, fourth].into();
    assert_eq!(distinct.len(), 4);
    assert_eq!(all.branches(), distinct);
}

#[test]
fn case_17_a_split_in_the_segment_in_which_a_timeline_begins() {
    let mut all = Adoptions::none(CLUSTER);
    let two = child(0x480, "x");
    let to = adopt(&mut all, &two, one(&two), 0x400, &[]);
    assert_eq!(
        told(&all.way(&two)),
        [(one(&root()), 0, Some(0x480)), (one(&two), 0x480, Some(0x480)), (to, 0x480, None)]
    );
}

#[test]
fn what_leads_in_a_circle_or_to_another_timeline_is_refused() {
    let mut all = Adoptions::none(CLUSTER);
    let old = one(&root());
    let to = adopt(&mut all, &root(), old, 0x300, &[]);
    let found = Timestamp::UNIX_EPOCH;
    let leads = |branch, to| Adoption { branch, from: Lsn(0x500), to, writer: W.to_owned(), found, apart: Vec::new() };
    for (adoption, why) in [
        (leads(to, old), "from which it comes"),
        (leads(to, to), "so does adopt/"),
        (leads(to, one(&child(0x500, "x"))), "another timeline"),
        (leads(old, to), "so does adopt/"),
        (leads(old, old), "from which it comes"),
    ] {
        let refused = all.add(1, adoption).expect_err("it cannot be true");
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn case_17_an_adoption_of_nobody_we_trust_is_an_error_and_never_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::new(folder.path().to_owned()));
    let (ours, stranger) = (WriterKey::generate().expect("random"), WriterKey::generate().expect("random"));
    let trusting = |keys: &[&WriterKey]| {
        let trusted = keys.iter().map(|key| TrustedWriter::archiver(key.public())).collect();
        Repository::new(store.clone(), CLUSTER, TrustedWriters::new(trusted))
    };
    let repository = trusting(&[&ours]);
    let old = one(&root());
    let writer = ours.public().to_string();
    let put = async |key: &WriterKey, branch: Branch, from: u64| {
        let all = trusting(&[&ours, &stranger]).adoptions().await.expect("readable");
        let (number, to) = all.next_of(&root(), branch, Lsn(from), &writer);
        let (writer, found) = (writer.clone(), Timestamp::now());
        let adoption = Adoption { branch, from: Lsn(from), to, writer, found, apart: Vec::new() };
        let name = repository.put_adoption(number, &adoption, key).await.expect("put");
        (name.to_string(), adoption)
    };
    assert!(repository.adoptions().await.expect("none").is_empty());
    let (_, first) = put(&ours, old, 0x300).await;
    let all = repository.adoptions().await.expect("one");
    assert!(all.iter().map(|(_, adoption)| adoption).eq([&first]));
    let again = repository.put_adoption(0, &first, &ours).await.expect_err("the number is taken").to_string();
    assert!(again.contains("at the same time"), "{again}");
    let (name, _) = put(&stranger, first.to, 0x500).await;
    let error = repository.adoptions().await.expect_err("nobody knows who wrote it").to_string();
    assert!(error.contains(&name) && error.contains("keys.trusted_writers"), "{error}");
}

/// The names that the test vector has; docs/FORMAT.md says how they are made.
#[test]
fn the_branch_of_an_adoption_is_named_as_the_format_says() {
    let system = SystemIdentifier(7_437_123_456_789_012_345);
    let writer = "walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0";
    let old = root().branch(system);
    let (number, to) = Adoptions::none(system).next_of(&root(), old, Lsn(0x300_0000), writer);
    assert_eq!(
        (old.to_string(), number, to.to_string()),
        ("00000001-a2dd04c7".to_owned(), 0, "00000001-f80303ff".to_owned())
    );
}
