//! What would be lost with a real server, told by its own commits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use walseal_common::store::fault::{Call, Effect};

use super::live::{Live, cluster};
use crate::stream::Loss;

const NOTHING: Loss = Loss { time: Duration::ZERO, at_most: false };

#[test]
fn what_would_be_lost_begins_with_the_first_commit_that_the_store_did_not_take() -> Result<()> {
    let mut live = Live::start(cluster().setting("track_commit_timestamp", "on"))?;
    live.timing.put_limit = Duration::from_secs(600);
    let stream = live.stream()?;
    live.cluster.sql("create table orders (id int)")?;
    live.settle()?;
    stream.until("nothing to lose", |now| now.loss(Timestamp::now()) == Some(NOTHING))?;

    // The store takes nothing any more. WAL that nobody committed is no loss.
    live.store.plan(Call::Put, 1..=u64::MAX, Effect::Hang);
    live.fill(1)?;
    live.cluster.sql("checkpoint")?;
    let flushed = live.cluster.flush_lsn()?;
    let idle = stream.until("the checkpoint to be read", |now| {
        now.received >= flushed && now.frontier < flushed && now.loss(Timestamp::now()) == Some(NOTHING)
    });
    // The message of `fill` has no transaction, the statement around it no commit record.
    let idle = idle?;
    ensure!(idle.behind_since.is_some(), "bytes wait, none of them committed: {idle:?}");

    let xid = live.cluster.value("insert into orders values (1) returning pg_current_xact_id()")?;
    live.cluster.sql("insert into orders values (2)")?;
    let committed = live.cluster.value(&format!(
        "select to_char(pg_xact_commit_timestamp('{xid}'::xid) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ))?;
    let committed: Timestamp = committed.parse().context("a commit's time")?;
    let exposed = stream.until("the commits to be read", |now| now.exposed_since.is_some())?;
    let flushed = live.cluster.flush_lsn()?;
    let exposed = stream
        .until("all of it to be read", |now| now.received >= flushed)
        .map(|now| now.exposed_since.or(exposed.exposed_since))?;
    ensure!(exposed == Some(committed), "{exposed:?} is not when the first of them committed, {committed}");

    live.store.heal();
    drop(stream);
    let stream = live.stream()?;
    live.settle()?;
    stream.until("nothing to lose again", |now| now.loss(Timestamp::now()) == Some(NOTHING))?;
    stream.stop().map(|_| ())
}
