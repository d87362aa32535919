//! A base backup as it arrives: BASE_BACKUP's answer in one form for all versions (case 34).
//!
//! From PostgreSQL 15 on everything comes in one COPY whose messages say what they are; before, each tablespace and
//! the manifest come in a COPY of their own.

use bytes::Bytes;
use postgres_protocol::message::backend::{
    COMMAND_COMPLETE_TAG, COPY_DATA_TAG, COPY_DONE_TAG, COPY_OUT_RESPONSE_TAG, NOTICE_RESPONSE_TAG, READY_FOR_QUERY_TAG,
};

use super::{BaseBackupOptions, VERSION_15, lsn, not_understood, timeline};
use crate::lsn::Lsn;
use crate::postgres::error::{Notice, PostgresError, ServerError};
use crate::postgres::session::{ResultSet, ResultSets, Session};
use crate::postgres::wire::{Fields, Frame, malformed, unexpected};
use crate::timeline::TimelineId;

/// A directory of the cluster that comes as an archive of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tablespace {
    /// Object id and location; `None` for the data directory itself. The location of a tablespace inside the data
    /// directory is relative to it.
    pub place: Option<(u32, String)>,
    /// Its size in KiB, when progress was asked for.
    pub size_kib: Option<u64>,
}

/// What a base backup brings, in this order: archives with their data, the manifest, the end. Notices and progress come
/// between any two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackupEvent {
    /// A tar archive begins; its data follow.
    ArchiveStart {
        /// Object id and location of the tablespace; `None` for the data directory.
        tablespace: Option<(u32, String)>,
        /// The archive's name: `base.tar`, or the tablespace's object id and `.tar`.
        name: String,
    },
    /// The next bytes of the archive. They share a read buffer of some 256 KiB.
    Data(Bytes),
    /// The archives are whole; the manifest begins.
    ManifestStart,
    /// The next bytes of the manifest.
    ManifestData(Bytes),
    /// Bytes that the server has read so far. PostgreSQL 15 and newer, when progress was asked for.
    Progress(u64),
    /// A warning or less. Page checksums that failed come as one `WARNING` for each of the first five pages of a file and
    /// one for each file, and before the end once as `ERROR` with SQLSTATE `XX001` (case 31): such a backup is whole,
    /// but suspect.
    Notice(Notice),
    /// All is there. The client may be used for other commands now. Comes again with every further call.
    End {
        /// WAL up to here is needed to use the backup.
        stop: Lsn,
        /// The timeline of that position.
        timeline: TimelineId,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between COPYs: result sets, the next COPY, or the end.
    Between,
    /// In a COPY that has begun; what it holds is not known yet.
    Copy,
    /// In an archive.
    Archive,
    /// In the manifest.
    Manifest,
    /// Over.
    Ended(Lsn, TimelineId),
    /// Failed: nothing more comes.
    Failed,
}

/// A base backup that arrives. Dropping it before its end leaves its client without use and makes the server give up.
pub struct BaseBackup<'a> {
    session: &'a mut Session,
    start: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<Tablespace>,
    state: State,
    one_copy: bool,
    manifest: bool,
    archives: usize,
    manifests: usize,
    sets: ResultSets,
}

impl std::fmt::Debug for BaseBackup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseBackup").field("start", &self.start).field("state", &self.state).finish_non_exhaustive()
    }
}

const DOING: &str = "BASE_BACKUP failed";
/// SQLSTATE `data_corrupted`.
const DATA_CORRUPTED: &str = "XX001";

