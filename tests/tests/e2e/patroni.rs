//! A cluster under Patroni, followed through two switchovers and a failover without a hand.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::patroni::Patroni;
use walseal_tests::scratch::Scratch;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::workload::{self, Commit, Workload};

use crate::flow::{self, SLOT};
use crate::restored;

/// Whether a server has our slot.
fn has_slot(cluster: &Cluster) -> Result<bool> {
    let sql =
        format!("select count(*) from pg_replication_slots where slot_name = '{SLOT}' and restart_lsn is not null");
    Ok(cluster.value(&sql)? == "1")
}

/// The lines of `doctor` about a failover.
fn failover_of_doctor(site: &Site) -> Result<String> {
    let shown = site.archiver.run(&["doctor"])?.success()?;
    let from = shown.stdout.lines().skip_while(|line| !line.contains(" failover "));
    let lines: Vec<&str> = from.take_while(|line| line.contains(" failover ") || line.starts_with(' ')).collect();
    ensure!(!lines.is_empty(), "doctor says nothing of a failover: {shown}");
    Ok(lines.join("\n"))
}

/// Every member but the leader has our slot, and at a position that follows the leader's.
fn wait_slots(patroni: &Patroni, leader: &str) -> Result<()> {
    let reached = flow::confirmed(&patroni.cluster(leader)?)?.context("the leader has the slot")?;
    for name in patroni.names().into_iter().filter(|name| name != leader) {
        let member = patroni.cluster(&name)?;
        eventually(&format!("the slot of {name} to be at {reached}"), PATIENCE, || {
            Ok(flow::confirmed(&member)?.is_some_and(|lsn| lsn >= reached).then_some(()))
        })?;
    }
    Ok(())
}

/// Writes at `leader`, waits until it is durable, and returns what was acknowledged.
fn write(site: &mut Site, patroni: &Patroni, leader: &str, daemon: &mut Daemon) -> Result<Vec<Commit>> {
    site.cluster = patroni.cluster(leader)?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    let commits = load.stop()?;
    flow::wait_durable(&site.cluster, daemon)?;
    Ok(commits)
}

/// A site around the cluster with a base backup, the daemon that streams it, and what was acknowledged until then.
fn archived(patroni: &Patroni, leader: &str) -> Result<(Site, Daemon, Vec<Commit>)> {
    let mut site = Site::around(patroni.cluster(leader)?, Store::Directory)?;
    site.archiver.set_text("cluster.conninfo", &patroni.conninfo());
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let all = write(&mut site, patroni, leader, &mut daemon)?;
    site.archiver.run_long(&["backup"])?.success()?;
    Ok((site, daemon, all))
}

#[test]
fn case_14_a_patroni_cluster_is_followed_through_two_switchovers_and_a_failover() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut patroni = Patroni::start(&scratch)?;
    followed(&mut patroni).with_context(|| patroni.said())
}

