//! What a drill sees of the relations between rows, of extensions, and of questions in a file of their own.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;

use super::mutations::{green, red};
use super::{drill, outcomes, site};
use crate::flow;

#[test]
fn case_45_i12_a_row_without_the_one_that_it_refers_to_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    site.restorer.set("drill.foreign_keys", "true");
    site.restorer.write_config()?;
    site.cluster.sql(
        "create table regions (id int primary key); insert into regions values (1), (2); \
         create table orders (id int, region int, primary key (id, region)) partition by list (region); \
         create table orders_1 partition of orders for values in (1); create table orders_2 partition of orders for values in (2); \
         alter table orders add foreign key (region) references regions; \
         create table \"Items of orders\" (id int, o int, region int, \"to\" int references regions, foreign key (o, region) references orders); \
         insert into orders values (1, 1), (2, 2), (3, 2), (4, 2), (5, 2); insert into \"Items of orders\" values (1, 1, 1, 2), (2, 2, 2, null); \
         create table late (region int); insert into late values (7); \
         alter table late add foreign key (region) references regions not valid",
    )?;
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    let checks = report["checks"].as_array().context("checks")?;
    let found = checks.iter().find(|check| check["name"] == "foreign keys").context("they were validated")?;
    ensure!(found["found"] == "4 hold; 1 were never validated", "{found}");
    // As a disk, or a superuser in a hurry, may do it.
    site.cluster.sql("set session_replication_role = replica; delete from orders where id = 2")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    red(&site, &site.restorer, &[], "foreign-keys", "Items of orders")?;
    site.restorer.unset("drill.foreign_keys");
    site.restorer.write_config()?;
    green(&site.restorer, &[])?;
    Ok(())
}

#[test]
fn case_47_sequences_that_are_ahead_and_pages_with_other_hints_are_no_finding() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    let mut daemon = site.start_daemon()?;
    site.cluster.sql("create table orders (id bigserial primary key, note text default repeat('x', 100))")?;
    site.cluster.sql("insert into orders select from generate_series(1, 50)")?;
    site.cluster.sql("checkpoint")?;
    site.cluster.sql("insert into orders select from generate_series(1, 100)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    // Whoever reads rows first marks them as committed; without checksums no WAL says so.
    assert_eq!(site.cluster.value("select count(*) from orders where note is not null")?, "150");
    let given: i64 = site.cluster.value("select last_value from orders_id_seq")?.parse()?;
    assert_eq!(given, 150);
    // WAL says of a sequence once in 32 values what none of them will exceed.
    let ahead = "select count(*) from orders_id_seq where last_value > 150 and last_value <= 150 + 32";
    site.restorer.set("drill.checks", &super::checks(&[("the sequence is ahead", ahead, "1")]));
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    let tables = report["tables"].as_array().context("tables")?;
    let orders = tables.iter().find(|one| one["table"] == "public.orders").context("it is there")?;
    ensure!(orders["rows"] == 150, "{orders}");
    Ok(())
}

#[test]
fn case_45_i12_a_library_that_is_not_on_the_host_turns_it_red_and_clears_the_backup() -> Result<()> {
    let site = site(Cluster::builder())?;
    site.cluster.sql("create extension hstore")?;
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    ensure!(outcomes(&report)?.contains(&("extensions".to_owned(), "passed".to_owned())), "{report:#}");
    // As if the extension were of a package that this host does not have.
    site.cluster.sql("update pg_proc set probin = '$libdir/hstore_of_acme' where probin = '$libdir/hstore'")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let report = red(&site, &site.restorer, &[], "extensions", "extension hstore of database postgres")?;
    let said = report.to_string();
    ensure!(
        said.contains("hstore_of_acme is not on this host") && said.contains("the backup is not at fault"),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn questions_may_stand_in_a_file_of_their_own_and_one_that_cannot_be_read_is_no_pass() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    green(&site.restorer, &[])?;
    let file = site.restorer.folder().join("checks.toml");
    site.restorer.set_text("drill.checks_file", "checks.toml");
    site.restorer.set("drill.checks", &super::checks(&[("in the configuration", "select 1", "1")]));
    site.restorer.write_config()?;
    red(&site, &site.restorer, &[], "assertions", "checks.toml cannot be read")?;
    let write = |text: &str| -> Result<()> {
        std::fs::write(&file, text)?;
        site.scratch.account().own(&file)
    };
    write(
        "[[checks]]\nname = \"in the file\"\ndatabase = \"postgres\"\nsql = \"select 41.5\"\nexpect = \"42\"\ntolerance = \"2%\"\ntimeout = \"10s\"\n",
    )?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    for name in ["in the configuration", "in the file"] {
        ensure!(outcomes(&report)?.contains(&(name.to_owned(), "passed".to_owned())), "{report:#}");
    }
    write("[[checks]]\nname = \"a\"\ndatabase = \"postgres\"\nsql = \"select 40\"\nexpect = \"42\"\n")?;
    red(&site, &site.restorer, &[], "assertions", "40")?;
    for (text, why) in [
        ("[[checks", "checks.toml:1"),
        ("[[check]]\nname = \"a\"", "\"check\" is not known"),
        ("[[checks]]\nname = \"a\"", "has no database"),
    ] {
        write(text)?;
        red(&site, &site.restorer, &[], "assertions", why)?;
    }
    Ok(())
}

#[test]
fn case_32_unlogged_tables_are_named_and_not_counted() -> Result<()> {
    let site = site(Cluster::builder())?;
    assert_eq!(site.cluster.value("select count(*) from sessions")?, "1");
    // The second one compares with the first.
    for _ in 0..2 {
        let (finished, report) = drill(&site.restorer, &[])?;
        ensure!(finished.code == Some(0), "{finished}");
        assert_eq!(report["unlogged"], serde_json::json!(["postgres: public.sessions"]));
        let tables = report["tables"].as_array().context("tables")?;
        ensure!(tables.iter().all(|table| table["table"] != "public.sessions"), "{report:#}");
    }
    Ok(())
}
