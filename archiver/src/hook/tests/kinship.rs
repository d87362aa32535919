//! Two servers wrote the same timeline, and one was named the living one (case 17).

use walseal_common::repository::Adoption;

use super::*;
use crate::memory::Room;

/// Says that WAL from segment 3 on lies on another branch, on which the first bytes of `living` are. Returns that branch.
async fn adopted(bed: &Bed, living: &[u8]) -> Branch {
    let (branch, from, writer) = (bed.root(), bed.start(3), bed.keys.writer.public().to_string());
    let history = TimelineHistory::root(TimelineId::FIRST);
    let none = bed.repository.adoptions().await.expect("none");
    let (number, to) = none.next_of(&history, branch, from, &writer);
    let mut cutter = Cutter::new(to, bed.size, bed.keys.writer.compare(), from, None);
    cutter.push(&living[..50_000], &mut Vec::new()).expect("nothing to differ from");
    let tail = cutter.cut_tail().expect("50000 bytes");
    tail.ship(&bed.repository, &bed.keys, &Room::elsewhere()).await.expect("stored");
    let (found, apart) = (jiff::Timestamp::now(), Vec::new());
    let adoption = Adoption { branch, from, to, writer, found, apart };
    bed.repository.put_adoption(number, &adoption, &bed.keys.writer).await.expect("put");
    to
}

#[tokio::test]
async fn case_17_on_an_adopted_branch_a_file_counts_only_where_it_goes_on_with_what_is_there() {
    let bed = Bed::new(1);
    let (third, fourth) = (bed.name(1, 3).to_string(), bed.name(1, 4).to_string());
    let other = |number| {
        let mut other = bed.begun(1, number);
        other.commit(999, 2_000);
        finished(other)
    };
    let path = bed.file(&third, &other(3));
    assert_eq!(bed.archivist(None).push(&path).await.expect("it came first"), Pushed::Shipped);
    let to = adopted(&bed, &bed.bytes(1, 3)).await;
    let before = bed.objects();

    // The other server's: what it has of the first segment is not what is there, and nothing that follows it is taken.
    let archivist = bed.archivist(None);
    let refused = archivist.push(&path).await.expect_err("other bytes");
    assert!(is_conflict(&refused) && refused.to_string().contains(&to.to_string()), "{refused}");
    let next = bed.file(&fourth, &other(4));
    let refused = archivist.push(&next).await.expect_err("it follows other bytes");
    assert!(is_conflict(&refused), "{refused}");
    std::fs::remove_file(&path).expect("it is there");
    let refused = archivist.push(&next).await.expect_err("nobody can tell whose it is");
    assert!(matches!(refused, PushError::NotKin { .. }) && !refused.is_permanent(), "{refused}");
    let partial = bed.file(&format!("{fourth}.partial"), &other(4));
    let refused = archivist.push(&partial).await.expect_err("nobody can tell whose it is");
    assert!(matches!(refused, PushError::NotKin { .. }), "{refused}");
    assert_eq!(bed.objects(), before, "nothing of it was stored");

    // The living one's goes on.
    for number in [3, 4] {
        let path = bed.segment(1, number);
        assert_eq!(archivist.push(&path).await.expect("its own"), Pushed::Shipped, "segment {number}");
        assert!(bed.objects().contains(&format!("wal/{to}/{}", bed.name(1, number))), "{:?}", bed.objects());
    }
    // What lies before the split is looked for where it was.
    let earlier = bed.segment(1, 2);
    assert_eq!(archivist.push(&earlier).await.expect("before the split"), Pushed::Shipped);
    assert!(bed.objects().contains(&format!("wal/{}/{}", bed.root(), bed.name(1, 2))), "{:?}", bed.objects());
}
