//! The configuration as a whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documentation;
mod layers;
mod messages;
mod properties;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// An example with every table.
const EXAMPLE: &str = r#"
[cluster]
name = "orders"
conninfo = "host=/run/postgresql user=walseal"
state_dir = "/var/lib/walseal/orders"

[repository]
url = "s3://acme-pg/orders"
[repository.s3]
endpoint = "https://s3.example.net"

[keys]
recipients = ["walseal1one", "walseal1two"]
writer_key_file = "/etc/walseal/writer.key"
identity_files = ["/etc/walseal/identity.key"]
trusted_writers = ["walsealw1one", { key = "walsealw1two", roles = ["drill"] }]

[wal]
enabled = true
ship_interval = "1s"
synchronous = false
stall_limit = "5s"
shutdown_wait = "10s"
[base]
schedule = "0 2 * * *"
full_every = "7d"
max_rate = "0"
[retention]
window = "14d"
daily = 7
weekly = 4
monthly = 0
min_proven = 1
[fetch]
retry = "5m"
retry_standby = "10s"
[drill]
schedule = "30 4 * * *"
scratch_dir = "/var/tmp/walseal"
[[drill.checks]]
name = "orders are there"
database = "shop"
sql = "select count(*) > 1000000 from orders"
expect = "t"
[snapshot]
schedule = "0 3 * * *"
last = 3
"#;

fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut sources = Sources::new(variables.iter().copied().collect());
    sources.default_file = PathBuf::from("/nowhere/walseal.toml");
    Config::load(&sources)
}

/// What a person reads when `toml` is the configuration file.
fn complaint(toml: &str) -> String {
    Config::from_toml(toml).expect_err("a wrong configuration").to_string()
}

/// What a person reads when these variables are set.
fn variable_complaint(variables: &[(&str, &str)]) -> String {
    from_environment(variables).expect_err("a wrong environment").to_string()
}

/// A folder with a configuration file.
fn with_file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("walseal.toml");
    fs::write(&path, text).expect("write the file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set the mode");
    (folder, path)
}
