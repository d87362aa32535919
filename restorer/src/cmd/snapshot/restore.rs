//! `snapshot restore`.

use std::path::PathBuf;

use serde::Serialize;
use walseal_common::config::Environment;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Act, SnapshotId, SnapshotLabel};
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Progress, Schema, printable, to_json, units};

use super::super::drill::until_told_to_end;
use super::failure;
use crate::access::Access;
use crate::record;
use crate::snapshot::contents::Counted;
use crate::snapshot::counts::Differing;
use crate::snapshot::{Contents, Order, Restored, SnapshotError};

const RESTORED: Schema = Schema { name: "snapshot-restore", version: 1 };

#[derive(clap::Args, Debug)]
pub(super) struct Restore {
    /// The snapshot
    id: SnapshotId,
    /// The server and the database, as libpq writes them; without a password (PGPASSWORD or a passfile holds it)
    #[arg(long, value_name = "CONNINFO")]
    into: String,
    /// Connections that restore at a time; more than one need room for the archive in --scratch-dir
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Only this schema; may be given several times
    #[arg(long, value_name = "NAME")]
    schema: Vec<String>,
    /// Only this table; may be given several times
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// Drop what is there of it first
    #[arg(long)]
    clean: bool,
    /// Make the database that was dumped, and restore into it
    #[arg(long)]
    create: bool,
    /// Everything belongs to the user that restores
    #[arg(long)]
    no_owner: bool,
    /// Without grants
    #[arg(long)]
    no_privileges: bool,
    /// Where the archive lies for as long as it takes, with --jobs [default: drill.scratch_dir]
    #[arg(long, value_name = "D")]
    scratch_dir: Option<PathBuf>,
    /// Folder of PostgreSQL's programs
    #[arg(long, value_name = "D")]
    pg_bin: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    /// Where it goes.
    pub(super) fn conninfo(&self) -> Result<Conninfo, Failure> {
        conninfo("--into", &self.into)
    }
}

/// A connection string on the command line, which must hold no password: every user of the machine reads the list of processes.
pub(super) fn conninfo(flag: &str, text: &str) -> Result<Conninfo, Failure> {
    let environment = Environment::of_this_process()?;
    let conninfo =
        Conninfo::parse(text, &|name| environment.get(name).filter(|_| name != "PGPASSWORD").map(str::to_owned));
    let conninfo = conninfo.map_err(|error| Failure::saying(format!("{flag}: {error}")).exit(Exit::Usage))?;
    if conninfo.has_password() {
        return Err(Failure::saying(format!(
            "{flag} holds a password, which every user of this machine can read in the list of processes"
        ))
        .next("leave it out, and set PGPASSWORD, or passfile in the connection string")
        .exit(Exit::Usage));
    }
    Conninfo::parse(text, &|name| environment.get(name).map(str::to_owned))
        .map_err(|error| Failure::saying(format!("{flag}: {error}")).exit(Exit::Usage))
}

/// What a restore came to, for machines.
#[derive(Serialize)]
struct Report<'a> {
    id: &'a SnapshotId,
    database: &'a str,
    tables: usize,
    compared: usize,
    rows: u64,
    seconds: f64,
    program_version: u32,
    errors: &'a [String],
    differing: &'a [Differing],
    missing: &'a [Counted],
}

