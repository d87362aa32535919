//! Only finished segments are taken, and every segment that PostgreSQL finishes is.

use walseal_tests::deadline::PATIENCE;
use walseal_tests::pgbench::Pgbench;

use super::*;

/// Keys of what is stored under the segment's whole name.
fn stored(site: &Site, name: &str) -> Result<Vec<String>> {
    // The server may be gone, so its system identifier is not asked for.
    let listed = site.place.list()?.into_iter().map(|object| object.key);
    Ok(listed.filter(|key| key.contains("/wal/") && key.ends_with(name)).collect())
}

fn current(cluster: &Cluster) -> Result<String> {
    cluster.value("select pg_walfile_name(pg_current_wal_insert_lsn())")
}

/// Pushes the segment that is being written, as `path_of` says where, until the server was still in it when the push ended.
fn push_current(site: &Site, path_of: impl Fn(&str) -> Result<PathBuf>) -> Result<String> {
    for _ in 0..20 {
        let name = current(&site.cluster)?;
        let path = path_of(&name)?;
        let copied_in_time = current(&site.cluster)? == name;
        let pushed = push(site, &path)?;
        if copied_in_time && (path.starts_with(site.scratch.path().join("copies")) || current(&site.cluster)? == name) {
            fails(&pushed, &[&name, "has not finished"])?;
            return Ok(name);
        }
    }
    anyhow::bail!("the server was never in one segment for long enough");
}

#[test]
fn i1_a_segment_that_somebody_pushes_while_it_is_written_is_refused_and_everything_goes_on() -> Result<()> {
    let mut site = Site::new(archiving(), Store::Directory)?;
    let mut daemon = site.archive()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    site.archiver.run_long(&["backup"])?.success()?;
    Pgbench::initialise(&site.cluster, 1)?;
    // A fresh segment, so that there is time before it is full.
    end_segment(&site.cluster)?;
    let bench = Pgbench::start(&site.cluster, 2)?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;

    let in_place = push_current(&site, |name| Ok(file(&site.cluster, name)))?;
    assert_eq!(stored(&site, &in_place)?, Vec::<String>::new());
    let copies = site.scratch.dir("copies")?;
    let copied = push_current(&site, |name| {
        fs::copy(file(&site.cluster, name), copies.join(name))?;
        site.scratch.account().own(&copies.join(name))?;
        Ok(copies.join(name))
    })?;
    // Once the server has finished it, the copy is what it was, and what is stored is not touched by it.
    load.goes_on(50, PATIENCE)?;
    site.cluster.sql("select pg_switch_wal()")?;
    wait_archived(&site.cluster)?;
    fails(&push(&site, &copies.join(&copied))?, &[&copied, "has not finished"])?;

    bench.stop()?;
    let commits = load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.cluster.sql("select pg_switch_wal()")?;
    wait_archived(&site.cluster)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}\n{}", site.cluster.log(), daemon.log());
    for name in [&in_place, &copied] {
        assert_eq!(stored(&site, name)?.len(), 1, "{name}");
    }
    let conflicts: Vec<String> = objects(&site)?.into_iter().filter(|key| key.starts_with("conflict/")).collect();
    assert_eq!(conflicts, Vec::<String>::new());
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &commits.iter().map(|commit| commit.id).collect())
}

/// Writes until exactly that many bytes of the segment are left, then switches. With 8 or 16 left the switch's record does not
/// fit, and goes on in the next segment. Returns whether it came so: the server's own processes write, too.
fn switch_with(cluster: &Cluster, left: u64) -> Result<bool> {
    let size = cluster.segment_size()?;
    let fill = format!(
        "do $$ declare room bigint; before pg_lsn; after pg_lsn; overhead int; begin
           loop
             before := pg_current_wal_insert_lsn();
             perform pg_logical_emit_message(false, 'x', repeat('y', 300));
             after := pg_current_wal_insert_lsn();
             exit when floor((before - '0/0') / 8192) = floor((after - '0/0') / 8192);
           end loop;
           overhead := (after - before) - 304;
           loop
             room := {size} - (pg_current_wal_insert_lsn() - '0/0')::bigint % {size};
             exit when room between 1000 and 8000;
             perform pg_logical_emit_message(false, 'x', repeat('y', case when room < 1000 then 2000 else least(room - 4000, 2000) end::int));
           end loop;
           perform pg_logical_emit_message(false, 'x', repeat('y', (room - {left} - overhead - 4)::int));
         end $$",
        size = size.bytes(),
    );
    cluster.sql(&fill)?;
    let before = cluster.insert_lsn()?;
    let after: Lsn = cluster.value("select pg_switch_wal()")?.parse()?;
    // A switch is a record's header, and where it is split there is a page's header within.
    let length = if left < 24 { 24 + 40 } else { 24 };
    Ok(size.bytes() - size.offset(before) == left && after.bytes_since(before) == length)
}

