//! Alerts, each from the real fault that causes it: told once, and its end once.

mod backups;
mod faults;
mod kinds;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::inbox::Inbox;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Site, Store};
use walseal_tests::tls::Certificates;
use walseal_tests::told::Told;

use crate::flow;

/// A site whose archiver has these settings, and what its alerts tell.
fn site(cluster: ClusterBuilder, settings: &[(&str, &str)]) -> Result<(Site, Told)> {
    let mut site = Site::new(cluster, Store::Directory)?;
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    for (key, value) in settings {
        site.archiver.set_text(key, value);
    }
    site.archiver.write_config()?;
    Ok((site, told))
}

/// Kinds that `status` shows.
fn standing(site: &Site) -> Result<Vec<String>> {
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    let alerts = status["alerts"].as_array().with_context(|| status.to_string())?;
    Ok(alerts.iter().map(|alert| alert["kind"].as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
pub fn i5_a_lost_slot_and_its_gap_are_told_once_and_so_is_the_base_backup_that_ends_it() -> Result<()> {
    let (site, told) = site(Cluster::builder().segment_mib(1).setting("wal_keep_size", "0"), &[])?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    assert_eq!(told.news()?, Vec::<Value>::new(), "nothing is wrong yet");
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    for id in 0..12 {
        site.cluster.sql(&format!("insert into kept values ({id}); select pg_switch_wal()"))?;
        site.cluster.sql("checkpoint")?;
    }
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "slot-lost", &["raised", "cleared"])?;
    told.arrives(&mut daemon, "gap", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(standing(&site)?, Vec::<String>::new());
    daemon.sigterm()?.success()?;
    let gap = told.of("gap")?.into_iter().next().context("the gap")?;
    ensure!(gap["severity"] == "critical" && gap["cluster"] == "orders" && gap["schema"] == "walseal.alert/1", "{gap}");
    ensure!(gap["text"].as_str().is_some_and(|text| text.contains("no longer on the server: 0/")), "{gap}");
    Ok(())
}

#[test]
pub fn case_26_a_store_that_is_gone_and_the_wal_that_piles_up_are_told_with_their_end() -> Result<()> {
    let (site, told) = site(
        Cluster::builder().segment_mib(1),
        &[("alerts.store_after", "1s"), ("alerts.backlog", "2MiB"), ("alerts.rpo", "15s"), ("wal.stall_limit", "1s")],
    )?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let folder = site.scratch.path().join("repository");
    let aside = site.scratch.path().join("unmounted");
    std::fs::rename(&folder, &aside)?;
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 8000) g")?;
    told.arrives(&mut daemon, "store-unreachable", &["raised"])?;
    told.arrives(&mut daemon, "backlog", &["raised"])?;
    told.arrives(&mut daemon, "rpo-exceeded", &["raised"])?;
    let all = standing(&site)?;
    ensure!(all == ["store-unreachable", "backlog", "rpo-exceeded"], "{all:?}");
    let shown = site.archiver.run(&["status"])?;
    ensure!(shown.stdout.contains("alert       backlog (walseal_orders), warning, since"), "{shown}");
    let backlog = told.of("backlog")?.into_iter().next().context("the backlog")?;
    let text = backlog["text"].as_str().unwrap_or_default();
    for part in ["pg_wal holds ", "because: ", "is its file system mounted?", "of that disk "] {
        ensure!(text.contains(part), "{part:?} is missing: {backlog}");
    }
    std::fs::rename(&aside, &folder)?;
    told.arrives(&mut daemon, "store-unreachable", &["raised", "cleared"])?;
    told.arrives(&mut daemon, "backlog", &["raised", "cleared"])?;
    told.arrives(&mut daemon, "rpo-exceeded", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(standing(&site)?, Vec::<String>::new());
    site.archiver.run(&["status", "--check"])?.exits(0)?;
    Ok(())
}

#[test]
pub fn case_13_a_star_in_synchronous_standby_names_is_told_until_it_is_gone() -> Result<()> {
    let (site, told) = site(Cluster::builder(), &[])?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let set = |names: &str| -> Result<()> {
        site.cluster.sql(&format!("alter system set synchronous_standby_names = '{names}'"))?;
        site.cluster.sql("select pg_reload_conf()").map(|_| ())
    };
    set("*")?;
    told.arrives(&mut daemon, "synchronous-unasked", &["raised"])?;
    let (code, line) = site.archiver.run(&["status", "--check"]).map(|check| (check.code, check.stdout))?;
    ensure!(code == Some(1) && line.contains("makes this archiver a synchronous standby"), "{line}");
    set("")?;
    told.arrives(&mut daemon, "synchronous-unasked", &["raised", "cleared"])
}

#[test]
fn an_alert_command_that_fails_is_named_once_and_holds_nothing_up() -> Result<()> {
    let (mut site, _) = site(Cluster::builder(), &[])?;
    site.archiver.set_text("alerts.command", "echo no mail today >&2; exit 7");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    let mut daemon = site.start_daemon()?;
    daemon.says("no mail today", PATIENCE)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let said = daemon.sigterm()?.success()?;
    assert_eq!(said.stderr.matches("no mail today").count(), 1, "{said}");
    Ok(())
}

/// What stands in URLs behind the host.
const TOKEN: &str = "T0KEN-of-acme";

#[test]
pub fn every_receiver_is_told_once_and_says_in_a_test_whether_it_hears() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[])?;
    let none = {
        let mut silent = site.archiver.clone();
        silent.unset("alerts.command");
        silent.write_config()?;
        silent.run(&["alerts", "test"])?.exits(1)?
    };
    ensure!(none.stderr.contains("alerts.mail_to"), "{none}");
    let (inbox, hook, slack) = (Inbox::start()?, format!("/hook/{TOKEN}"), format!("/slack/{TOKEN}"));
    let mails = site.scratch.path().join("told/mails");
    let sendmail = site.scratch.file("sendmail", &format!("#!/bin/sh\ncat >> '{}'\n", mails.display()))?;
    std::fs::set_permissions(&sendmail, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    site.archiver.set_text("alerts.webhook_url", &inbox.url(&hook));
    site.archiver.set_text("alerts.slack_url", &inbox.url(&slack));
    site.archiver.set_text("alerts.sendmail", &sendmail.to_string_lossy());
    site.archiver.set("alerts.mail_to", "[\"ops@example.net\"]");
    site.archiver.write_config()?;

    let tried = site.archiver.run(&["alerts", "test"])?.success()?;
    assert_eq!(tried.stdout.lines().filter(|line| line.starts_with("told ")).count(), 4, "{tried}");
    ensure!(tried.stdout.contains("200") && !format!("{tried}").contains(TOKEN), "{tried}");
    ensure!(inbox.posts(&hook)[0]["kind"] == "test" && told.states("test")? == ["raised"], "{:?}", inbox.posts(&hook));
    inbox.answer(404);
    let refused = site.archiver.run(&["alerts", "test"])?.exits(1)?;
    ensure!(refused.stdout.matches("FAILED").count() == 2 && refused.stdout.contains("404"), "{refused}");
    ensure!(
        refused.stderr.contains("alerts.slack_url (http://127.0.0.1:") && !format!("{refused}").contains(TOKEN),
        "{refused}"
    );
    inbox.answer(200);

    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("alter system set synchronous_standby_names = '*'")?;
    site.cluster.sql("select pg_reload_conf()")?;
    told.arrives(&mut daemon, "synchronous-unasked", &["raised"])?;
    site.cluster.sql("alter system reset synchronous_standby_names")?;
    site.cluster.sql("select pg_reload_conf()")?;
    told.arrives(&mut daemon, "synchronous-unasked", &["raised", "cleared"])?;
    let of_kind = |path: &str, member: &str| {
        let posts = inbox.posts(path).into_iter().filter(|post| post.to_string().contains("synchronous-unasked"));
        posts.map(|post| post[member].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    daemon.until("both posts to each URL", PATIENCE, || {
        let texts = of_kind(&slack, "text");
        ensure!(texts.len() <= 2, "{texts:?}");
        Ok((texts.len() == 2 && of_kind(&hook, "state").len() == 2).then_some(()))
    })?;
    assert_eq!(of_kind(&hook, "state"), ["raised", "cleared"]);
    ensure!(of_kind(&slack, "text")[0].starts_with("*walseal orders: synchronous-unasked raised, warning*\n"));
    let said = daemon.sigterm()?.success()?;
    ensure!(!format!("{said}").contains(TOKEN), "{said}");
    let mails = std::fs::read_to_string(&mails)?;
    for state in ["raised", "cleared"] {
        let subject = format!("Subject: walseal orders: synchronous-unasked {state}, warning");
        assert_eq!(mails.matches(&subject).count(), 1, "{mails}");
    }
    Ok(())
}

#[test]
fn a_webhook_behind_an_authority_of_ones_own_is_told_where_that_is_trusted() -> Result<()> {
    let (mut site, _) = site(Cluster::builder(), &[])?;
    let certificates = Certificates::make(&site.scratch)?;
    let (inbox, hook) = (Inbox::start_tls(&certificates)?, format!("/hook/{TOKEN}"));
    site.archiver.unset("alerts.command");
    site.archiver.set_text("alerts.webhook_url", &inbox.url(&hook));
    site.archiver.write_config()?;
    let trusting =
        |authority: std::path::PathBuf| site.archiver.call(&["alerts", "test"]).env("SSL_CERT_FILE", authority).run();
    let told = trusting(certificates.authority())?.success()?;
    ensure!(inbox.posts(&hook).len() == 1 && inbox.posts(&hook)[0]["kind"] == "test", "{told}");
    let refused = trusting(certificates.stranger())?.exits(1)?;
    ensure!(refused.stdout.contains("no TLS") && !format!("{refused}").contains(TOKEN), "{refused}");
    ensure!(inbox.posts(&hook).len() == 1, "nothing is sent to whom nobody trusts");
    Ok(())
}

#[test]
fn one_recipient_is_told_once() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[])?;
    site.seal_to_one()?;
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    told.arrives(&mut daemon, "one-recipient", &["raised"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(told.states("one-recipient")?, ["raised"]);
    assert_eq!(standing(&site)?, ["one-recipient"]);
    Ok(())
}

#[test]
fn the_heartbeat_names_what_is_durable_and_stops_while_something_is_wrong() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[("alerts.store_after", "1s"), ("wal.frontier_interval", "1s")])?;
    let (inbox, path) = (Inbox::start()?, format!("/{TOKEN}"));
    site.archiver.set_text("alerts.heartbeat_url", &inbox.url(&path));
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let seen = inbox.posts(&path).len();
    let beat = daemon.until("a heartbeat", PATIENCE, || Ok(inbox.posts(&path).get(seen).cloned()))?;
    ensure!(beat["schema"] == "walseal.heartbeat/1" && beat["success"] == "wal-durable", "{beat}");
    let object = beat["witness"]["object"].as_str().context("an object")?;
    ensure!(object.starts_with("frontier/") && beat["witness"]["frontier"].is_string(), "{beat}");
    ensure!(beat["head"]["sequence"].is_u64(), "the ledger has an entry of this daemon: {beat}");

    let folder = site.scratch.path().join("repository");
    let aside = site.scratch.path().join("unmounted");
    std::fs::rename(&folder, &aside)?;
    site.cluster.sql("create table t as select 1")?;
    told.arrives(&mut daemon, "store-unreachable", &["raised"])?;
    let before = inbox.posts(&path).len();
    std::fs::rename(&aside, &folder)?;
    told.arrives(&mut daemon, "store-unreachable", &["raised", "cleared"])?;
    let frontier = |beat: &Value| beat["witness"]["frontier"].as_str().map(str::to_owned);
    // The first one may come before what had waited has arrived.
    daemon.until("a heartbeat that tells of what came in the outage", PATIENCE, || {
        let later = inbox.posts(&path).into_iter().skip(before);
        Ok(later.map(|after| frontier(&after)).find(|after| *after != frontier(&beat)).map(|_| ()))
    })?;
    let said = daemon.sigterm()?.success()?;
    ensure!(!format!("{said}").contains(TOKEN), "{said}");
    Ok(())
}
