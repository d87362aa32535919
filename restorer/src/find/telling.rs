//! From files to tables: whose rows, long values and indexes they are, and what became of it.

use std::collections::BTreeMap;

use walseal_common::wal::RelationFile;
use walseal_common::wal::change::{FIRST_NORMAL, NewRelation, RelationOid, RelationWork, RowCounts, Work};

use super::names::{Known, Names};
use super::table::{Table, TableChange};

/// Catalogs that maintenance writes, and rows of users': statistics, and large objects.
const NO_DDL: [u32; 4] = [2613, 2619, 2995, 3429];

/// What was done to tables.
#[derive(Default)]
pub(super) struct Told {
    /// In no order; those of the catalogs are not among them.
    pub(super) tables: Vec<TableChange>,
    /// Rows of the catalogs that were changed.
    pub(super) catalog_rows: u64,
}

impl Told {
    /// What a transaction did, by the names that are known before it.
    pub(super) fn of(work: &Work, names: &Names) -> Told {
        let mut telling = Telling::new(names);
        telling.rows(work.relations.iter().map(|(file, done)| (*file, *done)));
        telling.dropped_relations(work);
        telling.removed_files(work);
        telling.truncated_relations(work);
        telling.finish()
    }

    /// What was done to files, whoever did it.
    pub(super) fn of_files(files: impl Iterator<Item = (RelationFile, RelationWork)>, names: &Names) -> Told {
        let mut telling = Telling::new(names);
        telling.rows(files);
        telling.finish()
    }
}

/// A database's name, or where that is not known its OID.
pub(super) fn database(names: &Names, oid: u32) -> String {
    names.database(oid).map_or_else(|| oid.to_string(), str::to_owned)
}

/// A table, or a file of which nobody knows whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Table(RelationOid),
    File(RelationFile),
}

/// What became of a table whose file was removed.
enum Fate {
    Dropped,
    Rewritten,
    Truncated,
}

/// The end of a transaction that removes files.
struct End<'a> {
    work: &'a Work,
    /// By the OIDs of tables that were written anew, the files of their new forms.
    rewritten: BTreeMap<u32, RelationFile>,
}

impl<'a> End<'a> {
    fn of(work: &'a Work) -> End<'a> {
        let file = |new: &NewRelation| {
            work.created.iter().find(|file| (file.database, file.number) == (new.database, new.filenode)).copied()
        };
        let rewritten = work.new_relations.iter().filter_map(|new| Some((new.rewrites()?, file(new)?))).collect();
        End { work, rewritten }
    }

    /// What became of the table, where it is known, whose file was removed.
    fn fate(&self, file: &RelationFile, oid: Option<RelationOid>) -> Fate {
        let work = self.work;
        // From PostgreSQL 15 on the commit names those that are gone.
        if oid.is_some_and(|oid| work.dropped.contains(&oid)) {
            return Fate::Dropped;
        }
        // What became of a table that was written anew is what became of its new form.
        let new_form = oid.and_then(|oid| self.rewritten.get(&oid.oid));
        if new_form.is_some_and(|new| !work.removed.contains(new)) {
            return Fate::Rewritten;
        }
        let file = new_form.unwrap_or(file);
        let names_dropped = !work.dropped.is_empty();
        if names_dropped && oid.is_some() {
            return self.replacement(file).unwrap_or(Fate::Truncated);
        }
        match &work.replaced {
            Some(_) => self.replacement(file).unwrap_or(Fate::Dropped),
            None if names_dropped || work.created.iter().all(|made| work.removed.contains(made)) => Fate::Dropped,
            None => Fate::Truncated,
        }
    }

    /// What became of the table where another file took this one's place: the same rows go on in another tablespace.
    fn replacement(&self, file: &RelationFile) -> Option<Fate> {
        let one = self.work.replaced.iter().flatten().find(|one| one.old == *file)?;
        Some(if one.old.tablespace == one.new.tablespace { Fate::Truncated } else { Fate::Rewritten })
    }
}

struct Telling<'a> {
    names: &'a Names,
    tables: BTreeMap<Whose, TableChange>,
    catalog_rows: u64,
}

