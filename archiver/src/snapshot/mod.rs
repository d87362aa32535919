//! Snapshots: `pg_dump`, sealed on its way to the repository, with the rows of every table counted in the same state.
//!
//! | module | holds |
//! | --- | --- |
//! | [`order`] | what is dumped |
//! | [`home`] | the server, and its repository |
//! | [`round`] | several databases, a few at a time |
//! | `state` | a state that stays as it is while it is dumped and counted |
//! | `dump` | PostgreSQL's programs as children |
//! | `listing` | which tables a dump of a part holds |
//! | `stow` | a stream into sealed objects |
//! | `pooler` | hosts that a dump must not go through |
//! | [`keeper`], [`timetable`], [`daemon`] | all of it by itself, when it is due |
//! | [`retention`], `removal` | which may go, and their going |
//! | [`earlier`] | the rows that were counted last time |
//! | [`figures`] | metrics and health over HTTP |
//! | [`error`] | why it did not work |

pub mod daemon;
mod dump;
pub mod earlier;
pub mod error;
pub mod figures;
pub mod home;
pub mod keeper;
mod listing;
pub mod order;
mod pooler;
mod removal;
pub mod retention;
pub mod round;
mod state;
mod stow;
pub mod timetable;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::AsyncRead;
use walseal_common::postgres::programs::Program;
use walseal_common::repository::{Act, ObjectName, SnapshotFact, SnapshotId, SnapshotLabel};

use self::dump::{Programs, To};
pub use self::error::SnapshotError;
pub use self::home::Home;
pub use self::order::{Databases, Order};
pub use self::round::Round;
use self::state::State;
use self::stow::Stow;

/// How often a database is tried whose connection breaks.
const ATTEMPTS: u32 = 3;

/// How long the second attempt waits; each later one twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// A snapshot that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The database.
    pub database: String,
    /// Its label.
    pub label: SnapshotLabel,
    /// Its facts.
    pub facts: Vec<SnapshotFact>,
    /// The program that made it.
    pub program: Program,
    /// How long it took.
    pub took: Duration,
    /// What `pg_dump` said, line by line.
    pub remarks: Vec<String>,
}

/// Dumps one database, again as a whole where the connection breaks. It is visible when this returns, and only then (I7).
/// `told` hears of bytes of the archive as they come.
///
/// Errors: see [`SnapshotError`].
async fn take(round: &Round<'_>, database: &str, told: impl Fn(u64) + Copy) -> Result<Taken, SnapshotError> {
    let ledger = round.ledger;
    let mut pause = PAUSE;
    for attempt in 1.. {
        match once(round, database, told).await {
            Ok(taken) => {
                let counted = |fact: &&SnapshotFact| matches!(fact, SnapshotFact::Table { .. });
                ledger.record(Act::SnapshotFinished {
                    id: taken.label.id.clone(),
                    whole: taken.label.whole,
                    dump_size: taken.label.dump_size,
                    stored_size: taken.label.stored_size,
                    tables: taken.facts.iter().filter(counted).count() as u64,
                    seconds: taken.took.as_secs_f64(),
                });
                return Ok(taken);
            }
            Err(error) if error.is_disconnect() && attempt < ATTEMPTS => {
                tracing::warn!(%error, database, attempt, "the connection broke, and the dump begins anew");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => {
                ledger.record(Act::SnapshotFailed { class: error.class() });
                return Err(error);
            }
        }
    }
    Err(SnapshotError::Task("it was never tried".to_owned()))
}

async fn once(round: &Round<'_>, database: &str, told: impl Fn(u64)) -> Result<Taken, SnapshotError> {
    let (home, order) = (round.home, round.order);
    let (started, start_time) = (Instant::now(), Timestamp::now());
    let id = SnapshotId::generate().map_err(|source| SnapshotError::Seal { name: "a snapshot".to_owned(), source })?;
    let state = State::hold(&home.conninfo, &home.host, database).await?;
    let programs = Programs::find(home.server.version, home.pg_bin.clone()).await?;
    let to = To { conninfo: &home.conninfo, host: &home.host, database };
    let mut stow = Stow::new(round.hold.clone(), id.clone());

    let (running, stream) = dump::archive(&programs, to, &state.name, &order.selection)?;
    let (stream, passing, listing): (Box<dyn AsyncRead + Send + Unpin>, _, _) = if order.is_whole() {
        (Box::new(stream), None, None)
    } else {
        let (out, passing, listing) = listing::beside(&programs, stream);
        (Box::new(out), Some(passing), Some(listing))
    };
    let passing = async { if let Some(passing) = passing { passing.pass().await } else { Ok(()) } };
    let dumping = async {
        let stowed = stow.stow(stream, told).await?;
        // A program that fails closes its pipe, too: only its exit code tells that the archive is whole.
        Ok((stowed, running.end().await?))
    };
    let counting = async {
        let dumped = match listing {
            None => None,
            Some(listing) => match listing.read().await {
                Ok(dumped) => Some(dumped),
                Err(error) => return Ok(vec![unread(earlier::UNCOUNTED, &error.to_string())]),
            },
        };
        Ok(state.count(dumped.as_ref()).await?)
    };
    let ((), (archive, said), counted) = tokio::try_join!(passing, dumping, counting)?;
    let lsn = state.lsn;
    state.release().await;

    let mut facts = vec![SnapshotFact::Snapshot {
        database: database.to_owned(),
        label: order.label.clone(),
        selection: order.selection.clone(),
    }];
    facts.extend(counted);
    let globals = match dump::globals(&programs, to).await {
        Ok((text, with_passwords)) => {
            if !with_passwords {
                facts.push(unread("passwords of roles", "the role may not read pg_authid"));
            }
            stow.stow(text.as_slice(), |_| ()).await?
        }
        Err(error) if error.is_disconnect() => return Err(error),
        Err(error) => {
            facts.push(unread("roles and tablespaces", &error.to_string()));
            stow::Stowed::default()
        }
    };
    let lines = lines(&facts)?;
    let sealed = stow.stow(lines.as_slice(), |_| ()).await?;
    let label = SnapshotLabel {
        id,
        series: order.series(database, home.keys.writer.compare()),
        start_time,
        stop_time: Timestamp::now(),
        postgres_version: home.server.version,
        dump_version: programs.dump.version,
        lsn,
        hold_until: order.hold_until,
        whole: order.is_whole(),
        dump_size: archive.plain,
        stored_size: archive.stored() + globals.stored() + sealed.stored(),
        dump: archive.objects,
        globals: globals.objects,
        facts: sealed.objects,
    };
    let object = home.repository.signed_snapshot(&label, &home.keys.writer)?;
    stow::put(&home.repository, &ObjectName::Snapshot(label.id.clone()), &object).await?;
    let remarks = said.lines().map(str::to_owned).collect();
    let (database, program) = (database.to_owned(), programs.dump);
    Ok(Taken { database, label, facts, program, took: started.elapsed(), remarks })
}

fn unread(name: &str, why: &str) -> SnapshotFact {
    SnapshotFact::Unread { schema: None, name: name.to_owned(), why: why.to_owned() }
}

fn lines(facts: &[SnapshotFact]) -> Result<Vec<u8>, SnapshotError> {
    let mut lines = Vec::new();
    for fact in facts {
        serde_json::to_writer(&mut lines, fact).map_err(|error| SnapshotError::Task(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
