//! How a cluster of a test is to be.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use walseal_common::segment::SegmentSize;

use crate::cluster::Cluster;
use crate::port;
use crate::scratch::Scratch;
use crate::server::Server;
use crate::template::Kind;
use crate::tls::Certificates;

/// How a client proves over TCP who it is. Each way has a role of its own, named for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// SCRAM-SHA-256; role `scram`.
    Scram,
    /// PostgreSQL's md5; role `md5`.
    Md5,
    /// The password in clear; role `password`.
    Password,
    /// A client certificate over TLS; role `cert`.
    Cert,
}

impl Access {
    /// The database role that must come this way. It may log in, replicate, and is a superuser.
    pub fn role(self) -> &'static str {
        match self {
            Access::Scram => "scram",
            Access::Md5 => "md5",
            Access::Password => "password",
            Access::Cert => Certificates::CLIENT_ROLE,
        }
    }

    /// The role's password, with characters that need quoting.
    pub fn password(self) -> String {
        format!("the 'pass\\word' of {}", self.role())
    }

    fn method(self) -> &'static str {
        match self {
            Access::Scram => "scram-sha-256",
            Access::Md5 => "md5",
            Access::Password => "password",
            Access::Cert => "cert",
        }
    }
}

/// TLS of a cluster's TCP side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// The server has none.
    Off,
    /// The client decides.
    Offered,
    /// A connection without TLS is refused.
    Required,
}

/// A cluster to be made: on a Unix socket, trusting, with checksums, `wal_level = replica`, commit
/// timestamps, and without fsync.
#[derive(Debug)]
pub struct ClusterBuilder {
    scratch: Option<Arc<Scratch>>,
    major: Option<u16>,
    segment: SegmentSize,
    settings: Vec<(String, String)>,
    access: Vec<Access>,
    tls: Tls,
    stranger: bool,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        let settings = [
            ("wal_level", "replica"),
            ("max_wal_senders", "8"),
            ("max_replication_slots", "8"),
            ("max_connections", "40"),
            ("shared_buffers", "16MB"),
            ("track_commit_timestamp", "on"),
            ("fsync", "off"),
            ("listen_addresses", ""),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%a "),
        ];
        ClusterBuilder {
            scratch: None,
            major: None,
            segment: SegmentSize::DEFAULT,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            access: Vec::new(),
            tls: Tls::Off,
            stranger: false,
        }
    }
}

impl ClusterBuilder {
    /// In this test's folder, beside what is there, instead of one of its own.
    pub fn inside(mut self, scratch: &Arc<Scratch>) -> Self {
        self.scratch = Some(scratch.clone());
        self
    }

    /// Of this major, whatever [`Server::default_major`] is.
    pub fn major(mut self, major: u16) -> Self {
        self.major = Some(major);
        self
    }

    /// With segments of this size.
    pub fn segment(mut self, size: SegmentSize) -> Self {
        self.segment = size;
        self
    }

    /// With segments of so many MiB, which must be a legal size.
    pub fn segment_mib(self, mebibytes: u64) -> Self {
        let size = SegmentSize::new(mebibytes << 20);
        debug_assert!(size.is_ok(), "{mebibytes} MiB is no segment size");
        self.segment(size.unwrap_or(SegmentSize::DEFAULT))
    }

    /// With a line in `postgresql.conf`; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With fsync, as a test needs that kills the server and looks at what is left.
    pub fn durable(self) -> Self {
        self.setting("fsync", "on")
    }

    /// Reachable over TCP on loopback, by these ways only.
    pub fn tcp(mut self, access: &[Access], tls: Tls) -> Self {
        self.access = access.to_vec();
        self.tls = tls;
        self.setting("listen_addresses", "127.0.0.1")
    }

    /// With a system identifier that no other cluster has. Clusters of one kind share theirs otherwise.
    pub fn stranger(mut self) -> Self {
        self.stranger = true;
        self
    }

    /// Makes the cluster and starts it.
    pub fn start(self) -> Result<Cluster> {
        let mut cluster = self.build()?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Makes the cluster; its server does not run yet.
    pub fn build(self) -> Result<Cluster> {
        let scratch = match &self.scratch {
            Some(scratch) => scratch.clone(),
            None => Scratch::new()?,
        };
        let major = self.major.map_or_else(Server::default_major, Ok)?;
        let kind = Kind { server: Server::find(major)?, segment: self.segment };
        let name = free_name(scratch.path());
        let data = scratch.path().join(&name);
        if self.stranger {
            kind.initdb(&scratch, &data)?;
        } else {
            kind.copy_to(&scratch, &data)?;
        }
        // Copies share their port number: the socket's folder tells them apart. Over TCP it must be free.
        let port = if self.access.is_empty() { 5432 } else { port::free()? };
        let sockets = scratch.dir(&format!("{name}.s"))?;
        let mut lines = String::new();
        for (setting, value) in &self.settings {
            writeln!(lines, "{setting} = {}", quoted(value))?;
        }
        writeln!(lines, "unix_socket_directories = {}\nport = {port}", quoted(&sockets.to_string_lossy()))?;
        if self.tls != Tls::Off {
            self.install_tls(&scratch, &data, &mut lines)?;
        }
        append(&data.join("postgresql.conf"), &lines)?;
        self.write_access(&data)?;
        Ok(Cluster::new(scratch, kind.server, data, sockets, port, self.access))
    }

    fn install_tls(&self, scratch: &Scratch, data: &Path, lines: &mut String) -> Result<()> {
        let certificates = Certificates::make(scratch)?;
        let files = [
            (certificates.server(), "server.crt"),
            (certificates.server_key(), "server.key"),
            (certificates.authority(), "ca.crt"),
        ];
        for (from, name) in files {
            let to = data.join(name);
            std::fs::copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600))
                .with_context(|| format!("setting the permissions of {}", to.display()))?;
            scratch.account().own(&to)?;
        }
        writeln!(lines, "ssl = on\nssl_ca_file = 'ca.crt'")?;
        Ok(())
    }

    /// `pg_hba.conf`: everybody over the socket, and over TCP each role by its way.
    fn write_access(&self, data: &Path) -> Result<()> {
        let mut lines = "local all all trust\nlocal replication all trust\n".to_owned();
        for access in &self.access {
            let required = self.tls == Tls::Required || *access == Access::Cert;
            let kind = if required { "hostssl" } else { "host" };
            for database in ["all", "replication"] {
                writeln!(lines, "{kind} {database} {} 127.0.0.1/32 {}", access.role(), access.method())?;
            }
        }
        let path = data.join("pg_hba.conf");
        std::fs::write(&path, lines).with_context(|| format!("writing {}", path.display()))
    }
}

/// The first of `data`, `data2`, `data3`, … that is not there.
fn free_name(folder: &Path) -> String {
    let mut name = "data".to_owned();
    let mut number = 1;
    while folder.join(&name).exists() {
        number += 1;
        name = format!("data{number}");
    }
    name
}

/// A value as `postgresql.conf` wants it.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Adds text at the end of a file that is there.
pub fn append(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("writing {}", path.display()))
}
