//! A drill leaves nothing behind, whenever it is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::oracle;
use walseal_tests::site::Site;

use super::next_base::making;
use super::{drill, left_behind, scratch_dir};

/// How many moments of a drill are tried.
const MOMENTS: u32 = 12;

/// Sockets that somebody listens on below `folder`.
fn sockets_below(folder: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/net/unix")?;
    let paths = text.lines().filter_map(|line| line.split_whitespace().last());
    Ok(paths.filter(|path| Path::new(path).starts_with(folder)).map(str::to_owned).collect())
}

/// Neither processes nor sockets; files may wait for the next drill.
fn nothing_lives(site: &Site) -> Result<()> {
    eventually("everything that the drill started to go with it", PATIENCE, || {
        let (alive, sockets) = (oracle::lives_below(&scratch_dir(site))?, sockets_below(&scratch_dir(site))?);
        Ok((alive.is_empty() && sockets.is_empty()).then_some(()))
    })
}

#[test]
fn i12_a_drill_that_is_killed_at_any_moment_leaves_no_process_and_no_socket_and_its_files_go_with_the_next_one()
-> Result<()> {
    let site = making(Cluster::builder())?;
    site.cluster.sql("checkpoint")?;
    let begun = Instant::now();
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    let whole = begun.elapsed();
    ensure!(report["made"].is_string(), "{report:#}");
    nothing_lives(&site)?;
    // Each is held with a base backup to be made, which has a process of its own: there is something new to hold.
    let mut daemon = site.start_daemon()?;
    for moment in 1..=MOMENTS {
        site.cluster.sql("insert into later values (1)")?;
        crate::flow::wait_durable(&site.cluster, &mut daemon)?;
        let mut running = site.restorer.daemon(&["drill"])?;
        let (begun, when) = (Instant::now(), whole * moment / (MOMENTS + 1));
        // The moment itself is what is tried; nothing waits for anything here. A fast one may be over by then.
        while begun.elapsed() < when && running.is_running()? {
            std::thread::sleep(Duration::from_millis(5));
        }
        let signal = if moment % 4 == 0 { Signal::TERM } else { Signal::KILL };
        if running.is_running()? {
            running.signal(signal)?;
        }
        let ended = running.wait(PATIENCE)?;
        nothing_lives(&site).with_context(|| format!("moment {moment}: {ended}"))?;
        let left = left_behind(&site)?;
        // Told to end it cleans up; killed it leaves its folder to the next one, which removed that of the one before.
        let most = if signal == Signal::TERM { 0 } else { 1 };
        ensure!(
            left.len() <= most + usize::from(moment == 1) || ended.code == Some(0),
            "moment {moment}: {left:?}: {ended}"
        );
    }
    daemon.sigterm()?.success()?;
    let (finished, _) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    nothing_lives(&site)?;
    assert_eq!(left_behind(&site)?, Vec::<String>::new());
    // What killed ones had stored is no backup: only those that passed left one.
    let list = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let derived = list["bases"].as_array().context("bases")?.iter().filter(|base| base["derived"].is_object()).count();
    ensure!((2..=2 + MOMENTS as usize).contains(&derived), "{list:#}");
    ensure!(list["unusable"].as_array().is_some_and(Vec::is_empty), "{list:#}");
    Ok(())
}