impl<'a> Telling<'a> {
    fn new(names: &'a Names) -> Telling<'a> {
        Telling { names, tables: BTreeMap::new(), catalog_rows: 0 }
    }

    fn finish(self) -> Told {
        Told { tables: self.tables.into_values().collect(), catalog_rows: self.catalog_rows }
    }

    /// The table, by what is known of it.
    fn table(&mut self, whose: Whose) -> &mut TableChange {
        let names = self.names;
        self.tables.entry(whose).or_insert_with(|| {
            let (oid, known, in_database, file) = match whose {
                Whose::Table(oid) => (Some(oid.oid), names.relation(oid), oid.database, None),
                Whose::File(file) => (None, None, file.database, Some(file.to_string())),
            };
            let table = Table {
                database: database(names, in_database),
                schema: known.and_then(|known| known.schema.clone()),
                name: known.map(|known| known.name.clone()),
                oid,
                file,
            };
            TableChange {
                table,
                dropped: false,
                truncated: false,
                rewritten: false,
                rows: RowCounts::default(),
                toast: 0,
                bytes: 0,
            }
        })
    }

    /// Counts by table: rows of its own file; pieces of TOAST, and bytes of indexes, beside them.
    fn rows(&mut self, files: impl Iterator<Item = (RelationFile, RelationWork)>) {
        for (file, done) in files {
            let oid = self.names.oid(&file);
            let number = oid.map_or(file.number, |oid| oid.oid);
            if number < FIRST_NORMAL {
                if !NO_DDL.contains(&number) {
                    self.catalog_rows += done.rows.total();
                }
                continue;
            }
            let Some(oid) = oid else {
                // Of an index nobody knows anything either; only what has rows is told.
                if done.rows.total() > 0 {
                    let table = self.table(Whose::File(file));
                    table.rows.merge(done.rows);
                    table.bytes += done.bytes;
                }
                continue;
            };
            let Some(owner) = self.names.owner(oid) else { continue };
            let is_toast = self.names.relation(oid).is_some_and(|known| known.kind == 't');
            let table = self.table(Whose::Table(owner));
            table.bytes += done.bytes;
            if owner == oid {
                table.rows.merge(done.rows);
            } else if is_toast {
                table.toast += done.rows.total();
            }
        }
    }

    /// Relations that the commit names as gone, where they are tables.
    fn dropped_relations(&mut self, work: &Work) {
        for oid in &work.dropped {
            if self.names.relation(*oid).is_some_and(Known::is_table) {
                self.table(Whose::Table(*oid)).dropped = true;
            }
        }
    }

    /// Files that the commit removes: of tables that were dropped, truncated or written anew.
    fn removed_files(&mut self, work: &Work) {
        let end = End::of(work);
        for file in work.removed.iter().filter(|file| !work.created.contains(file)) {
            let oid = self.names.oid(file);
            // A TOAST table's file goes with its table's, an index's with a rebuild.
            if oid.is_some_and(|oid| !self.names.relation(oid).is_some_and(Known::is_table)) {
                continue;
            }
            let fate = end.fate(file, oid);
            let table = self.table(oid.map_or(Whose::File(*file), Whose::Table));
            match fate {
                Fate::Dropped => table.dropped = true,
                Fate::Rewritten => table.rewritten = true,
                Fate::Truncated => table.truncated = true,
            }
        }
        // The new form's rows are the old ones.
        for new in work.new_relations.iter().filter(|new| new.rewrites().is_some()) {
            let file = |file: &RelationFile| file.database == new.database && file.number == new.filenode;
            let there: Vec<RelationFile> = work.relations.keys().filter(|one| file(one)).copied().collect();
            there.into_iter().for_each(|file| {
                self.tables.remove(&Whose::File(file));
            });
        }
    }

    /// Tables that a record of `TRUNCATE` names.
    fn truncated_relations(&mut self, work: &Work) {
        for oid in &work.truncated {
            let table = self.table(Whose::Table(*oid));
            if !table.dropped {
                table.truncated = true;
            }
        }
    }
}
