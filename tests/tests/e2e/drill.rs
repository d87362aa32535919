//! The drill: what passes, what is recorded, what is left behind, and every way in which it must turn red (case 45, I12).

mod both_kinds;
mod canary;
mod dumps;
mod killed;
mod mutations;
mod newest_end;
mod next_base;
mod relations;
mod stranger;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use walseal_tests::account::Account;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::inbox::Inbox;
use walseal_tests::oracle;
use walseal_tests::port;
use walseal_tests::process::Finished;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Side, Site, Store};
use walseal_tests::told::Told;

use crate::{flow, metrics};

/// A name that must not stand anywhere in plain.
const TABLE: &str = "customers_of_acme";

/// A site with a base backup and commits after it, whose restorer may drill and record. No daemon runs any more.
pub fn site(cluster: ClusterBuilder) -> Result<Site> {
    let mut site = Site::new(cluster, Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql(&format!("create table {TABLE} (id bigint primary key, note text)"))?;
    site.cluster.sql(&format!("insert into {TABLE} select i, repeat('x', 100) from generate_series(1, 2000) i"))?;
    site.cluster.sql("create unlogged table sessions as select 1 as id")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql(&format!("insert into {TABLE} values (2001, 'after')"))?;
    site.cluster.sql("create table later as select generate_series(1, 10) as id")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let drill_host = site.restorer.keygen_writer(&site.archiver, "drill.key")?;
    site.restorer.set_text("keys.writer_key_file", &site.restorer.folder().join("drill.key").to_string_lossy());
    site.restorer.set_text("drill.scratch_dir", &scratch_dir(&site).to_string_lossy());
    site.restorer.set_text("drill.user", &site.scratch.account().name);
    site.restorer.write_config()?;
    site.archiver.set("keys.trusted_writers", &format!("[{{ key = \"{drill_host}\", roles = [\"drill\"] }}]"));
    site.archiver.write_config()?;
    Ok(site)
}

/// Where the site's restorer puts what it throws away.
pub fn scratch_dir(site: &Site) -> PathBuf {
    site.scratch.path().join("d")
}

/// What lies in the scratch directory, but for its lock.
pub fn left_behind(site: &Site) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(scratch_dir(site))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != ".walseal-drills.lock");
    Ok(names)
}

/// Drills, and reads the report.
pub fn drill(side: &Side, more: &[&str]) -> Result<(Finished, Value)> {
    let finished = side.run_long(&[&["drill", "--json"], more].concat())?;
    let report = finished.json()?;
    ensure!(report["schema"] == "walseal.drill/1", "{report}");
    Ok((finished, report))
}

/// Name and outcome of each check.
fn outcomes(report: &Value) -> Result<Vec<(String, String)>> {
    let checks = report["checks"].as_array().context("a list of checks")?;
    let word = |check: &Value, member: &str| check[member].as_str().unwrap_or_default().to_owned();
    Ok(checks.iter().map(|check| (word(check, "name"), word(check, "outcome"))).collect())
}

