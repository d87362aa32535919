//! One table, one database, out of a backup and back to a server.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use walseal_tests::account::Account;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::oracle;
use walseal_tests::process::Finished;
use walseal_tests::session::Session;
use walseal_tests::site::{Site, Store};

use crate::drill::{left_behind, scratch_dir};
use crate::flow;

/// Tables with everything that makes a dump of one difficult: odd names, an identity, an index, partitions, a namesake.
const TABLES: &str = "create table orders (id bigint generated always as identity primary key, note text); \
     create index on orders (note); insert into orders (note) select 'order ' || i from generate_series(1, 3000) i; \
     create table \"Odd.Name\" (\"a\"\"b\" int primary key); insert into \"Odd.Name\" select generate_series(1, 7); \
     create table events (at date, what text) partition by range (at); \
     create table events_2025 partition of events for values from ('2025-01-01') to ('2026-01-01'); \
     create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01'); \
     insert into events select date '2025-12-01' + i, 'e' || i from generate_series(1, 60) i; \
     create schema archive; create table archive.orders (id int); insert into archive.orders values (1); \
     create unlogged table sessions as select 1 as id";

/// What the tables hold, in one line; the server's own words.
const CONTENT: &str = "select (select count(*) || ' ' || md5(string_agg(o::text, ';' order by id)) from orders o) || ' / ' || \
     (select count(*) || ' ' || md5(string_agg(o::text, ';' order by 1)) from \"Odd.Name\" o) || ' / ' || \
     (select count(*) || ' ' || md5(string_agg(e::text, ';' order by at)) from events e)";

/// A cluster with a database `shop`, a base backup, rows after it, and then an accident. No daemon runs any more.
struct Accident {
    site: Site,
    /// Just before it.
    before: String,
    /// What the tables held then.
    content: String,
}

impl Accident {
    fn new(cluster: walseal_tests::settings::ClusterBuilder, accident: &str) -> Result<Accident> {
        let mut site = Site::new(cluster, Store::Directory)?;
        let mut daemon = site.archive()?;
        site.cluster.sql("create database shop")?;
        shop(&site)?.rows(TABLES)?;
        site.archiver.run_long(&["backup"])?.success()?;
        shop(&site)?.rows("insert into orders (note) values ('after the backup'); update \"Odd.Name\" set \"a\"\"b\" = 8 where \"a\"\"b\" = 1")?;
        let content = shop(&site)?.value(CONTENT)?;
        let before = format!("lsn:{}", site.cluster.insert_lsn()?);
        // Somewhere to stop: a record at that position, and not the accident.
        site.cluster.sql("create table unrelated (a int)")?;
        shop(&site)?.rows(accident)?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        site.restorer.set_text("drill.scratch_dir", &scratch_dir(&site).to_string_lossy());
        site.restorer.set_text("drill.user", &site.scratch.account().name);
        site.restorer.write_config()?;
        Ok(Accident { site, before, content })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.scratch.path().join(name)
    }

    /// Runs `restore --into`.
    fn extract(&self, to: &str, file: &Path, more: &[&str]) -> Result<Finished> {
        let into = file.to_string_lossy();
        self.site.restorer.run_long(&[&["restore", "--to", to, "--into", &into], more].concat())
    }

    /// Types what a restore said to type, on the database host.
    fn type_next(&self, report: &Value) -> Result<()> {
        let commands: Vec<String> = report["next"]
            .as_str()
            .context("what to type")?
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .map(str::to_owned)
            .collect();
        ensure!(!commands.is_empty(), "{report:#}");
        let cluster = &self.site.cluster;
        let bin = cluster.server().bin().display().to_string();
        for command in commands {
            let call = self.site.scratch.call("/bin/sh").arg("-c").arg(format!("PATH={bin}:$PATH {command}"));
            let (host, port) = (cluster.sockets().display().to_string(), cluster.port().to_string());
            call.env("PGHOST", host)
                .env("PGPORT", port)
                .env("PGUSER", &self.site.scratch.account().name)
                .run()?
                .success()?;
        }
        Ok(())
    }
}

fn shop(site: &Site) -> Result<Session> {
    database(site, "shop")
}

