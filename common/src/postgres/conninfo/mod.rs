//! Connection strings, as libpq reads them (PostgreSQL documentation, chapter 34.1.1).
//!
//! ```
//! use walseal_common::postgres::Conninfo;
//!
//! let nothing = |_: &str| None;
//! let conninfo = Conninfo::parse("host=db1,db2 port=5433 user=walseal password='it''s'", &nothing);
//! assert!(conninfo.is_err()); // libpq escapes a quote as \', not by doubling it.
//! let conninfo = Conninfo::parse("postgresql://walseal@db1,db2:5433/?sslmode=require", &nothing)?;
//! assert_eq!(conninfo.hosts().len(), 2);
//! assert_eq!(conninfo.hosts()[1].to_string(), "db2:5433");
//! # Ok::<(), walseal_common::postgres::ConninfoError>(())
//! ```

mod host;
mod keyword;
mod libpq;
mod passfile;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub use host::{Host, HostAddress};
pub use libpq::database_conninfo;

use super::tls::SslMode;
pub(super) use super::tls::{OptionalFile, RootSource, SslFiles};
use keyword::Keyword;
use passfile::Passfile;

/// How long an attempt to connect to one host may take when `connect_timeout` is not set. libpq would wait for ever.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the user that this process runs as; `None` where nobody knows it.
pub fn system_user() -> Option<String> {
    host::system_user(&|name| std::env::var(name).ok()).ok()
}

/// The connection string is not usable. The text itself is never part of the message, as it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection string is wrong: {0}")]
pub struct ConninfoError(pub(crate) String);

/// Which hosts will do: libpq's `target_session_attrs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetSessionAttrs {
    /// Any that answers.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not take writes.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One that is in recovery, else any.
    PreferStandby,
}

impl TargetSessionAttrs {
    const ALL: [TargetSessionAttrs; 6] = [
        TargetSessionAttrs::Any,
        TargetSessionAttrs::ReadWrite,
        TargetSessionAttrs::ReadOnly,
        TargetSessionAttrs::Primary,
        TargetSessionAttrs::Standby,
        TargetSessionAttrs::PreferStandby,
    ];

    /// The value as it is written in a connection string.
    pub const fn as_str(self) -> &'static str {
        match self {
            TargetSessionAttrs::Any => "any",
            TargetSessionAttrs::ReadWrite => "read-write",
            TargetSessionAttrs::ReadOnly => "read-only",
            TargetSessionAttrs::Primary => "primary",
            TargetSessionAttrs::Standby => "standby",
            TargetSessionAttrs::PreferStandby => "prefer-standby",
        }
    }
}

/// Whether SCRAM is bound to the server's certificate: libpq's `channel_binding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChannelBindingMode {
    /// Never.
    Disable,
    /// When the server offers it.
    #[default]
    Prefer,
    /// Always, or no connection.
    Require,
}

/// TCP keepalives; values in seconds, `None` for the system's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Keepalives {
    pub(crate) enabled: bool,
    pub(crate) idle: Option<u32>,
    pub(crate) interval: Option<u32>,
    pub(crate) count: Option<u32>,
    /// `tcp_user_timeout`, in milliseconds.
    pub(crate) user_timeout: Option<u32>,
}

/// A password that prints as stars.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Zeroizing<String>);

