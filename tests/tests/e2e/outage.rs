//! What is said while the store is gone or full.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::port;
use walseal_tests::process::Finished;
use walseal_tests::proxy::{Line, Proxy};
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::told::Told;

use crate::{flow, metrics};

/// Sooner than a store is given up by those who have time.
const SOON: Duration = Duration::from_secs(30);

fn soon(site: &Site, args: &[&str]) -> Result<Finished> {
    site.archiver.call(args).within(SOON).run()
}

/// Every form of `status` shows what the daemon knows, and says why the store was not read.
fn status_speaks(site: &Site, daemon: &Daemon, why: &str) -> Result<()> {
    let pid = format!("pid {}", daemon.pid());
    let shown = soon(site, &["status"])?.exits(1)?;
    for word in ["The repository cannot be read", "If the primary died now", "Proven: not known", &pid, "frontier", why]
    {
        ensure!(shown.stdout.contains(word), "{word:?} is not shown: {shown}");
    }
    ensure!(shown.stderr.contains(why), "the reason is an error, too: {shown}");

    let json = soon(site, &["status", "--json"])?.exits(1)?.json()?;
    for field in ["cluster", "branches", "bases"] {
        ensure!(json.get(field).is_some_and(serde_json::Value::is_null), "{field} is not known: {json}");
    }
    ensure!(json["daemon_pid"] == daemon.pid() && json["stream"]["frontier"].is_string(), "{json}");
    ensure!(json["error"].as_str().is_some_and(|error| error.contains(why)), "{json}");

    let line = soon(site, &["status", "--check"])?.exits(2)?;
    ensure!(line.stdout.lines().count() == 1 && line.stdout.contains(why), "{line}");
    Ok(())
}

#[test]
fn status_shows_what_the_daemon_knows_when_the_folder_is_gone() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let folder = site.scratch.path().join("repository");
    let aside = site.scratch.path().join("unmounted");
    std::fs::rename(&folder, &aside)?;
    status_speaks(&site, &daemon, "does not exist; is its file system mounted?")?;
    std::fs::rename(&aside, &folder)?;
    site.archiver.run(&["status"])?.success()?;
    // Without a daemon and without a store there is nothing left to know, which is said.
    daemon.sigterm()?.success()?;
    std::fs::rename(&folder, &aside)?;
    let shown = soon(&site, &["status"])?.exits(1)?;
    ensure!(shown.stdout.contains("not running") && shown.stdout.contains("The repository cannot be read"), "{shown}");
    Ok(())
}

#[test]
fn status_shows_what_the_daemon_knows_when_the_bucket_does_not_answer() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    let (proxied, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&proxied);
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    proxy.set(Line::Down);
    status_speaks(&site, &daemon, &proxy.address())?;
    proxy.set(Line::Stalled);
    status_speaks(&site, &daemon, "did not answer within")?;
    // What waits is known to the daemon, with the reason.
    site.cluster.sql("create table t as select 1 as a")?;
    proxy.set(Line::Down);
    let told = daemon.until("the daemon to tell what the store refuses", SOON, || {
        let json = soon(&site, &["status", "--json"])?.json()?;
        Ok(json["stream"]["store_trouble"].as_str().map(str::to_owned))
    })?;
    ensure!(told.contains(&proxy.address()), "{told}");
    proxy.set(Line::Up);
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // Each call that failed tells so until it is made again.
    let json = daemon.until("the end of the trouble", SOON, || {
        let json = site.archiver.run(&["status", "--json"])?.success()?.json()?;
        Ok(json["stream"]["store_trouble"].is_null().then_some(json))
    })?;
    ensure!(json["error"].is_null(), "{json}");
    json["bases"].as_array().context("the repository is read again")?;
    Ok(())
}

/// An installation whose store is reached through a proxy, initialised, and who is told of its alerts after 5 s.
fn proxied() -> Result<(Site, Proxy, Told)> {
    proxied_of(Cluster::builder())
}

/// The same of such a cluster.
fn proxied_of(cluster: ClusterBuilder) -> Result<(Site, Proxy, Told)> {
    let mut site = Site::new(cluster.setting("wal_keep_size", "0"), Store::S3)?;
    let (place, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&place);
    site.archiver.set_text("alerts.store_after", "5s");
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    Ok((site, proxy, told))
}

