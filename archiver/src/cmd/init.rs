//! `init`: check server, store and keys; make the repository and the slot; say what is missing.

use walseal_common::config::Config;
use walseal_common::show;

use walseal_common::postgres::replication::SlotCreated;
use walseal_common::postgres::{PostgresError, ReplicationClient, SqlClient};
use walseal_common::repository::{Act, Ledger, Repository, RepositoryIdentity};
use walseal_common::segment::SegmentSize;
use walseal_common::store::{Capabilities, StoreError, StoreErrorKind};
use walseal_common::terminal::{Failure, units};
use walseal_common::timeline::SystemIdentifier;

use crate::admission::Admission;
use crate::archive::{Archive, LAST_ENTRIES};
use crate::card::card;
use crate::cost::Beginning;
use crate::doctor::settings;
use crate::doctor::synchronous::synchronous;
use crate::doctor::wal_room::{WalRoom, keep_size};
use crate::doctor::{Finding, Verdict};
use crate::founding;
use crate::policy::{Worker, policy};
use crate::primary;

/// What `init` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print the least that this one's credentials must allow in the bucket, as an IAM policy, and do nothing else
    #[arg(long, value_name = "WORKER", value_enum)]
    pub print_policy: Option<Worker>,
}

/// Prints the policy of `worker`. Asks neither store nor server.
pub fn print_policy(worker: Worker, config: &Config) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error("print the policy", error);
    let url = &config.need_repository()?.value;
    let policy = policy(url, config, worker).map_err(|error| failed(&error))?;
    show!("{}", serde_json::to_string_pretty(&policy).map_err(|error| failed(&error))?);
    Ok(())
}

/// What the server says of itself.
struct Server {
    cluster: SystemIdentifier,
    version: u32,
    segment_size: SegmentSize,
    settings: Vec<(String, String)>,
}

impl Server {
    fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Makes everything that is not there yet. Run again it changes nothing.
pub async fn run(archive: Archive) -> Result<(), Failure> {
    let conninfo = archive.config.open_conninfo()?;
    let slot = archive.config.need_slot()?;

    let admission = Admission::of(&conninfo);

    show!("store    {}", archive.place());
    let capabilities = founding::probe_store(&archive).await.map_err(|error| unusable(&archive, &error))?;
    show!("         list, put and get work; {}", words(&capabilities));

    let connected = primary::connect(&conninfo, &slot).await;
    let mut client = connected.map_err(|error| unreachable(&admission, &error))?;
    let server = ask(&archive, &mut client).await?;
    show!(
        "server   {}: PostgreSQL {}, cluster {}, WAL segments of {}",
        client.host(),
        server.version / 10_000,
        server.cluster,
        units::size(server.segment_size.bytes())
    );

    let (identity, ledger) = make_identity(&archive, &server, capabilities).await?;
    let taken = take_slot(&archive, &mut client, &slot, &admission, &ledger).await;
    ledger.finish(LAST_ENTRIES).await;
    taken?;
    let room = WalRoom::of(&mut client).await;
    let cluster = cluster_size(&archive, &client).await;
    client.close().await;
    advise(&[
        keep_size(
            server.setting("max_slot_wal_keep_size"),
            room,
            archive.config.wal.give_up_at.as_ref().map(|limit| limit.value),
        ),
        synchronous(server.setting("synchronous_standby_names"), &slot, archive.config.wal.synchronous.value),
        settings::checksums(server.setting("data_checksums")),
    ]);
    if let Some(cluster) = cluster {
        let config = &archive.config;
        let (full_every, ship_interval) = (config.base.full_every.value, config.wal.ship_interval.value);
        let beginning = Beginning { cluster, retention: &config.retention, full_every, ship_interval };
        show!("cost     {}", beginning.words(&config.cost));
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "an unknown host".to_owned());
    show!("\n{}", card(&archive.config, &identity, &archive.keys.recipients, &archive.trust, host.trim()));
    show!("\n{}", next(archive.config.base.schedule.value.is_some()));
    Ok(())
}

/// What to do after this. A daemon with a schedule takes the first base backup by itself, and refuses another one meanwhile.
fn next(scheduled: bool) -> &'static str {
    match scheduled {
        true => {
            "Next: walseal-archiver run (as a service). Where there is no base backup yet it begins one at once, by itself; walseal-archiver \
             status says how far it is"
        }
        false => "Next: walseal-archiver run (as a service), then walseal-archiver backup",
    }
}

