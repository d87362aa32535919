//! The drill: restore to a target, start a private instance, check, judge, record, destroy.
//!
//! Whatever cannot be seen is a failure (I12): a [`Check`] whose look ended in an error has not run, and a report with one does
//! not pass.
//!
//! | module | holds |
//! | --- | --- |
//! | [`target`] | where it leads; a random second |
//! | [`check`] | the checks |
//! | [`report`] | what was found: the document that becomes evidence |
//! | [`evidence`] | the record, and what the drill before left |
//! | [`render`] | the report for people |

pub mod check;
pub mod evidence;
pub mod render;
pub mod report;
pub mod target;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use walseal_common::postgres::SqlClient;
use walseal_common::repository::{BaseId, ObjectName};
use walseal_common::seal::ObjectDigest;
use walseal_common::terminal::Progress;

use self::check::{assertions, catalogs, counts, freshness, pages, precision, structure};
use self::report::{Check, Drilled, DrilledBase, Found, Kind, Report, Stage, Verdict};
use self::target::Choice;
use crate::access::Access;
use crate::instance::{Instance, InstanceError, Preload, Programs, Recovered, Scratch, sweep};
use crate::plan::windows::{Window, windows};
use crate::plan::{self, Inventory, Plan, Request, TimelineChoice};
use crate::rebuild::{Accounts, Destination, Order, Owner, Restored, TablespaceMapping};

/// Data objects at a time for each processor: the store's latency is what is waited for.
const JOBS_PER_CPU: usize = 2;

/// What is to be drilled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exercise {
    /// Where to.
    pub target: Choice,
    /// The base backup; by default the newest that fits.
    pub base: Option<BaseId>,
    /// The timeline; by default the one with the newest frontier.
    pub timeline: Option<TimelineChoice>,
    /// What a random target is drawn with; by default a fresh one.
    pub seed: Option<u64>,
    /// Whether the restored directory stays, with its server stopped.
    pub keep: bool,
}

/// A drill that came to a verdict.
#[derive(Debug)]
pub struct Outcome {
    /// What was found.
    pub report: Report,
    /// Where the restored directory is, where it was to stay.
    pub kept: Option<PathBuf>,
}

/// A step failed without which nothing can be checked: it stands in the report.
struct BrokeOff;

/// Drills. What was restored is gone again when this returns, and when it is dropped.
///
/// Errors: none; what fails stands in the report.
pub async fn drill(exercise: &Exercise, access: &Access) -> Outcome {
    let begun = Instant::now();
    let report = blank(exercise, access);
    let mut run = Run { exercise, access, restoring: begun, report, scratch: None };
    // Broken off or not: what was found until then is judged.
    let _ = run.carry_out().await;
    run.report.seconds = begun.elapsed().as_secs_f64();
    run.report.judge();
    let kept = run.give_up();
    Outcome { report: run.report, kept }
}

fn blank(exercise: &Exercise, access: &Access) -> Report {
    Report {
        verdict: Verdict::Failed,
        cluster: access.repository.cluster(),
        repository: access.repository.describe(),
        began: Timestamp::now(),
        seconds: 0.0,
        first_query_seconds: None,
        asked: exercise.target.to_string(),
        target: None,
        seed: None,
        program: concat!("walseal-restorer ", env!("CARGO_PKG_VERSION")).to_owned(),
        postgres: None,
        base: None,
        drilled: None,
        bytes: 0,
        preload: None,
        stages: Vec::new(),
        checks: Vec::new(),
        tables: Vec::new(),
        tables_left_out: 0,
        unlogged: Vec::new(),
        log: String::new(),
    }
}

struct Run<'a> {
    exercise: &'a Exercise,
    access: &'a Access,
    /// When the restore began: after the target was chosen.
    restoring: Instant,
    report: Report,
    /// Dropped after the instance, which is never kept beyond a method.
    scratch: Option<Scratch>,
}

