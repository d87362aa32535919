//! The canary: a small table of walseal's own in the cluster, `walseal.canary`, whose rows are chained by digests.
//!
//! The archiver adds a row at intervals, a drill reads them back: a row that is gone, or is another than it was, shows, because the
//! next one names its digest. Older rows are removed in the statement that adds one, so that how many there are follows from the
//! newest number alone, and a chain whose beginning is gone is told from one that was cut.

use sha2::{Digest, Sha256};

/// Rows that are kept: a day of one a minute.
pub const KEPT: i64 = 1440;

/// What makes the table, for a role that owns the schema.
pub const TABLE: &str = "CREATE TABLE walseal.canary (n bigint PRIMARY KEY, written_at timestamptz NOT NULL, \
                         previous bytea NOT NULL, digest bytea NOT NULL)";

/// What makes the schema, for a role that may make one.
pub const SCHEMA: &str = "CREATE SCHEMA walseal";

/// Adds the next row and removes the oldest: after row `$1` with digest `$2`, or where these are null after the newest one.
/// Gives number and digest of the new row, and the number of the newest one before.
pub const ADD: &str = "WITH last AS (SELECT n, digest FROM walseal.canary ORDER BY n DESC LIMIT 1), \
     next AS (SELECT coalesce($1::bigint, (SELECT n FROM last), 0) + 1 AS n, clock_timestamp() AS written_at, \
       coalesce($2::bytea, (SELECT digest FROM last), ''::bytea) AS previous), \
     pruned AS (DELETE FROM walseal.canary WHERE n <= (SELECT n FROM next) - 1440) \
     INSERT INTO walseal.canary SELECT n, written_at, previous, sha256(convert_to(format(E'walseal canary\\n%s\\n%s\\n%s', \
       n, (extract(epoch FROM written_at) * 1000000)::bigint, encode(previous, 'hex')), 'UTF8')) FROM next \
     RETURNING n, digest, (SELECT n FROM last)";

/// Reads all rows, the oldest first: `n`, microseconds since 1970, `previous`, `digest`.
pub const READ: &str = "SELECT n, (extract(epoch FROM written_at) * 1000000)::bigint, previous, digest \
                        FROM walseal.canary ORDER BY n";

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number, from 1.
    pub n: i64,
    /// When it was written, by the server's clock, in microseconds since 1970.
    pub written_at: i64,
    /// The digest of the row before; empty in the first.
    pub previous: Vec<u8>,
    /// Its own.
    pub digest: Vec<u8>,
}

impl Row {
    /// The digest that it must have.
    pub fn computed(&self) -> Vec<u8> {
        let previous: String = self.previous.iter().map(|byte| format!("{byte:02x}")).collect();
        Sha256::digest(format!("walseal canary\n{}\n{}\n{previous}", self.n, self.written_at)).to_vec()
    }
}

/// What is wrong with a chain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    /// There are no rows at all.
    #[error("the canary has no row")]
    Empty,
    /// Rows are missing at the beginning, beyond those that are removed, or were never removed.
    #[error("the canary begins with row {first}, and with row {last} as its newest must begin with {must}")]
    Beginning {
        /// Its first row.
        first: i64,
        /// Its last row.
        last: i64,
        /// Which must be the first.
        must: i64,
    },
    /// Rows are missing, or there are several of one number.
    #[error("row {after} of the canary is followed by row {next}")]
    Hole {
        /// The last one before.
        after: i64,
        /// The one that comes next.
        next: i64,
    },
    /// A row does not follow from the one before it, or is another than it was.
    #[error(
        "row {0} of the canary is not the one that was written: it does not follow from the row before, or has another digest"
    )]
    Changed(i64),
}

/// Whether `rows`, the oldest first, are a whole chain.
///
/// Errors: the first flaw.
pub fn verify(rows: &[Row]) -> Result<&Row, Flaw> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Err(Flaw::Empty) };
    for (before, row) in rows.iter().zip(rows.iter().skip(1)) {
        if before.n.checked_add(1) != Some(row.n) {
            return Err(Flaw::Hole { after: before.n, next: row.n });
        }
        if row.previous != before.digest {
            return Err(Flaw::Changed(row.n));
        }
    }
    let must = last.n.saturating_sub(KEPT - 1).max(1);
    if first.n != must {
        return Err(Flaw::Beginning { first: first.n, last: last.n, must });
    }
    match rows.iter().find(|row| row.digest != row.computed() || (row.n == 1 && !row.previous.is_empty())) {
        Some(row) => Err(Flaw::Changed(row.n)),
        None => Ok(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: i64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for n in 1..=count {
            let previous = rows.last().map(|row| row.digest.clone()).unwrap_or_default();
            let mut row = Row { n, written_at: n * 60_000_000, previous, digest: Vec::new() };
            row.digest = row.computed();
            rows.push(row);
        }
        rows
    }

    #[test]
    fn a_whole_chain_is_one_also_where_older_rows_are_gone() {
        assert_eq!(verify(&chain(5)).map(|row| row.n), Ok(5));
        let long = chain(KEPT + 7);
        assert_eq!(verify(&long[7..]).map(|row| row.n), Ok(KEPT + 7));
        assert!(ADD.contains(&format!("- {KEPT})")), "the statement removes what is not kept");
    }

    #[test]
    fn a_row_that_is_gone_or_changed_is_found_wherever_it_was() {
        assert_eq!(verify(&[]), Err(Flaw::Empty));
        let without = |at: usize| {
            let mut rows = chain(5);
            rows.remove(at);
            verify(&rows).map(|row| row.n)
        };
        assert_eq!(without(2), Err(Flaw::Hole { after: 2, next: 4 }));
        assert_eq!(without(0), Err(Flaw::Beginning { first: 2, last: 5, must: 1 }));
        let long = chain(KEPT + 7);
        assert_eq!(verify(&long[8..]), Err(Flaw::Beginning { first: 9, last: KEPT + 7, must: 8 }));
        assert_eq!(verify(&long), Err(Flaw::Beginning { first: 1, last: KEPT + 7, must: 8 }));
        type Change = fn(&mut Row);
        let changes: [Change; 3] =
            [|row| row.written_at += 1, |row| row.previous = vec![7], |row| row.digest = vec![7]];
        for change in changes {
            for at in 0..5 {
                let mut rows = chain(5);
                change(&mut rows[at]);
                assert!(matches!(verify(&rows), Err(Flaw::Changed(_))), "{at}");
            }
        }
        // A row that was put in anew, with a digest of its own, is not the one that the next one names.
        let mut rows = chain(5);
        rows[2].written_at += 1;
        rows[2].digest = rows[2].computed();
        assert_eq!(verify(&rows), Err(Flaw::Changed(4)));
        // Twice the same number.
        let mut rows = chain(5);
        rows[3] = rows[2].clone();
        assert_eq!(verify(&rows), Err(Flaw::Hole { after: 3, next: 3 }));
    }
}
