//! Tables for people.

use std::io::IsTerminal;

use comfy_table::{CellAlignment, presets};

use super::printable;

/// How a table looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Columns apart by two spaces, for pipes and files.
    Plain,
    /// With a line below the header, for terminals.
    Ruled,
}

impl Look {
    /// Ruled where standard output is a terminal.
    pub fn of_stdout() -> Look {
        if std::io::stdout().is_terminal() { Look::Ruled } else { Look::Plain }
    }
}

/// On which side a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new<const N: usize>(columns: [(&'static str, Align); N]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing stay empty; those beyond the last column are not shown.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let mut row: Vec<String> = cells.into_iter().take(self.columns.len()).map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, without spaces at their ends and without a line end after the last.
    pub fn render(&self, look: Look) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.columns.iter().map(|(name, _)| *name));
        for row in &self.rows {
            // A cell is one line, whatever a name in it holds.
            table.add_row(row.iter().map(|cell| printable(cell).replace(['\n', '\t'], " ")));
        }
        for (index, (_, align)) in self.columns.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                column.set_cell_alignment(match align {
                    Align::Left => CellAlignment::Left,
                    Align::Right => CellAlignment::Right,
                });
            }
        }
        let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        if look == Look::Ruled && !lines.is_empty() {
            let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            lines.insert(1, "─".repeat(width));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn table() -> Table {
        let mut table = Table::new([("base", Align::Left), ("size", Align::Right), ("proven", Align::Left)]);
        table.row(["20261121T023000Z", "1.2 GiB", "6 h ago"]);
        table.row(["20261122T023000Z-with-a-long-name", "340 MiB", ""]);
        table.row(["a\nb\u{1b}[2J"]);
        table
    }

    #[test]
    fn a_plain_table_has_columns_and_no_borders() {
        assert_snapshot!(table().render(Look::Plain), @r#"
base                                  size  proven
20261121T023000Z                   1.2 GiB  6 h ago
20261122T023000Z-with-a-long-name  340 MiB
a b\u{1b}[2J
"#);
    }

    #[test]
    fn a_ruled_table_has_a_line_below_its_header() {
        assert_snapshot!(table().render(Look::Ruled), @r#"
base                                  size  proven
───────────────────────────────────────────────────
20261121T023000Z                   1.2 GiB  6 h ago
20261122T023000Z-with-a-long-name  340 MiB
a b\u{1b}[2J
"#);
    }
}
