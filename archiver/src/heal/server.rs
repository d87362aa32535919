//! What a server still has in its `pg_wal`, over the replication protocol and without a slot.
//!
//! A walsender sends every byte of WAL that lies in `pg_wal`, whether or not a slot keeps it, of its own timeline and of those that
//! it came from. It needs no more than the archiver's role has, works from another host, and gives what the server
//! itself would read; `pg_read_binary_file` needs a grant of its own, and the data directory the same host and user.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::TargetSessionAttrs;
use walseal_common::postgres::replication::StreamEvent;
use walseal_common::postgres::{Conninfo, Host, PostgresError, ReplicationClient};
use walseal_common::repository::{Repository, RepositoryIdentity};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use super::SourceError;
use super::source::{AHEAD, Brought, Lineage, Reading, Source};
use crate::primary;
use crate::stream;

/// What the server shows in `pg_stat_replication`.
const NAME: &str = "walseal heal";

/// A server that sends nothing for so long, of what it has, is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// How often the server hears that somebody is there while what it sent is still being stored.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A server of the cluster.
#[derive(Clone, Debug)]
pub struct ServerSource {
    conninfo: Conninfo,
    host: Host,
    standby: bool,
    history: TimelineHistory,
    /// End of its WAL when it was asked.
    position: Lsn,
    size: SegmentSize,
    system: SystemIdentifier,
}

impl ServerSource {
    /// The primary that `conninfo` leads to.
    ///
    /// Errors: it does not answer; it is another cluster's (I4).
    pub async fn primary(
        conninfo: &Conninfo,
        repository: &Repository,
        identity: &RepositoryIdentity,
    ) -> Result<ServerSource, SourceError> {
        let describe = || format!("the server at {}", conninfo.redacted());
        let connected = primary::connect_within(conninfo, NAME, repository.cluster()).await;
        let client = connected.map_err(|error| SourceError::Postgres { source_name: describe(), error })?;
        ServerSource::of(conninfo, client, conninfo.target_session_attrs(), repository, identity, describe()).await
    }

    /// The server that somebody chose (case 16): a standby, or what was the primary once.
    ///
    /// Errors: as [`ServerSource::primary`].
    pub async fn chosen(
        conninfo: &Conninfo,
        repository: &Repository,
        identity: &RepositoryIdentity,
    ) -> Result<ServerSource, SourceError> {
        let describe = || format!("the server at {}", conninfo.redacted());
        let connected = ReplicationClient::connect(conninfo, NAME).await;
        let client = connected.map_err(|error| SourceError::Postgres { source_name: describe(), error })?;
        let wanted = TargetSessionAttrs::PreferStandby;
        ServerSource::of(conninfo, client, wanted, repository, identity, describe()).await
    }

    async fn of(
        conninfo: &Conninfo,
        mut client: ReplicationClient,
        wanted: TargetSessionAttrs,
        repository: &Repository,
        identity: &RepositoryIdentity,
        source_name: String,
    ) -> Result<ServerSource, SourceError> {
        let server = stream::identify(&mut client, repository, identity, wanted).await;
        let server = server.map_err(|error| SourceError::Server { source_name, error: Box::new(error) })?;
        let (host, standby) = (client.host().clone(), client.parameter("in_hot_standby") == Some("on"));
        client.close().await;
        Ok(ServerSource {
            conninfo: conninfo.clone(),
            host,
            standby,
            history: server.history,
            position: server.position,
            size: server.segment_size,
            system: repository.cluster(),
        })
    }

    /// End of its WAL when it was asked.
    pub(crate) fn position(&self) -> Lsn {
        self.position
    }

    fn failed(&self, error: PostgresError) -> SourceError {
        SourceError::Postgres { source_name: self.describe(), error }
    }

    fn silent(&self) -> SourceError {
        SourceError::Silent { source_name: self.describe(), seconds: SILENCE.as_secs() }
    }

    async fn connect(&self) -> Result<ReplicationClient, SourceError> {
        let connected = ReplicationClient::connect_to(&self.conninfo, &self.host, NAME).await;
        connected.map_err(|error| self.failed(error))
    }

