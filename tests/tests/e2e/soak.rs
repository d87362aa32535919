//! Load, and one thing after another that goes wrong, by a schedule that follows from a seed; restores to moments on both sides of it
//! all, compared with what clients saw committed.
//!
//! A minute of it by default; `bench/soak MINUTES SEED` runs it for longer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::dice::{Dice, USUAL_SEED, number_from};
use walseal_tests::ledger::{self, Entry, Ledger};
use walseal_tests::pgbench::Pgbench;
use walseal_tests::proxy::{Line, Proxy};
use walseal_tests::s3_server::OwnServer;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::store::Place;

use crate::{flow, restored};

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    ArchiverKilled,
    ArchiverStopped,
    ServerCrashes,
    ServerRestarts,
    StreamEnded,
    /// The line between archiver and server is cut.
    ServerAway(Line),
    StoreAway(Line),
    StoreKilled,
    Burst,
    Backup,
    BackupKilled,
    Prune,
    PruneKilled,
    Switchover,
    Failover,
    Restore,
}

const EVENTS: [Event; 22] = [
    Event::ArchiverKilled,
    Event::ArchiverKilled,
    Event::ArchiverStopped,
    Event::ServerCrashes,
    Event::ServerRestarts,
    Event::StreamEnded,
    Event::ServerAway(Line::Down),
    Event::ServerAway(Line::Stalled),
    Event::StoreAway(Line::Down),
    Event::StoreAway(Line::Stalled),
    Event::StoreKilled,
    Event::Burst,
    Event::Burst,
    Event::Backup,
    Event::BackupKilled,
    Event::Prune,
    Event::Prune,
    Event::PruneKilled,
    Event::Switchover,
    Event::Failover,
    Event::Restore,
    Event::Restore,
];

/// Of each writer, between two commits: so that restores need not replay for long.
const REST: Duration = Duration::from_millis(10);

/// What retention promises: any second of so long.
const WINDOW: Duration = Duration::from_secs(20);

/// The window is in whole seconds, and begins when the plan is made, not when it is asked for.
const EDGE: Duration = Duration::from_secs(3);

/// Removes at once what need not be kept.
const PRUNE: [&str; 4] = ["prune", "--grace", "0", "--json"];

struct Soak {
    // Ends before the folder that it works in goes.
    store: OwnServer,
    site: Site,
    daemon: Option<Daemon>,
    to_store: Proxy,
    to_server: Proxy,
    ledger: Ledger,
    pgbench: Option<Pgbench>,
    /// Nothing before this need be restorable: the first base backup ends there, or retention promises no more.
    earliest: Lsn,
    /// Where the WAL was at some moments.
    moments: Vec<(Instant, Lsn)>,
    /// What a failover lost: the new primary had not received it.
    lost: BTreeSet<i64>,
    servers: u32,
    restores: u32,
    began: Instant,
}

#[test]
fn a_minute_of_everything_that_goes_wrong_loses_nothing_that_was_promised() -> Result<()> {
    let seed = number_from("WALSEAL_TEST_SEED", USUAL_SEED)?;
    let length = Duration::from_secs(number_from("WALSEAL_TEST_SOAK_SECONDS", 60)?);
    soak(seed, length).with_context(|| format!("bench/soak {} {seed} repeats this", length.as_secs().div_ceil(60)))
}

fn soak(seed: u64, length: Duration) -> Result<()> {
    let mut dice = Dice::new(seed);
    let synchronous = dice.below(2) == 0;
    let mut soak = Soak::start(synchronous)?;
    soak.says(&format!("seed {seed}, {}", if synchronous { "synchronous" } else { "on the ship interval" }));
    while soak.began.elapsed() < length {
        let event = *dice.one_of(&EVENTS)?;
        soak.says(&format!("{event:?}"));
        soak.notes_the_moment();
        soak.happens(event, &mut dice)
            .with_context(|| format!("{event:?}, {:?} after the start", soak.began.elapsed()))?;
        soak.ledger.goes_on(usize::try_from(dice.below(60))?, PATIENCE)?;
    }
    soak.ends()
}

