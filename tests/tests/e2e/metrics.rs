//! `/metrics` and `/healthz` of a real daemon, as a monitor reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::port;
use walseal_tests::site::{Site, Store};

use crate::flow;

fn site(port: u16) -> Result<Site> {
    let mut site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    site.archiver.set_text("http.listen", &port.to_string());
    site.archiver.write_config()?;
    Ok(site)
}

/// Status and body.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    Ok((head.split(' ').nth(1).context("a status")?.parse()?, body.to_owned()))
}

/// A page of metrics by the rules of the format: names with their types, and samples by name and labels.
#[derive(Debug, Default)]
pub struct Scrape {
    pub types: BTreeMap<String, String>,
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn parse(text: &str) -> Result<Scrape> {
        ensure!(text.ends_with('\n'), "the last line ends");
        let mut scrape = Scrape::default();
        let mut current = String::new();
        for line in text.lines() {
            let wrong = || format!("a wrong line: {line}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').with_context(wrong)?;
                ensure!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !help.is_empty(), wrong());
                ensure!(!scrape.types.contains_key(name), "{name} comes twice");
                current = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').with_context(wrong)?;
                ensure!(name == current && ["gauge", "counter", "histogram"].contains(&kind), wrong());
                ensure!((kind == "counter") == name.ends_with("_total"), "counters end in _total: {line}");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (sample, value) = line.rsplit_once(' ').with_context(wrong)?;
                let name = sample.split('{').next().unwrap_or_default();
                let of_histogram =
                    ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(&current));
                let histogram = scrape.types.get(&current).is_some_and(|kind| kind == "histogram");
                ensure!(if histogram { of_histogram } else { name == current }, "{name} stands below {current}");
                ensure!(scrape.samples.insert(sample.to_owned(), value.parse()?).is_none(), "twice: {line}");
            }
        }
        Ok(scrape)
    }

    pub fn of(&self, sample: &str) -> Result<f64> {
        self.samples.get(sample).copied().with_context(|| format!("{sample} is not there: {self:?}"))
    }
}

pub fn scrape(port: u16) -> Result<Scrape> {
    let (status, text) = get(port, "/metrics")?;
    ensure!(status == 200, "{text}");
    Scrape::parse(&text).with_context(|| text.clone())
}

/// The heading below which the restorer's figures stand; above it are the archiver's.
const OF_THE_RESTORER: &str = "## walseal-restorer run";

/// The heading below which, up to the restorer's, those of an archiver stand that only dumps.
const OF_SNAPSHOTS: &str = "## walseal-archiver run with `wal.enabled = false`";

/// Names and types, as documented.
fn documented() -> BTreeMap<String, String> {
    rows(include_str!("../../../docs/METRICS.md").split(OF_SNAPSHOTS).next().unwrap_or_default())
}

/// Likewise of the daemon that only dumps, without what every daemon shows.
pub fn documented_of_snapshots() -> BTreeMap<String, String> {
    let page = include_str!("../../../docs/METRICS.md").split(OF_THE_RESTORER).next().unwrap_or_default();
    rows(page.split(OF_SNAPSHOTS).nth(1).unwrap_or_default())
}

/// Likewise of the daemon that drills.
pub fn documented_of_drills() -> BTreeMap<String, String> {
    rows(include_str!("../../../docs/METRICS.md").split(OF_THE_RESTORER).nth(1).unwrap_or_default())
}

