//! What a month costs, as `init` and `prune` tell it, against what another client sees in the bucket.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::site::{Site, Store};

use super::{mark, prune};
use crate::flow;

/// What a GB costs for a month here, and a thousand puts: much, so that small things show.
const STORAGE: f64 = 1000.0;
const PUTS: f64 = 2.0;

/// The days of a month that the documentation of `[cost]` counts with.
const DAYS: f64 = 30.4;

/// The bucket's objects of this cluster, by key.
fn listed(site: &Site) -> Result<BTreeMap<String, u64>> {
    let ours = format!("{}/", site.cluster.system_identifier()?);
    let objects = site.place.list()?.into_iter().filter(|object| object.key.starts_with(&ours));
    Ok(objects.map(|object| (object.key, object.size)).collect())
}

/// The number behind `words`, in a sentence.
fn after(text: &str, words: &str) -> Result<f64> {
    let rest = text.split(words).nth(1).with_context(|| format!("no {words:?} in {text}"))?;
    let number: String = rest.chars().take_while(|one| one.is_ascii_digit() || *one == '.').collect();
    number.parse().with_context(|| format!("a number behind {words:?} in {text}"))
}

fn close(found: f64, expected: f64, within: f64) -> Result<()> {
    ensure!((found - expected).abs() <= within, "{found}, and {expected} was expected, within {within}");
    Ok(())
}

fn figure(document: &Value, name: &str) -> Result<f64> {
    document["month"][name].as_f64().with_context(|| format!("{name} in {document:#}"))
}

#[test]
fn what_a_month_costs_is_told_from_what_lies_in_the_bucket() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "64MB"), Store::S3)?;
    for (key, value) in [("storage", STORAGE), ("puts", PUTS)] {
        site.archiver.set(&format!("cost.{key}"), &value.to_string());
    }
    site.archiver.set_text("cost.currency", "EUR");
    for (key, value) in [("daily", "3"), ("weekly", "1"), ("monthly", "0"), ("min_proven", "0")] {
        site.archiver.set(&format!("retention.{key}"), value);
    }
    site.archiver.set("retention.prune", "false");
    site.archiver.set_text("retention.window", "2d");
    site.archiver.set_text("base.full_every", "1d");
    site.archiver.set_text("wal.ship_interval", "10s");
    site.archiver.write_config()?;

    // Before there is anything: the window's two full backups and the one before it, three days and a week beyond it.
    let size =
        || -> Result<f64> { Ok(site.cluster.value("select sum(pg_database_size(oid)) from pg_database")?.parse()?) };
    let before = size()?;
    let said = site.archiver.run(&["init"])?.success()?.stdout;
    let most = |bytes: f64| 7.0 * bytes / 1e9 * STORAGE;
    close(after(&said, "at most about ")?, most(before), most(size()?) - most(before) + 0.01)?;
    ensure!(said.contains("EUR a month for base backups, 7 full ones of "), "{said}");
    close(after(&said, "uncompressed; ")?, 2.0 * STORAGE, 0.01)?;
    close(after(&said, "and up to ")?, DAYS * 86_400.0 / 10.0 / 1000.0 * PUTS, 0.01)?;

    // What is there, all of it from the last day.
    site.archiver.set_text("wal.ship_interval", "1s");
    for key in ["daily", "weekly"] {
        site.archiver.set(&format!("retention.{key}"), "0");
    }
    site.archiver.set_text("retention.window", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    for _ in 0..3 {
        site.archiver.run_long(&["backup", "--full"])?.success()?;
        mark(&site.cluster)?;
    }
    // Not one of them lies in the window of a second any more, whose begin is rounded down to a whole one.
    site.cluster.sql("select pg_sleep(2.1)")?;
    mark(&site.cluster)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let there = listed(&site)?;
    let dry = prune(&site, &["--dry-run"])?;
    let printed = site.archiver.run_long(&["prune", "--dry-run"])?.success()?.stdout;
    assert_eq!(there, listed(&site)?, "a dry run puts nothing");
    let puts = DAYS * there.len() as f64;
    close(figure(&dry, "put_requests")?, puts, 1.0)?;
    close(figure(&dry, "puts")?, puts / 1000.0 * PUTS, 1e-6)?;

    prune(&site, &["--grace", "0"])?;
    let left = listed(&site)?;
    let stays: u64 = there.iter().filter(|(key, _)| left.contains_key(*key)).map(|(_, size)| size).sum();
    ensure!(stays < there.values().sum(), "something went");
    assert_eq!(dry["month"]["bytes"].as_u64(), Some(stays), "{dry:#}");
    let storage = stays as f64 / 1e9 * STORAGE;
    close(figure(&dry, "storage")?, storage, 1e-6)?;
    assert_eq!(dry["month"]["currency"], "EUR");
    // People read the same, to the cent.
    close(after(&printed, "A month of that is about ")?, storage + puts / 1000.0 * PUTS, 0.005 + 1e-9)?;
    close(after(&printed, " EUR: ")?, storage, 0.005 + 1e-9)?;
    Ok(())
}
