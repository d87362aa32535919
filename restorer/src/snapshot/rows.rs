//! Whether the tables of a drilled snapshot have the rows that were dumped, and which of them nobody can say that of.

use super::contents::{Contents, Unread};
use super::restore::Restored;
use crate::drill::report::{Found, Outcome};

/// What is expected, in words.
pub const EXPECTED: &str = "every table has the rows that were dumped";

/// How many tables are named in a sentence.
const NAMED: usize = 3;

/// Judges what a restore counted. A table that was not counted when it was dumped is a warning, as tables of extensions and foreign ones
/// never are; where for want of that nothing at all was compared the check has not run (I12).
pub fn judge(contents: &Contents, restored: &Restored) -> Found {
    let wrong = differing(restored);
    let unread: Vec<&Unread> = contents.unread.iter().filter(|unread| unread.is_of_rows()).collect();
    let tables = unread.iter().filter(|unread| unread.is_table()).map(|unread| unread.to_string());
    let others = restored.uncounted.iter().map(|name| format!("{name}: not counted when it was dumped"));
    let uncompared: Vec<String> = tables.chain(others).collect();
    if let Some(first) = wrong.first() {
        let words = format!("{} wrong: {first}", wrong.len());
        return Found::bad(words).with([wrong, uncompared].concat());
    }
    if let Some(first) = unread.first()
        && restored.compared.is_empty()
        && restored.tables > 0
    {
        let words = format!("no table could be compared: {first}");
        return Found { outcome: Outcome::NotRun, ..Found::bad(words).with(uncompared) };
    }
    let words = format!("{} tables with {} rows", restored.compared.len(), contents.rows());
    if uncompared.is_empty() {
        return Found::good(words);
    }
    Found::odd(format!("{words}; {} tables were not compared: {}", uncompared.len(), few(&uncompared))).with(uncompared)
}

/// The first of them, and how many more there are.
fn few(all: &[String]) -> String {
    let mut words = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if let more @ 1.. = all.len().saturating_sub(NAMED) {
        words.push_str(&format!(", and {more} more"));
    }
    words
}

/// Tables that are not as they were dumped, in words.
fn differing(restored: &Restored) -> Vec<String> {
    let found = |rows: Option<u64>| rows.map_or("none that can be counted".to_owned(), |rows| rows.to_string());
    let differing = restored.differing.iter().map(|one| {
        format!(
            "{}.{}: {} rows were dumped, and there are {}",
            one.dumped.schema,
            one.dumped.name,
            one.dumped.rows,
            found(one.found)
        )
    });
    let missing = restored.missing.iter().map(|one| format!("{}.{} is not in the archive", one.schema, one.name));
    differing.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use walseal_common::postgres::programs::Program;

    use super::*;
    use crate::snapshot::contents::{Counted, UNCOUNTED};
    use crate::snapshot::counts::Differing;

    fn counted(name: &str) -> Counted {
        Counted { schema: "public".to_owned(), name: name.to_owned(), rows: 5 }
    }

    fn unread(schema: Option<&str>, name: &str) -> Unread {
        Unread { schema: schema.map(str::to_owned), name: name.to_owned(), why: "permission denied".to_owned() }
    }

    /// What a restore of an archive with the rows of `listed` tables comes to.
    fn look(counts: &[&str], unread: &[Unread], uncounted: &[&str], listed: usize) -> Found {
        let tables: Vec<Counted> = counts.iter().map(|name| counted(name)).collect();
        let contents = Contents {
            database: "shop".to_owned(),
            label: None,
            selection: Vec::new(),
            tables: tables.clone(),
            unread: unread.to_vec(),
        };
        judge(&contents, &restored(tables, uncounted, listed))
    }

    fn restored(compared: Vec<Counted>, uncounted: &[&str], tables: usize) -> Restored {
        Restored {
            database: "shop".to_owned(),
            tables,
            compared,
            uncounted: uncounted.iter().map(|name| (*name).to_owned()).collect(),
            differing: Vec::new(),
            missing: Vec::new(),
            errors: Vec::new(),
            program: Program { path: PathBuf::from("pg_restore"), version: 150_018 },
            took: Duration::ZERO,
        }
    }

    #[test]
    fn i12_tables_that_were_not_compared_are_named() {
        let found = look(&["orders"], &[unread(None, "passwords of roles")], &[], 1);
        assert_eq!((found.outcome, found.found.as_str()), (Outcome::Passed, "1 tables with 5 rows"));
        let hidden = [unread(Some("public"), "hidden")];
        let found = look(&["orders"], &hidden, &[], 2);
        assert_eq!(found.outcome, Outcome::Warned);
        assert_eq!(found.found, "1 tables with 5 rows; 1 tables were not compared: public.hidden: permission denied");
        let found = look(&["orders"], &[], &["a b", "a c", "a d", "a e", "a f"], 6);
        assert_eq!(found.outcome, Outcome::Warned);
        assert!(found.found.ends_with("a d: not counted when it was dumped, and 2 more"), "{}", found.found);
        assert_eq!(found.details.len(), 5);
    }

    #[test]
    fn i12_where_no_table_could_be_compared_the_check_has_not_run() {
        let found = look(&[], &[unread(Some("public"), "hidden")], &[], 1);
        assert_eq!(found.outcome, Outcome::NotRun);
        let found = look(&[], &[unread(None, UNCOUNTED)], &["public orders"], 1);
        assert_eq!(found.outcome, Outcome::NotRun);
        assert_eq!(found.found, "no table could be compared: rows of tables: permission denied");
        assert_eq!(found.details, ["public orders: not counted when it was dumped"]);
        // Tables of extensions alone are counted by nobody, and an archive without rows has none to compare.
        assert_eq!(look(&[], &[], &["public spatial_ref_sys"], 1).outcome, Outcome::Warned);
        assert_eq!(look(&[], &[unread(None, UNCOUNTED)], &[], 0).outcome, Outcome::Passed);
        assert_eq!(look(&[], &[], &[], 0).outcome, Outcome::Passed);
    }

    #[test]
    fn i12_what_differs_fails_whatever_else_was_not_compared() {
        let mut restored = restored(vec![counted("orders")], &["public other"], 2);
        restored.differing = vec![Differing { dumped: counted("orders"), found: Some(4), why: None }];
        restored.missing = vec![counted("lost")];
        let contents = Contents {
            database: "shop".to_owned(),
            label: None,
            selection: Vec::new(),
            tables: vec![counted("orders"), counted("lost")],
            unread: Vec::new(),
        };
        let found = judge(&contents, &restored);
        assert_eq!(found.outcome, Outcome::Failed);
        assert_eq!(found.found, "2 wrong: public.orders: 5 rows were dumped, and there are 4");
        assert_eq!(found.details.len(), 3);
    }
}