fn database(site: &Site, name: &str) -> Result<Session> {
    Session::connect(&site.cluster.conninfo().replace("dbname=postgres", &format!("dbname={name}")))
}

#[test]
fn dropped_tables_come_back_by_pg_restore_and_by_psql() -> Result<()> {
    let mut accident = Accident::new(Cluster::builder(), "drop table orders, \"Odd.Name\", events")?;
    let drill_host = accident.site.restorer.keygen_writer(&accident.site.archiver, "drill.key")?;
    accident
        .site
        .restorer
        .set_text("keys.writer_key_file", &accident.site.restorer.folder().join("drill.key").to_string_lossy());
    accident.site.restorer.write_config()?;
    let tables =
        ["--table", "shop.public.orders", "--table", "shop.public.\"Odd.Name\"", "--table", "Shop.Public.Events"];
    for name in ["lost.dump", "lost.sql"] {
        let file = accident.file(name);
        let said = accident.extract(&accident.before, &file, &[&tables[..], &["--json"]].concat())?.success()?;
        let report = said.json()?;
        ensure!(report["schema"] == "walseal.extract/1" && report["tables"][2]["below"] == 2, "{report:#}");
        ensure!(report["format"] == if name.ends_with("sql") { "plain" } else { "custom" }, "{report:#}");
        let found = std::fs::metadata(&file)?;
        ensure!(found.mode() & 0o777 == 0o600 && report["bytes"] == found.len(), "{found:?}");
        assert_eq!(
            (left_behind(&accident.site)?, oracle::lives_below(&scratch_dir(&accident.site))?),
            (Vec::new(), Vec::new())
        );

        shop(&accident.site)?.rows("drop table if exists orders, \"Odd.Name\", events")?;
        accident.type_next(&report)?;
        let session = shop(&accident.site)?;
        assert_eq!(session.value(CONTENT)?, accident.content, "{name}");
        // Up to 32 ahead, after recovery (case 47).
        let next: i64 = session.value("insert into orders (note) values ('next') returning id")?.parse()?;
        ensure!((3002..=3034).contains(&next), "the sequence goes on: {next}");
        assert_eq!(session.value("select count(*) from archive.orders")?, "1", "its namesake is untouched");
    }
    let again = accident.extract(&accident.before, &accident.file("lost.sql"), &tables)?.exits(1)?;
    ensure!(again.stderr.contains("lost.sql is there already, and is never overwritten"), "{again}");
    ensure!(
        std::fs::read_to_string(accident.file("lost.sql"))?.contains("PostgreSQL database dump complete"),
        "untouched"
    );

    let entries = accident.site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let acts: Vec<&str> = entries["entries"]
        .as_array()
        .context("entries")?
        .iter()
        .filter(|entry| entry["writer"] == drill_host.as_str())
        .filter_map(|entry| entry["act"].as_str())
        .collect();
    assert_eq!(acts, ["restore-started", "restore-finished"].repeat(2));
    Ok(())
}

#[test]
fn a_database_comes_back_beside_the_one_that_is_there() -> Result<()> {
    let accident =
        Accident::new(Cluster::builder(), "delete from orders; update \"Odd.Name\" set \"a\"\"b\" = -\"a\"\"b\"")?;
    let file = accident.file("shop.dump");
    let plan = accident.extract(&accident.before, &file, &["--database", "shop", "--dry-run"])?.success()?;
    let place = format!("The whole cluster is restored to {}", scratch_dir(&accident.site).display());
    ensure!(plan.stdout.contains(&place) && plan.stdout.contains("that are free there") && !file.exists(), "{plan}");
    ensure!(plan.stdout.contains("in custom format"), "{plan}");

    let said = accident.extract(&accident.before, &file, &["--database", "shop"])?.success()?;
    ensure!(said.stdout.contains("Dumped: database shop in custom format to "), "{said}");
    ensure!(said.stdout.contains("The one after it, which is not in"), "where it landed: {said}");
    let sql = accident.file("shop.txt");
    let report = accident
        .extract(&accident.before, &sql, &["--database", "shop", "--format", "plain", "--json"])?
        .success()?
        .json()?;
    accident.type_next(&report)?;
    assert_eq!(database(&accident.site, "shop_restored")?.value(CONTENT)?, accident.content);
    ensure!(shop(&accident.site)?.value(CONTENT)? != accident.content, "what is there stays as it is");
    Ok(())
}

