//! The archiver's host has a clock that is wrong, and is set right, both ways (case 44).

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::clock::Clock;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::process::Finished;
use walseal_tests::site::{Daemon, Site, Store};

use crate::{flow, restored};

/// Seconds.
const DAY: i64 = 86_400;

/// An installation whose archiver runs by a clock of its own.
struct Bed {
    site: Site,
    clock: Clock,
    daemon: Option<Daemon>,
}

impl Bed {
    fn start(schedule: &str) -> Result<Bed> {
        let cluster = Cluster::builder().segment_mib(1).setting("wal_keep_size", "4GB");
        // A store that asks for signatures refuses those of another time.
        let mut site = Site::new(cluster, Store::Directory)?;
        site.archiver.set_text("base.schedule", schedule);
        site.archiver.set_text("retention.window", "2d");
        for periods in ["daily", "weekly", "monthly", "min_proven"] {
            site.archiver.set(&format!("retention.{periods}"), "0");
        }
        site.archiver.write_config()?;
        site.archiver.run(&["init"])?.success()?;
        let clock = Clock::new(&site.scratch)?;
        let mut bed = Bed { site, clock, daemon: None };
        bed.starts()?;
        Ok(bed)
    }

    fn starts(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(self.clock.ticks_for(self.site.archiver.call(&["run"])))?);
        Ok(())
    }

    fn daemon(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("the daemon runs")
    }

    fn ask(&self, args: &[&str]) -> Result<Finished> {
        self.clock.ticks_for(self.site.archiver.call(args)).within(PATIENCE * 4).run()?.success()
    }

    fn goes_on(&mut self) -> Result<Lsn> {
        self.site.cluster.sql("create table if not exists t(v text)")?;
        self.site.cluster.sql("insert into t select md5(g::text) from generate_series(1, 20000) g")?;
        flow::wait_durable(&self.site.cluster, self.daemon.as_mut().context("the daemon runs")?)
    }

    fn bases(&self) -> Result<usize> {
        let status = self.ask(&["status", "--json"])?.json()?;
        Ok(status["bases"].as_array().context("bases")?.len())
    }

    /// Waits until there are more than so many base backups.
    fn gets_more_bases(&mut self, than: usize) -> Result<usize> {
        let mut daemon = self.daemon.take().context("the daemon runs")?;
        let found = daemon.until("one more base backup", PATIENCE * 4, || {
            let bases = self.bases()?;
            Ok((bases > than).then_some(bases))
        });
        self.daemon = Some(daemon);
        found
    }
}

#[test]
fn case_44_a_clock_that_jumps_ahead_and_back_loses_nothing_and_ages_nothing() -> Result<()> {
    let mut bed = Bed::start("off")?;
    bed.goes_on()?;
    bed.ask(&["backup"])?;
    let early = bed.goes_on()?;
    let mut last = early;
    for (round, days) in [400, -400, 0, -3, 3, 0].into_iter().enumerate() {
        bed.clock.set(days * DAY)?;
        let before = flow::confirmed(&bed.site.cluster)?;
        last = bed.goes_on()?;
        ensure!(flow::confirmed(&bed.site.cluster)? > before, "nothing is confirmed at {days} days");
        bed.ask(&["backup"])?;
        bed.ask(&["prune", "--grace", "0"])?;
        if round % 2 == 1 {
            bed.daemon.take().context("the daemon runs")?.sigkill()?;
            bed.starts()?;
            last = bed.goes_on()?;
        }
    }
    bed.ask(&["verify"])?;
    // A backup is no older than the commits in it, whatever its host's clock said.
    let bases = bed.bases()?;
    ensure!(bases == 7, "{bases} base backups are left of 7 in the window");
    flow::fetch_agrees_with_the_server(&bed.site, early, last)?;
    bed.site.restorer.run_long(&["plan", "--to", &format!("lsn:{early}")])?.success()?;
    let restored = restored::restore(&bed.site, "latest", "restored")?;
    let count = "select count(*) from t";
    ensure!(restored.value(count)? == bed.site.cluster.value(count)?, "rows are missing");
    ensure!(!bed.daemon()?.log().contains("panicked"), "{}", bed.daemon()?.log());
    Ok(())
}

#[test]
fn case_44_base_backups_go_on_by_schedule_after_one_of_a_clock_that_was_ahead() -> Result<()> {
    let mut bed = Bed::start("* * * * *")?;
    bed.clock.set(400 * DAY)?;
    let first = bed.gets_more_bases(0)?;
    bed.clock.set(0)?;
    let second = bed.gets_more_bases(first)?;
    bed.gets_more_bases(second)?;
    bed.goes_on().map(|_| ())
}
