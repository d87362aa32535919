//! From values as they were written to typed settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::key::{self, Fallback};
use super::layers::{Entry, Layers, Raw};
use super::origin::{Origin, Setting};
use super::sections::{DrillCheck, TrustedWriter, WriterRole};
use super::special;
use super::value::{self, Wrong};
use crate::secret::Secret;

/// How long a check of a drill may take when it does not say.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);

/// How a value becomes typed.
type Parse<T> = fn(&Raw, &Origin) -> Result<T, Wrong>;

/// Gives out typed settings from the layers.
pub(super) struct Reader<'a>(pub(super) &'a Layers);

impl Reader<'_> {
    /// The setting at `path`, where somebody set it.
    pub(super) fn optional<T>(&self, path: &str, parse: Parse<T>) -> Result<Option<Setting<T>>, ConfigError> {
        let (Some(key), Some(Entry { raw, origin })) = (key::find(path), self.0.get(path)) else { return Ok(None) };
        match parse(raw, origin) {
            Ok(value) => Ok(Some(Setting::new(value, origin.clone()))),
            Err(wrong) => Err(ConfigError::Invalid { key: key.path, origin: origin.clone(), wrong }),
        }
    }

    /// The setting at `path`, or the default that the list of keys gives it.
    pub(super) fn or_default<T>(&self, path: &'static str, parse: Parse<T>) -> Result<Setting<T>, ConfigError> {
        if let Some(setting) = self.optional(path, parse)? {
            return Ok(setting);
        }
        let value = match key::find(path).map(|key| key.fallback) {
            Some(Fallback::Value(text)) => parse(&Raw::word(text), &Origin::Default),
            _ => Err(Wrong::new("has no default", "set it")),
        };
        match value {
            Ok(value) => Ok(Setting::new(value, Origin::Default)),
            Err(wrong) => Err(ConfigError::Invalid { key: path, origin: Origin::Default, wrong }),
        }
    }
}

/// "is a number, not a list"
fn mismatch(raw: &Raw, expected: &str, example: &str) -> Wrong {
    Wrong::new(format!("is {}, not {expected}", raw.describe()), format!("write it as in {example}"))
}

pub(super) fn text(raw: &Raw, _: &Origin) -> Result<String, Wrong> {
    match raw {
        Raw::Word(text) | Raw::Text(text) if text.trim().is_empty() => {
            Err(Wrong::new("is empty", "set it, or leave it out"))
        }
        Raw::Word(text) | Raw::Text(text) if text.contains('\0') => {
            Err(Wrong::new("holds a zero byte", "write it without"))
        }
        Raw::Word(text) | Raw::Text(text) => Ok(text.to_string()),
        other => Err(mismatch(other, "text", "\"text in quotes\"")),
    }
}

pub(super) fn secret(raw: &Raw, origin: &Origin) -> Result<Secret, Wrong> {
    text(raw, origin).map(Secret::new)
}

pub(super) fn path(raw: &Raw, origin: &Origin) -> Result<PathBuf, Wrong> {
    Ok(absolute(&text(raw, origin)?, origin))
}

/// Relative paths of the file start at the file's folder: `fetch` runs in a data directory and the verbs anywhere.
fn absolute(text: &str, origin: &Origin) -> PathBuf {
    let folder = match origin {
        Origin::File { path, .. } => path.parent().unwrap_or(Path::new("/")),
        _ => Path::new(""),
    };
    let joined = folder.join(text);
    // Fails only where there is no current folder; then the path is as good as it gets.
    std::path::absolute(&joined).unwrap_or(joined)
}

pub(super) fn boolean(raw: &Raw, _: &Origin) -> Result<bool, Wrong> {
    match raw {
        Raw::Boolean(value) => Ok(*value),
        Raw::Word(word) => match word.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(Wrong::new(format!("is {other:?}"), "write true or false")),
        },
        Raw::Text(_) => Err(Wrong::new("is text", "write true or false, without quotes")),
        other => Err(mismatch(other, "true or false", "true")),
    }
}

pub(super) fn number(raw: &Raw, _: &Origin) -> Result<u32, Wrong> {
    let text = match raw {
        Raw::Word(word) => word.trim(),
        Raw::Number(number) => number.as_str(),
        Raw::Text(_) => return Err(Wrong::new("is text", "write the number without quotes")),
        other => return Err(mismatch(other, "a number", "7")),
    };
    text.parse().map_err(|_| Wrong::new(format!("is {text:?}"), "write a whole number from 0 to 4294967295"))
}

pub(super) fn duration(raw: &Raw, _: &Origin) -> Result<Duration, Wrong> {
    match raw {
        Raw::Word(text) | Raw::Text(text) => value::parse_duration(text).map_err(of_value),
        Raw::Number(number) => value::parse_duration(number).map_err(of_value),
        other => Err(mismatch(other, "a duration", "\"5m\"")),
    }
}

