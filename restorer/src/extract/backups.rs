//! What base backups tell of names, without being restored: whether a table was there when one was taken.

use std::collections::BTreeSet;

use walseal_common::nearest;
use walseal_common::repository::{BaseId, Label, NameEntry, RepositoryError};
use walseal_common::time::PgTimestamp;

use super::{Part, TableName};
use crate::access::Access;
use crate::plan::Plan;

/// Base backups that are asked on each side: a person waits.
const MOST_ASKED: usize = 32;

/// Names that are told of as similar.
pub(super) const MOST_SIMILAR: usize = 3;

/// What of a part is not to be found, and what might have been meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lacking {
    /// The database or table, as SQL writes it.
    pub what: String,
    /// Names of the same kind that look like it, the nearest first.
    pub similar: Vec<String>,
}

/// A base backup in which something is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Which.
    pub id: BaseId,
    /// When it was complete.
    pub complete: PgTimestamp,
}

/// The names of one database, as a base backup has them: only relations that have files.
struct Names {
    databases: Vec<String>,
    tables: BTreeSet<TableName>,
}

/// What of `part` the base backup of the plan does not list. Empty where it lists all, or lists no names.
///
/// Errors: the store's.
pub async fn lacking(access: &Access, plan: &Plan, part: &Part) -> Result<Vec<Lacking>, RepositoryError> {
    let label = access.repository.label(&plan.base.id).await?;
    let Some(names) = names(access, &label, part.database()).await? else { return Ok(Vec::new()) };
    Ok(part.lacking_in(&names.databases, &names.tables))
}

/// The base backups nearest to the plan's in which all of `part` is: one before it, and one after the target.
///
/// Errors: the store's.
pub async fn sightings(
    access: &Access,
    plan: &Plan,
    part: &Part,
) -> Result<(Option<Sighting>, Option<Sighting>), RepositoryError> {
    let ids = access.repository.base_ids().await?;
    let before = ids.iter().rev().filter(|id| **id < plan.base.id).take(MOST_ASKED);
    let after = ids.iter().filter(|id| **id > plan.base.id).take(MOST_ASKED);
    let mut found = (None, None);
    for id in before {
        found.0 = sighting(access, id, part, |_| true).await?;
        if found.0.is_some() {
            break;
        }
    }
    for id in after {
        found.1 = sighting(access, id, part, |label| label.start >= plan.stop).await?;
        if found.1.is_some() {
            break;
        }
    }
    Ok(found)
}

async fn sighting(
    access: &Access,
    id: &BaseId,
    part: &Part,
    counts: impl Fn(&Label) -> bool,
) -> Result<Option<Sighting>, RepositoryError> {
    let label = match access.repository.label(id).await {
        Ok(label) if counts(&label) => label,
        Ok(_) => return Ok(None),
        // One that cannot be read is no place to look for anything.
        Err(error) if error.is_permanent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(names) = names(access, &label, part.database()).await? else { return Ok(None) };
    let complete = PgTimestamp::from_jiff(label.stop_time);
    Ok(part.lacking_in(&names.databases, &names.tables).is_empty().then(|| Sighting { id: id.clone(), complete }))
}

/// The names that the backup has of `database`; `None` where it has not all of them.
async fn names(access: &Access, label: &Label, database: &str) -> Result<Option<Names>, RepositoryError> {
    let mut names = Names { databases: Vec::new(), tables: BTreeSet::new() };
    let mut wanted = None;
    for page in &label.names {
        let entries = match access.repository.attachment::<NameEntry>(page, &access.identities).await {
            Ok(entries) => entries,
            // Nothing depends on it.
            Err(error) if error.is_permanent() => {
                tracing::debug!(%error, "names of a base backup cannot be read");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            match entry {
                // All of them come before any relation (FORMAT.md, section 6).
                NameEntry::Database { oid, name, .. } => {
                    wanted = wanted.or((name == database).then_some(oid));
                    names.databases.push(name);
                }
                NameEntry::Relation { database, schema, name, kind, .. } if Some(database) == wanted => {
                    if matches!(kind.as_str(), "r" | "m" | "S") {
                        names.tables.insert(TableName { schema, name });
                    }
                }
                NameEntry::Relation { .. } => {}
                NameEntry::Unread { database: unread, .. } => {
                    if unread.is_none_or(|unread| unread == database) {
                        return Ok(None);
                    }
                }
            }
        }
    }
    Ok((!names.databases.is_empty()).then_some(names))
}

impl Part {
    /// What of this part is in neither list.
    pub(super) fn lacking_in(&self, databases: &[String], tables: &BTreeSet<TableName>) -> Vec<Lacking> {
        let database = self.database();
        if !databases.iter().any(|name| name == database) {
            let similar = nearest::several(database, databases.iter().map(String::as_str), MOST_SIMILAR);
            let similar = similar.into_iter().map(str::to_owned).collect();
            return vec![Lacking { what: format!("database {}", super::name::identifier(database)), similar }];
        }
        let wanted = self.tables().iter().filter(|table| !tables.contains(table));
        wanted
            .map(|table| Lacking { what: format!("table {}", self.shown(table)), similar: self.similar(table, tables) })
            .collect()
    }

    /// Tables that may have been meant, by their own names: in the schema that was named first.
    fn similar(&self, wanted: &TableName, tables: &BTreeSet<TableName>) -> Vec<String> {
        let same = |table: &&TableName| table.name.eq_ignore_ascii_case(&wanted.name);
        let mut similar: Vec<&TableName> = tables.iter().filter(same).collect();
        for name in nearest::several(&wanted.name, tables.iter().map(|table| table.name.as_str()), MOST_SIMILAR) {
            similar.extend(tables.iter().filter(|table| table.name == name && !same(table)));
        }
        similar.sort_by_key(|table| table.schema != wanted.schema);
        similar.truncate(MOST_SIMILAR);
        similar.into_iter().map(|table| self.shown(table)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_answered_with_what_may_have_been_meant() {
        let table = |schema: &str, name: &str| TableName { schema: schema.to_owned(), name: name.to_owned() };
        let tables: BTreeSet<TableName> =
            [table("public", "orders"), table("archive", "orders"), table("public", "Odd.Name"), table("public", "x")]
                .into();
        let databases = ["postgres".to_owned(), "shop".to_owned()];
        let ask = |schema: &str, name: &str| {
            let part = Part::Tables { database: "shop".to_owned(), tables: vec![table(schema, name)] };
            part.lacking_in(&databases, &tables)
                .into_iter()
                .map(|lacking| (lacking.what, lacking.similar))
                .collect::<Vec<_>>()
        };
        assert_eq!(ask("public", "orders"), []);
        let expect = |what: &str, similar: &[&str]| {
            vec![(what.to_owned(), similar.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())]
        };
        assert_eq!(
            ask("public", "ordres"),
            expect("table shop.public.ordres", &["shop.public.orders", "shop.archive.orders"])
        );
        assert_eq!(
            ask("sales", "orders"),
            expect("table shop.sales.orders", &["shop.archive.orders", "shop.public.orders"])
        );
        assert_eq!(ask("public", "odd.name"), expect("table shop.public.\"odd.name\"", &["shop.public.\"Odd.Name\""]));
        let part = Part::Database("shpo".to_owned());
        let lacking = part.lacking_in(&databases, &tables);
        assert_eq!(lacking, [Lacking { what: "database shpo".to_owned(), similar: vec!["shop".to_owned()] }]);
    }
}