#[test]
fn i12_a_drill_that_passes_proves_the_backup_and_leaves_nothing_behind() -> Result<()> {
    let site = site(Cluster::builder())?;
    let before = site.archiver.run(&["status", "--check"])?;
    ensure!(before.stdout.contains("Proven: never (no drill has run)"), "{before}");
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    let outcomes = outcomes(&report)?;
    ensure!(outcomes.iter().all(|(_, outcome)| outcome == "passed"), "{report:#}");
    let names: Vec<&str> = outcomes.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "recovery",
        "precision",
        "loss",
        "time to restore",
        "extensions",
        "valid indexes",
        "collations",
        "amcheck",
        "rows",
        "pages",
    ];
    assert_eq!(names, expected);
    let rows = |table: &str| {
        let tables = report["tables"].as_array().cloned().unwrap_or_default();
        tables.iter().find(|one| one["table"] == format!("public.{table}")).map(|one| one["rows"].clone())
    };
    assert_eq!((rows(TABLE), rows("later")), (Some(2001.into()), Some(10.into())));
    ensure!(report["unlogged"][0] == "postgres: public.sessions", "{report:#}");
    ensure!(report["log"].as_str().is_some_and(|log| log.contains("redo done at")), "{report:#}");
    assert_eq!(left_behind(&site)?, Vec::<String>::new());

    // Everybody who trusts the drill host hears of it, and nobody reads a table's name in the bucket.
    let list = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    ensure!(list["bases"][0]["proven"] == true && list["bases"][0]["proven_at"].is_string(), "{list:#}");
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(status["bases"][0]["proven"] == true && status["drills"]["passed"] == true, "{status:#}");
    let after = site.archiver.run(&["status", "--check"])?;
    ensure!(after.stdout.contains(" ago.") && !after.stdout.contains("never"), "{after}");
    oracle::no_plaintext(&site.scratch, &site.place.as_folder(&site.scratch)?, &[TABLE])?;
    let mut stranger = site.archiver.clone();
    stranger.unset("keys.trusted_writers");
    stranger.write_config()?;
    let untrusting = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(untrusting["bases"][0]["proven"].is_null(), "only a trusted writer proves anything: {untrusting:#}");

    let evidence = report["recorded"].as_str().context("it is recorded")?;
    let opened = site.restorer.run(&["ledger", "--evidence", evidence])?.success()?.json()?;
    ensure!(opened["tables"] == report["tables"] && opened["verdict"] == "passed", "{opened:#}");
    let other = evidence.replace("/00000000", "/00000001");
    let none = site.restorer.run(&["ledger", "--evidence", &other])?.exits(1)?;
    ensure!(none.stderr.contains("no drill of a trusted writer"), "{none}");

    // The second one compares with the first.
    let (_, second) = drill(&site.restorer, &[])?;
    let rows = second["checks"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "rows")).cloned();
    let expected = rows.context("rows are counted")?["expected"].clone();
    ensure!(expected.as_str().is_some_and(|text| text.contains("in the drill before")), "{expected}");
    Ok(())
}

#[test]
fn i12_a_drill_that_is_not_recorded_is_no_pass() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    site.restorer.unset("keys.writer_key_file");
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(1) && report["verdict"] == "passed", "{finished}");
    ensure!(finished.stderr.contains("the drill passed, not recorded: keys.writer_key_file"), "{finished}");
    ensure!(report["recorded"].is_null(), "{report}");
    let list = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    ensure!(list["bases"][0]["proven"].is_null(), "{list:#}");
    Ok(())
}

#[test]
fn a_random_second_is_drawn_anew_with_the_same_seed_and_is_hit_exactly() -> Result<()> {
    let site = site(Cluster::builder())?;
    let (finished, first) = drill(&site.restorer, &["--to", "random"])?;
    ensure!(finished.code == Some(0), "{finished}");
    let seed = first["seed"].as_u64().context("a seed")?.to_string();
    let (_, second) = drill(&site.restorer, &["--to", "random", "--seed", &seed])?;
    ensure!(first["target"].is_string() && first["target"] == second["target"], "{first} {second}");
    let wrong = site.restorer.run(&["drill", "--seed", "1"])?.exits(2)?;
    ensure!(wrong.stderr.contains("--to random"), "{wrong}");
    Ok(())
}

#[test]
fn every_kind_of_target_is_hit_exactly_and_judged_so() -> Result<()> {
    let site = site(Cluster::builder())?;
    let mut daemon = site.start_daemon()?;
    let mut targets = vec!["immediate".to_owned()];
    for step in 0..3 {
        let insert = format!("begin; insert into later values ({step}); select pg_current_xact_id(); commit");
        targets.push(format!("xid:{}", site.cluster.value(&insert)?));
        targets.push(format!("lsn:{}", site.cluster.insert_lsn()?));
        site.cluster.value(&format!("select pg_create_restore_point('step {step}')"))?;
        targets.push(format!("name:step {step}"));
        targets.push(site.cluster.value("select clock_timestamp()::text")?);
    }
    // A time is reached by a later commit.
    site.cluster.sql("insert into later values (7)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let hit = |target: &str| -> Result<Value> {
        let (finished, report) = drill(&site.restorer, &["--to", target])?;
        ensure!(finished.code == Some(0), "{target}: {finished}");
        ensure!(outcomes(&report)?.contains(&("precision".to_owned(), "passed".to_owned())), "{target}: {report:#}");
        Ok(report)
    };
    let mut last = Value::Null;
    for target in &targets[..9] {
        last = hit(target)?;
    }
    // The very record of a commit: it is replayed, and PostgreSQL does not log its time.
    let commit = &last["drilled"]["last_before"];
    let at = hit(&format!("lsn:{}", commit["lsn"].as_str().context("where the last commit lies")?))?;
    ensure!(at["drilled"]["last_before"] == *commit, "{at:#}");
    Ok(())
}

