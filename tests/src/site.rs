//! An installation: a cluster, a repository, and both programs with their keys and configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::deadline::{PATIENCE, eventually};
use crate::process::{Call, Finished, Process};
use crate::programs::Programs;
use crate::scratch::Scratch;
use crate::settings::ClusterBuilder;
use crate::store::Place;

/// An installation as a user has it, all in the folder of one test.
///
/// The archiver's keys and configuration lie in `archiver`, the restorer's in `restorer`, as on two hosts.
#[derive(Debug)]
pub struct Site {
    /// The archiver, as it is called beside the server.
    pub archiver: Side,
    /// The restorer, as it is called on the restore host.
    pub restorer: Side,
    /// The cluster that is archived.
    pub cluster: Cluster,
    /// Where the repository lies.
    pub place: Place,
    /// The test's folder.
    pub scratch: Arc<Scratch>,
}

/// Which store a site's repository lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// A folder of the test.
    Directory,
    /// A prefix on the run's S3 server.
    S3,
}

impl Site {
    /// Makes a cluster, starts it, makes keys with both `keygen`s and writes both configurations.
    ///
    /// Nothing else is done: `init` is the test's first step.
    pub fn new(cluster: ClusterBuilder, store: Store) -> Result<Site> {
        let scratch = Scratch::new()?;
        let cluster = cluster.inside(&scratch).start()?;
        Site::around(cluster, store)
    }

    /// Likewise around a cluster that runs already.
    pub fn around(cluster: Cluster, store: Store) -> Result<Site> {
        let scratch = cluster.scratch().clone();
        let programs = Programs::find()?;
        let place = match store {
            Store::Directory => Place::directory(&scratch)?,
            Store::S3 => Place::s3(&scratch)?,
        };
        let mut archiver = Side::new(&scratch, programs.archiver, "archiver")?;
        let mut restorer = Side::new(&scratch, programs.restorer, "restorer")?;
        let writer = archiver.keygen("writer.key")?;
        let recipient = restorer.keygen("identity.key")?;
        // Whose identity would be kept offline.
        let spare = restorer.keygen("spare.key")?;
        archiver.set_text("cluster.name", "orders");
        archiver.set_text("cluster.conninfo", &cluster.conninfo());
        archiver.set_text("cluster.state_dir", &scratch.dir("state")?.to_string_lossy());
        archiver.set_text("cluster.pg_bin", &cluster.server().bin().to_string_lossy());
        archiver.set("keys.recipients", &list(&[&recipient, &spare]));
        // Whoever tests the schedule sets one.
        archiver.set_text("base.schedule", "off");
        archiver.set_text("keys.writer_key_file", &archiver.folder.join("writer.key").to_string_lossy());
        if !cluster.server().is_where_programs_look() {
            restorer.set_text("cluster.pg_bin", &cluster.server().bin().to_string_lossy());
        }
        restorer.set("keys.identity_files", &list(&[&restorer.folder.join("identity.key").to_string_lossy()]));
        restorer.set("keys.trusted_writers", &list(&[&writer]));
        for side in [&mut archiver, &mut restorer] {
            side.use_place(&place);
            side.write_config()?;
        }
        Ok(Site { archiver, restorer, cluster, place, scratch })
    }

    /// Leaves the archiver with one recipient, that of the restorer's identity; counts from the next [`Side::write_config`].
    pub fn seal_to_one(&mut self) -> Result<()> {
        let key = crate::process::read(&self.restorer.folder.join("identity.key"))?;
        let recipient = key.split_whitespace().find(|word| word.starts_with("walseal1"));
        self.archiver.set("keys.recipients", &list(&[recipient.context("the recipient beside the identity")?]));
        Ok(())
    }

    /// Runs `init` and starts the daemon.
    pub fn archive(&self) -> Result<Daemon> {
        self.archiver.run(&["init"])?.success()?;
        self.start_daemon()
    }

    /// Starts the daemon and waits until it streams and answers the other verbs.
    pub fn start_daemon(&self) -> Result<Daemon> {
        let mut daemon = self.archiver.daemon(&["run"])?;
        let session = self.cluster.session()?;
        let socket = self.scratch.path().join("state/walseal.sock");
        daemon.until("the daemon to stream and to listen", PATIENCE, || {
            let streams = session.value("select coalesce(bool_or(active), false) from pg_replication_slots")? == "t";
            Ok((streams && UnixStream::connect(&socket).is_ok()).then_some(()))
        })?;
        Ok(daemon)
    }

