//! Where a restore goes: what `plan` and `restore` are both told.

use std::path::{Path, PathBuf};

use walseal_common::terminal::Failure;

use crate::rebuild::{Accounts, Destination, Owner, RebuildError, TablespaceMapping};

/// Where a restore goes, beside the data directory itself.
#[derive(clap::Args, Debug)]
pub(super) struct PlaceArguments {
    /// Write over the stopped cluster in the data directory: only what differs is fetched, what is not in the backup goes
    #[arg(long)]
    delta: bool,
    /// Where a tablespace goes; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = TablespaceMapping::parse_pair)]
    tablespace: Vec<(PathBuf, PathBuf)>,
    /// Where all other tablespaces go: each to D/<oid>
    #[arg(long, value_name = "D")]
    tablespace_dir: Option<PathBuf>,
    /// A folder for pg_wal elsewhere
    #[arg(long, value_name = "D")]
    waldir: Option<PathBuf>,
    /// The user that the cluster will belong to, for root [default: the owner of D's parent, else postgres]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

impl PlaceArguments {
    /// All of it, with the data directory.
    pub(super) fn destination(&self, target_dir: &Path) -> Result<Destination, Failure> {
        let data = std::path::absolute(target_dir).map_err(|error| Failure::from_error("restore", &error))?;
        let failed = |error: RebuildError| super::restore::failure(&error);
        let accounts = Accounts::of_this_machine().map_err(failed)?;
        let process = rustix::process::geteuid().as_raw();
        let owner = Owner::decide(&accounts, process, self.owner.as_deref(), &data).map_err(failed)?;
        let tablespaces = TablespaceMapping { pairs: self.tablespace.clone(), folder: self.tablespace_dir.clone() };
        Ok(Destination { data, waldir: self.waldir.clone(), tablespaces, owner, delta: self.delta })
    }
}
