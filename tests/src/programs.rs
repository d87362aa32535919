//! walseal's two programs, as cargo built them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::scratch::{bed, lock, make_dir};

/// Where the two programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `walseal-archiver`.
    pub archiver: PathBuf,
    /// `walseal-restorer`.
    pub restorer: PathBuf,
}

impl Programs {
    /// The programs in the folder `WALSEAL_TEST_PROGRAMS`, or beside this test in cargo's target folder.
    ///
    /// Where the server's account cannot reach them (a checkout in root's home), copies that it can.
    ///
    /// Errors: they are not built, with the command that builds them.
    pub fn find() -> Result<Programs> {
        let folder = match std::env::var_os("WALSEAL_TEST_PROGRAMS") {
            Some(told) => PathBuf::from(told),
            None => target_folder()?,
        };
        Ok(Programs {
            archiver: reachable(&folder.join("walseal-archiver"))?,
            restorer: reachable(&folder.join("walseal-restorer"))?,
        })
    }
}

/// `target/<profile>` of the test that runs, which lies there or in `deps` below it.
fn target_folder() -> Result<PathBuf> {
    let test = std::env::current_exe().context("asking for the path of this test")?;
    let folder = test.parent().context("a test lies in a folder")?;
    let above = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(above.context("a test lies in cargo's target folder")?.to_owned())
}

/// `program`, or a copy of it that the server's account can run.
fn reachable(program: &Path) -> Result<PathBuf> {
    let about = match std::fs::metadata(program) {
        Ok(about) => about,
        Err(error) => bail!(
            "{} is not there ({error}); build it with `cargo build --profile ci --bins`, or run `scripts/test`",
            program.display()
        ),
    };
    let mut test = Account::of_server()?.command("/usr/bin/test");
    let seen = test.arg("-x").arg(program).current_dir("/").status().context("running test")?;
    if seen.success() {
        return Ok(program.to_owned());
    }
    let copies = bed()?.join("programs");
    make_dir(&copies, 0o755)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let _alone = lock(&copies.join(format!(".{name}")))?;
    // Another build has another time; copies of earlier ones may still run and are kept until a new one comes.
    let folder = copies.join(format!("{name}-{}-{}", about.mtime(), about.mtime_nsec()));
    let copy = folder.join(&*name);
    if !copy.exists() {
        make_dir(&folder, 0o755)?;
        let part = folder.join("part");
        std::fs::copy(program, &part)
            .with_context(|| format!("copying {} to {}", program.display(), part.display()))?;
        std::fs::rename(&part, &copy).with_context(|| format!("moving to {}", copy.display()))?;
    }
    Ok(copy)
}
