//! `snapshot`: what dumps there are, and getting them back.

mod drill;
mod extract;
pub(super) mod list;
mod restore;

use walseal_common::terminal::Failure;

use crate::snapshot::SnapshotError;

/// What `snapshot` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// What snapshots there are; with an ID, the tables of that one
    List(list::List),
    /// Restore a snapshot to a server, and compare the rows of each table with those that were dumped
    #[command(
        after_help = "Exit code 0 only when pg_restore had no error and every table has the rows that were dumped."
    )]
    Restore(Box<restore::Restore>),
    /// Write a snapshot to a file, for pg_restore
    Extract(extract::Extract),
    /// Prove a snapshot: restore it to a new cluster or a database of its own, compare, check, record, destroy
    #[command(
        after_help = "Exit code 0 only when every check ran and passed and the result is recorded in the ledger."
    )]
    Drill(drill::Drill),
}

/// Runs one of them.
pub(super) async fn run(arguments: &Arguments, all: &super::Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::List(arguments) => list::show(arguments, &all.open().await?).await,
        Verb::Restore(arguments) => {
            // A wrong connection string should not wait for a store.
            let into = arguments.conninfo()?;
            restore::run(arguments, into, &all.open().await?).await
        }
        Verb::Extract(arguments) => extract::run(arguments, &all.open().await?).await,
        Verb::Drill(arguments) => {
            let server = arguments.server()?;
            drill::run(arguments, server, &all.open().await?).await
        }
    }
}

fn failure(doing: &str, error: &SnapshotError) -> Failure {
    let failure = Failure::from_error(doing, error);
    match error {
        SnapshotError::Refused { next, .. } => next.iter().fold(failure, Failure::next),
        SnapshotError::Repository(error) if error.is_not_found() => {
            failure.next("see what there is: walseal-restorer snapshot list")
        }
        SnapshotError::Server(error) if error.sqlstate() == Some("3D000") => failure
            .next("make the database first: createdb")
            .next("name one that is there with --into, and add --create: then the database of the dump is made"),
        _ => failure,
    }
}
