//! What a base backup carries beside the files of the data directory: names of relations, and configuration files that lie elsewhere.
//! Both sealed, JSON lines in pages; section 6 of the format.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ObjectReference, Repository, RepositoryError};
use crate::seal::{Identity, SealError};

/// A line of the pages `names`: which relation a file of the data directory is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum NameEntry {
    /// A database.
    Database {
        /// Its OID.
        oid: u32,
        /// Its name.
        name: String,
        /// OID of its default tablespace.
        tablespace: u32,
    },
    /// A relation that has a file.
    Relation {
        /// OID of its database; 0 for those that all databases share.
        database: u32,
        /// Its OID.
        oid: u32,
        /// Name of its file, without segment and fork.
        filenode: u32,
        /// OID of its tablespace.
        tablespace: u32,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
        /// `relkind` of `pg_class`.
        kind: String,
        /// OID of the table that an index or a TOAST table belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<u32>,
        /// Rows of a table or materialised view, as the server's statistics have it; none where they do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
    },
    /// A database whose relations could not be read, or not to the end.
    Unread {
        /// Its name; none where it is about all of them.
        database: Option<String>,
        /// Why.
        why: String,
    },
}

/// A line of the pages `config`: a configuration file outside the data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ConfigEntry {
    /// A file.
    File {
        /// Where it lay on the server, absolute.
        path: String,
        /// The setting that names it, or `include`.
        setting: String,
        /// Permission bits, where they are known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Its bytes.
        #[serde(with = "base64_text")]
        content: Vec<u8>,
    },
    /// A file that could not be read.
    Unread {
        /// Where it lay; none where not even that was told.
        path: Option<String>,
        /// The setting that names it, or `include`.
        setting: String,
        /// Why.
        why: String,
    },
}

impl Repository {
    /// The lines of one page that a label refers to.
    ///
    /// Errors: it is not the object that the label refers to; a line is none of these.
    pub async fn attachment<T: DeserializeOwned>(
        &self,
        reference: &ObjectReference,
        identities: &[Identity],
    ) -> Result<Vec<T>, RepositoryError> {
        let envelope = self.read_reference(reference).await?;
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        let plain = envelope.read_all(identities).map_err(refuse)?;
        let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = |line| serde_json::from_slice(line).map_err(|error| refuse(SealError::Structure(error.to_string())));
        lines.map(read).collect()
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_format() {
        let relation = NameEntry::Relation {
            rows: None,
            database: 5,
            oid: 16384,
            filenode: 16390,
            tablespace: 1663,
            schema: "public".to_owned(),
            name: "orders".to_owned(),
            kind: "r".to_owned(),
            table: None,
        };
        let line = r#"{"type":"relation","database":5,"oid":16384,"filenode":16390,"tablespace":1663,"schema":"public","name":"orders","kind":"r"}"#;
        assert_eq!(serde_json::to_string(&relation).expect("JSON"), line);
        assert_eq!(serde_json::from_str::<NameEntry>(line).expect("a line"), relation);
        let file = ConfigEntry::File {
            path: "/etc/postgresql/15/main/pg_hba.conf".to_owned(),
            setting: "hba_file".to_owned(),
            mode: Some(0o640),
            content: b"local all".to_vec(),
        };
        let line = r#"{"type":"file","path":"/etc/postgresql/15/main/pg_hba.conf","setting":"hba_file","mode":416,"content":"bG9jYWwgYWxs"}"#;
        assert_eq!(serde_json::to_string(&file).expect("JSON"), line);
        assert_eq!(serde_json::from_str::<ConfigEntry>(line).expect("a line"), file);
    }
}
