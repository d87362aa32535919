//! The same connection for a program that uses libpq: in its environment, never on its command line, which everybody reads.

use std::ffi::OsString;

use super::{ChannelBindingMode, Conninfo, Host, HostAddress, OptionalFile, Password, RootSource};

/// Variables of libpq that could lead elsewhere, or look in another place.
const OTHERS: [&str; 8] = [
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGTARGETSESSIONATTRS",
    "PGHOSTADDR",
    "PGPASSWORD",
    "PGOPTIONS",
    "PGSSLCRL",
    "PGSSLNEGOTIATION",
];

impl Conninfo {
    /// Variables for a program that is to connect to `host` and `database` as this does, and those that must not be set (`None`).
    /// The password, where it is known from the connection string, is among them: a process's environment is readable by its
    /// user alone.
    pub fn libpq_environment(
        &self,
        host: &Host,
        database: &str,
        application_name: &str,
    ) -> Vec<(&'static str, Option<OsString>)> {
        let mut variables: Vec<(&'static str, Option<OsString>)> = OTHERS.iter().map(|name| (*name, None)).collect();
        let mut set = |name: &'static str, value: OsString| {
            variables.retain(|(other, _)| *other != name);
            variables.push((name, Some(value)));
        };
        match &host.address {
            HostAddress::Unix(folder) => set("PGHOST", folder.clone().into_os_string()),
            HostAddress::Tcp { name, address } => {
                set("PGHOST", if name.is_empty() { host.name().into() } else { name.into() });
                if let Some(address) = address {
                    set("PGHOSTADDR", address.to_string().into());
                }
            }
        }
        set("PGPORT", host.port.to_string().into());
        set("PGUSER", self.user.clone().into());
        set("PGDATABASE", database.into());
        set("PGAPPNAME", application_name.into());
        set("PGSSLMODE", self.ssl_mode.as_str().into());
        let binding = match self.channel_binding {
            ChannelBindingMode::Disable => "disable",
            ChannelBindingMode::Prefer => "prefer",
            ChannelBindingMode::Require => "require",
        };
        set("PGCHANNELBINDING", binding.into());
        if let Some(limit) = self.connect_timeout {
            set("PGCONNECT_TIMEOUT", limit.as_secs().max(1).to_string().into());
        }
        if let Some(options) = &self.options {
            set("PGOPTIONS", options.into());
        }
        match &self.ssl_files.root {
            RootSource::System => set("PGSSLROOTCERT", "system".into()),
            RootSource::File(path) | RootSource::DefaultFile(path) => set("PGSSLROOTCERT", path.into()),
            RootSource::None => {}
        }
        for (name, file) in [("PGSSLCERT", &self.ssl_files.certificate), ("PGSSLKEY", &self.ssl_files.key)] {
            if let OptionalFile::Named(path) | OptionalFile::Default(path) = file {
                set(name, path.into());
            }
        }
        if let Some(Password(text)) = &self.password {
            set("PGPASSWORD", text.as_str().into());
        }
        if let Some(passfile) = &self.passfile {
            set("PGPASSFILE", passfile.path().into());
        }
        variables
    }
}

/// A database as a connection string that names nothing else: for programs that take one only on the command line.
pub fn database_conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_libpq_connects_as_we_do() {
        let text = "host=db1,db2 port=6543 user=reader password=hunter2 sslmode=require options='-c work_mem=1MB'";
        let conninfo = Conninfo::parse(text, &|_| None).expect("a connection string");
        let host = conninfo.hosts().last().expect("two hosts").clone();
        let variables = conninfo.libpq_environment(&host, "a=b'c", "walseal");
        let value = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.and_then(|(_, value)| value.clone()).map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(value("PGHOST").as_deref(), Some("db2"));
        assert_eq!(value("PGPORT").as_deref(), Some("6543"));
        assert_eq!(value("PGDATABASE").as_deref(), Some("a=b'c"));
        assert_eq!(value("PGPASSWORD").as_deref(), Some("hunter2"));
        assert_eq!(value("PGSSLMODE").as_deref(), Some("require"));
        assert_eq!(value("PGOPTIONS").as_deref(), Some("-c work_mem=1MB"));
        // What this process was started with does not lead its children elsewhere.
        assert!(variables.contains(&("PGSERVICE", None)), "{:?}", variables.len());
        assert_eq!(database_conninfo("a=b'c\\"), "dbname='a=b\\'c\\\\'");
    }
}