impl Password {
    pub(crate) fn new(text: impl Into<String>) -> Password {
        Password(Zeroizing::new(text.into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where to connect, as whom, and how. Never shows its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conninfo {
    hosts: Vec<Host>,
    user: String,
    dbname: Option<String>,
    password: Option<Password>,
    passfile: Option<Passfile>,
    ssl_mode: SslMode,
    ssl_files: SslFiles,
    channel_binding: ChannelBindingMode,
    connect_timeout: Option<Duration>,
    target_session_attrs: TargetSessionAttrs,
    application_name: Option<String>,
    options: Option<String>,
    keepalives: Keepalives,
}

/// The values that were given, and those of the environment for the rest.
struct Values<'a> {
    given: BTreeMap<Keyword, Zeroizing<String>>,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Values<'_> {
    /// A value; an empty one counts as not given, as with libpq.
    fn get(&self, keyword: Keyword) -> Option<String> {
        match self.given.get(&keyword) {
            Some(value) => Some(value.to_string()),
            None => keyword.variable().and_then(|name| (self.env)(name)),
        }
        .filter(|value| !value.is_empty())
    }

    fn number(&self, keyword: Keyword) -> Result<Option<i64>, ConninfoError> {
        let Some(text) = self.get(keyword) else { return Ok(None) };
        let number = text.trim().parse::<i64>();
        number.map(Some).map_err(|_| ConninfoError(format!("{} is not a whole number", keyword.name())))
    }

    /// A number that fits, or `None`; negative ones count as 0, as with libpq.
    fn count(&self, keyword: Keyword) -> Result<Option<u32>, ConninfoError> {
        Ok(self.number(keyword)?.map(|number| u32::try_from(number.max(0)).unwrap_or(u32::MAX)))
    }

    /// One of some words.
    fn word<T: Copy>(&self, keyword: Keyword, words: &[(&str, T)]) -> Result<Option<T>, ConninfoError> {
        let Some(text) = self.get(keyword) else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(ConninfoError(format!("{}=\"{text}\" is not known; it is one of {}", keyword.name(), known.join(", "))))
    }
}

impl Conninfo {
    /// Reads a connection string: `keyword=value …` or a URL. What it leaves open comes from libpq's variables,
    /// asked for with `env`, and then from libpq's defaults.
    ///
    /// Differences from libpq: without a host, `/run/postgresql` and then `/tmp` is tried; `connect_timeout` is 30 s
    /// when not set; keywords that would change security and are not there (`sslcrl`, `require_auth`, `service`, …) are
    /// refused instead of ignored.
    ///
    /// Errors: text that libpq refuses, and unknown keywords, with the nearest known one.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Conninfo, ConninfoError> {
        let mut given = BTreeMap::new();
        for (name, value) in syntax::split(text)? {
            let keyword = keyword::find(&name, &value)?;
            if let Some(keyword) = keyword {
                given.insert(keyword, value);
            }
        }
        Conninfo::from_values(&Values { given, env })
    }

    fn from_values(values: &Values<'_>) -> Result<Conninfo, ConninfoError> {
        let home = (values.env)("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let default = |name: &str| home.as_ref().map(|home| home.join(".postgresql").join(name));
        let optional = |keyword, name: &str| match (values.get(keyword), default(name)) {
            (Some(path), _) => OptionalFile::Named(path.into()),
            (None, Some(path)) => OptionalFile::Default(path),
            (None, None) => OptionalFile::None,
        };
        let root = match (values.get(Keyword::SslRootCert).as_deref(), default("root.crt")) {
            (Some("system"), _) => RootSource::System,
            (Some(path), _) => RootSource::File(path.into()),
            (None, Some(path)) => RootSource::DefaultFile(path),
            (None, None) => RootSource::None,
        };
        let ssl_mode = ssl_mode(values, &root)?;
        let ssl_files = SslFiles {
            root,
            certificate: optional(Keyword::SslCert, "postgresql.crt"),
            key: optional(Keyword::SslKey, "postgresql.key"),
        };
        let user = match values.get(Keyword::User) {
            Some(user) => user,
            None => host::system_user(values.env)?,
        };
        let passfile = match values.get(Keyword::Passfile) {
            Some(path) => Some(Passfile::named(path)),
            None => home.as_ref().map(|home| Passfile::default_place(home.join(".pgpass"))),
        };
        // 0 and below mean no limit.
        let connect_timeout = match values.number(Keyword::ConnectTimeout)? {
            None => Some(DEFAULT_CONNECT_TIMEOUT),
            Some(seconds) => u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs),
        };
        let bindings = [
            ("disable", ChannelBindingMode::Disable),
            ("prefer", ChannelBindingMode::Prefer),
            ("require", ChannelBindingMode::Require),
        ];
        let targets = TargetSessionAttrs::ALL.map(|target| (target.as_str(), target));
        Ok(Conninfo {
            hosts: host::hosts(
                values.get(Keyword::Host).as_deref(),
                values.get(Keyword::HostAddr).as_deref(),
                values.get(Keyword::Port).as_deref(),
            )?,
            user,
            dbname: values.get(Keyword::DbName),
            password: values.get(Keyword::Password).map(Password::new),
            passfile,
            ssl_mode,
            ssl_files,
            channel_binding: values.word(Keyword::ChannelBinding, &bindings)?.unwrap_or_default(),
            connect_timeout,
            target_session_attrs: values.word(Keyword::TargetSessionAttrs, &targets)?.unwrap_or_default(),
            application_name: values.get(Keyword::ApplicationName),
            options: values.get(Keyword::Options),
            keepalives: Keepalives {
                enabled: values.number(Keyword::Keepalives)? != Some(0),
                idle: values.count(Keyword::KeepalivesIdle)?,
                interval: values.count(Keyword::KeepalivesInterval)?,
                count: values.count(Keyword::KeepalivesCount)?,
                user_timeout: values.count(Keyword::TcpUserTimeout)?,
            },
        })
    }

    /// The hosts, in the order in which they are tried; at least one.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The same connection with only this host, to stay with one that was chosen.
    pub fn pinned(&self, host: &Host) -> Conninfo {
        Conninfo { hosts: vec![host.clone()], ..self.clone() }
    }

    /// The same connection to another database, as for a check that names its own.
    pub fn with_dbname(&self, dbname: impl Into<String>) -> Conninfo {
        Conninfo { dbname: Some(dbname.into()), ..self.clone() }
    }

    /// The user to connect as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database for SQL; `postgres` when none was given.
    pub fn dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or("postgres")
    }

    /// `sslmode`.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// `target_session_attrs`.
    pub fn target_session_attrs(&self) -> TargetSessionAttrs {
        self.target_session_attrs
    }

    /// `application_name`, if one was given. Connections use the name that their caller passes.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// `connect_timeout`: the time for one host, from the socket to the first command; `None` for no limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    pub(crate) fn ssl_files(&self) -> &SslFiles {
        &self.ssl_files
    }

