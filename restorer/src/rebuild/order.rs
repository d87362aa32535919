//! A whole restore: all checks, all files, recovery settings, the plan beside it.

use std::path::{Path, PathBuf};

use walseal_common::config::{Config, RepositoryUrl};
use walseal_common::repository::{ObjectName, Repository};
use walseal_common::seal::Identity;
use walseal_common::terminal::{Progress, units};

use super::config_files::put_beside;
use super::plan_file::plan_path;
use super::{
    Access, ConfigFiles, Destination, Layout, RebuildError, Recovering, RecoveryConfig, Room, Source, Standby, Survey,
    Swept, Traffic, check_space, configure, needs, rebuild, recovery_command, rooms, write_plan,
};
use crate::plan::Plan;

/// The most WAL that is counted on: recovery removes what it has replayed at each restartpoint, which comes at the latest
/// after `max_wal_size` (1 GiB unless set).
const MOST_WAL: u64 = 2 << 30;

/// The most WAL that lies in `pg_wal` at a time, in bytes.
fn most_wal(plan: &Plan) -> u64 {
    plan.cost.wal_bytes.min(MOST_WAL).saturating_add(2 * plan.segment_size.bytes())
}

/// What a restore to `destination` needs where, and what is free there. Nothing is written.
///
/// Errors: those of [`Order::carry_out`] for the destination; too little space is none.
pub async fn room_for(
    plan: &Plan,
    destination: &Destination,
    repository: &Repository,
    identities: &[Identity],
) -> Result<Vec<Room>, RebuildError> {
    let label = repository.label(&plan.base.id).await?;
    let survey = Survey::of(Source { repository, identities, label: &label }).await?;
    rooms(&Layout::decide(destination, &survey, repository.cluster())?, &survey, most_wal(plan))
}

/// What is to be restored, to where, and how.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where to.
    pub destination: Destination,
    /// Data objects at a time.
    pub jobs: usize,
    /// Whether archiving stays as it was.
    pub keep_archiving: bool,
    /// This program, for `restore_command`.
    pub program: PathBuf,
    /// The configuration that names repository and keys.
    pub config: &'a Config,
    /// Whether `restore_command` may rely on this process' environment where there is no configuration file.
    pub inherits_environment: bool,
    /// Whether this process hands the server all its WAL, so that the owner needs no keys.
    pub is_served: bool,
    /// Whether the same command is to go on with recovery where that is interrupted ([`Recovering`]).
    pub starts: bool,
    /// To be a standby, where that is wanted.
    pub standby: Option<Standby>,
}

/// A data directory that is ready to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Where everything lies.
    pub layout: Layout,
    /// The plan beside it.
    pub plan_file: PathBuf,
    /// Whether `postgresql.conf` came with the backup; Debian keeps it elsewhere.
    pub has_configuration: bool,
    /// Bytes of all files.
    pub bytes: u64,
    /// Configuration files that lay outside the data directory, now beside it.
    pub config_files: ConfigFiles,
    /// What it has cost.
    pub traffic: Traffic,
    /// What was in the data directory and is not in the backup.
    pub swept: Swept,
    /// Whether it is to be a standby.
    pub is_standby: bool,
    /// `postgresql.auto.conf` as the backup has it; `None` where it has none.
    pub inherited: Option<Vec<u8>>,
}

impl Restored {
    /// What was done with what was there, where anything was: to be appended to where it is.
    pub fn kept(&self) -> String {
        if !self.layout.stands {
            return String::new();
        }
        let (traffic, swept, size) = (self.traffic, &self.swept, units::size);
        let mut text = format!(
            "; {} were there, {} are new, for which {} were fetched; {} files were removed",
            size(traffic.kept),
            size(traffic.written),
            size(traffic.fetched),
            swept.removed
        );
        if let Some(folder) = &swept.aside {
            let of_wal = if swept.set_aside == 1 { "file of WAL was" } else { "files of WAL were" };
            text += &format!("; {} {of_wal} moved to {}", swept.set_aside, folder.display());
        }
        text
    }
}

