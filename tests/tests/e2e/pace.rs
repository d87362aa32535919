//! A base backup of a server that begins to suffer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::proxy::Proxy;
use walseal_tests::settings::{Access, Tls};
use walseal_tests::site::{Site, Store};

use crate::network;

/// What a probe takes: long against what a busy machine adds to it.
const USUAL: Duration = Duration::from_millis(150);

/// More than four times that.
const SUFFERING: Duration = Duration::from_millis(1_500);

#[test]
fn a_backup_reads_more_slowly_while_the_server_answers_slowly_and_recovers() -> Result<()> {
    let mut site = Site::new(Cluster::builder().tcp(&[Access::Scram], Tls::Off), Store::Directory)?;
    let upstream = site.cluster.tcp_address();
    let proxy = Proxy::start_late_for(&upstream, "walseal probe", USUAL)?;
    let port = proxy.address().rsplit(':').next().context("a port")?.to_owned();
    let conninfo = network::conninfo(&site, Access::Scram, &format!("sslmode=disable port={port}"))?;
    site.archiver.set_text("cluster.conninfo", &conninfo);
    // Long enough for all that is to be seen.
    site.archiver.set_text("base.max_rate", "256KiB");
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    let mut backup = site.archiver.daemon(&["backup"])?;
    backup.says("the server makes a checkpoint", PATIENCE)?;
    proxy.answer_late(SUFFERING);
    backup.says("answers much more slowly than before the base backup", PATIENCE)?;
    proxy.answer_late(USUAL);
    backup.says("reads at full speed again", PATIENCE * 2)?;
    let ended = backup.sigterm()?;
    let said = &ended.stderr;
    ensure!(ended.code == Some(1) && said.contains("asked to stop"), "{ended}");
    ensure!(said.contains("paused again and again"), "{ended}");
    ensure!(said.matches("answers much more slowly").count() == 1, "it is said once: {ended}");
    Ok(())
}
