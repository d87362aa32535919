//! One database, or some tables, of a cluster as it was: restored to a disposable instance, dumped, thrown away.
//!
//! | module | holds |
//! | --- | --- |
//! | [`name`] | names of tables, as SQL writes them |
//! | [`backups`] | what base backups tell of names, without being restored |
//! | [`catalog`] | what the instance has |
//! | [`dump_file`] | the file, hidden from its name until it is whole |
//! | [`error`] | why it did not work |

pub mod backups;
pub mod catalog;
pub mod dump_file;
pub mod error;
pub mod name;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use walseal_common::postgres::SqlClient;
use walseal_common::terminal::Progress;

use self::catalog::FoundTable;
use self::dump_file::DumpFile;
pub use self::error::ExtractError;
pub use self::name::{QualifiedTable, TableName};
use crate::access::Access;
use crate::fetch::prefetcher::Serving;
use crate::instance::{Instance, InstanceError, Landing, Preload, Programs, Scratch};
use crate::plan::Plan;
use crate::rebuild::{Destination, Order, TablespaceMapping};

/// How often the growing file is looked at, for progress.
const GLANCE: Duration = Duration::from_millis(200);

/// What is taken out of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// A whole database.
    Database(String),
    /// Tables of one database.
    Tables {
        /// The database.
        database: String,
        /// Which tables, at least one.
        tables: Vec<TableName>,
    },
}

impl Part {
    /// The database that it is, or lies in.
    pub fn database(&self) -> &str {
        match self {
            Part::Database(database) | Part::Tables { database, .. } => database,
        }
    }

    /// The tables; none where it is a whole database.
    pub fn tables(&self) -> &[TableName] {
        match self {
            Part::Database(_) => &[],
            Part::Tables { tables, .. } => tables,
        }
    }

    /// A table of its database, as `--table` takes it.
    fn shown(&self, table: &TableName) -> String {
        QualifiedTable { database: self.database().to_owned(), table: table.clone() }.to_string()
    }
}

/// In what form it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The archive that `pg_restore` reads.
    Custom,
    /// SQL, for `psql`.
    Plain,
}

impl Format {
    /// What the ending of the file's name says: `.sql` is SQL, anything else an archive.
    pub fn of(file: &Path) -> Format {
        match file.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("sql") => Format::Plain,
            _ => Format::Custom,
        }
    }

    /// As `pg_dump --format` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Format::Custom => "custom",
            Format::Plain => "plain",
        }
    }
}

/// What is to be taken out, and where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extraction {
    /// What.
    pub part: Part,
    /// The file, an absolute path.
    pub file: PathBuf,
    /// Its form.
    pub format: Format,
    /// Where the instance lives for a while.
    pub scratch_dir: PathBuf,
    /// PostgreSQL's programs.
    pub pg_bin: Option<PathBuf>,
    /// Data objects at a time.
    pub jobs: usize,
}

