//! What an archive of `pg_dump` holds, by the list of `pg_restore`.

use std::collections::HashSet;

/// The lines of `pg_restore --list` that name rows of tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpList {
    /// Schema and name of each, as the list writes them, without the owner.
    lines: Vec<String>,
    starts: HashSet<String>,
}

/// Before schema and name of a table with rows.
const ROWS: &str = " TABLE DATA ";

impl DumpList {
    /// Reads a list.
    pub fn read(text: &str) -> DumpList {
        let rows = text.lines().filter(|line| !line.starts_with(';')).filter_map(|line| line.split_once(ROWS));
        let lines: Vec<String> = rows.map(|(_, names)| names.to_owned()).collect();
        // The owner stands behind the last space, unless it has spaces itself: then the line is looked through.
        let starts = lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(names, _)| names.to_owned()).collect();
        DumpList { lines, starts }
    }

    /// Whether the rows of this table are among them.
    pub fn has(&self, schema: &str, name: &str) -> bool {
        let names = format!("{} {}", listed(schema), listed(name));
        self.starts.contains(&names) || self.lines.iter().any(|line| line.starts_with(&format!("{names} ")))
    }

    /// Those that are none of `tables` (schema and name of each): schema and name as the list writes them, in one.
    pub fn others<'a>(&self, tables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
        let known = tables.into_iter().map(|(schema, name)| format!("{} {}", listed(schema), listed(name)));
        let known: HashSet<String> = known.collect();
        let is_known = |line: &&String| {
            // The owner stands behind one of the spaces.
            line.match_indices(' ').any(|(at, _)| line.get(..at).is_some_and(|names| known.contains(names)))
        };
        let others = self.lines.iter().filter(|line| !is_known(line));
        others.map(|line| line.rsplit_once(' ').map_or(line.as_str(), |(names, _)| names).to_owned()).collect()
    }

    /// How many tables have rows in it.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether no table has.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// A name as the list writes it: in one line.
fn listed(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_by_their_names_whatever_they_are_called() {
        let text = ";\n; Archive created at 2026-11-26\n;\n215; 1259 16386 TABLE public orders owner\n\
            3340; 0 16386 TABLE DATA public orders owner\n3341; 0 16390 TABLE DATA Odd.Schema two words some owner\n\
            3342; 0 16391 TABLE DATA public two lines owner\n";
        let listed = DumpList::read(text);
        let has = |schema: &str, name: &str| listed.has(schema, name);
        assert_eq!(listed.len(), 3);
        assert!(has("public", "orders") && has("Odd.Schema", "two words") && has("public", "two\nlines"));
        assert!(!has("public", "order") && !has("archive", "orders") && !has("public", "order items"));
        let others = listed.others([("Odd.Schema", "two words"), ("public", "two\nlines"), ("public", "order")]);
        assert_eq!(others, ["public orders"]);
    }
}
