//! A standby becomes the primary: the stream follows it without a hand, and what the old primary had shipped is kept.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::timeline::TimelineId;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::told::Told;
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

/// How the cluster is connected to, with these hosts in place of its own.
fn through(cluster: &Cluster, hosts: &str) -> String {
    let rest = cluster.conninfo().replace(&format!("host={}", cluster.sockets().display()), "");
    format!("host={hosts} {rest} target_session_attrs=read-write")
}

/// Both as hosts of one connection string, the first one first.
fn both(first: &Cluster, second: &Cluster) -> String {
    through(first, &format!("{},{}", first.sockets().display(), second.sockets().display()))
}

/// A primary under load and a standby, both known to the archiver, which streams and has taken a base backup.
fn under_way() -> Result<(Site, Told, Cluster, Daemon, Workload)> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let standby = site.standby("standby", &site.cluster, &[])?;
    site.archiver.set_text("cluster.conninfo", &both(&site.cluster, &standby));
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.write_config()?;
    let daemon = site.archive()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    Ok((site, told, standby, daemon, load))
}

fn follows(primary: &Cluster, standby: &Cluster) -> Result<()> {
    let flushed = primary.flush_lsn()?;
    let sql = format!("select coalesce(pg_last_wal_replay_lsn() >= '{flushed}', false)");
    let replayed =
        eventually("the standby to have it all", PATIENCE, || Ok((standby.value(&sql)? == "t").then_some(())));
    replayed.with_context(|| format!("the standby's log:\n{}", standby.log()))
}

#[test]
fn case_16_a_switchover_is_followed_without_a_hand_and_nothing_is_lost() -> Result<()> {
    let (mut site, _, mut standby, mut daemon, load) = under_way()?;
    load.goes_on(50, PATIENCE)?;
    load.stop()?;
    follows(&site.cluster, &standby)?;
    let written = site.cluster.flush_lsn()?;
    let drained = site.archiver.run(&["drain", "--json"])?.success()?.json()?;
    let through: Lsn = drained["through"].as_str().context("a position")?.parse()?;
    ensure!(through >= written, "{drained}");
    ensure!(flow::held(&site, written)? >= written, "drained, and {written} is not there");
    site.cluster.stop(Stop::Fast)?;
    standby.value("select pg_promote()")?;
    let old = std::mem::replace(&mut site.cluster, standby);
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let rows = workload::rows(&site.cluster)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    drop(latest);

    // And back: the old primary follows the new one, and is promoted in turn.
    standby = old;
    let data = standby.data().to_owned();
    std::fs::write(data.join("standby.signal"), "")?;
    site.scratch.account().own(&data.join("standby.signal"))?;
    standby.set_override("primary_conninfo", &site.cluster.conninfo());
    standby.start()?;
    follows(&site.cluster, &standby)?;
    site.cluster.stop(Stop::Fast)?;
    standby.value("select pg_promote()")?;
    site.cluster = standby;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(site.cluster.value("select timeline_id from pg_control_checkpoint()")?, "3");
    let rows = workload::rows(&site.cluster)?;
    let latest = restored::restore(&site, "latest", "latest3")?;
    restored::holds_exactly(&latest, &rows)
}

/// An address that leads to this cluster from now on, as a virtual IP does.
fn leads_to(address: &Path, cluster: &Cluster) -> Result<()> {
    if address.is_symlink() {
        std::fs::remove_file(address)?;
    }
    std::os::unix::fs::symlink(cluster.sockets(), address).context("an address of its own")
}