fn unusable(archive: &Archive, error: &StoreError) -> Failure {
    let next = match error.kind {
        // What to do stands in the reason already.
        StoreErrorKind::Full | StoreErrorKind::NoSuchStore | StoreErrorKind::Denied => {
            return Failure::new("use the store", error);
        }
        StoreErrorKind::Unreachable | StoreErrorKind::Throttled => {
            format!("look at {}, and run init again: it goes on where it was", archive.place())
        }
        StoreErrorKind::NotFound | StoreErrorKind::Protocol => {
            "take another store: walseal needs one that lists, puts and gets as S3 does".to_owned()
        }
    };
    Failure::new("use the store", error).next(next)
}

fn words(capabilities: &Capabilities) -> &'static str {
    match (capabilities.conditional_put, capabilities.delete) {
        (true, true) => "it refuses to overwrite, and deleting is allowed",
        (true, false) => "it refuses to overwrite; deleting is not allowed (prune then runs elsewhere)",
        (false, true) => {
            "it does NOT refuse to overwrite: walseal looks before it writes, but two archivers could race"
        }
        (false, false) => "it does NOT refuse to overwrite (two archivers could race), and deleting is not allowed",
    }
}

async fn take_slot(
    archive: &Archive,
    client: &mut ReplicationClient,
    slot: &str,
    admission: &Admission,
    ledger: &Ledger,
) -> Result<(), Failure> {
    match client.create_physical_slot(slot, false).await.map_err(|error| no_slot(slot, admission, &error))? {
        SlotCreated::Created => {
            ledger.record(Act::SlotCreated { position: None });
            show!("slot     {slot} made: from now on the server keeps WAL until it is in the repository")
        }
        SlotCreated::AlreadyExists => {
            check_slot(archive, client, slot).await?;
            show!("slot     {slot} is there")
        }
    }
    Ok(())
}

fn unreachable(admission: &Admission, error: &PostgresError) -> Failure {
    let failure = Failure::from_error("reach the server for replication", error);
    let failure = admission.fixes(error).iter().fold(failure, Failure::next);
    if error.is_missing_privilege() || error.is_authentication() { failure.next(WITHOUT_REPLICATION) } else { failure }
}

/// For servers that others run.
const WITHOUT_REPLICATION: &str = "where nobody grants REPLICATION, dump instead, which needs a role that may read (pg_read_all_data):\n\
    export DATABASE_URL=postgresql://…\n\
    walseal-archiver snapshot\n\
    WALSEAL_WAL_ENABLED=false WALSEAL_SNAPSHOT_INTERVAL=6h walseal-archiver run";

fn no_slot(slot: &str, admission: &Admission, error: &PostgresError) -> Failure {
    let failure = Failure::from_error(format!("make the replication slot {slot}"), error);
    match error.sqlstate() {
        Some("53400") => failure.next("raise max_replication_slots in postgresql.conf and restart the server").next(
            "drop one that nobody uses; they are in: SELECT slot_name, active, restart_lsn FROM pg_replication_slots;",
        ),
        Some("42501") => failure.next(format!("as a superuser: {}", admission.grant())).next(WITHOUT_REPLICATION),
        Some("55000") => failure.next("set wal_level = replica in postgresql.conf and restart the server"),
        _ => failure,
    }
}

