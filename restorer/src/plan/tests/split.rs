//! Two servers that wrote the same timeline, of which one was named the living one (case 17).

use jiff::Timestamp;
use walseal_common::lsn::LsnRange;
use walseal_common::repository::Adoption;
use walseal_common::timeline::TimelineHistory;

use super::*;
use crate::sample::SYSTEM;

/// The day of [`Day`], but a copy of the server lived on from after 10:01:00: its WAL was adopted from the second segment on, and it has
/// transaction 804 at 10:06:00. The other one had transactions 704 to 706.
struct SplitDay {
    day: Day,
    from: Lsn,
    to: Branch,
    living: SampleWal,
    commit_804: Spot,
}

fn root() -> TimelineHistory {
    TimelineHistory::root(TimelineId::FIRST)
}

impl SplitDay {
    async fn new() -> SplitDay {
        let day = Day::new().await;
        let mut living = day.wal.until(day.abort_703.end);
        // Both have the same up to the end of the first segment.
        living.fill_segment();
        let from = living.size.align_down(living.end());
        let mut living = day.wal.until(last_before(&day.wal, from));
        living.filler(7777);
        living.fill_segment();
        let commit_804 = living.commit(804, &at("10:06:00"));
        living.filler(100);
        let (repository, branch) = (&day.sample.repository, day.sample.branch());
        let (count, to) = repository.adoptions().await.expect("none").next_of(&root(), branch, from, "walsealw1x");
        day.sample.put_wal(to, &living, from).await;
        let (writer, found) = ("walsealw1x".to_owned(), Timestamp::UNIX_EPOCH);
        let adoption = Adoption { branch, from, to, writer, found, apart: Vec::new() };
        repository.put_adoption(count, &adoption, &day.sample.writer).await.expect("put");
        SplitDay { day, from, to, living, commit_804 }
    }

    fn on(&self, target: &str, choice: TimelineChoice) -> Request {
        Request { timeline: Some(choice), ..Request::to(target.parse().expect("a target")) }
    }

    fn old(&self) -> Branch {
        self.day.sample.branch()
    }
}

/// The end of the last record that lies wholly before `lsn`, or goes on over it.
fn last_before(wal: &SampleWal, lsn: Lsn) -> Lsn {
    wal.ends().filter(|end| *end >= lsn).min().expect("a record")
}

#[tokio::test]
async fn case_17_latest_is_the_living_ones_and_the_way_has_two_branches_of_one_timeline() {
    let split = SplitDay::new().await;
    let plan = split.day.plan("latest").await.expect("the living one");
    assert_eq!((plan.timeline().number(), plan.stop), (1, split.living.end()));
    let steps: Vec<_> = plan.path.iter().map(|step| (step.branch, step.to)).collect();
    assert_eq!(steps, [(split.old(), split.from), (split.to, split.living.end())]);
    assert_eq!(beside(&plan), (Some(804), None));
    let words = plan.explain();
    assert!(words.contains(&format!("1 (branch {}) -> 1 (branch {})", split.old(), split.to)), "{words}");
    assert_eq!(plan.recovery[0].line(), "recovery_target_timeline = '1'");
    let number = TimelineId::new(1).map(TimelineChoice::Number).expect("not zero");
    let by_number = split.day.request(&split.on("latest", number)).await.expect("the living one");
    assert_eq!(by_number.stop, plan.stop);
}

#[tokio::test]
async fn case_17_the_other_servers_points_are_reached_by_the_name_of_its_branch_alone() {
    let split = SplitDay::new().await;
    let plan = split.day.request(&split.on("latest", TimelineChoice::Branch(split.old()))).await.expect("asked for");
    assert_eq!(plan.stop, split.day.wal.end());
    assert_eq!(plan.path.iter().map(|step| step.branch).collect::<Vec<_>>(), [split.old()]);
    let error = split.day.plan("xid:706").await.expect_err("the living one does not have it");
    assert!(error.to_string().contains(&format!("--timeline {}", split.old())), "{error}");
    let plan = split.day.plan("xid:804").await.expect("the living one's");
    assert_eq!(plan.stop, split.commit_804.end);
}

