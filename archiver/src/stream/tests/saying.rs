//! What a stream says of a store that does not take its WAL.

use std::time::Duration;

use anyhow::{Result, ensure};
use walseal_common::segment::{SegmentName, SegmentNumber};
use walseal_common::store::StoreErrorKind;
use walseal_common::store::fault::{Call, Effect};

use super::live::{Live, Running, cluster};
use crate::stream::SessionEnd;

const FULL: Effect = Effect::FailBefore(StoreErrorKind::Full);

#[test]
fn a_store_that_is_full_is_named_while_the_stream_goes_on_and_when_it_ends() -> Result<()> {
    let mut live = Live::start(cluster())?;
    // Sooner than a put is given up, as in earnest.
    live.timing.stall_limit = Duration::from_millis(50);
    let stream = live.stream()?;
    live.settle()?;
    ensure!(stream.progress().store_trouble.is_none(), "all is well");
    live.store.plan(Call::Put, 1..=u64::MAX, FULL);
    // Little enough for the buffers: nothing stalls, and still it is known.
    live.cluster.sql("create table orders as select 1 as id")?;
    let said = stream.until("the failing put", |progress| progress.store_trouble.is_some())?;
    let words = said.store_trouble.unwrap_or_default();
    ensure!(words.starts_with("put tail/") || words.contains("/tail/"), "{words}");
    ensure!(words.contains("an injected fault"), "it has the reason: {words}");
    // More than the buffers hold: the connection is closed, and the reason stands behind it.
    live.fill(60)?;
    let words = stream.troubled_by("did not take WAL")?;
    ensure!(words.contains("because: put ") && words.contains("an injected fault"), "{words}");
    live.store.heal();
    live.settle()?;
    stream
        .until("the trouble to be over", |progress| progress.store_trouble.is_none() && progress.trouble.is_none())?;
    ensure!(stream.stop()? == SessionEnd::Asked, "all is durable");
    Ok(())
}

#[test]
fn a_stop_between_two_attempts_says_in_bytes_what_the_slot_still_holds() -> Result<()> {
    let live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.settle()?;
    live.store.set_down(Some(StoreErrorKind::Full));
    live.fill(3)?;
    // The put was given up, and so was what the next connection began with: from now on there is none.
    stream.troubled_by("list ")?;
    let left = stream.progress().not_durable();
    ensure!(left >= 3 << 20, "3 MiB were written, of which {left} bytes are known");
    let ended = stream.stop()?;
    ensure!(ended == SessionEnd::AskedWithRest(left), "{ended:?} and not {left}");
    // Nothing is lost: the next life brings it.
    live.store.heal();
    let stream = live.stream()?;
    let flushed = live.settle()?;
    ensure!(stream.stop()? == SessionEnd::Asked, "all is durable");
    live.holds(live.branch(), flushed)
}

#[test]
fn the_stream_remembers_the_digests_of_the_segments_that_it_stored() -> Result<()> {
    let live = Live::start(cluster())?;
    let streamer = live.streamer()?;
    let landed = streamer.landed.clone();
    let stream = Running::start(streamer)?;
    live.settle()?;
    let size = live.identity.segment_size;
    let begun = size.number(live.cluster.flush_lsn()?);
    live.fill(3)?;
    let ended = size.number(live.settle()?);
    ensure!(stream.stop()? == SessionEnd::Asked, "all is durable");
    let digest = |number| landed.digest(live.branch(), number);
    let whole = (begun.0..ended.0).map(SegmentNumber).collect::<Vec<_>>();
    ensure!(whole.len() >= 3 && digest(ended).is_none(), "the last segment is not whole: {whole:?}");
    for number in whole {
        let name = SegmentName::new(live.branch().timeline, number, size).to_string();
        let mut hasher = live.keys.writer.compare().hasher();
        hasher.update(&std::fs::read(live.cluster.data().join("pg_wal").join(&name))?);
        ensure!(digest(number) == Some(hasher.digest()), "{name} is remembered with another digest");
    }
    Ok(())
}
