//! The drill of a snapshot: a place that is thrown away, the dump in it, and the same questions as of a base backup.
//!
//! Whatever cannot be seen is a failure (I12).

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::config::DrillCheck;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Act, EvidenceFact, SnapshotId, SnapshotLabel};
use walseal_common::terminal::{Progress, Schema};

use super::contents::Contents;
use super::place::Place;
use super::pour::pour;
use super::restore::{Order, Restored};
use super::{SnapshotError, globals, rows};
use crate::access::Access;
use crate::drill::check::{assertions, foreign_keys};
use crate::drill::report::{Check, Found, Kind, Stage, Verdict};

/// Everything that the drill of a snapshot found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its database; none where that could not be read.
    pub database: Option<String>,
    /// When it was dumped.
    pub dumped: Option<Timestamp>,
    /// When the drill began, by this host's clock.
    pub began: Timestamp,
    /// How long it took, to the verdict.
    pub seconds: f64,
    /// This program and its version.
    pub program: String,
    /// Bytes of the archive.
    pub bytes: u64,
    /// The parts, in order.
    pub stages: Vec<Stage>,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Tables whose rows were compared.
    pub tables: usize,
    /// Where it was restored, or was to be: the host of `drill.conninfo` (before one of several was chosen, all of them), or none for a
    /// new cluster.
    pub server: Option<String>,
    /// The end of the new cluster's log.
    pub log: String,
}

/// Name and version of [`Report`] as JSON.
pub const SCHEMA: Schema = Schema { name: "snapshot-drill", version: 1 };

/// What is expected of what the dump has of the whole cluster.
const ROLES: &str = "roles can be made, and no tablespace is";

/// A step failed without which nothing can be checked: it stands in the report.
struct BrokeOff;