/// Leads the archiver to the server through a line that can be cut.
fn line_to_server(site: &mut Site) -> Result<Proxy> {
    let proxy = Proxy::start_before_socket(site.cluster.socket())?;
    let address = proxy.address();
    let (host, port) = address.rsplit_once(':').context("a proxy has a port")?;
    let user = &site.scratch.account().name;
    site.archiver.set_text("cluster.conninfo", &format!("host={host} port={port} user={user} dbname=postgres"));
    Ok(proxy)
}

/// An outage of a line: shorter and longer than `wal_sender_timeout`.
fn switched(proxy: &Proxy, line: Line, dice: &mut Dice) {
    proxy.set(line);
    // The outage itself.
    std::thread::sleep(Duration::from_millis(200 + dice.below(8000)));
    proxy.set(Line::Up);
}

impl Soak {
    fn start(synchronous: bool) -> Result<Soak> {
        let mut cluster = Cluster::builder().durable().segment_mib(1).setting("wal_keep_size", "4GB");
        cluster = cluster.setting("wal_sender_timeout", "5s").setting("max_slot_wal_keep_size", "-1");
        if synchronous {
            cluster = cluster.setting("synchronous_standby_names", flow::SLOT);
        }
        let mut site = Site::new(cluster, Store::S3)?;
        let store = OwnServer::start(&site.scratch, None)?;
        site.place = Place::S3 { server: store.server().clone(), prefix: "orders".to_owned() };
        site.restorer.use_place(&site.place);
        site.restorer.write_config()?;
        let (place, to_store) = site.place.behind_a_proxy()?;
        site.archiver.use_place(&place);
        let to_server = line_to_server(&mut site)?;
        site.archiver.set_text("wal.ship_interval", "100ms");
        site.archiver.set("wal.synchronous", &synchronous.to_string());
        site.archiver.set("base.backoff", "false");
        // By hand, so that it is part of the schedule.
        site.archiver.set("retention.prune", "false");
        site.archiver.set_text("retention.window", &format!("{}s", WINDOW.as_secs()));
        for beyond in ["daily", "weekly", "monthly", "min_proven"] {
            site.archiver.set(&format!("retention.{beyond}"), "0");
        }
        site.archiver.write_config()?;
        let daemon = site.archive()?;
        site.archiver.run_long(&["backup"])?.success()?;
        let earliest = site.cluster.flush_lsn()?;
        Pgbench::initialise(&site.cluster, 1)?;
        let ledger = Ledger::start(&site.cluster, 4, REST)?;
        let pgbench = Some(Pgbench::start_at_rate(&site.cluster, 2, 50)?);
        ledger.goes_on(20, PATIENCE)?;
        Ok(Soak {
            store,
            site,
            daemon: Some(daemon),
            to_store,
            to_server,
            ledger,
            pgbench,
            earliest,
            moments: Vec::new(),
            lost: BTreeSet::new(),
            servers: 1,
            restores: 0,
            began: Instant::now(),
        })
    }

    fn says(&self, what: &str) {
        eprintln!("{:8.1} s  {:6} commits  {what}", self.began.elapsed().as_secs_f32(), self.ledger.entries().len());
    }

    fn starts_archiver(&mut self) -> Result<()> {
        self.daemon = Some(self.site.archiver.daemon(&["run"])?);
        Ok(())
    }

