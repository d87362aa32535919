//! Two servers on one timeline, of which the other one was named the living one (case 17).

use anyhow::{Result, ensure};
use walseal_common::lsn::Lsn;
use walseal_common::repository::Adoption;
use walseal_common::store::fault::Call;
use walseal_common::timeline::Branch;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};

use super::live::{Live, block_on, cluster};
use super::toy::{Server, root};
use crate::memory::Room;
use crate::shipment::PieceKind;

/// Another server's WAL from the segment at `from` on, and the word of somebody that it is the living one's. Returns the branch on which
/// it lies.
fn other_is_named(live: &Live, from: Lsn) -> Result<Branch> {
    let (branch, writer) = (live.branch(), live.keys.writer.public().to_string());
    let (number, to) = block_on(live.repository.adoptions())?.next_of(&root(), branch, from, &writer);
    let theirs = Server { seed: 3, size: live.identity.segment_size };
    let piece = theirs.piece(&live.keys, to, PieceKind::Tail, from, from.advance(1000));
    block_on(piece.ship(&live.repository, &live.keys, &Room::elsewhere()))?;
    let (found, apart) = (jiff::Timestamp::now(), Vec::new());
    let adoption = Adoption { branch, from, to, writer, found, apart };
    block_on(live.repository.put_adoption(number, &adoption, &live.keys.writer))?;
    Ok(to)
}

/// Objects of WAL on a branch, and records of gaps.
fn stored(live: &Live, branch: Branch) -> Result<(usize, usize)> {
    let below = |folder: String| -> Result<usize> {
        let prefix = format!("{}/{folder}/", live.repository.cluster());
        Ok(block_on(live.repository.store().list(&prefix, None, 100))?.len())
    };
    Ok((below(format!("tail/{branch}"))? + below(format!("wal/{branch}"))?, below("gap".to_owned())?))
}

#[test]
fn case_17_a_stream_notices_that_another_server_was_named_the_living_one() -> Result<()> {
    let live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.fill(1)?;
    live.settle()?;
    let to = other_is_named(&live, live.identity.segment_size.align_down(live.slot()?))?;
    let words = stream.troubled_by("other bytes")?;
    ensure!(words.contains(&format!("tail/{to}/")), "what is on the new branch is named: {words}");
    let before = live.slot()?;
    let puts = live.store.calls(Call::Put);
    live.fill(3)?;
    eventually("another attempt", PATIENCE, || Ok((live.store.calls(Call::Put) > puts).then_some(())))?;
    stream.stop()?;
    assert_eq!(live.slot()?, before, "nothing more is confirmed");
    assert_eq!(stored(&live, to)?, (1, 0), "nothing is stored beside the other one's");
    Ok(())
}

#[test]
fn case_17_a_server_that_cannot_be_compared_stores_nothing_on_an_adopted_branch_and_records_no_gap() -> Result<()> {
    // What was confirmed goes at the next checkpoint.
    let live =
        Live::start(Cluster::builder().segment_mib(1).setting("min_wal_size", "2MB").setting("max_wal_size", "4MB"))?;
    let stream = live.stream()?;
    live.fill(2)?;
    live.settle()?;
    let from = live.identity.segment_size.align_down(live.slot()?);
    live.fill(12)?;
    live.settle()?;
    stream.stop()?;
    for _ in 0..2 {
        live.cluster.sql("select pg_switch_wal()")?;
        live.cluster.sql("checkpoint")?;
    }
    let to = other_is_named(&live, from)?;
    let before = live.slot()?;
    let stream = live.stream()?;
    let words = stream.troubled_by("nobody can tell whether it is the same server")?;
    ensure!(words.contains("walseal-archiver adopt"), "{words}");
    stream.stop()?;
    assert_eq!(live.slot()?, before, "nothing more is confirmed");
    assert_eq!(stored(&live, to)?, (1, 0));
    Ok(())
}
