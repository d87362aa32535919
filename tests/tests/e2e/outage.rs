//! What is said while the store is gone or full.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::process::Finished;
use walseal_tests::proxy::Line;
use walseal_tests::site::{Daemon, Site, Store};

use crate::flow;

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
    let json = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(json["stream"]["store_trouble"].is_null() && json["error"].is_null(), "{json}");
    json["bases"].as_array().context("the repository is read again")?;
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
