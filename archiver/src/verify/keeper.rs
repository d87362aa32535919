//! Verification beside the daemon, for ever: names and records every `verify.every`, and where that is asked for every object once in
//! `verify.read_every`, at no more than `verify.max_rate`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walseal_common::config::Config;
use walseal_common::repository::{Flaw, Reader, Repository, Survey};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};

use super::record::Round;
use super::{Verified, Verifier, VerifyError};
use crate::stream::ProgressWatch;

/// How long after its start a daemon verifies for the first time, where nothing tells when that was done last.
const LULL: Duration = Duration::from_secs(600);

/// How often it is looked whether somebody has verified with the verb meanwhile.
const NAP: Duration = Duration::from_secs(10);

/// Pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(60);

/// What is told.
const KIND: AlertKind = AlertKind::NotWhole;

/// Flaws that an alert names.
const NAMED: usize = 3;

/// Verifies until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    verifier: Verifier,
    progress: ProgressWatch,
    alerts: Alerts,
    every: Duration,
    read_every: Duration,
    /// What was found so far.
    pub verified: watch::Sender<Option<Verified>>,
}

impl Keeper {
    /// As the configuration says.
    pub fn new(
        config: &Config,
        repository: &Repository,
        state_dir: PathBuf,
        progress: ProgressWatch,
        alerts: Alerts,
    ) -> Keeper {
        let verified = watch::Sender::new(Verified::load(&state_dir));
        let config = &config.verify;
        let verifier = Verifier::new(repository, Some(state_dir), Some(config.max_rate.value));
        let (every, read_every) = (config.every.value, config.read_every.value);
        Keeper { verifier, progress, alerts, every, read_every, verified }
    }

    /// Verifies until the stream's owner is gone, or it is dropped.
    pub async fn keep(mut self) {
        if self.every.is_zero() {
            return;
        }
        self.heed();
        // What was wrong when the last daemon ended may have been mended for this one.
        let mut soon = self.known().flaws > 0;
        // WAL is shipped first. Without a stream the verb can be asked.
        if self.progress.connected().await.is_err() {
            return;
        }
        loop {
            let mut rest = self.until_due();
            if std::mem::take(&mut soon) {
                rest = rest.min(LULL);
            }
            self.rest(rest).await;
            if let Err(error) = self.once().await {
                tracing::warn!(%error, "the repository could not be verified; trying again later");
                sleep(PAUSE.min(self.every)).await;
            }
        }
    }

    /// What the state folder tells.
    fn known(&self) -> Verified {
        Verified::of(&self.verifier.record())
    }

    /// Waits, and heeds what somebody finds with the verb meanwhile.
    async fn rest(&self, mut left: Duration) {
        while !left.is_zero() {
            let nap = left.min(NAP);
            sleep(nap).await;
            left -= nap;
            if Some(self.known()) != *self.verified.borrow() {
                self.heed();
            }
        }
    }

    /// Tells what the verb has found, or a daemon before this one.
    fn heed(&self) {
        let known = self.known();
        let Some(surveyed) = known.surveyed else { return };
        self.verified.send_replace(Some(known));
        if known.flaws == 0 {
            self.alerts.clear(KIND, "", format!("a verification of this host found everything at {surveyed:.0}"));
            return;
        }
        // What stands names what it is about.
        if !self.alerts.standing().iter().any(|alert| alert.kind == KIND) {
            let text = format!(
                "the repository is not whole: a verification of this host found {} at {surveyed:.0}; what that is, what it costs \
                 and what cures it: walseal-archiver verify",
                if known.flaws == 1 { "1 flaw".to_owned() } else { format!("{} flaws", known.flaws) }
            );
            self.alerts.raise(KIND, "", Severity::Critical, text);
        }
    }

    /// How long nothing is to be done.
    fn until_due(&self) -> Duration {
        let Some(surveyed) = self.verifier.record().surveyed else { return self.every.min(LULL) };
        let since = Duration::try_from(Timestamp::now().duration_since(surveyed)).unwrap_or_default();
        self.every.saturating_sub(since)
    }

    /// Surveys, and reads on until the next survey is due.
    async fn once(&mut self) -> Result<(), VerifyError> {
        let begun = Instant::now();
        let witnesses: Vec<_> = self
            .verifier
            .daemon(&self.progress.now(), "the stream of this daemon says".to_owned())
            .into_iter()
            .collect();
        let remembered = self.verifier.remembered_witness();
        let witnesses: Vec<_> = remembered.into_iter().chain(witnesses).collect();
        let survey = Survey::take(&self.verifier.repository, &witnesses).await?;
        let noted = self.verifier.note(&survey, false);
        // What somebody has read with the verb meanwhile counts as well.
        let mut round = self.verifier.record().round;
        self.judge(&survey, round.as_ref());
        // What is wrong was told, also where the state folder takes nothing.
        noted?;
        if self.read_every.is_zero() {
            return Ok(());
        }
        let due = |round: &Round| {
            let since = Duration::try_from(Timestamp::now().duration_since(round.began)).unwrap_or_default();
            round.reading.ended && since >= self.read_every
        };
        if round.as_ref().is_none_or(due) {
            round = Some(Round::after(round.as_ref(), Timestamp::now()));
        }
        let Some(mut round) = round else { return Ok(()) };
        let mut reader = Reader::new(&self.verifier.repository, &survey, None);
        let mut ailing = false;
        while !round.reading.ended && begun.elapsed() < self.every {
            if let Err(error) = reader.next(&mut round.reading).await {
                // What was read so far counts, and the rest is not put off until the next survey.
                if std::mem::replace(&mut ailing, true) {
                    tracing::debug!(%error, "objects still cannot be read");
                } else {
                    tracing::warn!(%error, "objects of the repository cannot be read; trying again until the next verification is due");
                }
                sleep(PAUSE.min(self.every)).await;
                // It broke off within a page, which is read from its beginning.
                reader = Reader::new(&self.verifier.repository, &survey, None);
                continue;
            }
            let saved = self.verifier.save_round(&round);
            self.judge(&survey, Some(&round));
            saved?;
        }
        Ok(())
    }

    /// Tells what was found.
    fn judge(&self, survey: &Survey, round: Option<&Round>) {
        self.verified.send_replace(Some(Verified::of(&self.verifier.record())));
        let read = round.map(|round| round.reading.flaws.as_slice()).unwrap_or_default();
        let flaws: Vec<&Flaw> = survey.flaws.iter().chain(read).collect();
        let count = survey.flaws.len() as u64 + round.map_or(0, Round::wrong);
        if count == 0 {
            self.alerts.clear(KIND, "", "everything is there that anything speaks of");
            return;
        }
        if flaws.is_empty() {
            // The round before told what it is.
            self.heed();
            return;
        }
        let named: Vec<String> = flaws.iter().take(NAMED).map(|flaw| flaw.to_string()).collect();
        let more = match count.saturating_sub(NAMED as u64) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let text = format!(
            "the repository is not whole: {}{more}; what it costs and what cures it: walseal-archiver verify{}",
            named.join("; "),
            if read.is_empty() { " --quick" } else { "" }
        );
        self.alerts.raise(KIND, "", Severity::Critical, text);
    }
}
