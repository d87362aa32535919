//! Drills of snapshots on a server that others use.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::session::Session;
use walseal_tests::site::{Daemon, Site, Store};

use super::{ODD, conninfo, id, other, outcome, shop, site, take};

/// A site with a snapshot of a database that needs no superuser, and a server with a role that may make databases.
struct Scene {
    site: Site,
    taken: Value,
    server: Cluster,
}

impl Scene {
    fn new() -> Result<Scene> {
        let mut site = site(Cluster::builder(), Store::Directory)?;
        site.restorer.keygen_writer(&site.archiver, "drill.key")?;
        site.restorer.set_text("keys.writer_key_file", &site.restorer.folder().join("drill.key").to_string_lossy());
        site.cluster.sql("create database plain")?;
        shop(&site.cluster, "plain")?.rows(
            "create table parents as select generate_series(1, 100) as id; alter table parents add primary key (id); \
             create table children as select id as parent from parents; \
             alter table children add constraint of_parent foreign key (parent) references parents; \
             create schema other; create table other.\"Odd\"(c text); insert into other.\"Odd\" values ('ä'); \
             create subscription abroad connection 'host=/nowhere' publication everything with (connect = false); \
             comment on subscription abroad is 'of another server'; \
             create materialized view of_session as select name, setting from pg_settings",
        )?;
        let taken = take(&site, &["--database", "plain"])?;
        let server = other(&site, None)?;
        server.sql("create role driller login createdb")?;
        server.sql("create database verify_not_ours")?;
        Ok(Scene { site, taken, server })
    }

    /// As the role that drills.
    fn on(&self) -> String {
        as_driller(&self.server)
    }

    /// A drill that has restored everything, and waits for an answer that does not come.
    fn waiting(&mut self) -> Result<Daemon> {
        self.check("select pg_sleep(600)::text", "never")?;
        let mut drill = self.site.restorer.daemon(&["snapshot", "drill", id(&self.taken)?, "--on", &self.on()])?;
        let asked = "select count(*) from pg_stat_activity where query like 'select pg_sleep(600)%'";
        drill.until("the drill to ask", PATIENCE, || Ok((self.server.value(asked)? == "1").then_some(())))?;
        Ok(drill)
    }

    fn check(&mut self, sql: &str, expect: &str) -> Result<()> {
        let checks = format!(
            "[[checks]]\nname = \"mine\"\ndatabase = \"plain\"\nsql = \"{sql}\"\nexpect = \"{expect}\"\ntimeout = \"10m\"\n"
        );
        let file = self.site.scratch.file("checks.toml", &checks)?;
        self.site.restorer.set_text("drill.checks_file", &file.to_string_lossy());
        self.site.restorer.write_config()
    }

