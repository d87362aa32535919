//! Names of relations: from the base backups around a range of WAL, and from what the catalog wrote in it.

use std::collections::{BTreeMap, HashMap};

use walseal_common::repository::{Label, NameEntry, RepositoryError};
use walseal_common::wal::RelationFile;
use walseal_common::wal::change::{NewRelation, RelationOid, Work};

use crate::access::Access;

/// A relation, as far as its name is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its schema; `None` where a relation was made in one whose name nothing tells.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// `relkind` of `pg_class`.
    pub kind: char,
    /// The table that an index or a TOAST table belongs to.
    pub table: Option<u32>,
}

impl Known {
    /// Whether it has rows of a user's: a table, a partitioned one, a materialized view.
    pub fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'p' | 'm')
    }
}

/// Which relation is which file, and what it is called.
#[derive(Clone, Debug, Default)]
pub struct Names {
    databases: BTreeMap<u32, String>,
    /// By database and the file's name; 0 for what all databases share.
    files: HashMap<(u32, u32), u32>,
    relations: HashMap<RelationOid, Known>,
    schemas: HashMap<RelationOid, String>,
}

impl Names {
    /// Adds what a base backup says, where nothing is known yet. Names that cannot be read are no error: nothing depends on them.
    ///
    /// Errors: the store's.
    pub async fn add_base(&mut self, access: &Access, label: &Label) -> Result<(), RepositoryError> {
        for page in &label.names {
            match access.repository.attachment::<NameEntry>(page, &access.identities).await {
                Ok(entries) => entries.into_iter().for_each(|entry| self.add(entry)),
                Err(error) if error.is_permanent() => {
                    tracing::warn!("{error}; names of relations in base backup {} are not known", label.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: NameEntry) {
        match entry {
            NameEntry::Database { oid, name, .. } => {
                self.databases.entry(oid).or_insert(name);
            }
            NameEntry::Relation { database, oid, filenode, schema, name, kind, table, .. } => {
                self.files.entry((database, filenode)).or_insert(oid);
                let kind = kind.chars().next().unwrap_or('?');
                let known = Known { schema: Some(schema), name, kind, table };
                self.relations.entry(RelationOid { database, oid }).or_insert(known);
            }
            NameEntry::Unread { .. } => {}
        }
    }

    /// The name of a database.
    pub fn database(&self, oid: u32) -> Option<&str> {
        self.databases.get(&oid).map(String::as_str)
    }

    /// The OID of the relation that a file is one of.
    pub fn oid(&self, file: &RelationFile) -> Option<RelationOid> {
        let oid = *self.files.get(&(file.database, file.number))?;
        Some(RelationOid { database: file.database, oid })
    }

    /// What is known of a relation.
    pub fn relation(&self, oid: RelationOid) -> Option<&Known> {
        self.relations.get(&oid)
    }

    /// The table that a relation belongs to: itself, or that of an index, of a TOAST table, or of its index. `None` for sequences, and
    /// for what nothing is known of.
    pub fn owner(&self, oid: RelationOid) -> Option<RelationOid> {
        let mut owner = oid;
        // An index of a TOAST table, the TOAST table, the table.
        for _ in 0..3 {
            let known = self.relation(owner)?;
            if known.is_table() {
                return Some(owner);
            }
            owner.oid = known.table?;
        }
        None
    }

    /// The table that a file's rows belong to: itself, or that of a TOAST table. `None` for files of indexes and sequences, and for
    /// those that nothing is known of.
    pub fn table(&self, file: &RelationFile) -> Option<RelationOid> {
        let oid = self.oid(file)?;
        let known = self.relation(oid)?;
        match known.kind {
            't' => known.table.map(|table| RelationOid { oid: table, ..oid }),
            _ => known.is_table().then_some(oid),
        }
    }

    /// Goes on to what a transaction left: relations that it made, and files that took the place of others.
    pub fn learn(&mut self, work: &Work) {
        for schema in &work.new_schemas {
            self.schemas.insert(RelationOid { database: schema.database, oid: schema.oid }, schema.name.clone());
        }
        self.learn_replaced(work);
        for new in work.new_relations.iter().filter(|new| !new.temporary) {
            self.learn_relation(new, &work.new_relations);
        }
    }

    fn learn_relation(&mut self, new: &NewRelation, all: &[NewRelation]) {
        // What is written anew goes on under the OID that it had.
        let lasting = |oid: u32| all.iter().find(|one| one.oid == oid).and_then(NewRelation::rewrites).unwrap_or(oid);
        let own = lasting(new.oid);
        if new.filenode != 0 {
            self.files.insert((new.database, new.filenode), own);
        }
        if own != new.oid {
            return;
        }
        let oid = RelationOid { database: new.database, oid: new.oid };
        let schema = self.schema(new);
        let known = self.relations.get(&oid);
        if known.is_some_and(|known| known.name == new.name && schema.is_none()) {
            // A later base backup knew more.
            return;
        }
        let table = new.name.strip_prefix("pg_toast_").filter(|_| new.kind == 't').and_then(|oid| oid.parse().ok());
        let known = Known { schema, name: new.name.clone(), kind: new.kind, table: table.map(lasting) };
        self.relations.insert(oid, known);
    }

    fn schema(&self, new: &NewRelation) -> Option<String> {
        // `pg_namespace.dat`.
        let fixed = match new.schema {
            11 => Some("pg_catalog"),
            99 => Some("pg_toast"),
            2200 => Some("public"),
            _ => None,
        };
        let made = self.schemas.get(&RelationOid { database: new.database, oid: new.schema });
        made.cloned().or_else(|| fixed.map(str::to_owned))
    }

    /// Files that others took the place of.
    fn learn_replaced(&mut self, work: &Work) {
        for one in work.replaced.iter().flatten() {
            if let Some(oid) = self.oid(&one.old).filter(|oid| oid.database == one.new.database) {
                self.files.insert((one.new.database, one.new.number), oid.oid);
            }
        }
    }
}
