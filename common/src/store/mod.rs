//! The object store: where a repository's objects lie.
//!
//! One trait with few calls; each says what it promises. Backends and decorators all pass the same
//! conformance suite. Keys are relative to the repository's URL, use `/` between parts, and never start
//! or end with one. No key lies below another key (`a` and `a/b`): in a directory a name cannot be a file and
//! a folder at once.

#[cfg(test)]
mod conformance;
mod crowd;
mod decorator;
pub mod directory;
mod failure;
pub mod fault;
mod health;
mod key;
pub mod open;
mod probe;
mod retry;
pub mod s3;
mod shelf;
mod tally;
mod throttle;
pub mod url;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

pub use crate::secret::Secret;
pub use decorator::Decorator;
pub use directory::DirectoryStore;
pub use health::Failing;
pub use open::{Backend, StoreOptions, open};
pub use probe::{Probed, probe, probe_all};
pub use retry::{Retry, RetryPolicy, with_patience};
pub use s3::{LockMode, ObjectLock, S3Checksum, S3Credentials, S3Options, S3Store};
pub use shelf::Shelf;
pub use tally::{FAILURES, OPERATIONS, PUT_SECONDS, Tally};
pub use throttle::{Throttle, ThrottleLimits};
pub use url::{StoreUrl, StoreUrlError};

/// Most bytes that one `get` or `get_range` returns, so that a strange object cannot fill the memory; what is
/// larger is read in ranges.
pub const LARGEST_GET: u64 = 256 << 20;

/// Objects that one request to a store lists at most.
pub const LARGEST_PAGE: usize = 1000;

/// Objects that one `list` returns at most. Only a store that reads all that a prefix names for each page gives more than
/// [`LARGEST_PAGE`], and only to who asks for more: that many in one go are that much less to read again.
pub const LONGEST_PAGE: usize = 65_536;

/// Places that objects can be kept in, and wrappers that add one property each.
#[async_trait::async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Writes the object `key` once. When the call returns [`PutOutcome::Created`], the bytes are durable and
    /// visible to every later `get` and `list`. A failed call may have written the object or not, but never
    /// a part of it: readers see all bytes or none (I7).
    ///
    /// An existing object is never changed (I3): then the answer is [`PutOutcome::AlreadyExists`], whatever
    /// its bytes are. Of several concurrent writers exactly one gets `Created` where the store supports it
    /// (see [`Capabilities::conditional_put`]). An object that is said to exist is as durable as one just
    /// created. It may be our own: when an earlier attempt failed with an unknown outcome (a retry does that
    /// unseen), `AlreadyExists` can mean that it had succeeded, so callers compare the bytes before they speak
    /// of a conflict.
    ///
    /// Errors: [`StoreErrorKind::Protocol`] when `key` cannot be a key.
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError>;

    /// The whole object.
    ///
    /// Errors: [`StoreErrorKind::NotFound`] when there is none, [`StoreErrorKind::Protocol`] when it has more than
    /// [`LARGEST_GET`] bytes.
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// The bytes `range` of an object, and the object's whole size. A range that reaches beyond the end is
    /// cut there; one that starts at or beyond the end yields no bytes.
    ///
    /// Errors: [`StoreErrorKind::NotFound`] when there is no such object, [`StoreErrorKind::Protocol`] when the answer
    /// would have more than [`LARGEST_GET`] bytes.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError>;

    /// Objects whose key starts with `prefix` (a plain string, not a folder), in ascending byte order,
    /// beginning after the key `start_after` (which need not exist, nor start with `prefix`); at most `limit`,
    /// and never more than [`LONGEST_PAGE`] per call. Who wants everything asks for that many.
    ///
    /// Who goes through everything goes on while [`Page::more`] says so: at the end of a prefix at which others add all the time no
    /// page would ever be empty.
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Removes an object. Removing what is not there is success.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Keeps an object from being removed, whatever its retention says, until this is called again with `held` false. What is held, or
    /// not, stays so.
    ///
    /// Errors: [`StoreErrorKind::Protocol`] where the store has no legal holds.
    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        let reason = "this store has no legal holds; they need a bucket with object lock".to_owned();
        let (kind, operation) = (StoreErrorKind::Protocol, if held { "hold" } else { "release" });
        Err(StoreError { kind, operation, key: key.to_owned(), store: self.describe(), reason })
    }

    /// Whether objects may be kept from being removed by a retention or a legal hold ([`ObjectStore::lock`]).
    async fn has_locks(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// What keeps an object from being removed. Of one that is not there, nothing does.
    ///
    /// Errors: [`StoreErrorKind::Denied`] where these credentials may not know: who takes that for "nothing" hides what is locked.
    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        let _ = key;
        Ok(Lock::default())
    }

    /// Where this is, for messages: the URL, never with a secret in it.
    fn describe(&self) -> String;

    /// Follows which calls fail at the moment while they are tried again; `None` from a store that never tries again.
    fn failing(&self) -> Option<watch::Receiver<Failing>> {
        None
    }

    /// What was asked of it so far; `None` from a store that does not count.
    fn tally(&self) -> Option<Arc<Tally>> {
        None
    }
}

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The object was written and is durable.
    Created,
    /// The name was taken before; nothing was changed.
    AlreadyExists,
}

