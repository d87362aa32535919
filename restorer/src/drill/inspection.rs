//! All checks on the running instance.

use std::time::{Duration, Instant};

use walseal_common::config::{DrillCheck, Setting};
use walseal_common::postgres::{PostgresError, SqlClient};

use super::check::freshness::Known;
use super::check::{assertions, canary, catalogs, counts, extensions, foreign_keys, freshness, precision, structure};
use super::course::Course;
use super::evidence;
use super::report::{Check, Kind};
use crate::instance::{Instance, InstanceError, Recovered};
use crate::plan::Plan;

impl Course<'_> {
    /// All checks on the running instance.
    pub(super) async fn look(
        &mut self,
        instance: &Instance,
        plan: &Plan,
        recovered: &Recovered,
        known: Known,
        checks: &[DrillCheck],
    ) {
        let begun = Instant::now();
        let config = &self.access.config.drill;
        let user = config.user.value.as_str();
        let client = match first_query(instance, user).await {
            Ok((client, version)) => {
                self.report.postgres = Some(version);
                client
            }
            Err(error) => {
                let broken = Check::broke_off(Kind::Recovery, "the instance answers", error, begun);
                return self.report.checks.push(broken);
            }
        };
        // What the next base backup took is no part of a restore.
        let took = self.restoring.elapsed().saturating_sub(self.making);
        self.report.first_query_seconds = Some(took.as_secs_f64());
        // First of all: a check that writes would use up transaction numbers.
        let expected = precision::expected(plan);
        self.add(Check::run(Kind::Precision, "precision", expected, precision::look(&client, plan, recovered))).await;
        self.find_canary(instance, &client, plan, recovered).await;
        self.judge_times(took, known).await;
        // Before what would fail without them.
        let libraries = extensions::look(instance, &client, user);
        self.add(Check::run(Kind::Extensions, "extensions", extensions::EXPECTED, libraries)).await;
        let invalid = catalogs::invalid_indexes(instance, &client, user);
        self.add(Check::run(Kind::Indexes, "valid indexes", "every index is valid", invalid)).await;
        let collations = catalogs::collations(instance, &client, user);
        let expected = "collations sort as where the indexes were built";
        self.add(Check::run(Kind::Collations, "collations", expected, collations)).await;
        let depth = config.amcheck.value;
        let structure = structure::look(instance, user, depth);
        self.add(Check::run(Kind::Structure, "amcheck", structure::expected(depth), structure)).await;
        self.count(instance, &client, plan).await;
        if config.foreign_keys.value {
            let keys = foreign_keys::look(instance, &client, user);
            self.add(Check::run(Kind::ForeignKeys, "foreign keys", foreign_keys::EXPECTED, keys)).await;
        }
        for check in checks {
            let asked = assertions::ask(instance, user, check);
            let expected = assertions::expected(check);
            let check = Check::run(Kind::Assertions, &check.name, expected, asked);
            self.add(check).await;
        }
        self.stage("checks", begun);
    }

    /// Where there is a canary, or should be one.
    async fn find_canary(&mut self, instance: &Instance, client: &SqlClient, plan: &Plan, recovered: &Recovered) {
        let (config, user) = (&self.access.config, self.access.config.drill.user.value.as_str());
        let begun = Instant::now();
        match canary::find(instance, client, user).await {
            Ok(databases) if databases.is_empty() && !config.wal.canary.value => {}
            Ok(databases) => {
                let looked = canary::look(instance, user, &databases, &config.wal, plan, recovered);
                self.add(Check::run(Kind::Canary, "canary", canary::EXPECTED, looked)).await;
            }
            Err(error) => self.report.checks.push(Check::broke_off(Kind::Canary, canary::EXPECTED, error, begun)),
        }
    }

    async fn judge_times(&mut self, took: Duration, known: Known) {
        let config = &self.access.config.drill;
        let limit = |setting: &Option<Setting<Duration>>| setting.as_ref().map(|one| one.value);
        let (rpo, rto) = (limit(&config.max_rpo), limit(&config.max_rto));
        for (name, expected, found) in [
            // By what was known when the drill began: its own time is no loss.
            ("loss", freshness::expected(rpo, "drill.max_rpo"), freshness::loss(known, self.report.began, rpo)),
            ("time to restore", freshness::expected(rto, "drill.max_rto"), freshness::time_to_first_query(took, rto)),
        ] {
            let found = std::future::ready(Ok::<_, InstanceError>(found));
            self.add(Check::run(Kind::Freshness, name, expected, found)).await;
        }
    }

    async fn count(&mut self, instance: &Instance, client: &SqlClient, plan: &Plan) {
        let config = &self.access.config.drill;
        let begun = Instant::now();
        let before = match &self.report.drilled {
            Some(drilled) => evidence::tables_before(self.access, drilled.branch, drilled.stop).await,
            None => Ok(None),
        };
        let before = match before {
            Ok(before) => before,
            Err(error) => {
                let broken = Check::broke_off(Kind::Counts, "the drill before can be read", error, begun);
                return self.report.checks.push(broken);
            }
        };
        let production = match counts::Production::of(self.access, &plan.base.id).await {
            // A later drill has seen what became of it since, and said so.
            Ok(production) => {
                let newer = |there: &counts::Production| before.as_ref().is_none_or(|(ended, _)| *ended < there.at.end);
                production.filter(newer)
            }
            Err(error) => {
                let expected = "what the base backup tells of production can be read";
                let broken = Check::broke_off(Kind::Counts, expected, error, begun);
                return self.report.checks.push(broken);
            }
        };
        let before = before.map(|(_, tables)| tables);
        let mut tables = counts::Tables::default();
        let counted = async {
            tables = counts::count(instance, client, config).await?;
            Ok::<_, PostgresError>(counts::judge(&tables, before.as_deref(), production.as_ref(), config))
        };
        let expected = counts::expected(config, before.as_deref(), production.as_ref());
        let check = Check::run(Kind::Counts, "rows", expected, counted).await;
        self.report.checks.push(check);
        (self.report.tables, self.report.unlogged) = (tables.counted, tables.unlogged);
    }
}

/// Connects and asks for the version.
async fn first_query(instance: &Instance, user: &str) -> Result<(SqlClient, String), PostgresError> {
    let client = instance.connect(user, "postgres").await?;
    let row = client.query_one("the first query failed", "select version()", &[]).await?;
    let version = row.try_get(0).map_err(|error| SqlClient::error("reading an answer failed", &error))?;
    Ok((client, version))
}
