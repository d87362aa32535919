//! A store that tries again.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::crowd::Crowd;
use super::health::Health;
use super::{Failing, Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError, StoreErrorKind, Tally};

/// How often and how long a call is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Longest pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// What the pauses never exceed.
    pub longest_pause: Duration,
    /// No attempt begins later than this after the call. One that is under way is not cut: it has a deadline
    /// of its own.
    pub give_up_after: Duration,
    /// The deadline of one attempt, where it must be sooner than the store's own (30 s and the time that the bytes need).
    pub attempt_limit: Option<Duration>,
    /// Nor later than this, whichever call it belongs to: for callers that have promised an answer by then. The first
    /// attempt of a call is always made.
    pub deadline: Option<Instant>,
}

impl RetryPolicy {
    /// For verbs that check something while a person looks on: a store that is just restarted may come back within 10 s,
    /// and one that does not is named then.
    pub fn while_a_person_waits() -> RetryPolicy {
        RetryPolicy {
            longest_pause: Duration::from_secs(2),
            give_up_after: Duration::from_secs(10),
            attempt_limit: Some(Duration::from_secs(10)),
            ..RetryPolicy::default()
        }
    }
}

impl Default for RetryPolicy {
    /// 100 ms, doubling up to 5 s, for a minute.
    fn default() -> RetryPolicy {
        RetryPolicy {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            give_up_after: Duration::from_secs(60),
            attempt_limit: None,
            deadline: None,
        }
    }
}

tokio::task_local! {
    static PATIENCE: Duration;
}

/// Does `work` with less patience: its calls are given up after `limit`, where a policy would go on for longer. For whoever
/// is called again anyway and must not be waited for. Counts in the task that awaits it, not in tasks that it spawns.
pub async fn with_patience<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    PATIENCE.scope(limit, work).await
}

/// Repeats calls that failed for a reason that may pass ([`StoreError::is_permanent`]), after random pauses.
///
/// Where the store says that it is asked too much, fewer calls are under way at once from then on, whoever makes them.
/// A put may be repeated after an attempt whose outcome was not known; see [`ObjectStore::put_new`] for what its
/// `AlreadyExists` can mean. What fails for long is logged once, and can be asked for ([`ObjectStore::failing`]).
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    crowd: Crowd,
    health: Health,
    tally: Arc<Tally>,
}

