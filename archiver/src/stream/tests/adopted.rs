//! Two servers on one timeline, of which the other one was named the living one (case 17).

use anyhow::{Result, bail, ensure};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Adoption, Ledger};
use walseal_common::store::fault::Call;
use walseal_common::timeline::Branch;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};

use super::live::{Live, SLOT, block_on, cluster};
use super::toy::{Server, root};
use crate::adopt::{Adopted, Adopter};
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
        Ok(block_on(live.repository.store().list(&prefix, None, 100))?.objects.len())
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
fn case_17_a_server_that_cannot_be_compared_stores_nothing_on_an_adopted_branch_until_it_is_named() -> Result<()> {
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
    assert_eq!(live.slot()?, before, "nothing more is confirmed");
    assert_eq!(stored(&live, to)?, (1, 0));

    // Somebody says that it is the living one all the same: what it has no more is on record as lost, and it goes on.
    let adopter = Adopter {
        conninfo: Conninfo::parse(&live.conninfo, &|_| None)?,
        slot: SLOT.to_owned(),
        repository: live.repository.clone(),
        identity: live.identity.clone(),
        keys: live.keys.clone(),
        ledger: Ledger::none(),
    };
    let adopted = block_on(adopter.adopt(live.keys.writer.public()))?;
    let Adopted::Ours { branch, from: left, to: own, gap_to: Some(gap_to), .. } = adopted else {
        bail!("{adopted:?}");
    };
    assert_eq!((branch, left), (to, from));
    let gaps = block_on(live.repository.gaps())?;
    let told: Vec<_> = gaps.iter().map(|gap| (gap.branch, gap.from, gap.to, gap.next)).collect();
    assert_eq!(told, [(to, from, gap_to, own)]);
    live.fill(3)?;
    let flushed = live.settle()?;
    assert_eq!(stream.progress().branch, Some(own));
    stream.stop()?;
    live.holds(own, Lsn::INVALID)?;
    let size = live.identity.segment_size;
    let listing = block_on(live.repository.wal_listing(own, size, Some(size.number(gap_to))))?;
    ensure!(
        block_on(live.repository.contiguous_end(&listing, gap_to))? >= flushed,
        "behind the gap nothing is missing"
    );
    Ok(())
}
