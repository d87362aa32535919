//! Every key that the configuration knows.

/// What a key's value looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A file or folder; relative to the configuration file's folder, or to the current one elsewhere.
    Path,
    /// `true` or `false`.
    Boolean,
    /// A whole number, not negative.
    Number,
    /// A whole number with a unit: `ms`, `s`, `m`, `h`, `d`, `w`.
    Duration,
    /// Bytes: `0`, `100MB`, `64MiB`.
    Size,
    /// An amount of money, not negative: `0.023`.
    Price,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several texts; separated by commas in the environment.
    List,
    /// Several paths; separated by commas in the environment.
    Paths,
    /// Texts or tables `{ key, roles }`; from the environment texts only.
    Writers,
    /// An array of tables; only in the file.
    Tables,
}

impl Kind {
    /// The kind as the documentation calls it.
    pub fn describe(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Secret => "text, secret".into(),
            Kind::Path => "path".into(),
            Kind::Boolean => "`true` or `false`".into(),
            Kind::Number => "number".into(),
            Kind::Duration => "duration".into(),
            Kind::Size => "size".into(),
            Kind::Price => "price".into(),
            Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
            Kind::List => "list of texts".into(),
            Kind::Paths => "list of paths".into(),
            Kind::Writers => "list of texts or tables".into(),
            Kind::Tables => "array of tables".into(),
        }
    }

    /// Whether a variable of the environment can carry such a value.
    pub fn fits_a_variable(self) -> bool {
        !matches!(self, Kind::Tables)
    }
}

/// What holds when nobody sets a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// Nothing: a verb that needs the key asks for it.
    None,
    /// This value, written as in the environment.
    Value(&'static str),
    /// A value that follows from others, described for the documentation.
    Derived(&'static str),
}

/// A key of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The whole path, parts joined by dots: `repository.s3.endpoint`.
    pub path: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub fallback: Fallback,
    /// What it means, in one sentence of Markdown.
    pub meaning: &'static str,
}

impl Key {
    /// The variable that sets this key: `WALSEAL_REPOSITORY_S3_ENDPOINT`.
    pub fn variable(&self) -> String {
        format!("WALSEAL_{}", self.path.to_uppercase().replace('.', "_"))
    }

    /// The key's own name, without its table.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The table that holds the key; empty at the top.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }
}

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether some key lies in the table at `path`.
pub fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

const fn key(path: &'static str, kind: Kind, fallback: Fallback, meaning: &'static str) -> Key {
    Key { path, kind, fallback, meaning }
}

