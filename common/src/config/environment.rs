//! The environment: `WALSEAL_*`, and names that platforms inject.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::ConfigError;
use super::key::{self, KEYS};
use super::layers::{Layers, Raw};
use super::origin::Origin;
use crate::nearest;
use crate::secret::Secret;

/// Variables that start with `WALSEAL_` and are no keys.
const CONTROL: &[&str] = &["WALSEAL_CONFIG", "WALSEAL_LOG", "WALSEAL_TOOLS"];
/// What such variables may also start with.
const CONTROL_PREFIXES: &[&str] = &["WALSEAL_TEST_", "WALSEAL_BENCH_", "WALSEAL_ALERT_"];

/// Names that platforms inject, and the keys they set; earlier lines win. Credentials are not here: they come in
/// groups (see [`CREDENTIALS`]).
const PLATFORM: &[(&str, &str)] = &[
    ("DATABASE_URL", "cluster.conninfo"),
    ("S3_ENDPOINT", "repository.s3.endpoint"),
    ("AWS_ENDPOINT_URL_S3", "repository.s3.endpoint"),
    ("AWS_ENDPOINT_URL", "repository.s3.endpoint"),
    ("S3_REGION", "repository.s3.region"),
    ("AWS_REGION", "repository.s3.region"),
    ("AWS_DEFAULT_REGION", "repository.s3.region"),
    ("AWS_CA_BUNDLE", "repository.s3.ca_file"),
];

/// Groups of credentials; a group counts only as a whole, so that no secret is tried with another's access key.
const CREDENTIALS: &[&[(&str, &str)]] = &[
    &[("S3_ACCESS_KEY_ID", "repository.s3.access_key_id"), ("S3_SECRET_ACCESS_KEY", "repository.s3.secret_access_key")],
    &[
        ("AWS_ACCESS_KEY_ID", "repository.s3.access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "repository.s3.secret_access_key"),
        ("AWS_SESSION_TOKEN", "repository.s3.session_token"),
    ],
];

/// Keys of our own that are credentials: where one is set, no injected group is used.
const OWN_CREDENTIALS: &[&str] = &[
    "repository.s3.access_key_id",
    "repository.s3.access_key_id_file",
    "repository.s3.secret_access_key",
    "repository.s3.secret_access_key_file",
    "repository.s3.session_token",
    "repository.s3.session_token_file",
];

/// libpq's variables and the connection keywords they are defaults of (PostgreSQL documentation, "Environment
/// Variables" of libpq). `PGAPPNAME` is left out: the application name is walseal's own.
const LIBPQ: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGSERVICEFILE", "servicefile"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
];

/// Those of them that say which server is meant: one is enough for a connection without a conninfo.
const LIBPQ_PLACE: &[&str] = &["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"];

/// A default of a connection keyword, from the environment. It holds where the conninfo does not name the keyword.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibpqDefault {
    /// The keyword: `host`.
    pub keyword: &'static str,
    /// The variable it came from: `PGHOST`.
    pub variable: &'static str,
    /// Its value; a password may be among them.
    pub value: Secret,
}

