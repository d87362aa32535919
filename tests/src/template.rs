//! Data directories made once per kind, and copied for each test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use walseal_common::segment::SegmentSize;

use crate::scratch::{Scratch, bed, lock, make_dir};
use crate::server::Server;

/// What data directories are told apart by before any setting is made.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The server that makes it.
    pub server: Server,
    /// `wal_segment_size`.
    pub segment: SegmentSize,
}

impl Kind {
    /// Puts a data directory of this kind at `to`: a copy, so that all of one kind have one system identifier.
    pub fn copy_to(&self, scratch: &Scratch, to: &Path) -> Result<()> {
        let name = format!("postgresql-{}-{}m", self.server.version(), self.segment.bytes() >> 20);
        let template = once(scratch, &name, |fresh| self.initdb(scratch, fresh))?;
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(to).output();
        let copied = copied.with_context(|| format!("copying {}", template.display()))?;
        if !copied.status.success() {
            bail!("copying {}: {}", template.display(), String::from_utf8_lossy(&copied.stderr));
        }
        Ok(())
    }

    /// Makes a data directory of this kind at `at`, with a system identifier of its own.
    pub fn initdb(&self, scratch: &Scratch, at: &Path) -> Result<()> {
        let mebibytes = self.segment.bytes() >> 20;
        scratch
            .call(self.server.program("initdb"))
            .arg("-D")
            .arg(at)
            .args(["-U", &scratch.account().name, "--auth=trust", "--data-checksums", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", &format!("--wal-segsize={mebibytes}")])
            .env("TZ", "UTC")
            .run()?
            .success()?;
        Ok(())
    }
}

/// Makes the folder `name` of the bed's templates once, with `make` at a temporary place, and returns it.
pub fn once(scratch: &Scratch, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let templates = bed()?.join("templates");
    make_dir(&templates, 0o755)?;
    let done = templates.join(name);
    // One process makes it, the others wait; a kill in between leaves only a folder of that test.
    let _alone = lock(&templates.join(format!(".{name}")))?;
    if !done.exists() {
        let fresh = scratch.path().join(format!("template-{name}"));
        make(&fresh)?;
        std::fs::rename(&fresh, &done).with_context(|| format!("moving to {}", done.display()))?;
    }
    Ok(done)
}