#[test]
pub fn case_16_an_old_primary_behind_the_only_address_is_told_until_the_new_one_is_streamed() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let standby = site.standby("standby", &site.cluster, &[])?;
    let address = site.target("address");
    leads_to(&address, &site.cluster)?;
    site.archiver.set_text("cluster.conninfo", &through(&site.cluster, &address.to_string_lossy()));
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table both_have_it (n int)")?;
    follows(&site.cluster, &standby)?;
    // Somebody promotes the standby, and the address still leads to the old primary, which takes writes.
    standby.value("select pg_promote()")?;
    standby.wait_promoted(PATIENCE)?;
    site.cluster.sql("create table written_to_the_wrong_one (n int)")?;
    standby.sql("create table written_to_the_right_one (n int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(told.states("timeline-left")?.is_empty(), "the repository has nothing of the other one yet");
    // As its archive_command does.
    let history = standby.data().join("pg_wal/00000002.history");
    site.archiver.run(&["push", &history.to_string_lossy()])?.success()?;
    told.arrives(&mut daemon, "timeline-left", &["raised"])?;
    let check = site.archiver.run(&["status", "--check"])?.exits(2)?;
    ensure!(check.stdout.contains("takes writes on timeline 1 "), "{check}");
    // It is told, and nothing else: a copy that was promoted by mistake stops nobody's archiving.
    site.cluster.sql("create table written_to_the_wrong_one_later (n int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    daemon.sigterm()?.success()?;
    leads_to(&address, &standby)?;
    let old = std::mem::replace(&mut site.cluster, standby);
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "timeline-left", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    // The address goes back, and this time the repository knows from the first moment.
    daemon.sigterm()?.success()?;
    leads_to(&address, &old)?;
    let new = std::mem::replace(&mut site.cluster, old);
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "timeline-left", &["raised", "cleared", "raised"])?;
    let text = told.of("timeline-left")?.pop().context("it was told")?["text"].to_string();
    ensure!(text.contains("to timeline 2") && text.contains("and holds WAL of it up to"), "{text}");
    site.cluster.sql("create table written_to_the_wrong_one_again (n int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    drop(new);
    Ok(())
}

#[test]
pub fn case_11_a_failover_to_a_standby_that_had_less_keeps_what_the_old_primary_shipped() -> Result<()> {
    let (mut site, told, mut standby, mut daemon, load) = under_way()?;
    load.goes_on(30, PATIENCE)?;
    follows(&site.cluster, &standby)?;
    // From here on only the archiver has what is committed.
    standby.configure("primary_conninfo = ''")?;
    standby.set_override("primary_conninfo", "");
    standby.stop(Stop::Fast)?;
    standby.start()?;
    load.goes_on(200, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let all = workload::rows(&site.cluster)?;
    site.cluster.stop(Stop::Immediate)?;
    standby.value("select pg_promote()")?;
    daemon.says("the surplus is kept as the branch's end", PATIENCE)?;
    let mut old = std::mem::replace(&mut site.cluster, standby);
    let less = workload::rows(&site.cluster)?;
    ensure!(less.len() < all.len(), "the standby had all of it");
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let rows = workload::rows(&site.cluster)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    drop(latest);
    let lost = restored::restore_with(&site, "latest", "lost", &["--timeline", "1"])?;
    restored::holds_exactly(&lost, &all)?;
    drop(lost);

    // The old primary comes back and takes writes; it is the first host of the connection string.
    old.start()?;
    old.sql("create table written_to_the_wrong_one (n int)")?;
    told.arrives(&mut daemon, "two-primaries", &["raised"])?;
    daemon.sigterm()?.success()?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    daemon.until("the status to name the old primary", PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let alert = &status["alerts"][0];
        let host = old.sockets().to_string_lossy().into_owned();
        let named = alert["subject"].as_str().is_some_and(|subject| subject.contains(&host));
        Ok((alert["kind"] == "two-primaries" && named).then_some(()))
    })?;
    site.cluster.sql("create table written_to_the_right_one (n int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let latest = restored::restore(&site, "latest", "again")?;
    let tables = latest.value("select string_agg(relname, ',') from pg_class where relname like 'written_to%'")?;
    assert_eq!(tables, "written_to_the_right_one");
    drop(latest);

    // Before it is rewound, what only it has is shipped, while the new one is streamed (case 20).
    old.sql("create table only_there (n int)")?;
    let named = old.sockets().to_string_lossy().into_owned();
    site.archiver.run(&["drain", "--host", &named])?.success()?;
    old.stop(Stop::Immediate)?;
    told.arrives(&mut daemon, "two-primaries", &["raised", "cleared"])?;
    let rescued = restored::restore_with(&site, "latest", "rescued", &["--timeline", "1"])?;
    assert_eq!(rescued.value("select count(*) from pg_class where relname = 'only_there'")?, "1");
    drop(rescued);
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let again = site.archiver.run(&["status"])?.success().context("the status is fine")?;
    ensure!(again.stdout.starts_with("Any second from"), "{again}");
    Ok(())
}

#[test]
fn case_11_case_51_what_the_old_primary_shipped_beyond_the_fork_stays_when_the_new_one_hands_over_what_lies_before()
-> Result<()> {
    let (mut site, _, mut standby, mut daemon, load) = under_way()?;
    load.goes_on(30, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // A segment of its own, in which the old primary comes a little farther than the standby.
    site.cluster.sql("select pg_switch_wal()")?;
    site.cluster.sql("create table kept (id int); insert into kept values (1)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    follows(&site.cluster, &standby)?;
    standby.configure("primary_conninfo = ''")?;
    standby.set_override("primary_conninfo", "");
    standby.stop(Stop::Fast)?;
    standby.start()?;
    for id in 2..10 {
        site.cluster.sql(&format!("insert into kept values ({id})"))?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
    }
    site.cluster.stop(Stop::Immediate)?;
    standby.value("select pg_promote()")?;
    daemon.says("the surplus is kept as the branch's end", PATIENCE)?;
    site.cluster = standby;
    // Without a commit of its own a timeline would not be the latest.
    site.cluster.sql("insert into kept values (100)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // As the hook does at a promotion: the segment up to the fork.
    let pg_wal = site.cluster.data().join("pg_wal");
    let history = std::fs::read_to_string(pg_wal.join("00000002.history"))?;
    let fork: Lsn = history.split_whitespace().nth(1).context("a switch point")?.parse()?;
    let size = SegmentSize::new(1 << 20)?;
    let left = SegmentName::new(TimelineId::FIRST, size.number(fork), size);
    let partial = pg_wal.join(format!("{left}.partial"));
    std::fs::copy(pg_wal.join(left.to_string()), &partial)?;
    site.scratch.account().own(&partial)?;
    site.archiver.run(&["push", &partial.to_string_lossy()])?.success()?;
    // Tails beyond it are all that has their bytes.
    site.archiver.run_long(&["prune", "--grace", "0s"])?.success()?;
    let lost = restored::restore_with(&site, "latest", "lost", &["--timeline", "1"])?;
    assert_eq!(lost.value("select max(id) from kept")?, "9");
    drop(lost);
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select string_agg(id::text, ',') from kept")?, "1,100");
    Ok(())
}

#[test]
fn case_05_a_cluster_that_goes_back_to_before_its_failover_is_archived_on_and_restored_from_either_side() -> Result<()>
{
    let (mut site, _, standby, mut daemon, load) = under_way()?;
    load.goes_on(50, PATIENCE)?;
    let commits = load.stop()?;
    let moment = commits.iter().map(|commit| commit.time).max().context("there are commits")?;
    let then = workload::rows(&site.cluster)?;
    let write = |cluster: &Cluster, daemon: &mut Daemon| -> Result<()> {
        let load = Workload::start(cluster, 2)?;
        load.reaches(50, PATIENCE)?;
        load.stop()?;
        flow::wait_durable(cluster, daemon).map(|_| ())
    };
    write(&site.cluster, &mut daemon)?;
    follows(&site.cluster, &standby)?;
    site.cluster.stop(Stop::Fast)?;
    standby.value("select pg_promote()")?;
    site.cluster = standby;
    write(&site.cluster, &mut daemon)?;
    let given_up = workload::rows(&site.cluster)?;
    site.cluster.stop(Stop::Fast)?;
    daemon.sigterm()?.success()?;

    let bases = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let first = bases["bases"][0]["id"].as_str().context("a base backup")?.to_owned();
    let folder = site.target("back");
    site.restorer
        .run_long(&["restore", "--to", &moment.to_string(), "--target-dir", &folder.to_string_lossy()])?
        .success()?;
    // As PostgreSQL does it by default, along the latest timeline: it then names that one as the parent of the new one, also where it
    // had not begun yet.
    let settings = folder.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&settings)?;
    let lines = text.lines().map(|line| match line.strip_prefix("recovery_target_timeline = ") {
        Some(_) => "recovery_target_timeline = 'latest'\n".to_owned(),
        None => format!("{line}\n"),
    });
    std::fs::write(&settings, lines.collect::<String>())?;
    site.cluster = site.restored(&folder)?;
    site.cluster.start()?;
    site.cluster.wait_promoted(PATIENCE)?;
    restored::holds_exactly(&site.cluster, &then)?;
    let history = std::fs::read_to_string(site.cluster.data().join("pg_wal/00000003.history"))?;
    ensure!(history.contains("\n2\t"), "{history}");
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo());
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    write(&site.cluster, &mut daemon)?;
    let rows = workload::rows(&site.cluster)?;
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    assert_eq!(status["gaps"], serde_json::json!([]), "{status}");
    // Over the fork, from the backup of timeline 1; what was given up; and from a backup of its own.
    let over = restored::restore_with(&site, "latest", "over", &["--base", &first])?;
    restored::holds_exactly(&over, &rows)?;
    drop(over);
    let aside = restored::restore_with(&site, "latest", "aside", &["--timeline", "2"])?;
    restored::holds_exactly(&aside, &given_up)?;
    drop(aside);
    site.archiver.run_long(&["backup"])?.success()?;
    let own = restored::restore(&site, "latest", "own")?;
    restored::holds_exactly(&own, &rows)?;
    drop(own);
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn case_20_an_old_primary_is_drained_and_rewound_and_what_only_it_had_is_in_the_repository() -> Result<()> {
    let (mut site, _, mut standby, mut daemon, load) = under_way()?;
    load.goes_on(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    follows(&site.cluster, &standby)?;
    // What is committed from here on neither the standby nor the repository has when the primary dies.
    daemon.sigkill()?;
    standby.set_override("primary_conninfo", "");
    standby.stop(Stop::Fast)?;
    standby.start()?;
    site.cluster.sql("create table only_there as select 1 as n")?;
    let kept = workload::rows(&site.cluster)?;
    site.cluster.stop(Stop::Immediate)?;
    standby.value("select pg_promote()")?;
    let mut old = std::mem::replace(&mut site.cluster, standby);
    let mut daemon = site.start_daemon()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;

    // As the README has it, under load on the new primary.
    old.start()?;
    site.archiver.run(&["drain", "--host", &old.sockets().to_string_lossy()])?.success()?;
    old.stop(Stop::Fast)?;
    site.cluster.sql("checkpoint")?;
    let rewind = old.client("pg_rewind").arg("-R").arg("-D").arg(old.data());
    let rewind = rewind.arg("--source-server").arg(site.cluster.conninfo());
    let rewound = rewind.run()?.success()?;
    ensure!(!format!("{rewound}").contains("no rewind required"), "{rewound}");
    old.start()?;
    load.goes_on(50, PATIENCE)?;
    load.stop()?;
    follows(&site.cluster, &old)?;
    assert_eq!(old.value("select count(*) from pg_class where relname = 'only_there'")?, "0");
    assert_eq!(old.value("select count(*) from pg_replication_slots")?, "0", "its slot went with pg_rewind");

    flow::wait_durable(&site.cluster, &mut daemon)?;
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(status["gaps"].as_array().is_some_and(Vec::is_empty), "{status}");
    let rows = workload::rows(&site.cluster)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    assert_eq!(latest.value("select count(*) from pg_class where relname = 'only_there'")?, "0");
    drop(latest);
    let rescued = restored::restore_with(&site, "latest", "rescued", &["--timeline", "1"])?;
    restored::holds_exactly(&rescued, &kept)?;
    assert_eq!(rescued.value("select n from only_there")?, "1");
    Ok(())
}
