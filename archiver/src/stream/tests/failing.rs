//! Streams into stores that fail, stall, lose answers, run full and go away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walseal_common::repository::Beyond;
use walseal_common::segment::SegmentName;
use walseal_common::store::StoreErrorKind;
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_common::timeline::TimelineId;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::workload::Workload;

use super::live::{Live, cluster};
use crate::stream::SessionEnd;

/// Load, the fault, more load; when the store is well again all is confirmed, and at no time more than is durable.
fn survives(what: &str, live: &Live, spoil: impl FnOnce(&Faulty), heal: impl FnOnce(&Faulty)) -> Result<()> {
    let run = || -> Result<()> {
        let witness = live.witness()?;
        let stream = live.stream()?;
        let load = Workload::start(&live.cluster, 2)?;
        load.goes_on(20, PATIENCE)?;
        spoil(&live.store);
        live.fill(5)?;
        load.goes_on(60, PATIENCE)?;
        let met = live.store.history().len();
        eventually("the store to be called", PATIENCE, || Ok((live.store.history().len() > met).then_some(())))?;
        heal(&live.store);
        load.goes_on(20, PATIENCE)?;
        load.stop()?;
        let flushed = live.settle()?;
        // What the server writes by itself after that must not meet the fault at the very end.
        live.store.heal();
        let ended = stream.stop()?;
        ensure!(ended == SessionEnd::Asked, "{ended:?}");
        let confirmed = witness.ends()?;
        ensure!(confirmed >= flushed, "only {confirmed} of {flushed} was seen confirmed");
        live.holds(live.branch(), confirmed)
    };
    run().with_context(|| what.to_owned())
}

/// Every `nth` call of this kind, as long as the test lasts.
fn each(nth: u64, call: Call, effect: Effect) -> impl Fn(&Faulty) {
    move |store| (1..400).for_each(|turn| store.plan(call, turn * nth..=turn * nth, effect))
}

const WELL: fn(&Faulty) = |_| ();

#[test]
fn i1_nothing_is_confirmed_that_a_failing_store_did_not_take() -> Result<()> {
    let lost = StoreErrorKind::Unreachable;
    let live = Live::start(cluster())?;
    for (what, call, effect) in [
        ("every third put fails before it takes effect", Call::Put, Effect::FailBefore(lost)),
        ("every third put takes effect and fails", Call::Put, Effect::FailAfter(lost)),
        ("every third put is refused for good", Call::Put, Effect::FailBefore(StoreErrorKind::Denied)),
        ("every third header read fails", Call::GetRange, Effect::FailBefore(lost)),
        ("every third header comes with other bytes", Call::GetRange, Effect::WrongBytes),
        ("every third header comes in half", Call::GetRange, Effect::Truncated),
        ("every third listing fails", Call::List, Effect::FailAfter(lost)),
        ("every third listing comes in half", Call::List, Effect::Truncated),
    ] {
        let before = live.store.calls(call);
        let spoil = |store: &Faulty| {
            each(3, call, effect)(store);
            if call != Call::Put {
                // Headers and listings are read when a stream begins: so streams must break.
                each(2, Call::Put, Effect::FailBefore(StoreErrorKind::Denied))(store);
            }
        };
        survives(what, &live, spoil, WELL)?;
        let met = live.store.calls(call) - before;
        ensure!(met >= 3, "{what}: only {met} calls were made");
    }
    Ok(())
}

#[test]
fn i1_nothing_is_confirmed_that_a_stalling_store_did_not_take() -> Result<()> {
    let live = Live::start(cluster())?;
    // Longer than the stall limit, and out of order.
    survives("every third put stalls", &live, each(3, Call::Put, Effect::Stall(Duration::from_millis(700))), WELL)?;
    survives("one put never returns", &live, |store| store.plan(Call::Put, 4..=4, Effect::Hang), WELL)
}

#[test]
fn i1_nothing_is_confirmed_while_the_store_is_full_or_away() -> Result<()> {
    let live = Live::start(cluster())?;
    for kind in [StoreErrorKind::Full, StoreErrorKind::Unreachable, StoreErrorKind::NoSuchStore] {
        survives(&format!("{kind:?}"), &live, |store| store.set_down(Some(kind)), Faulty::heal)?;
    }
    Ok(())
}

