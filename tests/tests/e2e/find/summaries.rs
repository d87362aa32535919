//! What summaries tell, against what the WAL tells.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};
use walseal_tests::store::Place;

use super::find;
use crate::flow;

/// Sums of a course over time, which its steps add up to.
fn sums(course: &Value) -> Result<Vec<u64>> {
    let names = ["inserted", "updated", "deleted", "bytes", "dropped", "truncated"];
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
    let steps = course["steps"].as_array().context("steps")?;
    let sums: Vec<u64> = names.iter().map(|name| number(course, name)).collect();
    let added: Vec<u64> = names.iter().map(|name| steps.iter().map(|step| number(step, name)).sum()).collect();
    assert_eq!(sums, added, "{course:#}");
    Ok(sums)
}

/// What was done over time, table by table, without the times.
fn activity(site: &Site, more: &[&str]) -> Result<Vec<(String, Vec<u64>)>> {
    let report = find(site, &[&["--activity"], more].concat())?;
    ensure!(report["schema"] == "walseal.activity/1" && report["gaps"] == Value::Array(Vec::new()), "{report:#}");
    let mut told = vec![("all".to_owned(), sums(&report["all"])?)];
    for table in report["tables"].as_array().context("tables")? {
        told.push((table["name"].as_str().context("a name")?.to_owned(), sums(table)?));
    }
    told.push((report["commits"].to_string(), Vec::new()));
    Ok(told)
}

/// Summaries that lie in the repository.
fn summaries(site: &Site) -> Result<Vec<PathBuf>> {
    let Place::Directory(folder) = &site.place else { anyhow::bail!("it is a folder") };
    let listed = site.place.list()?;
    let there = listed.iter().filter(|object| object.key.contains("/summary/"));
    Ok(there.map(|object| folder.join(&object.key)).collect())
}

#[test]
fn summaries_tell_what_the_wal_tells_and_spare_it() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    let session = site.cluster.session()?;
    session.rows("create table t (id int primary key, v text)")?;
    session.rows("insert into t select i, repeat(md5(i::text), 6) from generate_series(1, 20000) i")?;
    site.archiver.run_long(&["backup"])?.success()?;
    let since = session.value("select clock_timestamp()")?;
    session.rows("create table young (id int, v text)")?;
    // A transaction over several runs, and many small ones.
    let long = site.cluster.session()?;
    long.rows("begin; delete from t where id <= 700")?;
    for round in 0..6 {
        session.rows(&format!("update t set v = v || 'x' where id > 1000 and id % 3 = {}", round % 3))?;
        for id in 0..120 {
            session.rows(&format!("update t set v = 'small' where id = {}", 1000 + 17 * id + round))?;
        }
        session.rows(&format!("insert into young select i, repeat('y', 400) from generate_series(1, 9000) i; delete from young where id <= {}", 100 + round))?;
    }
    long.rows("delete from t where id between 701 and 900; commit")?;
    session.rows("drop table young")?;
    session.rows("insert into t select i, repeat('z', 3000) from generate_series(30000, 36000) i")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let stored = daemon.until("three summaries", PATIENCE, || {
        let there = summaries(&site)?;
        Ok((there.len() >= 3).then_some(there))
    })?;
    daemon.sigterm()?.success()?;

    let ask = |more: &[&str]| find(&site, &[&["--since", &since], more].concat());
    let asked: [&[&str]; 4] = [
        &[],
        &["--kind", "drop,truncate,ddl"],
        &["--table", "public.t", "--limit", "500"],
        &["--min-rows", "100", "--kind", "delete"],
    ];
    let by_summaries: Vec<Value> = asked.iter().map(|more| ask(more)).collect::<Result<_>>()?;
    ensure!(by_summaries[0]["transactions"][0]["tables"][0]["name"] == "young", "{:#}", by_summaries[0]);
    let deletions = &by_summaries[3]["transactions"];
    ensure!(deletions[0]["rows"]["deleted"] == 900, "over several runs: {deletions:#}");

    let by_time = activity(&site, &["--since", &since])?;
    let names: Vec<&str> = by_time.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names[..3] == ["all", "t", "young"], "{by_time:?}");
    let deleted: u64 = (0..6).map(|round| 100 + 2 * round).sum();
    assert_eq!(by_time[2].1[..3], [6 * 9_000, 0, deleted], "{by_time:?}");
    assert_eq!(by_time[2].1[4..], [1, 0], "{by_time:?}");
    let only = activity(&site, &["--since", &since, "--table", "public.young"])?;
    assert_eq!((only.len(), &only[1]), (3, &by_time[2]), "{only:?}");

    // WAL that nobody can open, under summaries that tell what was in it. Headers stay as they are.
    let Place::Directory(folder) = &site.place else { anyhow::bail!("it is a folder") };
    let first = stored[1]
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split('-').next())
        .context("a name")?;
    let whole = site.place.list()?;
    let damaged =
        whole.iter().find(|object| object.key.contains("/wal/") && object.key.ends_with(first)).context("a segment")?;
    let path = folder.join(&damaged.key);
    let right = std::fs::read(&path)?;
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 0xFF;
    std::fs::write(&path, &wrong)?;
    let again = ask(asked[3])?;
    assert_eq!(again["transactions"], *deletions, "the WAL is not opened");
    std::fs::write(&path, &right)?;

    for summary in summaries(&site)? {
        std::fs::remove_file(summary)?;
    }
    // Of transactions that are only counted, the commit record is in no relation's bytes.
    let without_all_bytes = |mut told: Vec<(String, Vec<u64>)>| {
        told[0].1[3] = 0;
        told
    };
    assert_eq!(without_all_bytes(activity(&site, &["--since", &since])?), without_all_bytes(by_time));
    for (more, told) in asked.iter().zip(&by_summaries) {
        let by_wal = ask(more)?;
        ensure!(by_wal["counted"] == 0, "{by_wal:#}");
        let without = |report: &Value| {
            let mut all = report["transactions"].clone();
            // Where something is read from depends on what is read.
            for one in all.as_array_mut().into_iter().flatten() {
                one["incomplete"] = Value::Null;
                one["first_lsn"] = Value::Null;
            }
            // Of those that changed as many rows as the last one that is shown, it may be others.
            let last = all.as_array().and_then(|all| all.last()).map(|one| one["rows"].clone());
            let shown = all.as_array().map_or(0, Vec::len);
            all.as_array_mut().into_iter().for_each(|all| all.retain(|one| Some(&one["rows"]) != last.as_ref()));
            (all, shown, last)
        };
        assert_eq!(without(&by_wal), without(told), "{more:?}");
        assert_eq!(by_wal["commits"], told["commits"], "{more:?}");
    }
    Ok(())
}
