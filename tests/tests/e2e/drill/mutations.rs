//! What turns a drill red: each for its own reason (case 45, I12).

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use walseal_tests::account::Account;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::process::Finished;
use walseal_tests::site::{Side, Site};

use super::{TABLE, checks, drill, left_behind, site};
use crate::flow;

/// The drill fails, for this reason and no other, says so, and leaves nothing behind.
pub(super) fn red(site: &Site, side: &Side, more: &[&str], kind: &str, why: &str) -> Result<Value> {
    let (finished, report) = drill(side, more)?;
    ensure!(finished.code == Some(1) && report["verdict"] == "failed", "{why}: {finished}");
    let checks = report["checks"].as_array().context("checks")?;
    let bad: Vec<&Value> =
        checks.iter().filter(|check| check["outcome"] == "failed" || check["outcome"] == "not-run").collect();
    let kinds: Vec<&str> = bad.iter().map(|check| check["kind"].as_str().unwrap_or_default()).collect();
    ensure!(!kinds.is_empty() && kinds.iter().all(|one| *one == kind), "{kind}: {bad:#?}");
    ensure!(
        bad.iter().any(|check| check["found"].as_str().is_some_and(|found| found.contains(why))),
        "{why}: {bad:#?}"
    );
    ensure!(finished.stderr.contains("the drill failed"), "{finished}");
    assert_eq!(left_behind(site)?, Vec::<String>::new());
    Ok(report)
}

pub(super) fn green(side: &Side, more: &[&str]) -> Result<Finished> {
    let (finished, _) = drill(side, more)?;
    ensure!(finished.code == Some(0), "{finished}");
    Ok(finished)
}

/// The keys that `wanted` names, in order.
pub(super) fn keys(site: &Site, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let objects = site.place.list()?;
    Ok(objects.into_iter().map(|object| object.key).filter(|key| wanted(key)).collect())
}

/// Changes the repository, drills, and puts back what was there.
pub(super) fn with_changed(
    site: &Site,
    keys: &[String],
    change: impl Fn(&[u8]) -> Option<Vec<u8>>,
    then: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut before = Vec::new();
    for key in keys {
        let bytes = site.place.read(&site.scratch, key)?;
        match change(&bytes) {
            Some(changed) => site.place.write(&site.scratch, key, &changed)?,
            None => site.place.remove(key)?,
        }
        before.push((key, bytes));
    }
    then()?;
    for (key, bytes) in before {
        site.place.write(&site.scratch, key, &bytes)?;
    }
    Ok(())
}

fn flipped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Some(bytes)
}

#[test]
fn case_45_i12_damage_in_the_repository_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder().segment_mib(1))?;
    // Several whole segments between the backup and the target.
    let mut daemon = site.start_daemon()?;
    for _ in 0..3 {
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql(&format!("update {TABLE} set note = note || 'y'"))?;
    }
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    green(&site.restorer, &[])?;

    let segments = keys(&site, |key| key.contains("/wal/"))?;
    let behind_the_base = segments[segments.len() - 2..segments.len() - 1].to_vec();
    with_changed(&site, &behind_the_base, |_| None, || red(&site, &site.restorer, &[], "plan", "missing").map(drop))?;
    // The plan opens what lies around the target; a segment in between is opened by recovery alone.
    with_changed(&site, &behind_the_base, flipped, || {
        let (finished, report) = drill(&site.restorer, &[])?;
        let last = report["checks"].as_array().and_then(|checks| checks.last()).cloned().unwrap_or_default();
        ensure!(finished.code == Some(1) && (last["kind"] == "plan" || last["kind"] == "recovery"), "{finished}");
        ensure!(last["outcome"] == "failed", "{last}");
        Ok(())
    })?;
    let data = keys(&site, |key| key.contains("/data/"))?;
    with_changed(&site, &data[..1], flipped, || red(&site, &site.restorer, &[], "restore", "base/").map(drop))?;
    let label = keys(&site, |key| key.ends_with("/label"))?;
    with_changed(&site, &label, |_| None, || red(&site, &site.restorer, &[], "plan", "base backup").map(drop))?;

    // The newest objects are hidden, also those that would tell that there were some.
    let everything_newer = keys(&site, |key| {
        let newest = |prefix: &str| key.contains(prefix);
        newest("/tail/") || newest("/frontier/") || segments.iter().rev().take(3).any(|segment| segment == key)
    })?;
    site.restorer.set_text("drill.max_rpo", "1ms");
    site.restorer.write_config()?;
    with_changed(
        &site,
        &everything_newer,
        |_| None,
        || red(&site, &site.restorer, &[], "freshness", "is there").map(drop),
    )?;
    site.restorer.set_text("drill.max_rpo", "1d");
    site.restorer.set_text("drill.max_rto", "1ms");
    site.restorer.write_config()?;
    red(&site, &site.restorer, &[], "freshness", "first query")?;
    site.restorer.unset("drill.max_rto");

    let mut wrong_key = site.restorer.clone();
    wrong_key.keygen("other.key")?;
    wrong_key.set(
        "keys.identity_files",
        &format!("[{}]", Value::from(wrong_key.folder().join("other.key").to_string_lossy())),
    );
    wrong_key.write_config()?;
    let wrong = site.restorer.run_long(&["drill", "--json"])?.exits(1)?;
    ensure!(wrong.json()?["verdict"] == "failed", "{wrong}");
    site.restorer.write_config()?;
    green(&site.restorer, &[])?;
    Ok(())
}

