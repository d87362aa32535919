//! What lets the archiver's role into the server: its SQL, and its lines in `pg_hba.conf` and `pg_ident.conf`.

use std::net::{IpAddr, UdpSocket};

use walseal_common::postgres::conninfo::{HostAddress, system_user};
use walseal_common::postgres::tls::SslMode;
use walseal_common::postgres::{Conninfo, Host, PostgresError};

/// A role, and the way that it comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    role: String,
    /// The database of ordinary connections, beside which replication is one of its own.
    database: String,
    way: Way,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Way {
    /// A Unix socket, from this user of the system, where its name is known.
    Socket { system_user: Option<String> },
    /// TCP, from this address.
    Tcp { from: Option<IpAddr>, tls: bool },
}

impl Admission {
    /// Of the role that `conninfo` names, over the first of its hosts.
    pub fn of(conninfo: &Conninfo) -> Admission {
        let way = match conninfo.hosts().first() {
            Some(host) if !host.is_unix() => {
                let from = own_address(host);
                let tls = conninfo.ssl_mode() != SslMode::Disable && from.is_none_or(|address| !address.is_loopback());
                Way::Tcp { from, tls }
            }
            _ => Way::Socket { system_user: system_user() },
        };
        Admission { role: conninfo.user().to_owned(), database: conninfo.dbname().to_owned(), way }
    }

    /// SQL that gives an existing role what it lacks.
    pub fn grant(&self) -> String {
        format!("ALTER ROLE {} LOGIN REPLICATION;", in_sql(&self.role))
    }

    /// SQL that makes the role.
    pub fn create(&self) -> String {
        format!("CREATE ROLE {} LOGIN REPLICATION;", in_sql(&self.role))
    }

    /// The line of `pg_hba.conf`. `replication` there means only replication, so that ordinary connections, which show
    /// what the server lacks, need their database beside it.
    pub fn hba(&self) -> String {
        let databases = format!("replication,{}", in_file(&self.database));
        let role = in_file(&self.role);
        match &self.way {
            Way::Socket { system_user: Some(user) } if *user != self.role => {
                format!("local  {databases}  {role}  peer map=walseal")
            }
            Way::Socket { .. } => format!("local  {databases}  {role}  peer"),
            Way::Tcp { from, tls } => {
                let kind = if *tls { "hostssl" } else { "host" };
                let address = match from {
                    Some(address @ IpAddr::V4(_)) => format!("{address}/32"),
                    Some(address @ IpAddr::V6(_)) => format!("{address}/128"),
                    None => "ADDRESS/32".to_owned(),
                };
                format!("{kind}  {databases}  {role}  {address}  scram-sha-256")
            }
        }
    }

    /// The line of `pg_ident.conf` that [`Admission::hba`] speaks of, where the role has another name than the system's user.
    pub fn ident(&self) -> Option<String> {
        match &self.way {
            Way::Socket { system_user: Some(user) } if *user != self.role => {
                Some(format!("walseal  {}  {}", in_file(user), in_file(&self.role)))
            }
            _ => None,
        }
    }

    /// What to do where the server does not let the role in.
    pub fn steps(&self) -> String {
        let mut text =
            format!("let it in, with this line in pg_hba.conf, above those that fit it, too:\n  {}", self.hba());
        if let Some(line) = self.ident() {
            text.push_str(&format!("\nand this one in pg_ident.conf:\n  {line}"));
        }
        if let Way::Tcp { from, .. } = self.way {
            if from.is_some_and(|address| !address.is_loopback()) {
                text.push_str("\n(the address as the server sees it; behind a proxy it is another one)");
            }
            text.push_str("\nand its password in a file that passfile= in cluster.conninfo names, mode 600");
        }
        text.push_str("\nthen, as a superuser: SELECT pg_reload_conf();");
        text
    }