pub(super) fn size(raw: &Raw, _: &Origin) -> Result<u64, Wrong> {
    match raw {
        Raw::Word(text) | Raw::Text(text) => value::parse_size(text).map_err(of_value),
        Raw::Number(number) => value::parse_size(number).map_err(of_value),
        other => Err(mismatch(other, "a size", "\"64MiB\"")),
    }
}

/// Puts a value's own complaint behind its key.
fn of_value(wrong: Wrong) -> Wrong {
    Wrong::new(format!("cannot be used: {}", wrong.problem), wrong.fix)
}

pub(super) fn list(raw: &Raw, origin: &Origin) -> Result<Vec<String>, Wrong> {
    match raw {
        Raw::Word(words) => {
            Ok(words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        }
        Raw::List(items) => items.iter().map(|(_, item)| text(item, origin)).collect(),
        Raw::Text(_) => Err(Wrong::new("is text, not a list", "put brackets around it, as in [\"one\", \"two\"]")),
        other => Err(mismatch(other, "a list", "[\"one\", \"two\"]")),
    }
}

pub(super) fn paths(raw: &Raw, origin: &Origin) -> Result<Vec<PathBuf>, Wrong> {
    Ok(list(raw, origin)?.iter().map(|text| absolute(text, origin)).collect())
}

pub(super) fn writers(raw: &Raw, origin: &Origin) -> Result<Vec<TrustedWriter>, Wrong> {
    let archiver = |key: String| TrustedWriter { key, roles: vec![WriterRole::Wal, WriterRole::Base] };
    match raw {
        Raw::List(items) => items
            .iter()
            .map(|(_, item)| match item {
                Raw::Table(fields) => writer(fields, origin),
                plain => text(plain, origin).map(archiver),
            })
            .collect(),
        other => Ok(list(other, origin)?.into_iter().map(archiver).collect()),
    }
}

fn writer(fields: &[(String, usize, Raw)], origin: &Origin) -> Result<TrustedWriter, Wrong> {
    let example = "write { key = \"walsealw1…\", roles = [\"drill\"] }";
    let (mut key, mut roles) = (None, None);
    for (name, line, value) in fields {
        match name.as_str() {
            "key" => key = Some(text(value, origin)?),
            "roles" => roles = Some(list(value, origin)?),
            other => return Err(Wrong::new(format!("has an unknown {other:?} in line {line}"), example)),
        }
    }
    let (Some(key), Some(roles)) = (key, roles) else {
        return Err(Wrong::new("has a table without key and roles", example));
    };
    let role = |word: &String| match word.as_str() {
        "wal" => Ok(WriterRole::Wal),
        "base" => Ok(WriterRole::Base),
        "drill" => Ok(WriterRole::Drill),
        other => Err(Wrong::new(format!("gives {key} the role {other:?}"), "roles are wal, base and drill")),
    };
    let roles = roles.iter().map(role).collect::<Result<Vec<_>, _>>()?;
    if roles.is_empty() {
        return Err(Wrong::new(format!("gives {key} no role"), "roles are wal, base and drill"));
    }
    Ok(TrustedWriter { key, roles })
}

pub(super) fn checks(raw: &Raw, origin: &Origin) -> Result<Vec<DrillCheck>, Wrong> {
    let example =
        "each check has name, database, sql and expect, all in quotes, and may have tolerance, timeout and on_failure";
    let Raw::List(items) = raw else { return Err(mismatch(raw, "an array of tables", "[[drill.checks]]")) };
    let mut checks = Vec::new();
    for (line, item) in items {
        let Raw::Table(fields) = item else {
            return Err(Wrong::new(format!("holds no table in line {line}"), example));
        };
        let known = ["name", "database", "sql", "expect", "tolerance", "timeout", "on_failure"];
        if let Some((name, line, _)) = fields.iter().find(|(name, ..)| !known.contains(&name.as_str())) {
            return Err(Wrong::new(format!("has an unknown {name:?} in line {line}"), example));
        }
        let given = |wanted: &str| fields.iter().find(|(name, ..)| name == wanted).map(|(_, _, value)| value);
        let field = |wanted: &str| match given(wanted) {
            Some(value) => text(value, origin),
            None => Err(Wrong::new(format!("has no {wanted} in line {line}"), example)),
        };
        checks.push(DrillCheck {
            name: field("name")?,
            database: field("database")?,
            sql: field("sql")?,
            expect: field("expect")?,
            tolerance: given("tolerance").map(|value| special::tolerance(value, origin)).transpose()?,
            fails: given("on_failure").map_or(Ok(true), |value| special::check_fails(value, origin))?,
            timeout: given("timeout").map_or(Ok(CHECK_TIMEOUT), |value| duration(value, origin))?,
        });
    }
    Ok(checks)
}
