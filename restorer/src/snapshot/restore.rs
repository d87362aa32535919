//! A snapshot to a server.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walseal_common::postgres::programs::Program;
use walseal_common::postgres::{Conninfo, DumpList, SqlClient};
use walseal_common::repository::{RunId, SnapshotLabel};
use walseal_common::terminal::{Progress, units};

use super::SnapshotError;
use super::contents::{Contents, Counted};
use super::counts::{self, Differing};
use super::pour::pour;
use super::tool::{self, Ended, Input, Running, To};
use crate::access::Access;

/// What is restored, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The server and the database.
    pub into: Conninfo,
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Drop what is there first.
    pub clean: bool,
    /// Make the database of the dump, and restore into that.
    pub create: bool,
    /// Everything belongs to the user that restores.
    pub no_owner: bool,
    /// Without grants.
    pub no_privileges: bool,
    /// Everything lies in the database's own tablespace.
    pub no_tablespaces: bool,
    /// Without subscriptions.
    pub no_subscriptions: bool,
    /// How many connections restore at a time; more than one need a file.
    pub jobs: usize,
    /// Where that file lies meanwhile.
    pub scratch_dir: PathBuf,
    /// PostgreSQL's programs.
    pub pg_bin: Option<PathBuf>,
}

/// What a restore came to.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The database that it went to.
    pub database: String,
    /// Tables whose rows were restored.
    pub tables: usize,
    /// Of them, those whose rows were compared.
    pub compared: Vec<Counted>,
    /// Of them, those of which the snapshot says nothing: members of extensions, foreign tables, or all where none could be counted.
    pub uncounted: Vec<String>,
    /// Of them, those that are not as they were dumped.
    pub differing: Vec<Differing>,
    /// Tables that were counted, and whose rows are not in the archive.
    pub missing: Vec<Counted>,
    /// What `pg_restore` could not do, in its own words.
    pub errors: Vec<String>,
    /// The program.
    pub program: Program,
    /// How long it took, without the counting.
    pub took: Duration,
}

impl Restored {
    /// Whether everything is there as it was dumped.
    pub fn is_whole(&self) -> bool {
        self.errors.is_empty() && self.differing.is_empty() && self.missing.is_empty()
    }
}

/// Free space that stays beside the file, in bytes.
const RESERVE: u64 = 64 << 20;

impl Order {
    /// Restores, and counts what is there afterwards.
    ///
    /// Errors: what keeps it from beginning, and what ends it early; what `pg_restore` could not do is in the answer.
    pub async fn carry_out(
        &self,
        access: &Access,
        label: &SnapshotLabel,
        contents: &Contents,
        progress: &Progress,
    ) -> Result<Restored, SnapshotError> {
        let program = tool::find(label.dump_version, self.pg_bin.clone()).await?;
        let client = SqlClient::connect(&self.into, "walseal snapshot restore").await?;
        let host = client.host().clone();
        let database = if self.create { contents.database.clone() } else { self.into.dbname().to_owned() };

        let file = if self.jobs > 1 { Some(self.copy(access, label, progress).await?) } else { None };
        let listed = self.list(&program, access, label, file.as_ref().map(Copy::path)).await?;
        let (restored, rest): (Vec<Counted>, Vec<Counted>) =
            contents.tables.iter().cloned().partition(|table| listed.has(&table.schema, &table.name));
        let unread = contents.unread.iter().filter_map(|one| Some((one.schema.as_deref()?, one.name.as_str())));
        let told = contents.tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).chain(unread);
        let uncounted = listed.others(told);
        let is_all = self.schemas.is_empty() && self.tables.is_empty();
        if !is_all && listed.is_empty() && restored.is_empty() && !contents.tables.is_empty() {
            return Err(SnapshotError::Refused {
                why: format!("nothing in snapshot {} fits --schema and --table", label.id),
                next: vec![format!("see what it holds: walseal-restorer snapshot list {}", label.id)],
            });
        }
        if !self.clean && !self.create {
            let there = counts::present(&client, &restored).await?;
            if let Some(first) = there.first() {
                return Err(SnapshotError::Refused {
                    why: format!(
                        "{} of {} tables are in database \"{database}\" already, {first} among them: nothing is written over unasked",
                        there.len(),
                        restored.len()
                    ),
                    next: vec!["name an empty database with --into".to_owned(), "drop them first: --clean".to_owned()],
                });
            }
        }
        client.close().await;

