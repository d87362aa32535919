//! Starting the process, and what it does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use walseal_common::config::Config;
use walseal_common::segment::SegmentName;
use walseal_common::timeline::SystemIdentifier;

use super::{Fingerprint, Prefetcher, Premises, PremisesError};
use crate::fetch::{Opening, WorkingDirectory};
use crate::rebuild::Owner;

/// A prefetcher that nobody asks ends after this.
const IDLE: Duration = Duration::from_secs(60);

/// What a prefetcher is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orders {
    /// The data directory, absolute.
    pub data: PathBuf,
    /// The plan, absolute.
    pub plan: Option<PathBuf>,
    /// The cluster, where somebody named it.
    pub cluster: Option<SystemIdentifier>,
    /// The segment that the hook delivers meanwhile.
    pub after: Option<SegmentName>,
}

/// Starts a prefetcher, as this program's verb `prefetch`, and does not wait for it. It works with the environment and the working
/// directory of this process, and says what it has to say in a file of `premises`.
///
/// Errors: this program's own file is gone; no process can be started.
pub fn launch(premises: &Premises, orders: &Orders, config: Option<&Path>) -> Result<(), PremisesError> {
    let failed = |error| PremisesError::io("start a prefetcher in", premises.folder())(error);
    let program = crate::program::path().map_err(failed)?;
    let mut words: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: Option<OsString>| {
        words.extend(value.into_iter().flat_map(|value| [OsString::from(name), value]));
    };
    flag("--config", config.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into()));
    flag("--cluster-id", orders.cluster.map(|cluster| cluster.to_string().into()));
    flag("--plan", orders.plan.clone().map(Into::into));
    flag("--after", orders.after.map(|name| name.to_string().into()));
    let mut call = Command::new(program);
    call.arg("prefetch").args(words).arg(&orders.data);
    call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(premises.log()?);
    // Nobody waits for it: this process ends soon, and leaves it to init.
    call.spawn().map(|_| ()).map_err(failed)
}

/// What the process does: it serves until it is not needed any more.
///
/// Errors: the place is not its own; another one is there already, which is none.
pub async fn run(orders: Orders, config: Config) -> Result<(), PremisesError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let owner = Owner { name: uid.to_string(), uid, gid, groups: vec![gid], is_other: false };
    let limit = config.fetch.prefetch.value;
    let place = WorkingDirectory::at(&orders.data);
    let opening = Opening { config: Arc::new(config), plan: orders.plan, cluster: orders.cluster, place };
    // Before anything is opened: what changes from here on is noticed.
    let fingerprint = Fingerprint::of(&opening);
    let premises = Premises::beside(&orders.data, uid, false)?;
    let prefetcher = match Prefetcher::move_in(premises, &orders.data, &owner, opening, limit) {
        Err(PremisesError::Taken(_)) => return Ok(()),
        moved => moved?,
    };
    let over = prefetcher.serve(fingerprint, IDLE, orders.after).await;
    tracing::info!("the prefetcher of {} ends: {over:?}", orders.data.display());
    Ok(())
}
