//! `restore_command`: what it delivers, and what its exit codes say (case 1).

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::process::Finished;
use walseal_tests::site::{Daemon, Site, Store};

use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentName;
use walseal_common::timeline::TimelineId;

use crate::flow;

/// A site with several whole segments and a tail in its repository.
struct Stocked {
    site: Site,
    daemon: Daemon,
    from: Lsn,
    until: Lsn,
}

impl Stocked {
    fn new() -> Result<Stocked> {
        let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
        // Short retries: what is away stays away in these tests.
        site.restorer.set_text("fetch.retry", "2s");
        site.restorer.set_text("fetch.retry_standby", "1s");
        site.restorer.write_config()?;
        site.archiver.run(&["init"])?.success()?;
        let from = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
        let mut daemon = site.archiver.daemon(&["run"])?;
        site.cluster.sql("create table t as select g, md5(g::text) from generate_series(1, 60000) g")?;
        let until = flow::wait_durable(&site.cluster, &mut daemon)?;
        Ok(Stocked { site, daemon, from, until })
    }

    /// The name of the segment that lies `after` segments behind the first.
    fn name(&self, after: u64) -> Result<String> {
        let size = self.site.cluster.segment_size()?;
        let lsn = self.from.advance(after * size.bytes());
        Ok(SegmentName::new(TimelineId::FIRST, size.number(lsn), size).to_string())
    }

    fn fetch(&self, name: &str) -> Result<Finished> {
        let to = self.site.scratch.path().join("fetched");
        let finished = self.site.restorer.run(&["fetch", name, &to.to_string_lossy()])?;
        ensure!(finished.code == Some(0) || !to.exists(), "a fetch that failed left a file: {finished}");
        Ok(finished)
    }

    /// Keys of the objects of one segment.
    fn objects(&self, name: &str) -> Result<Vec<String>> {
        let objects = self.site.place.list()?;
        Ok(objects.into_iter().map(|object| object.key).filter(|key| key.contains(name)).collect())
    }
}

/// PostgreSQL takes 1 to 125 for "no such file"; above, recovery stops.
fn stops_recovery(finished: &Finished) -> Result<()> {
    ensure!(finished.code.is_some_and(|code| code > 125), "recovery would go on: {finished}");
    ensure!(!finished.stderr.trim().is_empty(), "it says why: {finished}");
    Ok(())
}

#[test]
fn case_03_segments_come_back_whole_and_the_last_one_is_filled_with_zeroes() -> Result<()> {
    let stocked = Stocked::new()?;
    flow::fetch_agrees_with_the_server(&stocked.site, stocked.from, stocked.until)?;
    let size = stocked.site.cluster.segment_size()?;
    let name = SegmentName::new(TimelineId::FIRST, size.number(stocked.until), size).to_string();
    stocked.daemon.sigterm()?.success()?;
    let confirmed = flow::confirmed(&stocked.site.cluster)?.context("the slot is there")?;
    assert_eq!(size.number(confirmed), size.number(stocked.until), "the last segment is still open");
    let to = stocked.site.scratch.path().join("last");
    stocked.site.restorer.run(&["fetch", &name, &to.to_string_lossy()])?.success()?;
    let bytes = std::fs::read(&to)?;
    let end = usize::try_from(size.offset(confirmed))?;
    ensure!(bytes[end..].iter().all(|byte| *byte == 0), "what lies behind the tail is zero");
    // PostgreSQL asks for the last segment twice.
    stocked.site.restorer.run(&["fetch", &name, &to.to_string_lossy()])?.success()?;
    ensure!(std::fs::read(&to)?[..end] == bytes[..end], "the second answer is the same or longer");
    Ok(())
}

#[test]
fn case_01_what_lies_beyond_everything_known_is_the_end_of_wal() -> Result<()> {
    let stocked = Stocked::new()?;
    stocked.fetch(&stocked.name(1000)?)?.exits(1)?;
    stocked.fetch("00000002.history")?.exits(1)?;
    Ok(())
}

#[test]
fn i6_a_hole_is_not_the_end_of_wal() -> Result<()> {
    let stocked = Stocked::new()?;
    let name = stocked.name(1)?;
    let objects = stocked.objects(&name)?;
    ensure!(!objects.is_empty(), "segment {name} is in the repository");
    for key in objects {
        stocked.site.place.remove(&key)?;
    }
    stops_recovery(&stocked.fetch(&name)?)
}

#[test]
fn i6_a_flipped_byte_is_not_the_end_of_wal() -> Result<()> {
    let stocked = Stocked::new()?;
    let name = stocked.name(1)?;
    for key in stocked.objects(&name)? {
        let mut bytes = stocked.site.place.read(&stocked.site.scratch, &key)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        stocked.site.place.write(&stocked.site.scratch, &key, &bytes)?;
    }
    stops_recovery(&stocked.fetch(&name)?)
}

#[test]
fn i6_a_folder_that_is_not_mounted_is_not_the_end_of_wal() -> Result<()> {
    let stocked = Stocked::new()?;
    let name = stocked.name(1)?;
    let repository = stocked.site.scratch.path().join("repository");
    std::fs::rename(&repository, stocked.site.scratch.path().join("away"))?;
    stops_recovery(&stocked.fetch(&name)?)?;
    std::fs::create_dir(&repository)?;
    stocked.site.scratch.account().own(&repository)?;
    stops_recovery(&stocked.fetch(&name)?)
}

#[test]
fn i6_a_wrong_identity_or_an_untrusted_writer_is_not_the_end_of_wal() -> Result<()> {
    let mut stocked = Stocked::new()?;
    let name = stocked.name(1)?;
    let writer = stocked.site.archiver.keygen("another-writer.key")?;
    let known = stocked.site.restorer.clone();
    stocked.site.restorer.set("keys.trusted_writers", &format!("[\"{writer}\"]"));
    stocked.site.restorer.write_config()?;
    stops_recovery(&stocked.fetch(&name)?)?;

    stocked.site.restorer = known;
    let recipient = stocked.site.restorer.keygen("another-identity.key")?;
    ensure!(recipient.starts_with("walseal1"), "{recipient}");
    let identity = stocked.site.restorer.folder().join("another-identity.key");
    stocked.site.restorer.set("keys.identity_files", &format!("[{:?}]", identity.to_string_lossy()));
    stocked.site.restorer.write_config()?;
    stops_recovery(&stocked.fetch(&name)?)
}
