//! Which transaction did it, and the command that undoes it: typed as it is printed, and compared to the last row.

mod fate;
mod summaries;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::dice::number_from;
use walseal_tests::pgbench::Pgbench;
use walseal_tests::session::Session;
use walseal_tests::site::{Daemon, Site, Store};

use crate::drill::{left_behind, scratch_dir};
use crate::flow;

/// Tables that are there when the base backup is taken.
const TABLES: &str = "create table marks (what text); \
     create table orders (id int primary key, note text); insert into orders select i, md5(i::text) from generate_series(1, 2000) i; \
     create table \"Stock\" (id int primary key, n int); insert into \"Stock\" select i, i % 7 from generate_series(1, 1500) i; \
     create table items (id int primary key, note text); \
     insert into items select i, string_agg(md5((i * j)::text), '') from generate_series(1, 300) i, generate_series(1, 200) j group by i; \
     create table prices (id int primary key, price int); insert into prices select i, i from generate_series(1, 1200) i; \
     create schema sales; create table sales.a (id int primary key); insert into sales.a select generate_series(1, 50); \
     create table sales.b (id int primary key, a int references sales.a); insert into sales.b select i, i from generate_series(1, 40) i; \
     create view sales.both as select a.id from sales.a join sales.b using (id); \
     create table people (id int primary key, name text); insert into people select i, md5(i::text) from generate_series(1, 900) i";

/// Something that somebody should not have done.
struct Damage {
    name: &'static str,
    sql: &'static [&'static str],
    /// What is lost by it: a query over what was there.
    content: &'static str,
    /// What `find` says of it: a kind, and tables by schema and name.
    kind: &'static str,
    schema: &'static str,
    tables: &'static [&'static str],
}

const DAMAGES: [Damage; 7] = [
    Damage {
        name: "drop",
        sql: &["drop table orders"],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from orders o",
        kind: "drop",
        schema: "public",
        tables: &["orders"],
    },
    Damage {
        name: "truncate",
        sql: &["truncate \"Stock\""],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from \"Stock\" o",
        kind: "truncate",
        schema: "public",
        tables: &["Stock"],
    },
    Damage {
        name: "delete",
        sql: &["delete from items where id > 10"],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from items o",
        kind: "delete",
        schema: "public",
        tables: &["items"],
    },
    Damage {
        name: "update",
        sql: &["update prices set price = 0"],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from prices o",
        kind: "update",
        schema: "public",
        tables: &["prices"],
    },
    Damage {
        name: "cascade",
        sql: &["drop schema sales cascade"],
        content: "select (select count(*) from sales.a) || '/' || (select count(*) from sales.b) || '/' || (select count(*) from sales.both)",
        kind: "drop",
        schema: "sales",
        tables: &["a", "b"],
    },
    Damage {
        name: "prepared",
        sql: &[
            "begin; delete from people where id % 2 = 0; savepoint s; delete from people where id % 3 = 0; prepare transaction 'damage'",
            "insert into marks values ('between')",
            "commit prepared 'damage'",
        ],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from people o",
        kind: "delete",
        schema: "public",
        tables: &["people"],
    },
    // Of a table, in a schema, that no base backup has seen, emptied before and filled again.
    Damage {
        name: "unseen",
        sql: &["drop table later.young"],
        content: "select count(*) || md5(string_agg(o::text, ';' order by id)) from later.young o",
        kind: "drop",
        schema: "later",
        tables: &["young"],
    },
];

/// When a damage was done, and what was there before.
struct Done {
    since: String,
    until: String,
    content: String,
}

fn damage(session: &Session, damage: &Damage) -> Result<Done> {
    session.rows(&format!("insert into marks values ('before {}')", damage.name))?;
    let content = session.value(damage.content)?;
    let now = || session.value("select clock_timestamp()");
    let since = now()?;
    for sql in damage.sql {
        session.rows(sql)?;
    }
    let until = now()?;
    session.rows(&format!("insert into marks values ('after {}')", damage.name))?;
    Ok(Done { since, until, content })
}

fn find(site: &Site, more: &[&str]) -> Result<Value> {
    site.restorer.run_long(&[&["find", "--json"], more].concat())?.success()?.json()
}