impl<'a> BaseBackup<'a> {
    pub(super) async fn start(
        session: &'a mut Session,
        options: &BaseBackupOptions,
    ) -> Result<BaseBackup<'a>, PostgresError> {
        let version = session.version();
        let command = options.command(version)?;
        session.send(DOING, &command).await?;
        let mut sets = ResultSets::default();
        loop {
            let frame = match session.wire.receive(DOING).await {
                Ok(frame) => frame,
                Err(error) => return Err(session.recover(DOING, error).await),
            };
            if frame.tag == COPY_OUT_RESPONSE_TAG {
                let [position, list] = sets.done.as_slice() else { return Err(unexpected(DOING, &frame)) };
                let (Some(start), Some(timeline)) = (lsn(position, 0), timeline(position, 1)) else {
                    return Err(not_understood(DOING, position));
                };
                let tablespaces = tablespaces(list).ok_or_else(|| not_understood(DOING, list))?;
                return Ok(BaseBackup {
                    session,
                    start,
                    timeline,
                    tablespaces,
                    state: State::Copy,
                    one_copy: version >= VERSION_15,
                    manifest: options.manifest.is_some(),
                    archives: 0,
                    manifests: 0,
                    sets: ResultSets::default(),
                });
            }
            sets.take(DOING, &frame)?;
        }
    }

    /// Where the backup starts: WAL from here on is needed to use it.
    pub fn start_position(&self) -> Lsn {
        self.start
    }

    /// The timeline of that position.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// What will come as an archive; the data directory is the one without a place.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// The next event. Cancel-safe.
    ///
    /// Errors: what the server says; a broken connection; messages in an order that no server sends. After an error
    /// the backup is nothing.
    pub async fn next(&mut self) -> Result<BackupEvent, PostgresError> {
        loop {
            match self.state {
                State::Ended(stop, timeline) => return Ok(BackupEvent::End { stop, timeline }),
                State::Failed => return Err(PostgresError::Abandoned(DOING.to_owned())),
                // Before 15 the COPY says what it is by its place alone.
                State::Copy if !self.one_copy => return self.copy_begins(),
                State::Between | State::Copy | State::Archive | State::Manifest => {}
            }
            let frame = match self.session.wire.receive_with_notices(DOING).await {
                Ok(frame) => frame,
                Err(error) => return self.failed(error).await,
            };
            match self.step(&frame) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
            }
        }
    }

    /// An error ends the backup, but for one: checksums that failed are reported as an error after all is sent, with
    /// the stop position before it (basebackup.c, `perform_base_backup`). The backup is whole then, if suspect.
    async fn failed(&mut self, error: PostgresError) -> Result<BackupEvent, PostgresError> {
        let between = self.state == State::Between;
        self.state = State::Failed;
        let Some(server) = error.server().cloned() else { return Err(error) };
        let error = self.session.recover(DOING, error).await;
        match self.stop() {
            Ok((stop, timeline)) if between && server.sqlstate == DATA_CORRUPTED => {
                self.state = State::Ended(stop, timeline);
                Ok(BackupEvent::Notice(Notice(server)))
            }
            _ => Err(error),
        }
    }

    fn step(&mut self, frame: &Frame) -> Result<Option<BackupEvent>, PostgresError> {
        if frame.tag == NOTICE_RESPONSE_TAG {
            return Ok(Some(BackupEvent::Notice(Notice(ServerError::read(&frame.body)))));
        }
        match (self.state, frame.tag) {
            (State::Between, COPY_OUT_RESPONSE_TAG) if !self.one_copy && self.sets.done.is_empty() => {
                self.state = State::Copy;
                Ok(None)
            }
            (State::Between, READY_FOR_QUERY_TAG) => self.end().map(Some),
            (State::Between, _) => self.sets.take(DOING, frame).map(|()| None),
            (_, COPY_DONE_TAG) => {
                self.state = State::Between;
                Ok(None)
            }
            (_, COPY_DATA_TAG) if self.one_copy => self.tagged_data(frame).map(Some),
            (State::Archive, COPY_DATA_TAG) => Ok(Some(BackupEvent::Data(frame.body.clone()))),
            (State::Manifest, COPY_DATA_TAG) => Ok(Some(BackupEvent::ManifestData(frame.body.clone()))),
            // Versions before 15 end a command's answer here and there.
            (_, COMMAND_COMPLETE_TAG) if !self.one_copy => Ok(None),
            _ => Err(unexpected(DOING, frame)),
        }
    }

    /// A message inside the one COPY of 15 and newer (basebackup_copy.c).
    fn tagged_data(&mut self, frame: &Frame) -> Result<BackupEvent, PostgresError> {
        let mut fields = Fields::new(frame.body.clone());
        let bad = || malformed(DOING, frame);
        match (fields.u8().ok_or_else(bad)?, self.state) {
            (b'n', State::Copy | State::Archive) => {
                let name = fields.text().ok_or_else(bad)?;
                let location = fields.text().ok_or_else(bad)?;
                let tablespace = match name.strip_suffix(".tar") {
                    Some("base") if location.is_empty() => None,
                    Some(oid) => Some((oid.parse().map_err(|_| bad())?, location)),
                    None => return Err(bad()),
                };
                if !self.tablespaces.iter().any(|known| known.place == tablespace) {
                    let why = format!("the archive {name} is not in the list of tablespaces");
                    return Err(PostgresError::Protocol { doing: DOING.to_owned(), why });
                }
                self.archives += 1;
                self.state = State::Archive;
                Ok(BackupEvent::ArchiveStart { tablespace, name })
            }
            (b'm', State::Archive) => {
                self.manifests += 1;
                self.state = State::Manifest;
                Ok(BackupEvent::ManifestStart)
            }
            (b'd', State::Archive) => Ok(BackupEvent::Data(fields.rest())),
            (b'd', State::Manifest) => Ok(BackupEvent::ManifestData(fields.rest())),
            (b'p', _) => fields.u64().map(BackupEvent::Progress).ok_or_else(bad),
            _ => Err(bad()),
        }
    }

    /// The next COPY before 15: a tablespace in the order of the list, then the manifest.
    fn copy_begins(&mut self) -> Result<BackupEvent, PostgresError> {
        let place = self.tablespaces.get(self.archives).map(|tablespace| tablespace.place.clone());
        match place {
            Some(tablespace) => {
                self.archives += 1;
                self.state = State::Archive;
                let name = tablespace.as_ref().map_or("base.tar".to_owned(), |(oid, _)| format!("{oid}.tar"));
                Ok(BackupEvent::ArchiveStart { tablespace, name })
            }
            None if self.manifest && self.manifests == 0 => {
                self.manifests += 1;
                self.state = State::Manifest;
                Ok(BackupEvent::ManifestStart)
            }
            None => {
                self.state = State::Failed;
                let why = "more archives came than the list of tablespaces names".to_owned();
                Err(PostgresError::Protocol { doing: DOING.to_owned(), why })
            }
        }
    }

    fn end(&mut self) -> Result<BackupEvent, PostgresError> {
        self.session.busy = false;
        let (stop, timeline) = self.stop()?;
        self.state = State::Ended(stop, timeline);
        Ok(BackupEvent::End { stop, timeline })
    }

    /// The stop position, only when every archive and the manifest were there before it (I7).
    fn stop(&self) -> Result<(Lsn, TimelineId), PostgresError> {
        let wrong = |why: String| PostgresError::Protocol { doing: DOING.to_owned(), why };
        if (self.archives, self.manifests) != (self.tablespaces.len(), usize::from(self.manifest)) {
            let (archives, due) = (self.archives, self.tablespaces.len());
            return Err(wrong(format!("{archives} of {due} archives and {} manifests came", self.manifests)));
        }
        let set = self.sets.done.first().ok_or_else(|| wrong("the stop position is missing".to_owned()))?;
        match (lsn(set, 0), timeline(set, 1)) {
            (Some(stop), Some(timeline)) => Ok((stop, timeline)),
            _ => Err(not_understood(DOING, set)),
        }
    }
}

/// The list of tablespaces: object id, location, size in KiB.
fn tablespaces(list: &ResultSet) -> Option<Vec<Tablespace>> {
    let mut found = Vec::new();
    for row in 0..list.rows.len() {
        let place = match (list.value(row, 0), list.value(row, 1)) {
            (None, _) => None,
            (Some(oid), location) => Some((oid.parse().ok()?, location?)),
        };
        let size_kib = match list.value(row, 2) {
            None => None,
            Some(size) => Some(size.parse().ok()?),
        };
        found.push(Tablespace { place, size_kib });
    }
    (!found.is_empty()).then_some(found)
}
