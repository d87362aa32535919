//! What the server or the machine lacks, named with what gives it.

use anyhow::{Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};

use crate::flow::{self, SLOT};
use crate::messages::says;

/// Names and values in `postgresql.conf`.
type Settings = &'static [(&'static str, &'static str)];

#[test]
fn a_server_without_wal_senders_or_slots_is_told_which_setting_to_raise() -> Result<()> {
    let cases: [(Settings, &[&str]); 3] = [
        (&[("max_wal_senders", "0")], &["max_wal_senders = 10", "postgresql.conf", "restart"]),
        (
            &[("max_replication_slots", "0")],
            &["to fix", "raise max_replication_slots", "restart", "pg_replication_slots"],
        ),
        (&[("wal_level", "minimal"), ("max_wal_senders", "0")], &["wal_level = replica", "max_wal_senders = 10"]),
    ];
    for (settings, words) in cases {
        let cluster = settings.iter().fold(Cluster::builder(), |cluster, (name, value)| cluster.setting(name, value));
        let site = Site::new(cluster, Store::Directory)?;
        says(&site.archiver.run(&["init"])?, 1, words)?;
    }
    Ok(())
}

#[test]
fn a_logical_slot_of_our_name_is_refused_with_the_ways_out() -> Result<()> {
    for major in [14, 15] {
        let site = Site::new(Cluster::builder().major(major).setting("wal_level", "logical"), Store::Directory)?;
        site.cluster.sql(&format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"))?;
        says(&site.archiver.run(&["init"])?, 1, &[SLOT, "logical", "cluster.slot", "pg_drop_replication_slot"])?;
    }
    Ok(())
}

#[test]
fn a_slot_that_another_archiver_holds_is_named_with_its_pid_in_log_and_status() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let _first = site.archive()?;
    site.archiver.set_text("cluster.state_dir", &site.scratch.dir("state2")?.to_string_lossy());
    site.archiver.write_config()?;
    let mut second = site.archiver.daemon(&["run"])?;
    second.says("by server process", PATIENCE)?;
    let status = site.archiver.run(&["status"])?.success()?;
    let holder =
        site.cluster.value(&format!("select active_pid from pg_replication_slots where slot_name = '{SLOT}'"))?;
    for word in [
        "NOT streaming",
        &format!("by server process {holder}: application {SLOT}"),
        "different names",
        "frontier    not known",
    ] {
        ensure!(status.stdout.contains(word), "{word:?} is not shown: {status}");
    }
    ensure!(status.stdout.contains(&format!("pid {}", second.pid())), "{status}");
    Ok(())
}

#[test]
fn before_init_status_and_backup_name_init() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let status = site.archiver.run(&["status"])?;
    says(&status, 1, &["holds no repository yet", "walseal-archiver init"])?;
    ensure!(status.stdout.starts_with("Nothing can be restored yet"), "{status}");
    says(&site.archiver.run(&["backup"])?, 1, &["walseal-archiver init"])
}

#[test]
fn with_several_clusters_in_the_store_a_server_that_is_down_is_named_with_why_it_was_asked() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let own = site.archiver.clone();
    let stranger = Cluster::builder().inside(&site.scratch).stranger().start()?;
    site.archiver.set_text("cluster.conninfo", &stranger.conninfo());
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    site.archiver = own;
    site.archiver.write_config()?;
    let (first, second) = (site.cluster.system_identifier()?, stranger.system_identifier()?);
    site.cluster.stop(Stop::Fast)?;
    says(&site.archiver.run(&["run"])?, 1, &["several clusters", &first, &second, "is the server running there"])
}

#[test]
fn what_lies_in_the_way_of_a_folder_is_named() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let file = site.scratch.file("a-file", "")?;
    let known = site.archiver.clone();
    site.archiver.set_text("repository.url", &format!("file://{}", file.display()));
    site.archiver.write_config()?;
    says(&site.archiver.run(&["init"])?, 1, &[&file.to_string_lossy(), "name a directory in repository.url"])?;
    site.archiver = known;
    site.archiver.set_text("cluster.state_dir", &file.to_string_lossy());
    site.archiver.write_config()?;
    says(&site.archiver.run(&["run"])?, 1, &[&file.to_string_lossy(), "cluster.state_dir", "install -d -o"])
}

#[test]
fn an_identity_that_opens_nothing_is_told_which_recipient_it_should_have() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let card = site.archiver.run(&["init"])?.success()?.stdout;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.restorer.keygen("other.key")?;
    let other = site.restorer.folder().join("other.key");
    site.restorer.set("keys.identity_files", &format!("[{:?}]", other.to_string_lossy()));
    site.restorer.write_config()?;
    let refused = site.restorer.run(&["plan", "--to", "latest"])?;
    says(&refused, 1, &["none of the identities", "keys.identity_files"])?;
    // The same short name stands on the card.
    let known = card.lines().find(|line| line.trim_start().starts_with("recipient ")).unwrap_or_default();
    let id = known.rsplit_once('(').map_or("", |(_, id)| id.trim_end_matches(')'));
    ensure!(id.len() == 16 && refused.stderr.contains(id), "{id:?} of {known:?} is not named: {refused}");
    Ok(())
}
