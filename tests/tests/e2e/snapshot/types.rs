//! Whether the data set has every type that PostgreSQL brings: a newer major's test fails until what it adds is there.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use walseal_tests::session::Session;

/// Types that a column may have, and of which no value can be given: their input functions refuse all text, so that
/// PostgreSQL's own programs cannot bring a value back either.
const WITHOUT_INPUT: [&str; 7] = [
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
];

/// Every type of `pg_catalog` that a column can have: no pseudo-types, no rows of catalogs. Arrays are of some of them.
const BUILT_IN: &str = "select typname from pg_type t where typnamespace = 'pg_catalog'::regnamespace \
     and typtype in ('b', 'd', 'e', 'm', 'r') and not exists (select from pg_type of where of.typarray = t.oid)";

/// The types of columns of `every_type`, with the columns' names.
const COLUMNS: &str = "select t.typname, quote_ident(a.attname) from pg_attribute a join pg_type t on t.oid = a.atttypid \
     where a.attrelid = 'every_type'::regclass and a.attnum > 0 and not a.attisdropped";

/// Fails where a built-in type has no column, or a column no value.
pub fn ensure_every_type(shop: &Session) -> Result<()> {
    let built_in: BTreeSet<String> = shop.rows(BUILT_IN)?.into_iter().flatten().flatten().collect();
    let mut there = BTreeSet::new();
    let mut empty = BTreeSet::new();
    for column in shop.rows(COLUMNS)? {
        let [Some(of), Some(name)] = column.as_slice() else { anyhow::bail!("{column:?}") };
        if shop.value(&format!("select count({name}) from every_type"))? == "0" {
            empty.insert(of.clone());
        }
        there.insert(of.clone());
    }
    let missing: Vec<&String> = built_in.difference(&there).collect();
    ensure!(built_in.len() > 80 && missing.is_empty(), "every_type of shop.sql has no column of {missing:?}");
    ensure!(empty.iter().eq(&WITHOUT_INPUT), "types without a value: {empty:?}");
    Ok(())
}
