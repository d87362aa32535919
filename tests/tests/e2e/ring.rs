//! The fault ring over a small run: start, stream three segments, back up, stop. After each fault nothing that was confirmed is
//! missing, the archiver goes on by itself or with its next start, and says what happened once.
//!
//! The short sweep takes messages from all over the run; `WALSEAL_TEST_RING=1` takes each of them with each fault, `=7` every seventh,
//! from the first or from `WALSEAL_TEST_RING_FROM` on (`bench/ring`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::dice::number_from;
use walseal_tests::ledger::{self, Ledger};
use walseal_tests::ring::{self, Fault, Ring};
use walseal_tests::site::{Daemon, Site, Store};

use crate::{flow, restored};

const PAUSE: Duration = Duration::from_millis(700);

/// What may happen to a request to the store.
const OF_THE_STORE: [Fault; 11] = [
    Fault::KillBefore,
    Fault::Refuse(500),
    Fault::KillAfter,
    Fault::LoseAnswer,
    Fault::Refuse(503),
    Fault::Lie,
    Fault::TruncateRequest,
    Fault::Refuse(429),
    Fault::TruncateAnswer,
    Fault::Reset,
    Fault::Stall(PAUSE),
];

/// What may happen to a message between archiver and server.
const OF_THE_SERVER: [Fault; 6] =
    [Fault::KillBefore, Fault::Reset, Fault::KillAfter, Fault::TruncateAnswer, Fault::Stall(PAUSE), Fault::LoseAnswer];

/// What may happen for longer than `wal_sender_timeout`.
const fn for_long(time: Duration) -> [Fault; 2] {
    [Fault::Away(time), Fault::Stall(time)]
}

/// Most that an archiver may ever take, in KiB (I11).
const MOST_MEMORY: u64 = 128 << 10;

/// From where the messages of a run are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// From the archiver's start; no base backup is taken. It streams until the message came.
    Start,
    /// From the archiver's start, and a base backup is taken.
    StartToBackup,
    /// From the beginning of the base backup. It streams until the message came.
    Backup,
}

/// How often a run streams at the most, for its message to come.
const MOST_ROUNDS: usize = 20;

/// An installation with the ring on one side of the archiver.
struct Bed {
    site: Site,
    ring: Arc<Ring>,
    ledger: Ledger,
    begin: Lsn,
    confirmed: Lsn,
    /// How many messages the last run had.
    messages: u64,
}

impl Bed {
    fn new(store: Store, before: impl Fn(&mut Site, &Arc<Ring>) -> Result<()>) -> Result<Bed> {
        let cluster =
            Cluster::builder().segment_mib(1).setting("wal_keep_size", "4GB").setting("wal_sender_timeout", "5s");
        let mut site = Site::new(cluster, store)?;
        site.archiver.set_text("wal.ship_interval", "20ms");
        site.archiver.set("base.backoff", "false");
        let ring = Arc::new(Ring::default());
        site.archiver.write_config()?;
        site.archiver.run(&["init"])?.success()?;
        let begin = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
        before(&mut site, &ring)?;
        site.archiver.write_config()?;
        let ledger = Ledger::start(&site.cluster, 2, Duration::from_millis(20))?;
        Ok(Bed { site, ring, ledger, begin, confirmed: begin, messages: 0 })
    }