#[tokio::test]
async fn case_17_a_time_on_both_is_refused_with_both_named_and_one_before_the_split_is_not() {
    let split = SplitDay::new().await;
    let error = split.day.plan(&at("10:04:00")).await.expect_err("it lies on both");
    let text = error.to_string();
    for branch in [split.old(), split.to] {
        assert!(text.contains(&format!("--timeline {branch}")), "{text}");
    }
    let plan = split.day.plan(&at("10:01:00")).await.expect("both have it");
    assert_eq!(plan.stop, split.day.abort_703.start);
    // Only the living one goes on so long.
    let plan = split.day.plan(&at("10:05:30")).await.expect("only there");
    assert_eq!(plan.stop, split.commit_804.start);
}

#[tokio::test]
async fn case_17_bases_of_the_other_server_are_no_way_to_the_living_one() {
    let split = SplitDay::new().await;
    let (start, stop) = (split.day.commit_705.start, split.day.point.end);
    let theirs = split.day.sample.put_label(split.old(), start, stop, &at("10:04:30"), None).await;
    let plan = split.day.plan("latest").await.expect("the base from before the split");
    assert_eq!(plan.base.id, split.day.base);
    let plan = split.day.request(&split.on("latest", TimelineChoice::Branch(split.old()))).await.expect("asked for");
    assert_eq!(plan.base.id, theirs);
}

#[tokio::test]
async fn case_17_wal_that_the_living_one_lacks_is_a_hole_and_never_the_others() {
    let split = SplitDay::new().await;
    let number = split.living.size.number(split.from);
    let segment = split.day.sample.segment(split.to, number);
    split.day.sample.remove(&walseal_common::repository::ObjectName::Wal(split.to, segment, None)).await;
    let error = split.day.plan("latest").await.expect_err("it must not be taken from the other branch");
    let PlanError::Gap(gap) = &error else { panic!("{error}") };
    assert_eq!(gap.branch, split.to);
}

#[tokio::test]
async fn case_17_both_are_listed_as_windows() {
    let split = SplitDay::new().await;
    let sample = &split.day.sample;
    let mut inventory = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
    let found = windows::windows(&sample.repository, &sample.identities, &mut inventory).await.expect("readable");
    let spans: Vec<_> = found.iter().map(|window| (window.branch, window.to)).collect();
    let mut expected = [(split.old(), split.day.wal.end()), (split.to, split.living.end())];
    expected.sort();
    assert_eq!(spans, expected);
}

#[tokio::test]
async fn case_17_a_timeline_that_was_made_afterwards_comes_from_the_living_one() {
    let split = SplitDay::new().await;
    let switch = split.commit_804.end;
    let history = split.day.sample.put_history(&root(), 2, switch).await;
    let mut child = split.living.until(switch).fork(2);
    child.commit(900, &at("10:09:00"));
    split.day.sample.put_wal(history.branch(SYSTEM), &child, child.size.align_down(switch)).await;
    let plan = split.day.plan("latest").await.expect("the newest");
    let branches: Vec<_> = plan.path.iter().map(|step| step.branch).collect();
    assert_eq!(branches, [split.old(), split.to, history.branch(SYSTEM)]);
    assert_eq!((plan.stop, beside(&plan)), (child.end(), (Some(900), None)));
}

#[tokio::test]
async fn case_17_fetch_takes_each_segment_from_the_branch_on_which_it_lies() {
    let split = SplitDay::new().await;
    let sample = &split.day.sample;
    let plan = split.day.plan("latest").await.expect("the living one");
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("RECOVERYXLOG");
    let fetcher = |route| crate::fetch::Fetcher {
        repository: sample.repository.clone(),
        identities: sample.identities.clone(),
        route,
        read_through: None,
        size: Default::default(),
    };
    let planned = crate::fetch::Route::Planned(std::sync::Arc::new(plan));
    for route in [planned, crate::fetch::Route::ByNumber] {
        let fetcher = fetcher(route);
        for number in [split.from.0 / (1 << 20) - 1, split.from.0 / (1 << 20)] {
            let name = format!("0000000100000000{number:08X}").parse().expect("a name");
            fetcher.fetch(name, &target).await.expect("delivered");
            let range = walseal_common::segment::SegmentNumber(number).range(split.living.size);
            let held = LsnRange { start: range.start, end: range.end.min(split.living.end()) };
            let got = std::fs::read(&target).expect("there");
            assert!(got[..held.len() as usize] == *split.living.slice(held), "segment {number}");
        }
        let beyond = "000000010000000000000009".parse().expect("a name");
        let outcome = fetcher.fetch(beyond, &target).await.expect("proven");
        assert!(matches!(outcome, crate::fetch::Outcome::NotThere(_)), "{outcome:?}");
    }
}