#[test]
fn case_45_i12_a_question_that_is_answered_otherwise_or_not_at_all_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    let count = format!("select count(*) from {TABLE}");
    let mut ask = |check: &str| {
        site.restorer.set("drill.checks", check);
        site.restorer.write_config()
    };
    ask(&checks(&[("customers", &count, "2001"), ("any", &format!("select count(*) > 2000 from {TABLE}"), "t")]))?;
    green(&site.restorer, &[])?;
    let with = |more: &str| checks(&[("customers", &count, "1950")]).replace(" }", &format!("{more} }}"));
    let mut ask = |check: &str| {
        site.restorer.set("drill.checks", check);
        site.restorer.write_config()
    };
    ask(&with(", tolerance = \"5%\""))?;
    green(&site.restorer, &[])?;
    for (check, why) in [
        (with(""), "2001"),
        (with(", tolerance = 10"), "2001"),
        (
            checks(&[("slow", "select 1 from pg_sleep(60)", "1")]).replace(" }", ", timeout = \"200ms\" }"),
            "no answer within",
        ),
        (checks(&[("broken", "select nonsense", "1")]), "nonsense"),
        (checks(&[("writes", &format!("delete from {TABLE}"), "1")]), "read-only"),
        (checks(&[("none", "select 1 where false", "1")]), "no row"),
        (checks(&[("elsewhere", "select 1", "1")]).replace("\"postgres\"", "\"nowhere\""), "nowhere"),
    ] {
        site.restorer.set("drill.checks", &check);
        site.restorer.write_config()?;
        red(&site, &site.restorer, &[], "assertions", why)?;
    }
    Ok(())
}

#[test]
fn case_45_i12_a_table_that_shrank_or_is_gone_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    green(&site.restorer, &[])?;
    let mut daemon = site.start_daemon()?;
    site.cluster.sql(&format!("delete from {TABLE} where id > 100"))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    red(&site, &site.restorer, &[], "counts", "has 100 rows; it had 2001")?;
    // The next one compares with this one, which has seen it: once is enough to be heard.
    green(&site.restorer, &[])?;
    site.cluster.sql("drop table later")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.restorer.set_text("drill.on_shrink", "warn");
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    ensure!(super::outcomes(&report)?.contains(&("rows".to_owned(), "warned".to_owned())), "{report:#}");
    Ok(())
}

/// There is no drill before, but the base backup knows what production had.
#[test]
fn case_45_i12_a_table_with_less_than_production_had_turns_the_first_drill_red() -> Result<()> {
    let site = site(Cluster::builder())?;
    let mut daemon = site.start_daemon()?;
    site.cluster.sql(&format!("delete from {TABLE} where id > 1500"))?;
    site.cluster.sql(&format!("analyze {TABLE}"))?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql(&format!("delete from {TABLE} where id > 100"))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let said = format!("{TABLE} has 100 rows; production had about 1500 at ");
    red(&site, &site.restorer, &[], "counts", &said)?;
    // That drill has seen it: once is enough to be heard.
    green(&site.restorer, &[])?;
    Ok(())
}

#[test]
fn case_45_i12_a_page_that_was_broken_before_the_backup_turns_it_red() -> Result<()> {
    // Without checksums the server notices nothing, and the backup is sound by every digest.
    let mut site = site(Cluster::builder())?;
    site.cluster.sql("create table victims (id int primary key, note text)")?;
    site.cluster.sql("insert into victims select i, repeat('v', 200) from generate_series(1, 1000) i")?;
    site.cluster.sql("checkpoint")?;
    let file = |site: &Site, relation: &str| -> Result<std::path::PathBuf> {
        let path = site.cluster.value(&format!("select pg_relation_filepath('{relation}')"))?;
        Ok(site.cluster.data().join(path))
    };
    let (heap, index) = (file(&site, "victims")?, file(&site, "victims_pkey")?);
    site.cluster.stop(Stop::Fast)?;
    let checksums = site.cluster.client("pg_checksums").args(["--disable", "-D"]).arg(site.cluster.data()).run()?;
    ensure!(checksums.code == Some(0) || checksums.stderr.contains("already disabled"), "{checksums}");
    for (path, kind, why) in [
        // A line pointer that leads out of the page: only amcheck looks at it.
        (heap.as_path(), "structure", "corruption"),
        // Entries of a leaf out of order.
        (index.as_path(), "structure", "corruption"),
        // A page that is none: whoever reads it fails.
        (heap.as_path(), "pages", ""),
    ] {
        let before = std::fs::read(path)?;
        break_page(path, kind == "pages", path == index)?;
        site.cluster.start()?;
        let mut daemon = site.start_daemon()?;
        site.archiver.run_long(&["backup"])?.success()?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        if kind == "structure" {
            red(&site, &site.restorer, &[], kind, why)?;
            // As deep as it was asked to look, and no deeper.
            let seen_by = |depth: &str| -> Result<bool> {
                let mut side = site.restorer.clone();
                side.set_text("drill.amcheck", depth);
                side.write_config()?;
                let (finished, _) = drill(&side, &[])?;
                site.restorer.write_config()?;
                Ok(finished.code != Some(0))
            };
            assert_eq!((seen_by("heap")?, seen_by("heapallindexed")?), (path == heap, true));
        } else {
            let (finished, report) = drill(&site.restorer, &[])?;
            ensure!(finished.code == Some(1), "{finished}");
            let failed = super::outcomes(&report)?;
            for name in ["pages", "rows", "amcheck"] {
                let bad = failed.iter().any(|(one, outcome)| one == name && outcome != "passed");
                ensure!(bad, "{name} does not see it: {report:#}");
            }
        }
        site.cluster.stop(Stop::Immediate)?;
        std::fs::write(path, before)?;
        site.scratch.account().own(path)?;
    }
    Ok(())
}