    fn happens(&mut self, event: Event, dice: &mut Dice) -> Result<()> {
        match event {
            Event::ArchiverKilled => {
                self.daemon.take().context("the archiver runs")?.sigkill()?;
                self.starts_archiver()
            }
            Event::ArchiverStopped => {
                let stopped = self.daemon.take().context("the archiver runs")?.sigterm()?;
                // One that had just been started may not listen to signals yet.
                ensure!(stopped.code == Some(0) || stopped.signal == Some(Signal::TERM.as_raw()), "{stopped}");
                self.starts_archiver()
            }
            Event::ServerCrashes => {
                self.pgbench = None;
                self.site.cluster.crash()?;
                self.serves()
            }
            Event::ServerRestarts => {
                self.pgbench = None;
                self.site.cluster.stop(Stop::Fast)?;
                self.serves()
            }
            Event::StreamEnded => {
                let sql = "select count(pg_terminate_backend(pid)) from pg_stat_replication";
                self.site.cluster.value(sql).map(|_| ())
            }
            Event::ServerAway(line) => {
                switched(&self.to_server, line, dice);
                Ok(())
            }
            Event::StoreAway(line) => {
                switched(&self.to_store, line, dice);
                Ok(())
            }
            Event::StoreKilled => {
                self.store.kill()?;
                self.store.start_again()
            }
            Event::Burst => {
                let mebibytes = 1 + dice.below(12);
                let sql = format!(
                    "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, {mebibytes}) g"
                );
                self.site.cluster.sql(&sql).map(|_| ())
            }
            Event::Backup => {
                // One that fails is no backup, and says so; that is all that it promises here.
                let code = self.site.archiver.run_long(&["backup"])?.code;
                self.says(&format!("the backup exits with {code:?}"));
                Ok(())
            }
            Event::BackupKilled => {
                let asked = self.site.archiver.daemon(&["backup"])?;
                // Any moment of it.
                std::thread::sleep(Duration::from_millis(dice.below(1500)));
                self.daemon.take().context("the archiver runs")?.sigkill()?;
                drop(asked);
                self.starts_archiver()
            }
            Event::Prune => {
                self.promises_no_more();
                let done = self.site.archiver.run_long(&PRUNE)?.success()?.json()?;
                self.says(&format!("{} objects removed", done["done"]["removed"]["objects"]));
                Ok(())
            }
            Event::PruneKilled => {
                self.promises_no_more();
                let pruning = self.site.archiver.daemon(&PRUNE)?;
                // Any moment of it.
                std::thread::sleep(Duration::from_millis(dice.below(1500)));
                drop(pruning);
                Ok(())
            }
            Event::Switchover => self.fails_over(true),
            Event::Failover => self.fails_over(false),
            Event::Restore => self.restores_to(dice),
        }
    }

    fn notes_the_moment(&mut self) {
        let known = self.ledger.entries().iter().rev().find_map(|entry| entry.after);
        self.moments.extend(known.map(|lsn| (Instant::now(), lsn)));
    }

    /// From now on what lies before retention's window may be gone.
    fn promises_no_more(&mut self) {
        let begin = Instant::now().checked_sub(WINDOW.saturating_sub(EDGE));
        let first = self.moments.iter().find(|(when, _)| begin.is_some_and(|begin| *when >= begin));
        self.earliest = first.map_or(self.earliest, |(_, lsn)| self.earliest.max(*lsn));
    }

    fn serves(&mut self) -> Result<()> {
        self.site.cluster.start()?;
        self.pgbench = Some(Pgbench::start_at_rate(&self.site.cluster, 2, 50)?);
        Ok(())
    }

