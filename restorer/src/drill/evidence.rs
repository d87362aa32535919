//! What becomes of a report: sealed evidence, and an entry in the ledger. And what the drill before left.

use jiff::Timestamp;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{Act, Chain, Drill, DrillFacts, EvidenceFact, RepositoryError};
use walseal_common::seal::Recipient;
use walseal_common::terminal::to_json;
use walseal_common::timeline::Branch;

use super::report::{Report, SCHEMA, TableRows, Verdict};
use crate::access::Access;
use crate::record;
use crate::snapshot::drill as snapshot;

/// Tables that evidence lists: an object holds 16 MiB.
const MOST_TABLES: usize = 50_000;

/// Drills whose evidence is tried until one can be read.
const TRIES: usize = 5;

/// Why a drill is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// There is nothing to sign with.
    #[error("keys.writer_key_file names no key for this host")]
    NoKey,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] walseal_common::config::OpenError),
    /// The store did not take it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It is no document.
    #[error("the evidence cannot be written: {0}")]
    Document(#[from] serde_json::Error),
}

/// Puts the evidence and the entry that names it. Durable on return; the name of the evidence.
///
/// `word` is the kind of the target. Errors: no key, no permission; the drill then stays without a record.
pub async fn record(access: &Access, report: &Report, word: &str) -> Result<String, Unrecorded> {
    let signer = record::signer(&access.config)?.ok_or(Unrecorded::NoKey)?;
    let recipients = recipients(access)?;
    let repository = record::with_own(access);
    let mut short;
    let mut report = report;
    if report.tables.len() > MOST_TABLES {
        short = report.clone();
        short.tables_left_out = (short.tables.len() - MOST_TABLES) as u64;
        short.tables.truncate(MOST_TABLES);
        report = &short;
    }
    let document = to_json(SCHEMA, report)?;
    let writer = signer.writer.clone();
    // A run of its own: evidence and entry are found by it.
    let mut chain = Chain::new(repository.clone(), signer)?;
    let (name, digest) = repository.put_evidence(chain.run(), 0, document.as_bytes(), &recipients, &writer).await?;
    let evidence = EvidenceFact { name: name.to_string(), digest };
    let facts = Box::new(facts(report, word, evidence));
    let act = match report.verdict {
        Verdict::Passed => Act::DrillPassed(facts),
        Verdict::Failed => Act::DrillFailed(facts),
    };
    chain.write(Timestamp::now(), &act).await?;
    Ok(name.to_string())
}

/// Puts what the drill of a snapshot found, and the entry that names it. Durable on return; the name of the evidence.
///
/// Errors: as [`record`].
pub async fn record_snapshot(access: &Access, report: &snapshot::Report) -> Result<String, Unrecorded> {
    let signer = record::signer(&access.config)?.ok_or(Unrecorded::NoKey)?;
    let recipients = recipients(access)?;
    let document = to_json(snapshot::SCHEMA, report)?;
    let writer = signer.writer.clone();
    let repository = record::with_own(access);
    let mut chain = Chain::new(repository.clone(), signer)?;
    let (name, digest) = repository.put_evidence(chain.run(), 0, document.as_bytes(), &recipients, &writer).await?;
    let act = report.act(EvidenceFact { name: name.to_string(), digest });
    chain.write(Timestamp::now(), &act).await?;
    Ok(name.to_string())
}

fn facts(report: &Report, word: &str, evidence: EvidenceFact) -> DrillFacts {
    let (passed, warned) = report.passes();
    DrillFacts {
        base: report.base.as_ref().map(|base| base.id.clone()),
        target: word.to_owned(),
        branch: report.drilled.as_ref().map(|drilled| drilled.branch),
        stop: report.drilled.as_ref().map(|drilled| drilled.stop),
        bytes: report.bytes,
        passed,
        warned,
        failed: report.failed().iter().map(|kind| kind.word().to_owned()).collect(),
        seconds: report.seconds,
        first_query_seconds: report.first_query_seconds,
        evidence: Some(evidence),
        made: report.made.clone(),
    }
}

/// Whom evidence is sealed to: the configured recipients, else the owners of this host's identities.
fn recipients(access: &Access) -> Result<Vec<Recipient>, Unrecorded> {
    if access.config.keys.recipients.is_some() {
        return Ok(access.config.open_recipients()?);
    }
    Ok(access.identities.iter().map(|identity| identity.recipient().clone()).collect())
}

/// The tables of the newest drill that counted them, of the same branch and at or before `stop`: what grew since may have been
/// dropped before, the other way round it is no loss. And where that drill had ended. One that cannot be opened is passed over, with
/// a warning.
///
/// Errors: the store's.
pub async fn tables_before(
    access: &Access,
    branch: Branch,
    stop: Lsn,
) -> Result<Option<(Lsn, Vec<TableRows>)>, RepositoryError> {
    let repository = record::with_own(access);
    let drills = repository.drills().await?;
    let comparable = |drill: &'_ Drill| drill.facts.stop.filter(|at| drill.facts.branch == Some(branch) && *at <= stop);
    for (drill, ended) in drills.iter().rev().filter_map(|drill| Some((drill, comparable(drill)?))).take(TRIES) {
        let document = match repository.evidence(drill, &access.identities).await {
            Ok(Some(document)) => document,
            Ok(None) => continue,
            Err(error @ RepositoryError::Object { .. }) => {
                tracing::warn!(%error, "the evidence of an earlier drill cannot be read");
                continue;
            }
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Report>(&document) {
            // One that broke off earlier counted nothing.
            Ok(report) if report.tables.is_empty() => {}
            Ok(report) => return Ok(Some((ended, report.tables))),
            Err(error) => tracing::warn!(%error, "the evidence of an earlier drill is none that this version reads"),
        }
    }
    Ok(None)
}
