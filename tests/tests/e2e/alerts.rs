//! Alerts, each from the real fault that causes it: told once, and its end once.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Site, Store};

use crate::flow;

/// A site whose alerts arrive in a file, a document on a line.
fn site(cluster: walseal_tests::settings::ClusterBuilder, settings: &[(&str, &str)]) -> Result<Site> {
    let mut site = Site::new(cluster, Store::Directory)?;
    let folder = site.scratch.dir("told")?;
    site.archiver.set_text("alerts.command", &format!("cat >> '{}/alerts'", folder.display()));
    for (key, value) in settings {
        site.archiver.set_text(key, value);
    }
    site.archiver.write_config()?;
    Ok(site)
}

/// What the command was told until now.
fn told(site: &Site) -> Result<Vec<Value>> {
    let path = site.scratch.path().join("told/alerts");
    let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    // The last line may be half there.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// States of one kind, in order.
fn states(site: &Site, kind: &str) -> Result<Vec<String>> {
    let told = told(site)?;
    let of_kind = told.iter().filter(|news| news["kind"] == kind);
    Ok(of_kind.map(|news| news["state"].as_str().unwrap_or_default().to_owned()).collect())
}

fn arrives(site: &Site, daemon: &mut Daemon, kind: &str, expected: &[&str]) -> Result<()> {
    daemon.until(&format!("{kind} to be told as {expected:?}"), PATIENCE, || {
        let states = states(site, kind)?;
        ensure!(states.len() <= expected.len(), "{kind} was told too often: {states:?}");
        Ok((states == expected).then_some(()))
    })
}

/// Kinds that `status` shows.
fn standing(site: &Site) -> Result<Vec<String>> {
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    let alerts = status["alerts"].as_array().with_context(|| status.to_string())?;
    Ok(alerts.iter().map(|alert| alert["kind"].as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
fn i5_a_lost_slot_and_its_gap_are_told_once_and_so_is_the_base_backup_that_ends_it() -> Result<()> {
    let site = site(Cluster::builder().segment_mib(1).setting("wal_keep_size", "0"), &[])?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    assert_eq!(told(&site)?, Vec::<Value>::new(), "nothing is wrong yet");
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    for id in 0..12 {
        site.cluster.sql(&format!("insert into kept values ({id}); select pg_switch_wal()"))?;
        site.cluster.sql("checkpoint")?;
    }
    let mut daemon = site.start_daemon()?;
    arrives(&site, &mut daemon, "slot-lost", &["raised", "cleared"])?;
    arrives(&site, &mut daemon, "gap", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(standing(&site)?, Vec::<String>::new());
    daemon.sigterm()?.success()?;
    let told = told(&site)?;
    let gap = told.iter().find(|news| news["kind"] == "gap").context("the gap")?;
    ensure!(gap["severity"] == "critical" && gap["cluster"] == "orders" && gap["schema"] == "walseal.alert/1", "{gap}");
    ensure!(gap["text"].as_str().is_some_and(|text| text.contains("no longer on the server: 0/")), "{gap}");
    Ok(())
}

#[test]
fn case_26_a_store_that_is_gone_and_the_wal_that_piles_up_are_told_with_their_end() -> Result<()> {
    let site = site(
        Cluster::builder().segment_mib(1),
        &[("alerts.store_after", "1s"), ("alerts.backlog", "2MiB"), ("wal.stall_limit", "1s")],
    )?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let folder = site.scratch.path().join("repository");
    let aside = site.scratch.path().join("unmounted");
    std::fs::rename(&folder, &aside)?;
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 8000) g")?;
    arrives(&site, &mut daemon, "store-unreachable", &["raised"])?;
    arrives(&site, &mut daemon, "backlog", &["raised"])?;
    let both = standing(&site)?;
    ensure!(both == ["store-unreachable", "backlog"], "{both:?}");
    let shown = site.archiver.run(&["status"])?;
    ensure!(shown.stdout.contains("alert       backlog (walseal_orders), warning, since"), "{shown}");
    let news = told(&site)?;
    let backlog = news.iter().find(|news| news["kind"] == "backlog").context("the backlog")?;
    let text = backlog["text"].as_str().unwrap_or_default();
    for part in ["pg_wal holds ", "because: ", "is its file system mounted?", "of that disk "] {
        ensure!(text.contains(part), "{part:?} is missing: {backlog}");
    }
    std::fs::rename(&aside, &folder)?;
    arrives(&site, &mut daemon, "store-unreachable", &["raised", "cleared"])?;
    arrives(&site, &mut daemon, "backlog", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(standing(&site)?, Vec::<String>::new());
    site.archiver.run(&["status", "--check"])?.exits(0)?;
    Ok(())
}

#[test]
fn case_13_a_star_in_synchronous_standby_names_is_told_until_it_is_gone() -> Result<()> {
    let site = site(Cluster::builder(), &[])?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let set = |names: &str| -> Result<()> {
        site.cluster.sql(&format!("alter system set synchronous_standby_names = '{names}'"))?;
        site.cluster.sql("select pg_reload_conf()").map(|_| ())
    };
    set("*")?;
    arrives(&site, &mut daemon, "synchronous-unasked", &["raised"])?;
    let (code, line) = site.archiver.run(&["status", "--check"]).map(|check| (check.code, check.stdout))?;
    ensure!(code == Some(1) && line.contains("makes this archiver a synchronous standby"), "{line}");
    set("")?;
    arrives(&site, &mut daemon, "synchronous-unasked", &["raised", "cleared"])
}

#[test]
fn an_alert_command_that_fails_is_named_once_and_holds_nothing_up() -> Result<()> {
    let mut site = site(Cluster::builder(), &[])?;
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
