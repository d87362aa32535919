//! Tables and their rows, against the drill before.

use std::collections::BTreeMap;

use walseal_common::config::{Count, DrillConfig};
use walseal_common::postgres::{PostgresError, SqlClient};

use super::{databases, text};
use crate::drill::report::{Counted, Found, TableRows};
use crate::instance::Instance;

/// Every table that a backup brings back: not those of the system, not temporary ones. The canary is pruned, and has a check of its
/// own.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname), c.relpersistence::text, pg_table_size(c.oid)::text, \
     c.reltuples::float8::text \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind in ('r', 'm') and c.relpersistence <> 't' and c.relispopulated \
     and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' \
     and (n.nspname, c.relname) <> ('walseal', 'canary') order by 1";

/// What was counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Those with their rows.
    pub counted: Vec<TableRows>,
    /// Unlogged ones (case 32).
    pub unlogged: Vec<String>,
}

/// Counts the rows of all tables of all databases.
///
/// Errors: the server's; a table that cannot be read.
pub async fn count(instance: &Instance, client: &SqlClient, config: &DrillConfig) -> Result<Tables, PostgresError> {
    let mut tables = Tables::default();
    for database in databases(client).await? {
        let client = instance.connect(&config.user.value, &database).await?;
        for row in client.query("listing tables failed", TABLES, &[]).await? {
            let (table, persistence) = (text(&row, 0)?, text(&row, 1)?);
            if persistence == "u" {
                tables.unlogged.push(format!("{database}: {table}"));
                continue;
            }
            let bytes: u64 = text(&row, 2)?.parse().unwrap_or(0);
            let guess: f64 = text(&row, 3)?.parse().unwrap_or(-1.0);
            let (rows, counted) = rows(&client, &table, bytes, guess, config).await?;
            tables.counted.push(TableRows { database: database.clone(), table, bytes, rows, counted });
        }
    }
    Ok(tables)
}

async fn rows(
    client: &SqlClient,
    table: &str,
    bytes: u64,
    guess: f64,
    config: &DrillConfig,
) -> Result<(u64, Counted), PostgresError> {
    let is_large = bytes > config.count_above.value;
    if is_large && config.count.value == Count::Estimate && guess >= 0.0 {
        return Ok((guess.round() as u64, Counted::Estimate));
    }
    // As much of a large table is read as a small one has at most; the same pages each time.
    let percent = (config.count_above.value as f64 / bytes.max(1) as f64 * 100.0).clamp(0.01, 100.0);
    let sampled = is_large && config.count.value == Count::Sample;
    let part = if sampled { format!(" tablesample system ({percent}) repeatable (0)") } else { String::new() };
    let sql = format!("select count(*)::text from only {table}{part}");
    let row = client.query_one(&format!("counting the rows of {table} failed"), &sql, &[]).await?;
    let rows: u64 = text(&row, 0)?.parse().unwrap_or(0);
    if sampled {
        Ok(((rows as f64 * 100.0 / percent).round() as u64, Counted::Sample))
    } else {
        Ok((rows, Counted::All))
    }
}

/// What is expected, in words.
pub fn expected(config: &DrillConfig, before: Option<&[TableRows]>) -> String {
    match before {
        None => "every table can be read".to_owned(),
        Some(before) => format!(
            "every table can be read; of {} in the drill before none is gone or has lost more than {}% of its rows",
            before.len(),
            config.shrink.value
        ),
    }
}

/// Compares with the drill before, where there is one to compare with.
pub fn judge(tables: &Tables, before: Option<&[TableRows]>, config: &DrillConfig) -> Found {
    let total: u64 = tables.counted.iter().map(|table| table.rows).sum();
    let mut words = format!("{total} rows in {} tables", tables.counted.len());
    let mut details: Vec<String> = tables
        .unlogged
        .iter()
        .map(|table| format!("not counted, because it is unlogged and comes back empty: {table}"))
        .collect();
    let Some(before) = before else {
        return Found::good(format!("{words}; there is no drill before to compare with")).with(details);
    };
    let now: BTreeMap<(&str, &str), u64> =
        tables.counted.iter().map(|table| ((table.database.as_str(), table.table.as_str()), table.rows)).collect();
    let shrunk: Vec<String> = before.iter().filter_map(|was| shrinks(was, &now, config.shrink.value)).collect();
    let Some(first) = shrunk.first() else { return Found::good(words).with(details) };
    words = format!(
        "{first}{}; {words}",
        if shrunk.len() > 1 { format!(" and {} more", shrunk.len() - 1) } else { String::new() }
    );
    details.splice(0..0, shrunk);
    let found = if config.shrinking_fails.value { Found::bad(words) } else { Found::odd(words) };
    found.with(details)
}

/// What became of a table, where that is too little.
fn shrinks(was: &TableRows, now: &BTreeMap<(&str, &str), u64>, percent: u32) -> Option<String> {
    let name = format!("{}: {}", was.database, was.table);
    let Some(rows) = now.get(&(was.database.as_str(), was.table.as_str())) else {
        return Some(format!("{name} is gone; it had {} rows", was.rows));
    };
    let lost = was.rows.saturating_sub(*rows);
    let too_many = u128::from(lost) * 100 > u128::from(was.rows) * u128::from(percent);
    too_many.then(|| format!("{name} has {rows} rows; it had {}", was.rows))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::config::Config;

    use super::*;
    use crate::drill::report::Outcome;

    fn table(name: &str, rows: u64) -> TableRows {
        TableRows { database: "shop".to_owned(), table: name.to_owned(), bytes: 8192, rows, counted: Counted::All }
    }

    fn judged(now: &[TableRows], before: &[TableRows], config: &str) -> Found {
        let config = Config::from_toml(config).expect("a configuration").drill;
        judge(&Tables { counted: now.to_vec(), unlogged: Vec::new() }, Some(before), &config)
    }

    #[test]
    fn a_table_that_shrank_or_vanished_fails_or_warns_by_rule() {
        let before = [table("public.orders", 100), table("public.empty", 0)];
        let outcome =
            |rows, config| judged(&[table("public.orders", rows), table("public.empty", 0)], &before, config).outcome;
        assert_eq!(
            (outcome(50, ""), outcome(49, ""), outcome(1000, "")),
            (Outcome::Passed, Outcome::Failed, Outcome::Passed)
        );
        assert_eq!(outcome(99, "[drill]\nshrink = 0"), Outcome::Failed);
        assert_eq!(outcome(49, "[drill]\non_shrink = \"warn\""), Outcome::Warned);
        assert_eq!(outcome(0, "[drill]\nshrink = 100"), Outcome::Passed);
        let gone = judged(&[table("public.orders", 100)], &before, "[drill]\nshrink = 100");
        assert_eq!(gone.outcome, Outcome::Failed);
        assert!(gone.found.starts_with("shop: public.empty is gone"), "{gone:?}");
    }
}
