//! What the configuration names, opened: the store, the keys, the way to the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Checksums, Config, ConfigError, DrillCheck, RepositoryUrl, WriterRole, file, need};
use crate::postgres::conninfo::system_user;
use crate::postgres::{Conninfo, ConninfoError};
use crate::seal::{Identity, KeyError, Recipient, Role, TrustedWriter, WriterKey, WriterPublic};
use crate::store::{
    self, Backend, ObjectLock, ObjectStore, RetryPolicy, S3Checksum, S3Options, StoreError, StoreOptions,
    ThrottleLimits,
};

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
    #[error("{key} (from {origin}): {source}")]
    Conninfo {
        /// The configuration's key.
        key: &'static str,
        /// Who set it.
        origin: String,
        /// What is wrong.
        source: ConninfoError,
    },
    /// A kind of repository that this version cannot use.
    #[error("{0} repositories are not available in this version; use s3://bucket/prefix or file:///folder")]
    Scheme(&'static str),
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Objects that come and go while everything is well, by the word that their names begin with. A tail is superseded within minutes.
const NEVER_LOCKED: [&str; 7] = ["tail", "lease", "intent", "probe", "frontier", "hold", "pruned"];

/// Time beyond the window for which objects are locked: from one base backup to the next, and for clocks that differ.
const LOCK_MARGIN: Duration = Duration::from_secs(2 * 86_400);

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreUse {
    /// To set up a repository: a missing directory is made.
    SetUp,
    /// A repository in a store that refuses to overwrite, or of which nothing is known yet.
    Conditional,
    /// A repository in a store that was seen to overwrite: every put looks first.
    LookFirst,
}

/// How long a store is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StorePatience {
    /// No failed call is repeated after this.
    pub deadline: Option<Instant>,
    /// How long a store in a network may be silent within one call, where that is less than usual (30 s for an answer, 15 s
    /// between two pieces of a body).
    pub silence: Option<Duration>,
}

impl OpenError {
    /// Whether the same call could not succeed later without anybody changing anything: always.
    pub fn is_permanent(&self) -> bool {
        true
    }
}

impl Config {
    /// The store that `repository.url` names, with the retries of somebody who has time.
    ///
    /// Errors: as [`Config::open_store_with`].
    pub async fn open_store(&self, purpose: StoreUse) -> Result<Arc<dyn ObjectStore>, OpenError> {
        self.open_store_with(purpose, RetryPolicy::default()).await
    }

    /// The store that `repository.url` names, with retries around it.
    ///
    /// Errors: not configured; a kind of store that this version cannot use; a directory that is missing (an unmounted
    /// file system must not look like an empty repository); unusable credentials.
    pub async fn open_store_with(
        &self,
        purpose: StoreUse,
        retry: RetryPolicy,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        self.open_with(purpose, retry, None).await
    }

    /// As [`Config::open_store`], for a caller that has promised an answer.
    pub async fn open_patient_store(
        &self,
        purpose: StoreUse,
        patience: StorePatience,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        let retry = RetryPolicy { deadline: patience.deadline, ..RetryPolicy::default() };
        self.open_with(purpose, retry, patience.silence).await
    }

    async fn open_with(
        &self,
        purpose: StoreUse,
        retry: RetryPolicy,
        silence: Option<Duration>,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        let backend = match &self.need_repository()?.value {
            RepositoryUrl::Directory { path } => {
                Backend::Directory { root: path.clone(), create: purpose == StoreUse::SetUp }
            }
            RepositoryUrl::S3 { bucket, prefix } => {
                let mut options = self.s3_options(bucket, prefix, purpose)?;
                if let Some(silence) = silence {
                    options.deadline = options.deadline.min(silence);
                    options.stall = options.stall.min(silence);
                }
                Backend::S3(Box::new(options))
            }
            RepositoryUrl::Sftp { .. } => return Err(OpenError::Scheme("sftp")),
        };
        let options = StoreOptions { backend, retry, throttle: ThrottleLimits::default() };
        Ok(store::open(options).await?)
    }

    /// How long an object is locked with `repository.s3.object_lock`: as long as it may be needed from the time on when it is put. A later
    /// base backup may refer to it until the next full one, and serves every moment of the window from then on, until the one after it
    /// does.
    pub fn lock_time(&self) -> Duration {
        self.retention.window.value + self.base.full_every.value + LOCK_MARGIN
    }

