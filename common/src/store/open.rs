//! From options to a store that is ready for use.

use std::path::PathBuf;
use std::sync::Arc;

use super::{
    DirectoryStore, ObjectStore, Retry, RetryPolicy, S3Credentials, S3Options, S3Store, StoreError, StoreUrl, Throttle,
    ThrottleLimits,
};

/// What a store is made of.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where objects lie.
    pub backend: Backend,
    /// How failed calls are repeated.
    pub retry: RetryPolicy,
    /// Limits on its use; none by default.
    pub throttle: ThrottleLimits,
}

/// Where objects lie, with what only that kind of place needs.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A bucket.
    S3(Box<S3Options>),
    /// A directory.
    Directory {
        /// Its absolute path.
        root: PathBuf,
        /// Whether it is made where it is missing. Only who sets up a repository should: an unmounted file
        /// system must not look like an empty repository.
        create: bool,
    },
}

impl StoreOptions {
    /// The defaults for `url`. `credentials` matter to S3 only.
    pub fn new(url: &StoreUrl, credentials: S3Credentials) -> StoreOptions {
        let backend = match url {
            StoreUrl::S3 { bucket, prefix } => Backend::S3(Box::new(S3Options::new(bucket, prefix, credentials))),
            StoreUrl::Directory(root) => Backend::Directory { root: root.clone(), create: false },
        };
        StoreOptions { backend, retry: RetryPolicy::default(), throttle: ThrottleLimits::default() }
    }
}

/// Opens a store: the backend, its limits, and retries around both.
///
/// Errors: an option that cannot be used; [`NoSuchStore`](super::StoreErrorKind::NoSuchStore) for a directory that is
/// missing. A bucket is not asked before its first use.
pub async fn open(options: StoreOptions) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut store: Arc<dyn ObjectStore> = match options.backend {
        Backend::S3(s3) => Arc::new(S3Store::new(*s3).await?),
        Backend::Directory { root, create: true } => Arc::new(DirectoryStore::create(root).await?),
        Backend::Directory { root, create: false } => Arc::new(DirectoryStore::open(root).await?),
    };
    if options.throttle != ThrottleLimits::default() {
        store = Arc::new(Throttle::new(store, options.throttle));
    }
    Ok(Arc::new(Retry::new(store, options.retry)))
}

#[cfg(test)]
mod tests {
    use super::super::StoreErrorKind;
    use super::*;

    #[tokio::test]
    async fn a_directory_is_made_only_on_request() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url: StoreUrl = format!("file://{}/repository", folder.path().display()).parse().expect("a URL");
        let mut options = StoreOptions::new(&url, S3Credentials::Chain { profile: None });
        assert_eq!(open(options.clone()).await.expect_err("missing").kind, StoreErrorKind::NoSuchStore);
        if let Backend::Directory { create, .. } = &mut options.backend {
            *create = true;
        }
        let store = open(options).await.expect("made");
        assert_eq!(store.describe(), url.to_string());
    }
}