#[test]
fn case_32_an_unlogged_table_is_said_to_come_back_empty() -> Result<()> {
    let accident = Accident::new(Cluster::builder(), "drop table sessions")?;
    let said =
        accident.extract(&accident.before, &accident.file("s.sql"), &["--table", "shop.public.sessions"])?.success()?;
    ensure!(said.stdout.contains("Warning: public.sessions is unlogged: its rows are in no backup"), "{said}");
    Ok(())
}

#[test]
fn a_wrong_name_is_told_with_what_is_there_and_with_who_else_has_it() -> Result<()> {
    let accident = Accident::new(Cluster::builder(), "drop table orders")?;
    // A second base backup: without the table that was dropped, and with one that was not there before.
    let mut daemon = accident.site.start_daemon()?;
    shop(&accident.site)?.rows("create table invoices (id int)")?;
    accident.site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&accident.site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let file = accident.file("x.dump");
    let ask = |to: &str, more: &[&str]| -> Result<String> {
        let said = accident.extract(to, &file, more)?.exits(1)?;
        assert_eq!((left_behind(&accident.site)?, file.exists()), (Vec::new(), false));
        Ok(said.stderr)
    };
    // Already before the restore, and once more when it is certain.
    let typo = ask(&accident.before, &["--table", "shop.public.ordres"])?;
    ensure!(typo.contains("lists no table shop.public.ordres; it lists shop.public.orders"), "{typo}");
    let error =
        format!("error: there is no table shop.public.ordres at {}, but there is shop.public.orders", accident.before);
    ensure!(typo.contains(&error), "{typo}");
    let dots = accident.extract(&accident.before, &file, &["--table", "shop.public.Odd.Name"])?.exits(2)?;
    ensure!(dots.stderr.contains("has too many dots"), "{dots}");
    let folded = ask(&accident.before, &["--table", "shop.public.\"odd.name\""])?;
    ensure!(folded.contains("but there is shop.public.\"Odd.Name\""), "{folded}");
    let elsewhere = ask(&accident.before, &["--table", "shop.sales.orders"])?;
    ensure!(elsewhere.contains("but there is shop.archive.orders, shop.public.orders"), "{elsewhere}");
    let early = ask(&accident.before, &["--table", "shop.public.invoices"])?;
    ensure!(early.contains("choose a later target: base backup ") && !early.contains("an earlier target"), "{early}");
    let late = ask("latest", &["--table", "shop.public.orders"])?;
    ensure!(late.contains("choose an earlier target: base backup ") && !late.contains("a later target"), "{late}");
    let database = ask(&accident.before, &["--database", "shpo"])?;
    ensure!(database.contains("there is no database shpo at") && database.contains("but there is shop"), "{database}");
    Ok(())
}

#[test]
fn without_enough_space_nothing_is_begun() -> Result<()> {
    let accident = Accident::new(Cluster::builder(), "drop table orders")?;
    let me = Account::current()?;
    let place = accident.site.scratch.dir("small")?;
    let mounted = me.uid == 0 && {
        let call = accident.site.scratch.call_as(&me, "/usr/bin/mount").args([
            "-t",
            "tmpfs",
            "-o",
            "size=40m,mode=755",
            "tmpfs",
        ]);
        call.arg(&place).run()?.code == Some(0)
    };
    if !mounted {
        return Ok(()); // Where no small file system can be made, the unit tests of the space check stand for this.
    }
    accident.site.scratch.account().own(&place)?;
    let small = place.to_string_lossy().into_owned();
    let file = accident.file("orders.dump");
    let refused =
        accident.extract(&accident.before, &file, &["--table", "shop.public.orders", "--scratch-dir", &small]);
    let rest: Vec<_> = std::fs::read_dir(&place)?.flatten().map(|entry| entry.file_name()).collect();
    accident.site.scratch.call_as(&me, "/usr/bin/umount").arg(&place).run()?.success()?;
    let refused = refused?.exits(1)?;
    ensure!(refused.stderr.contains("MiB free, and the restore needs "), "{refused}");
    ensure!(refused.stderr.contains("--scratch-dir D") && !refused.stderr.contains("--waldir"), "{refused}");
    assert_eq!((rest, file.exists()), (vec![".walseal-drills.lock".into()], false));
    Ok(())
}