#[test]
fn i2_kills_between_out_of_order_puts_lose_nothing() -> Result<()> {
    let live = Live::start(cluster())?;
    let witness = live.witness()?;
    let load = Workload::start(&live.cluster, 2)?;
    for life in 0..12u64 {
        // The first puts of each life stall, later ones overtake them, and then it is killed.
        let before = live.store.calls(Call::Put);
        live.store.plan(Call::Put, 1..=1 + life % 3, Effect::Stall(Duration::from_secs(30)));
        let stream = live.stream()?;
        live.fill(2)?;
        load.goes_on(5, PATIENCE)?;
        let wanted = before + 3 + life % 5;
        eventually("puts of this life", PATIENCE, || Ok((live.store.calls(Call::Put) >= wanted).then_some(())))?;
        stream.kill();
    }
    let stream = live.stream()?;
    load.stop()?;
    let flushed = live.settle()?;
    stream.stop()?;
    let confirmed = witness.ends()?;
    ensure!(confirmed >= flushed, "only {confirmed} of {flushed} was seen confirmed");
    live.holds(live.branch(), confirmed)
}

#[test]
fn i1_what_overtook_a_piece_that_never_arrived_tells_that_nothing_beyond_was_confirmed() -> Result<()> {
    let live = Live::start(cluster())?;
    let size = live.identity.segment_size;
    for life in 0..6 {
        let stream = live.stream()?;
        live.fill(1 + life % 3)?;
        live.settle()?;
        // Nothing more of this segment arrives, as a tail or whole, and the segments behind it overtake it.
        let segment = SegmentName::new(TimelineId::FIRST, size.number(live.cluster.flush_lsn()?), size);
        for kind in ["tail", "wal"] {
            let below = format!("{}/{kind}/{}/{segment}", live.repository.cluster(), live.branch());
            live.store.plan_below(&below, Call::Put, 1..=9999, Effect::Hang);
        }
        live.fill(3)?;
        eventually("an object beyond the one that hangs", PATIENCE, || {
            Ok((!matches!(live.beyond(live.branch())?.1, Beyond::Nothing)).then_some(()))
        })?;
        let confirmed = live.slot()?;
        stream.kill();
        live.store.heal();
        let (end, beyond) = live.beyond(live.branch())?;
        ensure!(confirmed <= end, "{confirmed} was confirmed in life {life}, and WAL ends at {end}");
        ensure!(matches!(beyond, Beyond::Unconfirmed(_)), "life {life}: WAL ends at {end}, beyond is {beyond:?}");
    }
    // The loss of what was confirmed is another matter.
    let stream = live.stream()?;
    let flushed = live.settle()?;
    stream.stop()?;
    live.holds(live.branch(), flushed)?;
    let lost = SegmentName::new(TimelineId::FIRST, size.number(live.begin).next(), size).to_string();
    let folder = live.folder().join(live.repository.cluster().to_string());
    std::fs::remove_file(folder.join(format!("wal/{}/{lost}", live.branch())))?;
    let tails = folder.join(format!("tail/{}/{lost}", live.branch()));
    if tails.exists() {
        std::fs::remove_dir_all(tails)?;
    }
    let (end, beyond) = live.beyond(live.branch())?;
    ensure!(matches!(beyond, Beyond::Known { .. }), "WAL is missing from {end} on, and beyond is {beyond:?}");
    Ok(())
}

#[test]
fn a_store_slower_than_the_stall_limit_still_catches_up() -> Result<()> {
    let live = Live::start(cluster())?;
    // More than all buffers hold, and each put takes three times the stall limit.
    live.fill(70)?;
    live.store.plan(Call::Put, 1..=u64::MAX, Effect::Stall(Duration::from_millis(900)));
    let stream = live.stream()?;
    let flushed = live.settle()?;
    stream.stop()?;
    live.holds(live.branch(), flushed)
}

