//! The tables of the configuration, typed.

use std::path::PathBuf;
use std::time::Duration;

use super::location::RepositoryUrl;
use super::origin::Setting;
use super::price::Price;
use crate::schedule::Schedule;
use crate::secret::Secret;
use crate::store::LockMode;

/// `[cluster]`: the server that is backed up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Name of the cluster, `[a-z0-9_-]`. See [`Config::need_name`](super::Config::need_name).
    pub name: Option<Setting<String>>,
    /// The connection string, which may hold a password. See
    /// [`Config::need_conninfo`](super::Config::need_conninfo).
    pub conninfo: Option<Setting<Secret>>,
    /// Where set. See [`Config::need_state_dir`](super::Config::need_state_dir).
    pub state_dir: Option<Setting<PathBuf>>,
    /// Where set. See [`Config::need_slot`](super::Config::need_slot).
    pub slot: Option<Setting<String>>,
    /// Folder of PostgreSQL's programs, where it is not to be searched.
    pub pg_bin: Option<Setting<PathBuf>>,
}

/// `[repository]`: where the backups are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryConfig {
    /// The place. See [`Config::need_repository`](super::Config::need_repository).
    pub url: Option<Setting<RepositoryUrl>>,
    /// `[repository.s3]`.
    pub s3: S3Config,
}

/// `[repository.s3]`: how to reach an S3 store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Config {
    /// URL of the server, `http` or `https`; AWS itself when not set.
    pub endpoint: Option<Setting<String>>,
    /// Region, where set.
    pub region: Option<Setting<String>>,
    /// Whether the bucket stands in the path. See [`S3Config::uses_path_style`].
    pub path_style: Option<Setting<bool>>,
    /// How objects are locked when they are put; not at all when not set.
    pub object_lock: Option<Setting<LockMode>>,
    /// When to send checksums. See [`S3Config::uses_checksums`].
    pub checksums: Option<Setting<Checksums>>,
    /// Access key.
    pub access_key_id: Option<Setting<String>>,
    /// File with the access key.
    pub access_key_id_file: Option<Setting<PathBuf>>,
    /// Secret of the access key.
    pub secret_access_key: Option<Setting<Secret>>,
    /// File with the secret.
    pub secret_access_key_file: Option<Setting<PathBuf>>,
    /// Token of temporary credentials.
    pub session_token: Option<Setting<Secret>>,
    /// File with the token.
    pub session_token_file: Option<Setting<PathBuf>>,
    /// PEM file of certificate authorities for the endpoint, in place of the system's.
    pub ca_file: Option<Setting<PathBuf>>,
}

impl S3Config {
    /// Whether the bucket stands in the path: as set, else with a custom endpoint.
    pub fn uses_path_style(&self) -> bool {
        self.path_style.as_ref().map_or(self.endpoint.is_some(), |setting| setting.value)
    }

    /// When to send checksums: as set, else only where required with a custom endpoint.
    pub fn uses_checksums(&self) -> Checksums {
        let derived = if self.endpoint.is_some() { Checksums::WhenRequired } else { Checksums::WhenSupported };
        self.checksums.as_ref().map_or(derived, |setting| setting.value)
    }
}

/// When to send checksums of bodies, in the words of the AWS SDKs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksums {
    /// Only where S3 demands one.
    WhenRequired,
    /// Wherever there is one to send.
    WhenSupported,
}

/// `[keys]`: as texts; the sealed object's room gives them their types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysConfig {
    /// Public keys to seal to (`walseal1…`).
    pub recipients: Option<Setting<Vec<String>>>,
    /// File of the writer key.
    pub writer_key_file: Option<Setting<PathBuf>>,
    /// Files of identities.
    pub identity_files: Option<Setting<Vec<PathBuf>>>,
    /// Writers whose signatures count.
    pub trusted_writers: Option<Setting<Vec<TrustedWriter>>>,
}

/// A writer whose signatures count, and for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedWriter {
    /// Its public key (`walsealw1…`), as written.
    pub key: String,
    /// What it is trusted with; never empty.
    pub roles: Vec<WriterRole>,
}

/// What a writer is trusted with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WriterRole {
    /// WAL and everything about it.
    Wal,
    /// Base backups.
    Base,
    /// Results of drills in the ledger.
    Drill,
}

