//! A timeline that a forgotten copy made, beside the one that is drilled.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::settings::quoted;

use super::{TABLE, drill, site};
use crate::flow;

#[test]
fn case_06_a_copys_timeline_is_not_followed_and_a_drill_adds_no_wal() -> Result<()> {
    let mut site = site(Cluster::builder().setting("archive_mode", "on"))?;
    site.cluster.configure(&format!("archive_command = {}", quoted(&site.archiver.hook("push %p"))))?;
    site.cluster.reload()?;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // Somebody starts a restore that archives into the same repository, and forgets it.
    let target = site.target("copy");
    let place = target.to_string_lossy();
    let restore = ["restore", "--to", "latest", "--keep-archiving", "--target-dir", &*place];
    site.restorer.run_long(&restore)?.success()?;
    let mut copy = site.restored(&target)?;
    copy.start()?;
    copy.wait_promoted(PATIENCE)?;
    copy.sql("create table astray as select 1 as n")?;
    let pushed = copy.value("select pg_walfile_name(pg_switch_wal())")?;
    ensure!(pushed.starts_with("00000002"), "{pushed}");
    let archived = eventually("the copy to have archived it", PATIENCE, || {
        let last = copy.value("select coalesce(last_archived_wal, '') from pg_stat_archiver")?;
        Ok((last >= pushed).then_some(()))
    });
    archived.with_context(|| copy.log())?;
    copy.stop(Stop::Fast)?;
    // Production goes on. PostgreSQL itself, told "latest", would take the higher number.
    site.cluster.sql(&format!("insert into {TABLE} values (2002, 'after the copy')"))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.cluster.stop(Stop::Fast)?;
    daemon.sigterm()?.success()?;
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let windows = listed["windows"].as_array().context("windows")?;
    ensure!(
        windows.iter().any(|window| window["timeline"] == 2),
        "the copy's timeline is in the repository: {listed:#}"
    );

    let wal = || -> Result<Vec<String>> {
        let keys = site.place.list()?.into_iter().map(|object| object.key);
        Ok(keys.filter(|key| ["/wal/", "/tail/", "/history/"].iter().any(|kind| key.contains(kind))).collect())
    };
    let before = wal()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    ensure!(report["drilled"]["branch"].as_str().is_some_and(|name| name.starts_with("00000001")), "{report:#}");
    let tables = report["tables"].as_array().context("tables")?;
    let rows = |name: &str| tables.iter().find(|one| one["table"] == format!("public.{name}")).map(|one| &one["rows"]);
    ensure!(rows(TABLE).is_some_and(|count| *count == 2002) && rows("astray").is_none(), "{report:#}");
    assert_eq!(wal()?, before);
    Ok(())
}
