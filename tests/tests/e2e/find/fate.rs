//! What became of tables, where the commit does not say it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::site::{Site, Store};

use super::find;
use crate::flow;

/// Names of tables of which `what` is true.
fn names<'a>(transaction: &'a Value, what: &str) -> Result<Vec<&'a str>> {
    let tables = transaction["tables"].as_array().context("tables")?;
    let mut names: Vec<&str> =
        tables.iter().filter(|table| table[what] == true).filter_map(|table| table["name"].as_str()).collect();
    names.sort_unstable();
    Ok(names)
}

fn drops_and_truncates_of_one_transaction_are_told_apart(major: u16) -> Result<()> {
    let site = Site::new(Cluster::builder().major(major), Store::Directory)?;
    let mut daemon = site.archive()?;
    let session = site.cluster.session()?;
    for table in ["gone", "\"Gone too\"", "emptied", "filled", "moved"] {
        session.rows(&format!("create table {table} (id int primary key, note text)"))?;
        session.rows(&format!("insert into {table} select i, md5(i::text) from generate_series(1, 100) i"))?;
    }
    site.archiver.run_long(&["backup"])?.success()?;
    let since = session.value("select clock_timestamp()")?;
    session.rows(
        "begin; drop table gone; truncate emptied; savepoint s; drop table \"Gone too\"; release s; \
         create table gone (other int); truncate filled; insert into filled values (1, 'again'); commit",
    )?;
    session.rows("vacuum full moved")?;
    session.rows("drop table if exists nobody; truncate emptied")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;

    let report = find(&site, &["--since", &since])?;
    let told = &report["transactions"];
    assert_eq!(names(&told[0], "dropped")?, ["Gone too", "gone"], "{report:#}");
    assert_eq!(names(&told[0], "truncated")?, ["emptied", "filled"], "{report:#}");
    // Its file is one that no base backup has seen.
    assert_eq!(names(&told[1], "truncated")?, ["emptied"], "{report:#}");
    ensure!(names(&told[1], "dropped")?.is_empty(), "{report:#}");
    let rewritten = find(&site, &["--since", &since, "--table", "public.moved", "--kind", "ddl"])?;
    assert_eq!(names(&rewritten["transactions"][0], "rewritten")?, ["moved"], "{rewritten:#}");
    ensure!(names(&rewritten["transactions"][0], "dropped")?.is_empty(), "{rewritten:#}");
    Ok(())
}

#[test]
fn drops_and_truncates_of_one_transaction_on_postgresql_14_are_told_apart() -> Result<()> {
    drops_and_truncates_of_one_transaction_are_told_apart(14)
}

#[test]
fn drops_and_truncates_of_one_transaction_on_postgresql_18_are_told_apart() -> Result<()> {
    drops_and_truncates_of_one_transaction_are_told_apart(18)
}
