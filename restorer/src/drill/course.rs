//! One drill, from the choice of a target to an instance that answers, and to its end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use walseal_common::repository::{BaseId, ObjectName, RepositoryError};
use walseal_common::seal::ObjectDigest;
use walseal_common::segment::SegmentSize;
use walseal_common::terminal::Progress;

use super::Exercise;
use super::check::freshness::{self, Known};
use super::check::pages;
use super::next_base::{self, NextBase, NextBaseError};
use super::report::{Check, Drilled, DrilledBase, Found, Kind, Outcome, Report, Stage};
use super::target::{self, Choice};
use crate::access::Access;
use crate::fetch::prefetcher::Serving;
use crate::heads::{self, CutOff};
use crate::instance::{Instance, InstanceError, Preload, Programs, Recovered, Scratch};
use crate::plan::windows::{Window, windows};
use crate::plan::{self, Inventory, Plan, Request, Target};
use crate::rebuild::{Destination, Order, Restored, TablespaceMapping};

/// Data objects at a time for each processor: the store's latency is what is waited for.
const JOBS_PER_CPU: usize = 2;

/// What is expected of recovery, in words.
const RECOVERS: &str = "recovery reaches the target";

/// The next base backup, or why there is none.
type Made = Result<NextBase, NextBaseError>;

/// A step failed without which nothing can be checked: it stands in the report.
pub(super) struct BrokeOff;

/// One drill, as far as it is.
pub(super) struct Course<'a> {
    pub(super) exercise: &'a Exercise,
    pub(super) access: &'a Access,
    /// When the restore began: after the target was chosen.
    pub(super) restoring: Instant,
    pub(super) report: Report,
    /// Dropped after the instance, which is never kept beyond a method.
    pub(super) scratch: Option<Scratch>,
    /// What the next base backup took.
    pub(super) making: Duration,
}