impl Run<'_> {
    async fn carry_out(&mut self) -> Result<(), BrokeOff> {
        let (request, known_until) = self.choose().await?;
        self.restoring = Instant::now();
        let plan = self.plan(&request).await?;
        let programs = self.step(Kind::Restore, "PostgreSQL of the backup's version is here", |run| {
            let pg_bin = run.access.config.drill.pg_bin.as_ref().or(run.access.config.cluster.pg_bin.as_ref());
            Programs::find(plan.base.postgres_version, pg_bin.map(|setting| setting.value.clone()))
        })?;
        let (scratch, owner) = self.step(Kind::Restore, "a place to restore to", |run| run.scratch())?;
        let (data, tablespaces) = (scratch.data(), scratch.tablespaces());
        self.scratch = Some(scratch);
        let tablespaces = TablespaceMapping { pairs: Vec::new(), folder: Some(tablespaces) };
        let restored = self.restore(&plan, Destination { data, waldir: None, tablespaces, owner }).await?;
        let (mut instance, recovered) = self.recover(&programs, &restored, &plan).await?;
        self.look(&instance, &plan, &recovered, known_until).await;
        let begun = Instant::now();
        if let Err(error) = instance.stop().await {
            self.report.log = instance.log();
            return Err(self.broke_off(Kind::Pages, "the instance stops", error, begun));
        }
        self.add(Check::run(Kind::Pages, "pages", "every page is sound", pages::look(&instance))).await;
        self.report.log = instance.log();
        Ok(())
    }

    /// Removes what was restored, or keeps it.
    fn give_up(&mut self) -> Option<PathBuf> {
        let scratch = self.scratch.take()?;
        if !self.exercise.keep {
            return None;
        }
        match scratch.keep() {
            Ok(folder) => Some(folder),
            Err(error) => {
                tracing::warn!(%error, "what was restored could not be kept, and is removed");
                None
            }
        }
    }

    /// The request, and up to when the repository is known to hold everything.
    async fn choose(&mut self) -> Result<(Request, Option<Timestamp>), BrokeOff> {
        let begun = Instant::now();
        let surveyed = survey(self.access).await;
        let (windows, known_until) = match surveyed {
            Ok(found) => found,
            Err(error) => return Err(self.broke_off(Kind::Target, "the repository can be read", error, begun)),
        };
        let drawn = match &self.exercise.target {
            Choice::Given(target) => Ok(Request::to(target.clone())),
            Choice::Random => {
                let seed = self.exercise.seed.unwrap_or_else(target::fresh_seed);
                self.report.seed = Some(seed);
                target::draw(&windows, seed).ok_or("no window has two transactions at different times")
            }
        };
        let request = match drawn {
            Ok(request) => request,
            Err(why) => return Err(self.broke_off(Kind::Target, "there is a time to draw", why, begun)),
        };
        let timeline = self.exercise.timeline.or(request.timeline);
        let request = Request { base: self.exercise.base.clone(), timeline, ..request };
        self.report.target = Some(request.target.to_string());
        self.stage("survey", begun);
        Ok((request, known_until))
    }

    async fn plan(&mut self, request: &Request) -> Result<Plan, BrokeOff> {
        let begun = Instant::now();
        let progress = Progress::new("reading WAL", None);
        let (repository, identities) = (&self.access.repository, &self.access.identities);
        let planned = plan::plan(repository, identities, request, Some(&progress)).await;
        progress.abandon();
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return Err(self.broke_off(Kind::Plan, "the repository leads to the target", error, begun)),
        };
        self.report.base = Some(DrilledBase {
            id: plan.base.id.clone(),
            label: self.label_digest(&plan.base.id).await,
            stop: plan.base.stop,
            stop_time: plan.base.stop_time,
            objects: plan.cost.base_objects,
        });
        self.report.drilled = Some(Drilled {
            branch: plan.path.last().map_or(plan.base.branch, |step| step.branch),
            stop: plan.stop,
            last_before: plan.last_before,
            first_after: plan.first_after,
            last_time: None,
            last_record: None,
        });
        self.stage("plan", begun);
        Ok(plan)
    }

    /// The digest of the label, which has those of everything else that is restored.
    async fn label_digest(&self, id: &BaseId) -> Option<ObjectDigest> {
        let key = ObjectName::Label(id.clone()).key(self.access.repository.cluster());
        // The plan has read it; without it the evidence says a little less.
        let bytes = self.access.repository.store().get(&key).await.ok()?;
        Some(ObjectDigest::of(&bytes))
    }

    /// Takes away what killed drills left, and makes a folder.
    fn scratch(&self) -> Result<(Scratch, Owner), InstanceError> {
        let place = &self.access.config.drill.scratch_dir.value;
        for folder in sweep(place)? {
            tracing::info!(folder = %folder.display(), "removed what a drill left that was killed");
        }
        let accounts = Accounts::of_this_machine()?;
        let process = rustix::process::geteuid().as_raw();
        let owner = Owner::decide(&accounts, process, None, &place.join("data"))?;
        Ok((Scratch::make(place, &owner)?, owner))
    }

    async fn restore(&mut self, plan: &Plan, destination: Destination) -> Result<Restored, BrokeOff> {
        let begun = Instant::now();
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(error) => return Err(self.broke_off(Kind::Restore, "this program's path is known", error, begun)),
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let order = Order {
            plan,
            destination,
            jobs: processors * JOBS_PER_CPU,
            keep_archiving: false,
            program,
            config: &self.access.config,
            inherits_environment: true,
        };
        let progress = Progress::new("restore", None);
        let restored = order.carry_out(&self.access.repository, &self.access.identities, &progress).await;
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                progress.abandon();
                return Err(self.broke_off(Kind::Restore, "every file of the base backup is restored", error, begun));
            }
        };
        progress.finish("files restored");
        self.report.bytes = restored.bytes;
        self.stage("restore", begun);
        Ok(restored)
    }

    async fn recover(
        &mut self,
        programs: &Programs,
        restored: &Restored,
        plan: &Plan,
    ) -> Result<(Instance, Recovered), BrokeOff> {
        let begun = Instant::now();
        let expected = "recovery reaches the target";
        let mut preload = match Preload::of(programs, restored) {
            Ok(preload) => preload,
            Err(error) => return Err(self.broke_off(Kind::Recovery, expected, error, begun)),
        };
        let recovered = Instance::recover(programs, restored, plan, &mut preload).await;
        let found = said_of(&preload);
        self.report.preload = Some(preload);
        let (instance, recovered) = match recovered {
            Ok(recovered) => recovered,
            Err(error) => {
                if let InstanceError::Ended { log, .. } | InstanceError::Stalled { log, .. } = &error {
                    self.report.log.clone_from(log);
                }
                return Err(self.broke_off(Kind::Recovery, expected, error, begun));
            }
        };
        if let Some(drilled) = &mut self.report.drilled {
            (drilled.last_time, drilled.last_record) = (recovered.landing.last_time, recovered.last_record);
        }
        let looked = std::future::ready(Ok::<_, InstanceError>(found));
        let mut check = Check::run(Kind::Recovery, "recovery", expected, looked).await;
        check.seconds = begun.elapsed().as_secs_f64();
        self.report.checks.push(check);
        self.stage("recovery", begun);
        Ok((instance, recovered))
    }

    /// All checks on the running instance.
    async fn look(&mut self, instance: &Instance, plan: &Plan, recovered: &Recovered, known_until: Option<Timestamp>) {
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
        let took = self.restoring.elapsed();
        self.report.first_query_seconds = Some(took.as_secs_f64());
        // First of all: a check that writes would use up transaction numbers.
        let expected = precision::expected(plan);
        self.add(Check::run(Kind::Precision, "precision", expected, precision::look(&client, plan, recovered))).await;
        self.judge_times(took, known_until).await;
        let invalid = catalogs::invalid_indexes(instance, &client, user);
        self.add(Check::run(Kind::Indexes, "valid indexes", "every index is valid", invalid)).await;
        let collations = catalogs::collations(instance, &client, user);
        let expected = "collations sort as where the indexes were built";
        self.add(Check::run(Kind::Collations, "collations", expected, collations)).await;
        let depth = config.amcheck.value;
        let structure = structure::look(instance, user, depth);
        self.add(Check::run(Kind::Structure, "amcheck", structure::expected(depth), structure)).await;
        self.count(instance, &client).await;
        for check in &config.checks {
            let asked = assertions::ask(instance, user, check);
            let expected = assertions::expected(check);
            let check = Check::run(Kind::Assertions, &check.name, expected, asked);
            self.add(check).await;
        }
        self.stage("checks", begun);
    }

    async fn judge_times(&mut self, took: Duration, known_until: Option<Timestamp>) {
        let config = &self.access.config.drill;
        let limit = |setting: &Option<walseal_common::config::Setting<Duration>>| setting.as_ref().map(|one| one.value);
        let (rpo, rto) = (limit(&config.max_rpo), limit(&config.max_rto));
        for (name, expected, found) in [
            // By what was known when the drill began: its own time is no loss.
            ("loss", freshness::expected(rpo, "drill.max_rpo"), freshness::loss(known_until, self.report.began, rpo)),
            ("time to restore", freshness::expected(rto, "drill.max_rto"), freshness::time_to_first_query(took, rto)),
        ] {
            let found = std::future::ready(Ok::<_, InstanceError>(found));
            self.add(Check::run(Kind::Freshness, name, expected, found)).await;
        }
    }

    async fn count(&mut self, instance: &Instance, client: &SqlClient) {
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
        let mut tables = counts::Tables::default();
        let counted = async {
            tables = counts::count(instance, client, config).await?;
            Ok::<_, walseal_common::postgres::PostgresError>(counts::judge(&tables, before.as_deref(), config))
        };
        let expected = counts::expected(config, before.as_deref());
        let check = Check::run(Kind::Counts, "rows", expected, counted).await;
        self.report.checks.push(check);
        (self.report.tables, self.report.unlogged) = (tables.counted, tables.unlogged);
    }

    async fn add(&mut self, check: impl Future<Output = Check>) {
        let check = check.await;
        tracing::info!(check = check.name, outcome = check.outcome.word(), found = check.found, "checked");
        self.report.checks.push(check);
    }

    fn step<T>(
        &mut self,
        kind: Kind,
        expected: &str,
        look: impl FnOnce(&Self) -> Result<T, InstanceError>,
    ) -> Result<T, BrokeOff> {
        let begun = Instant::now();
        look(self).map_err(|error| self.broke_off(kind, expected, error, begun))
    }

    fn broke_off(&mut self, kind: Kind, expected: &str, why: impl std::fmt::Display, begun: Instant) -> BrokeOff {
        self.report.checks.push(Check::broke_off(kind, expected, why, begun));
        BrokeOff
    }

    fn stage(&mut self, name: &str, begun: Instant) {
        self.report.stages.push(Stage { name: name.to_owned(), seconds: begun.elapsed().as_secs_f64() });
    }
}