use Fallback::{Derived, None, Value};
use Kind::{Boolean, Choice, Duration, List, Number, Path, Paths, Price, Secret, Size, Tables, Text, Writers};

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("cluster.name", Text, None, "name of the cluster, of `a-z`, `0-9`, `_` and `-`, at most 55 long"),
    key(
        "cluster.conninfo",
        Secret,
        Derived("`DATABASE_URL`, else libpq's `PG*`"),
        "how to reach the server: libpq's syntax or a URL; several hosts; `passfile`; `sslmode`",
    ),
    key(
        "cluster.state_dir",
        Path,
        Derived("`/var/lib/walseal/<name>`"),
        "the index, caches and the socket of the daemon; created; may be lost",
    ),
    key("cluster.slot", Text, Derived("`walseal_<name>`, hyphens as underscores"), "the physical replication slot"),
    key(
        "cluster.pg_bin",
        Path,
        Derived("searched by major version"),
        "folder of PostgreSQL's programs (`postgres`, `pg_ctl`, …)",
    ),
    key(
        "repository.url",
        Text,
        Derived("`s3://S3_BUCKET/S3_PREFIX`"),
        "where the backups are: `s3://bucket/prefix`, `file:///folder` or `sftp://user@host/path`",
    ),
    key("repository.s3.endpoint", Text, None, "URL of the S3 server; without it AWS itself, by region"),
    key(
        "repository.s3.region",
        Text,
        Derived("AWS's own chain; `us-east-1` with an endpoint"),
        "region, also part of every signature",
    ),
    key(
        "repository.s3.path_style",
        Boolean,
        Derived("`true` with an endpoint, else `false`"),
        "the bucket in the path (`true`) or in the host name (`false`)",
    ),
    key(
        "repository.s3.object_lock",
        Choice(&["governance", "compliance"]),
        None,
        "lock each object when it is put, in S3's mode of retention, for as long as `retention.window` may need it; the bucket must have object lock",
    ),
    key(
        "repository.s3.checksums",
        Choice(&["when_required", "when_supported"]),
        Derived("`when_supported`; with an endpoint, what it is seen to answer with"),
        "`when_supported`: CRC-32C; `when_required`: `Content-MD5`, which every server knows, and which costs more",
    ),
    key("repository.s3.access_key_id", Text, Derived("AWS's own chain"), "access key; without it profiles and roles"),
    key("repository.s3.access_key_id_file", Path, None, "file that holds the access key"),
    key("repository.s3.secret_access_key", Secret, Derived("AWS's own chain"), "secret of the access key"),
    key("repository.s3.secret_access_key_file", Path, None, "file that holds the secret of the access key"),
    key("repository.s3.session_token", Secret, None, "token of temporary credentials"),
    key("repository.s3.session_token_file", Path, None, "file that holds the token of temporary credentials"),
    key(
        "repository.s3.ca_file",
        Path,
        Derived("the system's roots"),
        "PEM file of the certificate authorities to trust for the endpoint",
    ),
    key(
        "extra_repository",
        Tables,
        None,
        "further copies (`url`, `required`); known, but refused until copies are available",
    ),
    key("keys.recipients", List, None, "public keys (`walseal1…`); objects are sealed to all of them"),
    key(
        "keys.writer_key_file",
        Path,
        None,
        "the writer key; on the restorer optional: signs its entries in the ledger",
    ),
    key("keys.identity_files", Paths, None, "secret keys that open what was sealed; restorer only"),
    key(
        "keys.trusted_writers",
        Writers,
        None,
        "writers whose signatures count (`walsealw1…`: roles `wal` and `base`), or `{ key = \"walsealw1…\", roles = [\"drill\"] }`",
    ),
    key("wal.enabled", Boolean, Value("true"), "whether the daemon streams WAL"),
    key(
        "wal.ship_interval",
        Duration,
        Value("1s"),
        "longest time that committed WAL waits before it is shipped; from 10ms to 1h",
    ),
    key(
        "wal.synchronous",
        Boolean,
        Value("false"),
        "ship each commit at once, so that the archiver can stand in `synchronous_standby_names`",
    ),
    key(
        "wal.stall_limit",
        Duration,
        Value("5s"),
        "a buffer full for longer closes the connection; the slot keeps the WAL",
    ),
    key("wal.shutdown_wait", Duration, Value("10s"), "how long a server's shutdown may wait for a store that is down"),
    key(
        "wal.heartbeat",
        Duration,
        None,
        "longest time without a commit before the daemon makes one, so that a restore to a time can land on an idle cluster; from 1s to 1d; never, unless set",
    ),
    key(
        "wal.give_up_at",
        Size,
        None,
        "WAL that the server keeps for the slot beyond which the daemon drops it, recording a gap, also while it waits at its start for a store that is away; no limit without it",
    ),
    key(
        "wal.canary",
        Boolean,
        Value("false"),
        "keep a small table of chained rows in the cluster, `walseal.canary`, that drills check",
    ),
    key("wal.canary_interval", Duration, Value("1m"), "how often the canary gets a row; from 1s to 1d"),
    key(
        "wal.frontier_interval",
        Duration,
        Value("5m"),
        "how often the frontier is written down, signed, while WAL is streamed; from 1s to 1d",
    ),
    key(
        "base.schedule",
        Text,
        Value("0 2 * * *"),
        "when the daemon takes base backups, as cron writes it; `off` or nothing for never",
    ),
    key("base.timezone", Text, Derived("the server's"), "time zone of the schedule, by its IANA name"),
    key("base.jitter", Duration, Value("0s"), "start later by a random time up to this"),
    key("base.full_every", Duration, Value("7d"), "take a full base backup when the last one is older"),
    key(
        "base.max_depth",
        Number,
        Value("30"),
        "most incremental base backups between two full ones; 0 makes every one full",
    ),
    key(
        "base.max_rate",
        Size,
        Value("0"),
        "bytes per second that a base backup reads from the server at most; from 32KiB to 1GiB, 0 is no limit",
    ),
    key(
        "base.backoff",
        Boolean,
        Value("true"),
        "whether a base backup reads more slowly, down to an eighth, while the server answers much more slowly than before it; \
         where even that does not help, the backup is not the cause, and goes on at full speed",
    ),
    key("retention.window", Duration, Value("14d"), "any second of this time can be restored"),
    key("retention.daily", Number, Value("7"), "keep one base backup for each of so many days beyond the window"),
    key("retention.weekly", Number, Value("4"), "likewise for weeks"),
    key("retention.monthly", Number, Value("0"), "likewise for months"),
    key("retention.min_proven", Number, Value("1"), "prune never goes below this many proven backups"),
    key(
        "retention.prune",
        Boolean,
        Value("true"),
        "whether the daemon prunes after each base backup, where it may delete",
    ),
    key(
        "retention.grace",
        Duration,
        Value("48h"),
        "how long what goes is announced before it does, by the store's clock",
    ),
    key(
        "retention.before_window_moves",
        Text,
        None,
        "run by `sh -c` before anything goes that can be restored; what moves is in `WALSEAL_WINDOW_…` and on standard input, and only exit 0 lets it go",
    ),
    key(
        "retention.command_limit",
        Duration,
        Value("5m"),
        "such a command that takes longer is ended, and has not said yes",
    ),
    key("cost.storage", Price, Value("0.023"), "what a GB (10^9 bytes) costs for a month, for estimates"),
    key("cost.puts", Price, Value("0.005"), "likewise a thousand puts"),
    key("cost.currency", Text, Value("USD"), "in what the prices are"),
    key(
        "verify.every",
        Duration,
        Value("1d"),
        "how often the daemon compares names, labels, records and the ledger; at least 1s, `0s` is never",
    ),
    key(
        "verify.read_every",
        Duration,
        Value("0s"),
        "how often it reads every object as well, once each; `0s` is never: outside of a provider's network reading costs money",
    ),
    key("verify.max_rate", Size, Value("8MiB"), "bytes per second that it reads at most; 0 is no limit"),
    key("fetch.retry", Duration, Value("5m"), "how long `fetch` retries a store that does not answer, all in all"),
    key(
        "fetch.retry_standby",
        Duration,
        Value("10s"),
        "likewise on a standby, which can also stream; one call may be silent for so long, too",
    ),
    key(
        "fetch.prefetch",
        Size,
        Value("128MiB"),
        "disk beside the data directory that `fetch` may use for the next segments, as many whole ones as fit; `0` fetches each when it is asked for",
    ),
    key(
        "drill.schedule",
        Text,
        None,
        "when `walseal-restorer run` drills, as cron writes it; `off` or nothing for never",
    ),
    key("drill.timezone", Text, Derived("the host's"), "time zone of the schedule, by its IANA name"),
    key("drill.jitter", Duration, Value("0s"), "start later by a random time up to this"),
    key("drill.target", Choice(&["latest", "random"]), Value("latest"), "where `run` drills to"),
    key("drill.scratch_dir", Path, Value("/var/tmp/walseal"), "where drills restore to; nobody else may write there"),
    key("drill.pg_bin", Path, Derived("`cluster.pg_bin`"), "folder of PostgreSQL's programs for drills"),
    key("drill.user", Text, Value("postgres"), "the superuser of the cluster as whom drills look into it"),
    key(
        "drill.conninfo",
        Secret,
        None,
        "a server on which snapshots are drilled, each in a database of its own (`verify_…`) that is dropped after; without it in a new cluster",
    ),
    key(
        "drill.amcheck",
        Choice(&["heap", "indexes", "heapallindexed"]),
        Value("indexes"),
        "how deep `pg_amcheck` looks: tables; B-tree indexes, too; or also each row in its indexes",
    ),
    key(
        "drill.count",
        Choice(&["all", "sample", "estimate"]),
        Value("all"),
        "how rows are counted in tables larger than `drill.count_above`; in others every one is",
    ),
    key("drill.count_above", Size, Value("1GiB"), "see `drill.count`"),
    key(
        "drill.shrink",
        Number,
        Value("50"),
        "percent of its rows that a table may lose from one drill to the next, or from what production had when the base backup \
         was taken, where that is newer; from 0 to 100",
    ),
    key(
        "drill.on_shrink",
        Choice(&["fail", "warn"]),
        Value("fail"),
        "what a table does that lost more, or vanished: the drill fails, or warns",
    ),
    key(
        "drill.max_rto",
        Duration,
        None,
        "a drill fails when it takes longer from its start to the answer to a first query",
    ),
    key(
        "drill.max_rpo",
        Duration,
        None,
        "a drill fails when the newest WAL in the repository is older: the last transaction, or the last word that nothing was missing",
    ),
    key(
        "drill.foreign_keys",
        Boolean,
        Value("false"),
        "whether a drill looks for the row that each foreign key of each row refers to",
    ),
    key(
        "drill.make_base",
        Boolean,
        Value("false"),
        "whether a drill to the latest moment makes the next base backup of its instance, where it passes",
    ),
    key("drill.snapshot", List, None, "databases to dump from a drill's instance, where the drill passes; `*` for all"),
    key(
        "drill.checks",
        Tables,
        None,
        "checks of your own: `name`, `database`, `sql`, `expect`, and `tolerance`, `timeout` and `on_failure`",
    ),
    key("drill.checks_file", Path, None, "file with further checks, as `[[checks]]`; read when a drill begins"),
    key(
        "snapshot.schedule",
        Text,
        None,
        "when `walseal-archiver run` dumps databases, as cron writes it; `off` or nothing for never",
    ),
    key("snapshot.interval", Duration, None, "instead of a schedule: so long after the last snapshot began"),
    key(
        "snapshot.timezone",
        Text,
        Derived("the host's"),
        "time zone of the schedule, and of days, weeks and months, by its IANA name",
    ),
    key("snapshot.jitter", Duration, Value("0s"), "start later by a random time up to this"),
    key(
        "snapshot.databases",
        List,
        Derived("the one of `cluster.conninfo`"),
        "the databases, one snapshot each; `*` for all that take connections",
    ),
    key(
        "snapshot.jobs",
        Number,
        Value("2"),
        "how many databases are dumped at a time, each over a connection of `pg_dump` and one that counts; about 20 MiB of memory for each",
    ),
    key("snapshot.exclude_schemas", List, None, "schemas that are left out, as patterns of `pg_dump`"),
    key("snapshot.exclude_tables", List, None, "tables that are left out, likewise"),
    key(
        "snapshot.within",
        Duration,
        None,
        "keep all snapshots that are younger; with nothing set here and below, all are kept",
    ),
    key("snapshot.last", Number, Value("0"), "keep so many of the newest"),
    key("snapshot.daily", Number, Value("0"), "keep the newest one of each of so many days"),
    key("snapshot.weekly", Number, Value("0"), "likewise of weeks"),
    key("snapshot.monthly", Number, Value("0"), "likewise of months"),
    key(
        "snapshot.shrink",
        Number,
        Value("50"),
        "percent of its rows that a table may lose from one snapshot to the next before that is an alert; from 0 to 100",
    ),
    key(
        "alerts.command",
        Text,
        None,
        "run by `sh -c` for each alert, and when it is over; the facts are in `WALSEAL_ALERT_…` and on standard input",
    ),
    key("alerts.command_limit", Duration, Value("30s"), "a command that takes longer is ended"),
    key(
        "alerts.remind_after",
        Duration,
        Value("24h"),
        "an alert that still stands is told again after this; `0s` is never",
    ),
    key("alerts.store_after", Duration, Value("1m"), "alert of a store that has failed for so long"),
    key(
        "alerts.backlog",
        Size,
        Value("1GiB"),
        "alert when the server keeps more WAL than this for the archiver, for a minute or while something is wrong",
    ),
    key(
        "alerts.rpo",
        Duration,
        Value("5m"),
        "alert when more time's worth of commits than this would be lost with the server, or might be; `0s` is never",
    ),
    key(
        "alerts.proven_within",
        Duration,
        Value("7d"),
        "alert when no drill of a base backup has passed for so long, or since the first, and likewise of snapshots; `0s` is never",
    ),
    key("alerts.webhook_url", Secret, None, "each alert, and its end, is posted there as JSON"),
    key("alerts.webhook_url_file", Path, None, "file that holds `alerts.webhook_url`"),
    key(
        "alerts.slack_url",
        Secret,
        None,
        "each alert, and its end, is posted there as Slack's incoming webhooks take it",
    ),
    key("alerts.slack_url_file", Path, None, "file that holds `alerts.slack_url`"),
    key("alerts.mail_to", List, None, "addresses that get each alert, and its end, by mail"),
    key("alerts.mail_from", Text, Derived("login and host"), "the address that such mail comes from"),
    key("alerts.sendmail", Path, Value("/usr/sbin/sendmail"), "the program that takes the mail, as sendmail does"),
    key(
        "alerts.heartbeat_url",
        Secret,
        None,
        "posted to whenever all is as it should be, and not otherwise, for somebody who misses it",
    ),
    key("alerts.heartbeat_url_file", Path, None, "file that holds `alerts.heartbeat_url`"),
    key(
        "http.listen",
        Text,
        None,
        "address and port of `/metrics` and `/healthz`; a port alone is loopback; off without it",
    ),
    key(
        "walseal.actor",
        Text,
        Derived("login and host"),
        "who acts, for the ledger; everybody who lists the bucket can read it",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_keys_share_a_path_or_a_variable() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((paths.len(), variables.len()), (KEYS.len(), KEYS.len()));
    }
}
