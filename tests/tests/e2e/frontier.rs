//! What the archiver writes down beside the WAL: how far it was durable, and pages that say what many segments hold.

use anyhow::{Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::repository::ObjectName;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};

use crate::flow;

/// Names of the repository's objects.
fn names(site: &Site) -> Result<Vec<ObjectName>> {
    let objects = site.place.list()?;
    let named = objects.iter().filter_map(|object| object.key.split_once('/')?.1.parse().ok());
    Ok(named.collect())
}

#[test]
fn case_01_a_signed_frontier_tells_how_fresh_a_repository_is_and_what_was_cut_off() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.set_text("wal.frontier_interval", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table orders as select 42 as id")?;
    let durable = flow::wait_durable(&site.cluster, &mut daemon)?;
    let fresh = daemon.until("the frontier to be written down", PATIENCE, || {
        let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
        let frontier = listed["fresh"]["frontier"].as_str().map(str::parse::<Lsn>).transpose()?;
        Ok(frontier.filter(|frontier| *frontier >= durable))
    })?;
    let said = site.restorer.run(&["list"])?.success()?;
    ensure!(said.text().contains(&format!("WAL was durable up to {fresh} on timeline 1")), "{}", said.text());
    site.restorer.run(&["plan", "--to", "latest"])?.success()?;
    daemon.sigterm()?.success()?;

    // Somebody cuts off the newest end: nothing is left beyond it that would show a hole.
    let id = site.cluster.system_identifier()?;
    let newest = |name: &ObjectName| matches!(name, ObjectName::Tail(_, _, range) if range.end >= fresh);
    let removed: Vec<ObjectName> = names(&site)?.into_iter().filter(newest).collect();
    ensure!(!removed.is_empty(), "tails reach to what was written down as durable");
    for name in removed {
        site.place.remove(&format!("{id}/{name}"))?;
    }
    let refused = site.restorer.run(&["plan", "--to", "latest"])?.exits(1)?;
    ensure!(refused.stderr.contains("says that WAL was durable up to"), "{}", refused.stderr);

    // The server still has it.
    let mut daemon = site.start_daemon()?;
    daemon.says("objects were removed", PATIENCE)?;
    daemon.until("the end to be there again", PATIENCE, || {
        let planned = site.restorer.run(&["plan", "--to", "latest"])?;
        Ok((planned.code == Some(0)).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_run_of_256_segments_ends_in_a_page_and_one_that_is_missing_is_made_at_the_next_start() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql(
        "do $$ begin for i in 1..530 loop perform pg_logical_emit_message(false, 'x', i::text); perform pg_switch_wal(); end loop; \
         end $$",
    )?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let page = |names: Vec<ObjectName>| names.into_iter().find(|name| matches!(name, ObjectName::Catalog(..)));
    let name = daemon.until("a page", PATIENCE, || Ok(page(names(&site)?)))?;
    daemon.sigterm()?.success()?;
    let key = format!("{}/{name}", site.cluster.system_identifier()?);
    site.place.remove(&key)?;
    let mut daemon = site.start_daemon()?;
    let again = daemon.until("the page again", PATIENCE, || Ok(page(names(&site)?)))?;
    ensure!(again == name, "{again} instead of {name}");
    Ok(())
}