impl Order<'_> {
    /// Does it. Everything that can be checked before a byte is written is.
    ///
    /// Errors: see [`RebuildError`]. After [`RebuildError::Refused`] nothing was written; after others there is a data
    /// directory without `pg_control`, on which no server starts.
    pub async fn carry_out(
        self,
        repository: &Repository,
        identities: &[Identity],
        progress: &Progress,
    ) -> Result<Restored, RebuildError> {
        let label = repository.label(&self.plan.base.id).await?;
        let source = Source { repository, identities, label: &label };
        let survey = Survey::of(source).await?;
        let layout = Layout::decide(&self.destination, &survey, repository.cluster())?;
        check_space(&needs(&rooms(&layout, &survey, most_wal(self.plan))?))?;
        self.check_access(repository)?;
        let plan_file = plan_path(&layout.data);
        let restore_command = recovery_command(&self.program, self.config_file()?, &plan_file)?;

        // Before the plan is another one, and before a file is written over.
        Recovering::remove(&layout.data)?;
        write_plan(self.plan, &layout.data, &layout.owner)?;
        let config_files = put_beside(source, &layout.data, &layout.owner).await?;
        progress.set_total(survey.total_bytes());
        let unfinished = rebuild(source, layout.clone(), self.jobs, progress).await?;
        let recovery = self.plan.recovery.clone();
        let is_standby = self.standby.is_some();
        let (keep_archiving, standby) = (self.keep_archiving, self.standby);
        let recovery = RecoveryConfig { recovery, restore_command, keep_archiving, standby };
        let inherited = configure(&unfinished, &recovery)?;
        let (traffic, swept) = (unfinished.traffic(), unfinished.swept().clone());
        let (has_configuration, bytes) = (survey.has_configuration, survey.total_bytes());
        if self.starts {
            let mark = Recovering {
                directory: Recovering::directory_of(&layout.data)?,
                delta: self.destination.delta,
                keep_archiving,
                waldir: layout.waldir.clone(),
                tablespaces: self.destination.tablespaces.clone(),
                has_configuration,
                bytes,
                config_files: config_files.clone(),
            };
            mark.put(&layout)?;
        }
        unfinished.finish()?;
        Ok(Restored {
            layout,
            plan_file,
            has_configuration,
            bytes,
            config_files,
            traffic,
            swept,
            is_standby,
            inherited,
        })
    }

    fn config_file(&self) -> Result<Option<&Path>, RebuildError> {
        let file = self.config.file();
        if file.is_none() && !self.inherits_environment {
            let why = "there is no configuration file, and PostgreSQL will run walseal-restorer fetch without this \
                       environment";
            let next = "write repository and keys to a file and name it: --config FILE (or restore with --start)";
            return Err(RebuildError::refused(why, [next.to_owned()]));
        }
        Ok(file)
    }

    /// The owner runs `fetch` during recovery: everything that it reads must be open to that user. Where this process answers it,
    /// that is the program alone.
    fn check_access(&self, repository: &Repository) -> Result<(), RebuildError> {
        let owner = &self.destination.owner;
        let check = |path: &Path, access, purpose| owner.check_access(path, access, purpose);
        check(&self.program, Access::Run, "it is the program of restore_command")?;
        if self.is_served {
            return Ok(());
        }
        if let Some(file) = self.config.file() {
            check(file, Access::Read, "it says where the WAL is")?;
        }
        for file in self.config.keys.identity_files.iter().flat_map(|files| &files.value) {
            check(file, Access::Read, "it opens the WAL")?;
        }
        let s3 = &self.config.repository.s3;
        let files = [&s3.access_key_id_file, &s3.secret_access_key_file, &s3.session_token_file, &s3.ca_file];
        for file in files.into_iter().flatten() {
            check(&file.value, Access::Read, "the repository is reached with it")?;
        }
        if let Some(RepositoryUrl::Directory { path }) = self.config.repository.url.as_ref().map(|url| &url.value) {
            check(path, Access::List, "the WAL lies there")?;
            let identity = path.join(ObjectName::Identity.key(repository.cluster()));
            check(&identity, Access::Read, "the WAL lies beside it")?;
        }
        Ok(())
    }
}