#[test]
fn where_commits_wait_two_tails_are_on_their_way_and_what_commits_meanwhile_goes_with_the_next() -> Result<()> {
    let mut live = Live::start(cluster())?;
    live.timing.synchronous = true;
    live.timing.ship_interval = Duration::from_secs(3600);
    live.timing.put_limit = Duration::from_secs(3600);
    let below = format!("{}/tail/", live.repository.cluster());
    let puts = |live: &Live| {
        let calls = live.store.history();
        calls.iter().filter(|(call, key)| *call == Call::Put && key.starts_with(&below)).count()
    };
    let stream = live.stream()?;
    stream.until("a connection", |progress| progress.connected)?;
    live.cluster.sql("create table orders as select 1 as id")?;
    let durable = live.cluster.flush_lsn()?;
    // Nobody waited for the interval. What the server writes by itself behind the commit may stay.
    eventually("the commit to be shipped", PATIENCE, || Ok((puts(&live) > 0).then_some(())))?;
    stream.until("the commit to be durable", |progress| progress.frontier.advance(1 << 16) > durable)?;

    live.store.plan_below(&below, Call::Put, 1..=9999, Effect::Hang);
    let before = puts(&live);
    let load = Workload::start(&live.cluster, 2)?;
    load.goes_on(200, PATIENCE)?;
    let last = load.stop()?.last().context("there are commits")?.after;
    stream.until("the commits to be received", |progress| progress.received >= last)?;
    ensure!(puts(&live) == before + 2, "{} tails were put", puts(&live) - before);
    stream.kill();

    live.store.heal();
    let stream = live.stream()?;
    stream.until("the commits to be received again", |progress| progress.connected && progress.received >= last)?;
    ensure!(stream.stop()? == SessionEnd::Asked, "nothing is left");
    ensure!(live.covered(live.branch())? >= last, "{last} is not there");
    live.holds(live.branch(), last)
}

#[test]
fn a_store_that_takes_longer_than_the_ship_interval_gets_larger_tails_and_not_more_and_more_of_them() -> Result<()> {
    let mut live = Live::start(cluster())?;
    live.timing.ship_interval = Duration::from_millis(10);
    live.timing.put_limit = Duration::from_secs(3600);
    let stream = live.stream()?;
    stream.until("a connection", |progress| progress.connected)?;
    live.settle()?;
    let below = format!("{}/tail/", live.repository.cluster());
    let before = live.store.history().len();
    live.store.plan_below(&below, Call::Put, 1..=9999, Effect::Hang);
    let load = Workload::start(&live.cluster, 2)?;
    // Far more than that many intervals, each with something to ship.
    load.goes_on(1000, PATIENCE)?;
    let last = load.stop()?.last().context("there are commits")?.after;
    stream.until("the commits to be received", |progress| progress.received >= last)?;
    let calls = live.store.history();
    let puts = calls[before..].iter().filter(|(call, key)| *call == Call::Put && key.starts_with(&below)).count();
    ensure!((2..=9).contains(&puts), "{puts} tails were put");
    stream.kill();
    live.store.heal();
    let stream = live.stream()?;
    let flushed = live.settle()?;
    stream.stop()?;
    live.holds(live.branch(), flushed)
}

#[test]
fn what_was_received_is_shipped_although_the_server_is_gone() -> Result<()> {
    let mut live = Live::start(cluster())?;
    live.timing.ship_interval = Duration::from_secs(30);
    let stream = live.stream()?;
    live.cluster.sql("create table orders as select 1 as id")?;
    let flushed = live.cluster.flush_lsn()?;
    stream.until("the commit to be received", |progress| progress.received >= flushed)?;
    ensure!(live.covered(live.branch())? < flushed, "the tail is not due yet");
    live.cluster.crash()?;
    eventually("the commit to be durable", Duration::from_secs(10), || {
        Ok((live.covered(live.branch())? >= flushed).then_some(()))
    })?;
    ensure!(stream.stop()? == SessionEnd::Asked, "nothing is left");
    Ok(())
}

#[test]
fn a_stop_is_heard_while_the_store_does_not_answer() -> Result<()> {
    let live = Live::start(cluster())?;
    live.store.plan(Call::List, 1..=u64::MAX, Effect::Hang);
    let stream = live.stream()?;
    eventually("the first listing", PATIENCE, || Ok((live.store.calls(Call::List) > 0).then_some(())))?;
    ensure!(stream.stop()? == SessionEnd::Asked, "nothing was received");

    // In the middle of a stream it waits for what was received, but not for ever.
    let live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.settle()?;
    live.store.plan(Call::Put, 1..=u64::MAX, Effect::Hang);
    live.fill(1)?;
    let puts = live.store.calls(Call::Put);
    eventually("a put that hangs", PATIENCE, || Ok((live.store.calls(Call::Put) > puts).then_some(())))?;
    let ended = stream.stop()?;
    ensure!(matches!(ended, SessionEnd::AskedWithRest(rest) if rest > 0), "{ended:?}");
    Ok(())
}
