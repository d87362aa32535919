//! `--delta`: a cluster that went on is made what it was.

use anyhow::{Context, Result, ensure};
use walseal_tests::cluster::Stop;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;

use super::{CONTENT, Story, insert};

#[test]
fn delta_makes_a_cluster_that_lived_on_what_it_was_and_fetches_little() -> Result<()> {
    let mut story = Story::new("")?;
    // What nobody touches later: of a cluster that is all catalogs, a few changes touch too much.
    let big =
        "create table big as select i, md5(i::text) || md5((-i)::text) as filler from generate_series(1, 200000) i";
    story.site.cluster.sql(big)?;
    story.site.cluster.sql("vacuum freeze big")?;
    story.site.archiver.run_long(&["backup"])?.success()?;
    let before = story.site.cluster.value(CONTENT)?;
    let time = story.site.cluster.value("select clock_timestamp()")?;
    insert(&story.site.cluster.session()?, 2001, 2010)?;
    story.shipped()?;
    let site = &story.site;
    let data = site.target("restored");
    let words = ["restore", "--to", &time, "--json", "--target-dir", data.to_str().context("UTF-8")?];
    let delta = [&words[..], &["--delta"]].concat();
    let full = site.restorer.run_long(&words)?.success()?.json()?;
    assert_eq!(full["kept"], 0);

    let mut restored = site.restored(&data)?;
    restored.start()?;
    restored.wait_promoted(PATIENCE)?;
    let refused = site.restorer.run_long(&delta)?.exits(1)?;
    ensure!(refused.stderr.contains("runs now") && refused.stderr.contains("pg_ctl stop"), "{refused}");
    restored.sql("delete from t where i % 2 = 0")?;
    restored.sql("create table stray as select generate_series(1, 1000)")?;
    restored.sql("select pg_create_physical_replication_slot('stray', true)")?;
    restored.sql("alter system set work_mem = '77MB'")?;
    restored.sql("checkpoint")?;
    restored.stop(Stop::Fast)?;
    let refused = site.restorer.run_long(&words)?.exits(1)?;
    ensure!(refused.stderr.contains("data directory of a cluster") && refused.stderr.contains("--delta"), "{refused}");

    let again = site.restorer.run_long(&delta)?.success()?.json()?;
    let bytes = |report: &serde_json::Value, field: &str| report[field].as_u64().context(field.to_owned());
    ensure!(bytes(&again, "fetched")? * 2 < bytes(&full, "fetched")?, "{again}\n{full}");
    ensure!(bytes(&again, "kept")? > bytes(&again, "written")? * 2, "{again}");
    // The timeline that this cluster made is nobody's but its own.
    ensure!(again["swept"]["set_aside"].as_u64() > Some(0), "{again}");
    oracle::verify_backup(&site.scratch, site.cluster.server(), &data)?;
    restored.start()?;
    restored.wait_promoted(PATIENCE)?;
    assert_eq!(restored.value(CONTENT)?, before);
    let strays =
        "select (select count(*) from pg_class where relname = 'stray') + (select count(*) from pg_replication_slots)";
    assert_eq!(restored.value(strays)?, "0");
    let setting = "select current_setting('work_mem')";
    assert_eq!(restored.value(setting)?, site.cluster.value(setting)?);
    oracle::amcheck(&restored)?;
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)
}
