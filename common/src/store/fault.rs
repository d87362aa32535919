//! A store that fails as it was told to.

use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError, StoreErrorKind};

/// The calls of an [`ObjectStore`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// [`ObjectStore::put_new`].
    Put,
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::get_range`].
    GetRange,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::delete`].
    Delete,
}

impl Call {
    fn operation(self) -> &'static str {
        match self {
            Call::Put => "put",
            Call::Get | Call::GetRange => "get",
            Call::List => "list",
            Call::Delete => "delete",
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The call fails, and nothing happened.
    FailBefore(StoreErrorKind),
    /// The call takes effect and fails nevertheless, as when the answer is lost.
    FailAfter(StoreErrorKind),
    /// The call takes effect after this time.
    Stall(Duration),
    /// The call never returns and takes no effect.
    Hang,
    /// One bit of the body is flipped, on its way in or out; an empty body gets a byte. Lists and deletes are spared.
    WrongBytes,
    /// The second half of the body, or of the page of a listing, is missing. Deletes are spared.
    Truncated,
}

/// Injects failures into calls, by a plan that knows no chance.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Vec<Fault>,
    down: Option<StoreErrorKind>,
    history: Vec<(Call, String)>,
}

#[derive(Debug)]
struct Fault {
    call: Call,
    prefix: String,
    numbers: RangeInclusive<u64>,
    effect: Effect,
    seen: u64,
}

