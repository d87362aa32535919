//! `heal`: fill gaps from what a server, a standby or a folder still has.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Repository, RepositoryIdentity};
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Progress, Schema, printable, to_json, units};

use crate::archive::{Archive, LAST_ENTRIES};
use crate::heal::{
    FolderSource, HealError, HealPlan, Healer, Restorable, ServerSource, Source, Stored, place, restorable,
};

const SCHEMA: Schema = Schema { name: "heal", version: 1 };

/// What `heal` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only the gap at this position, or the hole there that nobody recorded; else every open gap
    #[arg(long, value_name = "LSN")]
    gap: Option<Lsn>,
    /// Look in this folder: segments and .partial files as PostgreSQL names them, not compressed. May be repeated
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// Look in pg_wal of this server, a standby or an old primary. May be repeated. Without any --from, the primary is asked
    #[arg(long, value_name = "CONNINFO")]
    from_standby: Vec<String>,
    /// Say what would be stored, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: &'a HealPlan,
    /// Objects that were stored.
    objects: u64,
    /// Bytes of WAL in them.
    bytes: u64,
    /// What could be restored before.
    before: &'a [Restorable],
    /// What can be restored now; `null` after a dry run.
    now: Option<&'a [Restorable]>,
}

/// Looks, says what was found, stores it, and says what can be restored.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let conninfo = archive.config.open_conninfo()?;
    let (repository, identity) = archive.repository(&conninfo).await.map_err(|error| failed(&error))?;
    let ledger = archive.ledger(&repository);
    let healer = Healer::new(repository.clone(), identity.clone(), archive.keys.clone()).recording(ledger.clone());
    let gaps = healer.gaps(arguments.gap).await.map_err(|error| failed(&error))?;
    if gaps.is_empty() && !arguments.json {
        show!("No gap is open.");
        return Ok(());
    }
    let sources = match gaps.is_empty() {
        true => Vec::new(),
        false => sources(arguments, &conninfo, &repository, &identity).await?,
    };
    let before = restorable(&repository, &identity).await.map_err(|error| failed(&error))?;
    let progress = Progress::new("heal", None);
    progress.message("looking for the WAL that is missing");
    let shown = progress.clone();
    let healed = async {
        let plan = healer.plan(gaps, &sources).await?;
        if arguments.dry_run {
            return Ok((plan, Stored::default()));
        }
        let stored = healer.fill(&plan, &sources, move |name| shown.message(&format!("stored {name}"))).await?;
        Ok::<_, HealError>((plan, stored))
    };
    let healed = healed.await;
    ledger.finish(LAST_ENTRIES).await;
    let (plan, stored) = match healed {
        Ok(done) => done,
        Err(error) => {
            progress.abandon();
            return Err(failed(&error));
        }
    };
    let now = match arguments.dry_run {
        true => None,
        false => Some(restorable(&repository, &identity).await.map_err(|error| failed(&error))?),
    };
    progress.finish("done");
    if arguments.json {
        let Stored { objects, bytes } = stored;
        let (dry_run, before, now) = (arguments.dry_run, before.as_slice(), now.as_deref());
        let outcome = Outcome { dry_run, plan: &plan, objects, bytes, before, now };
        show!("{}", to_json(SCHEMA, &outcome).map_err(|error| failed(&error))?);
    } else {
        tell(&plan, stored, &before, now.as_deref());
    }
    if arguments.dry_run || plan.is_complete() { Ok(()) } else { Err(incomplete(&plan)) }
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::from_error("heal", error)
}

/// Those that were named; the primary where none was.
async fn sources(
    arguments: &Arguments,
    primary: &Conninfo,
    repository: &Repository,
    identity: &RepositoryIdentity,
) -> Result<Vec<Arc<dyn Source>>, Failure> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    for folder in &arguments.from {
        let source = FolderSource::open(folder, identity.segment_size, repository.cluster());
        sources.push(Arc::new(source.map_err(|error| failed(&error))?));
    }
    for text in &arguments.from_standby {
        let source = ServerSource::chosen(&chosen(text)?, repository, identity).await;
        sources.push(Arc::new(source.map_err(|error| failed(&error))?));
    }
    if sources.is_empty() {
        let source = ServerSource::primary(primary, repository, identity).await;
        sources.push(Arc::new(source.map_err(|error| failed(&error))?));
    }
    Ok(sources)
}

/// Errors: no connection string; one with a password in it, which everybody on this host could read.
fn chosen(text: &str) -> Result<Conninfo, Failure> {
    let refused = |why: String| Failure::new("read --from-standby", why).exit(Exit::Usage);
    if Conninfo::parse(text, &|_| None).is_ok_and(|conninfo| conninfo.has_password()) {
        return Err(refused("it holds a password, and everybody on this host can see a command line".to_owned())
            .next("put it into a file that passfile= names, mode 600; a line is host:port:*:role:password"));
    }
    Conninfo::parse(text, &|name| std::env::var(name).ok()).map_err(|error| refused(error.to_string()))
}

fn tell(plan: &HealPlan, stored: Stored, before: &[Restorable], now: Option<&[Restorable]>) {
    let mut text = plan.explain();
    let list = |ranges: &[Restorable]| match ranges {
        [] => "  nothing\n".to_owned(),
        some => some.iter().map(|range| format!("  {range}\n")).collect(),
    };
    match now {
        None => {
            let what = if plan.fills() { "what was found would be stored" } else { "nothing was found to store" };
            text.push_str(&format!("Dry run: {what}.\n"));
        }
        Some(now) => {
            let objects = if stored.objects == 1 { "object" } else { "objects" };
            text.push_str(&format!("Stored {} of WAL in {} {objects}.\n", units::size(stored.bytes), stored.objects));
            if now != before {
                text.push_str(&format!("Before, any position in these could be restored:\n{}", list(before)));
            }
            text.push_str(&format!("Any position in these can be restored:\n{}", list(now)));
        }
    }
    print!("{}", printable(&text));
}

fn incomplete(plan: &HealPlan) -> Failure {
    let left: Vec<String> = plan.gaps.iter().flat_map(|gap| &gap.left).map(place).collect();
    Failure::new("fill everything", format!("still missing: {}", left.join("; ")))
        .next("give another folder (--from DIR) or server (--from-standby CONNINFO) that may have it")
}