/// `[wal]`: the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalConfig {
    /// Whether the daemon streams WAL.
    pub enabled: Setting<bool>,
    /// Longest time that committed WAL waits before it is shipped; 10 ms to 1 h.
    pub ship_interval: Setting<Duration>,
    /// Ship each commit at once.
    pub synchronous: Setting<bool>,
    /// A buffer full for longer closes the connection.
    pub stall_limit: Setting<Duration>,
    /// How long a server's shutdown may wait for a store that is down.
    pub shutdown_wait: Setting<Duration>,
    /// Longest time without a commit before the archiver makes one; never where it is not set. 1 s to 1 d.
    pub heartbeat: Option<Setting<Duration>>,
    /// WAL kept by the slot, in bytes, beyond which the slot is given up; more than 0.
    pub give_up_at: Option<Setting<u64>>,
    /// How often the frontier is written down; 1 s to 1 d.
    pub frontier_interval: Setting<Duration>,
    /// Whether a chained table is kept in the cluster.
    pub canary: Setting<bool>,
    /// How often it gets a row; 1 s to 1 d.
    pub canary_interval: Setting<Duration>,
}

/// `[base]`: base backups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseConfig {
    /// When; `None` for never.
    pub schedule: Setting<Option<Schedule>>,
    /// Time zone of the schedule, by its name, else the server's. Looked up by the daemon only: other hosts may not know it.
    pub timezone: Option<Setting<String>>,
    /// Start later by a random time up to this.
    pub jitter: Setting<Duration>,
    /// Take a full one when the last is older.
    pub full_every: Setting<Duration>,
    /// Most incremental ones between two full ones.
    pub max_depth: Setting<u32>,
    /// Bytes per second to read from the server, 32 KiB to 1 GiB; 0 is no limit.
    pub max_rate: Setting<u64>,
    /// Whether a backup reads more slowly while the server suffers.
    pub backoff: Setting<bool>,
}

/// `[retention]`: what is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetentionConfig {
    /// Any second of this time.
    pub window: Setting<Duration>,
    /// Bases beyond it, one for each of so many days.
    pub daily: Setting<u32>,
    /// Likewise for weeks.
    pub weekly: Setting<u32>,
    /// Likewise for months.
    pub monthly: Setting<u32>,
    /// Proven backups that prune never goes below.
    pub min_proven: Setting<u32>,
    /// Whether the daemon prunes.
    pub prune: Setting<bool>,
    /// How long what goes is announced before it does.
    pub grace: Setting<Duration>,
    /// Asked before anything goes that can be restored.
    pub before_window_moves: Option<Setting<String>>,
    /// How long that command may take.
    pub command_limit: Setting<Duration>,
}

/// `[cost]`: prices, for estimates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CostConfig {
    /// Of a GB (10^9 bytes) for a month.
    pub storage: Setting<Price>,
    /// Of a thousand puts.
    pub puts: Setting<Price>,
    /// In what.
    pub currency: Setting<String>,
}

/// `[verify]`: whether the repository is whole, looked at by the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyConfig {
    /// How often names and records are compared; zero is never.
    pub every: Setting<Duration>,
    /// How often every object is read; zero is never.
    pub read_every: Setting<Duration>,
    /// Bytes per second that are read at most; 0 is no limit.
    pub max_rate: Setting<u64>,
}

/// `[fetch]`: the `restore_command`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchConfig {
    /// How long a store that does not answer is retried.
    pub retry: Setting<Duration>,
    /// Likewise on a standby.
    pub retry_standby: Setting<Duration>,
    /// Bytes of segments that are kept ready; 0 for none.
    pub prefetch: Setting<u64>,
}

/// `[drill]`: restores that prove a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrillConfig {
    /// When; `None` for never.
    pub schedule: Option<Schedule>,
    /// Time zone of the schedule, by its name, else the host's. Looked up by the daemon only: other hosts may not know it.
    pub timezone: Option<Setting<String>>,
    /// Start later by a random time up to this.
    pub jitter: Setting<Duration>,
    /// Whether drills on schedule go to a random time, else to the latest.
    pub random: Setting<bool>,
    /// Where drills restore to.
    pub scratch_dir: Setting<PathBuf>,
    /// Folder of PostgreSQL's programs for drills, where it is another than the cluster's.
    pub pg_bin: Option<Setting<PathBuf>>,
    /// The cluster's superuser.
    pub user: Setting<String>,
    /// A server to drill snapshots on. See [`Config::open_drill_conninfo`](super::Config::open_drill_conninfo).
    pub conninfo: Option<Setting<Secret>>,
    /// How deep `pg_amcheck` looks.
    pub amcheck: Setting<Amcheck>,
    /// How rows of large tables are counted.
    pub count: Setting<Count>,
    /// Bytes above which a table is large.
    pub count_above: Setting<u64>,
    /// Percent of its rows that a table may lose between two drills, 0 to 100.
    pub shrink: Setting<u32>,
    /// Whether a table that lost more, or vanished, fails the drill; else it warns.
    pub shrinking_fails: Setting<bool>,
    /// A drill fails when it takes longer to the first answer.
    pub max_rto: Option<Setting<Duration>>,
    /// A drill fails when more time than this would be lost.
    pub max_rpo: Option<Setting<Duration>>,
    /// Whether the next base backup is made of the instance.
    pub make_base: Setting<bool>,
    /// Databases of the instance that are dumped where a drill passes.
    pub snapshot: Option<Setting<Vec<String>>>,
    /// Whether foreign keys are validated.
    pub foreign_keys: Setting<bool>,
    /// Checks of the user's own.
    pub checks: Vec<DrillCheck>,
    /// A file with more of them. See [`Config::open_checks`](super::Config::open_checks).
    pub checks_file: Option<Setting<PathBuf>>,
}