#[test]
fn case_46_collations_of_another_version_are_named_with_the_indexes_at_risk() -> Result<()> {
    let site = site(Cluster::builder())?;
    let has_icu = site.cluster.value("select count(*) from pg_collation where collname = 'und-x-icu'")? == "1";
    if !has_icu {
        return Ok(()); // As some builds of PostgreSQL; that of the default major has it, and no other collation's version can be made up.
    }
    site.cluster.sql("create table words (word text collate \"und-x-icu\")")?;
    site.cluster.sql("create index words_by_word on words (word)")?;
    site.cluster.sql("create unique index concurrently twice on words (word)")?;
    // As if the indexes had been built by another ICU; and as a CREATE INDEX CONCURRENTLY leaves it that was interrupted.
    site.cluster.sql("update pg_collation set collversion = '1.0' where collname = 'und-x-icu'")?;
    site.cluster.sql("update pg_index set indisvalid = false where indexrelid = 'twice'::regclass")?;
    if site.cluster.value("select current_setting('server_version_num')::int >= 150000")? == "t" {
        site.cluster.sql("update pg_database set datcollversion = '1.0' where datname = current_database()")?;
    }
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "what was so before is no fault of the backup: {finished}");
    let details = |name: &str| -> String {
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let check = checks.into_iter().find(|check| check["name"] == name && check["outcome"] == "warned");
        check.map(|check| check["details"].to_string()).unwrap_or_default()
    };
    let collations = details("collations");
    ensure!(collations.contains("und-x-icu: 1.0 there") && collations.contains("words_by_word"), "{report:#}");
    ensure!(details("valid indexes").contains("postgres: twice"), "{report:#}");
    Ok(())
}

#[test]
fn large_tables_are_counted_as_configured() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    let mut daemon = site.start_daemon()?;
    site.cluster.sql("analyze")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.restorer.set_text("drill.count_above", "100KiB");
    for (how, rows) in [("all", 2001..=2001), ("estimate", 2001..=2001), ("sample", 500..=8000)] {
        site.restorer.set_text("drill.count", how);
        site.restorer.write_config()?;
        let (finished, report) = drill(&site.restorer, &[])?;
        ensure!(finished.code == Some(0), "{finished}");
        let tables = report["tables"].as_array().context("tables")?;
        let of =
            |table: &str| tables.iter().find(|one| one["table"] == format!("public.{table}")).context("it is there");
        let (large, small) = (of(TABLE)?, of("later")?);
        ensure!(
            large["counted"] == how && large["rows"].as_u64().is_some_and(|count| rows.contains(&count)),
            "{large}"
        );
        ensure!(small["counted"] == "all" && small["rows"] == 10, "{small}");
    }
    Ok(())
}

#[test]
fn i12_a_drill_that_is_killed_at_any_moment_leaves_nothing_for_longer_than_the_next_one() -> Result<()> {
    let site = site(Cluster::builder())?;
    // Of the drill that runs, not of one that was killed.
    let data = |before: &[String]| -> Result<Option<PathBuf>> {
        let fresh = left_behind(&site).unwrap_or_default().into_iter().find(|name| !before.contains(name));
        Ok(fresh.map(|name| scratch_dir(&site).join(name).join("data")))
    };
    let alive = |site: &Site| oracle::lives_below(&scratch_dir(site));
    // While files are restored, while the server runs, and told to end in order.
    for (moment, signal) in
        [("PG_VERSION", Signal::KILL), ("postmaster.pid", Signal::KILL), ("postmaster.pid", Signal::TERM)]
    {
        let before = left_behind(&site).unwrap_or_default();
        let mut running = site.restorer.daemon(&["drill"])?;
        running.until(moment, PATIENCE, || Ok(data(&before)?.filter(|data| data.join(moment).exists())))?;
        running.signal(signal)?;
        let ended = running.wait(PATIENCE)?;
        if signal == Signal::TERM {
            ensure!(ended.code == Some(1) && ended.stderr.contains("interrupted"), "{ended}");
            assert_eq!((left_behind(&site)?, alive(&site)?), (Vec::new(), Vec::new()));
        }
    }
    let mut running = site.restorer.daemon(&["drill"])?;
    running.until("a server", PATIENCE, || Ok(data(&[])?.filter(|data| data.join("postmaster.pid").exists())))?;
    running.signal(Signal::KILL)?;
    running.wait(PATIENCE)?;
    eventually("its server to go with it", PATIENCE, || Ok(alive(&site)?.is_empty().then_some(())))?;
    ensure!(left_behind(&site)?.len() == 1, "its files stay until the next drill");
    let (finished, _) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    assert_eq!((left_behind(&site)?, alive(&site)?), (Vec::new(), Vec::new()));
    Ok(())
}

