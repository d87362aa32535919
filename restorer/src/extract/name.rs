//! Names of tables, read and written as SQL does.

use std::fmt;
use std::str::FromStr;

/// A table by schema and name, as the catalogs have them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its own name.
    pub name: String,
}

/// A table of a database: `shop.public.orders`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QualifiedTable {
    /// The database.
    pub database: String,
    /// The table in it.
    pub table: TableName,
}

/// Text that names no table of a database.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0}; write DATABASE.SCHEMA.TABLE, as in shop.public.orders; what has capitals, dots or spaces in double quotes: 'shop.public.\"Odd.Name\"'"
)]
pub struct NameError(String);

impl TableName {
    /// A pattern of `pg_dump --table` that this table fits, and no other.
    pub fn pattern(&self) -> String {
        // In quotes nothing else has a meaning (processSQLNamePattern, string_utils.c).
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// As SQL would have it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

impl fmt::Display for QualifiedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", identifier(&self.database), self.table)
    }
}

impl FromStr for QualifiedTable {
    type Err = NameError;

    /// Reads three identifiers with dots between. Without quotes they are folded to lower case, as PostgreSQL does.
    fn from_str(text: &str) -> Result<QualifiedTable, NameError> {
        let wrong = |why: &str| NameError(format!("{text} {why}"));
        let parts = split(text).ok_or_else(|| wrong("has a quote that does not end, or something beside one"))?;
        let [database, schema, name] = <[String; 3]>::try_from(parts).map_err(|parts| match parts.len() {
            0..=2 => wrong("does not name database, schema and table"),
            _ => wrong("has too many dots"),
        })?;
        if [&database, &schema, &name].iter().any(|part| part.is_empty()) {
            return Err(wrong("has an empty name in it"));
        }
        Ok(QualifiedTable { database, table: TableName { schema, name } })
    }
}

/// The identifiers between the dots; `None` where quotes are wrong.
fn split(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (part, behind) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                if part.contains('"') {
                    return None;
                }
                // PostgreSQL folds ASCII alone in a UTF-8 database (downcase_identifier, scansup.c).
                (part.to_ascii_lowercase(), behind)
            }
        };
        parts.push(part);
        if behind.is_empty() {
            return Some(parts);
        }
        rest = behind.strip_prefix('.')?;
    }
}

/// Reads up to the closing quote: what is quoted, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        part.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                part.push('"');
                rest = more;
            }
            None => return Some((part, behind)),
        }
    }
}

/// A name as an identifier: quoted where it has to be.
pub fn identifier(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { quote(name) }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> Result<(String, String, String), String> {
        let read: QualifiedTable = text.parse().map_err(|error: NameError| error.to_string())?;
        Ok((read.database, read.table.schema, read.table.name))
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let expected = |database: &str, schema: &str, name: &str| Ok((database.into(), schema.into(), name.into()));
        assert_eq!(table("shop.public.orders"), expected("shop", "public", "orders"));
        assert_eq!(table("Shop.Public.Orders"), expected("shop", "public", "orders"));
        assert_eq!(table(r#"shop.public."Odd.Name""#), expected("shop", "public", "Odd.Name"));
        assert_eq!(table(r#""a ""b""".Äpfel.x"#), expected("a \"b\"", "Äpfel", "x"));
        for (wrong, why) in [
            ("orders", "does not name database, schema and table"),
            ("public.orders", "does not name database, schema and table"),
            ("a.b.c.d", "too many dots"),
            ("shop..orders", "an empty name"),
            ("", "does not name"),
            (r#"shop.public."orders"#, "a quote that does not end"),
            (r#"shop.public."orders"x"#, "something beside one"),
            (r#"shop.public.or"ders"#, "something beside one"),
        ] {
            let error = table(wrong).expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_pattern_of_pg_dump_is_quoted_whole() {
        let odd = TableName { schema: "public".to_owned(), name: "a*\"b.C".to_owned() };
        assert_eq!(odd.pattern(), r#""public"."a*""b.C""#);
        assert_eq!(odd.to_string(), r#"public."a*""b.C""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(database in ".{1,8}", schema in ".{1,8}", name in ".{1,8}") {
            let written = QualifiedTable { database, table: TableName { schema, name } };
            prop_assert_eq!(written.to_string().parse::<QualifiedTable>(), Ok(written));
        }

        #[test]
        fn nothing_panics(text in ".{0,20}") {
            let _ = text.parse::<QualifiedTable>();
        }
    }
}
