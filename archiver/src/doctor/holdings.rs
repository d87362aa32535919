//! What lies in the repository: whether it is the server's, and whether a restore has something to begin with.

use std::time::Duration;

use jiff::Timestamp;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{Label, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::store::Capabilities;
use walseal_common::terminal::units;
use walseal_common::timeline::{Branch, SystemIdentifier};

use super::{Examination, Finding};
use crate::archive::Archive;
use crate::status::ago;

/// A base backup that is older makes restores long: all WAL since then is replayed.
const OLD: Duration = Duration::from_secs(8 * 24 * 3600);

/// What the other checks know.
pub(super) struct Witness {
    /// Which cluster the server is, where it answered.
    pub(super) cluster: Option<SystemIdentifier>,
    /// What the store was seen to do now.
    pub(super) capabilities: Option<Capabilities>,
    /// Where the slot stands: all before was confirmed, and so was durable once.
    pub(super) slot: Option<Lsn>,
    /// The branch that the daemon streams.
    pub(super) branch: Option<Branch>,
}

/// Looks into the repository.
pub(super) async fn examine(archive: &Archive, witness: &Witness, examination: &mut Examination<'_>) {
    let clusters = match Repository::clusters(archive.store.as_ref()).await {
        Ok(clusters) => clusters,
        Err(error) => return examination.add(Finding::failed("repository", error)),
    };
    let found = || clusters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let cluster = match (witness.cluster, clusters.as_slice()) {
        (_, []) => {
            let error = RepositoryError::Empty { store: archive.place() };
            return examination.add(Finding::failed("repository", error));
        }
        (Some(server), _) if !clusters.contains(&server) => {
            let text = format!("the server is cluster {server}, and {} holds only {}", archive.place(), found());
            return examination.add(
                Finding::failed("repository", text)
                    .fix("where cluster.conninfo leads to another server than it should: correct it")
                    .fix("after pg_upgrade or initdb: walseal-archiver init, which makes a folder beside the other"),
            );
        }
        (Some(server), _) => server,
        (None, [one]) => *one,
        (None, _) => {
            let text = format!("{} holds {}, and the server did not say which it is", archive.place(), found());
            return examination.add(Finding::not_checked("repository", text));
        }
    };
    let plain = Repository::new(archive.store.clone(), cluster, archive.trust.clone());
    let identity = match plain.identity().await {
        Ok(identity) => identity,
        Err(error) => return examination.add(Finding::failed("repository", error)),
    };
    examination.add(judge_identity(&identity, witness.capabilities.as_ref()));
    if let Some(split) = split(&plain).await {
        examination.add(split);
    }
    if let (Some(slot), Some(branch)) = (witness.slot, witness.branch) {
        examination.add(kept(&plain, &identity, branch, slot).await);
    }
    examination.add(match newest_base(&plain).await {
        Ok(base) => judge_base(base.as_ref(), Timestamp::now()),
        Err(error) => Finding::failed("base backup", error),
    });
}

fn judge_identity(identity: &RepositoryIdentity, now: Option<&Capabilities>) -> Finding {
    const CHECK: &str = "repository";
    let text = format!("of cluster {}, made for PostgreSQL {}", identity.cluster, identity.postgres_major);
    if identity.capabilities.conditional_put && now.is_some_and(|now| !now.conditional_put) {
        let text = format!(
            "{text}; when it was made the store refused to overwrite, and now it does not: what is there could be overwritten"
        );
        return Finding::failed(CHECK, text)
            .fix("find out what was changed at the store; take another one if that stays");
    }
    Finding::fine(CHECK, text)
}

/// Where two servers wrote the same timeline, and one was named the living one (case 17).
async fn split(repository: &Repository) -> Option<Finding> {
    const CHECK: &str = "split brain";
    let adoptions = match repository.adoptions().await {
        Ok(adoptions) => adoptions,
        Err(error) => return Some(Finding::failed(CHECK, error)),
    };
    let words = adoptions.iter().map(|(_, adoption)| {
        let (branch, to, from) = (adoption.branch, adoption.to, adoption.from);
        format!("from {from} on the WAL of the living server lies on branch {to}, and the other one's on {branch}")
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| Finding::fine(CHECK, words.join("; ")))
}

/// Whether what the slot has seen confirmed is still there: a witness outside of the bucket.
async fn kept(repository: &Repository, identity: &RepositoryIdentity, branch: Branch, slot: Lsn) -> Finding {
    const CHECK: &str = "confirmed WAL";
    let size = identity.segment_size;
    let listed = async {
        let listing = repository.wal_listing(branch, size, Some(size.number(slot))).await?;
        repository.contiguous_end(&listing, slot).await
    };
    match listed.await {
        Ok(end) if end >= slot => {
            Finding::fine(CHECK, format!("all that the slot has seen confirmed at {slot} is in the repository"))
        }
        Ok(end) => {
            let text = format!(
                "the repository ends at {end} on branch {branch}, but {slot} was confirmed: WAL that was there is gone"
            );
            Finding::failed(CHECK, text)
                .fix("find out who deletes in the bucket (a lifecycle rule?), then: walseal-archiver backup")
        }
        Err(error) => Finding::not_checked(CHECK, error),
    }
}

async fn newest_base(repository: &Repository) -> Result<Option<Label>, RepositoryError> {
    let Some(id) = repository.base_ids().await?.pop() else { return Ok(None) };
    repository.label(&id).await.map(Some)
}

fn judge_base(newest: Option<&Label>, now: Timestamp) -> Finding {
    const CHECK: &str = "base backup";
    let another = "walseal-archiver backup";
    let Some(label) = newest else {
        return Finding::failed(CHECK, "there is none, so nothing can be restored").fix(another);
    };
    let text = format!("{} of {}, {}", label.id, units::size(label.cluster_size), ago(now, label.stop_time));
    if label.suspect > 0 {
        return Finding::failed(
            CHECK,
            format!("{text}, is SUSPECT: {} page checksum failures were reported", label.suspect),
        )
        .fix("look at the server's log and its disks, then take another: walseal-archiver backup");
    }
    let age = Duration::try_from(now.duration_since(label.stop_time)).unwrap_or_default();
    if age > OLD {
        return Finding::warning(CHECK, format!("{text}: a restore replays all WAL since then")).fix(another);
    }
    Finding::fine(CHECK, text)
}
