//! Hosts: Unix sockets and TCP.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use super::ConninfoError;

/// PostgreSQL's port when none is given.
const DEFAULT_PORT: u16 = 5432;
/// Where servers keep their sockets: Debian's place, then PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// One host of a connection string.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    /// Where it is.
    pub address: HostAddress,
    /// Its port; with a Unix socket the number in the socket's name.
    pub port: u16,
}

/// How a host is reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HostAddress {
    /// The directory of a Unix socket; one that starts with `@` is in the abstract name space.
    Unix(PathBuf),
    /// TCP.
    Tcp {
        /// The name: looked up, unless there is an address, and checked by `verify-full`. Empty with `hostaddr` alone.
        name: String,
        /// `hostaddr`.
        address: Option<IpAddr>,
    },
}

impl Host {
    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.address, HostAddress::Unix(_))
    }

    /// The value of libpq's `host` for this one.
    pub fn name(&self) -> String {
        match &self.address {
            HostAddress::Unix(directory) => directory.display().to_string(),
            HostAddress::Tcp { name, address: Some(address) } if name.is_empty() => address.to_string(),
            HostAddress::Tcp { name, .. } => name.clone(),
        }
    }

    /// Path of the Unix socket; empty for TCP. A leading `@` becomes the zero byte of the abstract name space.
    pub(crate) fn socket_path(&self) -> PathBuf {
        let HostAddress::Unix(directory) = &self.address else { return PathBuf::new() };
        let path = directory.join(format!(".s.PGSQL.{}", self.port));
        match path.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => path,
        }
    }

    /// Whether the password file calls this host `localhost`: a socket at its default place.
    pub(super) fn is_default_socket(&self) -> bool {
        matches!(&self.address, HostAddress::Unix(directory)
            if SOCKET_DIRECTORIES.iter().any(|known| directory.as_os_str() == *known)
                || directory.as_os_str() == "/var/run/postgresql")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            HostAddress::Unix(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
            HostAddress::Tcp { name, address: Some(address) } if !name.is_empty() => {
                write!(f, "{name} ({address}):{}", self.port)
            }
            HostAddress::Tcp { address: Some(IpAddr::V6(address)), .. } => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.name(), self.port),
        }
    }
}

/// Hosts from libpq's three lists.
///
/// Errors: lists of different lengths, ports and addresses that are none.
pub(super) fn hosts(
    names: Option<&str>,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Host>, ConninfoError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map(|text| text.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        let why = format!("host names {} hosts and hostaddr {}", names.len(), addresses.len());
        return Err(ConninfoError(why));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConninfoError(format!("port names {} ports for {count} hosts", ports.len())));
    }
    let mut hosts = Vec::new();
    for index in 0..count {
        let port =
            match ports.get(index).or_else(|| ports.first()).map_or("", String::as_str) {
                "" => DEFAULT_PORT,
                text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                    ConninfoError(format!("\"{text}\" is not a port; expected a number from 1 to 65535"))
                })?,
            };
        let name = names.get(index).cloned().unwrap_or_default();
        let address = addresses.get(index).cloned().unwrap_or_default();
        if !address.is_empty() {
            let address = address.parse().map_err(|_| {
                ConninfoError(format!("hostaddr \"{address}\" is not an IP address; use host for names"))
            })?;
            hosts.push(Host { address: HostAddress::Tcp { name, address: Some(address) }, port });
        } else if name.is_empty() {
            hosts.extend(SOCKET_DIRECTORIES.map(|path| Host { address: HostAddress::Unix(path.into()), port }));
        } else if name.starts_with('/') || name.starts_with('@') {
            hosts.push(Host { address: HostAddress::Unix(name.into()), port });
        } else {
            hosts.push(Host { address: HostAddress::Tcp { name, address: None }, port });
        }
    }
    Ok(hosts)
}

/// The name of the user that this process runs as, which is the default for `user`.
pub(super) fn system_user(env: &dyn Fn(&str) -> Option<String>) -> Result<String, ConninfoError> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let from_passwd = fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        let mut lines = text.lines().map(|line| line.split(':'));
        lines.find_map(|mut fields| (fields.clone().nth(2) == Some(&uid)).then(|| fields.next().map(str::to_owned))?)
    });
    // Users of a directory service are not in the file.
    from_passwd
        .or_else(|| env("USER"))
        .or_else(|| env("LOGNAME"))
        .filter(|user| !user.is_empty())
        .ok_or_else(|| ConninfoError(format!("user is missing, and uid {uid} has no name in /etc/passwd; set user")))
}