impl Course<'_> {
    pub(super) async fn carry_out(&mut self) -> Result<(), BrokeOff> {
        let begun = Instant::now();
        // Before anything takes long: a file that cannot be read makes no pass.
        let checks = match self.access.config.open_checks() {
            Ok(checks) => checks,
            Err(error) => return Err(self.broke_off(Kind::Assertions, "drill.checks_file can be read", error, begun)),
        };
        let (request, known) = self.choose().await?;
        self.restoring = Instant::now();
        let mut plan = self.plan(&request, "plan").await?;
        self.miss(plan.segment_size).await;
        let pausing = if self.makes_base() { next_base::pausing(self.access, &plan).await } else { Ok(None) };
        let pausing = match pausing {
            Ok(pausing) => pausing,
            Err(error) => {
                return Err(self.broke_off(Kind::Base, "the label of the base backup can be read", error, begun));
            }
        };
        if let Some(request) = &pausing {
            self.report.target = Some(request.target.to_string());
            plan = self.plan(request, "plan of the pause").await?;
        }
        let programs = self.step(Kind::Restore, "PostgreSQL of the backup's version is here", |course| {
            let pg_bin = course.access.config.drill.pg_bin.as_ref().or(course.access.config.cluster.pg_bin.as_ref());
            Programs::find(plan.base.postgres_version, pg_bin.map(|setting| setting.value.clone()))
        })?;
        let (scratch, owner) = self.step(Kind::Restore, "a place to restore to", |course| {
            Scratch::fresh(&course.access.config.drill.scratch_dir.value)
        })?;
        let (data, tablespaces) = (scratch.data(), scratch.tablespaces());
        self.scratch = Some(scratch);
        let tablespaces = TablespaceMapping { pairs: Vec::new(), folder: Some(tablespaces) };
        let restored =
            self.restore(&plan, Destination { data, waldir: None, tablespaces, owner, delta: false }).await?;
        let mut preload = self.preload(&programs, &restored)?;
        let (mut instance, recovered, next) = match pausing {
            Some(_) => self.make_base(&programs, &restored, &plan, &mut preload).await?,
            None => {
                let begun = Instant::now();
                let recovered = match self.serve(&restored).await {
                    Ok((command, _serving)) => {
                        Instance::recover(&programs, &restored, &plan, &mut preload, &command).await
                    }
                    Err(error) => Err(error),
                };
                let (instance, recovered) = self.recovered(recovered, preload, begun).await?;
                (instance, recovered, None)
            }
        };
        self.look(&instance, &plan, &recovered, known, &checks).await;
        self.dump(&instance, &plan).await;
        let begun = Instant::now();
        if let Err(error) = instance.stop().await {
            self.report.log = instance.log();
            return Err(self.broke_off(Kind::Pages, "the instance stops", error, begun));
        }
        self.add(Check::run(Kind::Pages, "pages", "every page is sound", pages::look(&instance))).await;
        self.report.log = instance.log();
        if let Some(made) = next {
            self.publish(made).await;
        }
        Ok(())
    }

    /// Whether the next base backup is to be made: of an instance at the latest moment, an older one would be of no use.
    fn makes_base(&self) -> bool {
        let wanted = self.access.config.drill.make_base.value;
        let latest = self.exercise.target == Choice::Given(Target::Latest);
        if wanted && !latest {
            tracing::info!("drill.make_base: no base backup is made where a drill does not lead to the latest moment");
        }
        wanted && latest
    }

    /// Pauses at the target, has the next base backup made, and goes on to the promotion.
    async fn make_base(
        &mut self,
        programs: &Programs,
        restored: &Restored,
        plan: &Plan,
        preload: &mut Preload,
    ) -> Result<(Instance, Recovered, Option<Made>), BrokeOff> {
        let begun = Instant::now();
        let paused = match self.serve(restored).await {
            Ok((command, serving)) => Instance::pause(programs, restored, plan, preload, &command)
                .await
                .map(|(instance, paused)| (instance, paused, serving)),
            Err(error) => Err(error),
        };
        // Promotion asks for WAL and histories, too.
        let (mut instance, paused, _serving) = match paused {
            Ok(paused) => paused,
            Err(error) => return Err(self.no_recovery(error, begun)),
        };
        let making = Instant::now();
        let made = match &self.scratch {
            Some(scratch) => NextBase::make(self.access, &instance, scratch, plan).await,
            None => Err(NextBaseError::NoKey),
        };
        self.making = making.elapsed();
        self.stage("next base backup", making);
        let user = &self.access.config.drill.user.value;
        let promoted = instance.promote(paused, plan, user).await.map(|recovered| (instance, recovered));
        let (instance, recovered) = self.recovered(promoted, std::mem::take(preload), begun).await?;
        Ok((instance, recovered, Some(made)))
    }

    /// Makes the next base backup visible where everything passed.
    async fn publish(&mut self, made: Made) {
        const EXPECTED: &str = "the next base backup is made of the instance, and published when all else passed";
        let begun = Instant::now();
        let next = match made {
            Ok(next) if !self.report.is_good_so_far() => {
                tracing::warn!(base = %next.id(), "the base backup that was made of the instance is not published: the drill failed");
                return next.give_up().await;
            }
            made => made,
        };
        let published = async {
            let id = next?.publish().await?;
            Ok::<_, NextBaseError>(id)
        };
        let (published, words) = match published.await {
            Ok(id) => (Some(id.clone()), Ok(Found::good(format!("{id}, derived from what was proven")))),
            Err(error) => (None, Err(error)),
        };
        self.report.made = published;
        let mut check = Check::run(Kind::Base, "next base backup", EXPECTED, std::future::ready(words)).await;
        check.seconds = (self.making + begun.elapsed()).as_secs_f64();
        self.add(std::future::ready(check)).await;
    }

    /// Removes what was restored, or keeps it.
    pub(super) fn give_up(&mut self) -> Option<PathBuf> {
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

    /// The request, and what is known of how fresh the repository is.
    async fn choose(&mut self) -> Result<(Request, Known), BrokeOff> {
        let begun = Instant::now();
        let surveyed = survey(self.access).await;
        let (windows, known) = match surveyed {
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
        Ok((request, known))
    }

    async fn plan(&mut self, request: &Request, stage: &str) -> Result<Plan, BrokeOff> {
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
        self.stage(stage, begun);
        Ok(plan)
    }

    /// Whether all that this host has seen is there; nothing where it remembers nothing. What was cut off would look whole.
    async fn miss(&mut self, size: SegmentSize) {
        let Some(heads) = heads::remembered(self.access) else { return };
        let look = async {
            let missing = heads::cut_off(&self.access.repository, size, &heads).await?;
            let outcome = if missing.is_empty() { Outcome::Passed } else { Outcome::Failed };
            let found = match missing.len() {
                0 => format!("all of it, since {}", heads.seen),
                1 => "1 end was cut off".to_owned(),
                missing => format!("{missing} ends were cut off"),
            };
            let details = missing.iter().map(CutOff::words).collect();
            Ok::<_, RepositoryError>(Found { outcome, found, details })
        };
        let check =
            Check::run(Kind::Plan, "newest end", "what this host has seen of the repository's end is there", look);
        let check = check.await;
        self.add(async { check }).await;
    }

    /// The digest of the label, which has those of everything else that is restored.
    async fn label_digest(&self, id: &BaseId) -> Option<ObjectDigest> {
        let key = ObjectName::Label(id.clone()).key(self.access.repository.cluster());
        // The plan has read it; without it the evidence says a little less.
        let bytes = self.access.repository.store().get(&key).await.ok()?;
        Some(ObjectDigest::of(&bytes))
    }

    async fn restore(&mut self, plan: &Plan, destination: Destination) -> Result<Restored, BrokeOff> {
        let begun = Instant::now();
        let program = match crate::program::path() {
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
            is_served: true,
            starts: false,
            standby: None,
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

    fn preload(&mut self, programs: &Programs, restored: &Restored) -> Result<Preload, BrokeOff> {
        let begun = Instant::now();
        Preload::of(programs, restored).map_err(|error| self.broke_off(Kind::Recovery, RECOVERS, error, begun))
    }

    /// What came of recovery.
    async fn recovered(
        &mut self,
        recovered: Result<(Instance, Recovered), InstanceError>,
        preload: Preload,
        begun: Instant,
    ) -> Result<(Instance, Recovered), BrokeOff> {
        let found = said_of(&preload);
        self.report.preload = Some(preload);
        let (instance, recovered) = match recovered {
            Ok(recovered) => recovered,
            Err(error) => return Err(self.no_recovery(error, begun)),
        };
        if let Some(drilled) = &mut self.report.drilled {
            (drilled.last_time, drilled.last_record) = (recovered.landing.last_time, recovered.last_record);
        }
        let looked = std::future::ready(Ok::<_, InstanceError>(found));
        let mut check = Check::run(Kind::Recovery, "recovery", RECOVERS, looked).await;
        check.seconds = begun.elapsed().saturating_sub(self.making).as_secs_f64();
        self.report.checks.push(check);
        self.stage("recovery", begun);
        Ok((instance, recovered))
    }

    /// Hands the instance its WAL, so that its user needs no keys; with the command that asks for it.
    async fn serve(&self, restored: &Restored) -> Result<(String, Serving), InstanceError> {
        let serving = Serving::begin(&self.access.config, restored).await?;
        let program = crate::program::path().map_err(InstanceError::io("find this program in", serving.folder()))?;
        Ok((serving.command(&program)?, serving))
    }

    fn no_recovery(&mut self, error: InstanceError, begun: Instant) -> BrokeOff {
        if let InstanceError::Ended { log, .. } | InstanceError::Stalled { log, .. } = &error {
            self.report.log.clone_from(log);
        }
        self.broke_off(Kind::Recovery, RECOVERS, error, begun)
    }

    pub(super) async fn add(&mut self, check: impl Future<Output = Check>) {
        let check = check.await;
        let (name, outcome) = (&check.name, check.outcome.word());
        if check.outcome == Outcome::Passed {
            tracing::info!(check = name, outcome, "checked");
        } else {
            tracing::warn!(check = name, outcome, found = check.found, "checked");
        }
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

    pub(super) fn stage(&mut self, name: &str, begun: Instant) {
        self.report.stages.push(Stage { name: name.to_owned(), seconds: begun.elapsed().as_secs_f64() });
    }
}

/// The windows, and what is known of how fresh the repository is.
async fn survey(access: &Access) -> Result<(Vec<Window>, Known), plan::PlanError> {
    let (repository, identities) = (&access.repository, &access.identities);
    let mut inventory = Inventory::read(repository, identities).await?;
    let windows = windows(repository, identities, &mut inventory).await?;
    let (frontiers, now) = (&inventory.frontiers, Timestamp::now());
    let until = freshness::known_until(&windows, frontiers, &inventory.bases, now);
    Ok((windows, Known { until, silence: freshness::silence(frontiers, now) }))
}

/// What recovery itself leaves to say: libraries that the cluster loads and the instance does not.
fn said_of(preload: &Preload) -> Found {
    let noteworthy = !preload.missing.is_empty() || preload.unknown.is_some();
    let found = "it ended, and the instance was promoted";
    if noteworthy { Found::odd(found) } else { Found::good(found) }.with(preload.remarks())
}