/// The windows, and up to when the repository is known to hold everything.
async fn survey(access: &Access) -> Result<(Vec<Window>, Option<Timestamp>), plan::PlanError> {
    let (repository, identities) = (&access.repository, &access.identities);
    let mut inventory = Inventory::read(repository, identities).await?;
    let windows = windows(repository, identities, &mut inventory).await?;
    let known_until = freshness::known_until(&windows, &inventory.frontiers, &inventory.bases);
    Ok((windows, known_until))
}

/// Connects and asks for the version.
async fn first_query(
    instance: &Instance,
    user: &str,
) -> Result<(SqlClient, String), walseal_common::postgres::PostgresError> {
    let client = instance.connect(user, "postgres").await?;
    let row = client.query_one("the first query failed", "select version()", &[]).await?;
    let version = row.try_get(0).map_err(|error| SqlClient::error("reading an answer failed", &error))?;
    Ok((client, version))
}

/// What recovery itself leaves to say: libraries that the cluster loads and the instance does not.
fn said_of(preload: &Preload) -> Found {
    let mut details: Vec<String> = preload
        .missing
        .iter()
        .map(|name| format!("{name} of shared_preload_libraries is not on this host, and left out"))
        .collect();
    details.extend(
        preload.kept_out.iter().map(|name| format!("{name} is left out, because its workers act by themselves")),
    );
    details.extend(
        preload.unknown.iter().map(|why| format!("shared_preload_libraries of the cluster is not known: {why}")),
    );
    let noteworthy = !preload.missing.is_empty() || preload.unknown.is_some();
    let found = "it ended, and the instance was promoted";
    if noteworthy { Found::odd(found).with(details) } else { Found::good(found).with(details) }
}