#[test]
fn i7_killed_at_any_moment_there_is_no_dump_and_the_next_one_clears_up() -> Result<()> {
    let accident = Accident::new(Cluster::builder(), "drop table orders")?;
    let file = accident.file("orders.dump");
    let into = file.to_string_lossy().into_owned();
    let verb = ["restore", "--to", &accident.before, "--table", "shop.public.orders", "--into", &into];
    let data = |before: &[String]| -> Result<Option<PathBuf>> {
        let fresh = left_behind(&accident.site).unwrap_or_default().into_iter().find(|name| !before.contains(name));
        Ok(fresh.map(|name| scratch_dir(&accident.site).join(name).join("data")))
    };
    let alive = || oracle::lives_below(&scratch_dir(&accident.site));
    for (moment, signal) in
        [("PG_VERSION", Signal::KILL), ("postmaster.pid", Signal::KILL), ("postmaster.pid", Signal::TERM)]
    {
        let before = left_behind(&accident.site).unwrap_or_default();
        let mut running = accident.site.restorer.daemon(&verb)?;
        running.until(moment, PATIENCE, || Ok(data(&before)?.filter(|data| data.join(moment).exists())))?;
        running.signal(signal)?;
        let ended = running.wait(PATIENCE)?;
        ensure!(!file.exists(), "{ended}");
        // Its server goes with it; a dump that had begun ends with the server.
        eventually("its server to go with it", PATIENCE, || Ok(alive()?.is_empty().then_some(())))?;
        if signal == Signal::TERM {
            ensure!(ended.code == Some(1) && ended.stderr.contains("the restore was interrupted"), "{ended}");
            assert_eq!(left_behind(&accident.site)?, Vec::<String>::new());
            ensure!(!accident.file("orders.dump.walseal-partial").exists(), "{ended}");
        }
    }
    let mut running = accident.site.restorer.daemon(&verb)?;
    running.until("a server", PATIENCE, || Ok(data(&[])?.filter(|data| data.join("postmaster.pid").exists())))?;
    running.signal(Signal::KILL)?;
    running.wait(PATIENCE)?;
    ensure!(
        left_behind(&accident.site)?.len() == 1 && accident.file("orders.dump.walseal-partial").exists(),
        "until the next one"
    );
    let report =
        accident.extract(&accident.before, &file, &["--table", "shop.public.orders", "--json"])?.success()?.json()?;
    assert_eq!((left_behind(&accident.site)?, alive()?), (Vec::new(), Vec::new()));
    ensure!(file.exists() && !accident.file("orders.dump.walseal-partial").exists(), "only the whole dump is there");
    accident.type_next(&report)?;
    assert_eq!(shop(&accident.site)?.value(CONTENT)?, accident.content);
    Ok(())
}

#[test]
fn root_keeps_the_dump_for_itself_and_runs_the_server_as_another_user() -> Result<()> {
    let me = Account::current()?;
    if me.uid != 0 {
        return Ok(()); // Then there is no other user to become; every other test restores as oneself.
    }
    let accident = Accident::new(Cluster::builder(), "drop table orders")?;
    // Where the server's user can't go.
    let folder = accident.file("of-root");
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    let file = folder.join("orders.dump");
    let site = &accident.site;
    let call = site.scratch.call_as(&me, site.restorer.program()).arg("--config").arg(site.restorer.config());
    let call = call.args(["restore", "--to", &accident.before, "--table", "shop.public.orders", "--into"]).arg(&file);
    call.within(PATIENCE * 2).run()?.success()?;
    let found = std::fs::metadata(&file)?;
    ensure!(found.uid() == 0 && found.mode() & 0o777 == 0o600 && found.len() > 0, "{found:?}");
    assert_eq!(left_behind(site)?, Vec::<String>::new());
    Ok(())
}
