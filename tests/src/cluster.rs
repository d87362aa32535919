//! A cluster: a data directory and its server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentSize;

use crate::deadline::{PATIENCE, eventually};
use crate::port;
use crate::process::{Call, Finished, Process, read};
use crate::scratch::{Scratch, is_lived_in};
use crate::server::Server;
use crate::session::Session;
use crate::settings::{Access, ClusterBuilder, append};

/// How a server is stopped, as `pg_ctl stop -m` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Clients are sent away, a checkpoint is written, walsenders may finish.
    Fast,
    /// At once; the next start recovers.
    Immediate,
}

/// A cluster. Dropping it stops its server.
#[derive(Debug)]
pub struct Cluster {
    // Before the folder that the server works in.
    postmaster: Option<Process>,
    log: Option<PathBuf>,
    server: Server,
    data: PathBuf,
    sockets: PathBuf,
    port: u16,
    access: Vec<Access>,
    /// Settings on the server's command line, which win over every file.
    overrides: Vec<(String, String)>,
    scratch: Arc<Scratch>,
}

impl Cluster {
    /// A cluster to be made.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    pub(crate) fn new(
        scratch: Arc<Scratch>,
        server: Server,
        data: PathBuf,
        sockets: PathBuf,
        port: u16,
        access: Vec<Access>,
    ) -> Cluster {
        Cluster { postmaster: None, log: None, server, data, sockets, port, access, overrides: Vec::new(), scratch }
    }

    /// A data directory that was made elsewhere, by a restore: not started, on a Unix socket of its own.
    ///
    /// What its configuration says of ports and sockets is overridden on the command line; no file is changed.
    pub fn open(scratch: &Arc<Scratch>, server: &Server, data: &Path) -> Result<Cluster> {
        let name = data.file_name().context("a data directory has a name")?.to_string_lossy();
        let sockets = scratch.dir(&format!("{name}.s"))?;
        let mut cluster =
            Cluster::new(scratch.clone(), server.clone(), data.to_owned(), sockets.clone(), 5432, Vec::new());
        cluster.set_override("listen_addresses", "");
        cluster.set_override("port", "5432");
        cluster.set_override("unix_socket_directories", &sockets.to_string_lossy());
        Ok(cluster)
    }

    /// A setting on the command line of the next start.
    pub fn set_override(&mut self, name: &str, value: &str) {
        self.overrides.push((name.to_owned(), value.to_owned()));
    }

    /// Adds lines to `postgresql.conf`; they count from the next start or reload.
    pub fn configure(&self, lines: &str) -> Result<()> {
        append(&self.data.join("postgresql.conf"), &format!("{lines}\n"))
    }

    /// Lets the server read its configuration again.
    pub fn reload(&mut self) -> Result<()> {
        self.postmaster.as_mut().context("the server does not run")?.signal(Signal::HUP)
    }

    /// Starts the server and waits until it takes connections (on a copy in recovery: until it is consistent).
    ///
    /// Errors: it runs already; it ended instead, with its log.
    pub fn start(&mut self) -> Result<()> {
        for _ in 0..5 {
            match self.try_start() {
                // Somebody took the port between our look and the server's.
                Err(error) if !self.access.is_empty() && format!("{error:#}").contains("Address already in use") => {
                    self.port = port::free()?;
                    self.configure(&format!("port = {}", self.port))?;
                }
                outcome => return outcome,
            }
        }
        bail!("no port stayed free for {}", self.data.display())
    }

    fn try_start(&mut self) -> Result<()> {
        self.postmaster = Some(self.spawn()?);
        let what = format!("the server of {} to take connections", self.data.display());
        let ready = eventually(&what, PATIENCE, || self.is_ready());
        if ready.is_err() {
            let log = self.log();
            self.postmaster = None;
            return ready.with_context(|| format!("the server's log:\n{log}"));
        }
        if self.access.is_empty() { Ok(()) } else { self.make_roles() }
    }

    /// Starts the server and waits for it to end by itself, as with the recovery action "shutdown".
    ///
    /// Errors: it is still running after that time. Its exit code is not judged.
    pub fn run_to_end(&mut self, within: Duration) -> Result<Finished> {
        self.spawn()?.wait(within)
    }

    fn spawn(&mut self) -> Result<Process> {
        if let Some(running) = &mut self.postmaster
            && running.is_running()?
        {
            bail!("the server of {} runs already", self.data.display());
        }
        let mut call = self.scratch.call(self.server.program("postgres")).arg("-D").arg(&self.data);
        for (name, value) in &self.overrides {
            call = call.arg("-c").arg(format!("{name}={value}"));
        }
        let postmaster = call.current_dir(&self.data).spawn()?;
        self.log = Some(postmaster.stderr_path().to_owned());
        Ok(postmaster)
    }

    /// Whether the server says in `postmaster.pid` that it takes connections; line 8 is its state
    /// (`pidfile.h`).
    fn is_ready(&mut self) -> Result<Option<()>> {
        let postmaster = self.postmaster.as_mut().context("the server does not run")?;
        if !postmaster.is_running()? {
            bail!("the server of {} ended instead of starting", self.data.display());
        }
        // The file is not there at first.
        let state = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let pid = postmaster.pid().to_string();
        let mut lines = state.lines();
        let ours = lines.next().is_some_and(|line| line.trim() == pid);
        Ok((ours && lines.nth(6).is_some_and(|line| line.starts_with("ready"))).then_some(()))
    }

    /// Makes the roles of the cluster's ways in, unless they are there.
    fn make_roles(&self) -> Result<()> {
        let session = self.session()?;
        if session.value("select pg_is_in_recovery()")? == "t" {
            return Ok(());
        }
        for access in &self.access {
            let (role, password) = (access.role(), access.password().replace('\'', "''"));
            if session.value(&format!("select count(*) from pg_roles where rolname = '{role}'"))? == "1" {
                continue;
            }
            let encryption = if *access == Access::Md5 { "md5" } else { "scram-sha-256" };
            session.rows(&format!("set standard_conforming_strings = on; set password_encryption = '{encryption}'"))?;
            session.rows(&format!("create role {role} login superuser replication password '{password}'"))?;
        }
        Ok(())
    }

    /// Stops the server with `pg_ctl stop`, as an operator does, and says how long that took.
    ///
    /// Errors: it does not run, or did not end within a minute.
    pub fn stop(&mut self, how: Stop) -> Result<Duration> {
        let mut postmaster = self.postmaster.take().context("the server does not run")?;
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let began = Instant::now();
        let call = self.scratch.call(self.server.program("pg_ctl")).args(["stop", "-s", "-t", "60", "-m", mode, "-D"]);
        let stopping = call.arg(&self.data).within(PATIENCE + PATIENCE).spawn()?;
        // pg_ctl waits until nobody has the server's process id; it is our child and must be taken leave of.
        postmaster.ends(PATIENCE + PATIENCE).with_context(|| self.log())?;
        stopping.wait(PATIENCE)?.success().with_context(|| self.log())?;
        Ok(began.elapsed())
    }

    /// Kills the postmaster with SIGKILL, as the kernel does when memory is out.
    pub fn crash(&mut self) -> Result<()> {
        let mut postmaster = self.postmaster.take().context("the server does not run")?;
        postmaster.kill()?;
        // Its children see that it is gone and end; a restart is refused while one is left.
        eventually("the server's children to end", PATIENCE, || Ok((!is_lived_in(&self.data)?).then_some(())))
    }

    /// Stops the server at once and deletes its data directory.
    pub fn destroy(&mut self) -> Result<()> {
        if self.postmaster.is_some() {
            self.stop(Stop::Immediate)?;
        }
        std::fs::remove_dir_all(&self.data).with_context(|| format!("removing {}", self.data.display()))
    }

    /// Runs SQL as superuser and returns the rows of all its statements, each value as text.
    pub fn sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.session()?.rows(sql)
    }

    /// Runs SQL as superuser and returns the first value of the first row; empty for NULL.
    pub fn value(&self, sql: &str) -> Result<String> {
        self.session()?.value(sql)
    }

    /// A connection as superuser.
    pub fn session(&self) -> Result<Session> {
        Session::connect(&self.conninfo()).with_context(|| format!("the server's log:\n{}", self.log()))
    }

    /// How the superuser connects, over the Unix socket.
    pub fn conninfo(&self) -> String {
        let user = &self.scratch.account().name;
        format!("host={} port={} user={user} dbname=postgres", self.sockets.display(), self.port)
    }

    /// Where it listens over TCP: `host:port`.
    pub fn tcp_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How the role of `access` connects over TCP; its password is not in it.
    pub fn tcp_conninfo(&self, access: Access) -> String {
        format!("host=127.0.0.1 port={} user={} dbname=postgres", self.port, access.role())
    }

    /// `psql` with these connection parameters: settings of the user are not read, errors end it.
    pub fn psql(&self, conninfo: &str) -> Call {
        self.client("psql").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", conninfo])
    }

    /// A client program of this server's version, run as its account.
    pub fn client(&self, program: &str) -> Call {
        self.scratch.call(self.server.program(program))
    }

    /// Where the next WAL will be written.
    pub fn insert_lsn(&self) -> Result<Lsn> {
        Ok(self.value("select pg_current_wal_insert_lsn()")?.parse()?)
    }

    /// `wal_segment_size`.
    pub fn segment_size(&self) -> Result<SegmentSize> {
        let bytes = self.value("select setting from pg_settings where name = 'wal_segment_size'")?;
        Ok(SegmentSize::new(bytes.parse()?)?)
    }

    /// The end of the WAL that the server itself has flushed; only that is sent to anybody.
    pub fn flush_lsn(&self) -> Result<Lsn> {
        Ok(self.value("select pg_current_wal_flush_lsn()")?.parse()?)
    }

    /// The cluster's system identifier, as `pg_control_system()` says it.
    pub fn system_identifier(&self) -> Result<String> {
        self.value("select system_identifier from pg_control_system()")
    }

    /// Waits until the server has ended recovery and takes writes.
    pub fn wait_promoted(&self, within: Duration) -> Result<()> {
        let session = self.session()?;
        eventually("the end of recovery", within, || {
            Ok((session.value("select pg_is_in_recovery()")? == "f").then_some(()))
        })
        .with_context(|| format!("the server's log:\n{}", self.log()))
    }

    /// Everything the server has logged since its last start.
    pub fn log(&self) -> String {
        match &self.log {
            Some(log) => read(log).unwrap_or_else(|error| format!("{error:#}")),
            None => "(the server never ran)".to_owned(),
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The Unix socket that it listens at.
    pub fn socket(&self) -> PathBuf {
        self.sockets.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The folder of its Unix socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The port of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's programs.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The folder of its test.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// The server's process id.
    ///
    /// Errors: it does not run.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.postmaster.as_ref().context("the server does not run")?.pid())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the log of {}:\n{}", self.data.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let Some(postmaster) = &mut self.postmaster else { return };
        // An immediate shutdown gives back shared memory, which a kill does not.
        let ended = postmaster.is_running().and_then(|running| {
            if running { postmaster.signal(Signal::QUIT).and_then(|()| postmaster.ends(PATIENCE)) } else { Ok(()) }
        });
        if let Err(error) = ended {
            eprintln!("stopping the server of {}: {error:#}", self.data.display());
        }
    }
}