    fn s3_options(&self, bucket: &str, prefix: &str, purpose: StoreUse) -> Result<S3Options, OpenError> {
        let s3 = &self.repository.s3;
        let credentials = match self.s3_credentials()? {
            Some(keys) => store::S3Credentials::Static {
                access_key_id: keys.access_key_id,
                secret_access_key: keys.secret_access_key,
                session_token: keys.session_token,
            },
            None => store::S3Credentials::Chain { profile: None },
        };
        let mut options = S3Options::new(bucket, prefix, credentials);
        options.endpoint = s3.endpoint.as_ref().map(|setting| setting.value.clone());
        options.region = s3.region.as_ref().map(|setting| setting.value.clone());
        options.path_style = s3.path_style.as_ref().map(|setting| setting.value);
        options.ca_file = s3.ca_file.as_ref().map(|setting| setting.value.clone());
        options.checksum = match s3.checksums.as_ref().map(|setting| setting.value) {
            None => S3Checksum::Auto,
            Some(Checksums::WhenRequired) => S3Checksum::ContentMd5,
            Some(Checksums::WhenSupported) => S3Checksum::Crc32c,
        };
        options.object_lock = s3.object_lock.as_ref().map(|mode| ObjectLock {
            mode: mode.value,
            retain: self.lock_time(),
            never: NEVER_LOCKED.map(str::to_owned).to_vec(),
        });
        options.conditional_put = purpose != StoreUse::LookFirst;
        Ok(options)
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

    /// The checks of drills: those of the configuration, and those of `drill.checks_file`, which is read now.
    ///
    /// Errors: the file is not readable, or not one of checks.
    pub fn open_checks(&self) -> Result<Vec<DrillCheck>, OpenError> {
        let mut checks = self.drill.checks.clone();
        if let Some(setting) = &self.drill.checks_file {
            let path = &setting.value;
            let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
            checks.extend(file::read_checks(&std::fs::read_to_string(path).map_err(unreadable)?, path)?);
        }
        Ok(checks)
    }

    /// The archiver's writer key.
    ///
    /// Errors: not configured, not readable, readable by others, not a writer key.
    pub fn open_writer_key(&self) -> Result<WriterKey, OpenError> {
        let content = self.read_writer_key()?;
        let place = format!("keys.writer_key_file ({})", self.need_writer_key_file()?.value.display());
        WriterKey::read_file(content.expose()).map_err(|source| OpenError::Key { place, source })
    }

    /// Who acts, for the ledger: `walseal.actor`, else login and host.
    pub fn actor(&self) -> String {
        if let Some(actor) = &self.actor {
            return actor.value.clone();
        }
        self.login_and_host()
    }

    /// This process's login and host: `login@host`.
    pub fn login_and_host(&self) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let login = system_user().unwrap_or_else(|| "unknown".to_owned());
        match host.trim() {
            "" => login,
            host => format!("{login}@{host}"),
        }
    }

    /// The identities that open objects. Only the restorer calls this.
    ///
    /// Errors: none is configured; a file is not readable, readable by others, or holds none.
    pub fn open_identities(&self) -> Result<Vec<Identity>, OpenError> {
        let mut identities = Vec::new();
        for (path, content) in self.read_identities()? {
            let read = Identity::read_file(content.expose()).map_err(|source| OpenError::Key {
                place: format!("keys.identity_files ({})", path.display()),
                source,
            })?;
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
        open_conninfo("cluster.conninfo", &self.need_conninfo()?)
    }

    /// The server to drill snapshots on, where `drill.conninfo` names one. libpq's `PG*` hold where it is silent.
    ///
    /// Errors: not a connection string.
    pub fn open_drill_conninfo(&self) -> Result<Option<Conninfo>, OpenError> {
        let Some(setting) = &self.drill.conninfo else { return Ok(None) };
        let (text, origin) = (setting.value.clone(), setting.origin.clone());
        let named = need::Conninfo { text, origin, defaults: self.libpq.clone() };
        open_conninfo("drill.conninfo", &named).map(Some)
    }
}

fn open_conninfo(key: &'static str, conninfo: &need::Conninfo) -> Result<Conninfo, OpenError> {
    let defaults = |name: &str| {
        conninfo
            .defaults
            .iter()
            .find(|default| default.variable == name)
            .map(|default| default.value.expose().to_owned())
    };
    Conninfo::parse(conninfo.text.expose(), &defaults).map_err(|source| OpenError::Conninfo {
        key,
        origin: conninfo.origin.to_string(),
        source,
    })
}
