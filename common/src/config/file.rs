//! The configuration file.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::error::ConfigError;
use super::key::{self, KEYS, Kind};
use super::layers::{Layers, Raw};
use super::origin::Origin;
use super::reader;
use super::sections::DrillCheck;
use crate::nearest;

/// Adds every key of a configuration file's text to `layers`.
///
/// Errors: the text is no TOML; a key or table that nobody knows, naming the first of them.
pub(super) fn read(text: &str, path: &Path, layers: &mut Layers) -> Result<(), ConfigError> {
    let document = parse(text, path)?;
    let mut reader = FileReader { text, path, layers, unknown: Vec::new() };
    reader.table("", document.get_ref());
    // In the order of the file, whatever the order of the map.
    match reader.unknown.into_iter().min_by_key(|(line, _)| *line) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The checks in a file of their own: `[[checks]]`, and nothing else.
///
/// Errors: the text is no TOML; another key; a check that is none.
pub(super) fn read_checks(text: &str, path: &Path) -> Result<Vec<DrillCheck>, ConfigError> {
    let document = parse(text, path)?;
    // Only what reads single values is asked of it.
    let reader = FileReader { text, path, layers: &mut Layers::default(), unknown: Vec::new() };
    let mut checks = Vec::new();
    for (name, value) in document.get_ref() {
        let line = line_of(text, name.span().start);
        let origin = Origin::File { path: path.to_owned(), line };
        if name.get_ref() != "checks" {
            let (name, fix) = (name.get_ref().to_string(), "the file holds [[checks]] and nothing else".to_owned());
            return Err(ConfigError::Unknown { origin, what: "key", name, fix });
        }
        let read = reader::checks(&reader.raw(value), &origin);
        checks = read.map_err(|wrong| ConfigError::Invalid { key: "drill.checks_file", origin, wrong })?;
    }
    Ok(checks)
}

fn parse<'a>(text: &'a str, path: &Path) -> Result<Spanned<DeTable<'a>>, ConfigError> {
    DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        // The message alone: the whole error would quote the line, which may hold a secret.
        reason: error.message().lines().collect::<Vec<_>>().join(", "),
    })
}

/// The line, counted from 1, that the byte at `offset` lies in.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

struct FileReader<'a> {
    text: &'a str,
    path: &'a Path,
    layers: &'a mut Layers,
    unknown: Vec<(usize, ConfigError)>,
}

impl FileReader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let full =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let line = line_of(self.text, name.span().start);
            if let Some(key) = key::find(&full) {
                let origin = Origin::File { path: self.path.to_owned(), line };
                self.layers.add(key, self.raw(value), origin);
            } else if let (true, DeValue::Table(inner)) = (key::is_table(&full), value.get_ref()) {
                self.table(&full, inner);
            } else {
                let is_table = matches!(value.get_ref(), DeValue::Table(_));
                self.unknown.push((line, self.unknown_key(full, line, is_table)));
            }
        }
    }

    fn raw(&self, value: &Spanned<DeValue<'_>>) -> Raw {
        match value.get_ref() {
            DeValue::String(text) => Raw::Text(Zeroizing::new(text.to_string())),
            DeValue::Integer(number) => Raw::Number(number.to_string()),
            DeValue::Float(number) => Raw::Number(number.to_string()),
            DeValue::Boolean(value) => Raw::Boolean(*value),
            DeValue::Datetime(_) => Raw::Date,
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| (line_of(self.text, item.span().start), self.raw(item))).collect())
            }
            DeValue::Table(table) => {
                let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let name: &Spanned<std::borrow::Cow<'_, str>> = name;
                    (name.get_ref().to_string(), line_of(self.text, name.span().start), self.raw(value))
                };
                Raw::Table(table.iter().map(entry).collect())
            }
        }
    }

    fn unknown_key(&self, name: String, line: usize, is_table: bool) -> ConfigError {
        let origin = Origin::File { path: self.path.to_owned(), line };
        if key::is_table(&name) {
            let fix = format!("{name} is a table: write [{name}] on a line of its own, and its keys below");
            return ConfigError::Unknown { origin, what: "key", name, fix };
        }
        let what = if is_table { "table" } else { "key" };
        let fix = nearest_key(&name, is_table);
        ConfigError::Unknown { origin, what, name, fix }
    }
}

/// What to write instead of an unknown key.
fn nearest_key(name: &str, is_table: bool) -> String {
    if is_table {
        let mut tables: Vec<&str> = KEYS.iter().map(key::Key::table).filter(|table| !table.is_empty()).collect();
        tables.extend(KEYS.iter().filter(|key| matches!(key.kind, Kind::Tables)).map(|key| key.path));
        tables.dedup();
        return match nearest::of(name, tables.iter().copied()) {
            Some(near) => format!("use the nearest known one, [{near}], or take it out"),
            None => format!("known tables are {}", tables.join(", ")),
        };
    }
    let (table, own) = name.rsplit_once('.').unwrap_or(("", name));
    // The same table first: a typing error is likelier than a key in the wrong place.
    let siblings = || KEYS.iter().filter(|key| key.table() == table);
    let near =
        nearest::of(own, siblings().map(key::Key::name)).and_then(|near| siblings().find(|key| key.name() == near));
    let elsewhere = || KEYS.iter().find(|key| key.name() == own);
    let anywhere = || nearest::of(name, KEYS.iter().map(|key| key.path)).and_then(key::find);
    match near.or_else(elsewhere).or_else(anywhere) {
        Some(key) => format!("use the nearest known one, {}, or take it out", key.path),
        None if siblings().next().is_some() => {
            let names: Vec<&str> = siblings().map(key::Key::name).collect();
            let place = if table.is_empty() { "at the top".to_owned() } else { format!("under [{table}]") };
            format!("known keys {place} are {}", names.join(", "))
        }
        None => "see docs/CONFIGURATION.md for the known ones".to_owned(),
    }
}