    /// A standby is made and becomes the primary; the archiver is told of it.
    fn fails_over(&mut self, orderly: bool) -> Result<()> {
        self.servers += 1;
        // The standby is new, and has no WAL from before it was made: what only the old primary has then would go with that, and what
        // was committed there would be no target any more.
        flow::wait_durable(&self.site.cluster, self.daemon.as_mut().context("the archiver runs")?)?;
        let standby = self.site.standby(&format!("server{}", self.servers), &self.site.cluster, &[])?;
        self.ledger.goes_on(20, PATIENCE)?;
        self.pgbench = None;
        if orderly {
            // A primary sends everything to the standbys that stream before it ends.
            let streams = "select count(*) from pg_stat_replication where application_name = 'walreceiver' and state = 'streaming'";
            let session = self.site.cluster.session()?;
            eventually("the standby to stream", PATIENCE, || Ok((session.value(streams)? == "1").then_some(())))?;
            drop(session);
            self.site.cluster.stop(Stop::Fast)?;
        } else {
            self.site.cluster.crash()?;
        }
        let old = std::mem::replace(&mut self.site.cluster, standby);
        self.site.cluster.value("select pg_promote()")?;
        // Nobody writes to the new primary yet, and what the old one had answered has long been noted.
        let before = self.ledger.entries();
        let kept = ledger::rows(&self.site.cluster)?;
        let missing = before.iter().filter(|entry| !kept.contains(&entry.id) && !self.lost.contains(&entry.id));
        let missing: Vec<i64> = missing.map(|entry| entry.id).collect();
        ensure!(!orderly || missing.is_empty(), "a switchover lost {missing:?}");
        self.lost.extend(missing);
        self.ledger.follow(&self.site.cluster);
        self.to_server = line_to_server(&mut self.site)?;
        self.site.archiver.write_config()?;
        self.daemon.take().context("the archiver runs")?.sigterm()?;
        self.starts_archiver()?;
        drop(old);
        self.pgbench = Some(Pgbench::start_at_rate(&self.site.cluster, 2, 50)?);
        Ok(())
    }

    /// Restores to just after some commit that the newest timeline has, and compares.
    fn restores_to(&mut self, dice: &mut Dice) -> Result<()> {
        let entries = self.surviving();
        let possible = |after: &Lsn| self.earliest < *after;
        let targets: Vec<Lsn> = entries.iter().filter_map(|entry| entry.after).filter(possible).collect();
        // After a failover the newest timeline may have nothing yet from after the last moment that was noted.
        let Some(target) = (!targets.is_empty()).then(|| dice.one_of(&targets)).transpose()?.copied() else {
            self.says("nothing that is promised was committed yet");
            return Ok(());
        };
        // Recovery ends at a record that begins there or later.
        self.ledger.goes_on(5, PATIENCE)?;
        let daemon = self.daemon.as_mut().context("the archiver runs")?;
        flow::wait_durable(&self.site.cluster, daemon)?;
        self.restores += 1;
        let name = format!("restored{}", self.restores);
        let restored = restored::restore(&self.site, &format!("lsn:{target}"), &name)?;
        let held = ledger::rows(&restored)?;
        for entry in &entries {
            if entry.after.is_some_and(|after| after <= target) && !held.contains(&entry.id) {
                bail!("{entry:?} is missing at {target}");
            }
            if entry.before >= target && held.contains(&entry.id) {
                bail!("{entry:?} is there at {target}");
            }
        }
        let data = restored.data().to_owned();
        drop(restored);
        std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))
    }

    /// What was acknowledged and no failover lost.
    fn surviving(&self) -> Vec<Entry> {
        self.ledger.entries().into_iter().filter(|entry| !self.lost.contains(&entry.id)).collect()
    }

    fn ends(mut self) -> Result<()> {
        self.pgbench = None;
        self.ledger.goes_on(10, PATIENCE)?;
        let lost = std::mem::take(&mut self.lost);
        self.says(&format!(
            "the end: {} restores, {} servers, {} commits lost by failovers",
            self.restores,
            self.servers,
            lost.len()
        ));
        let Soak { site, store: _store, daemon, ledger, .. } = self;
        let mut daemon = daemon.context("the archiver runs")?;
        let entries = ledger.stop()?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        let expected = ledger::rows(&site.cluster)?;
        let restored = restored::restore(&site, "latest", "latest")?;
        let held = ledger::rows(&restored)?;
        ensure!(held == expected, "the restore has {} rows, the primary {}", held.len(), expected.len());
        let missing = entries.iter().find(|entry| !lost.contains(&entry.id) && !held.contains(&entry.id));
        ensure!(missing.is_none(), "{missing:?} is missing at the end");
        Ok(())
    }
}
