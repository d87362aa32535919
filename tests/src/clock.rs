//! The calendar of a program, moved while it runs: what a host whose clock is wrong does, and one whose clock is set right.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::process::Call;
use crate::scratch::Scratch;

/// What stands between a program and the system's calendar; compiled anew for each test.
const SOURCE: &str = include_str!("clock.c");

/// A clock that programs are started with. Clocks that only count, and the times of files, stay as they are.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    ///
    /// Errors: there is no C compiler, or it does not take the source.
    pub fn new(scratch: &Arc<Scratch>) -> Result<Clock> {
        let folder = scratch.dir("clock")?;
        let (source, library) = (scratch.file("clock/clock.c", SOURCE)?, folder.join("clock.so"));
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let built = built.context("running cc")?;
        ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
        scratch.account().own(&library)?;
        let file = scratch.file("clock/moved", "\0\0\0\0\0\0\0\0")?;
        Ok(Clock { library, file })
    }

    /// Lets a program run by this clock.
    pub fn ticks_for(&self, call: Call) -> Call {
        call.env("LD_PRELOAD", &self.library).env("WALSEAL_TEST_CLOCK", &self.file)
    }

    /// Moves it to so many seconds from what is right, for every program that runs by it.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.file).context("opening the clock")?;
        file.write_all_at(&seconds.to_ne_bytes(), 0).context("moving the clock")
    }
}
