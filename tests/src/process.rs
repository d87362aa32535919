//! A program that is run, its output, its end.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::{PATIENCE, eventually};

/// A program about to be run. Its output goes to files, so that a program that hangs has still said
/// what it said.
#[derive(Debug)]
pub struct Call {
    command: Command,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
    within: Duration,
}

impl Call {
    /// A call of `command` with its output in the files `<output>.out` and `<output>.err`.
    pub fn new(command: Command, output: &Path) -> Call {
        let shown = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stdout, stderr) = (output.with_extension("out"), output.with_extension("err"));
        Call { command, shown, stdout, stderr, within: PATIENCE }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Call {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Call {
        args.into_iter().fold(self, Call::arg)
    }

    /// Sets a variable of the environment, which is otherwise empty.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    /// Runs in another folder than the test's. A process outside it is not found by the sweeper.
    pub fn current_dir(mut self, path: &Path) -> Call {
        self.command.current_dir(path);
        self
    }

    /// How long the program may take before it is killed and the test fails; a minute unless told.
    pub fn within(mut self, limit: Duration) -> Call {
        self.within = limit;
        self
    }

    /// Runs the program to its end.
    ///
    /// Errors: it could not be started, or did not end in time; its exit code is not judged here.
    pub fn run(self) -> Result<Finished> {
        let within = self.within;
        self.spawn()?.wait(within)
    }

    /// Starts the program.
    ///
    /// Errors: it could not be started.
    pub fn spawn(mut self) -> Result<Process> {
        let open = |path: &Path| File::create(path).with_context(|| format!("creating {}", path.display()));
        self.command.stdin(Stdio::null()).stdout(open(&self.stdout)?).stderr(open(&self.stderr)?);
        let child = self.command.spawn().with_context(|| format!("starting {:?}", self.command.get_program()))?;
        Ok(Process { child, ended: None, shown: self.shown, stdout: self.stdout, stderr: self.stderr })
    }
}

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("waiting for {}", self.shown))?;
        }
        Ok(self.ended.is_none())
    }

    /// What it has written to its standard output until now.
    pub fn stdout(&self) -> Result<String> {
        read(&self.stdout)
    }

    /// The file that its standard error goes to.
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// What it has written to its standard error until now.
    pub fn stderr(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// Sends a signal.
    ///
    /// Errors: it has ended already, and how.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running()? {
            bail!("no signal reaches a process that has ended: {}", self.finished()?);
        }
        let pid = Pid::from_raw(self.pid()).context("a process id is positive")?;
        kill_process(pid, signal).with_context(|| format!("sending a signal to {}", self.shown))
    }

    /// Kills it with SIGKILL and waits for its end. One that has ended already is left as it ended.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running()? {
            self.signal(Signal::KILL)?;
            self.ended = Some(self.child.wait().with_context(|| format!("waiting for {}", self.shown))?);
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// Errors: it has not ended `within` that time; then it is killed, and the error says what it had written.
    pub fn wait(mut self, within: Duration) -> Result<Finished> {
        self.ends(within)?;
        self.finished()
    }

    /// Like [`Process::wait`], keeping the handle.
    pub fn ends(&mut self, within: Duration) -> Result<()> {
        let what = format!("the end of {}", self.shown);
        let waited = eventually(&what, within, || Ok((!self.is_running()?).then_some(())));
        if waited.is_err() {
            self.kill()?;
        }
        waited.with_context(|| format!("it was killed; it had written:\n{}", self.said()))
    }

    /// What it wrote and how it ended.
    fn finished(&self) -> Result<Finished> {
        let status = self.ended.context("asked how a running process ended")?;
        Ok(Finished {
            shown: self.shown.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout()?,
            stderr: self.stderr()?,
        })
    }

    /// All that it wrote, for messages.
    pub fn said(&self) -> String {
        let part = |name, path| read(path).map_or_else(|error| error.to_string(), |text| format!("[{name}]\n{text}"));
        format!("{}\n{}", part("stdout", &self.stdout), part("stderr", &self.stderr))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} could not be ended: {error:#}", self.shown);
        }
    }
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub shown: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, if it ended with exit code 0.
    pub fn success(self) -> Result<Finished> {
        self.exits(0)
    }

    /// Itself, if it ended with this exit code.
    pub fn exits(self, code: i32) -> Result<Finished> {
        if self.code != Some(code) {
            bail!("expected exit code {code} of {self}");
        }
        Ok(self)
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON from {self}"))
    }

    /// The standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown end".to_owned(),
        };
        write!(f, "{}: {end}\n[stdout]\n{}\n[stderr]\n{}", self.shown, self.stdout, self.stderr)
    }
}

/// The text of a file, whatever its bytes are.
pub fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
