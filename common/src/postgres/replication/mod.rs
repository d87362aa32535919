//! The replication commands of a physical walsender (PostgreSQL documentation, chapter 55.4), for PostgreSQL 14 and
//! newer.

mod backup;
mod backup_options;
mod manifest_upload;
mod slot;
mod stream;

use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::{SystemIdentifier, TimelineId};

pub use backup::{BackupEvent, BaseBackup, Tablespace};
pub use backup_options::{BaseBackupOptions, Checkpoint, ManifestChecksums};
pub use manifest_upload::ManifestUpload;
pub use slot::{SlotCreated, SlotState};
pub use stream::{StreamEvent, WalStream};

use super::cancel::Canceller;
use super::conninfo::{Conninfo, Host};
use super::error::{Notice, PostgresError};
use super::session::{Purpose, ResultSet, Session};

/// First version with parenthesised options, READ_REPLICATION_SLOT and one COPY for a whole base backup.
pub(super) const VERSION_15: u32 = 150_000;
/// First version with UPLOAD_MANIFEST and incremental base backups.
pub(super) const VERSION_17: u32 = 170_000;

/// What IDENTIFY_SYSTEM answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemInfo {
    /// Which cluster this is.
    pub system_identifier: SystemIdentifier,
    /// The timeline the server is on; on a standby the one it replays.
    pub timeline: TimelineId,
    /// End of the WAL that is flushed; on a standby, of what it received or replayed.
    pub position: Lsn,
}

/// A connection for replication commands, one at a time. Streams and backups borrow it: one that is dropped in its
/// middle leaves a connection whose further commands fail with [`PostgresError::Abandoned`].
pub struct ReplicationClient {
    pub(super) session: Session,
}

impl std::fmt::Debug for ReplicationClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationClient").field("host", self.host()).finish_non_exhaustive()
    }
}

impl ReplicationClient {
    /// Connects to the first host that is up and fits `target_session_attrs`.
    ///
    /// Errors: of the only host, or [`PostgresError::NoHost`] with all; at once where another host could not help, as
    /// with a wrong password.
    pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<ReplicationClient, PostgresError> {
        let session = Session::connect(conninfo, Purpose::Replication, application_name).await?;
        Ok(ReplicationClient { session })
    }

    /// Connects to this host, whatever its role, to stay with one that was chosen before (case 16).
    pub async fn connect_to(
        conninfo: &Conninfo,
        host: &Host,
        application_name: &str,
    ) -> Result<ReplicationClient, PostgresError> {
        let session = Session::connect_to(conninfo, host, Purpose::Replication, application_name).await?;
        Ok(ReplicationClient { session })
    }

    /// The host that answered.
    pub fn host(&self) -> &Host {
        self.session.host()
    }

    /// What stops a command of this connection while it runs; `conninfo` is the one it was made with.
    pub fn canceller(&self, conninfo: &Conninfo) -> Canceller {
        Canceller { conninfo: conninfo.clone(), host: self.host().clone(), key: self.session.key().clone() }
    }

    /// The server's version as its `server_version_num`: 150018 for 15.18.
    pub fn server_version_num(&self) -> u32 {
        self.session.version()
    }