/// Breaks the second page of a relation: its header, else what it holds.
fn break_page(path: &Path, header: bool, index: bool) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut page = vec![0; 8192];
    file.seek(SeekFrom::Start(8192))?;
    file.read_exact(&mut page)?;
    if header {
        page[12..20].copy_from_slice(&[0xFF; 8]);
    } else if index {
        // The first two line pointers that point to entries change places.
        let (first, second) = (32, 36);
        for at in 0..4 {
            page.swap(first + at, second + at);
        }
    } else {
        // The first tuple's line pointer: an offset beyond the page, with flags "normal" and its length.
        let pointer = u32::from_le_bytes(page[24..28].try_into().context("four bytes")?);
        ensure!(pointer != 0, "there is a tuple");
        let changed = (pointer & !0x7FFF) | 0x1FF8;
        page[24..28].copy_from_slice(&changed.to_le_bytes());
    }
    file.seek(SeekFrom::Start(8192))?;
    file.write_all(&page)?;
    file.sync_all()?;
    let mut again = vec![0; 8192];
    file.read_exact_at(&mut again, 8192)?;
    if again == page { Ok(()) } else { bail!("{} was not written", path.display()) }
}

#[test]
fn case_45_i12_a_scratch_disk_that_is_too_small_turns_it_red_before_a_byte_is_written() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    let me = Account::current()?;
    let place = site.scratch.dir("small")?;
    let mounted = me.uid == 0 && {
        let call =
            site.scratch.call_as(&me, "/usr/bin/mount").args(["-t", "tmpfs", "-o", "size=40m,mode=755", "tmpfs"]);
        call.arg(&place).run()?.code == Some(0)
    };
    if !mounted {
        return Ok(()); // Where no small file system can be made, the unit tests of the space check stand for this.
    }
    site.scratch.account().own(&place)?;
    site.restorer.set_text("drill.scratch_dir", &place.to_string_lossy());
    site.restorer.write_config()?;
    let judged = drill(&site.restorer, &[]);
    let rest: Vec<_> = std::fs::read_dir(&place)?.flatten().map(|entry| entry.file_name()).collect();
    site.scratch.call_as(&me, "/usr/bin/umount").arg(&place).run()?.success()?;
    let (finished, report) = judged?;
    ensure!(finished.code == Some(1), "{finished}");
    let check = &report["checks"][0];
    ensure!(
        check["kind"] == "restore" && check["found"].as_str().is_some_and(|why| why.contains("free, and")),
        "{check}"
    );
    assert_eq!(rest, [".walseal-drills.lock"]);
    Ok(())
}

#[test]
fn case_45_i12_a_check_that_cannot_run_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    // A host that has PostgreSQL, but not the program of the check.
    for (missing, kind) in [("pg_amcheck", "structure"), ("pg_checksums", "pages")] {
        let bin = site.scratch.dir(&format!("without-{missing}"))?;
        for entry in std::fs::read_dir(site.cluster.server().bin())? {
            let entry = entry?;
            if entry.file_name() != missing {
                symlink(entry.path(), bin.join(entry.file_name()))?;
            }
        }
        site.restorer.set_text("drill.pg_bin", &bin.to_string_lossy());
        site.restorer.write_config()?;
        let report = red(&site, &site.restorer, &[], kind, missing)?;
        ensure!(super::outcomes(&report)?.iter().any(|(_, outcome)| outcome == "not-run"), "{report:#}");
    }
    site.restorer.unset("drill.pg_bin");
    site.restorer.set_text("drill.user", "nobody_here");
    site.restorer.write_config()?;
    red(&site, &site.restorer, &[], "recovery", "nobody_here")?;
    site.restorer.set_text("drill.user", &site.scratch.account().name);
    // Somebody else's folder.
    site.restorer.set_text("drill.scratch_dir", "/proc/walseal");
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(1) && report["checks"][0]["kind"] == "restore", "{finished}");
    Ok(())
}
