//! A server that is looked at and thrown away: promoted, reachable over its socket only, with a configuration of its own.

use std::path::Path;

use walseal_common::lsn::Lsn;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::terminal::Progress;

use super::recovery::{End, SHUTDOWN, follow};
use super::server::{Server, socket_folder};
use super::settings::{Files, Purpose};
use super::{ControlData, InstanceError, Landing, Preload, Programs, Reached};
use crate::plan::{Action, Plan};
use crate::rebuild::{Restored, strip_inherited};

/// The longest log that is kept of it, in lines.
const LOG: usize = 200;

/// Where recovery ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// By the server's own words.
    pub landing: Landing,
    /// Start of the last record that was read: the last one replayed, or the one that it stopped before.
    pub last_record: Option<Lsn>,
}

/// A running private server on a directory that nobody needs. Dropped, it is stopped at once.
#[derive(Debug)]
pub struct Instance {
    server: Option<Server>,
    files: Files,
    restored: Restored,
    programs: Programs,
}

impl Instance {
    /// Starts it on a restored directory and runs recovery to its end, which is a promotion. Nothing of the cluster's own
    /// configuration holds (case 48). Libraries of `preload` that are not here are taken out of it. WAL comes by `restore_command`.
    ///
    /// Errors: the server ends early, with the last lines of its log; it says nothing for half an hour.
    pub async fn recover(
        programs: &Programs,
        restored: &Restored,
        plan: &Plan,
        preload: &mut Preload,
        restore_command: &str,
    ) -> Result<(Instance, Recovered), InstanceError> {
        strip_inherited(&restored.layout.data)?;
        let restored = Restored { has_configuration: false, ..restored.clone() };
        let progress = Progress::new("recovery", None);
        loop {
            let purpose = Purpose::Disposable { preload: preload.setting() };
            let mut server = Server::start(programs, &restored, &purpose, Some(restore_command))?;
            match follow(&mut server, plan, Action::Promote, &progress).await {
                Ok((End::Promoted, story)) => {
                    progress.finish("done, promoted");
                    let last_record = story.last_record();
                    let control = ControlData::read(programs, &restored.layout.owner, &restored.layout.data)?;
                    let landing = story.landing(Reached::Promoted, control.timeline());
                    let files = server.files.clone();
                    let instance = Instance { server: Some(server), files, restored, programs: programs.clone() };
                    return Ok((instance, Recovered { landing, last_record }));
                }
                Err(InstanceError::Ended { log, .. }) if preload.leave_out(&log) => {}
                Err(error) => {
                    progress.abandon();
                    return Err(error);
                }
                // It was asked to promote, and for nothing else.
                Ok(_) => {
                    progress.abandon();
                    let (log, file) = (server.last_lines(), server.files.log());
                    return Err(InstanceError::Ended { log, file });
                }
            }
        }
    }

    /// Connects to a database as `user`.
    ///
    /// Errors: no such database or role; the server does not answer.
    pub async fn connect(&self, user: &str, database: &str) -> Result<SqlClient, PostgresError> {
        let text = self.conninfo(user, database);
        let conninfo = Conninfo::parse(&text, &|_| None).map_err(|error| PostgresError::Sql {
            doing: format!("naming database {database}"),
            why: error.to_string(),
        })?;
        SqlClient::connect(&conninfo, "walseal_restorer").await
    }

    /// The connection string of a database.
    pub fn conninfo(&self, user: &str, database: &str) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let host = self.socket().to_string_lossy().into_owned();
        format!("host={} port=5432 user={} dbname={}", quote(&host), quote(user), quote(database))
    }

    /// The folder of its socket.
    pub fn socket(&self) -> std::path::PathBuf {
        socket_folder(&self.files)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.restored.layout.data
    }

    /// A program of its version as its owner runs it, in its data directory.
    ///
    /// Errors: the program is not on this machine.
    pub fn command(&self, program: &str) -> Result<tokio::process::Command, InstanceError> {
        let program = self.programs.other(program)?;
        let command = super::command(&program, &self.restored.layout.owner, self.data());
        let mut command = tokio::process::Command::from(command);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// What `pg_control` says now.
    ///
    /// Errors: `pg_controldata` fails.
    pub fn control(&self) -> Result<ControlData, InstanceError> {
        ControlData::read(&self.programs, &self.restored.layout.owner, self.data())
    }

    /// Shuts it down in order. Its directory stays.
    ///
    /// Errors: it cannot be waited for.
    pub async fn stop(&mut self) -> Result<(), InstanceError> {
        match self.server.take() {
            Some(server) => server.stop(SHUTDOWN).await,
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.files.last_lines(LOG)
    }
}