    /// A setting that the server reports at the start of a connection, such as `in_hot_standby`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters().get(name).map(String::as_str)
    }

    /// Notices and warnings since the last call; the first thousand.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.session.take_notices()
    }

    /// IDENTIFY_SYSTEM: which cluster this is, and where it is.
    pub async fn identify_system(&mut self) -> Result<SystemInfo, PostgresError> {
        let doing = "IDENTIFY_SYSTEM failed";
        let set = self.one_set(doing, "IDENTIFY_SYSTEM").await?;
        let read = || {
            Some(SystemInfo {
                system_identifier: set.first(0)?.parse().ok()?,
                timeline: timeline(&set, 1)?,
                position: lsn(&set, 2)?,
            })
        };
        read().ok_or_else(|| not_understood(doing, &set))
    }

    /// SHOW: the value of a server setting.
    ///
    /// Errors: [`PostgresError::Argument`] when `name` is no setting's name.
    pub async fn show(&mut self, name: &str) -> Result<String, PostgresError> {
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !name.split('.').all(plain) || name.split('.').count() > 2 {
            return Err(PostgresError::Argument(format!("\"{name}\" is not the name of a setting")));
        }
        let doing = format!("SHOW {name} failed");
        let set = self.one_set(&doing, &format!("SHOW {name}")).await?;
        set.first(0).ok_or_else(|| not_understood(&doing, &set))
    }

    /// The cluster's WAL segment size (case 18).
    pub async fn segment_size(&mut self) -> Result<SegmentSize, PostgresError> {
        let text = self.show("wal_segment_size").await?;
        let bytes = segment_bytes(&text).and_then(|bytes| SegmentSize::new(bytes).ok());
        bytes.ok_or_else(|| PostgresError::Protocol {
            doing: "SHOW wal_segment_size".to_owned(),
            why: format!("\"{text}\" is not a segment size"),
        })
    }

    /// TIMELINE_HISTORY: the history file as the server has it, or `None` where it has none: timeline 1, or an
    /// ancestor whose file did not come with a base backup (case 2).
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<Option<Vec<u8>>, PostgresError> {
        let doing = format!("TIMELINE_HISTORY {} failed", timeline.number());
        match self.one_set(&doing, &format!("TIMELINE_HISTORY {}", timeline.number())).await {
            Ok(set) => match set.rows.first().and_then(|row| row.get(1)).cloned().flatten() {
                // The column is called bytea or text by version, but holds the file's bytes as they are.
                Some(content) => Ok(Some(content.to_vec())),
                None => Err(not_understood(&doing, &set)),
            },
            Err(error) if error.sqlstate() == Some("58P01") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// START_REPLICATION PHYSICAL: streams WAL from `start` on `timeline`, which may be the server's or an ancestor
    /// of it.
    ///
    /// Errors: see [`PostgresError::is_slot_active`], [`PostgresError::is_wal_removed`],
    /// [`PostgresError::is_not_in_history`], [`PostgresError::is_ahead_of_server`]; some come only with the first
    /// [`WalStream::next`].
    pub async fn start_replication(
        &mut self,
        slot: Option<&str>,
        start: Lsn,
        timeline: TimelineId,
    ) -> Result<WalStream<'_>, PostgresError> {
        WalStream::start(&mut self.session, slot, start, timeline).await
    }

    /// UPLOAD_MANIFEST: begins to send the manifest of the backup that an incremental one will be compared with, as the
    /// server sent it then. It holds for this connection, until another one is sent.
    ///
    /// Errors: [`PostgresError::Unsupported`] before PostgreSQL 17.
    pub async fn upload_manifest(&mut self) -> Result<ManifestUpload<'_>, PostgresError> {
        ManifestUpload::start(&mut self.session).await
    }

    /// BASE_BACKUP: starts a base backup and returns when the server has made its checkpoint and sends.
    pub async fn base_backup(&mut self, options: &BaseBackupOptions) -> Result<BaseBackup<'_>, PostgresError> {
        BaseBackup::start(&mut self.session, options).await
    }

    /// Says good-bye to the server and closes the connection.
    pub async fn close(self) {
        self.session.close().await;
    }

    /// Runs a command that answers with one result set.
    async fn one_set(&mut self, doing: &str, command: &str) -> Result<ResultSet, PostgresError> {
        let mut sets = self.session.query(doing, command).await?;
        if sets.len() == 1 { Ok(sets.remove(0)) } else { Err(not_understood(doing, &ResultSet::default())) }
    }
}

fn timeline(set: &ResultSet, column: usize) -> Option<TimelineId> {
    set.first(column)?.parse().ok().and_then(TimelineId::new)
}

fn lsn(set: &ResultSet, column: usize) -> Option<Lsn> {
    set.first(column)?.parse().ok()
}

fn not_understood(doing: &str, set: &ResultSet) -> PostgresError {
    let why = format!("{} rows with the columns {:?}", set.rows.len(), set.columns);
    PostgresError::Protocol { doing: doing.to_owned(), why }
}

/// Bytes of a size as SHOW prints it: "16MB", "1GB".
fn segment_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "B" | "" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
