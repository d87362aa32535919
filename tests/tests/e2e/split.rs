//! Two servers write the same timeline: a copy of the primary that somebody started (case 17).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Side, Site, Store};
use walseal_tests::told::Told;
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

/// A primary whose archiver has stored its WAL, and a copy of it that went its own way on the same timeline: the living one, which comes
/// second.
struct SplitBrain {
    site: Site,
    daemon: Daemon,
    living: Cluster,
    /// The copy's archiver, on a host of its own, and what it tells.
    beside: Side,
    told: Told,
    /// The public halves of the keys of both archivers.
    first_key: String,
    second_key: String,
    /// Before the two parted, and what both have of it.
    common: (Lsn, BTreeSet<i64>),
}

/// The public half that a key file tells.
pub fn public_half(side: &Side, file: &str) -> Result<String> {
    let text = std::fs::read_to_string(side.folder().join(file))?;
    let word = text.split_whitespace().find(|word| word.starts_with("walsealw1"));
    word.map(str::to_owned).context("a key file tells its public half")
}

impl SplitBrain {
    /// With `shared`, the copy's archiver has the first one's key, as a copied host has.
    fn new(shared: bool) -> Result<SplitBrain> {
        let builder = Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB");
        let mut site = Site::new(builder, Store::Directory)?;
        let first_key = public_half(&site.archiver, "writer.key")?;
        let mut daemon = site.archive()?;
        site.archiver.run_long(&["backup"])?.success()?;
        let load = Workload::start(&site.cluster, 1)?;
        load.reaches(50, PATIENCE)?;
        load.stop()?;
        let common = (flow::wait_durable(&site.cluster, &mut daemon)?, workload::rows(&site.cluster)?);
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.stop(Stop::Fast)?;
        let data = site.target("copy");
        site.scratch.call("/bin/cp").arg("-a").arg(site.cluster.data()).arg(&data).run()?.success()?;
        site.cluster.start()?;
        daemon.sigterm()?.success()?;
        let mut living = site.restored(&data)?;

        let mut beside = Side::new(&site.scratch, site.archiver.program().to_owned(), "beside")?;
        let key = match shared {
            true => site.archiver.folder().join("writer.key"),
            false => beside.folder().join("writer.key"),
        };
        let mut second_key = first_key.clone();
        if !shared {
            let call = site.scratch.call(beside.program()).args(["keygen", "--output"]).arg(&key);
            let sibling = site.archiver.folder().join("writer.key");
            second_key = call.arg("--sibling-of").arg(sibling).run()?.success()?.text().to_owned();
        }
        let trusted = format!("[\"{first_key}\", \"{second_key}\"]");
        site.archiver.set("keys.trusted_writers", &trusted);
        site.restorer.set("keys.trusted_writers", &trusted);
        let recipient = public_half_of_identity(&site)?;
        beside.set_text("cluster.name", "orders");
        beside.set_text("cluster.conninfo", &living.conninfo());
        beside.set_text("cluster.state_dir", &site.scratch.dir("beside-state")?.to_string_lossy());
        beside.set_text("cluster.pg_bin", &living.server().bin().to_string_lossy());
        beside.set("keys.recipients", &format!("[\"{recipient}\"]"));
        beside.set_text("keys.writer_key_file", &key.to_string_lossy());
        beside.set("keys.trusted_writers", &trusted);
        beside.use_place(&site.place);
        let told = Told::by(&mut beside, &site.scratch, "told")?;
        for side in [&site.archiver, &site.restorer, &beside] {
            side.write_config()?;
        }
        // The first one goes on, and stores what it writes, over several segments.
        let mut daemon = site.start_daemon()?;
        site.cluster.sql("create table only_abandoned as select g from generate_series(1, 20000) g")?;
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql("insert into only_abandoned select generate_series(1, 20000)")?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        living.start()?;
        living.sql("create table only_living as select g from generate_series(1, 100) g")?;
        Ok(SplitBrain { site, daemon, living, beside, told, first_key, second_key, common })
    }
}

/// What `adopt` says of itself.
fn adopt(side: &Side, writer: &str) -> Result<Value> {
    side.run_long(&["adopt", "--writer", writer, "--json"])?.success()?.json()
}

fn public_half_of_identity(site: &Site) -> Result<String> {
    let text = std::fs::read_to_string(site.restorer.folder().join("identity.key"))?;
    let word = text.split_whitespace().find(|word| word.starts_with("walseal1"));
    word.map(str::to_owned).context("an identity file tells its recipient")
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value[member].as_str().with_context(|| format!("no {member} in {value}"))
}

