//! The prefetcher that `fetch` starts beside a data directory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentName;
use walseal_common::timeline::TimelineId;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Finished;
use walseal_tests::site::{Site, Store};

use crate::flow;

/// A restored data directory that asks for WAL, and a repository that has a dozen segments of it.
struct Restored {
    site: Site,
    data: PathBuf,
    start: Lsn,
}

impl Restored {
    fn new(store: Store) -> Result<Restored> {
        let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), store)?;
        // What is away stays away in these tests.
        site.restorer.set_text("fetch.retry", "1s");
        site.restorer.write_config()?;
        let mut daemon = site.archive()?;
        site.archiver.run_long(&["backup"])?.success()?;
        site.cluster.sql("create table t as select g, md5(g::text) from generate_series(1, 100000) g")?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        let data = restore(&site, "restored")?;
        let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(companion(&data).join("plan.json"))?)?;
        let start = plan["base"]["start"].as_str().context("a plan has a base")?.parse()?;
        Ok(Restored { site, data, start })
    }

    /// The name of the segment that recovery asks for as the `after`th one behind the first.
    fn name(&self, after: u64) -> Result<String> {
        let size = self.site.cluster.segment_size()?;
        let number = size.number(self.start.advance(after * size.bytes()));
        Ok(SegmentName::new(TimelineId::FIRST, number, size).to_string())
    }

    /// Calls the hook as PostgreSQL does.
    fn fetch(&self, name: &str) -> Result<Finished> {
        let plan = companion(&self.data).join("plan.json");
        let args = ["fetch", "--plan", &plan.to_string_lossy(), name, "pg_wal/RECOVERYXLOG"];
        self.site.restorer.call(&args).current_dir(&self.data).run()
    }

    fn delivers(&self, after: u64) -> Result<Finished> {
        let (name, to) = (self.name(after)?, self.data.join("pg_wal/RECOVERYXLOG"));
        let finished = self.fetch(&name)?.success()?;
        let own = std::fs::read(self.site.cluster.data().join("pg_wal").join(&name))?;
        ensure!(std::fs::read(&to)? == own, "{name} is the server's own");
        std::fs::remove_file(&to)?;
        Ok(finished)
    }

    /// The prefetcher, once it can be asked.
    fn prefetcher(&self) -> Result<Pid> {
        let socket = companion(&self.data).join("fetch.sock");
        eventually("a prefetcher", PATIENCE, || {
            let found = prefetchers(&self.data)?;
            ensure!(found.len() < 2, "there is one for a data directory");
            Ok(found.first().copied().filter(|_| socket.exists()))
        })
    }
}

fn restore(site: &Site, name: &str) -> Result<PathBuf> {
    let data = site.target(name);
    site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &data.to_string_lossy()])?.success()?;
    Ok(data)
}

fn companion(data: &Path) -> PathBuf {
    PathBuf::from(format!("{}.walseal", data.display()))
}

/// Processes that have WAL ready for `data`.
fn prefetchers(data: &Path) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // Processes end while we look.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.contains(&&b"prefetch"[..]) && words.contains(&data.as_os_str().as_encoded_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[test]
fn a_prefetcher_that_is_killed_or_stopped_changes_nothing() -> Result<()> {
    let restored = Restored::new(Store::Directory)?;
    restored.delivers(0)?;
    let first = restored.prefetcher()?;
    restored.delivers(1)?;
    restored.delivers(2)?;
    kill_process(first, Signal::KILL)?;
    restored.delivers(3)?;
    let second =
        eventually("another one", PATIENCE, || Ok(prefetchers(&restored.data)?.into_iter().find(|pid| *pid != first)))?;
    assert_eq!(restored.prefetcher()?, second);
    restored.delivers(4)?;
    // One that does not even end.
    kill_process(second, Signal::STOP)?;
    restored.delivers(5)?;
    kill_process(second, Signal::CONT)?;
    restored.delivers(6)?;
    // The configuration is another one: it goes, although nobody asks.
    restored.site.restorer.write_config()?;
    eventually("it to end", PATIENCE, || Ok((!prefetchers(&restored.data)?.contains(&second)).then_some(())))?;
    ensure!(!companion(&restored.data).join("fetch.ready").exists(), "it takes its files away");
    restored.delivers(7)?;
    Ok(())
}

#[test]
fn i6_a_hole_behind_segments_that_are_ready_stops_recovery() -> Result<()> {
    let restored = Restored::new(Store::Directory)?;
    let name = restored.name(3)?;
    let place = &restored.site.place;
    for object in place.list()?.into_iter().filter(|object| object.key.contains(&name)) {
        place.remove(&object.key)?;
    }
    restored.delivers(0)?;
    restored.prefetcher()?;
    restored.delivers(1)?;
    restored.delivers(2)?;
    for _ in 0..2 {
        let finished = restored.fetch(&name)?.exits(200)?;
        ensure!(finished.stderr.contains("a hole, not the end"), "{finished}");
    }
    restored.delivers(4)?;
    Ok(())
}

#[test]
fn a_folder_that_others_can_use_is_not_used_and_that_is_said() -> Result<()> {
    let restored = Restored::new(Store::Directory)?;
    let folder = companion(&restored.data);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
    for after in 0..3 {
        let finished = restored.delivers(after)?;
        ensure!(finished.stderr.contains("no WAL is fetched ahead"), "{finished}");
    }
    ensure!(prefetchers(&restored.data)?.is_empty() && !folder.join("fetch.sock").exists(), "nobody is there");
    Ok(())
}

#[test]
fn two_recoveries_beside_each_other_are_served_each_by_its_own() -> Result<()> {
    let restored = Restored::new(Store::S3)?;
    let other = restore(&restored.site, "other")?;
    let mut clusters = Vec::new();
    for data in [&restored.data, &other] {
        let mut cluster = restored.site.restored(data)?;
        cluster.start()?;
        clusters.push(cluster);
    }
    for cluster in &clusters {
        cluster.wait_promoted(PATIENCE)?;
        assert_eq!(cluster.value("select count(*) from t")?, "100000");
        ensure!(companion(cluster.data()).join("fetch.log").exists(), "a prefetcher was started");
    }
    Ok(())
}
