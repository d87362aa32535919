//! Going through what a prefix names, page by page, to the end that there was when the last page was listed.

use crate::store::{ObjectMeta, Page};

use super::{Repository, RepositoryError};

/// A walk over the objects whose names begin alike, in order, keys relative to the cluster's folder.
///
/// It ends with the page that the store says is the last. Asking on until a page is empty would never end beside a
/// synchronous archiver, which stores the next tail before the next page is asked for.
#[derive(Debug)]
pub struct Pages<'a> {
    repository: &'a Repository,
    prefix: String,
    after: Option<String>,
    limit: usize,
    ended: bool,
}

impl Pages<'_> {
    /// The next page, never an empty one; `None` after the last.
    ///
    /// Errors: the store's.
    pub async fn next(&mut self) -> Result<Option<Vec<ObjectMeta>>, RepositoryError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.repository.page(&self.prefix, self.after.as_deref(), self.limit).await?;
        self.ended = !page.more;
        let Some(last) = page.objects.last() else {
            self.ended = true;
            return Ok(None);
        };
        self.after = Some(last.key.clone());
        Ok(Some(page.objects))
    }

    /// Passes over everything below `folder`, which ends without a slash: the next page begins behind it.
    pub(super) fn pass(&mut self, folder: &str) {
        // '0' is the byte after '/': everything below the folder sorts before it.
        self.after = Some(format!("{folder}0"));
        // The page may have shown what comes behind it.
        self.ended = false;
    }

    /// After which key the next page begins.
    pub(super) fn position(self) -> Option<String> {
        self.after
    }
}

impl Repository {
    /// Everything whose name begins with `prefix`, after the key `after`, `limit` objects at a time. Whether there are any is told
    /// by a walk of one object at a time.
    pub fn pages(&self, prefix: &str, after: Option<String>, limit: usize) -> Pages<'_> {
        Pages { repository: self, prefix: prefix.to_owned(), after, limit, ended: false }
    }

    /// One page of what lies below `prefix`, beginning after `after`, keys relative to the cluster's folder.
    pub(super) async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RepositoryError> {
        let folder = format!("{}/", self.cluster);
        let after = after.map(|after| format!("{folder}{after}"));
        let mut page = self.store.list(&format!("{folder}{prefix}"), after.as_deref(), limit).await?;
        for meta in &mut page.objects {
            meta.key = meta.key.strip_prefix(&folder).unwrap_or(&meta.key).to_owned();
        }
        Ok(page)
    }

    /// The first `limit` objects whose name begins with `prefix`.
    ///
    /// Errors: the store's.
    pub async fn first_objects(&self, prefix: &str, limit: usize) -> Result<Vec<ObjectMeta>, RepositoryError> {
        Ok(self.page(prefix, None, limit).await?.objects)
    }
}
