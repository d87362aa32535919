//! Page checksums that failed (case 31).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use walseal_common::postgres::Notice;

/// Most files that are remembered: a disk that fails damages many, and the label has a line for each.
const MOST_FILES: usize = 100;

/// Counts what the server says of page checksums that fail while it reads, and in which files.
///
/// It warns of the first few pages of each file, then of each such file, then of all of them together, and ends with an
/// error although everything was sent (`basebackup.c`). Texts are in the server's language, so they are told apart by
/// the C function that reports them, and of a text only the path is taken.
#[derive(Debug, Default)]
pub struct Suspect {
    warned: bool,
    total: Option<u64>,
    confirmed: bool,
    files: BTreeSet<String>,
}

impl Suspect {
    /// Takes a notice into account, and says whether it is about a page checksum.
    pub fn note(&mut self, notice: &Notice) -> bool {
        let said = &notice.0;
        match (said.severity.as_str(), said.routine.as_deref()) {
            ("ERROR", _) if said.sqlstate == "XX001" => self.confirmed = true,
            // Its text has one number: how many there are.
            ("WARNING", Some("perform_base_backup")) => self.total = number(&said.message).or(self.total),
            ("WARNING", Some("sendFile" | "read_file_data_into_buffer")) => {
                self.warned = true;
                if self.files.len() < MOST_FILES {
                    self.files.extend(RelationFile::within(&said.message).map(|file| file.to_string()));
                }
            }
            _ => return false,
        }
        true
    }

    /// How many pages; 0 in a sound backup.
    pub fn count(&self) -> u64 {
        // There is no warning of all together where there is but one.
        self.total.unwrap_or(0).max(u64::from(self.warned || self.confirmed))
    }

    /// In which files, below the data directory; at most 100 of them.
    pub fn files(self) -> Vec<String> {
        self.files.into_iter().collect()
    }
}

/// The only number in a text.
fn number(text: &str) -> Option<u64> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.next().filter(|_| numbers.next().is_none())?.parse().ok()
}

/// Where a relation's file lies (`GetRelationPath`, `relpath.c`): nothing in such a path was named by a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationFile {
    /// The OID of its tablespace; of the two that every cluster has as well.
    pub tablespace: u32,
    /// The OID of its database; 0 for what all databases share.
    pub database: u32,
    /// The number that `pg_relation_filenode` tells.
    pub filenode: u32,
    path: String,
}

/// OIDs of the tablespaces that every cluster has (`pg_tablespace.dat`).
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

impl RelationFile {
    /// The first one that a text names, whatever its language and its quotation marks.
    pub fn within(text: &str) -> Option<RelationFile> {
        let part_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/');
        text.split(|c| !part_of_path(c)).find_map(|word| word.parse().ok())
    }
}

/// It is not the path of a relation's file.
#[derive(Debug)]
pub struct NoRelationFile;

impl FromStr for RelationFile {
    type Err = NoRelationFile;

    fn from_str(path: &str) -> Result<RelationFile, NoRelationFile> {
        let path = path.strip_prefix("./").unwrap_or(path);
        let parts: Vec<&str> = path.split('/').collect();
        let oid = |digits: &str| digits.parse().map_err(|_| NoRelationFile);
        let (tablespace, database, file) = match parts[..] {
            ["global", file] => (GLOBAL_TABLESPACE, 0, file),
            ["base", database, file] => (DEFAULT_TABLESPACE, oid(database)?, file),
            ["pg_tblspc", tablespace, version, database, file] if is_version(version) => {
                (oid(tablespace)?, oid(database)?, file)
            }
            _ => return Err(NoRelationFile),
        };
        // Behind the number stand fork and segment: 16384_vm.1
        let (filenode, rest) = file.split_at(file.find(|c: char| !c.is_ascii_digit()).unwrap_or(file.len()));
        let fork_or_segment = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.');
        if !rest.chars().all(fork_or_segment) {
            return Err(NoRelationFile);
        }
        Ok(RelationFile { tablespace, database, filenode: oid(filenode)?, path: path.to_owned() })
    }
}

/// As in `PG_15_202209061`.
fn is_version(folder: &str) -> bool {
    folder.strip_prefix("PG_").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '_'))
}

/// Its path below the data directory.
impl fmt::Display for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use walseal_common::postgres::ServerError;

    use super::*;

    fn error() -> Notice {
        let (severity, sqlstate) = ("ERROR".to_owned(), "XX001".to_owned());
        Notice(ServerError { severity, sqlstate, ..ServerError::default() })
    }

    fn warning(routine: &str, message: &str) -> Notice {
        Notice(ServerError {
            severity: "WARNING".to_owned(),
            message: message.to_owned(),
            routine: Some(routine.to_owned()),
            ..ServerError::default()
        })
    }

    #[test]
    fn case_31_the_files_are_those_that_the_texts_name_in_any_language() {
        let mut suspect = Suspect::default();
        for text in [
            r#"checksum verification failed in file "./base/5/16384", block 3: calculated 1F but expected 2E"#,
            "Prüfsummenüberprüfung fehlgeschlagen in Datei »./base/5/16384.1«, Block 3",
            "la vérification a échoué dans le fichier « pg_tblspc/16400/PG_15_202209061/5/16401_vm.2 », bloc 0",
            "ファイル\"./global/1260\"でチェックサム検証に失敗しました",
            "could not verify checksum in file \"./base/5/pg_internal.init\", block 1",
            "in base/5/../../secret, base/x/1, pg_tblspc/1/orders/5/7, base/5/16384/orders, base/4294967296/1",
        ] {
            assert!(suspect.note(&warning("sendFile", text)));
        }
        let expected =
            ["base/5/16384", "base/5/16384.1", "global/1260", "pg_tblspc/16400/PG_15_202209061/5/16401_vm.2"];
        assert_eq!(suspect.files(), expected);
        let file = RelationFile::within("« pg_tblspc/16400/PG_15_202209061/5/16401_vm.2 »").expect("a file");
        assert_eq!((file.tablespace, file.database, file.filenode), (16400, 5, 16401));

        let mut many = Suspect::default();
        for number in 0..1000 {
            many.note(&warning("sendFile", &format!("\"./base/5/{number}\"")));
        }
        assert_eq!(many.files().len(), MOST_FILES);
    }

    #[test]
    fn case_31_failures_are_counted_in_any_language() {
        let mut none = Suspect::default();
        assert!(!none.note(&warning("do_pg_backup_stop", "WAL archiving is not enabled")));
        assert_eq!(none.count(), 0);

        let mut one = Suspect::default();
        assert!(one.note(&warning("sendFile", "checksum verification failed in file \"./base/5/16384\", block 3")));
        assert!(one.note(&error()));
        assert_eq!(one.count(), 1);

        let mut many = Suspect::default();
        for block in 0..5 {
            assert!(many.note(&warning("sendFile", &format!("Prüfsumme falsch in »base/5/16384«, Block {block}"))));
        }
        assert!(many.note(&warning("sendFile", "Datei »base/5/16384« hat insgesamt 12 falsche Prüfsummen")));
        assert!(many.note(&warning("perform_base_backup", "insgesamt 12 falsche Prüfsummen")));
        assert!(many.note(&error()));
        assert_eq!(many.count(), 12);

        let mut silent = Suspect::default();
        assert!(silent.note(&error()));
        assert_eq!(silent.count(), 1, "the error alone is enough");
    }
}