    /// Databases that look like those of drills.
    fn databases(&self) -> Result<Vec<String>> {
        let rows = self.server.sql("select datname from pg_database where datname ~ '^verify_' order by 1")?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    fn ensure_clean(&self) -> Result<()> {
        let there = self.databases()?;
        ensure!(there == ["verify_not_ours"], "{there:?}");
        Ok(())
    }
}

fn as_driller(server: &Cluster) -> String {
    server.conninfo().split(' ').filter(|word| !word.starts_with("user=")).collect::<Vec<_>>().join(" ")
        + " user=driller"
}

/// Counts the limits of time that stand, in one of these tables, but for that of the check itself.
fn limits(settings: &str) -> String {
    format!(
        "select count(*) from {settings} where setting <> '0' \
         and name in ('lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout')"
    )
}

#[test]
fn a_drill_on_a_server_proves_a_snapshot_and_leaves_nothing_there() -> Result<()> {
    let mut scene = Scene::new()?;
    // What the role is allowed elsewhere is no limit of a drill, and of no session of it: the view was filled by pg_restore.
    for limit in ["statement", "lock", "idle_session", "idle_in_transaction_session"] {
        scene.server.sql(&format!("alter role driller set {limit}_timeout = '1h'"))?;
    }
    let limits = format!("({}) || ' ' || ({})", limits("pg_settings"), limits("of_session"));
    scene.check(&format!("select count(*) || ' ' || {limits} from children"), "100 0 0")?;
    let taken = id(&scene.taken)?.to_owned();
    let drill = ["snapshot", "drill", &taken, "--json"];
    let report = scene.site.restorer.run_long(&[&drill[..], &["--on", &scene.on()]].concat())?.success()?.json()?;
    for name in ["pg_restore", "rows", "foreign keys", "mine", "database dropped"] {
        ensure!(outcome(&report, name)? == "passed", "{name} in {report:#}");
    }
    ensure!(outcome(&report, "roles and tablespaces")? == "warned", "{report:#}");
    ensure!(report["tables"] == 3 && report["server"].is_string(), "{report:#}");
    scene.ensure_clean()?;

    // i12: what fails does so here, too, by the configuration's server; and goes.
    scene.site.restorer.set_text("drill.conninfo", &scene.on());
    scene.check("select count(*) from children", "101")?;
    let failed = scene.site.restorer.run_long(&drill[..3])?.exits(1)?;
    ensure!(failed.stderr.contains("the drill failed: mine: 100"), "{failed}");
    scene.ensure_clean()?;
    // What the dump cannot have without being superuser is an error of pg_restore.
    let all = take(&scene.site, &["--database", ODD])?;
    let failed = scene.site.restorer.run_long(&["snapshot", "drill", id(&all)?])?.exits(1)?;
    ensure!(failed.stdout.contains("FOR ALL TABLES publication"), "{failed}");
    scene.ensure_clean()?;

    // Where it cannot begin it says what to do.
    scene.server.sql("alter role driller nocreatedb")?;
    let refused = scene.site.restorer.run_long(&drill[..3])?.exits(1)?;
    ensure!(refused.stdout.contains("may not make a database") && refused.stdout.contains("createdb"), "{refused}");
    let older = other(&scene.site, Some(14))?;
    older.sql("create role driller login createdb")?;
    let refused = scene.site.restorer.run_long(&[&drill[..3], &["--on", &as_driller(&older)]].concat())?.exits(1)?;
    ensure!(refused.stdout.contains("is PostgreSQL 14, and pg_dump"), "{refused}");
    // Which server it was is on record all the same.
    let again = scene.site.restorer.run_long(&[&drill[..], &["--on", &as_driller(&older)]].concat())?;
    let report = again.exits(1)?.json()?;
    ensure!(report["server"].is_string(), "{report:#}");
    let secret = ["snapshot", "drill", "--on", "host=db password=hunter2"];
    let refused = scene.site.restorer.run(&secret)?.exits(2)?;
    ensure!(refused.stderr.contains("--on holds a password") && !refused.stderr.contains("hunter2"), "{refused}");
    Ok(())
}

#[test]
fn what_an_interrupted_drill_made_on_a_server_goes_and_what_one_that_lives_made_stays() -> Result<()> {
    let mut scene = Scene::new()?;
    let living = scene.waiting()?;
    let its = scene.databases()?;
    ensure!(its.len() == 2, "{its:?}");
    // Nobody else looks into it meanwhile.
    scene.server.sql("create role curious login")?;
    let name = its.iter().find(|name| *name != "verify_not_ours").context("one")?;
    let outside =
        "select count(*) from pg_stat_activity where datname = 'postgres' and application_name = 'walseal drill ";
    ensure!(scene.server.value(&format!("{outside}{name}'"))? == "1", "who drills elsewhere sees that it lives");
    let curious = conninfo(&scene.server, name).replace("user=", "user=curious application_name=");
    let refused = scene.server.psql(&curious).arg("--command=select 1").run()?;
    ensure!(refused.stderr.contains("permission denied for database"), "{refused}");

    scene.check("select 1", "1")?;
    let (taken, on) = (id(&scene.taken)?.to_owned(), scene.on());
    let drill = ["snapshot", "drill", &taken, "--on", &on];
    scene.site.restorer.run_long(&drill)?.success()?;
    ensure!(scene.databases()? == its, "the other drill's is left alone");
    let ended = living.sigterm()?.exits(1)?;
    ensure!(ended.stderr.contains("interrupted"), "{ended}");
    scene.ensure_clean()?;

    // Killed, it can do nothing; the next one does.
    let mut killed = scene.waiting()?;
    killed.signal(Signal::KILL)?;
    drop(killed);
    ensure!(scene.databases()?.len() == 2);
    let gone = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname ~ '^verify_'";
    eventually("its sessions to end", PATIENCE, || Ok((scene.server.value(gone)? == "0").then_some(())))?;
    scene.check("select 1", "1")?;
    scene.site.restorer.run_long(&drill)?.success()?;
    scene.ensure_clean()
}

#[test]
fn what_a_drill_left_stays_while_a_session_is_called_after_it_and_what_cannot_be_dropped_is_told() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.check("select 1", "1")?;
    let left = "verify_0123456789abcdef";
    scene.server.sql("create database elsewhere")?;
    scene.server.sql(&format!("create database {left} owner driller"))?;
    let (taken, on) = (id(&scene.taken)?.to_owned(), scene.on());
    let drill = ["snapshot", "drill", &taken, "--on", &on];
    let sessions = |condition: String| -> Result<()> {
        let asked = format!("select count(*) from pg_stat_activity where {condition}");
        eventually("sessions to end", PATIENCE, || Ok((scene.server.value(&asked)? == "0").then_some(())))
    };

    // A drill that has made its database and is not in it yet, with its orders given from another one.
    let name = format!("walseal drill {left}");
    let elsewhere = on.replace("dbname=postgres", "dbname=elsewhere");
    let keeper = Session::connect(&format!("{elsewhere} application_name='{name}'"))?;
    scene.site.restorer.run_long(&drill)?.success()?;
    ensure!(scene.databases()?.iter().any(|database| database == left), "it lives");
    drop(keeper);
    sessions(format!("application_name = '{name}'"))?;

    // One that was killed, and whose database cannot be dropped.
    let options = "with (connect = false, slot_name = none)";
    shop(&scene.server, left)?
        .rows(&format!("create subscription abroad connection 'host=/nowhere' publication everything {options}"))?;
    sessions(format!("datname = '{left}'"))?;
    let passed = scene.site.restorer.run_long(&drill)?.success()?;
    ensure!(passed.stderr.contains("nobody is in it") && passed.stderr.contains("subscription"), "{passed}");
    ensure!(passed.stderr.contains(left), "{passed}");
    shop(&scene.server, left)?.rows("drop subscription abroad")?;
    sessions(format!("datname = '{left}'"))?;
    scene.site.restorer.run_long(&drill)?.success()?;
    scene.ensure_clean()
}
