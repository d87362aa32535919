//! A real server for the tests of this room: its own folder below /tmp, stopped and removed when dropped, also by a
//! test that panics.

#![allow(clippy::expect_used, clippy::panic)]

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::conninfo::Conninfo;
use super::programs;

/// The major of clusters that are not asked to be of another.
const DEFAULT_MAJOR: u32 = 15;

/// Lines that every test server has.
const CONFIGURATION: &str = "fsync = off\nwal_level = replica\nmax_wal_senders = 8\nmax_replication_slots = 8\n\
    hot_standby = on\nshared_buffers = 16MB\nautovacuum = off\nlc_messages = 'C'\nlisten_addresses = '127.0.0.1'\n\
    wal_keep_size = 0\ncheckpoint_timeout = 1h\nlogging_collector = off\n";

pub(super) struct TestCluster {
    major: u32,
    folder: tempfile::TempDir,
    port: u16,
    running: bool,
}

/// A command that runs as a user PostgreSQL accepts.
pub(super) fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A program of the server: from `WALSEAL_TEST_PG<major>_BIN`, or where Debian puts it.
fn program_of(major: u32, name: &str) -> PathBuf {
    let variable = format!("WALSEAL_TEST_PG{major}_BIN");
    match programs::find(name, major, env::var_os(&variable).map(PathBuf::from).as_deref()) {
        Ok(found) => found.path,
        Err(error) => panic!("{error}; for tests, run: export {variable}=$(scripts/fetch-postgres {major})"),
    }
}

/// Runs to the end. Panics with the command's stderr when it fails.
pub(super) fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    output
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A folder that the server's user owns.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("walseal-pg-").tempdir_in("/tmp").expect("a folder in /tmp");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions set");
    if rustix::process::geteuid().is_root() {
        let id = |flag: &str| {
            let output = run(Command::new("id").args([flag, "postgres"]));
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
        };
        chown(folder.path(), Some(id("-u")), Some(id("-g"))).expect("owner set");
    }
    folder
}

impl TestCluster {
    /// A new primary. `settings` are lines of postgresql.conf, `initdb` further arguments.
    pub(super) fn new(settings: &str, initdb: &[&str]) -> TestCluster {
        TestCluster::of(DEFAULT_MAJOR, settings, initdb)
    }

    /// A new primary of another major.
    pub(super) fn of(major: u32, settings: &str, initdb: &[&str]) -> TestCluster {
        let cluster = TestCluster { major, folder: folder(), port: free_port(), running: false };
        let mut command = as_postgres(&cluster.program("initdb"));
        command.args(["-A", "trust", "-U", "postgres", "--no-sync", "--no-instructions", "--locale=C", "-k", "-D"]);
        run(command.arg(cluster.data()).args(initdb).current_dir("/tmp"));
        cluster.append("postgresql.conf", CONFIGURATION);
        cluster.append("postgresql.conf", settings);
        let mut cluster = cluster;
        cluster.start();
        cluster
    }

    /// A standby of this one, streaming.
    pub(super) fn standby(&self) -> TestCluster {
        let mut standby = TestCluster { major: self.major, folder: folder(), port: free_port(), running: false };
        let mut command = as_postgres(&self.program("pg_basebackup"));
        command.args(["-c", "fast", "-R", "-X", "stream", "-D"]).arg(standby.data());
        run(command.arg("-d").arg(self.text("user=postgres")).current_dir("/tmp"));
        standby.start();
        standby
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        program_of(self.major, name)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Adds to a file of the data directory, as its owner.
    pub(super) fn append(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        let old = fs::read_to_string(&path).unwrap_or_default();
        self.write(&path, &format!("{old}{text}"), 0o600);
    }

    /// Writes a file that the server's user owns.
    pub(super) fn write(&self, path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("written");
        let owner = fs::metadata(self.path()).expect("the folder is there");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("owner set");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions set");
    }

    fn control(&self, arguments: &[&str]) -> Output {
        let mut command = as_postgres(&self.program("pg_ctl"));
        command.arg("-D").arg(self.data()).args(["-w", "-t", "60"]).args(arguments).current_dir("/tmp");
        command.output().expect("pg_ctl starts")
    }

    pub(super) fn start(&mut self) {
        let log = self.path().join("log");
        let log = log.to_str().expect("UTF-8").to_owned();
        for _ in 0..5 {
            let options = format!("-p {} -k {}", self.port, self.path().display());
            // From here on a server may run, and Drop has to stop it.
            self.running = true;
            if self.control(&["-l", &log, "-o", &options, "start"]).status.success() {
                return;
            }
            // The port may have been taken in between.
            self.port = free_port();
        }
        panic!("the server does not start:\n{}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// Stops it; `mode` is `fast` or `immediate`.
    pub(super) fn stop(&mut self, mode: &str) {
        let output = self.control(&["-m", mode, "stop"]);
        assert!(output.status.success(), "pg_ctl stop: {}", String::from_utf8_lossy(&output.stderr));
        self.running = false;
    }

    pub(super) fn restart(&mut self) {
        self.stop("fast");
        self.start();
    }

    pub(super) fn promote(&self) {
        let output = self.control(&["promote"]);
        assert!(output.status.success(), "pg_ctl promote: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// libpq's connection string through the Unix socket, with more keywords.
    pub(super) fn text(&self, more: &str) -> String {
        format!("host={} port={} {more}", self.path().display(), self.port)
    }

    /// Through the Unix socket, with nothing from the environment.
    pub(super) fn socket(&self, more: &str) -> Conninfo {
        Conninfo::parse(&self.text(more), &|_| None).expect("a legal connection string")
    }

    /// Through TCP, with nothing from the environment.
    pub(super) fn tcp(&self, more: &str) -> Conninfo {
        let text = format!("hostaddr=127.0.0.1 port={} {more}", self.port);
        Conninfo::parse(&text, &|_| None).expect("a legal connection string")
    }

    /// Runs SQL with psql; returns what it prints, without the last line end.
    pub(super) fn sql(&self, sql: &str) -> String {
        let mut command = Command::new(self.program("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let output = run(command.arg(self.text("user=postgres dbname=postgres")));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.running {
            self.control(&["-m", "immediate", "stop"]);
        }
    }
}
