//! `snapshot extract`.

use std::path::PathBuf;

use tokio::io::AsyncWriteExt;
use walseal_common::repository::SnapshotId;
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, units};

use super::super::drill::until_told_to_end;
use super::failure;
use crate::access::Access;
use crate::extract::ExtractError;
use crate::extract::dump_file::DumpFile;
use crate::shell::quoted;
use crate::snapshot::SnapshotError;
use crate::snapshot::pour::pour;

#[derive(clap::Args, Debug)]
pub(super) struct Extract {
    /// The snapshot
    id: SnapshotId,
    /// The file; one that is there is never overwritten
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Not the database but roles and tablespaces, as SQL
    #[arg(long)]
    globals: bool,
}

pub(super) async fn run(arguments: &Extract, access: &Access) -> Result<(), Failure> {
    let doing = "extract a snapshot";
    let path = std::path::absolute(&arguments.to).map_err(|error| Failure::from_error(doing, &error))?;
    let file = DumpFile::begin(&path).map_err(|error| in_the_way(&error))?;
    let label = access.repository.snapshot(&arguments.id).await.map_err(|error| failure(doing, &error.into()))?;
    let objects = if arguments.globals { &label.globals } else { &label.dump };
    if objects.is_empty() {
        return Err(Failure::new(doing, "it has none: the archiver's role could not read roles and tablespaces"));
    }
    let handle = file.handle().map_err(|error| in_the_way(&error))?;
    let total = if arguments.globals { None } else { Some(label.dump_size) };
    let progress = Progress::new("extract", total);
    let mut sink = tokio::fs::File::from_std(handle);
    let pouring = async {
        let told = |bytes| progress.advance(bytes);
        let poured = pour(&access.repository, &access.identities, objects, &mut sink, told).await;
        sink.flush().await.map_err(SnapshotError::io("write the file")).and(poured)
    };
    let poured = until_told_to_end(pouring).await?;
    progress.abandon();
    let Some(poured) = poured else { return Err(Failure::saying("the extract was interrupted; the file is gone")) };
    poured.map_err(|error| failure(doing, &error))?;
    let bytes = file.finish().map_err(|error| in_the_way(&error))?;
    show!("{} is there: {}.", path.display(), units::size(bytes));
    if !arguments.globals {
        show!("Restore it with: pg_restore --dbname=CONNINFO {}", quoted(&path.to_string_lossy()));
    }
    Ok(())
}

fn in_the_way(error: &ExtractError) -> Failure {
    let failure = Failure::from_error("write the file", error);
    match error {
        ExtractError::Refused { next, .. } => next.iter().fold(failure, Failure::next),
        _ => failure,
    }
}