    /// A folder that is not there yet, for a restore.
    pub fn target(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A copy of `upstream` that follows it, with these settings, started.
    pub fn standby(&self, name: &str, upstream: &Cluster, settings: &[(&str, &str)]) -> Result<Cluster> {
        let data = self.target(name);
        let call = upstream.client("pg_basebackup").args(["-X", "stream", "-c", "fast", "-d"]);
        call.arg(upstream.conninfo()).arg("-D").arg(&data).run()?.success()?;
        std::fs::write(data.join("standby.signal"), "")?;
        self.scratch.account().own(&data.join("standby.signal"))?;
        let mut standby = self.restored(&data)?;
        standby.set_override("primary_conninfo", &upstream.conninfo());
        for (setting, value) in settings {
            standby.set_override(setting, value);
        }
        standby.start()?;
        Ok(standby)
    }

    /// A restored data directory as a cluster, not started.
    pub fn restored(&self, data: &Path) -> Result<Cluster> {
        Cluster::open(&self.scratch, self.cluster.server(), data)
    }
}

/// One of the programs with its configuration file.
#[derive(Clone, Debug)]
pub struct Side {
    scratch: Arc<Scratch>,
    program: PathBuf,
    folder: PathBuf,
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Side {
    /// `program` with an empty configuration in a folder of its own.
    pub fn new(scratch: &Arc<Scratch>, program: PathBuf, name: &str) -> Result<Side> {
        Ok(Side { scratch: scratch.clone(), program, folder: scratch.dir(name)?, settings: BTreeMap::new() })
    }

    /// Makes a key in its folder and returns the public half.
    pub fn keygen(&self, file: &str) -> Result<String> {
        let call = self.scratch.call(&self.program).args(["keygen", "--output"]).arg(self.folder.join(file));
        let made = call.run()?.success()?;
        match made.text() {
            key if !key.is_empty() && key.lines().count() == 1 => Ok(key.to_owned()),
            _ => bail!("keygen prints one public key on stdout, not: {made}"),
        }
    }

    /// Makes a writer key in its folder with the archiver's program, as for a host that drills, and returns the public half.
    pub fn keygen_writer(&self, archiver: &Side, file: &str) -> Result<String> {
        Side { folder: self.folder.clone(), ..archiver.clone() }.keygen(file)
    }

    /// Sets `section.key` to TOML text; counts from the next [`Side::write_config`].
    pub fn set(&mut self, name: &str, toml: &str) {
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), toml.to_owned());
    }

    /// Sets `section.key` to a string.
    pub fn set_text(&mut self, name: &str, text: &str) {
        self.set(name, &string(text));
    }

    /// Removes `section.key`.
    pub fn unset(&mut self, name: &str) {
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        if let Some(keys) = self.settings.get_mut(section) {
            keys.remove(key);
        }
    }

    /// Points it at a repository.
    pub fn use_place(&mut self, place: &Place) {
        self.set_text("repository.url", &place.url());
        if let Place::S3 { server, .. } = place {
            self.set_text("repository.s3.endpoint", &server.endpoint);
            self.set_text("repository.s3.region", &server.region);
            self.set("repository.s3.path_style", "true");
            self.set_text("repository.s3.access_key_id", &server.access_key_id);
            self.set_text("repository.s3.secret_access_key", &server.secret_access_key);
        }
    }

    /// Writes the configuration file.
    pub fn write_config(&self) -> Result<()> {
        let mut text = String::new();
        for (section, keys) in &self.settings {
            writeln!(text, "[{section}]")?;
            for (key, value) in keys {
                writeln!(text, "{key} = {value}")?;
            }
        }
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        self.scratch.file(&format!("{name}/walseal.toml"), &text).map(|_| ())
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("walseal.toml")
    }

    /// The folder of its keys and configuration.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A call of the program with its configuration, as the server's account.
    pub fn call(&self, args: &[&str]) -> Call {
        self.scratch.call(&self.program).arg("--config").arg(self.config()).args(args)
    }

    /// Runs a verb to its end, within a minute.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        self.call(args).run()
    }

    /// Runs a verb that moves data, within four minutes: a busy machine moves little.
    pub fn run_long(&self, args: &[&str]) -> Result<Finished> {
        self.call(args).within(PATIENCE * 4).run()
    }

    /// Starts a verb that stays.
    pub fn daemon(&self, args: &[&str]) -> Result<Daemon> {
        Daemon::start(self.call(args))
    }

    /// A hook's command line, for `archive_command` and its like: program and configuration by absolute paths.
    pub fn hook(&self, rest: &str) -> String {
        format!("{} --config {} {rest}", self.program.display(), self.config().display())
    }
}

/// A program that stays.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
}

impl Daemon {
    /// Starts a call that is not one of [`Side::daemon`].
    pub fn start(call: Call) -> Result<Daemon> {
        Ok(Daemon { process: call.spawn()? })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The most memory that it ever had, in KiB (`VmHWM` of proc(5)).
    ///
    /// Errors: it has ended.
    pub fn peak_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
        Ok(peak.trim().trim_end_matches(" kB").parse()?)
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        self.process.said()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// Looks until `look` has an answer.
    ///
    /// Errors: the daemon has ended, or there is no answer in time; with its log.
    pub fn until<T>(&mut self, what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let outcome = eventually(what, within, || {
            if let Some(answer) = look()? {
                return Ok(Some(answer));
            }
            if !self.process.is_running()? {
                bail!("the daemon ended while the test waited for {what}");
            }
            Ok(None)
        });
        outcome.with_context(|| format!("the daemon's log:\n{}", self.log()))
    }

    /// Waits until its log contains this text.
    pub fn says(&mut self, text: &str, within: Duration) -> Result<()> {
        let path = self.process.stderr_path().to_owned();
        self.until(&format!("the daemon to say {text:?}"), within, || {
            Ok(crate::process::read(&path)?.contains(text).then_some(()))
        })
    }

    /// Kills it with SIGKILL.
    pub fn sigkill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.ends(PATIENCE)
    }

    /// Kills it with SIGKILL, unless it has ended by itself: then it says how.
    pub fn sigkill_unless_ended(mut self) -> Result<Option<Finished>> {
        if !self.process.is_running()? {
            return self.process.wait(PATIENCE).map(Some);
        }
        self.process.kill().map(|()| None)
    }

    /// Asks it to end and waits for that.
    pub fn sigterm(mut self) -> Result<Finished> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE)
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub fn wait(self, within: Duration) -> Result<Finished> {
        self.process.wait(within)
    }
}

/// A TOML string. JSON's is one, too.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A TOML list of strings.
fn list(texts: &[&str]) -> String {
    let strings: Vec<String> = texts.iter().map(|text| string(text)).collect();
    format!("[{}]", strings.join(", "))
}
