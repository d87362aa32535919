//! What the configuration names, opened: the store, the keys, the way to the server.

use std::sync::Arc;

use super::{Config, ConfigError, RepositoryUrl, WriterRole};
use crate::postgres::{Conninfo, ConninfoError};
use crate::seal::{Identity, KeyError, Recipient, Role, TrustedWriter, WriterKey, WriterPublic};
use crate::store::{DirectoryStore, ObjectStore};

/// Something that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not named, or not readable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key is not a key.
    #[error("{place}: {source}")]
    Key {
        /// The configuration's key, or the file.
        place: String,
        /// What is wrong; never shows the text.
        source: KeyError,
    },
    /// The connection string is not one.
    #[error("cluster.conninfo (from {origin}): {source}")]
    Conninfo {
        /// Who set it.
        origin: String,
        /// What is wrong.
        source: ConninfoError,
    },
    /// A kind of repository that this version cannot use.
    #[error("{0} repositories are not available in this version; use file:///folder")]
    Scheme(&'static str),
}

impl OpenError {
    /// Whether the same call could not succeed later without anybody changing anything: always.
    pub fn is_permanent(&self) -> bool {
        true
    }
}

impl Config {
    /// The store that `repository.url` names. Nothing is read yet.
    ///
    /// Errors: not configured; a kind of store that this version cannot use; unusable credentials.
    pub fn open_store(&self) -> Result<Arc<dyn ObjectStore>, OpenError> {
        match &self.need_repository()?.value {
            RepositoryUrl::Directory { path } => Ok(Arc::new(DirectoryStore::new(path.clone()))),
            RepositoryUrl::S3 { .. } => Err(OpenError::Scheme("s3")),
            RepositoryUrl::Sftp { .. } => Err(OpenError::Scheme("sftp")),
        }
    }

    /// The public keys that objects are sealed to.
    ///
    /// Errors: none is configured; one is not a recipient.
    pub fn open_recipients(&self) -> Result<Vec<Recipient>, OpenError> {
        let setting = self.need_recipients()?;
        setting
            .value
            .iter()
            .map(|text| {
                text.parse().map_err(|source| OpenError::Key {
                    place: format!("keys.recipients (from {})", setting.origin),
                    source,
                })
            })
            .collect()
    }

    /// The archiver's writer key.
    ///
    /// Errors: not configured, not readable, readable by others, not a writer key.
    pub fn open_writer_key(&self) -> Result<WriterKey, OpenError> {
        let content = self.read_writer_key()?;
        let place = self.need_writer_key_file()?.value.display().to_string();
        WriterKey::read_file(content.expose()).map_err(|source| OpenError::Key { place, source })
    }

    /// The identities that open objects. Only the restorer calls this.
    ///
    /// Errors: none is configured; a file is not readable, readable by others, or holds none.
    pub fn open_identities(&self) -> Result<Vec<Identity>, OpenError> {
        let mut identities = Vec::new();
        for (path, content) in self.read_identities()? {
            let read = Identity::read_file(content.expose())
                .map_err(|source| OpenError::Key { place: path.display().to_string(), source })?;
            identities.extend(read);
        }
        Ok(identities)
    }

    /// The writers that are trusted by configuration; empty when none is.
    ///
    /// Errors: one is not a writer's public key.
    pub fn open_trusted_writers(&self) -> Result<Vec<TrustedWriter>, OpenError> {
        let Some(setting) = &self.keys.trusted_writers else { return Ok(Vec::new()) };
        setting
            .value
            .iter()
            .map(|writer| {
                let key: WriterPublic = writer.key.parse().map_err(|source| OpenError::Key {
                    place: format!("keys.trusted_writers (from {})", setting.origin),
                    source,
                })?;
                let roles = writer.roles.iter().map(|role| match role {
                    WriterRole::Wal => Role::Wal,
                    WriterRole::Base => Role::Base,
                    WriterRole::Drill => Role::Drill,
                });
                Ok(TrustedWriter { key, roles: roles.collect() })
            })
            .collect()
    }

    /// How to reach the server.
    ///
    /// Errors: not configured, not a connection string.
    pub fn open_conninfo(&self) -> Result<Conninfo, OpenError> {
        let conninfo = self.need_conninfo()?;
        let defaults = |name: &str| {
            conninfo
                .defaults
                .iter()
                .find(|default| default.variable == name)
                .map(|default| default.value.expose().to_owned())
        };
        Conninfo::parse(conninfo.text.expose(), &defaults)
            .map_err(|source| OpenError::Conninfo { origin: conninfo.origin.to_string(), source })
    }
}
