//! A server that is looked at and thrown away: promoted, reachable over its socket only, with a configuration of its own.

use std::path::Path;

use walseal_common::lsn::Lsn;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::terminal::Progress;

use super::additions::Additions;
use super::recovery::{End, SHUTDOWN, Story, follow};
use super::replay::Replay;
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

/// Recovery waits at its target.
#[derive(Debug)]
#[must_use = "an instance that is paused is still in recovery"]
pub struct Paused(Story);

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
        let progress = Replay::progress(plan);
        let (instance, story) =
            Instance::start(programs, restored, plan, preload, restore_command, Action::Promote, &progress).await?;
        let recovered = instance.recovered(story)?;
        progress.finish("done, promoted");
        Ok((instance, recovered))
    }

    /// As [`Instance::recover`], to the pause at the target that the plan asks for: it can be read, and backed up.
    pub async fn pause(
        programs: &Programs,
        restored: &Restored,
        plan: &Plan,
        preload: &mut Preload,
        restore_command: &str,
    ) -> Result<(Instance, Paused), InstanceError> {
        let progress = Replay::progress(plan);
        let (instance, story) =
            Instance::start(programs, restored, plan, preload, restore_command, Action::Pause, &progress).await?;
        progress.finish("paused at the target");
        Ok((instance, Paused(story)))
    }

    /// Ends recovery there, which is a promotion. `user` is a superuser.
    ///
    /// Errors: the server does not take the order, ends, or says nothing for half an hour.
    pub async fn promote(&mut self, paused: Paused, plan: &Plan, user: &str) -> Result<Recovered, InstanceError> {
        let ordered = async {
            let client = self.connect(user, "postgres").await?;
            client.execute("ending recovery failed", "select pg_promote(false)", &[]).await
        };
        ordered
            .await
            .map_err(|error| InstanceError::Call { program: "pg_promote".to_owned(), said: error.to_string() })?;
        let ended = || InstanceError::Ended { log: self.files.last_lines(15), file: self.files.log() };
        let server = match &mut self.server {
            Some(server) => server,
            None => return Err(ended()),
        };
        let progress = Progress::new("promotion", None);
        match follow(server, plan, Action::Promote, paused.0.resumed(), &progress).await {
            Ok((End::Promoted, story)) => {
                progress.finish("done");
                self.recovered(story)
            }
            Ok(_) => {
                progress.abandon();
                Err(InstanceError::Ended { log: self.files.last_lines(15), file: self.files.log() })
            }
            Err(error) => {
                progress.abandon();
                Err(error)
            }
        }
    }

    /// Starts it and follows it to the end that `action` means.
    async fn start(
        programs: &Programs,
        restored: &Restored,
        plan: &Plan,
        preload: &mut Preload,
        restore_command: &str,
        action: Action,
        progress: &Progress,
    ) -> Result<(Instance, Story), InstanceError> {
        strip_inherited(&restored.layout.data)?;
        let restored = Restored { has_configuration: false, ..restored.clone() };
        loop {
            let readable = action == Action::Pause;
            let purpose = Purpose::Disposable { preload: preload.setting(), readable };
            let mut server = Server::start(programs, &restored, &purpose, Some(restore_command))?;
            match follow(&mut server, plan, action, Story::default(), progress).await {
                Ok((End::Promoted, story)) if action == Action::Promote => {
                    return Ok((Instance::of(server, restored, programs), story));
                }
                Ok((End::Paused, story)) if action == Action::Pause => {
                    return Ok((Instance::of(server, restored, programs), story));
                }
                Err(InstanceError::Ended { log, .. }) if preload.leave_out(&log) => {}
                Err(error) => {
                    progress.abandon();
                    return Err(error);
                }
                // It was asked for one end, and for no other.
                Ok(_) => {
                    progress.abandon();
                    let (log, file) = (server.last_lines(), server.files.log());
                    return Err(InstanceError::Ended { log, file });
                }
            }
        }
    }

    pub(super) fn of(server: Server, restored: Restored, programs: &Programs) -> Instance {
        let files = server.files.clone();
        Instance { server: Some(server), files, restored, programs: programs.clone() }
    }

    fn recovered(&self, story: Story) -> Result<Recovered, InstanceError> {
        let last_record = story.last_record();
        let landing = story.landing(Reached::Promoted, self.control()?.timeline());
        Ok(Recovered { landing, last_record })
    }

    /// Takes away what a restore and its recovery added to the data directory, so that it is as the cluster's own.
    ///
    /// Errors: the disk.
    pub fn take_additions(&self) -> Result<Additions, InstanceError> {
        Additions::take_away(&self.restored)
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

    /// Whether its server has ended by itself.
    ///
    /// Errors: it cannot be waited for.
    pub(super) fn has_ended(&mut self) -> Result<bool, InstanceError> {
        self.server.as_mut().map_or(Ok(true), Server::has_ended)
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