/// Which of the tables are there that only one of the two has.
fn tables(cluster: &Cluster) -> Result<String> {
    cluster.value("select string_agg(relname, ',' order by relname) from pg_class where relname like 'only_%'")
}

#[test]
pub fn case_17_the_living_server_that_came_second_is_adopted_and_everything_goes_on_with_it() -> Result<()> {
    let mut split = SplitBrain::new(false)?;
    split.living.sql("insert into only_living select generate_series(1, 40000)")?;
    let mut second = split.beside.daemon(&["run"])?;
    second.says("walseal-archiver adopt", PATIENCE)?;
    split.told.arrives(&mut second, "conflict", &["raised"])?;
    let status = split.beside.run(&["status", "--json"])?.json()?;
    ensure!(status["alerts"][0]["kind"] == "conflict", "{status}");
    let before = flow::confirmed(&split.living)?;

    // Nobody but one of the two can be named, and naming the other one changes nothing.
    let stranger = {
        let call = split.site.scratch.call(split.beside.program()).args(["keygen", "--output"]);
        call.arg(split.beside.folder().join("stranger.key")).run()?.success()?.text().to_owned()
    };
    let refused = split.beside.run(&["adopt", "--writer", &stranger])?.exits(1)?;
    ensure!(refused.stderr.contains("is no writer of WAL that this archiver trusts"), "{refused}");
    let theirs = adopt(&split.beside, &split.first_key)?;
    assert_eq!(text(&theirs, "outcome")?, "theirs");
    assert_eq!(flow::confirmed(&split.living)?, before, "nothing of it is confirmed");

    let ours = adopt(&split.beside, &split.second_key)?;
    assert_eq!((text(&ours, "outcome")?, ours["daemon_streams"].as_bool()), ("ours", Some(true)), "{ours}");
    let (old, new) = (text(&ours, "branch")?.to_owned(), text(&ours, "to")?.to_owned());
    let load = Workload::start(&split.living, 1)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&split.living, &mut second)?;
    let rows = workload::rows(&split.living)?;
    let again = adopt(&split.beside, &split.second_key)?;
    assert_eq!(text(&again, "outcome")?, "nothing", "{again}");

    let latest = restored::restore(&split.site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    assert_eq!(tables(&latest)?, "only_living");
    drop(latest);
    let common = restored::restore(&split.site, &format!("lsn:{}", split.common.0), "common")?;
    restored::holds_exactly(&common, &split.common.1)?;
    assert_eq!(tables(&common)?, "");
    drop(common);
    let abandoned = restored::restore_with(&split.site, "latest", "abandoned", &["--timeline", &old])?;
    assert_eq!(tables(&abandoned)?, "only_abandoned");
    drop(abandoned);

    // The first one's archiver reads the adoption when it connects again, compares, and stays away, also from the new names.
    split.daemon.sigterm()?.success()?;
    let held = flow::confirmed(&split.site.cluster)?;
    let mut first = split.site.archiver.daemon(&["run"])?;
    split.site.cluster.sql("insert into only_abandoned select generate_series(1, 20000)")?;
    first.says("find out which server is alive", PATIENCE)?;
    split.site.cluster.sql("insert into only_abandoned select generate_series(1, 20000)")?;
    let theirs = adopt(&split.site.archiver, &split.second_key)?;
    assert_eq!((text(&theirs, "outcome")?, text(&theirs, "branch")?), ("theirs", new.as_str()), "{theirs}");
    assert_eq!(flow::confirmed(&split.site.cluster)?, held, "the other one confirms nothing more");
    split.living.sql("insert into only_living select generate_series(1, 20000)")?;
    flow::wait_durable(&split.living, &mut second)?;

    // A failover of the living one is followed as any other.
    split.living.stop(Stop::Fast)?;
    let signal = split.living.data().join("standby.signal");
    std::fs::write(&signal, "")?;
    split.site.scratch.account().own(&signal)?;
    split.living.start()?;
    split.living.value("select pg_promote()")?;
    split.living.wait_promoted(PATIENCE)?;
    let load = Workload::start(&split.living, 1)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&split.living, &mut second)?;
    assert_eq!(split.living.value("select timeline_id from pg_control_checkpoint()")?, "2");
    let rows = workload::rows(&split.living)?;
    let latest = restored::restore(&split.site, "latest", "promoted")?;
    restored::holds_exactly(&latest, &rows)?;
    assert_eq!(tables(&latest)?, "only_living");
    assert_eq!(latest.value("select count(*) from only_living")?, "60100");
    drop(latest);

    split.told.arrives(&mut second, "conflict", &["raised", "cleared"])?;
    let listed = split.site.restorer.run(&["list"])?.success()?;
    ensure!(listed.stdout.contains(&old) && listed.stdout.contains(&new), "the split is told: {listed}");
    let status = split.beside.run(&["status"])?.success()?;
    ensure!(status.stdout.contains(&format!("{old} was left for {new}")), "the split is told: {status}");
    let ledger = split.site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let acts = ledger["entries"].as_array().context("entries")?.iter().filter(|entry| entry["act"] == "adopted");
    let mut named: Vec<&str> = acts.filter_map(|entry| entry["facts"]["writer"].as_str()).collect();
    named.sort();
    let mut expected = [split.first_key.as_str(), &split.second_key, &split.second_key];
    expected.sort();
    assert_eq!(named, expected);
    Ok(())
}