/// One of `[[drill.checks]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrillCheck {
    /// What the check is called.
    pub name: String,
    /// The database it runs in.
    pub database: String,
    /// The statement.
    pub sql: String,
    /// The text that its first column must have.
    pub expect: String,
    /// How far a number may be away from the expected one; none for texts.
    pub tolerance: Option<Tolerance>,
    /// It fails when it takes longer.
    pub timeout: Duration,
    /// Whether the drill fails with it; else it only warns, also of a statement that cannot run.
    pub fails: bool,
}

/// How far a number may be away from an expected one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// By so much.
    Absolute(f64),
    /// By so many percent of the expected number.
    Percent(f64),
}

// No tolerance is NaN.
impl Eq for Tolerance {}

/// How deep `pg_amcheck` looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amcheck {
    /// At tables.
    Heap,
    /// At tables and B-tree indexes.
    Indexes,
    /// Also for each row in its indexes.
    HeapAllIndexed,
}

/// How rows of large tables are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Every one.
    All,
    /// In a part of the pages.
    Sample,
    /// By the planner's figure.
    Estimate,
}

/// `[snapshot]`: logical dumps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotConfig {
    /// When; `None` for never.
    pub schedule: Option<Schedule>,
    /// So long after the last one began; instead of a schedule.
    pub interval: Option<Setting<Duration>>,
    /// Time zone of schedule and retention, by its name, else the host's. Looked up by the daemon only.
    pub timezone: Option<Setting<String>>,
    /// Start later by a random time up to this.
    pub jitter: Setting<Duration>,
    /// The databases; `*` is all, none is the one of the connection string.
    pub databases: Option<Setting<Vec<String>>>,
    /// How many databases are dumped at a time, 1 to 64.
    pub jobs: Setting<usize>,
    /// Patterns of schemas that are left out.
    pub exclude_schemas: Option<Setting<Vec<String>>>,
    /// Patterns of tables that are left out.
    pub exclude_tables: Option<Setting<Vec<String>>>,
    /// All that are younger are kept.
    pub within: Option<Setting<Duration>>,
    /// So many of the newest are kept.
    pub last: Setting<u32>,
    /// One of each of so many days is.
    pub daily: Setting<u32>,
    /// Likewise of weeks.
    pub weekly: Setting<u32>,
    /// Likewise of months.
    pub monthly: Setting<u32>,
    /// Percent of its rows that a table may lose between two snapshots without an alert, 0 to 100.
    pub shrink: Setting<u32>,
}

/// `[alerts]`: who hears of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlertsConfig {
    /// Run by `sh -c` for each alert and its end.
    pub command: Option<Setting<String>>,
    /// A command that takes longer is ended.
    pub command_limit: Setting<Duration>,
    /// What still stands is told again after this; zero is never.
    pub remind_after: Setting<Duration>,
    /// A store that fails for longer is an alert.
    pub store_after: Setting<Duration>,
    /// Bytes of WAL that the server may keep for the archiver without an alert.
    pub backlog: Setting<u64>,
    /// Time's worth of commits that may be lost with the server without an alert; zero is any.
    pub rpo: Setting<Duration>,
    /// Time without a drill that passed before that is an alert; zero is never.
    pub proven_within: Setting<Duration>,
    /// See [`Config::webhook_url`](super::Config::webhook_url).
    pub webhook_url: Option<Setting<Secret>>,
    /// The file that holds it.
    pub webhook_url_file: Option<Setting<PathBuf>>,
    /// See [`Config::slack_url`](super::Config::slack_url).
    pub slack_url: Option<Setting<Secret>>,
    /// The file that holds it.
    pub slack_url_file: Option<Setting<PathBuf>>,
    /// Who gets mail.
    pub mail_to: Option<Setting<Vec<String>>>,
    /// From whom.
    pub mail_from: Option<Setting<String>>,
    /// Who takes mail.
    pub sendmail: Setting<PathBuf>,
    /// See [`Config::heartbeat_url`](super::Config::heartbeat_url).
    pub heartbeat_url: Option<Setting<Secret>>,
    /// The file that holds it.
    pub heartbeat_url_file: Option<Setting<PathBuf>>,
}
