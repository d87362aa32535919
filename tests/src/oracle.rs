//! Judgements that walseal has no part in: PostgreSQL's own checkers, and a search for plain text.

use std::path::Path;

use anyhow::{Result, bail};

use crate::account::Account;
use crate::cluster::Cluster;
use crate::deadline::{PATIENCE, eventually};
use crate::scratch::Scratch;
use crate::server::Server;

/// `pg_verifybackup -n`: every file of the backup's manifest is there, with its size and checksum.
pub fn verify_backup(scratch: &Scratch, server: &Server, data: &Path) -> Result<()> {
    let call = scratch.call(server.program("pg_verifybackup")).args(["-n", "-e"]).arg(data);
    call.within(PATIENCE * 5).run()?.success()?;
    Ok(())
}

/// `pg_checksums --check` of a cluster that is stopped: every page's checksum agrees.
pub fn checksums(cluster: &Cluster) -> Result<()> {
    let call = cluster.client("pg_checksums").args(["--check", "-D"]).arg(cluster.data());
    call.within(PATIENCE * 5).run()?.success()?;
    Ok(())
}

/// `pg_amcheck` of all databases of a running cluster, with every heap row looked up in its indexes.
pub fn amcheck(cluster: &Cluster) -> Result<()> {
    let call =
        cluster.client("pg_amcheck").args(["--all", "--install-missing", "--heapallindexed", "--maintenance-db"]);
    call.arg(cluster.conninfo()).within(PATIENCE * 5).run()?.success()?;
    Ok(())
}

/// Numbers of the processes whose working directory lies below `folder`.
pub fn lives_below(folder: &Path) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        // One that ended meanwhile, or is not ours to look at.
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place.starts_with(folder)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// No file below `folder` contains any of these texts.
///
/// Errors: one does, with its name; there is no file at all, which proves nothing.
pub fn no_plaintext(scratch: &Scratch, folder: &Path, needles: &[&str]) -> Result<()> {
    let me = Account::current()?;
    // grep with an empty fixed string lists every file: so it is seen to read them.
    // Where a file went while it looked it says so by 2.
    let search = |needle: &str| {
        eventually("files to stay while they are searched", PATIENCE, || {
            let found = scratch.call_as(&me, "/usr/bin/grep").args(["-rlaF", "-e", needle]).arg(folder).run()?;
            Ok((found.code != Some(2)).then_some(found))
        })
    };
    search("")?.success()?;
    for needle in needles {
        let found = search(needle)?;
        if found.code != Some(1) {
            bail!("plain text {needle:?} stands in: {found}");
        }
    }
    Ok(())
}