impl Retry {
    /// `inner`, with calls repeated as `policy` says.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Retry {
        Retry { inner, policy, crowd: Crowd::default(), health: Health::default(), tally: Arc::default() }
    }

    /// A call is not tried again. What only those may ask for who prune or hold says nothing of whether WAL can be stored and read, and
    /// whoever asked says it.
    fn given_up(&self, error: &StoreError) {
        match error.operation {
            "put" | "get" | "list" => self.health.gave_up(error),
            operation => self.health.let_go(operation),
        }
    }

    async fn repeat<T, C, F>(&self, operation: &'static str, key: &str, call: C) -> Result<T, StoreError>
    where
        C: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T, StoreError>> + Send,
        T: Send,
    {
        let limit = PATIENCE.try_with(|limit| *limit).unwrap_or(Duration::MAX).min(self.policy.give_up_after);
        let begun = Instant::now();
        let mut attempt = 1u32;
        let mut trying = None;
        loop {
            let mut error = match self.in_time(operation, key, call()).await {
                Err(error) if !error.is_permanent() => error,
                done => {
                    drop(trying);
                    match done.as_ref().map_err(|error| (error.kind, error)) {
                        Ok(_) | Err((StoreErrorKind::NotFound, _)) => self.health.worked(operation),
                        // What was asked for is at fault, not the store.
                        Err((StoreErrorKind::Protocol, _)) => {}
                        Err((_, error)) => self.given_up(error),
                    }
                    return done;
                }
            };
            let pause = self.pause(attempt, random_fraction());
            let late = self.policy.deadline.is_some_and(|deadline| Instant::now() + pause >= deadline);
            if late || begun.elapsed() + pause >= limit {
                drop(trying);
                self.given_up(&error);
                if attempt > 1 {
                    let spent = begun.elapsed().as_secs_f64();
                    error.reason = format!("{} ({attempt} attempts in {spent:.1} s)", error.reason);
                }
                return Err(error);
            }
            tracing::debug!(%error, attempt, ?pause, "the call is repeated after a pause");
            trying.get_or_insert_with(|| self.health.trying(operation));
            self.health.failed(&error, begun);
            sleep(pause).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// One attempt, cut at the policy's limit.
    async fn in_time<T>(
        &self,
        operation: &'static str,
        key: &str,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let admitted = self.crowd.enter().await;
        let begun = Instant::now();
        let ended = match self.policy.attempt_limit {
            None => attempt.await,
            Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| {
                Err(StoreError {
                    kind: StoreErrorKind::Unreachable,
                    operation,
                    key: key.to_owned(),
                    store: self.describe(),
                    reason: format!("no answer within {} s", limit.as_secs_f32()),
                })
            }),
        };
        match &ended {
            Ok(_) => admitted.went_well(),
            Err(error) if error.kind == StoreErrorKind::Throttled => admitted.was_too_much(),
            Err(_) => {}
        }
        // What keeps an object is two questions: its retention, and its legal hold.
        let requests = if operation == "lock" && !key.is_empty() { 2 } else { 1 };
        self.tally.attempt(operation, requests, begun.elapsed(), ended.as_ref().err().map(|error| error.kind));
        ended
    }

    /// The pause after failure number `attempt`, counted from 1: anything between none and the bound, so that
    /// many writers that failed together do not come back together.
    fn pause(&self, attempt: u32, fraction: f64) -> Duration {
        let doubled = self.policy.first_pause.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        doubled.min(self.policy.longest_pause).mul_f64(fraction)
    }
}

/// A random number from 0 to 1; 1 when the system gives none, which only makes pauses longer.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[async_trait::async_trait]
impl ObjectStore for Retry {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let outcome = self.repeat("put", key, || self.inner.put_new(key, body.clone())).await?;
        if outcome == PutOutcome::Created {
            self.tally.created(body.len() as u64);
        }
        Ok(outcome)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.repeat("get", key, || self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.repeat("get", key, || self.inner.get_range(key, range.clone())).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.repeat("list", prefix, || self.inner.list(prefix, start_after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.repeat("delete", key, || self.inner.delete(key)).await
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.repeat("hold", key, || self.inner.legal_hold(key, held)).await
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        self.repeat("lock", "", || self.inner.has_locks()).await
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.repeat("lock", key, || self.inner.lock(key)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn failing(&self) -> Option<watch::Receiver<Failing>> {
        Some(self.health.watch())
    }

    fn tally(&self) -> Option<Arc<Tally>> {
        Some(self.tally.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Call, Effect, Faulty};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Decorator, DirectoryStore, StoreErrorKind};
    use super::*;

    fn quick() -> RetryPolicy {
        RetryPolicy {
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(4),
            ..RetryPolicy::default()
        }
    }

    fn faulty() -> (tempfile::TempDir, Arc<Faulty>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned()))));
        (folder, store)
    }

    /// Refuses more calls at once than it likes.
    #[derive(Debug)]
    struct Narrow {
        inner: Arc<dyn ObjectStore>,
        at_once: AtomicUsize,
        refused: AtomicUsize,
    }

    const LIKED: usize = 3;

    #[async_trait::async_trait]
    impl Decorator for Narrow {
        fn inner(&self) -> &dyn ObjectStore {
            self.inner.as_ref()
        }

        async fn put_new(&self, key: &str, _body: Bytes) -> Result<PutOutcome, StoreError> {
            let narrow = self.at_once.fetch_add(1, Ordering::SeqCst) >= LIKED;
            // As long as others need to come, too.
            sleep(Duration::from_millis(1)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if !narrow {
                return Ok(PutOutcome::Created);
            }
            self.refused.fetch_add(1, Ordering::SeqCst);
            Err(StoreError {
                kind: StoreErrorKind::Throttled,
                operation: "put",
                key: key.to_owned(),
                store: "a narrow one".to_owned(),
                reason: "slow down".to_owned(),
            })
        }
    }

    #[tokio::test]
    async fn case_35_a_store_that_is_asked_too_much_is_asked_less_by_all_together() {
        let (_folder, inner) = faulty();
        let narrow = Arc::new(Narrow { inner, at_once: AtomicUsize::new(0), refused: AtomicUsize::new(0) });
        let store = Retry::new(narrow.clone(), quick());
        let puts = (0..1000).map(|number| {
            let store = &store;
            async move { store.put_new(&number.to_string(), Bytes::from_static(b"x")).await.map(|_| ()) }
        });
        futures_util::future::try_join_all(puts).await.expect("each is taken at last");
        // 997 at once, 495, 247 …, and then one each time that a further one is tried.
        let refused = narrow.refused.load(Ordering::SeqCst);
        assert!((997..3000).contains(&refused), "{refused}");
    }

    #[tokio::test]
    async fn a_failure_that_may_pass_is_repeated_until_it_passes() {
        let (_folder, faulty) = faulty();
        for call in [Call::Put, Call::Get, Call::GetRange, Call::List, Call::Delete] {
            faulty.plan(call, 1..=3, Effect::FailBefore(StoreErrorKind::Throttled));
        }
        let store = Retry::new(faulty.clone(), quick());
        assert_eq!(store.put_new("a", Bytes::from_static(b"x")).await.expect("put"), PutOutcome::Created);
        assert_eq!(store.get("a").await.expect("get"), "x");
        assert_eq!(store.get_range("a", 0..1).await.expect("range").bytes, "x");
        assert_eq!(store.list("", None, 10).await.expect("list").objects.len(), 1);
        store.delete("a").await.expect("delete");
        for call in [Call::Put, Call::Get, Call::GetRange, Call::List, Call::Delete] {
            assert_eq!(faulty.calls(call), 4, "{call:?}");
        }
    }

    #[tokio::test]
    async fn a_put_that_took_effect_before_it_failed_finds_its_own_object() {
        let (_folder, faulty) = faulty();
        faulty.plan(Call::Put, 1..=1, Effect::FailAfter(StoreErrorKind::Unreachable));
        let store = Retry::new(faulty, quick());
        let outcome = store.put_new("a", Bytes::from_static(b"mine")).await.expect("put");
        assert_eq!(outcome, PutOutcome::AlreadyExists);
        assert_eq!(store.get("a").await.expect("get"), "mine");
    }

    #[tokio::test]
    async fn a_permanent_failure_is_not_repeated() {
        let (_folder, faulty) = faulty();
        faulty.plan(Call::Put, 1..=1, Effect::FailBefore(StoreErrorKind::Denied));
        let store = Retry::new(faulty.clone(), quick());
        assert_eq!(store.put_new("a", Bytes::new()).await.expect_err("denied").kind, StoreErrorKind::Denied);
        assert_eq!(store.get("a").await.expect_err("absent").kind, StoreErrorKind::NotFound);
        assert_eq!((faulty.calls(Call::Put), faulty.calls(Call::Get)), (1, 1));
    }

    #[tokio::test]
    async fn a_store_that_stays_away_is_given_up_with_the_number_of_attempts() {
        let (_folder, faulty) = faulty();
        faulty.set_down(Some(StoreErrorKind::Unreachable));
        let store = Retry::new(faulty, RetryPolicy { give_up_after: Duration::from_millis(50), ..quick() });
        let error = store.get("a").await.expect_err("down");
        assert_eq!(error.kind, StoreErrorKind::Unreachable);
        assert!(error.reason.contains("attempts in"), "{error}");
    }

    #[tokio::test]
    async fn what_fails_is_known_while_it_is_tried_again_and_after_it_was_given_up() {
        let (_folder, faulty) = faulty();
        let store = Retry::new(faulty.clone(), RetryPolicy { give_up_after: Duration::from_millis(50), ..quick() });
        let mut failing = store.failing().expect("a store that tries again knows what fails");
        let worst =
            |failing: &watch::Receiver<Failing>| failing.borrow().worst().map(|error| (error.operation, error.kind));
        store.put_new("a", Bytes::new()).await.expect("put");
        assert_eq!(worst(&failing), None);
        faulty.plan(Call::Put, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Full));
        faulty.plan(Call::List, 1..=1, Effect::FailBefore(StoreErrorKind::Throttled));
        let (put, seen) = tokio::join!(store.put_new("b", Bytes::new()), async {
            failing.changed().await.expect("the store is there");
            worst(&failing)
        });
        assert_eq!(put.expect_err("full").kind, StoreErrorKind::Full);
        assert_eq!(seen, Some(("put", StoreErrorKind::Full)));
        // Reading works, and says nothing about putting; neither does a put that works while another still fails.
        store.list("", None, 10).await.expect("list");
        assert_eq!(worst(&failing), Some(("put", StoreErrorKind::Full)));
        faulty.heal();
        faulty.plan_below("big", Call::Put, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Full));
        let (_, seen) = tokio::join!(store.put_new("big", Bytes::new()), async {
            store.put_new("small", Bytes::new()).await.expect("put");
            worst(&failing)
        });
        assert_eq!(seen, Some(("put", StoreErrorKind::Full)));
        faulty.heal();
        store.put_new("b", Bytes::new()).await.expect("put");
        assert_eq!(worst(&failing), None);
        // An object that is not there is an answer.
        store.get("c").await.expect_err("absent");
        assert_eq!(worst(&failing), None);
    }

    #[tokio::test]
    async fn a_delete_that_was_refused_or_given_up_is_no_trouble_of_the_stores() {
        let (_folder, faulty) = faulty();
        let store = Retry::new(faulty.clone(), RetryPolicy { give_up_after: Duration::from_millis(50), ..quick() });
        let mut failing = store.failing().expect("a store that tries again knows what fails");
        faulty.plan(Call::Delete, 1..=1, Effect::FailBefore(StoreErrorKind::Denied));
        assert_eq!(store.delete("a").await.expect_err("refused").kind, StoreErrorKind::Denied);
        assert!(failing.borrow_and_update().worst().is_none(), "nobody but a delete could end it");
        faulty.set_down(Some(StoreErrorKind::Unreachable));
        let (deleted, seen) = tokio::join!(store.delete("a"), async {
            failing.changed().await.expect("the store is there");
            failing.borrow_and_update().worst().map(|error| error.operation)
        });
        assert_eq!((deleted.expect_err("down").kind, seen), (StoreErrorKind::Unreachable, Some("delete")));
        assert!(failing.borrow().worst().is_none(), "it is not tried any more");
    }

    #[tokio::test]
    async fn an_attempt_that_never_ends_is_cut() {
        let (_folder, faulty) = faulty();
        faulty.plan(Call::Get, 1..=u64::MAX, Effect::Hang);
        let limit = Duration::from_millis(10);
        let policy = RetryPolicy { attempt_limit: Some(limit), give_up_after: limit * 3, ..quick() };
        let error = Retry::new(faulty, policy).get("a").await.expect_err("no answer");
        assert_eq!(error.kind, StoreErrorKind::Unreachable);
        assert!(error.to_string().contains("get a in file://") && error.reason.contains("no answer within"), "{error}");
    }

    #[tokio::test]
    async fn after_the_deadline_of_all_calls_each_is_tried_once() {
        let (_folder, faulty) = faulty();
        faulty.set_down(Some(StoreErrorKind::Unreachable));
        let deadline = Some(Instant::now() + Duration::from_millis(50));
        let store = Retry::new(faulty.clone(), RetryPolicy { deadline, ..quick() });
        // Without it this would go on for a minute.
        assert_eq!(store.get("a").await.expect_err("down").kind, StoreErrorKind::Unreachable);
        assert!(faulty.calls(Call::Get) > 1, "it was tried again until then");
        let passed = Some(Instant::now());
        let store = Retry::new(faulty.clone(), RetryPolicy { deadline: passed, ..quick() });
        assert_eq!(store.list("", None, 1).await.expect_err("down").kind, StoreErrorKind::Unreachable);
        assert_eq!(store.list("", None, 1).await.expect_err("down").kind, StoreErrorKind::Unreachable);
        assert_eq!(faulty.calls(Call::List), 2);
    }

    #[tokio::test]
    async fn work_with_less_patience_gives_up_sooner_and_never_later() {
        let (_folder, faulty) = faulty();
        faulty.set_down(Some(StoreErrorKind::Unreachable));
        let store = Retry::new(faulty.clone(), quick());
        // No pause fits, so there is one attempt; with the policy's own patience the first pause, of at most 4 ms, would.
        let error = with_patience(Duration::ZERO, store.get("a")).await.expect_err("down");
        assert!(!error.reason.contains("attempts"), "{error}");
        assert_eq!(faulty.calls(Call::Get), 1);
        let store = Retry::new(faulty, RetryPolicy { give_up_after: Duration::from_millis(50), ..quick() });
        let error = with_patience(Duration::MAX, store.get("a")).await.expect_err("down");
        assert!(error.reason.contains("attempts in"), "{error}");
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_never_overflow() {
        let (_folder, faulty) = faulty();
        let store = Retry::new(faulty, RetryPolicy::default());
        let pauses = [1, 2, 3, 7, 40, u32::MAX].map(|attempt| store.pause(attempt, 1.0).as_millis());
        assert_eq!(pauses, [100, 200, 400, 5000, 5000, 5000]);
        assert_eq!(store.pause(3, 0.0), Duration::ZERO);
    }
}