    /// The small run, in which the `number`-th message meets `fault`. Whether there were so many messages.
    fn run(&mut self, number: u64, fault: Fault, since: Since) -> Result<bool> {
        let patience = PATIENCE + fault.lasts();
        self.ring.plan(if since == Since::Backup { u64::MAX } else { number }, fault);
        let mut daemon = self.site.archiver.daemon(&["run"])?;
        self.ring.watch(daemon.pid());
        let through = self.stream(&mut daemon, patience).and_then(|()| {
            if since == Since::Backup {
                self.ring.plan(number, fault);
                self.ring.watch(daemon.pid());
            }
            if since != Since::Start {
                // It may meet the fault and fail; that it is whole where it does not shows at the end.
                self.site.archiver.run_long(&["backup"])?;
            }
            // How many messages three segments are is a matter of how many of them go together.
            let mut rounds = if since == Since::StartToBackup { 0 } else { MOST_ROUNDS };
            while rounds > 0 && !self.ring.is_met() {
                rounds -= 1;
                self.stream(&mut daemon, patience)?;
            }
            Ok(())
        });
        self.messages = self.ring.seen();
        let met = self.ring.is_met();
        self.ring.clear();
        if met && fault.kills() {
            daemon.wait(PATIENCE)?;
            daemon = self.site.archiver.daemon(&["run"])?;
        } else {
            through.with_context(|| daemon.log())?;
        }
        flow::wait_durable_within(&self.site.cluster, &mut daemon, patience)?;
        says_it_once(&daemon.log())?;
        let peak = daemon.peak_kib()?;
        ensure!(peak < MOST_MEMORY, "{peak} KiB at the most");
        daemon.sigterm()?.success()?;
        let now = flow::confirmed(&self.site.cluster)?.context("the slot is there")?;
        ensure!(now >= self.confirmed, "the slot moved back from {} to {now}", self.confirmed);
        let held = flow::held(&self.site, self.begin)?;
        ensure!(held >= now, "{now} was confirmed, and the repository ends at {held}");
        self.confirmed = now;
        Ok(met)
    }

    fn stream(&self, daemon: &mut Daemon, patience: Duration) -> Result<()> {
        let sql =
            "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, 3) g";
        self.site.cluster.sql(sql)?;
        self.ledger.goes_on(10, PATIENCE)?;
        flow::wait_durable_within(&self.site.cluster, daemon, patience).map(|_| ())
    }

    /// Everything is whole, down to the bytes, and what was acknowledged is there.
    fn ends_whole(self) -> Result<()> {
        let mut daemon = self.site.start_daemon()?;
        self.site.archiver.run_long(&["backup"])?.success()?;
        let acknowledged = self.ledger.stop()?;
        flow::wait_durable(&self.site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        self.ring.end();
        let listed = self.site.restorer.run(&["list", "--json"])?.success()?.json()?;
        let first = listed["bases"][0]["id"].as_str().context("a base backup")?.to_owned();
        // From the very first backup on, over all that the faults left behind.
        let restored = restored::restore_with(&self.site, "latest", "restored", &["--base", &first])?;
        let held = ledger::rows(&restored)?;
        let lost = acknowledged.iter().find(|entry| !held.contains(&entry.id));
        ensure!(lost.is_none(), "{lost:?} is lost");
        Ok(())
    }
}

/// No warning stands twice in the log, whatever its time and its numbers.
fn says_it_once(log: &str) -> Result<()> {
    let mut said: BTreeMap<String, u32> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("WARN")) {
        let words = line.split_once("WARN").map_or(line, |(_, words)| words);
        *said.entry(words.chars().filter(|c| !c.is_ascii_digit()).collect()).or_default() += 1;
    }
    let repeated = said.iter().find(|(_, times)| **times > 1);
    ensure!(repeated.is_none(), "{repeated:?} in\n{log}");
    Ok(())
}

/// Runs after which a long sweep begins with another installation: each lists all that those before left behind.
const RUNS_OF_A_BED: usize = 60;

/// Which messages meet which faults.
struct Sweep<'a> {
    /// Where the repository lies in the long form; in the short one in S3. In a folder a run takes half the time, most of which an S3
    /// server works otherwise.
    store: Store,
    faults: &'a [Fault],
    /// The messages of the short form, each with one fault.
    short: &'a [u64],
    /// The long form takes each so-many-th of its messages, each with every fault.
    every: usize,
}

/// The step of a long form; `None` in the short one.
fn long_step() -> Result<Option<usize>> {
    let step = usize::try_from(number_from("WALSEAL_TEST_RING", 0)?)?;
    Ok((step > 0).then_some(step))
}