/// The worst of its time is what was done, by name.
fn found(site: &Site, damage: &Damage, done: &Done) -> Result<Value> {
    let report = find(site, &["--since", &done.since, "--until", &done.until])?;
    ensure!(report["schema"] == "walseal.find/1", "{report:#}");
    let worst = &report["transactions"][0];
    ensure!(worst["kinds"][0] == damage.kind, "{}: {report:#}", damage.name);
    let mut names: Vec<&str> =
        worst["tables"].as_array().context("tables")?.iter().filter_map(|t| t["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, damage.tables, "{}: {worst:#}", damage.name);
    ensure!(worst["restorable"] == true, "{worst:#}");
    Ok(worst.clone())
}

/// What a person reads of that time.
fn read(site: &Site, done: &Done) -> Result<String> {
    Ok(site.restorer.run_long(&["find", "--since", &done.since, "--until", &done.until])?.success()?.stdout)
}

/// Types the command that is printed first, and starts what comes of it.
fn undo(site: &Site, worst: &Value, done: &Done, name: &str) -> Result<Cluster> {
    let folder: PathBuf = site.target(name);
    let printed = read(site, done)?;
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("all before it, without it: "));
    let command = command.and_then(|command| command.strip_suffix(" --target-dir DIR")).context(printed.clone())?;
    ensure!(command.contains(" restore --to lsn:") && command.ends_with(" --exclusive"), "{command}");
    assert_eq!(worst["undo"], command);
    let command = format!("{command} --target-dir {}", folder.display());
    let long = PATIENCE * 10;
    site.scratch.call("/bin/sh").arg("-c").arg(command).within(long).run()?.success()?;
    let mut restored = site.restored(&folder)?;
    restored.start()?;
    restored.wait_promoted(long)?;
    Ok(restored)
}

/// Asked for all of the time, the damages come before everything that pgbench did, each the first of its kind and table.
fn found_among_all(site: &Site, since: &str) -> Result<()> {
    let report = find(site, &["--since", since])?;
    let told = report["transactions"].as_array().context("transactions")?;
    let names = |transaction: &Value| -> Vec<String> {
        let all = transaction["tables"].as_array().into_iter().flatten();
        all.filter_map(|table| table["name"].as_str().map(str::to_owned)).collect()
    };
    let mut worst: Vec<String> = told.iter().take(DAMAGES.len()).flat_map(names).collect();
    worst.sort_unstable();
    let mut expected: Vec<&str> = DAMAGES.iter().flat_map(|damage| damage.tables).copied().collect();
    expected.sort_unstable();
    assert_eq!(worst, expected, "{report:#}");
    for damage in &DAMAGES {
        let (schema, table) = (damage.schema, damage.tables[0]);
        let pattern = format!("{schema}.\"{table}\"");
        let report = find(site, &["--since", since, "--kind", damage.kind, "--table", &pattern])?;
        let mut first = names(&report["transactions"][0]);
        first.sort_unstable();
        assert_eq!(
            (first, &report["found"]),
            (damage.tables.iter().map(|&name| name.to_owned()).collect(), &Value::from(1)),
            "{}: {report:#}",
            damage.name
        );
    }
    Ok(())
}

fn every_damage_is_found_first_and_undone(major: u16) -> Result<()> {
    let cluster = Cluster::builder().major(major).setting("max_prepared_transactions", "4");
    let site = Site::new(cluster, Store::Directory)?;
    let mut daemon: Daemon = site.archive()?;
    Pgbench::initialise(&site.cluster, 1)?;
    let session = site.cluster.session()?;
    session.rows(TABLES)?;
    site.archiver.run_long(&["backup"])?.success()?;
    let load = Pgbench::start(&site.cluster, 2)?;
    session.rows("create schema later")?;
    session.rows("create table later.young (id int primary key, note text)")?;
    session.rows("insert into later.young select i, 'x' from generate_series(1, 10) i")?;
    session.rows("truncate later.young")?;
    session.rows("insert into later.young select i, md5(i::text) from generate_series(1, 600) i")?;
    let mut all = Vec::new();
    // Load between them, for who wants more of it: `bench/damage MINUTES`.
    let between = number_from("WALSEAL_TEST_DAMAGE_SECONDS", 0)? / DAMAGES.len() as u64;
    for one in &DAMAGES {
        session.rows(&format!("select pg_sleep({between})"))?;
        all.push((one, damage(&session, one)?));
    }
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;

    for (one, done) in &all {
        let worst = found(&site, one, done)?;
        let restored = undo(&site, &worst, done, one.name)?;
        assert_eq!(restored.value(one.content)?, done.content, "{}", one.name);
        let mark =
            |when: &str| restored.value(&format!("select count(*) from marks where what = '{when} {}'", one.name));
        assert_eq!((mark("before")?, mark("after")?), ("1".to_owned(), "0".to_owned()), "{}", one.name);
    }

    found_among_all(&site, &all[0].1.since)?;

    // Counts to the row, TOAST attributed; filters; what a person sees.
    let (deletion, done) = all.iter().find(|(one, _)| one.name == "delete").context("the delete")?;
    let worst = found(&site, deletion, done)?;
    let table = &worst["tables"][0];
    ensure!(table["rows"]["deleted"] == 290 && table["toast"].as_u64().is_some_and(|pieces| pieces > 290), "{worst:#}");
    ensure!(table["database"] == "postgres" && table["schema"] == "public", "{worst:#}");
    let (_, prepared) = all.iter().find(|(one, _)| one.name == "prepared").context("the prepared one")?;
    let worst = &find(&site, &["--since", &prepared.since, "--until", &prepared.until, "--table", "public.people"])?;
    assert_eq!((&worst["found"], &worst["transactions"][0]["rows"]["deleted"]), (&Value::from(1), &Value::from(600)));
    let none = find(&site, &["--since", &all[0].1.since, "--kind", "delete", "--min-rows", "601"])?;
    assert_eq!(none["found"], 0, "{none:#}");
    let first = &all[0].1;
    let kinds = find(&site, &["--since", &first.since, "--kind", "drop,truncate"])?;
    assert_eq!(kinds["found"], 4, "{kinds:#}");
    let said = read(&site, first)?;
    for text in
        ["dropped postgres.public.orders", "--exclusive --target-dir DIR", "--table postgres.public.orders --into FILE"]
    {
        ensure!(said.contains(text), "{text} is not in {said}");
    }
    let around = find(&site, &["--at", &first.until, "--limit", "6"])?;
    let listed = around["transactions"].as_array().context("transactions")?;
    ensure!(listed.len() == 6 && listed.is_sorted_by_key(|one| one["lsn"].as_str().map(str::len)), "{around:#}");
    let drawn = site.restorer.run_long(&["find", "--activity", "--since", &first.since])?.success()?;
    for text in ["postgres.public.orders: ", "postgres.public.people: deleted 600 rows", "  rows  ", "  WAL   ", " D"] {
        ensure!(drawn.stdout.contains(text), "{text} is not in {drawn}");
    }
    ensure!(!drawn.stdout.contains('\u{1b}'), "colours in a pipe: {drawn}");
    let wrong = site.restorer.run(&["find", "--activity", "--kind", "drop"])?.exits(2)?;
    ensure!(wrong.stderr.contains("--kind"), "{wrong}");
    let wrong = site.restorer.run(&["find", "--since", "yesterday"])?.exits(2)?;
    ensure!(wrong.stderr.contains("yesterday"), "{wrong}");
    Ok(())
}

#[test]
fn what_was_committed_before_a_time_is_found_however_quiet_it_was_since() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon: Daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let session = site.cluster.session()?;
    session.rows("create table marks (what text)")?;
    session.rows("insert into marks values ('long before')")?;
    for _ in 0..6 {
        session.rows("select pg_logical_emit_message(false, 'quiet', '')")?;
        session.rows("select pg_switch_wal()")?;
    }
    let time = session.value("select clock_timestamp()")?;
    session.rows("insert into marks values ('after')")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let time: jiff::Timestamp = time.parse()?;
    let sides = |around: &Value| -> Result<(usize, usize)> {
        let listed = around["transactions"].as_array().context("transactions")?;
        let times = listed.iter().map(|one| Ok(one["time"].as_str().context("a time")?.parse::<jiff::Timestamp>()?));
        let times = times.collect::<Result<Vec<_>>>()?;
        ensure!(times.is_sorted(), "{around:#}");
        Ok((times.iter().filter(|one| **one <= time).count(), times.iter().filter(|one| **one > time).count()))
    };
    let around = find(&site, &["--at", &time.to_string(), "--limit", "4"])?;
    ensure!(sides(&around)? == (2, 1), "{around:#}");
    // After all of it nothing follows.
    let last = (time + jiff::SignedDuration::from_hours(1)).to_string();
    let around = find(&site, &["--at", &last, "--limit", "4"])?;
    let listed = around["transactions"].as_array().context("transactions")?;
    ensure!(listed.len() == 2, "{around:#}");
    Ok(())
}

#[test]
fn every_damage_on_postgresql_15_is_found_first_and_undone_by_the_printed_command() -> Result<()> {
    every_damage_is_found_first_and_undone(15)
}

#[test]
fn every_damage_on_postgresql_18_is_found_first_and_undone_by_the_printed_command() -> Result<()> {
    every_damage_is_found_first_and_undone(18)
}

/// Its name is neither in the list of the base backup, which was taken before, nor in the WAL of the time that is asked about.
#[test]
fn a_table_that_was_made_after_the_base_backup_and_long_before_is_named() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    let session = site.cluster.session()?;
    session.rows("create table filling (n int)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    // Few enough segments that no summary tells of them; several runs of which summaries do.
    for (schema, segments) in [("near", 6), ("far", 50)] {
        session.rows(&format!("create schema {schema}"))?;
        session.rows(&format!("create table {schema}.young as select i as id from generate_series(1, 300) i"))?;
        for _ in 0..segments {
            session.rows("insert into filling values (1)")?;
            session.rows("select pg_switch_wal()")?;
        }
        let since = session.value("select clock_timestamp()")?;
        session.rows(&format!("drop table {schema}.young"))?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        for more in [&[][..], &["--table", &format!("{schema}.young")]] {
            let report = find(&site, &[&["--since", &since], more].concat())?;
            let table = &report["transactions"][0]["tables"][0];
            ensure!(table["schema"] == schema && table["name"] == "young" && table["dropped"] == true, "{report:#}");
        }
    }
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn a_transaction_is_shown_with_its_records_and_its_table_as_it_was() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    let session = site.cluster.session()?;
    session.rows("create table people (id int primary key, name text); insert into people select i, 'p' || i from generate_series(1, 40) i")?;
    site.archiver.run_long(&["backup"])?.success()?;
    session.rows("begin; delete from people where id > 30")?;
    let xid = session.value("select pg_current_xact_id()")?;
    session.rows("commit; insert into people values (99, 'later')")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.restorer.set_text("drill.scratch_dir", &scratch_dir(&site).to_string_lossy());
    site.restorer.set_text("drill.user", &site.scratch.account().name);
    site.restorer.write_config()?;

    let report = find(&site, &["--xid", &xid])?;
    ensure!(report["transactions"][0]["rows"]["deleted"] == 10, "{report:#}");
    let records = report["records"].as_array().context("records")?;
    let deletes = records.iter().filter(|one| one["manager"] == "Heap" && one["kind"] == "0x10").count();
    ensure!(deletes == 10 && records.last().is_some_and(|last| last["manager"] == "Transaction"), "{report:#}");

    let file = site.scratch.path().join("people.sql");
    let into = file.to_string_lossy().into_owned();
    let diff = ["find", "--xid", &xid, "--restore-diff", "postgres.public.people", "--into", &into];
    let said = site.restorer.run_long(&diff)?.success()?;
    ensure!(said.stdout.contains("deleted 10 rows of postgres.public.people"), "{said}");
    let sql = std::fs::read_to_string(&file)?;
    ensure!(sql.contains("40\tp40") && !sql.contains("later"), "{sql}");
    ensure!(left_behind(&site)?.is_empty(), "the instance is gone");
    site.restorer.run(&diff)?.exits(1)?;
    let nobody = site.restorer.run(&["find", "--xid", "4000000000"])?.exits(1)?;
    ensure!(nobody.stderr.contains("no transaction 4000000000 ended in the WAL"), "{nobody}");
    Ok(())
}