    pub(crate) fn channel_binding(&self) -> ChannelBindingMode {
        self.channel_binding
    }

    pub(crate) fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    pub(crate) fn keepalives(&self) -> &Keepalives {
        &self.keepalives
    }

    /// Whether the connection string itself holds a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The password for a host, from the connection string or the password file.
    ///
    /// Errors: a sentence that says where to put it.
    pub(crate) fn password_for(&self, host: &Host, database: &str) -> Result<Password, String> {
        if let Some(password) = &self.password {
            return Ok(password.clone());
        }
        let Some(passfile) = &self.passfile else {
            return Err("the server asks for a password and none is known; set passfile or PGPASSWORD".to_owned());
        };
        passfile.find(host, database, &self.user)
    }

    /// The connection in libpq's syntax for messages: no password, no options.
    pub fn redacted(&self) -> String {
        let quote = |value: &str| {
            let plain = !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && c != '\'' && c != '\\');
            if plain { value.to_owned() } else { format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")) }
        };
        let list = |part: &dyn Fn(&Host) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        let mut text = format!(
            "host={} port={} user={}",
            quote(&list(&|host| host.name())),
            list(&|host| host.port.to_string()),
            quote(&self.user)
        );
        if let Some(dbname) = &self.dbname {
            text.push_str(&format!(" dbname={}", quote(dbname)));
        }
        if self.password.is_some() {
            text.push_str(" password=***");
        }
        text.push_str(&format!(" sslmode={}", self.ssl_mode.as_str()));
        text
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

fn ssl_mode(values: &Values<'_>, root: &RootSource) -> Result<SslMode, ConninfoError> {
    let modes = SslMode::ALL.map(|mode| (mode.as_str(), mode));
    match (values.word(Keyword::SslMode, &modes)?, root) {
        // Anybody can have a certificate from the system's authorities, so the name has to be checked (libpq 16).
        (None | Some(SslMode::VerifyFull), RootSource::System) => Ok(SslMode::VerifyFull),
        (Some(weak), RootSource::System) => Err(ConninfoError(format!(
            "sslmode={} is too weak for sslrootcert=system; use sslmode=verify-full",
            weak.as_str()
        ))),
        (mode, _) => Ok(mode.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
