//! The configuration: one file for both programs, the environment, flags.
//!
//! A value comes from the strongest of four layers: a flag, a `WALSEAL_*` variable, the file, a name that
//! platforms inject (`DATABASE_URL`, libpq's `PG*`, `S3_*`, `AWS_*`). It remembers which one. Nothing is
//! required as such: what a verb needs it asks for with one of the `need_…` methods, whose errors say how to set it.
//! `docs/CONFIGURATION.md` lists every key.
//!
//! ```
//! use walseal_common::config::{Config, Environment, Sources};
//!
//! let environment = Environment::from_iter([("WALSEAL_REPOSITORY_URL", "s3://acme-pg/orders")]);
//! let config = Config::load(&Sources::new(environment))?;
//! let repository = config.need_repository()?;
//! assert_eq!(repository.value.to_string(), "s3://acme-pg/orders");
//! assert_eq!(repository.origin.to_string(), "WALSEAL_REPOSITORY_URL");
//! # Ok::<(), walseal_common::config::ConfigError>(())
//! ```

pub mod cli;
mod credentials;
mod environment;
mod error;
mod file;
mod key;
mod key_file;
mod layers;
mod location;
mod need;
mod opening;
mod origin;
mod price;
mod reader;
mod sections;
mod special;
#[cfg(test)]
mod tests;
mod value;
mod web_address;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use credentials::S3Credentials;
pub use environment::{Environment, LibpqDefault};
pub use error::ConfigError;
pub use key::{Fallback, KEYS, Key, Kind};
pub use key_file::read_secret_file;
pub use location::RepositoryUrl;
pub use need::Conninfo;
pub use opening::{OpenError, StorePatience, StoreUse};
pub use origin::{Origin, Setting};
pub use price::Price;
pub use sections::{
    AlertsConfig, Amcheck, BaseConfig, Checksums, ClusterConfig, CostConfig, Count, DrillCheck, DrillConfig,
    FetchConfig, KeysConfig, RepositoryConfig, RetentionConfig, S3Config, SnapshotConfig, Tolerance, TrustedWriter,
    VerifyConfig, WalConfig, WriterRole,
};
pub use value::{Wrong, parse_duration, parse_size};
pub use web_address::WebAddress;

use layers::{Layers, Raw};
use reader::Reader;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "/etc/walseal/walseal.toml";

/// Where a configuration is read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file that `--config` names.
    pub config_flag: Option<PathBuf>,
    /// The file when none is named; it may be absent.
    pub default_file: PathBuf,
    /// The environment.
    pub environment: Environment,
    flags: Vec<(&'static Key, &'static str, String)>,
}

impl Sources {
    /// The environment and [`DEFAULT_FILE`], without flags.
    pub fn new(environment: Environment) -> Sources {
        Sources { config_flag: None, default_file: PathBuf::from(DEFAULT_FILE), environment, flags: Vec::new() }
    }

    /// Adds a flag that sets a key, where the flag was given: `.flag("cluster.pg_bin", "--pg-bin", args.pg_bin)`.
    /// The value is written as in the environment. Secrets never come from flags.
    pub fn flag(mut self, key: &str, name: &'static str, value: Option<impl Into<String>>) -> Sources {
        let found = key::find(key);
        debug_assert!(found.is_some_and(|key| key.kind != Kind::Secret), "{key} is no key that a flag can set");
        if let (Some(key), Some(value)) = (found, value) {
            self.flags.push((key, name, value.into()));
        }
        self
    }
}

