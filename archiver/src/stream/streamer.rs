//! The stream over the years: connects, resumes from the repository, streams, and tries again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::TargetSessionAttrs;
use walseal_common::postgres::replication::SlotCreated;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient};
use walseal_common::repository::{Act, Gap, Ledger, Leg, Repository, RepositoryIdentity};
use walseal_common::seal::MAX_PLAINTEXT;
use walseal_common::telemetry::{AlertKind, Alerts};
use walseal_common::timeline::Branch;
use walseal_common::wal::WalVersion;

use super::complaints::Complaints;
use super::limit::Limit;
use super::remains::Remains;
use super::resume::{self, Past, ServerPosition};
use super::session::{Ended, Receiver, SessionEnd, Timing, asked_to_stop, asked_with};
use super::ship::Shipping;
use super::slot::read_slot;
use super::start::{Followed, StartPoint};
use super::{Cutter, Frontier, ProgressSender, ProgressWatch, StreamError};
use crate::aftermath;
use crate::chunks;
use crate::index::Index;
use crate::keys::ArchiveKeys;
use crate::landed::Landed;
use crate::memory::{BESIDE_FRAMES, Memory};
use crate::primary;
use crate::summarist::FinishedRun;

/// Everything a stream needs.
#[derive(Clone, Debug)]
pub struct Streamer {
    /// The server.
    pub conninfo: Conninfo,
    /// Name of the physical replication slot: the durable queue.
    pub slot: String,
    /// Fixed, so that synchronous replication can name it (case 13).
    pub application_name: String,
    /// Where the WAL goes.
    pub repository: Repository,
    /// What the repository is.
    pub identity: RepositoryIdentity,
    /// The archiver's keys.
    pub keys: Arc<ArchiveKeys>,
    /// What was verified before.
    pub index: Arc<dyn Index>,
    /// How the stream behaves.
    pub timing: Timing,
    /// For pieces of WAL on their way into the repository; shared with whoever else ships some.
    pub memory: Memory,
    /// Who hears of what a person has to know.
    pub alerts: Alerts,
    /// Where it is recorded.
    pub ledger: Ledger,
    /// What it has made durable.
    pub landed: Landed,
    pub(super) progress: ProgressSender,
    /// What the slot may keep; `None` without a limit.
    pub(super) limit: Option<Limit>,
    /// Of the stream before.
    pub(super) remains: Remains,
    /// Conflicts that this process met.
    pub(super) conflicts: watch::Sender<u64>,
    /// Takes what the transactions of runs of segments did, where somebody stores it.
    pub(super) summaries: Option<mpsc::Sender<FinishedRun>>,
}

/// What was found out before a stream.
struct Beginning {
    server: ServerPosition,
    slot: Option<Lsn>,
    point: StartPoint,
}

/// Pieces of WAL between cutter and repository, in bytes (I11): two whole objects and 4 MiB, so that one that shrank is stored while
/// two are sealed. An object takes less and less as its plaintext gives way to ciphertext.
pub const WAL_MEMORY: u64 = 2 * (MAX_PLAINTEXT + BESIDE_FRAMES) + (4 << 20);

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

impl Streamer {
    /// A stream that has not begun.
    pub fn new(
        conninfo: Conninfo,
        slot: String,
        repository: Repository,
        identity: RepositoryIdentity,
        keys: Arc<ArchiveKeys>,
        index: Arc<dyn Index>,
        timing: Timing,
    ) -> Streamer {
        let progress = ProgressSender::default();
        let application_name = slot.clone();
        let memory = Memory::new(WAL_MEMORY).followed_by(chunks::keep_within);
        let (alerts, ledger) = (Alerts::to_log(), Ledger::none());
        Streamer {
            conninfo,
            slot,
            application_name,
            repository,
            identity,
            keys,
            index,
            timing,
            memory,
            alerts,
            ledger,
            landed: Landed::default(),
            progress,
            limit: None,
            remains: Remains::default(),
            conflicts: watch::Sender::new(0),
            summaries: None,
        }
    }

    /// Tells what the transactions of each run of segments did.
    #[must_use]
    pub fn summarising(mut self, writer: mpsc::Sender<FinishedRun>) -> Streamer {
        self.summaries = Some(writer);
        self
    }

