//! Listing keys.

use std::collections::BTreeMap;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use super::super::failure::Failure;
use super::super::key::check_prefix;
use super::super::{LARGEST_PAGE, LONGEST_PAGE, ObjectMeta, Page, StoreErrorKind};
use super::S3Store;
use super::failure::{failure, quote};

impl S3Store {
    pub(super) async fn page(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, Failure> {
        check_prefix(prefix).map_err(Failure::protocol)?;
        if limit == 0 {
            return Ok(Page::default());
        }
        let order = &self.inner.built.order;
        if !order.is_by_folder() {
            let page = self.page_in_order(prefix, start_after, limit.min(LARGEST_PAGE)).await?;
            // The answer may have told.
            if let Some(page) = page.filter(|_| !order.is_by_folder()) {
                return Ok(page);
            }
            order.set_by_folder();
            tracing::debug!(
                store = super::describe(self.options()),
                "this server does not list in byte order; each page of a listing reads all that its prefix names"
            );
        }
        self.page_of_everything(prefix, start_after, limit.min(LONGEST_PAGE)).await
    }

    /// The page as S3 gives it; `None` when it is not in byte order.
    async fn page_in_order(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, Failure> {
        let mut continuation = None;
        // An answer may be empty although more follow (what was skipped counts), so that is not passed on.
        loop {
            let answer = self.ask(prefix, start_after, continuation, limit).await?;
            let mut found = self.objects(prefix, &answer)?;
            let keys = start_after.into_iter().chain(found.iter().map(|meta| meta.key.as_str()));
            if !keys.is_sorted_by(|a, b| a < b) {
                return Ok(None);
            }
            // A full page is not believed to be the last one: what a server forgets to say must not look like a hole.
            let more = answer.is_truncated() == Some(true) || found.len() >= limit;
            found.truncate(limit);
            continuation = next(&answer)?;
            if !found.is_empty() || continuation.is_none() {
                return Ok(Some(Page { objects: found, more }));
            }
        }
    }

    /// The smallest `limit` keys after `start_after`, whatever the order of the server: it walks folders and takes
    /// `a/b` before `a.b`, so where a page begins in its order says nothing.
    async fn page_of_everything(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, Failure> {
        let mut smallest: BTreeMap<String, ObjectMeta> = BTreeMap::new();
        let (mut continuation, mut more) = (None, false);
        loop {
            let answer = self.ask(prefix, None, continuation, LARGEST_PAGE).await?;
            for meta in self.objects(prefix, &answer)? {
                if start_after.is_none_or(|after| meta.key.as_str() > after) {
                    smallest.insert(meta.key.clone(), meta);
                    if smallest.len() > limit {
                        smallest.pop_last();
                        more = true;
                    }
                }
            }
            continuation = next(&answer)?;
            if continuation.is_none() {
                return Ok(Page { objects: smallest.into_values().collect(), more });
            }
        }
    }

    async fn ask(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        continuation: Option<String>,
        limit: usize,
    ) -> Result<ListObjectsV2Output, Failure> {
        let request = self
            .client()
            .list_objects_v2()
            .bucket(self.bucket())
            .prefix(self.below(prefix))
            .set_start_after(start_after.filter(|after| !after.is_empty()).map(|after| self.below(after)))
            .set_continuation_token(continuation)
            .max_keys(i32::try_from(limit).unwrap_or(i32::MAX));
        self.in_time(0, request.send()).await?.map_err(|error| failure(&error, self.place()))
    }

    /// The objects of an answer, by their keys below the prefix of this store.
    fn objects(&self, prefix: &str, answer: &ListObjectsV2Output) -> Result<Vec<ObjectMeta>, Failure> {
        let root = self.below("");
        let mut found = Vec::with_capacity(answer.contents().len());
        for object in answer.contents() {
            let full = object.key().unwrap_or_default();
            let Some(key) = full.strip_prefix(&root).filter(|key| key.starts_with(prefix)) else {
                return Err(Failure::protocol(format!("the listing holds what was not asked for: {}", quote(full))));
            };
            // Some consoles make objects with a slash at the end to show folders.
            if key.is_empty() || key.ends_with('/') {
                continue;
            }
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| Failure::protocol("the listing does not say an object's size"))?;
            let modified = object.last_modified().map(|at| at.secs());
            found.push(ObjectMeta { key: key.to_owned(), size, modified });
        }
        Ok(found)
    }
}

/// Where the next answer begins; `None` after the last.
///
/// Errors: there is more, and the server does not say how to ask for it: taken for the last, that would look like a hole.
fn next(answer: &ListObjectsV2Output) -> Result<Option<String>, Failure> {
    if answer.is_truncated() != Some(true) {
        return Ok(None);
    }
    match answer.next_continuation_token() {
        Some(token) if !token.is_empty() => Ok(Some(token.to_owned())),
        _ => {
            let reason = "the listing says that there is more, and not where it goes on".to_owned();
            Err(Failure::new(StoreErrorKind::Unreachable, reason))
        }
    }
}
