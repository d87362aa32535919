//! What verbs ask for.

use std::path::PathBuf;

use super::Config;
use super::environment::LibpqDefault;
use super::error::ConfigError;
use super::key;
use super::key_file::read_secret_file;
use super::location::RepositoryUrl;
use super::origin::{Origin, Setting};
use super::sections::TrustedWriter;
use crate::secret::Secret;

/// How to reach the server: a connection string, and what holds where it is silent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conninfo {
    /// libpq's syntax or a URL; may be empty, and may hold a password.
    pub text: Secret,
    /// Who set it.
    pub origin: Origin,
    /// Defaults of keywords that the text does not name, from libpq's `PG*` variables.
    pub defaults: Vec<LibpqDefault>,
}

impl Config {
    /// `cluster.name`. Errors: not set.
    pub fn need_name(&self) -> Result<&Setting<String>, ConfigError> {
        let purpose = "the replication slot and the application name are made of it";
        self.cluster.name.as_ref().ok_or_else(|| self.missing("cluster.name", purpose, "name = \"orders\""))
    }

    /// The physical replication slot: `cluster.slot`, else `walseal_<name>` with hyphens as underscores.
    ///
    /// Errors: neither is set.
    pub fn need_slot(&self) -> Result<String, ConfigError> {
        match &self.cluster.slot {
            Some(slot) => Ok(slot.value.clone()),
            None => self.need_application_name(),
        }
    }

    /// The application name: `walseal_<name>`, hyphens as underscores. Errors: `cluster.name` is not set.
    pub fn need_application_name(&self) -> Result<String, ConfigError> {
        Ok(format!("walseal_{}", self.need_name()?.replace('-', "_")))
    }

    /// `cluster.state_dir`, else `/var/lib/walseal/<name>`. Errors: neither is set.
    pub fn need_state_dir(&self) -> Result<PathBuf, ConfigError> {
        match &self.cluster.state_dir {
            Some(folder) => Ok(folder.value.clone()),
            None => Ok(PathBuf::from("/var/lib/walseal").join(self.need_name()?.as_str())),
        }
    }

    /// `cluster.conninfo`, else `DATABASE_URL`, else libpq's `PG*`. Errors: none of them is set.
    pub fn need_conninfo(&self) -> Result<Conninfo, ConfigError> {
        let (text, origin) = match (&self.cluster.conninfo, self.libpq_place) {
            (Some(setting), _) => (setting.value.clone(), setting.origin.clone()),
            (None, Some(variable)) => (Secret::new(""), Origin::Variable(variable.to_owned())),
            (None, None) => {
                let purpose = "it says how to reach the server";
                return Err(self.missing(
                    "cluster.conninfo",
                    purpose,
                    "conninfo = \"host=/run/postgresql user=walseal\"",
                ));
            }
        };
        Ok(Conninfo { text, origin, defaults: self.libpq.clone() })
    }

    /// `repository.url`, else `S3_BUCKET`. Errors: not set.
    pub fn need_repository(&self) -> Result<&Setting<RepositoryUrl>, ConfigError> {
        let purpose = "it says where the backups are";
        let example = "url = \"s3://acme-pg/orders\"";
        self.repository.url.as_ref().ok_or_else(|| self.missing("repository.url", purpose, example))
    }

    /// `keys.recipients`. Errors: not set, or empty.
    pub fn need_recipients(&self) -> Result<&Setting<Vec<String>>, ConfigError> {
        let purpose = "objects are sealed to them (`walseal-restorer keygen` prints one)";
        let example = "recipients = [\"walseal1…\"]";
        let set = self.keys.recipients.as_ref().filter(|list| !list.is_empty());
        set.ok_or_else(|| self.missing("keys.recipients", purpose, example))
    }

    /// `keys.writer_key_file`. Errors: not set.
    pub fn need_writer_key_file(&self) -> Result<&Setting<PathBuf>, ConfigError> {
        let purpose = "what is written is signed with it (`walseal-archiver keygen --output FILE` makes one)";
        let example = "writer_key_file = \"/etc/walseal/writer.key\"";
        self.keys.writer_key_file.as_ref().ok_or_else(|| self.missing("keys.writer_key_file", purpose, example))
    }

    /// `keys.identity_files`. Errors: not set, or empty.
    pub fn need_identities(&self) -> Result<&Setting<Vec<PathBuf>>, ConfigError> {
        let purpose = "backups are opened with them (`walseal-restorer keygen --output FILE` makes one)";
        let example = "identity_files = [\"/etc/walseal/identity.key\"]";
        let set = self.keys.identity_files.as_ref().filter(|list| !list.is_empty());
        set.ok_or_else(|| self.missing("keys.identity_files", purpose, example))
    }

    /// `keys.trusted_writers`. Errors: not set, or empty.
    pub fn need_trusted_writers(&self) -> Result<&Setting<Vec<TrustedWriter>>, ConfigError> {
        let purpose = "only what they signed is believed (`walseal-archiver keygen` prints one)";
        let example = "trusted_writers = [\"walsealw1…\"]";
        let set = self.keys.trusted_writers.as_ref().filter(|list| !list.is_empty());
        set.ok_or_else(|| self.missing("keys.trusted_writers", purpose, example))
    }

    /// Text of the writer key's file, read now.
    ///
    /// Errors: not set; the file cannot be read, or others can read it.
    pub fn read_writer_key(&self) -> Result<Secret, ConfigError> {
        let file = self.need_writer_key_file()?;
        read_secret_file("keys.writer_key_file", &file.origin, file)
    }

    /// Texts of the identities' files, read now, each with its path. Only the restorer calls this (I9).
    ///
    /// Errors: not set; a file cannot be read, or others can read it.
    pub fn read_identities(&self) -> Result<Vec<(PathBuf, Secret)>, ConfigError> {
        let files = self.need_identities()?;
        let read = |path: &PathBuf| Ok((path.clone(), read_secret_file("keys.identity_files", &files.origin, path)?));
        files.iter().map(read).collect()
    }

    fn missing(&self, path: &'static str, purpose: &'static str, example: &'static str) -> ConfigError {
        let found = key::find(path);
        ConfigError::Missing {
            key: path,
            purpose,
            example,
            table: found.map_or("", |key| key.table()),
            file: self.file.clone(),
            exists: self.file_exists,
            variable: found.map(|key| key.variable()).unwrap_or_default(),
        }
    }
}

/// Whether a connection string seems to hold a password; for a warning only.
pub(super) fn holds_password(conninfo: &str) -> bool {
    let in_url = conninfo.split_once("://").is_some_and(|(_, rest)| {
        rest.split('/')
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
            .is_some_and(|(login, _)| login.contains(':'))
    });
    in_url || conninfo.replace(' ', "").contains("password=")
}
