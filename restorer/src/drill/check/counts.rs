//! Tables and their rows, against the drill before and against what production had.

use std::collections::{BTreeMap, BTreeSet};

use walseal_common::config::{Count, DrillConfig};
use walseal_common::lsn::LsnRange;
use walseal_common::postgres::{PostgresError, SqlClient};
use walseal_common::repository::{BaseId, NameEntry, RepositoryError};

use super::{databases, text};
use crate::access::Access;
use crate::drill::report::{Counted, Found, TableRows};
use crate::instance::Instance;

/// Every table that a backup brings back: not those of the system, not temporary ones. The canary is pruned, and has a check of its
/// own.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname), c.relpersistence::text, pg_table_size(c.oid)::text, \
     c.reltuples::float8::text, n.nspname::text, c.relname::text \
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
    /// Rows by database, schema and name, as they are called and not as SQL writes them.
    pub by_name: BTreeMap<TableName, u64>,
    /// The unlogged ones, called likewise.
    pub unlogged_names: BTreeSet<TableName>,
}

/// Database, schema and name.
pub type TableName = (String, String, String);

/// Fewer rows say too little: production's statistics are estimates.
const ENOUGH: u64 = 1000;

/// What the server had by its own statistics when the base backup was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Production {
    /// Between these positions.
    pub at: LsnRange,
    /// Tables with at least [`ENOUGH`] rows.
    pub tables: BTreeMap<TableName, u64>,
}

impl Production {
    /// From the names that a base backup carries; `None` where they do not say anything about rows.
    ///
    /// Errors: the store's; a page, or the label, that cannot be read.
    pub async fn of(access: &Access, base: &BaseId) -> Result<Option<Production>, RepositoryError> {
        let label = access.repository.label(base).await?;
        let mut entries = Vec::new();
        for page in &label.names {
            entries.extend(access.repository.attachment::<NameEntry>(page, &access.identities).await?);
        }
        Ok(Production::told(LsnRange { start: label.start, end: label.stop }, entries))
    }