fn rows(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `walseal_"));
    rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | ")?;
        Some((format!("walseal_{name}"), rest.split(" |").next()?.to_owned()))
    })
    .collect()
}

#[test]
fn every_metric_is_documented_and_says_what_is_so() -> Result<()> {
    let port = port::free()?;
    let site = site(port)?;
    let mut daemon = site.archive()?;
    let lone = scrape(port)?;
    assert_eq!(lone.types, documented());
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 8000) g")?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.until("the figures of the backup", PATIENCE, || {
        let scrape = scrape(port)?;
        Ok((scrape.samples.get("walseal_base_backups") == Some(&1.0)).then_some(()))
    })?;
    let now = scrape(port)?;
    assert_eq!(now.types, documented(), "names do not come and go");
    ensure!(now.of("walseal_streaming")? == 1.0 && now.of("walseal_store_failing")? == 0.0, "{now:?}");
    let frontier = now.of("walseal_wal_frontier_position_bytes")?;
    ensure!(frontier > 0.0 && frontier <= now.of("walseal_wal_server_position_bytes")?, "{now:?}");
    for positive in [
        "walseal_wal_shipped_pieces_total",
        "walseal_wal_shipped_bytes_total",
        "walseal_base_backup_last_cluster_bytes",
        "walseal_base_backup_last_stored_bytes",
        "walseal_base_backup_last_time_seconds",
        "walseal_store_put_bytes_total",
        "walseal_memory_resident_bytes",
        "walseal_wal_memory_limit_bytes",
        r#"walseal_store_requests_total{operation="put"}"#,
    ] {
        ensure!(now.of(positive)? > 0.0, "{positive}: {now:?}");
    }
    let pieces: Vec<f64> = now
        .samples
        .iter()
        .filter(|(name, _)| name.starts_with("walseal_store_put_duration_seconds_bucket"))
        .map(|(_, value)| *value)
        .collect();
    let count = now.of("walseal_store_put_duration_seconds_count")?;
    ensure!(pieces.iter().all(|value| *value <= count) && pieces.contains(&count), "{now:?}");
    ensure!(now.samples.iter().filter(|(name, _)| name.starts_with("walseal_alerts{")).all(|(_, value)| *value == 0.0));
    daemon.until("the base backup to count for the objectives", PATIENCE, || {
        let share = scrape(port)?.samples.get("walseal_objective_backups_ratio").copied();
        Ok((share == Some(1.0)).then_some(()))
    })?;
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    let (kept, one) = (&status["objectives"], serde_json::json!({ "good": 1, "all": 1, "share": 1.0 }));
    ensure!(kept["backups"] == one && kept["drills"]["share"].is_null(), "{kept}");
    let shown = site.archiver.run(&["status"])?;
    ensure!(shown.stdout.contains("last 30 d   ") && shown.stdout.contains("1 of 1 base backups"), "{shown}");
    daemon.until("the slot's WAL to be seen", PATIENCE, || {
        Ok(scrape(port)?.samples.contains_key("walseal_wal_retained_bytes").then_some(()))
    })?;
    Ok(())
}

#[test]
fn healthz_says_why_it_is_not_well() -> Result<()> {
    let port = port::free()?;
    let mut site = site(port)?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(get(port, "/healthz")?, (200, "ok\n".to_owned()));
    assert_eq!(get(port, "/")?.0, 404);
    let (folder, aside) = (site.scratch.path().join("repository"), site.scratch.path().join("unmounted"));
    std::fs::rename(&folder, &aside)?;
    let sick = |words: &[&str]| -> Result<Option<()>> {
        let (status, body) = get(port, "/healthz")?;
        Ok((status == 503 && words.iter().all(|word| body.lines().any(|line| line.starts_with(word)))).then_some(()))
    };
    daemon.until("the store to be missed", PATIENCE, || sick(&["store: "]))?;
    site.cluster.stop(walseal_tests::cluster::Stop::Immediate)?;
    daemon.until("both to be missed", PATIENCE, || sick(&["not streaming: ", "store: "]))?;
    std::fs::rename(&aside, &folder)?;
    site.cluster.start()?;
    daemon.until("all to be well", PATIENCE, || Ok((get(port, "/healthz")?.0 == 200).then_some(())))?;
    let names: BTreeSet<String> = scrape(port)?.types.into_keys().collect();
    assert_eq!(names, documented().into_keys().collect());
    Ok(())
}

#[test]
fn an_address_that_is_taken_stops_the_daemon_with_its_name() -> Result<()> {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = taken.local_addr()?.port();
    let site = site(port)?;
    site.archiver.run(&["init"])?.success()?;
    let refused = site.archiver.run(&["run"])?.exits(1)?;
    ensure!(refused.stderr.contains("http.listen") && refused.stderr.contains(&port.to_string()), "{refused}");
    Ok(())
}

#[test]
fn snapshots_beside_the_stream_are_measured_as_well() -> Result<()> {
    let port = port::free()?;
    let mut site = site(port)?;
    site.archiver.set_text("snapshot.interval", "1h");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    daemon.says("took a snapshot", PATIENCE * 2)?;
    daemon.until("the figures of the snapshot", PATIENCE, || {
        let scrape = scrape(port)?;
        Ok((scrape.of("walseal_snapshots_taken_total")? == 1.0).then_some(()))
    })?;
    let seen = scrape(port)?;
    let both: BTreeMap<_, _> = documented().into_iter().chain(documented_of_snapshots()).collect();
    assert_eq!(seen.types, both);
    ensure!(seen.of("walseal_snapshot_last_dump_bytes")? > 0.0 && seen.of("walseal_snapshot_last_seconds")? > 0.0);
    ensure!(seen.of("walseal_snapshot_failures_total")? == 0.0 && seen.of("walseal_streaming")? == 1.0);
    daemon.sigterm()?.success()?;
    Ok(())
}