        let begun = Instant::now();
        let mut arguments = self.filters();
        for (flag, wanted) in [
            ("--clean", self.clean),
            ("--if-exists", self.clean),
            ("--create", self.create),
            ("--no-owner", self.no_owner),
            ("--no-privileges", self.no_privileges),
            ("--no-tablespaces", self.no_tablespaces),
            ("--no-subscriptions", self.no_subscriptions),
        ] {
            arguments.extend(wanted.then(|| flag.to_owned()));
        }
        let to = Some(To { conninfo: &self.into, host: &host, database: self.into.dbname() });
        let ended = match &file {
            Some(file) => {
                progress.message("pg_restore");
                arguments.push(format!("--jobs={}", self.jobs));
                let (running, _) = Running::start(&program, &arguments, to, Input::File(file.path()))?;
                running.end().await?
            }
            None => self.feed(&program, &arguments, to, access, label, |bytes| progress.advance(bytes)).await?,
        };
        let took = begun.elapsed();
        let errors = tool::errors(&ended.said);
        if !ended.status.success() && errors.is_empty() {
            return Err(SnapshotError::Tool(words(&ended)));
        }
        let there = self.into.with_dbname(&database);
        let client = SqlClient::connect_to(&there, &host, "walseal snapshot restore").await?;
        progress.message("counting rows");
        let differing = counts::compare(&client, &restored).await?;
        client.close().await;
        let missing = if is_all { rest } else { Vec::new() };
        let tables = listed.len();
        Ok(Restored { database, tables, compared: restored, uncounted, differing, missing, errors, program, took })
    }

    fn filters(&self) -> Vec<String> {
        let schemas = self.schemas.iter().map(|name| format!("--schema={name}"));
        schemas.chain(self.tables.iter().map(|name| format!("--table={name}"))).collect()
    }

    /// What would be restored.
    async fn list(
        &self,
        program: &Program,
        access: &Access,
        label: &SnapshotLabel,
        file: Option<&Path>,
    ) -> Result<DumpList, SnapshotError> {
        let arguments = [vec!["--list".to_owned()], self.filters()].concat();
        let ended = match file {
            Some(path) => Running::start(program, &arguments, None, Input::File(path))?.0.end().await?,
            None => self.feed(program, &arguments, None, access, label, |_| ()).await?,
        };
        if !ended.status.success() {
            return Err(SnapshotError::Tool(words(&ended)));
        }
        Ok(DumpList::read(&ended.output))
    }

    /// Runs it on a pipe with the archive.
    async fn feed(
        &self,
        program: &Program,
        arguments: &[String],
        to: Option<To<'_>>,
        access: &Access,
        label: &SnapshotLabel,
        told: impl FnMut(u64),
    ) -> Result<Ended, SnapshotError> {
        let (running, stdin) = Running::start(program, arguments, to, Input::Pipe)?;
        if let Some(mut stdin) = stdin {
            pour(&access.repository, &access.identities, &label.dump, &mut stdin, told).await?;
        }
        running.end().await
    }

    /// The archive as a file.
    async fn copy(&self, access: &Access, label: &SnapshotLabel, progress: &Progress) -> Result<Copy, SnapshotError> {
        let folder = &self.scratch_dir;
        let doing = || format!("make a file in {}", folder.display());
        std::fs::create_dir_all(folder).map_err(SnapshotError::io(doing()))?;
        let found = rustix::fs::statvfs(folder).map_err(|error| SnapshotError::io(doing())(error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < label.dump_size.saturating_add(RESERVE) {
            let (needed, place) = (units::size(label.dump_size), folder.display());
            return Err(SnapshotError::Refused {
                why: format!(
                    "--jobs needs the archive as a file of {needed}, and in {place} {} are free",
                    units::size(free)
                ),
                next: vec![
                    "leave out --jobs: then it goes through a pipe".to_owned(),
                    "name another folder with --scratch-dir".to_owned(),
                ],
            });
        }
        let copy = Copy::make(folder).map_err(SnapshotError::io(doing()))?;
        let handle = copy.file.try_clone().map_err(SnapshotError::io(doing()))?;
        let mut sink = tokio::fs::File::from_std(handle);
        let told = |bytes| progress.advance(bytes);
        pour(&access.repository, &access.identities, &label.dump, &mut sink, told).await?;
        Ok(copy)
    }
}

/// A file without a name: nobody else opens it, and however this process ends, it is gone.
#[derive(Debug)]
struct Copy {
    file: File,
    path: PathBuf,
}

impl Copy {
    fn make(folder: &Path) -> std::io::Result<Copy> {
        let word = RunId::random().map_err(std::io::Error::other)?;
        let name = folder.join(format!("walseal-snapshot-{word}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
        std::fs::remove_file(&name)?;
        // Its workers open it again, each for itself, as this process holds it.
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Ok(Copy { file, path })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

fn words(ended: &Ended) -> String {
    if ended.said.is_empty() { ended.status.to_string() } else { ended.said.clone() }
}
