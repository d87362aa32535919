//! The keywords of a connection string.

use super::ConninfoError;

macro_rules! keywords {
    ($($variant:ident $name:literal $variable:expr;)*) => {
        /// A keyword that means something here.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(super) enum Keyword { $($variant),* }

        const KNOWN: &[Keyword] = &[$(Keyword::$variant),*];

        impl Keyword {
            pub(super) const fn name(self) -> &'static str {
                match self { $(Keyword::$variant => $name),* }
            }

            /// libpq's environment variable for it (PostgreSQL documentation, chapter 34.15).
            pub(super) const fn variable(self) -> Option<&'static str> {
                match self { $(Keyword::$variant => $variable),* }
            }
        }
    };
}

keywords! {
    Host "host" Some("PGHOST");
    HostAddr "hostaddr" Some("PGHOSTADDR");
    Port "port" Some("PGPORT");
    DbName "dbname" Some("PGDATABASE");
    User "user" Some("PGUSER");
    Password "password" Some("PGPASSWORD");
    Passfile "passfile" Some("PGPASSFILE");
    ChannelBinding "channel_binding" Some("PGCHANNELBINDING");
    ConnectTimeout "connect_timeout" Some("PGCONNECT_TIMEOUT");
    Options "options" Some("PGOPTIONS");
    ApplicationName "application_name" Some("PGAPPNAME");
    Keepalives "keepalives" None;
    KeepalivesIdle "keepalives_idle" None;
    KeepalivesInterval "keepalives_interval" None;
    KeepalivesCount "keepalives_count" None;
    TcpUserTimeout "tcp_user_timeout" None;
    SslMode "sslmode" Some("PGSSLMODE");
    SslCert "sslcert" Some("PGSSLCERT");
    SslKey "sslkey" Some("PGSSLKEY");
    SslRootCert "sslrootcert" Some("PGSSLROOTCERT");
    TargetSessionAttrs "target_session_attrs" Some("PGTARGETSESSIONATTRS");
}

/// Keywords of libpq that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcertmode",
    "sslcompression",
    "sslsni",
];

/// Keywords of libpq with the only value that is the same as not giving them.
const ONLY_DEFAULT: &[(&str, &[&str])] = &[
    ("gssencmode", &["disable", "prefer"]),
    ("load_balance_hosts", &["disable"]),
    ("max_protocol_version", &["3.0", "latest"]),
    ("min_protocol_version", &["3.0"]),
    ("replication", &["false", "off", "no", "0"]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
    ("ssl_min_protocol_version", &["TLSv1.2"]),
    ("sslnegotiation", &["postgres"]),
];

/// Keywords of libpq that are refused, because ignoring them would do something else than was asked for.
const REFUSED: &[&str] = &[
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
];

/// The keyword of that name; `None` for one that changes nothing.
///
/// Errors: names that libpq does not know, with the nearest that it does; names that are not supported.
pub(super) fn find(name: &str, value: &str) -> Result<Option<Keyword>, ConninfoError> {
    if let Some(keyword) = KNOWN.iter().find(|keyword| keyword.name() == name) {
        return Ok(Some(*keyword));
    }
    if WITHOUT_EFFECT.contains(&name) {
        return Ok(None);
    }
    if let Some((_, defaults)) = ONLY_DEFAULT.iter().find(|(known, _)| *known == name) {
        if value.is_empty() || defaults.contains(&value) {
            return Ok(None);
        }
        return Err(ConninfoError(format!("{name} can only be {} here", defaults.join(" or "))));
    }
    if REFUSED.contains(&name) {
        return Err(ConninfoError(format!("{name} is not supported here; remove it")));
    }
    let nearest = KNOWN
        .iter()
        .map(|keyword| (strsim::damerau_levenshtein(name, keyword.name()), keyword.name()))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    Err(ConninfoError(match nearest {
        Some((_, nearest)) => format!("\"{name}\" is not a keyword; did you mean \"{nearest}\"?"),
        None => format!("\"{name}\" is not a keyword"),
    }))
}