pub(super) async fn run(arguments: &Restore, into: Conninfo, access: &Access) -> Result<(), Failure> {
    let doing = "restore a snapshot";
    let (label, contents) = read(&arguments.id, access).await.map_err(|error| failure(doing, &error))?;
    let configured = access.config.cluster.pg_bin.as_ref().map(|setting| setting.value.clone());
    let scratch_dir = arguments.scratch_dir.clone();
    let order = Order {
        into,
        schemas: arguments.schema.clone(),
        tables: arguments.table.clone(),
        clean: arguments.clean,
        create: arguments.create,
        no_owner: arguments.no_owner,
        no_privileges: arguments.no_privileges,
        no_tablespaces: false,
        no_subscriptions: false,
        jobs: usize::from(arguments.jobs),
        scratch_dir: scratch_dir.unwrap_or_else(|| access.config.drill.scratch_dir.value.clone()),
        pg_bin: arguments.pg_bin.clone().or(configured),
    };
    let progress = Progress::new("restore", Some(label.dump_size));
    let outcome = until_told_to_end(order.carry_out(access, &label, &contents, &progress)).await?;
    progress.abandon();
    let Some(outcome) = outcome else {
        return Err(Failure::saying(format!(
            "the restore was interrupted: what it had restored by then is in the database {}",
            order.into
        ))
        .next("drop the database, or restore again with --clean"));
    };
    let restored = outcome.map_err(|error| failure(doing, &error))?;
    let ledger = record::ledger(access);
    ledger.record(Act::SnapshotRestored {
        id: label.id.clone(),
        tables: restored.tables as u64,
        errors: restored.errors.len() as u64,
        differing: (restored.differing.len() + restored.missing.len()) as u64,
        seconds: restored.took.as_secs_f64(),
    });
    ledger.finish(record::LAST_ENTRIES).await;
    if arguments.json {
        let rows = restored.compared.iter().map(|table| table.rows).sum();
        let report = Report {
            id: &label.id,
            database: &restored.database,
            tables: restored.tables,
            compared: restored.compared.len(),
            rows,
            seconds: restored.took.as_secs_f64(),
            program_version: restored.program.version,
            errors: &restored.errors,
            differing: &restored.differing,
            missing: &restored.missing,
        };
        let text = to_json(RESTORED, &report).map_err(|error| Failure::from_error("print the report", &error))?;
        show!("{text}");
    } else {
        tell(&label, &restored);
    }
    if restored.is_whole() {
        return Ok(());
    }
    let count = |what: &str, number: usize| (number > 0).then(|| format!("{number} {what}"));
    let words = [
        count("errors of pg_restore", restored.errors.len()),
        count("tables with other rows than were dumped", restored.differing.len()),
        count("tables whose rows are not in the archive", restored.missing.len()),
    ];
    Err(Failure::new("restore all of it", words.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

fn tell(label: &SnapshotLabel, restored: &Restored) {
    let rows: u64 = restored.compared.iter().map(|table| table.rows).sum();
    show!(
        "Snapshot {} is in database {}: {} tables with rows in {}, by pg_restore {}.{} ({}).",
        label.id,
        printable(&restored.database),
        restored.tables,
        units::duration(restored.took),
        restored.program.version / 10_000,
        restored.program.version % 10_000,
        restored.program.path.display()
    );
    match (restored.compared.len(), restored.differing.len()) {
        (0, _) => show!("No rows were compared: none were counted when it was taken."),
        (all, 0) => show!("All {all} tables have the rows that were dumped, {rows} together."),
        (all, differing) => show!("{differing} of {all} tables have other rows than were dumped:"),
    }
    for Differing { dumped, found, why } in &restored.differing {
        let found = match (found, why) {
            (Some(rows), _) => format!("{rows} there"),
            (None, why) => why.clone().unwrap_or_default(),
        };
        show!(
            "  {}: {} dumped, {}",
            printable(&format!("{}.{}", dumped.schema, dumped.name)),
            dumped.rows,
            printable(&found)
        );
    }
    for table in &restored.missing {
        show!("  {}: not in the archive", printable(&format!("{}.{}", table.schema, table.name)));
    }
    for error in &restored.errors {
        show!("pg_restore: {}", printable(error));
    }
}

async fn read(id: &SnapshotId, access: &Access) -> Result<(SnapshotLabel, Contents), SnapshotError> {
    let label = access.repository.snapshot(id).await?;
    let contents = Contents::read(&access.repository, &label, &access.identities).await?;
    Ok((label, contents))
}
