//! What an S3 store needs to know.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// Where an S3 store is, how it is reached, and with what right.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// What every key starts with, without slashes around it; may be empty.
    pub prefix: String,
    /// `http://…` or `https://…` of a provider other than AWS.
    pub endpoint: Option<String>,
    /// The region; with an endpoint `us-east-1` when nothing names one.
    pub region: Option<String>,
    /// Whether the bucket stands in the path (true) or in the host name (false). Default: in the path where
    /// an endpoint is given.
    pub path_style: Option<bool>,
    /// How the store is made to check what it received.
    pub checksum: S3Checksum,
    /// Who we are.
    pub credentials: S3Credentials,
    /// PEM file with the only certificate authorities to trust. Default: the file that `AWS_CA_BUNDLE` names, else
    /// the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time that one call may take, not counting the time that its bytes need at
    /// [`SLOWEST_RATE`](S3Options::SLOWEST_RATE).
    pub deadline: Duration,
    /// Longest time between two pieces of a body that is read.
    pub stall: Duration,
    /// Whether the store honours `If-None-Match: *` (see [`Capabilities`](crate::store::Capabilities)). Where it does
    /// not, a put looks first, and two writers at the same moment may both succeed, the later one's bytes
    /// remaining.
    pub conditional_put: bool,
    /// Whether objects are locked when they are put.
    pub object_lock: Option<ObjectLock>,
    /// Bodies with more bytes than this go up in parts. S3 takes up to 5 GiB in one put, and so does the default.
    pub multipart_threshold: u64,
    /// Bytes of one part; S3 takes 5 MiB to 5 GiB, and 10,000 parts.
    pub part_size: u64,
}

impl S3Options {
    /// Bytes per second that a connection may always be expected to carry; a slower one misses its deadline.
    pub const SLOWEST_RATE: u64 = 128 << 10;

    /// The defaults for `prefix` in `bucket`: AWS, 30 s, conditional puts.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>, credentials: S3Credentials) -> S3Options {
        S3Options {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: None,
            checksum: S3Checksum::Auto,
            credentials,
            ca_file: None,
            deadline: Duration::from_secs(30),
            stall: Duration::from_secs(15),
            conditional_put: true,
            object_lock: None,
            multipart_threshold: 5 << 30,
            part_size: 64 << 20,
        }
    }
}

/// How objects are locked: until then their versions cannot be removed, nor replaced by others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// How long from the put on.
    pub retain: Duration,
    /// Objects that are not locked: those with one of these words among the first two parts of their key.
    pub never: Vec<String>,
}

impl ObjectLock {
    /// Whether the object `key` is locked.
    pub fn covers(&self, key: &str) -> bool {
        !key.split('/').take(2).any(|part| self.never.iter().any(|word| word == part))
    }
}

/// S3's modes of retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockMode {
    /// Whoever has `s3:BypassGovernanceRetention` may lift it.
    Governance,
    /// Nobody may, the account's owner included.
    Compliance,
}

/// How the store is made to check the bytes of a put; each is a header, sent before the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum S3Checksum {
    /// `Crc32c` on AWS. On a custom endpoint both, until it was seen with which of them it answers, and from then on that
    /// one: MD5 costs far more.
    #[default]
    Auto,
    /// `x-amz-checksum-crc32c`: fast, but not known to every provider.
    Crc32c,
    /// `Content-MD5`: known to every provider.
    ContentMd5,
}

/// Who we are to the store.
#[derive(Clone)]
pub enum S3Credentials {
    /// A key pair.
    Static {
        /// The access key's id.
        access_key_id: String,
        /// Its secret.
        secret_access_key: Secret,
        /// For temporary credentials.
        session_token: Option<Secret>,
    },
    /// What the AWS tools use: `AWS_*` variables, `~/.aws`, web identity, the container's or the machine's role.
    Chain {
        /// A profile other than the default one.
        profile: Option<String>,
    },
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            S3Credentials::Static { .. } => f.write_str("Static(not shown)"),
            S3Credentials::Chain { profile } => f.debug_struct("Chain").field("profile", profile).finish(),
        }
    }
}
