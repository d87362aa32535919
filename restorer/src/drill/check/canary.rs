//! The canary: whether the chain of rows that the archiver wrote into the cluster came back whole, and how far it reaches.

use std::time::Duration;

use jiff::Timestamp;
use walseal_common::canary::{self, READ, Row};
use walseal_common::config::WalConfig;
use walseal_common::postgres::{PostgresError, SqlClient};
use walseal_common::terminal::units;

use super::databases;
use crate::drill::report::Found;
use crate::instance::{Instance, Recovered};
use crate::plan::{Plan, Target};

/// Rows that may be late before that is worth a word: the archiver was away then, or may not write any more.
const LATE: u32 = 3;

/// What is expected, in words.
pub const EXPECTED: &str = "the chain of walseal.canary is whole, and reaches to the target and not beyond";

/// The databases that have a canary.
///
/// Errors: the server's.
pub async fn find(instance: &Instance, client: &SqlClient, user: &str) -> Result<Vec<String>, PostgresError> {
    const DOING: &str = "looking for walseal.canary failed";
    let mut found = Vec::new();
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        let row = client.query_one(DOING, "select to_regclass('walseal.canary') is not null", &[]).await?;
        if row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))? {
            found.push(database);
        }
    }
    Ok(found)
}

/// Looks at the canaries of `databases`.
///
/// Errors: one cannot be read.
pub async fn look(
    instance: &Instance,
    user: &str,
    databases: &[String],
    config: &WalConfig,
    plan: &Plan,
    recovered: &Recovered,
) -> Result<Found, PostgresError> {
    if databases.is_empty() {
        return Ok(Found::bad("no database has a table walseal.canary, and wal.canary is set"));
    }
    // Rows are written before they commit, so that none can be of a later time than a target that is one.
    let bound = if let Target::Time(time) = plan.request.target { time.to_jiff() } else { None };
    let last = recovered.landing.last_time.or(plan.last_before.map(|last| last.time));
    let reached = bound.or(last.and_then(|time| time.to_jiff()));
    let (mut words, mut flaws, mut late) = (Vec::new(), Vec::new(), false);
    for database in databases {
        let rows = read(&instance.connect(user, database).await?).await?;
        let newest = match canary::verify(&rows) {
            Ok(newest) => newest,
            Err(flaw) => {
                flaws.push(format!("{database}: {flaw}"));
                continue;
            }
        };
        let written = Timestamp::from_microsecond(newest.written_at).ok();
        if let (Some(bound), Some(written)) = (bound, written)
            && written > bound
        {
            flaws.push(format!("{database}: row {} was written at {written}, behind the target", newest.n));
            continue;
        }
        let age = reached.zip(written).map(|(reached, written)| age(reached, written));
        late |= age.is_some_and(|age| age > config.canary_interval.value * LATE);
        let age = age.map(|age| format!(", {} before the target", units::duration(age))).unwrap_or_default();
        words.push(format!("{database}: rows {} to {}{age}", rows.first().map_or(0, |row| row.n), newest.n));
    }
    let words = words.join("; ");
    Ok(match flaws.first() {
        Some(first) => Found::bad(first.clone()).with(flaws),
        None if late => Found::odd(format!(
            "{words}: none was written for a while; the archiver was away, or may not write (walseal-archiver doctor)"
        )),
        None => Found::good(words),
    })
}

fn age(reached: Timestamp, written: Timestamp) -> Duration {
    Duration::try_from(reached.duration_since(written)).unwrap_or_default()
}

/// The rows as they lie in the table, not as an index has them.
async fn read(client: &SqlClient) -> Result<Vec<Row>, PostgresError> {
    const DOING: &str = "reading walseal.canary failed";
    let plain = "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off";
    client.simple_query(DOING, plain).await?;
    let rows = client.query(DOING, READ, &[]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    rows.iter()
        .map(|row| {
            let (n, written_at) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            Ok(Row {
                n,
                written_at,
                previous: row.try_get(2).map_err(failed)?,
                digest: row.try_get(3).map_err(failed)?,
            })
        })
        .collect()
}