fn sweep(before: impl Fn(&mut Site, &Arc<Ring>) -> Result<()>, over: &Sweep<'_>) -> Result<()> {
    let Some(step) = long_step()? else {
        let mut bed = undisturbed(Store::S3, &before)?;
        for (turn, number) in over.short.iter().enumerate() {
            let fault = over.faults.get(turn % over.faults.len()).context("a fault")?;
            let since = if turn % 3 == 2 { Since::Backup } else { Since::Start };
            let met = bed.run(*number, *fault, since).with_context(|| format!("{fault:?} at message {number}"))?;
            ensure!(met, "there were fewer messages than {number}: {fault:?} was not tried");
        }
        return bed.ends_whole();
    };
    let mut bed = undisturbed(over.store, &before)?;
    let first = number_from("WALSEAL_TEST_RING_FROM", 1)?;
    let last = bed.messages;
    let (mut runs, mut faults) = (0, 0);
    ensure!(first <= last, "a run without a fault has {last} messages, none of them a {first}th");
    for (turn, number) in (first..=last).step_by(step * over.every).enumerate() {
        if turn > 0 && turn % RUNS_OF_A_BED.div_ceil(over.faults.len()) == 0 {
            bed.ends_whole()?;
            bed = undisturbed(over.store, &before)?;
        }
        for fault in over.faults {
            let met = bed
                .run(number, *fault, Since::StartToBackup)
                .with_context(|| format!("{fault:?} at message {number}"))?;
            runs += 1;
            faults += u32::from(met);
            eprintln!("message {number} of {last}, {fault:?}: {}", if met { "survived" } else { "there were fewer" });
        }
    }
    // A run may have fewer messages than the one without a fault had.
    ensure!(10 * faults >= 9 * runs, "of {runs} faults {faults} were met");
    bed.ends_whole()
}

/// Longer than `wal_sender_timeout`; of the long form, minutes.
fn long_time() -> Result<Duration> {
    Ok(Duration::from_secs(if long_step()?.is_some() { 150 } else { 7 }))
}

/// An installation after a run without a fault, with a backup.
fn undisturbed(store: Store, before: impl Fn(&mut Site, &Arc<Ring>) -> Result<()>) -> Result<Bed> {
    let mut bed = Bed::new(store, before)?;
    bed.run(u64::MAX, Fault::Reset, Since::StartToBackup)?;
    Ok(bed)
}

fn before_the_store(site: &mut Site, ring: &Arc<Ring>) -> Result<()> {
    let place = site.place.behind_a_ring(ring)?;
    site.archiver.use_place(&place);
    Ok(())
}

fn before_the_server(site: &mut Site, ring: &Arc<Ring>) -> Result<()> {
    let folder = site.scratch.dir("ring")?;
    ring::wire::before(site.cluster.socket(), &folder, ring)?;
    let user = &site.scratch.account().name;
    let conninfo = format!("host={} port=5432 user={user} dbname=postgres", folder.display());
    site.archiver.set_text("cluster.conninfo", &conninfo);
    Ok(())
}

#[test]
fn i1_i7_whatever_happens_to_a_message_to_the_store_nothing_confirmed_is_missing_and_nothing_is_half() -> Result<()> {
    let short = [1, 2, 3, 5, 6, 7, 9, 11, 12, 13, 16];
    sweep(before_the_store, &Sweep { store: Store::S3, faults: &OF_THE_STORE, short: &short, every: 1 })
}

#[test]
fn i1_i7_whatever_happens_to_a_message_to_the_server_nothing_confirmed_is_missing_and_nothing_is_half() -> Result<()> {
    let short = [1, 9, 20, 33, 44, 57, 70];
    sweep(before_the_server, &Sweep { store: Store::Directory, faults: &OF_THE_SERVER, short: &short, every: 1 })
}

#[test]
fn i1_i11_a_store_that_is_away_or_silent_for_long_from_any_message_on_costs_nothing_that_was_confirmed() -> Result<()> {
    sweep(
        before_the_store,
        &Sweep { store: Store::S3, faults: &for_long(long_time()?), short: &[10, 9, 12], every: 41 },
    )
}

#[test]
fn i1_i11_a_server_that_is_away_or_silent_for_long_from_any_message_on_costs_nothing_that_was_confirmed() -> Result<()>
{
    sweep(
        before_the_server,
        &Sweep { store: Store::Directory, faults: &for_long(long_time()?), short: &[60, 70, 50], every: 41 },
    )
}