/// The whole configuration, typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `[cluster]`.
    pub cluster: ClusterConfig,
    /// `[repository]`.
    pub repository: RepositoryConfig,
    /// `[keys]`.
    pub keys: KeysConfig,
    /// `[wal]`.
    pub wal: WalConfig,
    /// `[base]`.
    pub base: BaseConfig,
    /// `[retention]`.
    pub retention: RetentionConfig,
    /// `[cost]`.
    pub cost: CostConfig,
    /// `[verify]`.
    pub verify: VerifyConfig,
    /// `[fetch]`.
    pub fetch: FetchConfig,
    /// `[drill]`.
    pub drill: DrillConfig,
    /// `[snapshot]`.
    pub snapshot: SnapshotConfig,
    /// `[alerts]`.
    pub alerts: AlertsConfig,
    /// `http.listen`: where `/metrics` and `/healthz` are served.
    pub listen: Option<Setting<SocketAddr>>,
    /// `walseal.actor`. See [`Config::actor`].
    pub actor: Option<Setting<String>>,
    file: PathBuf,
    file_exists: bool,
    libpq: Vec<LibpqDefault>,
    libpq_place: Option<&'static str>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads and checks everything that is set; asks for nothing that is not.
    ///
    /// Errors: a named file that is not there, TOML that is none, an unknown key or variable, a value that its key
    /// does not take, `extra_repository`.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let environment = &sources.environment;
        let (named, named_by) = match (&sources.config_flag, environment.get("WALSEAL_CONFIG")) {
            (Some(path), _) => (Some(path.clone()), "--config"),
            (None, Some(path)) => (Some(PathBuf::from(path)), "WALSEAL_CONFIG"),
            (None, None) => (None, ""),
        };
        let optional = named.is_none();
        let file = named.unwrap_or_else(|| sources.default_file.clone());
        // Recovery runs `fetch` in the data directory: a relative name must not mean another file there.
        let file = std::path::absolute(&file).unwrap_or(file);

        let mut warnings = Vec::new();
        let mut layers = Layers::default();
        for (key, name, value) in &sources.flags {
            layers.add(key, Raw::word(value), Origin::Flag(name));
        }
        environment.read_own(&mut layers)?;
        let text = read_file(&file)?;
        match &text {
            None if !optional => return Err(ConfigError::NoFile { path: file, named_by }),
            None => {}
            Some((text, mode)) => {
                file::read(text, &file, &mut layers)?;
                warnings.extend(exposed_secret(&file, *mode, &layers));
            }
        }
        environment.read_platform(&mut layers);

        let mut config = Config::build(&layers, file, text.is_some())?;
        config.libpq = environment.libpq_defaults();
        config.libpq_place = environment.libpq_place();
        config.warnings = warnings;
        Ok(config)
    }

    /// A configuration from the text of a file alone, for tests and for generated configurations. Relative paths in
    /// it start at `/`.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let file = PathBuf::from("/walseal.toml");
        let mut layers = Layers::default();
        file::read(text, &file, &mut layers)?;
        Config::build(&layers, file, true)
    }

    /// The configuration file that was read, absolute; `None` when there was none.
    pub fn file(&self) -> Option<&Path> {
        self.file_exists.then_some(self.file.as_path())
    }

    /// What a person should know about this configuration, a sentence each; to be logged once.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn build(layers: &Layers, file: PathBuf, file_exists: bool) -> Result<Config, ConfigError> {
        let read = Reader(layers);
        if let Some(entry) = layers.get("extra_repository") {
            let wrong = Wrong::new(
                "is not available yet: this version writes to one repository",
                "take it out: nothing would be copied there",
            );
            return Err(ConfigError::Invalid { key: "extra_repository", origin: entry.origin.clone(), wrong });
        }
        Ok(Config {
            cluster: ClusterConfig {
                name: read.optional("cluster.name", special::cluster_name)?,
                conninfo: read.optional("cluster.conninfo", reader::secret)?,
                state_dir: read.optional("cluster.state_dir", reader::path)?,
                slot: read.optional("cluster.slot", special::slot)?,
                pg_bin: read.optional("cluster.pg_bin", reader::path)?,
            },
            repository: RepositoryConfig {
                url: read.optional("repository.url", special::repository_url)?,
                s3: S3Config {
                    endpoint: read.optional("repository.s3.endpoint", special::endpoint)?,
                    region: read.optional("repository.s3.region", reader::text)?,
                    path_style: read.optional("repository.s3.path_style", reader::boolean)?,
                    object_lock: read.optional("repository.s3.object_lock", special::object_lock)?,
                    checksums: read.optional("repository.s3.checksums", special::checksums)?,
                    access_key_id: read.optional("repository.s3.access_key_id", reader::text)?,
                    access_key_id_file: read.optional("repository.s3.access_key_id_file", reader::path)?,
                    secret_access_key: read.optional("repository.s3.secret_access_key", reader::secret)?,
                    secret_access_key_file: read.optional("repository.s3.secret_access_key_file", reader::path)?,
                    session_token: read.optional("repository.s3.session_token", reader::secret)?,
                    session_token_file: read.optional("repository.s3.session_token_file", reader::path)?,
                    ca_file: read.optional("repository.s3.ca_file", reader::path)?,
                },
            },
            keys: KeysConfig {
                recipients: read.optional("keys.recipients", reader::list)?,
                writer_key_file: read.optional("keys.writer_key_file", reader::path)?,
                identity_files: read.optional("keys.identity_files", reader::paths)?,
                trusted_writers: read.optional("keys.trusted_writers", reader::writers)?,
            },
            wal: WalConfig {
                enabled: read.or_default("wal.enabled", reader::boolean)?,
                ship_interval: read.or_default("wal.ship_interval", special::ship_interval)?,
                synchronous: read.or_default("wal.synchronous", reader::boolean)?,
                stall_limit: read.or_default("wal.stall_limit", reader::duration)?,
                shutdown_wait: read.or_default("wal.shutdown_wait", reader::duration)?,
                heartbeat: read.optional("wal.heartbeat", special::slow_interval)?,
                frontier_interval: read.or_default("wal.frontier_interval", special::slow_interval)?,
                give_up_at: read.optional("wal.give_up_at", special::limit)?,
                canary: read.or_default("wal.canary", reader::boolean)?,
                canary_interval: read.or_default("wal.canary_interval", special::slow_interval)?,
            },
            base: BaseConfig {
                schedule: read.or_default("base.schedule", special::schedule)?,
                timezone: read.optional("base.timezone", reader::text)?,
                jitter: read.or_default("base.jitter", reader::duration)?,
                full_every: read.or_default("base.full_every", reader::duration)?,
                max_depth: read.or_default("base.max_depth", reader::number)?,
                max_rate: read.or_default("base.max_rate", special::max_rate)?,
                backoff: read.or_default("base.backoff", reader::boolean)?,
            },
            retention: RetentionConfig {
                window: read.or_default("retention.window", reader::duration)?,
                daily: read.or_default("retention.daily", reader::number)?,
                weekly: read.or_default("retention.weekly", reader::number)?,
                monthly: read.or_default("retention.monthly", reader::number)?,
                min_proven: read.or_default("retention.min_proven", reader::number)?,
                prune: read.or_default("retention.prune", reader::boolean)?,
                grace: read.or_default("retention.grace", reader::duration)?,
                before_window_moves: read.optional("retention.before_window_moves", reader::text)?,
                command_limit: read.or_default("retention.command_limit", reader::duration)?,
            },
            cost: CostConfig {
                storage: read.or_default("cost.storage", special::price)?,
                puts: read.or_default("cost.puts", special::price)?,
                currency: read.or_default("cost.currency", reader::text)?,
            },
            verify: VerifyConfig {
                every: read.or_default("verify.every", special::verify_every)?,
                read_every: read.or_default("verify.read_every", reader::duration)?,
                max_rate: read.or_default("verify.max_rate", reader::size)?,
            },
            fetch: FetchConfig {
                retry: read.or_default("fetch.retry", reader::duration)?,
                retry_standby: read.or_default("fetch.retry_standby", reader::duration)?,
                prefetch: read.or_default("fetch.prefetch", reader::size)?,
            },
            drill: DrillConfig {
                schedule: read.optional("drill.schedule", special::schedule)?.and_then(|setting| setting.value),
                timezone: read.optional("drill.timezone", reader::text)?,
                jitter: read.or_default("drill.jitter", reader::duration)?,
                random: read.or_default("drill.target", special::random_target)?,
                scratch_dir: read.or_default("drill.scratch_dir", reader::path)?,
                pg_bin: read.optional("drill.pg_bin", reader::path)?,
                user: read.or_default("drill.user", reader::text)?,
                conninfo: read.optional("drill.conninfo", reader::secret)?,
                amcheck: read.or_default("drill.amcheck", special::amcheck)?,
                count: read.or_default("drill.count", special::count)?,
                count_above: read.or_default("drill.count_above", reader::size)?,
                shrink: read.or_default("drill.shrink", special::percent)?,
                shrinking_fails: read.or_default("drill.on_shrink", special::shrinking_fails)?,
                max_rto: read.optional("drill.max_rto", reader::duration)?,
                max_rpo: read.optional("drill.max_rpo", reader::duration)?,
                make_base: read.or_default("drill.make_base", reader::boolean)?,
                snapshot: read.optional("drill.snapshot", reader::list)?,
                foreign_keys: read.or_default("drill.foreign_keys", reader::boolean)?,
                checks: read.optional("drill.checks", reader::checks)?.map(|setting| setting.value).unwrap_or_default(),
                checks_file: read.optional("drill.checks_file", reader::path)?,
            },
            snapshot: SnapshotConfig {
                schedule: read.optional("snapshot.schedule", special::schedule)?.and_then(|setting| setting.value),
                interval: read.optional("snapshot.interval", special::slow_interval)?,
                timezone: read.optional("snapshot.timezone", reader::text)?,
                jitter: read.or_default("snapshot.jitter", reader::duration)?,
                databases: read.optional("snapshot.databases", reader::list)?,
                jobs: read.or_default("snapshot.jobs", special::jobs)?,
                exclude_schemas: read.optional("snapshot.exclude_schemas", reader::list)?,
                exclude_tables: read.optional("snapshot.exclude_tables", reader::list)?,
                within: read.optional("snapshot.within", reader::duration)?,
                last: read.or_default("snapshot.last", reader::number)?,
                daily: read.or_default("snapshot.daily", reader::number)?,
                weekly: read.or_default("snapshot.weekly", reader::number)?,
                monthly: read.or_default("snapshot.monthly", reader::number)?,
                shrink: read.or_default("snapshot.shrink", special::percent)?,
            },
            alerts: AlertsConfig {
                command: read.optional("alerts.command", reader::text)?,
                command_limit: read.or_default("alerts.command_limit", reader::duration)?,
                remind_after: read.or_default("alerts.remind_after", reader::duration)?,
                store_after: read.or_default("alerts.store_after", reader::duration)?,
                backlog: read.or_default("alerts.backlog", reader::size)?,
                rpo: read.or_default("alerts.rpo", reader::duration)?,
                proven_within: read.or_default("alerts.proven_within", reader::duration)?,
                webhook_url: read.optional("alerts.webhook_url", web_address::url)?,
                webhook_url_file: read.optional("alerts.webhook_url_file", reader::path)?,
                slack_url: read.optional("alerts.slack_url", web_address::url)?,
                slack_url_file: read.optional("alerts.slack_url_file", reader::path)?,
                mail_to: read.optional("alerts.mail_to", special::mail_addresses)?,
                mail_from: read.optional("alerts.mail_from", special::mail_address)?,
                sendmail: read.or_default("alerts.sendmail", reader::path)?,
                heartbeat_url: read.optional("alerts.heartbeat_url", web_address::url)?,
                heartbeat_url_file: read.optional("alerts.heartbeat_url_file", reader::path)?,
            },
            listen: read.optional("http.listen", special::listen)?,
            actor: read.optional("walseal.actor", reader::text)?,
            file,
            file_exists,
            libpq: Vec::new(),
            libpq_place: None,
            warnings: Vec::new(),
        })
    }
}

/// The text and the permissions of the file at `path`; `None` when there is none.
fn read_file(path: &Path) -> Result<Option<(Zeroizing<String>, u32)>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
            Ok(Some((Zeroizing::new(text), mode)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(unreadable(source)),
    }
}

/// A warning where the file itself holds a secret and is as open as a key file must not be.
fn exposed_secret(file: &Path, mode: u32, layers: &Layers) -> Option<String> {
    let key = KEYS.iter().filter(|key| key.kind == Kind::Secret).find(|key| {
        layers.get(key.path).is_some_and(|entry| match (&entry.raw, &entry.origin) {
            // A connection string is a secret only where it holds a password.
            (Raw::Text(text), Origin::File { .. }) => !key.path.ends_with(".conninfo") || need::holds_password(text),
            _ => false,
        })
    })?;
    let problem = key_file::too_open(mode)?;
    Some(format!("{} {problem}: {}; run: chmod g-w,o-rwx {}", file.display(), key.path, file.display()))
}