    /// What to do about a connection that failed, the best first; nothing where it did not fail for a right that is missing.
    pub fn fixes(&self, error: &PostgresError) -> Vec<String> {
        if error.is_missing_privilege() {
            return vec![format!("as a superuser: {}", self.grant())];
        }
        if !error.is_authentication() {
            return Vec::new();
        }
        let routine = error.server().and_then(|error| error.routine.clone()).unwrap_or_default();
        match (error.sqlstate(), routine.as_str()) {
            // The role does not exist, or may not log in.
            (Some("28000"), "InitializeSessionUserId") => vec![
                format!("make the role, as a superuser: {}", self.create()),
                format!("where it is there and may not log in: {}", self.grant()),
            ],
            (Some("28P01"), _) => {
                vec![
                    "put the right password into the file that passfile= in cluster.conninfo names (mode 600; a line is \
                     host:port:*:role:password)"
                        .to_owned(),
                    format!("set another one: in psql, as a superuser, \\password {}", in_sql(&self.role)),
                ]
            }
            // On this side: what to do stands in the error itself.
            (None, _) => Vec::new(),
            _ => vec![self.steps(), format!("where the role is not there, first: {}", self.create())],
        }
    }
}

/// The address of this machine on its way to `host`; nothing is sent.
fn own_address(host: &Host) -> Option<IpAddr> {
    let HostAddress::Tcp { name, address } = &host.address else { return None };
    let connected = |from: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        match address {
            Some(address) => socket.connect((*address, host.port)).ok()?,
            None => socket.connect((name.as_str(), host.port)).ok()?,
        }
        Some(socket.local_addr().ok()?.ip())
    };
    connected("0.0.0.0:0").or_else(|| connected("[::]:0"))
}

/// A name in SQL, quoted where it must be.
fn in_sql(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A name in `pg_hba.conf`, quoted where it must be: also where it would be a keyword or a pattern there.
fn in_file(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let keyword = ["all", "replication", "sameuser", "samerole", "samegroup"].contains(&name);
    if plain && !keyword { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(role: &str, user: Option<&str>) -> Admission {
        let way = Way::Socket { system_user: user.map(str::to_owned) };
        Admission { role: role.to_owned(), database: "postgres".to_owned(), way }
    }

    fn tcp(conninfo: &str) -> Admission {
        Admission::of(&Conninfo::parse(conninfo, &|_| None).expect("a connection string"))
    }

    #[test]
    fn over_the_socket_peer_wants_the_systems_user_or_a_map_to_it() {
        let same = socket("walseal", Some("walseal"));
        assert_eq!((same.hba().as_str(), same.ident()), ("local  replication,postgres  walseal  peer", None));
        let other = socket("walseal", Some("postgres"));
        assert_eq!(other.hba(), "local  replication,postgres  walseal  peer map=walseal");
        assert_eq!(other.ident().as_deref(), Some("walseal  postgres  walseal"));
        assert!(other.steps().contains("pg_ident.conf:\n  walseal  postgres  walseal\nthen"), "{}", other.steps());
        assert_eq!(socket("walseal", None).hba(), same.hba());
    }

    #[test]
    fn over_tcp_it_is_a_password_over_tls_from_this_address() {
        let local = tcp("host=127.0.0.1 user=walseal");
        assert_eq!(local.hba(), "host  replication,postgres  walseal  127.0.0.1/32  scram-sha-256");
        assert_eq!(local.ident(), None);
        let far = Admission {
            way: Way::Tcp { from: Some("2001:db8::7".parse().expect("an address")), tls: true },
            ..local.clone()
        };
        assert_eq!(far.hba(), "hostssl  replication,postgres  walseal  2001:db8::7/128  scram-sha-256");
        assert!(far.steps().contains("as the server sees it") && far.steps().contains("passfile="), "{}", far.steps());
        assert!(!local.steps().contains("as the server sees it"), "{}", local.steps());
        assert!(tcp("host=127.0.0.1 user=walseal dbname=shop").hba().contains("replication,shop"));
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        let odd = Admission { database: "replication".to_owned(), ..socket("Wal \"x\"", None) };
        assert_eq!(odd.create(), "CREATE ROLE \"Wal \"\"x\"\"\" LOGIN REPLICATION;");
        assert!(odd.hba().starts_with("local  replication,\"replication\"  \"Wal "), "{}", odd.hba());
        assert_eq!(socket("wal-seal", None).grant(), "ALTER ROLE \"wal-seal\" LOGIN REPLICATION;");
        assert!(socket("wal-seal", None).hba().contains(" wal-seal "));
    }
}
