//! `hold`: keep a base backup until some time, whatever retention says; release it; list what is held.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use walseal_common::config::parse_duration;
use walseal_common::repository::{Act, BaseId, Hold, HoldRecord, Repository, RepositoryError};
use walseal_common::show;
use walseal_common::terminal::{Align, Exit, Failure, Look, Schema, Table, to_json, units};
use walseal_common::time::PgTimestamp;

use crate::archive::{Archive, LAST_ENTRIES};

const SCHEMA: Schema = Schema { name: "holds", version: 1 };

/// What `hold` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The base backup
    #[arg(value_name = "ID", required_unless_present = "list")]
    id: Option<BaseId>,
    /// Keep it until then: a time with an offset, or a duration from now, such as 90d
    #[arg(long, value_name = "TIME", required_unless_present_any = ["list", "release"])]
    until: Option<String>,
    /// Leave it to retention again
    #[arg(long, conflicts_with = "until")]
    release: bool,
    /// Say what is held
    #[arg(long, conflicts_with_all = ["id", "until", "release"])]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Document {
    holds: Vec<Held>,
}

#[derive(Serialize)]
struct Held {
    base: BaseId,
    until: Timestamp,
}

/// Holds, releases, or lists; and says what is held.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let (repository, _) = archive.chosen().await.map_err(|error| failed(&error))?;
    if let Some(id) = &arguments.id {
        let now = Timestamp::now();
        let until = match &arguments.until {
            Some(text) => Some(moment(text, now)?),
            None => None,
        };
        // What is not there cannot be kept; what does not verify can be told to stay all the same.
        match repository.label(id).await {
            Err(error) if error.is_not_found() => return Err(no_such(&repository, id).await),
            Err(error) if !matches!(error, RepositoryError::Object { .. }) => return Err(failed(&error)),
            _ => {}
        }
        let record = HoldRecord { base: id.clone(), until, written: now };
        repository.put_hold(&record, &archive.keys.writer).await.map_err(|error| failed(&error))?;
        let ledger = archive.ledger(&repository);
        ledger.record(Act::Held { base: id.clone(), until });
        ledger.finish(LAST_ENTRIES).await;
        // A prune writes down what it removes, and looks for holds after that: of the two, one sees the other.
        if until.is_some() && repository.pruned().await.map_err(|error| failed(&error))?.has_base(id) {
            let why = format!(
                "a prune is removing {id}, or was about to when it broke off. The hold stands for whatever is left of it: look with \
                 walseal-archiver verify --quick whether it is whole once no prune runs, and hold it again"
            );
            return Err(Failure::new("hold", why));
        }
    }
    let now = Timestamp::now();
    let holds = repository.holds().await.map_err(|error| failed(&error))?;
    let held: Vec<Held> = holds.into_iter().filter(|hold| hold.holds(now)).filter_map(Held::of).collect();
    if arguments.json {
        show!("{}", to_json(SCHEMA, &Document { holds: held }).map_err(|error| failed(&error))?);
    } else {
        tell(&held, now);
    }
    Ok(())
}

impl Held {
    fn of(hold: Hold) -> Option<Held> {
        Some(Held { base: hold.record.base, until: hold.record.until? })
    }
}

/// The time that was meant.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let wrong = |why: String| Failure::new("read --until", why).exit(Exit::Usage);
    let until = match (text.parse::<Timestamp>(), parse_duration(text)) {
        (Ok(time), _) => time,
        (_, Ok(duration)) => {
            let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
            now.checked_add(duration).map_err(|error| wrong(format!("\"{text}\" is too far ahead: {error}")))?
        }
        _ => {
            return Err(wrong(format!(
                "\"{text}\" is neither a time with an offset, such as 2027-01-31T00:00:00Z, nor a duration, such as 90d"
            )));
        }
    };
    if until > now { Ok(until) } else { Err(wrong(format!("{until} is over; --release lets a backup go"))) }
}

async fn no_such(repository: &Repository, id: &BaseId) -> Failure {
    let known = match repository.base_ids().await {
        Ok(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(error) => return failed(&error),
    };
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are {known}") };
    Failure::new("hold", format!("there is no base backup {id} in {}: {known}", repository.describe()))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::from_error("hold", error)
}

fn tell(held: &[Held], now: Timestamp) {
    if held.is_empty() {
        show!("No base backup is held.");
        return;
    }
    let mut table = Table::new([("base backup", Align::Left), ("held until", Align::Left), ("", Align::Left)]);
    for hold in held {
        let until = PgTimestamp::from_jiff(hold.until);
        let when = units::ago(PgTimestamp::from_jiff(now), until);
        table.row([hold.base.to_string(), units::time_argument(until), when]);
    }
    show!("{}", table.render(Look::of_stdout()));
}
