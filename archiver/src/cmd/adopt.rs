//! `adopt`: name the living one of two servers that wrote the same timeline.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};
use walseal_common::seal::WriterPublic;
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Progress, Schema, to_json};
use walseal_common::timeline::Branch;

use crate::adopt::{Adopted, Adopter};
use crate::archive::{Archive, LAST_ENTRIES};
use crate::told::Told;

const SCHEMA: Schema = Schema { name: "adopt", version: 1 };

/// How long the daemon may take to go on on the new branch before it is no longer waited for.
const GOING_ON: Duration = Duration::from_secs(20);

/// What `adopt` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The public key (walsealw1…) of the archiver of the server that is alive: this host's own where this is the living one
    #[arg(long, value_name = "KEY")]
    writer: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    adopted: &'a Adopted,
    /// Whether a daemon on this host streams on the branch now; null where there is nothing to go on on.
    daemon_streams: Option<bool>,
}

/// Compares, adopts, and says what that means.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let living: WriterPublic =
        arguments.writer.parse().map_err(|error| Failure::new("read --writer", error).exit(Exit::Usage))?;
    let conninfo = archive.config.open_conninfo()?;
    let slot = archive.config.need_slot()?;
    let state_dir = archive.config.need_state_dir()?;
    let opened = archive.repository(&conninfo).await;
    let (repository, identity) = opened.map_err(|error| Failure::from_error("adopt", &error))?;
    let ledger = archive.ledger(&repository);
    let adopter = Adopter { conninfo, slot, repository, identity, keys: archive.keys.clone(), ledger: ledger.clone() };
    let progress = Progress::new("adopt", None);
    progress.message("comparing this server's WAL with what the repository holds");
    let adopted = adopter.adopt(living).await;
    ledger.finish(LAST_ENTRIES).await;
    let adopted = match adopted {
        Ok(adopted) => adopted,
        Err(error) => {
            progress.abandon();
            return Err(Failure::from_error("adopt", &error));
        }
    };
    let mut daemon_streams = None;
    if let Some(branch) = adopted.goes_on() {
        progress.message("waiting for the daemon to go on");
        daemon_streams = Some(goes_on(&state_dir, branch).await);
    }
    progress.finish("done");
    if arguments.json {
        let text = to_json(SCHEMA, &Document { adopted: &adopted, daemon_streams });
        show!("{}", text.map_err(|error| Failure::from_error("print the result", &error))?);
    } else {
        tell(&adopted, daemon_streams.unwrap_or_default());
    }
    Ok(())
}

/// Whether a daemon streams on `branch`, or does soon: it looks by itself.
async fn goes_on(state_dir: &std::path::Path, branch: Branch) -> bool {
    let until = Instant::now() + GOING_ON;
    loop {
        match Told::ask(state_dir).await {
            None => return false,
            Some((_, Ok(told))) if told.progress.connected && told.progress.branch == Some(branch) => return true,
            Some(_) if Instant::now() >= until => return false,
            Some(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

fn tell(adopted: &Adopted, daemon_streams: bool) {
    match adopted {
        Adopted::Nothing { branch, through } => {
            show!("Nothing to adopt: branch {branch} holds this server's WAL, up to {through} and no other.");
        }
        Adopted::Theirs { writer, branch, from } => {
            show!(
                "Branch {branch} is that of {writer} already, and stays so; nothing is stored elsewhere. From the segment at {from} on this server's \
                 WAL is another, so that its archiver confirms nothing: it is not the living one. Stop its archiver and the server, and rewind it \
                 (pg_rewind) or retire it; what its archiver could not store lies below conflict/, and in its pg_wal."
            );
        }
        Adopted::Ours { name, branch, from, to, holder, gap_to } => {
            show!(
                "From {from} on this server's WAL lies on branch {to} ({name}). What {holder} wrote from there on stays on branch {branch}: \
                 restore --timeline {branch} reaches it."
            );
            if let Some(to) = gap_to {
                show!(
                    "The WAL up to {to} is not on this server any more: a gap is recorded, and the daemon takes a base backup. Nobody can tell \
                     where the two servers parted: points before {from} may be the other one's."
                );
            }
            match daemon_streams {
                true => show!("The daemon streams on there."),
                false => show!(
                    "No daemon of this host streams on there yet: walseal-archiver run goes on by itself; see its log."
                ),
            }
            show!(
                "Take a base backup (walseal-archiver backup); stop the other server and its archiver, and rewind or retire it."
            );
        }
    }
}