    /// Gives the slot up when the server keeps more than `limit` for it.
    #[must_use]
    pub fn giving_up_at(mut self, limit: Option<Limit>) -> Streamer {
        self.limit = limit;
        self
    }

    /// Tells these of what a person has to know.
    #[must_use]
    pub fn alerting(mut self, alerts: Alerts) -> Streamer {
        self.alerts = alerts;
        self
    }

    /// Records there what happens.
    #[must_use]
    pub fn recording(mut self, ledger: Ledger) -> Streamer {
        self.ledger = ledger;
        self
    }

    /// Follows the stream.
    pub fn progress(&self) -> ProgressWatch {
        self.progress.watch()
    }

    /// Streams until `stop` says so. Whatever goes wrong is logged once, shown in the progress, and tried again with
    /// growing pauses: the slot keeps what is not durable.
    ///
    /// Errors: only what trying again cannot mend.
    pub async fn run(&self, stop: watch::Receiver<bool>) -> Result<SessionEnd, StreamError> {
        tokio::select! {
            ended = self.stream(stop) => ended,
            never = self.follow_store() => match never {},
        }
    }

    /// Shows in the progress what the store fails to do, also while a stream goes on.
    async fn follow_store(&self) -> Infallible {
        if let Some(mut failing) = self.repository.store().failing() {
            loop {
                let trouble = failing.borrow_and_update().worst().map(ToString::to_string);
                self.progress.update(|progress| progress.store_trouble = trouble);
                if failing.changed().await.is_err() {
                    break;
                }
            }
        }
        std::future::pending().await
    }