/// A slot of this name that somebody else made may be of another kind.
async fn check_slot(archive: &Archive, client: &mut ReplicationClient, slot: &str) -> Result<(), Failure> {
    let failed = |error: PostgresError| Failure::from_error(format!("use the replication slot {slot}"), &error);
    match client.read_slot(slot).await {
        Ok(_) => Ok(()),
        // PostgreSQL 14 tells it only by SQL.
        Err(PostgresError::Unsupported { .. }) => {
            let conninfo = archive.config.open_conninfo()?;
            let sql = SqlClient::connect_to(&conninfo, client.host(), "walseal init").await.map_err(failed)?;
            let query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND slot_type <> 'physical'";
            let row = sql.query_opt("reading pg_replication_slots failed", query, &[&slot]).await.map_err(failed)?;
            match row {
                None => Ok(()),
                Some(_) => Err(Failure::new(format!("use the replication slot {slot}"), "it is a logical one")
                    .next("name another in cluster.slot")
                    .next(format!("where nobody needs it: SELECT pg_drop_replication_slot('{slot}');"))),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

async fn ask(archive: &Archive, client: &mut ReplicationClient) -> Result<Server, Failure> {
    let failed = |error: PostgresError| Failure::from_error("ask the server what it is", &error);
    let version = client.server_version_num();
    refuse(settings::version(version))?;
    let system = client.identify_system().await.map_err(failed)?;
    let segment_size = client.segment_size().await.map_err(failed)?;
    let mut settings = Vec::new();
    for name in ["wal_level", "max_slot_wal_keep_size", "synchronous_standby_names", "data_checksums"] {
        settings.push((name.to_owned(), client.show(name).await.map_err(failed)?));
    }
    let server = Server { cluster: system.system_identifier, version, segment_size, settings };
    refuse(settings::wal_level(server.setting("wal_level")))?;
    if let Some(standby) = is_standby(archive, client).await {
        show!("         {standby}");
    }
    Ok(server)
}

/// What does not work is no use to begin with.
fn refuse(finding: Finding) -> Result<(), Failure> {
    if finding.passes() {
        return Ok(());
    }
    Err(finding.fix.iter().fold(Failure::saying(&finding.text), Failure::next))
}

async fn is_standby(archive: &Archive, client: &ReplicationClient) -> Option<String> {
    let conninfo = archive.config.open_conninfo().ok()?;
    match SqlClient::connect_to(&conninfo, client.host(), "walseal init").await {
        Ok(sql) if sql.was_standby() => Some("it is a standby: WAL and base backups are taken from it only with target_session_attrs=standby in cluster.conninfo".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("ordinary connections do not work ({error}); streaming and backups need only replication")),
    }
}

/// Bytes of all databases; `None` where nobody tells: not every role may ask.
async fn cluster_size(archive: &Archive, client: &ReplicationClient) -> Option<u64> {
    let conninfo = archive.config.open_conninfo().ok()?;
    let asked = async {
        let sql = SqlClient::connect_to(&conninfo, client.host(), "walseal init").await?;
        let query = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database";
        sql.query_opt("reading the size of the databases failed", query, &[]).await
    };
    match asked.await {
        Ok(row) => row.and_then(|row| row.try_get::<_, i64>(0).ok()).and_then(|bytes| u64::try_from(bytes).ok()),
        Err(error) => {
            tracing::debug!(%error, "no estimate of what a month costs");
            None
        }
    }
}

async fn make_identity(
    archive: &Archive,
    server: &Server,
    capabilities: Capabilities,
) -> Result<(RepositoryIdentity, Ledger), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error("make the repository", error);
    let others = Repository::clusters(archive.store.as_ref()).await.map_err(|error| failed(&error))?;
    for other in others.iter().filter(|other| **other != server.cluster) {
        show!("         cluster {other} lies in the same place; both are kept apart by their system identifiers");
    }
    let Server { cluster, version, segment_size, .. } = *server;
    let facts = founding::Server { cluster, version, segment_size };
    let founded = founding::found(archive, &facts, capabilities).await.map_err(|error| failed(&error))?;
    let ledger = archive.ledger(&founded.repository);
    let identity = founded.identity;
    if founded.made {
        show!("cluster  {cluster}: repository made");
        ledger
            .record(Act::Init { postgres_major: identity.postgres_major, segment_size: identity.segment_size.bytes() });
        return Ok((identity, ledger));
    }
    if identity.segment_size != segment_size {
        return Err(Failure::saying(format!(
            "the repository was made for WAL segments of {}, but the server's have {}",
            units::size(identity.segment_size.bytes()),
            units::size(segment_size.bytes())
        ))
        .next(
            "the same system identifier with another segment size means that pg_resetwal was used: take another prefix",
        ));
    }
    show!("cluster  {cluster}: the repository is there");
    Ok((identity, ledger))
}

/// What the server's settings will do to us one day.
fn advise(findings: &[Finding]) {
    let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Verdict::Fine).collect();
    if bad.is_empty() {
        show!("server   its settings are fine");
        return;
    }
    show!("\nWorth changing at the server:");
    for finding in bad {
        show!("  {}", finding.text);
        for step in &finding.fix {
            show!("    {}", step.replace('\n', "\n    "));
        }
    }
}