/// What keeps an object from being removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lock {
    /// Its retention ends then, in seconds since 1970 by the store's clock; also one that is over.
    pub until: Option<i64>,
    /// Whether somebody holds it, for as long as it takes ([`ObjectStore::legal_hold`]).
    pub held: bool,
}

impl Lock {
    /// Whether it still does at `now`, in seconds since 1970 by the store's clock.
    pub fn keeps(self, now: i64) -> bool {
        self.held || self.until.is_some_and(|until| until > now)
    }
}

/// The answer to a ranged get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeBody {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// Size of the whole object in bytes.
    pub object_size: u64,
}

/// One page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// What it lists, in ascending byte order of the keys.
    pub objects: Vec<ObjectMeta>,
    /// Whether there may have been more when this was listed; an empty page is the last in any case. A store may err towards `true`,
    /// which costs one call more, and never towards `false`.
    pub more: bool,
}

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When the store says it was written, in seconds since 1970; never used for decisions about recovery
    /// (case 44).
    pub modified: Option<i64>,
}

/// What a store was seen to be able to do; probed at init and recorded in `identity`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// `If-None-Match: *` is honoured: a second put of a name is refused by the store itself.
    pub conditional_put: bool,
    /// Objects may be deleted with these credentials.
    pub delete: bool,
}

/// Why a call to a store failed, as far as a caller must tell cases apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// The store refused these credentials, or they do not allow this.
    Denied,
    /// The bucket or folder itself is not there.
    NoSuchStore,
    /// No space or quota left.
    Full,
    /// The store asks to slow down (503, 429).
    Throttled,
    /// Unreachable, timed out, or broken off half way; the outcome is not known.
    Unreachable,
    /// The store answered with something that is not as it must be (wrong size, wrong checksum, 4xx).
    Protocol,
}

/// A call to a store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {}{store}: {reason}", if key.is_empty() { String::new() } else { format!("{key} in ") })]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: StoreErrorKind,
    /// What was tried: "put", "get", "list", "delete", "hold", "release", "lock" (to read what keeps an object).
    pub operation: &'static str,
    /// The object's key, or the prefix of a listing.
    pub key: String,
    /// The store's URL, without secrets.
    pub store: String,
    /// What went wrong, and where there is something to do, what.
    pub reason: String,
}

impl StoreError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            StoreErrorKind::NotFound | StoreErrorKind::Denied | StoreErrorKind::NoSuchStore => true,
            StoreErrorKind::Protocol => true,
            StoreErrorKind::Full | StoreErrorKind::Throttled | StoreErrorKind::Unreachable => false,
        }
    }
}
