//! SIGKILL of a restore at one moment after another, and the same restore again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};

use crate::restored;

/// Parts of all that is written after which a restore is killed.
const MOMENTS: [u64; 6] = [0, 10, 30, 60, 90, 98];

/// What a folder takes on its disk, in bytes. A file that goes away meanwhile counts as nothing.
fn taken(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let each = entries.flatten().map(|entry| match entry.metadata() {
        Ok(one) if one.is_dir() => taken(&entry.path()) + one.blocks() * 512,
        Ok(one) => one.blocks() * 512,
        Err(_) => 0,
    });
    each.sum()
}

/// Kills a restore as soon as its folder takes so many bytes. Whether it was killed before it ended by itself.
fn cut_off(site: &Site, folder: &Path, bytes: u64) -> Result<bool> {
    let place = folder.to_string_lossy();
    let mut restore = site.restorer.daemon(&["restore", "--to", "latest", "--target-dir", &*place])?;
    let begun = Instant::now();
    // Moments lie close together: it is looked all the time.
    while taken(folder) <= bytes && restore.is_running()? {
        ensure!(begun.elapsed() < PATIENCE * 2, "it has not written {bytes} bytes:\n{}", restore.log());
    }
    if !restore.is_running()? {
        restore.wait(PATIENCE)?.success()?;
        return Ok(false);
    }
    restore.sigkill()?;
    Ok(true)
}

#[test]
fn case_27_a_restore_that_is_killed_at_any_moment_does_not_start_and_goes_on_when_called_again() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create table t (n int primary key, v text)")?;
    site.cluster.sql("insert into t select n, md5(n::text) || md5((n * 7)::text) from generate_series(1, 200000) n")?;
    site.archiver.run(&["init"])?.success()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let dump = restored::dump(&site.cluster)?;
    let whole = site.target("whole");
    site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &whole.to_string_lossy()])?.success()?;
    let all = taken(&whole);

    let mut unfinished = 0;
    for percent in MOMENTS {
        let name = format!("killed-{percent}");
        let folder = site.target(&name);
        // Killed, and killed once more as it goes on.
        for percent in [percent, percent + 1] {
            if !cut_off(&site, &folder, all * percent / 100)? {
                break;
            }
            if folder.join("global/pg_control").exists() {
                continue;
            }
            unfinished += 1;
            if folder.is_dir() {
                let start = site.cluster.client("postgres").arg("-D").arg(&folder).args(["-c", "port=1"]).run()?;
                ensure!(start.code != Some(0), "a server starts in what is not whole after {percent} %");
            }
        }
        if folder.join("global/pg_control").exists() && !folder.join("walseal.unfinished").exists() {
            // It was done, or as good as: the directory is a cluster's, and nothing writes over it.
            oracle::verify_backup(&site.scratch, site.cluster.server(), &folder)?;
            continue;
        }
        let restored = restored::restore(&site, "latest", &name)?;
        restored::sound(restored, &dump)?;
    }
    ensure!(unfinished >= MOMENTS.len(), "only {unfinished} were killed before they were done");
    Ok(())
}