    /// Whether segment `number` lies in the server's `pg_wal`. It says so only when it has to send it.
    async fn has(&self, timeline: TimelineId, number: SegmentNumber) -> Result<bool, SourceError> {
        let mut client = self.connect().await?;
        let tried = async {
            let mut stream = client.start_replication(None, number.start(self.size), timeline).await?;
            loop {
                match stream.next().await? {
                    StreamEvent::Wal { .. } => return Ok(true),
                    StreamEvent::Keepalive { .. } => {}
                    StreamEvent::TimelineEnd { .. } | StreamEvent::EndOfStream => return Ok(false),
                }
            }
        };
        // The connection goes with this; the server is not told, and sees it at once.
        match timeout(SILENCE, tried).await.map_err(|_| self.silent())? {
            Ok(there) => Ok(there),
            Err(error) if PostgresError::is_wal_removed(&error) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The first segment from `first` up to `last` that the server has. It removes the oldest first.
    async fn first(
        &self,
        timeline: TimelineId,
        first: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<Option<SegmentNumber>, SourceError> {
        if self.has(timeline, first).await? {
            return Ok(Some(first));
        }
        // `low` is not there, `high` is.
        let (mut low, mut high) = (first.0, last.0);
        if low >= high || !self.has(timeline, last).await? {
            return Ok(None);
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.has(timeline, SegmentNumber(middle)).await? {
                true => high = middle,
                false => low = middle,
            }
        }
        Ok(Some(SegmentNumber(high)))
    }

    /// Sends what lies from `from` to `until`, as far as it comes. Returns when nobody listens any more.
    async fn bring(
        &self,
        timeline: TimelineId,
        from: Lsn,
        until: Lsn,
        sender: &mpsc::Sender<Result<Brought, SourceError>>,
    ) -> Result<(), SourceError> {
        let mut client = self.connect().await?;
        let started = client.start_replication(None, from, timeline).await;
        let mut stream = started.map_err(|error| self.failed(error))?;
        let mut at = from;
        let mut ticks = interval(SIGN_OF_LIFE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let nothing = Lsn::INVALID;
        while at < until {
            let event = timeout(SILENCE, stream.next()).await.map_err(|_| self.silent())?;
            match event.map_err(|error| self.failed(error))? {
                StreamEvent::Wal { data, .. } => {
                    let length = data.len().min(usize::try_from(until.bytes_since(at)).unwrap_or(usize::MAX));
                    at = at.advance(length as u64);
                    let sending = sender.send(Ok(Brought::Wal(data.slice(..length))));
                    tokio::pin!(sending);
                    loop {
                        tokio::select! {
                            sent = &mut sending => match sent {
                                Ok(()) => break,
                                Err(_) => return Ok(()),
                            },
                            // Nothing is ever said to be durable: three zeros (I1).
                            _ = ticks.tick() => {
                                let said = stream.send_status(nothing, nothing, nothing, false).await;
                                said.map_err(|error| self.failed(error))?;
                            }
                        }
                    }
                }
                StreamEvent::Keepalive { reply_requested: true, .. } => {
                    let said = stream.send_status(nothing, nothing, nothing, false).await;
                    said.map_err(|error| self.failed(error))?;
                }
                StreamEvent::Keepalive { .. } => {}
                StreamEvent::TimelineEnd { .. } | StreamEvent::EndOfStream => break,
            }
        }
        // It sends what is flushed, and whole segments only when they are finished.
        let end = format!("{} has no more", self.describe());
        for brought in [Brought::Finished(at), Brought::End(end)] {
            if sender.send(Ok(brought)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Source for ServerSource {
    fn describe(&self) -> String {
        format!("pg_wal of the {} at {}", if self.standby { "standby" } else { "primary" }, self.host)
    }

    async fn lineage(&self, branch: Branch) -> Result<Lineage, SourceError> {
        Ok(Lineage::of(branch, &self.history, self.system))
    }

    async fn read(&self, timeline: TimelineId, from: Lsn, until: Lsn) -> Result<Option<Reading>, SourceError> {
        let until = until.min(self.history.end_of(timeline).unwrap_or(self.position));
        if from >= until {
            return Ok(None);
        }
        let last = self.size.number(Lsn(until.0 - 1));
        let Some(first) = self.first(timeline, self.size.number(from), last).await? else { return Ok(None) };
        let start = first.start(self.size);
        let (sender, brought) = mpsc::channel(AHEAD);
        let own = self.clone();
        tokio::spawn(async move {
            if let Err(error) = own.bring(timeline, start, until, &sender).await {
                // Nobody may be left to hear it.
                drop(sender.send(Err(error)).await);
            }
        });
        Ok(Some(Reading { start, brought }))
    }

    async fn notes(&self, _: TimelineId) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}