#[test]
fn a_drill_as_root_runs_its_server_as_an_unprivileged_user() -> Result<()> {
    let me = Account::current()?;
    if me.uid != 0 {
        return Ok(()); // Then there is no other user to become; every other test drills as oneself.
    }
    let site = site(Cluster::builder())?;
    // That user has no business with the keys: the drill hands it the WAL.
    let identity = site.restorer.folder().join("identity.key");
    me.own(&identity)?;
    let call = site.scratch.call_as(&me, site.restorer.program()).arg("--config").arg(site.restorer.config());
    let finished = call.args(["drill", "--json", "--keep"]).within(PATIENCE * 2).run()?;
    let report = finished.json()?;
    ensure!(finished.code == Some(0), "{finished}");
    let kept = PathBuf::from(report["kept"].as_str().context("it is kept")?);
    for path in [kept.clone(), kept.join("data"), kept.join("data/PG_VERSION"), kept.join("data.walseal/server.log")] {
        let about = std::fs::metadata(&path)?;
        ensure!(
            about.uid() == site.scratch.account().uid && about.mode() & 0o077 == 0,
            "{}: {about:?}",
            path.display()
        );
    }
    // What was kept is left alone by the next one.
    site.scratch.account().own(&identity)?;
    drill(&site.restorer, &[])?;
    ensure!(kept.join("data/global/pg_control").exists());
    assert_eq!(oracle::lives_below(&scratch_dir(&site))?, Vec::<i32>::new());
    Ok(())
}

#[test]
pub fn the_daemon_drills_on_schedule_records_and_tells_of_what_fails() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    let none = site.restorer.run(&["run"])?.exits(1)?;
    ensure!(none.stderr.contains("drill.schedule is not set"), "{none}");
    let told = Told::by(&mut site.restorer, &site.scratch, "told")?;
    site.restorer.set_text("alerts.proven_within", "1s");
    site.restorer.set_text("drill.schedule", "* * * * *");
    site.restorer.set_text("drill.timezone", "UTC");
    let port = port::free()?;
    site.restorer.set_text("http.listen", &port.to_string());
    site.restorer.set("drill.checks", &checks(&[("impossible", "select 1", "2")]));
    let (inbox, beats, hook) = (Inbox::start()?, "/beats", "/hook");
    site.restorer.set_text("alerts.webhook_url", &inbox.url(hook));
    site.restorer.set_text("alerts.heartbeat_url", &inbox.url(beats));
    site.restorer.set_text("cluster.state_dir", &site.scratch.dir("restorer-state")?.to_string_lossy());
    site.restorer.write_config()?;
    let mut running = site.restorer.daemon(&["run"])?;
    running.says("serving /metrics", PATIENCE)?;
    let held = "walseal_drills_total{of=\"base-backups\",verdict=\"failed\"}";
    let before = running.until("what there is to be drilled", PATIENCE, || {
        let seen = metrics::scrape(port)?;
        Ok(seen.samples.contains_key(held).then_some(seen))
    })?;
    assert_eq!(before.types, metrics::documented_of_drills());
    ensure!(before.of(held)? == 0.0 && metrics::get(port, "/healthz")?.0 == 200, "{before:?}");
    ensure!(!before.samples.contains_key("walseal_drill_proven_time_seconds{of=\"base-backups\"}"), "{before:?}");
    told.arrives(&mut running, "drill-overdue", &["raised"])?;
    running.says("the drill failed", PATIENCE * 2)?;
    let after = metrics::scrape(port)?;
    assert_eq!(after.types, metrics::documented_of_drills(), "names do not come and go");
    let last = |name: &str| after.of(&format!("walseal_drill_last_{name}"));
    let (passed, recorded) = (last("passed{of=\"base-backups\"}")?, last("recorded{of=\"base-backups\"}")?);
    ensure!(passed == 0.0 && recorded == 1.0, "{after:?}");
    ensure!(last("checks{of=\"base-backups\",outcome=\"failed\"}")? == 1.0, "{after:?}");
    ensure!(last("stage_seconds{of=\"base-backups\",stage=\"restore\"}")? > 0.0, "{after:?}");
    let (status, health) = metrics::get(port, "/healthz")?;
    ensure!(status == 503 && health.contains("failed"), "{status} {health}");
    told.arrives(&mut running, "drill-failed", &["raised"])?;
    let failed = told.of("drill-failed")?.pop().context("the alert")?;
    ensure!(failed["text"].as_str().is_some_and(|text| text.contains("impossible")), "{failed}");
    running.sigterm()?.success()?;
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(status["drills"]["passed"] == false && status["bases"][0]["proven"] == false, "{status:#}");
    assert_eq!((left_behind(&site)?, oracle::lives_below(&scratch_dir(&site))?), (Vec::new(), Vec::new()));
    assert_eq!(inbox.posts(beats), Vec::<Value>::new(), "the heart beats for a drill that passed only");
    // Another daemon, whose drill passes: it knows what stands, and tells its end.
    site.restorer.set("drill.checks", &checks(&[("possible", "select 1", "1")]));
    site.restorer.write_config()?;
    let mut running = site.restorer.daemon(&["run"])?;
    let beat = running.until("a heartbeat", PATIENCE * 3, || Ok(inbox.posts(beats).first().cloned()))?;
    ensure!(beat["success"] == "drill-passed" && beat["witness"]["object"].is_string(), "{beat}");
    told.arrives(&mut running, "drill-failed", &["raised", "cleared"])?;
    let of_overdue = || -> Result<Vec<String>> { Ok(told.states("drill-overdue")?.into_iter().take(2).collect()) };
    // A second after the drill it is overdue again.
    running.until("the end of what was overdue", PATIENCE, || {
        Ok((of_overdue()? == ["raised", "cleared"]).then_some(()))
    })?;
    let posted = |state: &str| {
        inbox.posts(hook).iter().filter(|post| post["kind"] == "drill-failed" && post["state"] == state).count()
    };
    running.until("the webhook to be told of both", PATIENCE, || {
        Ok((posted("raised") > 0 && posted("cleared") > 0).then_some(()))
    })?;
    assert_eq!((posted("raised"), posted("cleared")), (1, 1));
    running.sigterm()?.success()?;
    Ok(())
}

