//! Where recovery ended, against what the WAL says.
//!
//! The plan knows both neighbours of the target from the records themselves. The instance is asked three times: its log for
//! the time of the last transaction that it replayed and for the last record that it read, and its commit log for the fate of both.

use walseal_common::lsn::Lsn;
use walseal_common::postgres::{PostgresError, SqlClient};
use walseal_common::wal::{TransactionOutcome, Xid};

use crate::drill::report::Found;
use crate::instance::Recovered;
use crate::plan::{Plan, Target, TransactionPoint};

/// What is expected, in words.
pub fn expected(plan: &Plan) -> String {
    let last = plan.last_before.as_ref().map_or_else(|| "no transaction".to_owned(), words);
    let first = plan.first_after.as_ref().map(|first| format!(", without {}", first.xid)).unwrap_or_default();
    format!("last {last}{first}")
}

fn words(point: &TransactionPoint) -> String {
    format!("{} of {}", point.xid, point.time)
}

/// Looks whether the instance holds what lies before the target, and nothing of what lies behind it.
///
/// Errors: it cannot be asked.
pub async fn look(client: &SqlClient, plan: &Plan, recovered: &Recovered) -> Result<Found, PostgresError> {
    let mut wrong = by_the_log(plan, recovered);
    let row = client.query_one("reading the next transaction's number failed", NEXT, &[]).await?;
    let next: u64 = super::text(&row, 0)?.parse().map_err(|_| PostgresError::Sql {
        doing: "reading the next transaction's number failed".to_owned(),
        why: "it is no number".to_owned(),
    })?;
    let mut said = Vec::new();
    if let Some(last) = &plan.last_before {
        let fate = fate(client, last.xid, next).await?;
        let should = match last.outcome {
            TransactionOutcome::Commit | TransactionOutcome::CommitPrepared => "committed",
            TransactionOutcome::Abort | TransactionOutcome::AbortPrepared => "aborted",
        };
        if fate.as_deref() != Some(should) {
            let fate = fate.unwrap_or_else(|| "not known".to_owned());
            wrong.push(format!("transaction {} is {fate} in the instance, and {should} by the WAL", last.xid));
        }
        said.push(format!("{} {should}", last.xid));
    }
    if let Some(first) = &plan.first_after {
        if fate(client, first.xid, next).await?.as_deref() == Some("committed") {
            wrong.push(format!("transaction {} is in the instance, and lies behind the target", first.xid));
        }
        said.push(format!("{} not", first.xid));
    }
    said.extend(recovered.last_record.map(|lsn| format!("last record read at {lsn}")));
    if wrong.is_empty() { Ok(Found::good(said.join(", "))) } else { Ok(Found::bad(wrong.join("; "))) }
}

const NEXT: &str = "select pg_snapshot_xmax(pg_current_snapshot())::text";

/// What the log of recovery says otherwise.
fn by_the_log(plan: &Plan, recovered: &Recovered) -> Vec<String> {
    let mut wrong: Vec<String> = recovered.landing.missed(plan).into_iter().collect();
    wrong.extend(last_record(plan, recovered.last_record));
    wrong
}

/// What is wrong with the last record that was read. PostgreSQL stops before a time, and before whatever is exclusive, with that
/// record read and not replayed, and behind everything else (`recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`).
fn last_record(plan: &Plan, read: Option<Lsn>) -> Option<String> {
    let (target, stop) = (&plan.request.target, plan.stop);
    let Some(read) = read else {
        return (stop > plan.base.stop).then(|| "the server did not say which record it read last".to_owned());
    };
    if let Some(last) = plan.last_before.filter(|last| read < last.lsn) {
        return Some(format!(
            "the last record that was read begins at {read}, before that of transaction {}",
            last.xid
        ));
    }
    let first = plan.first_after.map(|first| first.lsn);
    let right = match target {
        // More may have come, and consistency is reached at no record.
        Target::Latest | Target::Immediate => true,
        Target::Time(_) => Some(read) == first,
        _ if plan.request.exclusive => read >= stop && first.is_none_or(|first| read <= first),
        _ => read < stop,
    };
    (!right).then(|| format!("the last record that was read begins at {read}; the target is at {stop}"))
}

/// What the instance says of a transaction: committed, aborted, in progress; `None` where it has not begun, or is long gone.
async fn fate(client: &SqlClient, xid: Xid, next: u64) -> Result<Option<String>, PostgresError> {
    let Some(full) = full(xid, next) else { return Ok(None) };
    let row = client.query_one("reading the fate of a transaction failed", FATE, &[&full.to_string()]).await?;
    row.try_get(0).map_err(|error| SqlClient::error("reading the fate of a transaction failed", &error))
}

const FATE: &str = "select pg_xact_status($1::text::xid8)";

/// The 64 bits of a transaction's number, by the next one's: the last with these 32 bits before it. `None` for one that has not
/// begun, by the rule that numbers half a circle ahead lie behind.
fn full(xid: Xid, next: u64) -> Option<u64> {
    let distance = (next as u32).wrapping_sub(xid.0);
    let before = distance != 0 && distance < 1 << 31;
    before.then(|| next.checked_sub(u64::from(distance)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_10_numbers_of_32_bits_are_told_from_those_of_the_epoch_before() {
        assert_eq!(full(Xid(741), 742), Some(741));
        assert_eq!(full(Xid(742), 742), None);
        assert_eq!(full(Xid(743), 742), None);
        assert_eq!(full(Xid(741), (1 << 32) + 742), Some((1 << 32) + 741));
        // Shortly after the numbers began anew.
        assert_eq!(full(Xid(u32::MAX - 1), (1 << 32) + 5), Some(u64::from(u32::MAX) - 1));
        assert_eq!(full(Xid(u32::MAX - 1), 5), None);
    }
}
