//! What a repository and an archiver's host do not give away, and what may be lost there.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};
use walseal_tests::workload::{self, NEEDLE, Workload};

use crate::{flow, restored};

#[test]
fn i9_no_object_contains_text_of_the_database() -> Result<()> {
    for store in [Store::Directory, Store::S3] {
        let site = Site::new(Cluster::builder().segment_mib(1), store)?;
        let mut daemon = site.archive()?;
        site.cluster.sql("create table payroll_of_the_board (iban text)")?;
        site.cluster.sql("create index board_index_name on payroll_of_the_board (iban)")?;
        let load = Workload::start(&site.cluster, 2)?;
        load.reaches(50, PATIENCE)?;
        site.archiver.run_long(&["backup"])?.success()?;
        site.cluster.value("select pg_create_restore_point('merger_with_acme')")?;
        site.cluster
            .sql(&format!("insert into payroll_of_the_board select '{NEEDLE}' from generate_series(1, 20000)"))?;
        load.goes_on(50, PATIENCE)?;
        load.stop()?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        let needles =
            [NEEDLE, "payroll_of_the_board", "board_index_name", "merger_with_acme", "pg_hba.conf", "PG_VERSION"];
        let folder = site.place.as_folder(&site.scratch)?;
        oracle::no_plaintext(&site.scratch, &folder, &needles)?;
        // The search finds what is there: the primary is full of it.
        ensure!(oracle::no_plaintext(&site.scratch, site.cluster.data(), &[NEEDLE]).is_err());
        let objects = site.place.list()?;
        for prefix in ["/wal/", "/base/", "/tail/"] {
            ensure!(
                objects.iter().any(|o| o.key.contains(prefix) && o.size > 0),
                "no object below {prefix} was searched"
            );
        }
    }
    Ok(())
}

#[test]
fn i9_the_archiver_works_where_no_identity_can_be_read() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    // The identity is taken away from the archiver's host altogether.
    let identity = site.restorer.folder().join("identity.key");
    let elsewhere = site.scratch.path().join("in-a-safe");
    std::fs::rename(&identity, &elsewhere)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table t as select 1 as a")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    std::fs::rename(&elsewhere, &identity)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select a from t")?, "1");
    Ok(())
}

#[test]
fn i8_a_kill_and_the_loss_of_the_state_folder_under_load_cost_no_commit() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(100, PATIENCE)?;
    let before = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    daemon.sigkill()?;
    std::fs::remove_dir_all(site.scratch.path().join("state"))?;
    daemon = site.start_daemon()?;
    load.goes_on(100, PATIENCE)?;
    load.stop()?;
    let after = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(after > before, "the archiver goes on");
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &workload::rows(&site.cluster)?)
}