fn followed(patroni: &mut Patroni) -> Result<()> {
    let leader = patroni.leader()?;
    let (mut site, mut daemon, mut all) = archived(patroni, &leader)?;

    // Patroni does not know the slot yet, and doctor says so, with what to add.
    let said = failover_of_doctor(&site)?;
    ensure!(
        said.starts_with("WARNING") && said.contains("Patroni") && said.contains("patronictl edit-config orders"),
        "{said}"
    );
    ensure!(said.contains("slots:\n") && said.contains("type: physical"), "{said}");
    patroni.edit_config(&json!({ "slots": { SLOT: { "type": "physical" } } }))?;
    wait_slots(patroni, &leader)?;
    let said = failover_of_doctor(&site)?;
    ensure!(said.starts_with("ok") && said.contains("Patroni"), "{said}");

    // Two switchovers, each in the middle of the load.
    let mut until = Vec::new();
    for _ in 0..2 {
        let load = Workload::start(&site.cluster, 2)?;
        load.reaches(20, PATIENCE)?;
        let (old, new) = patroni.switchover()?;
        all.extend(load.cut_off()?);
        until.push(all.iter().map(|commit| commit.time).max().context("there are commits")?);
        eventually("the old leader to have the slot", PATIENCE, || {
            Ok(has_slot(&patroni.cluster(&old)?)?.then_some(()))
        })?;
        all.extend(write(&mut site, patroni, &new, &mut daemon)?);
        wait_slots(patroni, &new)?;
    }
    let before_failover = workload::rows(&site.cluster)?;
    ensure!(all.iter().all(|commit| before_failover.contains(&commit.id)), "a switchover loses nothing");

    // And a failover, in the middle of it, too.
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let its_timeline = site.cluster.value("select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)")?;
    let dead = patroni.kill_leader()?;
    let last = load.cut_off()?;
    let leader = patroni.leader()?;
    ensure!(leader != dead, "{dead} was killed");
    let end = write(&mut site, patroni, &leader, &mut daemon)?;
    let rows = workload::rows(&site.cluster)?;
    ensure!(all.iter().chain(&end).all(|commit| rows.contains(&commit.id)), "only what came last can be lost");
    patroni.revive(&dead)?;

    // One archiver all the time; no gap, no hand.
    ensure!(daemon.is_running()?, "the daemon is the first one");
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    assert_eq!((&status["gaps"], status["bases"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{status}");

    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    drop(latest);
    // Of two writers neither's last commit need be the last one: up to this time all of them are there, and later ones are not.
    let moment = until.first().context("a switchover")?;
    let early = restored::restore(&site, &moment.to_string(), "early")?;
    let expected = all.iter().filter(|commit| commit.time <= *moment);
    let held = workload::rows(&early)?;
    ensure!(expected.clone().all(|commit| held.contains(&commit.id)), "every commit until {moment} is there");
    ensure!(
        all.iter().filter(|commit| commit.time > *moment).all(|commit| !held.contains(&commit.id)),
        "and none later"
    );
    drop(early);

    // What the dead leader had committed and the archiver had: on its own timeline, whoever lost it.
    let branches = status["branches"].as_array().context("branches")?;
    let its_name = |branch: &&Value| branch["branch"].as_str().is_some_and(|name| name.starts_with(&its_timeline));
    let ended = branches.iter().find(its_name).and_then(|branch| branch["end"].as_str());
    let durable: Lsn = ended.context("an end of the dead leader's timeline")?.parse()?;
    ensure!(last.iter().filter(|commit| commit.after <= durable).count() >= 50, "these were durable before the kill");
    let number = u32::from_str_radix(&its_timeline, 16)?.to_string();
    let lost = restored::restore_with(&site, "latest", "lost", &["--timeline", &number])?;
    restored::holds_all_until(&lost, &last, durable)?;
    drop(lost);

    // The dead leader comes back as a standby, and the slot with it.
    patroni.wait_whole()?;
    wait_slots(patroni, &leader)?;
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn case_14_a_slot_that_patroni_is_told_to_ignore_stays_behind_on_the_old_leader_and_doctor_says_so() -> Result<()> {
    let scratch = Scratch::new()?;
    let patroni = Patroni::start(&scratch)?;
    ignored(&patroni).with_context(|| patroni.said())
}

fn ignored(patroni: &Patroni) -> Result<()> {
    patroni.edit_config(&json!({ "ignore_slots": [{ "name": SLOT, "type": "physical" }] }))?;
    let (mut site, mut daemon, mut all) = archived(patroni, &patroni.leader()?)?;
    let (old, new) = patroni.switchover()?;
    all.extend(write(&mut site, patroni, &new, &mut daemon)?);
    let left = flow::confirmed(&patroni.cluster(&old)?)?.context("the old leader keeps the slot")?;
    // More than a gigabyte, in segments of one MiB, so that it is not merely a little behind.
    site.cluster.sql(
        "do $$ begin for i in 1..1100 loop
             perform pg_logical_emit_message(false, 'filler', ''); perform pg_switch_wal();
         end loop; end $$",
    )?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(flow::confirmed(&patroni.cluster(&old)?)?, Some(left), "nobody moves it");
    let said = failover_of_doctor(&site)?;
    ensure!(
        said.starts_with("WARNING")
            && said.contains("nobody moves walseal_orders on ")
            && said.contains("take it out of ignore_slots"),
        "{said}"
    );

    // Nothing is lost for that, and the advice is right.
    patroni.edit_config(&json!({ "ignore_slots": null, "slots": { SLOT: { "type": "physical" } } }))?;
    wait_slots(patroni, &new)?;
    let said = failover_of_doctor(&site)?;
    ensure!(said.starts_with("ok") && said.contains("Patroni"), "{said}");
    let rows = workload::rows(&site.cluster)?;
    ensure!(all.iter().all(|commit| rows.contains(&commit.id)), "a switchover loses nothing");
    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &rows)?;
    drop(latest);
    daemon.sigterm()?.success()?;
    Ok(())
}