#[test]
fn case_48_nothing_of_the_cluster_s_own_configuration_holds_in_a_drill() -> Result<()> {
    let cluster = Cluster::builder().setting("archive_mode", "on").setting("archive_command", "/bin/true");
    let mut site = site(cluster)?;
    // As ALTER SYSTEM writes it, and in a backup by now: a library that is nowhere, and more memory than there is.
    site.cluster.sql("alter system set shared_preload_libraries = 'library_of_acme'")?;
    site.cluster.sql("alter system set shared_buffers = '7TB'")?;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.restorer.set(
        "drill.checks",
        &checks(&[
            ("archives", "show archive_mode", "off"),
            ("listens", "show listen_addresses", ""),
            ("connections", "select current_setting('max_connections')::int >= 40", "t"),
            ("reads only", "show transaction_read_only", "on"),
        ]),
    );
    site.restorer.write_config()?;
    let refused = site.restorer.run(&["drill"])?;
    ensure!(refused.stderr.contains("is empty"), "an expectation is never empty: {refused}");
    site.restorer.set(
        "drill.checks",
        &checks(&[
            ("archives", "show archive_mode", "off"),
            ("listens", "select current_setting('listen_addresses') = ''", "t"),
            ("connections", "select current_setting('max_connections')::int >= 40", "t"),
            ("reads only", "show transaction_read_only", "on"),
        ]),
    );
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    ensure!(report["preload"]["missing"][0] == "library_of_acme", "{report:#}");
    ensure!(outcomes(&report)?.contains(&("recovery".to_owned(), "warned".to_owned())), "{report:#}");
    Ok(())
}

/// `drill.checks` of the database `postgres`.
pub fn checks(all: &[(&str, &str, &str)]) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let one = |(name, sql, expect): &(&str, &str, &str)| {
        format!("{{ name = {}, database = \"postgres\", sql = {}, expect = {} }}", text(name), text(sql), text(expect))
    };
    format!("[{}]", all.iter().map(one).collect::<Vec<_>>().join(", "))
}