    fn told(at: LsnRange, entries: Vec<NameEntry>) -> Option<Production> {
        let (mut databases, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for entry in entries {
            match entry {
                NameEntry::Database { oid, name, .. } => drop(databases.insert(oid, name)),
                NameEntry::Relation { database, schema, name, rows: Some(rows), .. } if rows >= ENOUGH => {
                    if let Some(database) = databases.get(&database).filter(|_| is_counted(&schema, &name)) {
                        tables.insert((database.clone(), schema, name), rows);
                    }
                }
                _ => {}
            }
        }
        (!tables.is_empty()).then_some(Production { at, tables })
    }

    /// Tables that came back with too little of it, in words.
    fn missed(&self, tables: &Tables, percent: u32) -> Vec<String> {
        let shrunk = self.tables.iter().filter_map(|((database, schema, name), was)| {
            let table = format!("{database}: {schema}.{name}");
            if tables.unlogged_names.contains(&(database.clone(), schema.clone(), name.clone())) {
                return None;
            }
            let rows = tables.by_name.get(&(database.clone(), schema.clone(), name.clone())).copied();
            let said = format!("production had about {was} at {}", self.at.end);
            match rows {
                None => Some(format!("{table} is gone; {said}")),
                Some(rows) => lost_too_much(*was, rows, percent).then(|| format!("{table} has {rows} rows; {said}")),
            }
        });
        shrunk.collect()
    }
}

/// Whether [`TABLES`] has tables of this name.
fn is_counted(schema: &str, name: &str) -> bool {
    schema != "information_schema" && !schema.starts_with("pg_") && (schema, name) != ("walseal", "canary")
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
            let name = (database.clone(), text(&row, 4)?, text(&row, 5)?);
            if persistence == "u" {
                tables.unlogged_names.insert(name);
                tables.unlogged.push(format!("{database}: {table}"));
                continue;
            }
            let bytes: u64 = text(&row, 2)?.parse().unwrap_or(0);
            let guess: f64 = text(&row, 3)?.parse().unwrap_or(-1.0);
            let (rows, counted) = rows(&client, &table, bytes, guess, config).await?;
            tables.by_name.insert(name, rows);
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
pub fn expected(config: &DrillConfig, before: Option<&[TableRows]>, production: Option<&Production>) -> String {
    let mut sources = Vec::new();
    sources.extend(before.map(|before| format!("{} in the drill before", before.len())));
    sources.extend(production.map(|there| {
        format!("{} that had {ENOUGH} rows or more in production at {}", there.tables.len(), there.at.end)
    }));
    if sources.is_empty() {
        return "every table can be read".to_owned();
    }
    format!(
        "every table can be read; of {} none is gone or has lost more than {}% of its rows",
        sources.join(", and of "),
        config.shrink.value
    )
}

/// Compares with the drill before, and with production, as far as there is something to compare with.
pub fn judge(
    tables: &Tables,
    before: Option<&[TableRows]>,
    production: Option<&Production>,
    config: &DrillConfig,
) -> Found {
    let total: u64 = tables.counted.iter().map(|table| table.rows).sum();
    let mut words = format!("{total} rows in {} tables", tables.counted.len());
    let mut details: Vec<String> = tables
        .unlogged
        .iter()
        .map(|table| format!("not counted, because it is unlogged and comes back empty: {table}"))
        .collect();
    if before.is_none() && production.is_none() {
        return Found::good(format!("{words}; there is no drill before to compare with")).with(details);
    }
    let now: BTreeMap<(&str, &str), u64> =
        tables.counted.iter().map(|table| ((table.database.as_str(), table.table.as_str()), table.rows)).collect();
    let percent = config.shrink.value;
    let mut shrunk: Vec<String> =
        before.unwrap_or_default().iter().filter_map(|was| shrinks(was, &now, percent)).collect();
    shrunk.extend(production.map(|there| there.missed(tables, percent)).unwrap_or_default());
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
    lost_too_much(was.rows, *rows, percent).then(|| format!("{name} has {rows} rows; it had {}", was.rows))
}

fn lost_too_much(was: u64, rows: u64, percent: u32) -> bool {
    u128::from(was.saturating_sub(rows)) * 100 > u128::from(was) * u128::from(percent)
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
        judge(&Tables { counted: now.to_vec(), ..Tables::default() }, Some(before), None, &config)
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

    #[test]
    fn what_production_had_when_the_backup_was_taken_counts_where_it_says_enough() {
        let relation = |name: &str, schema: &str, rows| NameEntry::Relation {
            database: 5,
            oid: 16_384,
            filenode: 16_384,
            tablespace: 1663,
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind: "r".to_owned(),
            table: None,
            rows,
        };
        let entries = vec![
            NameEntry::Database { oid: 5, name: "shop".to_owned(), tablespace: 1663 },
            relation("Orders", "public", Some(10_000)),
            relation("small", "public", Some(999)),
            relation("unknown", "public", None),
            relation("pg_class", "pg_catalog", Some(5000)),
            relation("canary", "walseal", Some(5000)),
            relation("sessions", "public", Some(5000)),
        ];
        let at = LsnRange { start: walseal_common::lsn::Lsn(1), end: walseal_common::lsn::Lsn(0x200_0000) };
        let production = Production::told(at, entries).expect("something to say");
        let name = |name: &str| ("shop".to_owned(), "public".to_owned(), name.to_owned());
        let config = Config::from_toml("").expect("a configuration").drill;
        let judged = |rows| {
            let by_name = BTreeMap::from([(name("Orders"), rows)]);
            let unlogged_names = BTreeSet::from([name("sessions")]);
            let tables = Tables { by_name, unlogged_names, ..Tables::default() };
            judge(&tables, None, Some(&production), &config)
        };
        assert_eq!(judged(5000).outcome, Outcome::Passed);
        let shrunk = judged(4999);
        assert_eq!(shrunk.outcome, Outcome::Failed);
        let words = "shop: public.Orders has 4999 rows; production had about 10000 at 0/2000000";
        assert!(shrunk.found.starts_with(words), "{shrunk:?}");
        assert!(
            expected(&config, None, Some(&production))
                .contains("of 2 that had 1000 rows or more in production at 0/2000000")
        );
        assert_eq!(Production::told(at, Vec::new()), None);
    }
}
