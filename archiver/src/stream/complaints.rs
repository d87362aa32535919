//! What was said in the log, so that trouble that lasts is said once and not at each attempt.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::StreamError;
use super::error::Gist;

/// After this time the same is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Trouble by its gist, with when it was last said.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<Gist, Instant>);

impl Complaints {
    /// Whether this is to be said: it was not, or so long ago that whoever looks at the log today has not seen it.
    pub(super) fn is_news(&mut self, error: &StreamError) -> bool {
        self.is_news_at(error, Instant::now())
    }

    fn is_news_at(&mut self, error: &StreamError, now: Instant) -> bool {
        self.0.retain(|_, said| now.duration_since(*said) < AGAIN_AFTER);
        // The first time stands: said again only after a while since then.
        let first = *self.0.entry(error.gist()).or_insert(now);
        first == now
    }

    /// The stream has moved on: what comes now is new trouble. A store that takes one object in a minute and refuses the
    /// others is still the same.
    pub(super) fn forget(&mut self) {
        self.0.retain(|gist, _| matches!(gist, Gist::Store(_)));
    }
}

#[cfg(test)]
mod tests {
    use walseal_common::postgres::PostgresError;
    use walseal_common::repository::RepositoryError;
    use walseal_common::store::{StoreError, StoreErrorKind};

    use super::*;
    use crate::shipment::ShipError;

    fn of_store(kind: StoreErrorKind, key: &str, attempts: u32) -> StreamError {
        let error = StoreError {
            kind,
            operation: "put",
            key: key.to_owned(),
            store: "s3://bucket/orders".to_owned(),
            reason: format!("full ({attempts} attempts in 59.1 s)"),
        };
        StreamError::Ship(ShipError::Repository(RepositoryError::Store(error)))
    }

    #[test]
    fn the_same_trouble_is_said_once_whatever_object_it_meets() {
        let mut complaints = Complaints::default();
        let mut now = Instant::now();
        let stalled = || StreamError::Stalled(Duration::from_secs(5));
        let unstored = |key| StreamError::Unstored {
            ended: Box::new(stalled()),
            why: Box::new(of_store(StoreErrorKind::Full, key, 17)),
        };
        assert!(complaints.is_news_at(&stalled(), now));
        assert!(complaints.is_news_at(&unstored("tail/1"), now));
        for attempt in 0..20 {
            now += Duration::from_secs(20);
            assert!(!complaints.is_news_at(&stalled(), now), "{attempt}");
            assert!(!complaints.is_news_at(&unstored("wal/2"), now), "{attempt}");
            assert!(!complaints.is_news_at(&of_store(StoreErrorKind::Full, "wal/3", attempt), now), "{attempt}");
            // Now and then it takes a small one.
            complaints.forget();
        }
        assert!(complaints.is_news_at(&of_store(StoreErrorKind::Denied, "wal/3", 1), now), "another reason");
        // Who looks the next day finds it in that day's log.
        now += Duration::from_secs(601);
        assert!(complaints.is_news_at(&unstored("wal/9"), now));
    }

    #[test]
    fn a_server_that_goes_away_again_after_the_stream_had_moved_on_is_news() {
        let gone = || StreamError::Postgres(PostgresError::Argument("no".to_owned()));
        let mut complaints = Complaints::default();
        assert!(complaints.is_news(&gone()));
        assert!(!complaints.is_news(&gone()));
        complaints.forget();
        assert!(complaints.is_news(&gone()));
    }
}