/// Variables of the environment, as a value, so that tests can make one.
///
/// An empty variable counts as one that is not set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    /// Names only: values may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Environment {
    /// The environment of this process. Errors: a variable that matters to walseal is not UTF-8; others that are
    /// not are left out.
    pub fn of_this_process() -> Result<Environment, ConfigError> {
        Environment::from_os(std::env::vars_os())
    }

    fn from_os(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment, ConfigError> {
        let mut known = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    known.insert(name, value);
                }
                Err(_) if matters(&name) => return Err(ConfigError::NotText { name }),
                Err(_) => {}
            }
        }
        Ok(Environment(known))
    }

    /// The variable `name`, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Adds every `WALSEAL_*` variable to `layers`. Errors: one that is no key's.
    pub(super) fn read_own(&self, layers: &mut Layers) -> Result<(), ConfigError> {
        for (name, value) in self.0.iter().filter(|(name, _)| name.starts_with("WALSEAL_")) {
            let control = CONTROL.contains(&name.as_str())
                || CONTROL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || is_service_link(name);
            if control {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            let Some(key) = KEYS.iter().find(|key| key.kind.fits_a_variable() && key.variable() == *name) else {
                return Err(unknown_variable(name));
            };
            if !value.is_empty() {
                layers.add(key, Raw::word(value), origin);
            }
        }
        Ok(())
    }

    /// Adds what platforms inject. Runs last: it fills in only what nobody set.
    pub(super) fn read_platform(&self, layers: &mut Layers) {
        let mut add = |name: &str, path: &str, value: &str| {
            if let Some(key) = key::find(path) {
                layers.add(key, Raw::word(value), Origin::Variable(name.to_owned()));
            }
        };
        for (name, path) in PLATFORM {
            if let Some(value) = self.get(name) {
                add(name, path, value);
            }
        }
        if let Some(bucket) = self.get("S3_BUCKET") {
            let prefix = self.get("S3_PREFIX").unwrap_or("").trim_matches('/');
            let slash = if prefix.is_empty() { "" } else { "/" };
            add("S3_BUCKET", "repository.url", &format!("s3://{bucket}{slash}{prefix}"));
        }
        if OWN_CREDENTIALS.iter().any(|path| layers.has(path)) {
            return;
        }
        let group = CREDENTIALS.iter().find(|group| group.iter().any(|(name, _)| self.get(name).is_some()));
        for (name, path) in group.copied().unwrap_or_default() {
            if let (Some(value), Some(key)) = (self.get(name), key::find(path)) {
                layers.add(key, Raw::word(value), Origin::Variable((*name).to_owned()));
            }
        }
    }

    /// libpq's defaults of connection keywords.
    pub(super) fn libpq_defaults(&self) -> Vec<LibpqDefault> {
        let default = |&(variable, keyword): &(&'static str, &'static str)| {
            self.get(variable).map(|value| LibpqDefault { keyword, variable, value: Secret::new(value) })
        };
        LIBPQ.iter().filter_map(default).collect()
    }

    /// The first of libpq's variables that says which server is meant.
    pub(super) fn libpq_place(&self) -> Option<&'static str> {
        LIBPQ_PLACE.iter().find(|name| self.get(name).is_some()).copied()
    }
}

fn matters(name: &str) -> bool {
    let listed = |list: &[(&str, &str)]| list.iter().any(|(known, _)| *known == name);
    name.starts_with("WALSEAL_") || name.starts_with("S3_") || listed(PLATFORM) || listed(LIBPQ) || {
        CREDENTIALS.iter().any(|group| listed(group))
    }
}

/// Kubernetes and Docker links put a service's address into the environment of other containers: a service named
/// `walseal-archiver` makes `WALSEAL_ARCHIVER_SERVICE_HOST` and `WALSEAL_ARCHIVER_PORT_9187_TCP`.
fn is_service_link(name: &str) -> bool {
    let protocol = |rest: &str| {
        rest.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok())
            && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.contains(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| protocol(rest))
}

fn unknown_variable(name: &str) -> ConfigError {
    let fix = match KEYS.iter().find(|key| key.variable() == name) {
        Some(table) => format!("{} is a table, which only the configuration file can set", table.path),
        None => {
            // Without the prefix, which would make any two of them look alike.
            let own = |name: &str| name.strip_prefix("WALSEAL_").unwrap_or(name).to_owned();
            let keys = KEYS.iter().filter(|key| key.kind.fits_a_variable()).map(|key| own(&key.variable()));
            let known: Vec<String> = keys.chain(CONTROL.iter().copied().map(own)).collect();
            match nearest::of(&own(name), known.iter().map(String::as_str)) {
                Some(near) => format!("use the nearest known one, WALSEAL_{near}, or unset it"),
                None => "unset it, or see docs/CONFIGURATION.md for the known ones".to_owned(),
            }
        }
    };
    let origin = Origin::Variable("environment".to_owned());
    ConfigError::Unknown { origin, what: "variable", name: name.to_owned(), fix }
}