impl Faulty {
    /// `inner`, without faults so far.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Faulty {
        Faulty { inner, state: Mutex::default() }
    }

    /// Plans `effect` for the calls of kind `call` with these numbers, counted from 1 and from now on. Where
    /// several plans fit a call, the earliest decides.
    pub fn plan(&self, call: Call, numbers: RangeInclusive<u64>, effect: Effect) {
        self.plan_below("", call, numbers, effect);
    }

    /// As [`Faulty::plan`], but only calls whose key (or prefix of a listing) starts with `prefix` are hit and
    /// counted.
    pub fn plan_below(&self, prefix: &str, call: Call, numbers: RangeInclusive<u64>, effect: Effect) {
        self.state().plan.push(Fault { call, prefix: prefix.to_owned(), numbers, effect, seen: 0 });
    }

    /// From now on every call fails like this, before it takes effect; `None` ends the outage.
    pub fn set_down(&self, down: Option<StoreErrorKind>) {
        self.state().down = down;
    }

    /// Forgets every plan, and ends an outage.
    pub fn heal(&self) {
        let mut state = self.state();
        state.plan.clear();
        state.down = None;
    }

    /// How many calls of this kind there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().history.iter().filter(|(seen, _)| *seen == call).count() as u64
    }

    /// All calls so far with their keys (or prefixes of listings), in the order in which they began.
    pub fn history(&self) -> Vec<(Call, String)> {
        self.state().history.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, and does what happens before it.
    async fn before(&self, call: Call, key: &str) -> Result<Option<Effect>, StoreError> {
        let effect = {
            let mut state = self.state();
            state.history.push((call, key.to_owned()));
            let mut effect = state.down.map(Effect::FailBefore);
            for fault in state.plan.iter_mut().filter(|fault| fault.call == call && key.starts_with(&fault.prefix)) {
                fault.seen += 1;
                if fault.numbers.contains(&fault.seen) {
                    effect = effect.or(Some(fault.effect));
                }
            }
            effect
        };
        match effect {
            Some(Effect::FailBefore(kind)) => Err(self.error(kind, call, key, "before it took effect")),
            Some(Effect::Stall(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Effect::Hang) => std::future::pending().await,
            effect => Ok(effect),
        }
    }

    /// Does what happens after the call.
    fn after(&self, call: Call, key: &str, effect: Option<Effect>) -> Result<(), StoreError> {
        match effect {
            Some(Effect::FailAfter(kind)) => Err(self.error(kind, call, key, "after it took effect")),
            _ => Ok(()),
        }
    }

    fn error(&self, kind: StoreErrorKind, call: Call, key: &str, when: &str) -> StoreError {
        StoreError {
            kind,
            operation: call.operation(),
            key: key.to_owned(),
            store: self.describe(),
            reason: format!("an injected fault, {when}"),
        }
    }
}

/// The body after the way through `effect`.
fn spoiled(body: Bytes, effect: Option<Effect>) -> Bytes {
    match effect {
        Some(Effect::WrongBytes) => {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            match bytes.get_mut(middle) {
                Some(byte) => *byte ^= 1,
                None => bytes.push(0),
            }
            bytes.into()
        }
        Some(Effect::Truncated) => body.slice(..body.len() / 2),
        _ => body,
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let effect = self.before(Call::Put, key).await?;
        let outcome = self.inner.put_new(key, spoiled(body, effect)).await?;
        self.after(Call::Put, key, effect)?;
        Ok(outcome)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let effect = self.before(Call::Get, key).await?;
        let body = self.inner.get(key).await?;
        self.after(Call::Get, key, effect)?;
        Ok(spoiled(body, effect))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        let effect = self.before(Call::GetRange, key).await?;
        let body = self.inner.get_range(key, range).await?;
        self.after(Call::GetRange, key, effect)?;
        Ok(RangeBody { bytes: spoiled(body.bytes, effect), object_size: body.object_size })
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let effect = self.before(Call::List, prefix).await?;
        let mut page = self.inner.list(prefix, start_after, limit).await?;
        self.after(Call::List, prefix, effect)?;
        if effect == Some(Effect::Truncated) {
            page.objects.truncate(page.objects.len() / 2);
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let effect = self.before(Call::Delete, key).await?;
        self.inner.delete(key).await?;
        self.after(Call::Delete, key, effect)
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.inner.legal_hold(key, held).await
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        self.inner.has_locks().await
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.inner.lock(key).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::DirectoryStore;
    use super::*;

    fn faulty() -> (tempfile::TempDir, Faulty) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned())));
        (folder, store)
    }

    #[tokio::test]
    async fn faults_hit_exactly_the_calls_they_name() {
        let (_folder, store) = faulty();
        store.plan(Call::Put, 2..=2, Effect::FailBefore(StoreErrorKind::Full));
        store.plan_below("tail/", Call::Put, 1..=1, Effect::FailAfter(StoreErrorKind::Unreachable));
        store.put_new("a", Bytes::new()).await.expect("the first put");
        assert_eq!(store.put_new("b", Bytes::new()).await.expect_err("the second").kind, StoreErrorKind::Full);
        let lost = store.put_new("tail/c", Bytes::new()).await.expect_err("its answer is lost");
        assert_eq!(lost.kind, StoreErrorKind::Unreachable);
        let keys: Vec<String> =
            store.list("", None, 10).await.expect("list").objects.into_iter().map(|meta| meta.key).collect();
        assert_eq!(keys, ["a", "tail/c"]);
        let put = |key: &str| (Call::Put, key.to_owned());
        assert_eq!(store.history(), [put("a"), put("b"), put("tail/c"), (Call::List, String::new())]);
    }

    #[tokio::test]
    async fn bodies_are_spoiled_on_their_way() {
        let (_folder, store) = faulty();
        store.plan(Call::Put, 2..=2, Effect::WrongBytes);
        store.plan(Call::Get, 1..=1, Effect::WrongBytes);
        store.plan(Call::Get, 2..=2, Effect::Truncated);
        store.plan(Call::GetRange, 1..=1, Effect::Truncated);
        store.put_new("a", Bytes::from_static(b"abcd")).await.expect("put");
        store.put_new("b", Bytes::from_static(b"abcd")).await.expect("put");
        assert_eq!(store.get("a").await.expect("get"), "abbd");
        assert_eq!(store.get("a").await.expect("get"), "ab");
        assert_eq!(store.get("a").await.expect("get"), "abcd");
        assert_eq!(store.get("b").await.expect("get"), "abbd");
        let range = store.get_range("a", 0..4).await.expect("range");
        assert_eq!((range.bytes, range.object_size), (Bytes::from_static(b"ab"), 4));
    }

    #[tokio::test]
    async fn an_outage_begins_and_ends_and_a_hung_call_never_returns() {
        let (_folder, store) = faulty();
        store.set_down(Some(StoreErrorKind::Throttled));
        assert_eq!(store.delete("a").await.expect_err("down").kind, StoreErrorKind::Throttled);
        store.set_down(None);
        store.delete("a").await.expect("up again");
        store.plan(Call::Delete, 1..=9, Effect::FailBefore(StoreErrorKind::Full));
        store.heal();
        store.delete("a").await.expect("nothing is planned any more");
        store.plan(Call::Put, 1..=1, Effect::Hang);
        let put = store.put_new("a", Bytes::new());
        tokio::time::timeout(Duration::from_millis(20), put).await.expect_err("it hangs");
        assert_eq!(store.get("a").await.expect_err("no effect").kind, StoreErrorKind::NotFound);
    }
}