    async fn stream(&self, mut stop: watch::Receiver<bool>) -> Result<SessionEnd, StreamError> {
        let mut pause = PAUSES.0;
        let mut past = Past::default();
        let mut complaints = Complaints::default();
        loop {
            let before = self.progress.watch().now().shipped_bytes;
            let outcome = self.stream_until_left(&mut stop, &mut past, &mut complaints).await;
            self.progress.update(|progress| progress.connected = false);
            match outcome {
                Ok(end @ (SessionEnd::Asked | SessionEnd::AskedWithRest(_))) => return Ok(end),
                Ok(SessionEnd::Timeline(next)) => {
                    tracing::info!(next = next.number(), "the timeline ended; following the server to the next");
                    past.done = self.progress.watch().now().branch;
                    pause = PAUSES.0;
                }
                Ok(SessionEnd::ServerShutdown) => {
                    let trouble = "the server shut down; waiting for it to come back".to_owned();
                    tracing::info!("{trouble}");
                    self.progress.update(|progress| progress.trouble = Some(trouble));
                }
                Err(error) => {
                    if error.is_permanent() {
                        self.progress.update(|progress| progress.trouble = Some(error.to_string()));
                        return Err(error);
                    }
                    past.lost = error.wal_gone();
                    self.complain(&error, &mut complaints);
                }
            }
            if self.progress.watch().now().shipped_bytes > before {
                pause = PAUSES.0;
                complaints.forget();
                if let Some(limit) = &self.limit {
                    limit.forget();
                }
            }
            tokio::select! {
                () = asked_to_stop(&mut stop) => return Ok(self.asked()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Asked to stop while there was no connection: what the server was known to have and the repository has not is left.
    fn asked(&self) -> SessionEnd {
        asked_with(self.progress.watch().now().not_durable())
    }

    /// Says why there is no stream: to those who ask each time, in the log once.
    fn complain(&self, error: &StreamError, complaints: &mut Complaints) {
        let mut words = error.to_string();
        if error.asks_why()
            && let Some(why) = self.progress.watch().now().store_trouble
        {
            words.push_str("; because: ");
            words.push_str(&why);
        }
        if error.is_conflict() {
            self.alert_of_conflict(error, &words);
        } else if complaints.is_news(error) {
            tracing::warn!(error = words, "no stream; trying again until it works");
        } else {
            tracing::debug!(error = words, "still no stream");
        }
        self.progress.update(|progress| progress.trouble = Some(words));
    }

    /// One connection, from identification to its end, and until what it brought is durable.
    pub(super) async fn stream_once(
        &self,
        stop: &mut watch::Receiver<bool>,
        past: &mut Past,
        complaints: &mut Complaints,
    ) -> Result<SessionEnd, StreamError> {
        let now = *past;
        (past.lost, past.done) = (None, None);
        let beginning = async {
            let (name, cluster) = (&self.application_name, self.repository.cluster());
            let mut client = primary::connect_and_alert(&self.conninfo, name, cluster, &self.alerts).await?;
            let beginning = self.begin(&mut client, now).await?;
            Ok::<_, StreamError>((client, beginning))
        };
        let (mut client, beginning) = tokio::select! {
            biased;
            () = asked_to_stop(stop) => return Ok(self.asked()),
            begun = beginning => begun?,
        };
        let branch = beginning.point.branch;
        let Ended { outcome, rest, frontier } = self.stream_from(&mut client, stop, beginning).await;
        // Closes the connection: the server waits for nobody now.
        drop(client);
        self.progress.update(|progress| progress.connected = false);
        let outcome = match (rest, outcome) {
            (Some(rest), Err(ended)) => {
                // It may take a while until the rest has landed, or is given up.
                self.complain(&ended, complaints);
                match rest.land(stop).await {
                    Ok(None) => Err(ended),
                    // What was received is a part of what the server is known to have.
                    Ok(Some(_)) => Ok(self.asked()),
                    Err(why) => Err(StreamError::Unstored { ended: Box::new(ended), why: Box::new(why) }),
                }
            }
            (_, outcome) => outcome,
        };
        past.seen = Some((branch, *frontier.borrow())).filter(|(_, seen)| !seen.is_invalid()).or(past.seen);
        outcome
    }

    /// Where the stream begins.
    async fn begin(&self, client: &mut ReplicationClient, past: Past) -> Result<Beginning, StreamError> {
        let lost = past.lost;
        let wanted = self.conninfo.target_session_attrs();
        let mut server = resume::identify(client, &self.repository, &self.identity, wanted).await?;
        self.progress.update(|progress| {
            if progress.branch == Some(server.branch()) {
                progress.server_end = progress.server_end.max(server.position);
            }
        });
        let given_up = self.limit.as_ref().filter(|limit| limit.is_without_slot());
        if given_up.is_some() {
            // The store first: until it answers, a slot would keep WAL for nobody.
            self.repository.identity().await?;
        }
        resume::store_histories(&self.repository, &self.keys, &server.history).await?;
        // What a slot says that was there before us.
        let found = self.read_slot(client).await?;
        let mut slot = match found {
            Some(position) => position,
            None => {
                if given_up.is_none() {
                    self.ledger.record(Act::SlotLost {});
                }
                self.make_slot(client).await?
            }
        };
        if let Some(limit) = given_up {
            limit.made_anew(slot, server.position);
        }
        let keeps_nothing = |slot: Lsn| lost.is_some_and(|lost| server.segment_size.align_down(slot) <= lost);
        if lost.is_some() && slot.is_none_or(keeps_nothing) {
            // The server gave up on it (case 14): an invalidated slot keeps nothing ever again, and neither does one whose
            // own position is gone.
            self.alert_of_slot("keeps no WAL any more, and is made anew");
            self.ledger.record(Act::SlotLost {});
            client.drop_slot(&self.slot).await?;
            self.ledger.record(Act::SlotDropped {});
            slot = self.make_slot(client).await?;
        }
        let key = self.keys.writer.compare().id();
        let point = resume::start_point(&self.repository, key, &server, slot, self.index.as_ref(), past).await?;
        if point.frontier > server.position && point.branch == server.branch() {
            // Another archiver may have shipped what the server wrote since it said that.
            let now = client.identify_system().await?;
            server.position = server.position.max(now.position);
        }
        // No WAL of a server that cannot be told from the other one lands beyond what the living one stored.
        if lost.is_some()
            && let Some((name, adoption)) = server.adoptions.leading_to(point.branch)
            && past.seen_of(point.branch).is_none_or(|seen| seen < point.frontier)
            && slot.is_none_or(|slot| slot > point.frontier)
        {
            let (name, writer) = (name.to_string(), adoption.writer.clone());
            return Err(StreamError::NotTheLiving { name, branch: point.branch, from: point.start, writer });
        }
        let by_choice = matches!(wanted, TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby);
        if point.frontier > server.position && point.branch == server.branch() && !by_choice {
            self.alert_of_less(server.position, &point);
        }
        let mut point = point.comparing(lost);
        if let Some(Followed { branch: from, fork, surplus: surplus_bytes }) = point.followed {
            self.ledger.record(Act::TimelineFollowed { from, to: point.branch, fork, surplus_bytes });
        }
        // Where nothing was stored yet, a stream begins with the segment that the slot keeps.
        let short = |confirmed: &Lsn| {
            let begin = if point.durable.is_some() { *confirmed } else { server.segment_size.align_down(*confirmed) };
            begin > point.frontier
        };
        // The witness outside the bucket: what the slot has let go of was durable once, or somebody else advanced the slot.
        let told = found.flatten().filter(short).map(|confirmed| {
            (confirmed, format!("the slot {} was told that WAL is durable up to {confirmed}", self.slot))
        });
        // And one inside, where the slot is new: what was written down as durable.
        let recorded = self.repository.recorded_frontier(point.branch).await?;
        let recorded = recorded.filter(|(recorded, _)| *recorded > point.frontier);
        let recorded =
            recorded.map(|(recorded, name)| (recorded, format!("{name} says that WAL was durable up to {recorded}")));
        if let Some((durable, witness)) = told.into_iter().chain(recorded).max() {
            self.alert_of_missing(durable, &witness, &point);
        }
        if lost == Some(point.start) {
            let after = resume::after_loss(&server, slot);
            if after.start > point.start {
                self.record_gap(&point, &after, &server, slot).await?;
                point = after;
            }
        }
        Ok(Beginning { server, slot, point })
    }

    /// WAL between the repository's end and what the server still has is lost: recorded before anything behind it is
    /// stored (I5).
    async fn record_gap(
        &self,
        point: &StartPoint,
        after: &StartPoint,
        server: &ServerPosition,
        slot: Option<Lsn>,
    ) -> Result<(), StreamError> {
        let why = format!(
            "the server had no WAL from {} on any more (it was at {}, its slot {} kept WAL from {})",
            point.start,
            server.position,
            self.slot,
            slot.map_or("nowhere".to_owned(), |slot| slot.to_string()),
        );
        let given_up =
            self.limit.as_ref().and_then(Limit::words).map_or_else(String::new, |words| format!("{words}; "));
        let why = format!("{given_up}{why}");
        let gap = Gap {
            branch: point.branch,
            from: self.keep_remains(point).await?,
            to: after.start,
            next: after.branch,
            found: jiff::Timestamp::now(),
            highest_time: self.progress.watch().now().highest_time,
            why,
            way: way(server, point.branch, after.branch),
        };
        self.repository.put_gap(&gap, &self.keys.writer).await?;
        self.ledger.record(Act::GapRecorded { branch: gap.branch, from: gap.from, to: gap.to, next: gap.next });
        aftermath::alert(&self.alerts, &gap);
        self.alerts.clear(AlertKind::ConfirmedMissing, &self.slot, "what was missing is recorded as a gap");
        if let Some(limit) = &self.limit {
            limit.forget();
        }
        self.progress.update(|progress| progress.gaps += 1);
        Ok(())
    }

    async fn stream_from(
        &self,
        client: &mut ReplicationClient,
        stop: &mut watch::Receiver<bool>,
        Beginning { server, slot, point }: Beginning,
    ) -> Ended {
        let pinned = client.host().clone();
        let host = pinned.to_string();
        let takes_writes = client.parameter("in_hot_standby") != Some("on");
        let gone = |error: PostgresError| {
            if error.is_wal_removed() { StreamError::WalGone(point.start) } else { error.into() }
        };
        let started = tokio::select! {
            biased;
            () = asked_to_stop(stop) => return Ended::before_it_began(Ok(SessionEnd::Asked)),
            // The error borrows nothing, so that whoever holds the slot can be asked for.
            started = client.start_replication(Some(&self.slot), point.start, point.branch.timeline) => started,
        };
        let stream = match started {
            Ok(stream) => stream,
            Err(error) if error.is_slot_active() => {
                // Whoever holds the slot streams from this server: what that made durable is durable for those who wait here, too.
                if let Some(slot) = slot {
                    let end = slot.min(point.frontier);
                    self.progress.update(|progress| progress.shipped_by_another(point.branch, end));
                }
                return Ended::before_it_began(Err(self.name_rival(&pinned, error).await));
            }
            Err(error) => return Ended::before_it_began(Err(gone(error))),
        };
        tracing::info!(
            %host, branch = %point.branch, start = %point.start, frontier = %point.frontier,
            "streaming WAL from slot {}", self.slot
        );
        self.alerts.clear(AlertKind::SlotLost, &self.slot, "WAL is streamed from the slot again");
        let frontier = Frontier::new(Lsn::INVALID);
        let following = frontier.watch();
        let durable = point.durable.map(|durable| (point.frontier, durable));
        let cutter = Cutter::new(point.branch, server.segment_size, self.keys.writer.compare(), point.start, durable);
        let version = WalVersion::ALL.into_iter().find(|one| u32::from(one.major()) == self.identity.postgres_major);
        let cutter = match version.filter(|_| self.summaries.is_some()) {
            Some(version) => cutter.summarising(version),
            None => cutter,
        };
        let shipping = Shipping {
            repository: self.repository.clone(),
            keys: self.keys.clone(),
            cutter,
            frontier: Arc::new(Mutex::new(frontier)),
            start: point.start,
            resumed: point.frontier,
            confirmed: point.frontier.max(slot.unwrap_or_default()),
            index: self.index.clone(),
            landed: self.landed.clone(),
            ship_interval: self.timing.ship_interval,
            synchronous: self.timing.synchronous,
            put_limit: self.timing.put_limit,
            memory: self.memory.clone(),
            progress: self.progress.clone(),
            remains: self.remains.clone(),
            summaries: self.summaries.clone(),
        };
        let (feed, fed) = mpsc::unbounded_channel();
        self.progress.update(|progress| {
            progress.begun(point.branch, point.frontier, server.position, jiff::Timestamp::now());
            progress.host = Some(host.clone());
            progress.written_here = takes_writes && point.branch == server.branch();
        });
        let receiver = Receiver {
            stream,
            timing: self.timing,
            frontier: following,
            resumed: point.frontier,
            // What the slot had confirmed stays confirmed; below it nothing is ever reported. The start alone is no news:
            // said to a slot that the server has given up, it would seem to keep WAL again.
            floor: slot.filter(|slot| *slot >= point.start).unwrap_or(point.start.advance(1)),
            pending: None,
            feed,
            progress: self.progress.clone(),
        };
        let mut ended = receiver.run(tokio::spawn(shipping.run(fed)), stop).await;
        if let Err(StreamError::Postgres(error)) = ended.outcome {
            ended.outcome = Err(gone(error));
        }
        ended
    }

    /// Makes the slot, so that WAL is kept from now on, and says from where on.
    async fn make_slot(&self, client: &mut ReplicationClient) -> Result<Option<Lsn>, StreamError> {
        if client.create_physical_slot(&self.slot, false).await? == SlotCreated::Created {
            self.alert_of_slot("was not there and was made anew");
        }
        let position = self.read_slot(client).await?.flatten();
        self.ledger.record(Act::SlotCreated { position });
        Ok(position)
    }

    /// `None`: no slot. `Some(None)`: one that keeps nothing.
    async fn read_slot(&self, client: &mut ReplicationClient) -> Result<Option<Option<Lsn>>, StreamError> {
        Ok(read_slot(client, &self.conninfo, &self.slot, &self.application_name).await?)
    }
}

/// The branches on which the server's WAL lies from `from` up to `to`, each with where it is left.
fn way(server: &ServerPosition, from: Branch, to: Branch) -> Vec<Leg> {
    let steps = server.way().into_iter();
    let legs = steps.filter_map(|step| step.switch.map(|end| Leg { branch: step.branch, end }));
    legs.skip_while(|leg| leg.branch != from).take_while(|leg| leg.branch != to).collect()
}