/// A segment may end in any way that PostgreSQL ends one, and goes through the hook at the first try.
fn every_end_of_a_segment_is_taken(major: u16) -> Result<()> {
    let builder = archiving().segment_mib(1).major(major).setting("autovacuum", "off");
    let mut site = Site::new(builder, Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    let from = site.cluster.flush_lsn()?;
    let settled = |cluster: &Cluster| -> Result<()> {
        wait_archived(cluster)?;
        ensure!(!cluster.log().contains("archive command failed"), "{}", cluster.log());
        Ok(())
    };
    // Full ones, with records over their ends, and one record over several.
    site.cluster.sql("create table t as select md5(g::text) v from generate_series(1, 30000) g")?;
    site.cluster.sql("select pg_logical_emit_message(false, 'big', repeat('x', 3000000))")?;
    end_segment(&site.cluster)?;
    // Not 24: after a switch that fits exactly, PostgreSQL itself takes its end for 40 bytes more than there are
    // (`XLogInsertRecord` in `xlog.c`), and its WAL writer may panic.
    for left in [8, 16, 32] {
        let mut tries = 0;
        while !switch_with(&site.cluster, left)? {
            tries += 1;
            ensure!(tries < 20, "no switch with {left} bytes left");
        }
    }
    settled(&site.cluster)?;
    // A fast shutdown ends the segment, too.
    site.cluster.sql("insert into t select md5(g::text) from generate_series(1, 100) g")?;
    site.cluster.stop(Stop::Fast)?;
    site.cluster.start()?;
    site.cluster.sql("insert into t select md5(g::text) from generate_series(1, 20000) g")?;
    settled(&site.cluster)?;
    // After a crash, the segment goes on where recovery ended.
    site.cluster.stop(Stop::Immediate)?;
    site.cluster.start()?;
    site.cluster.sql("insert into t select md5(g::text) from generate_series(1, 20000) g")?;
    end_segment(&site.cluster)?;
    settled(&site.cluster)?;
    let last = Lsn(site.cluster.segment_size()?.align_down(site.cluster.insert_lsn()?).0 - 1);
    flow::fetch_agrees_with_the_server(&site, from, last)
}

#[test]
fn every_end_of_a_segment_of_postgres_14_is_taken() -> Result<()> {
    every_end_of_a_segment_is_taken(14)
}

#[test]
fn every_end_of_a_segment_of_postgres_15_is_taken() -> Result<()> {
    every_end_of_a_segment_is_taken(15)
}

#[test]
fn every_end_of_a_segment_of_postgres_16_is_taken() -> Result<()> {
    every_end_of_a_segment_is_taken(16)
}

#[test]
fn every_end_of_a_segment_of_postgres_17_is_taken() -> Result<()> {
    every_end_of_a_segment_is_taken(17)
}

#[test]
fn every_end_of_a_segment_of_postgres_18_is_taken() -> Result<()> {
    every_end_of_a_segment_is_taken(18)
}

#[test]
fn case_23_a_standby_that_archives_always_is_not_blocked_by_the_end_of_a_timeline_that_it_left() -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(1), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    site.archiver.run_long(&["backup"])?.success()?;
    let middle = site.standby("middle", &site.cluster, &[("archive_mode", "off")])?;
    let last = site.standby("last", &middle, &[("archive_mode", "always")])?;
    site.cluster.sql("create table t as select md5(g::text) v from generate_series(1, 1000) g")?;
    let written = site.cluster.flush_lsn()?;
    eventually("the last standby to have it all", PATIENCE, || {
        let sql = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        Ok((last.value(&sql)? == "t").then_some(()))
    })?;
    site.cluster.stop(Stop::Immediate)?;
    middle.value("select pg_promote()")?;
    let child = end_segment(&middle)?;
    eventually("the last standby to archive the new timeline", PATIENCE, || {
        Ok(stored(&site, &child)?.first().cloned())
    })
    .with_context(|| last.log())?;
    wait_archived(&last)?;
    ensure!(!last.log().contains("archive command failed"), "{}", last.log());

    let history = fs::read_to_string(file(&last, "00000002.history"))?;
    let fork: Lsn = history.split_whitespace().nth(1).context("a fork")?.parse()?;
    let size = walseal_common::segment::SegmentSize::SMALLEST;
    let left =
        walseal_common::segment::SegmentName::new(walseal_common::timeline::TimelineId::FIRST, size.number(fork), size)
            .to_string();
    // It was queued under the whole name, although only a part of it is there.
    ensure!(file(&last, &format!("archive_status/{left}.done")).exists(), "{left} was not queued");
    assert_eq!(stored(&site, &left)?, Vec::<String>::new());
    assert_eq!(stored(&site, &format!("{left}.partial"))?.len(), 1);
    drop((last, middle));
    let restored = restored::restore(&site, "latest", "restored")?;
    ensure!(restored.value("select count(*) from t")? == "3000", "rows of both timelines");
    Ok(())
}