#[test]
fn i1_a_daemon_that_begins_while_the_store_is_away_waits_for_it_tells_of_it_once_and_then_streams() -> Result<()> {
    const KIND: &str = "store-unreachable";
    const WAITS: &str = "nothing is streamed before it does";
    let (mut site, proxy, told) = proxied()?;
    let port = port::free()?;
    site.archiver.set_text("http.listen", &port.to_string());
    site.archiver.write_config()?;
    proxy.set(Line::Down);
    let mut daemon = site.archiver.daemon(&["run"])?;
    told.arrives(&mut daemon, KIND, &["raised"])?;
    let shown = soon(&site, &["status"])?.exits(1)?;
    let pid = format!("daemon      pid {}, ", daemon.pid());
    for words in [&*pid, "its log says what it waits for", "alert       store-unreachable, critical"] {
        ensure!(shown.stdout.contains(words), "{words:?} is not shown: {shown}");
    }
    let (status, body) = metrics::get(port, "/healthz")?;
    ensure!(
        status == 503 && body.starts_with("not streaming: the store has not answered since the start\nstore: "),
        "{body}"
    );
    let scrape = metrics::scrape(port)?;
    for (sample, value) in [
        ("walseal_streaming", 0.0),
        ("walseal_store_failing", 1.0),
        ("walseal_alerts{kind=\"store-unreachable\"}", 1.0),
    ] {
        ensure!(scrape.of(sample)? == value, "{sample}: {scrape:?}");
    }
    site.cluster.sql("create table written_meanwhile as select 1 as n")?;
    // The next one tells nobody anew, and the end all the same.
    daemon.sigkill()?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    daemon.says(WAITS, PATIENCE)?;
    proxy.set(Line::Up);
    flow::wait_durable(&site.cluster, &mut daemon)?;
    told.arrives(&mut daemon, KIND, &["raised", "cleared"])?;
    assert_eq!(metrics::get(port, "/healthz")?, (200, "ok\n".to_owned()));
    let log = daemon.log();
    for words in ["the store does not answer: ", "the store answers, after "] {
        ensure!(log.matches(words).count() == 1, "{words:?} stands there more or less than once: {log}");
    }
    ensure!(log.contains(&proxy.address()), "nothing says which store: {log}");

    // Nor where the daemon before had told of it while it streamed.
    proxy.set(Line::Down);
    site.cluster.sql("create table written_later as select 1 as n")?;
    told.arrives(&mut daemon, KIND, &["raised", "cleared", "raised"])?;
    daemon.sigkill()?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    daemon.says(WAITS, PATIENCE)?;
    proxy.set(Line::Up);
    flow::wait_durable(&site.cluster, &mut daemon)?;
    told.arrives(&mut daemon, KIND, &["raised", "cleared", "raised", "cleared"])?;
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn i1_a_daemon_that_begins_while_the_store_is_silent_waits_for_it_and_stops_when_it_is_asked() -> Result<()> {
    let (site, proxy, _) = proxied()?;
    proxy.set(Line::Stalled);
    let mut daemon = site.archiver.daemon(&["run"])?;
    daemon.says("nothing is streamed before it does", PATIENCE)?;
    let stopped = daemon.sigterm()?.success()?;
    ensure!(stopped.stderr.contains("SIGTERM: stopping; the store has not answered since the start"), "{stopped}");
    Ok(())
}

#[test]
fn case_26_a_daemon_that_begins_while_the_store_is_away_tells_of_the_backlog_and_keeps_to_give_up_at() -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).setting("min_wal_size", "2MB").setting("max_wal_size", "4MB");
    let (mut site, proxy, told) = proxied_of(cluster)?;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.archiver.set_text("alerts.backlog", "4MiB");
    site.archiver.set_text("wal.give_up_at", "32MiB");
    site.archiver.write_config()?;
    proxy.set(Line::Down);
    let slots = "select count(*) from pg_replication_slots";
    let write = |mebibytes: u32| {
        site.cluster.sql(&format!(
            "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, {mebibytes}) g"
        ))
    };
    write(12)?;
    // As after a reboot: nothing but what the daemon before left behind says which cluster it is.
    let mut daemon = site.archiver.daemon(&["run"])?;
    told.arrives(&mut daemon, "backlog", &["raised"])?;
    ensure!(site.cluster.value(slots)? == "1", "within the limit it is kept");
    ensure!(told.states("slot-lost")?.is_empty(), "{:?}", told.news()?);
    write(30)?;
    told.arrives(&mut daemon, "slot-lost", &["raised"])?;
    assert_eq!(site.cluster.value(slots)?, "0", "no slot is made for a store that is away");
    // Nothing holds WAL any more.
    for _ in 0..5 {
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql("checkpoint")?;
    }

    proxy.set(Line::Up);
    let count = |part: &str| -> Result<usize> {
        Ok(site.place.list()?.iter().filter(|object| object.key.contains(part)).count())
    };
    daemon.until("the record of the gap", PATIENCE * 2, || Ok((count("/gap/")? == 1).then_some(())))?;
    daemon.until("the base backup behind it", PATIENCE, || Ok((count("/label")? == 2).then_some(())))?;
    told.arrives(&mut daemon, "slot-lost", &["raised", "cleared"])?;
    told.arrives(&mut daemon, "backlog", &["raised", "cleared"])?;
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let why = listed["gaps"][0]["record"]["why"].as_str().context("a reason")?;
    ensure!(why.contains("wal.give_up_at = 32 MiB"), "{listed}");
    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let acts = ledger["entries"].as_array().context("entries")?;
    ensure!(acts.iter().any(|entry| entry["act"] == "slot-dropped"), "{ledger}");
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn i11_while_the_store_is_away_the_slot_holds_the_wal_memory_stays_bounded_and_then_all_of_it_is_shipped() -> Result<()>
{
    // Much more than any buffer may hold.
    const BACKLOG: u64 = 192;
    let cluster = Cluster::builder().setting("wal_keep_size", "0").setting("max_wal_size", "100MB");
    let mut site = Site::new(cluster, Store::S3)?;
    let (proxied, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&proxied);
    site.archiver.set_text("wal.stall_limit", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let begin = flow::wait_durable(&site.cluster, &mut daemon)?;
    for line in [Line::Stalled, Line::Down] {
        proxy.set(line);
        let sql = format!(
            "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, {}) g; checkpoint",
            BACKLOG / 2
        );
        site.cluster.session()?.rows(&sql)?;
        // It has read what it may by the time that it gives its connection up.
        daemon.says("no stream; trying again", PATIENCE * 2)?;
    }
    let kept = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    ensure!(kept < begin.advance(BACKLOG << 19), "the store was away, and {kept} was confirmed");
    proxy.set(Line::Up);
    let reached = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(reached >= begin.advance(BACKLOG << 20), "{begin} to {reached} is not what was written");
    let peak = daemon.peak_kib()?;
    ensure!(peak < 128 << 10, "{peak} KiB at the most for a backlog of {BACKLOG} MiB");
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn i11_a_stall_longer_than_wal_sender_timeout_costs_neither_the_connection_nor_memory() -> Result<()> {
    // Half of it is what a server waits before it asks.
    const TIMEOUTS: &str = "interval '12 seconds'";
    let cluster = Cluster::builder().setting("wal_sender_timeout", "4s").setting("wal_keep_size", "0");
    let mut site = Site::new(cluster, Store::S3)?;
    let (proxied, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&proxied);
    // Here the buffer may be full for as long as the store stalls.
    site.archiver.set_text("wal.stall_limit", "1h");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let begin = flow::wait_durable(&site.cluster, &mut daemon)?;
    let session = site.cluster.session()?;
    let sender = "select string_agg(pid::text, ' ') from pg_stat_replication";
    let pid = session.value(sender)?;
    proxy.set(Line::Stalled);
    let sql =
        "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, 192) g";
    session.rows(sql)?;
    let burst = session.value("select clock_timestamp()")?;
    let heard = format!(
        "select count(*) from pg_stat_replication where pid = {pid} and reply_time > '{burst}'::timestamptz + {TIMEOUTS}"
    );
    daemon.until("the server to hear of it three timeouts later", PATIENCE, || {
        let now = session.value(sender)?;
        ensure!(now == pid, "the connection of walsender {pid} was lost; there is {now:?}");
        Ok((session.value(&heard)? == "1").then_some(()))
    })?;
    let status = soon(&site, &["status", "--json"])?.json()?;
    let received: Lsn = status["stream"]["received"].as_str().context("a stream that has received")?.parse()?;
    ensure!(received < begin.advance(96 << 20), "{begin} to {received} is in memory: nothing pressed back");
    let kept = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    ensure!(kept <= received, "{received} was received, and {kept} was confirmed");
    proxy.set(Line::Up);
    let reached = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(reached >= begin.advance(192 << 20), "{begin} to {reached} is not what was written");
    assert_eq!(session.value(sender)?, pid, "it is the same connection to the end");
    let peak = daemon.peak_kib()?;
    ensure!(peak < 128 << 10, "{peak} KiB at the most");
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn init_says_at_once_what_keeps_it_waiting_and_gives_up_soon() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    let nobody = format!("127.0.0.1:{}", walseal_tests::port::free()?);
    site.archiver.set_text("repository.s3.endpoint", &format!("http://{nobody}"));
    site.archiver.write_config()?;
    let refused = soon(&site, &["init"])?.exits(1)?;
    ensure!(refused.stdout.contains("store    s3://"), "it shows what it looks at: {refused}");
    let (waiting, failed) = refused.stderr.split_once("\nerror: ").context("an error")?;
    ensure!(waiting.contains("trying again") && waiting.contains(&nobody), "it says why it waits: {refused}");
    ensure!(failed.contains("attempts in") && failed.contains("to fix:"), "{refused}");
    Ok(())
}