#[test]
pub fn case_17_a_server_that_came_back_with_an_older_disk_is_told_before_anything_differs() -> Result<()> {
    let split = SplitBrain::new(true)?;
    split.daemon.sigterm()?.success()?;
    // It streams, and nothing waits: all the same what is committed now is stored nowhere.
    let mut second = split.beside.daemon(&["run"])?;
    split.told.arrives(&mut second, "server-behind", &["raised"])?;
    let check = split.beside.run(&["status", "--check"])?.exits(2)?;
    ensure!(check.stdout.contains("the repository holds more of branch 00000001-"), "{check}");
    let ours = adopt(&split.beside, &split.second_key)?;
    assert_eq!(text(&ours, "outcome")?, "ours", "{ours}");
    split.told.arrives(&mut second, "server-behind", &["raised", "cleared"])?;
    split.living.sql("insert into only_living select generate_series(1, 1000)")?;
    flow::wait_durable(&split.living, &mut second)?;
    let latest = restored::restore(&split.site, "latest", "latest")?;
    let rows = latest.value("select count(*) from only_living")?;
    assert_eq!((tables(&latest)?, rows), ("only_living".into(), "1100".into()));
    Ok(())
}

#[test]
fn case_17_with_one_key_on_both_hosts_the_host_decides_and_the_hook_keeps_to_it() -> Result<()> {
    let split = SplitBrain::new(true)?;
    split.daemon.sigterm()?.success()?;
    // No daemon runs on the living host: it goes on when it is started.
    let ours = adopt(&split.beside, &split.second_key)?;
    assert_eq!((text(&ours, "outcome")?, ours["daemon_streams"].as_bool()), ("ours", Some(false)), "{ours}");
    let new = text(&ours, "to")?.to_owned();

    // Neither the other server's files nor its stream land on the new branch, although they come first.
    let ready = |cluster: &Cluster| -> Result<String> {
        let name = cluster.value("select pg_walfile_name(pg_switch_wal())")?;
        Ok(cluster.data().join("pg_wal").join(name).to_string_lossy().into_owned())
    };
    split.site.cluster.sql("insert into only_abandoned select generate_series(1, 20000)")?;
    let file = ready(&split.site.cluster)?;
    let refused = split.site.archiver.run(&["push", &file])?.exits(1)?;
    ensure!(refused.stderr.contains("two servers"), "{refused}");
    let mut first = split.site.archiver.daemon(&["run"])?;
    first.says("walseal-archiver adopt", PATIENCE)?;
    let mine = |key: &String| key.contains(&format!("/{new}/"));
    let listed = split.site.place.list()?;
    let on_new = listed.iter().map(|object| object.key.clone()).filter(|key| !key.contains("/conflict/"));
    let on_new: Vec<String> = on_new.filter(|key| mine(key) && !key.contains("/adopt/")).collect();
    assert_eq!(on_new.len(), 1, "what adopt stored, and nothing else: {on_new:?}");

    // The living one's hook goes on from there, and its stream.
    split.living.sql("insert into only_living select generate_series(1, 1000)")?;
    let file = ready(&split.living)?;
    split.beside.run(&["push", &file])?.success()?;
    let mut second = split.beside.daemon(&["run"])?;
    split.living.sql("insert into only_living select generate_series(1, 20000)")?;
    flow::wait_durable(&split.living, &mut second)?;
    let latest = restored::restore(&split.site, "latest", "latest")?;
    assert_eq!(
        (tables(&latest)?, latest.value("select count(*) from only_living")?),
        ("only_living".into(), "21100".into())
    );
    Ok(())
}
