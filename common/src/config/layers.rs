//! Values as they were written, and which of them wins.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::key::Key;
use super::origin::Origin;

/// A value as it was written, before its key gives it a type. No `Debug`: it may be a secret.
pub(super) enum Raw {
    /// Text of a flag or a variable, of whatever type.
    Word(Zeroizing<String>),
    /// Quoted text of the file.
    Text(Zeroizing<String>),
    /// A number of the file, as written; fractions too.
    Number(String),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// A date or time of the file: no key takes one.
    Date,
    /// A list of the file, with the line of each element.
    List(Vec<(usize, Raw)>),
    /// A table of the file: names, lines and values.
    Table(Vec<(String, usize, Raw)>),
}

impl Raw {
    pub(super) fn word(text: &str) -> Raw {
        Raw::Word(Zeroizing::new(text.to_owned()))
    }

    /// What it is, for "is a number".
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Raw::Word(_) | Raw::Text(_) => "text",
            Raw::Number(_) => "a number",
            Raw::Boolean(_) => "true or false",
            Raw::Date => "a date",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
        }
    }
}

/// A value and who set it.
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// All values that were set, by their key; layers are added from the strongest to the weakest.
#[derive(Default)]
pub(super) struct Layers(BTreeMap<&'static str, Entry>);

impl Layers {
    /// Adds a value, unless a stronger layer has set the key.
    pub(super) fn add(&mut self, key: &'static Key, raw: Raw, origin: Origin) {
        self.0.entry(key.path).or_insert(Entry { raw, origin });
    }

    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}
