//! Whether the repository is whole, with the keys that open it: what the verification without keys finds, and then everything opened:
//! every file of every base backup against its list of files and the server's manifest, every record of WAL. Nothing is written to disk
//! but what this host remembers of the repository's newest end.

pub(crate) mod base;
mod frames;
mod wal;

use jiff::Timestamp;
use walseal_common::repository::{
    BaseId, BranchFrontier, Heads, Reader, Reading, Repository, RepositoryError, Survey, Witness,
};
use walseal_common::terminal::{Opened, Verification};

use crate::access::Access;
use crate::{heads, record};

/// What is to be verified.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Only this base backup.
    pub base: Option<BaseId>,
    /// Take what is there now for what was.
    pub accept: bool,
    /// What somebody has seen.
    pub seen: Vec<BranchFrontier>,
}

/// Verifies, and says what was found. `told` hears of bytes that were read or put together, and in words of what is done.
///
/// Errors: the store's, where it does not answer.
pub async fn verify(
    access: &Access,
    wish: &Wish,
    mut told: impl FnMut(u64, &str),
) -> Result<Verification, RepositoryError> {
    let began = Timestamp::now();
    let repository = &record::with_own(access);
    let witnesses = witnesses(access, repository, wish);
    told(0, "listing names, reading labels and records");
    let survey = Survey::take(repository, &witnesses).await?;
    heads::remember(access, &survey.heads, wish.accept);
    let mut reading = Reading::default();
    if wish.base.is_none() {
        let mut reader = Reader::new(repository, &survey, None);
        while !reading.ended {
            let before = reading.bytes;
            reader.next(&mut reading).await?;
            told(reading.bytes - before, reading.after.as_deref().unwrap_or_default());
        }
    }
    let mut opened = Opened::default();
    let mut flaws = Vec::new();
    let ids: Vec<BaseId> = match &wish.base {
        Some(id) => vec![id.clone()],
        None => survey.base_ids().cloned().collect(),
    };
    for id in &ids {
        let words = format!("base backup {id}, every file");
        told(0, &words);
        let mut each = |bytes| told(bytes, &words);
        flaws.extend(base::verify(repository, &access.identities, id, &mut opened, &mut each).await?);
    }
    let size = survey.segment_size;
    for (branch, range) in survey.extents().into_iter().filter(|_| wish.base.is_none()) {
        let Some(size) = size else { break };
        let words = format!("WAL of branch {branch}, every record");
        told(0, &words);
        let mut each = |bytes| told(bytes, &words);
        let found = wal::verify(repository, &access.identities, branch, range, size, &mut opened, &mut each).await?;
        flaws.extend(found);
    }
    let quick = wish.base.is_some();
    let mut verification = Verification::of(repository, began, quick, &witnesses, survey, reading);
    verification.add_opened(opened, flaws);
    Ok(verification)
}

fn witnesses(access: &Access, repository: &Repository, wish: &Wish) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    if let Some(heads) = heads::remembered(access).filter(|_| !wish.accept) {
        witnesses.push(Witness { who: heads::who(&heads), heads });
    }
    if !wish.seen.is_empty() {
        let mut heads = Heads::none(repository.cluster(), Timestamp::now());
        wish.seen.iter().for_each(|seen| heads.note(seen.branch, seen.frontier));
        witnesses.push(Witness { heads, who: "--witness says".to_owned() });
    }
    witnesses
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
