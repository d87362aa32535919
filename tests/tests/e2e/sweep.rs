//! SIGKILL of the archiver upon each n-th object that appears in the repository, again and again.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::workload::Workload;

use crate::{flow, restored};

/// Objects that a life may see land. Small numbers meet resuming, comparing and the first tails; large ones the middle of
/// segments, coalesced tails and whole segments overtaking tails.
const LIVES: [usize; 24] = [1, 2, 1, 3, 1, 5, 2, 8, 1, 13, 4, 1, 21, 1, 1, 34, 6, 2, 1, 55, 3, 1, 9, 1];

/// The names of everything below `wal/` and `tail/`.
fn objects(site: &Site) -> Result<BTreeSet<String>> {
    let is_wal = |key: &str| key.contains("/wal/") || key.contains("/tail/");
    let listed = site.place.list()?;
    Ok(listed.into_iter().map(|object| object.key).filter(|key| is_wal(key)).collect())
}

#[test]
fn i1_nothing_that_was_confirmed_is_missing_after_kills_upon_any_object() -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB").setting("wal_sender_timeout", "5s");
    let mut site = Site::new(cluster, Store::Directory)?;
    site.archiver.set_text("wal.ship_interval", "20ms");
    site.archiver.write_config()?;
    let first = site.archive()?;
    let begin = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
    let load = Workload::start(&site.cluster, 3)?;
    load.reaches(10, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    first.sigkill()?;

    let mut confirmed = begin;
    let mut before = objects(&site)?;
    for (life, wanted) in LIVES.into_iter().enumerate() {
        let mut daemon = site.archiver.daemon(&["run"])?;
        if life % 3 == 0 {
            // Whole segments among the tails.
            fill(&site.cluster)?;
        }
        daemon.until(&format!("{wanted} objects in life {life}"), PATIENCE, || {
            Ok((objects(&site)?.len() >= before.len() + wanted).then_some(()))
        })?;
        daemon.sigkill()?;
        let now = flow::confirmed(&site.cluster)?.context("the slot is there")?;
        ensure!(now >= confirmed, "the slot moved back from {confirmed} to {now} in life {life}");
        let after = objects(&site)?;
        let held = flow::held(&site, begin)?;
        ensure!(held >= now, "{now} was confirmed in life {life}, and the repository ends at {held}");
        ensure!(before.is_subset(&after), "an object of an earlier life is gone after life {life}");
        if life % 5 == 4 {
            // Whatever overtook what: were the server lost as well by now, everything confirmed could be had.
            let plan = site.restorer.run_long(&["plan", "--to", "latest", "--json"])?.success()?.json()?;
            let known: Lsn = plan["path"][0]["to"].as_str().context("a plan says how far it leads")?.parse()?;
            ensure!(known >= now, "{now} was confirmed in life {life}, and a restore would end at {known}");
        }
        (confirmed, before) = (now, after);
    }
    // Once an archiver may run, everything is whole, down to the bytes.
    let mut daemon: Daemon = site.archiver.daemon(&["run"])?;
    let reached = flow::wait_durable(&site.cluster, &mut daemon)?;
    flow::fetch_agrees_with_the_server(&site, begin, reached)?;

    // The server and its archiver are lost at the same moment.
    fill(&site.cluster)?;
    ensure!(daemon.is_running()?, "the archiver ended by itself:\n{}", daemon.log());
    let confirmed: Lsn = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    daemon.sigkill()?;
    site.cluster.stop(Stop::Immediate)?;
    let commits = load.cut_off()?;
    site.cluster.destroy()?;
    // Puts that had overtaken others lie behind a hole. Nothing of it was ever confirmed, and so it is no reason to refuse.
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_all_until(&restored, &commits, confirmed)
}

fn fill(cluster: &Cluster) -> Result<()> {
    let sql =
        "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, 4) g";
    cluster.sql(sql).map(|_| ())
}