/// Drills a snapshot: on `server`, in a database of its own, else in a new cluster. What was restored is gone again when this returns, and
/// when it is dropped.
///
/// Errors: none; what fails stands in the report.
pub async fn drill(access: &Access, id: &SnapshotId, server: Option<&Conninfo>) -> Report {
    let begun = Instant::now();
    let mut report = Report {
        verdict: Verdict::Failed,
        snapshot: id.clone(),
        database: None,
        dumped: None,
        began: Timestamp::now(),
        seconds: 0.0,
        program: concat!("walseal-restorer ", env!("CARGO_PKG_VERSION")).to_owned(),
        bytes: 0,
        stages: Vec::new(),
        checks: Vec::new(),
        tables: 0,
        server: server.map(|server| server.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        log: String::new(),
    };
    // Broken off or not: what was found until then is judged.
    let _ = report.carry_out(access, id, server).await;
    report.seconds = begun.elapsed().as_secs_f64();
    let good = !report.checks.is_empty() && report.checks.iter().all(|check| check.outcome.is_pass());
    report.verdict = if good { Verdict::Passed } else { Verdict::Failed };
    report
}

impl Report {
    /// What of it goes to the ledger.
    pub fn act(&self, evidence: EvidenceFact) -> Act {
        let failed = self.checks.iter().filter(|check| !check.outcome.is_pass());
        let mut kinds: Vec<Kind> = failed.map(|check| check.kind).collect();
        kinds.sort();
        kinds.dedup();
        let checks = self.checks.iter().filter(|check| check.outcome.is_pass()).count();
        Act::SnapshotDrilled {
            id: self.snapshot.clone(),
            passed: self.verdict == Verdict::Passed,
            checks: u32::try_from(checks).unwrap_or(u32::MAX),
            failed: kinds.iter().map(|kind| kind.word().to_owned()).collect(),
            tables: self.tables as u64,
            seconds: self.seconds,
            evidence,
        }
    }

    async fn carry_out(&mut self, access: &Access, id: &SnapshotId, server: Option<&Conninfo>) -> Result<(), BrokeOff> {
        let begun = Instant::now();
        let checks = access.config.open_checks();
        let checks =
            checks.map_err(|error| self.broke_off(Kind::Assertions, "drill.checks_file can be read", &error, begun))?;
        let read = async {
            let label = access.repository.snapshot(id).await?;
            let contents = Contents::read(&access.repository, &label, &access.identities).await?;
            Ok::<_, SnapshotError>((label, contents))
        };
        let read = read.await.map_err(|error| self.broke_off(Kind::Plan, "the snapshot can be read", &error, begun));
        let (label, contents) = read?;
        self.database = Some(contents.database.clone());
        (self.dumped, self.bytes) = (Some(label.start_time), label.dump_size);

        let begun = Instant::now();
        let (stage, expected) = match server {
            Some(_) => ("new database", "a database to restore to, on the server of drill.conninfo"),
            None => ("new cluster", "a new cluster to restore to"),
        };
        let made = match server {
            Some(server) => Place::server(server, id, &label).await.map_err(|error| error.with_next()),
            None => Place::cluster(&access.config, &label).await.map_err(|error| error.to_string()),
        };
        let place = made.map_err(|error| self.broke_off(Kind::Restore, expected, &error, begun))?;
        self.stage(stage, begun);
        let ended = self.look(access, &place, &label, &contents, &checks).await;
        self.leave(place).await;
        ended
    }

    /// What was restored goes.
    async fn leave(&mut self, place: Place) {
        match place {
            Place::Cluster { mut instance, .. } => {
                if let Err(error) = instance.stop().await {
                    tracing::debug!(%error, "the instance was not stopped in order");
                }
                self.log = instance.log();
            }
            Place::Server(lodging) => {
                let (name, host) = (lodging.name().to_owned(), lodging.host().to_string());
                self.server = Some(host.clone());
                let dropped = lodging.give_back().await;
                let found = match dropped {
                    Ok(()) => Found::good(format!("{name} at {host} is dropped")),
                    Err(error) => Found::odd(format!(
                        "{name} is still at {host}, with all that was restored: {error}; the next drill there drops it"
                    )),
                };
                self.judge("database dropped", Kind::Restore, "nothing stays behind", found).await;
            }
        }
    }

    async fn look(
        &mut self,
        access: &Access,
        place: &Place,
        label: &SnapshotLabel,
        contents: &Contents,
        checks: &[DrillCheck],
    ) -> Result<(), BrokeOff> {
        let begun = Instant::now();
        let made = roles(access, place, label);
        self.checks.push(Check::run(Kind::Restore, "roles and tablespaces", ROLES, made).await);
        let restored = restore(access, place, label, contents).await;
        let (into, restored) = match restored {
            Ok(restored) => restored,
            Err(error) => return Err(self.broke_off(Kind::Restore, "pg_restore restores all of it", &error, begun)),
        };
        self.stage("restore", begun);
        self.tables = restored.compared.len();
        let errors = match restored.errors.first() {
            None => Found::good("no error"),
            Some(first) => {
                Found::bad(format!("{} wrong: {first}", restored.errors.len())).with(restored.errors.clone())
            }
        };
        self.judge("pg_restore", Kind::Restore, "no error", errors).await;
        self.judge("rows", Kind::Counts, rows::EXPECTED, rows::judge(contents, &restored)).await;

        let begun = Instant::now();
        let keys = async { foreign_keys::look_here(&place.connect(&into).await?).await };
        self.checks.push(Check::run(Kind::ForeignKeys, "foreign keys", foreign_keys::EXPECTED, keys).await);
        for check in checks.iter().filter(|check| check.database == contents.database) {
            let asked = assertions::ask_over(place.connect(&into), check);
            let check = Check::run(Kind::Assertions, &check.name, assertions::expected(check), asked).await;
            self.checks.push(check);
        }
        self.stage("checks", begun);
        Ok(())
    }

    /// A check of which it is known already what it found.
    async fn judge(&mut self, name: &str, kind: Kind, expected: &str, found: Found) {
        let found = std::future::ready(Ok::<_, SnapshotError>(found));
        self.checks.push(Check::run(kind, name, expected, found).await);
    }

    fn stage(&mut self, name: &str, begun: Instant) {
        self.stages.push(Stage { name: name.to_owned(), seconds: begun.elapsed().as_secs_f64() });
    }

    fn broke_off(&mut self, kind: Kind, expected: &str, why: &dyn std::fmt::Display, begun: Instant) -> BrokeOff {
        self.checks.push(Check::broke_off(kind, expected, why, begun));
        BrokeOff
    }
}

/// Makes the roles that the dump speaks of. Without them it is told what is missing, and the dump's own errors judge.
async fn roles(access: &Access, place: &Place, label: &SnapshotLabel) -> Result<Found, SnapshotError> {
    let Place::Cluster { instance, user, .. } = place else {
        return Ok(Found::odd(
            "none is made on a server that others use: everything is restored as one role's, without grants",
        ));
    };
    if label.globals.is_empty() {
        return Ok(Found::odd("they are not in the snapshot: the role that dumped could not read them"));
    }
    let mut text = Vec::new();
    pour(&access.repository, &access.identities, &label.globals, &mut text, |_| ()).await?;
    let client = instance.connect(user, "postgres").await?;
    Ok(globals::make(&client, &String::from_utf8_lossy(&text)).await?)
}

/// Restores, and says where to.
async fn restore(
    access: &Access,
    place: &Place,
    label: &SnapshotLabel,
    contents: &Contents,
) -> Result<(Conninfo, Restored), SnapshotError> {
    let into = place.database(&contents.database).await?;
    let config = &access.config;
    let pg_bin = config.drill.pg_bin.as_ref().or(config.cluster.pg_bin.as_ref());
    let has_roles = place.is_private() && !label.globals.is_empty();
    let order = Order {
        into: into.clone(),
        schemas: Vec::new(),
        tables: Vec::new(),
        clean: false,
        create: false,
        no_owner: !has_roles,
        no_privileges: !has_roles,
        // Those of production would lie outside of what is thrown away.
        no_tablespaces: true,
        // A database that has one cannot be dropped, and no copy is to ask production for changes.
        no_subscriptions: true,
        // Through a pipe: nothing is written beside the server's own files.
        jobs: 1,
        scratch_dir: config.drill.scratch_dir.value.clone(),
        pg_bin: pg_bin.map(|setting| setting.value.clone()),
    };
    let progress = Progress::new("restore", Some(label.dump_size));
    let restored = order.carry_out(access, label, contents, &progress).await;
    progress.abandon();
    Ok((into, restored?))
}