/// What was taken out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extracted {
    /// The tables; none where it is a whole database.
    pub tables: Vec<FoundTable>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of files that were restored for it.
    pub restored_bytes: u64,
    /// Where recovery ended.
    pub landing: Landing,
    /// What a person should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Extraction {
    /// Does it. The instance is gone when this returns, and when it is dropped; the file is there only when it is whole.
    ///
    /// Errors: see [`ExtractError`]. What can be checked before anything is restored is.
    pub async fn carry_out(&self, plan: &Plan, access: &Access) -> Result<Extracted, ExtractError> {
        let programs = Programs::find(plan.base.postgres_version, self.pg_bin.clone())?;
        programs.other("pg_dump")?;
        let file = DumpFile::begin(&self.file)?;
        let (scratch, owner) = Scratch::fresh(&self.scratch_dir)?;
        let tablespaces = TablespaceMapping { pairs: Vec::new(), folder: Some(scratch.tablespaces()) };
        let program = crate::program::path();
        let program = program.map_err(ExtractError::io("find the path of", Path::new("this program")))?;
        let order = Order {
            plan,
            destination: Destination { data: scratch.data(), waldir: None, tablespaces, owner, delta: false },
            jobs: self.jobs,
            keep_archiving: false,
            program: program.clone(),
            config: &access.config,
            inherits_environment: true,
            is_served: true,
            starts: false,
            standby: None,
        };
        let progress = Progress::new("restore", None);
        let restored = match order.carry_out(&access.repository, &access.identities, &progress).await {
            Ok(restored) => restored,
            Err(error) => {
                progress.abandon();
                return Err(error.into());
            }
        };
        progress.finish("files restored");
        let mut preload = Preload::of(&programs, &restored)?;
        let serving = Serving::begin(&access.config, &restored).await.map_err(InstanceError::from)?;
        let command = serving.command(&program)?;
        let (instance, recovered) = Instance::recover(&programs, &restored, plan, &mut preload, &command).await?;
        drop(serving);
        if let Some(why) = recovered.landing.missed(plan) {
            return Err(ExtractError::Missed(why));
        }
        let user = access.config.drill.user.value.as_str();
        let (tables, size) = self.look(&instance, user, plan, access).await?;
        let mut warnings = preload.remarks();
        for table in tables.iter().flat_map(|table| &table.unlogged) {
            warnings.push(format!("{table} is unlogged: its rows are in no backup, and it comes back empty"));
        }
        warnings.extend(self.dump(&instance, user, &tables, &file, size).await?);
        let bytes = file.finish()?;
        Ok(Extracted { tables, bytes, restored_bytes: restored.bytes, landing: recovered.landing, warnings })
    }

    /// Finds what is wanted, and its size before compression.
    async fn look(
        &self,
        instance: &Instance,
        user: &str,
        plan: &Plan,
        access: &Access,
    ) -> Result<(Vec<FoundTable>, u64), ExtractError> {
        // A cluster need not have the first; every one has the second.
        let client = match instance.connect(user, "postgres").await {
            Ok(client) => client,
            Err(_) => instance.connect(user, "template1").await?,
        };
        let databases = catalog::databases(&client).await?;
        if !databases.iter().any(|name| name == self.part.database()) {
            return Err(self.absent(&databases, &BTreeSet::new(), plan, access).await?);
        }
        let client = instance.connect(user, self.part.database()).await?;
        let mut found = Vec::new();
        for table in self.part.tables() {
            match catalog::find(&client, table).await? {
                Some(table) => found.push(table),
                None => return Err(self.absent_table(&client, &databases, plan, access).await?),
            }
        }
        let size = match self.part {
            Part::Database(_) => catalog::database_size(&client).await?,
            Part::Tables { .. } => found.iter().map(|table| table.bytes).sum(),
        };
        Ok((found, size))
    }

    async fn absent_table(
        &self,
        client: &SqlClient,
        databases: &[String],
        plan: &Plan,
        access: &Access,
    ) -> Result<ExtractError, ExtractError> {
        let tables = catalog::names(client).await?.into_iter().collect();
        self.absent(databases, &tables, plan, access).await
    }

    async fn absent(
        &self,
        databases: &[String],
        tables: &BTreeSet<TableName>,
        plan: &Plan,
        access: &Access,
    ) -> Result<ExtractError, ExtractError> {
        let (before, after) = backups::sightings(access, plan, &self.part).await?;
        let lacking = self.part.lacking_in(databases, tables);
        Ok(ExtractError::Absent { lacking, target: plan.request.target.to_string(), before, after })
    }

    /// Writes the dump; what `pg_dump` had to say is returned.
    async fn dump(
        &self,
        instance: &Instance,
        user: &str,
        tables: &[FoundTable],
        file: &DumpFile,
        size: u64,
    ) -> Result<Vec<String>, ExtractError> {
        let failed = |error| ExtractError::io("run pg_dump in", instance.data())(error);
        let mut call = instance.command("pg_dump")?;
        call.arg("--format").arg(self.format.word()).args(["--no-password", "--strict-names"]);
        for table in tables.iter().flat_map(|table| std::iter::once(&table.name).chain(&table.below)) {
            call.arg("--table").arg(table.pattern());
        }
        call.arg("--dbname").arg(instance.conninfo(user, self.part.database()));
        // It runs as the cluster's owner, who need not be able to write where the file is.
        let child = call.stdout(file.handle()?).stderr(Stdio::piped()).spawn().map_err(failed)?;
        let progress = Progress::new("dump", None);
        progress.note(&format!("of {} in the database", walseal_common::terminal::units::size(size)));
        let mut ended = std::pin::pin!(child.wait_with_output());
        let mut seen = 0;
        let output = loop {
            tokio::select! {
                output = &mut ended => break output.map_err(failed)?,
                () = tokio::time::sleep(GLANCE) => {
                    let length = file.length();
                    progress.advance(length.saturating_sub(seen));
                    seen = length;
                }
            }
        };
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            progress.abandon();
            return Err(ExtractError::Dump(if said.is_empty() { output.status.to_string() } else { said }));
        }
        progress.advance(file.length().saturating_sub(seen));
        progress.finish("dumped");
        Ok(said.lines().map(str::to_owned).collect())
    }
}
