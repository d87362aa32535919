//! The store: what it does when it is asked to.

use std::time::{Duration, Instant};

use walseal_common::store::{ObjectStore, Probed, StoreErrorKind, probe_all};
use walseal_common::terminal::units;

use super::{Examination, Finding};

/// Clocks that differ by more than this make S3 refuse signatures soon (it allows 15 min), and certificates look strange.
const CLOCK_LIMIT: Duration = Duration::from_secs(60);

/// Puts, reads, lists, tries to overwrite and deletes a small object. `place` is the store for a person.
pub(super) async fn examine(store: &dyn ObjectStore, place: &str, examination: &mut Examination<'_>) -> Option<Probed> {
    let mut random = [0; 8];
    if let Err(error) = getrandom::fill(&mut random) {
        examination.add(Finding::not_checked("store", format!("no random name could be drawn: {error}")));
        return None;
    }
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let begun = Instant::now();
    match probe_all(store, &id).await {
        Ok(probed) => {
            examination.add(judge(&probed, place, begun.elapsed()));
            examination.add(clock(probed.clock_ahead));
            Some(probed)
        }
        Err(error) => {
            let failed = Finding::failed("store", &error);
            examination.add(match error.kind {
                StoreErrorKind::Unreachable | StoreErrorKind::Throttled => failed.fix(format!("look at {place}")),
                StoreErrorKind::NotFound | StoreErrorKind::Protocol => {
                    failed.fix("take another store: walseal needs one that lists, puts and gets as S3 does")
                }
                // What to do stands in the reason already.
                StoreErrorKind::Denied | StoreErrorKind::NoSuchStore | StoreErrorKind::Full => failed,
            });
            None
        }
    }
}

fn judge(probed: &Probed, place: &str, took: Duration) -> Finding {
    let delete =
        if probed.capabilities.delete { "delete works, too" } else { "delete is not allowed (prune runs elsewhere)" };
    let text = format!("{place}: put, get and list work, in {}; {delete}", units::duration(took));
    if probed.capabilities.conditional_put {
        return Finding::fine("store", format!("{text}; it refuses to overwrite"));
    }
    Finding::warning("store", format!("{text}; it does NOT refuse to overwrite, and walseal looks before each put"))
        .fix("run one archiver only: two at the same moment could race")
}

fn clock(ahead: Option<f64>) -> Finding {
    const CHECK: &str = "clock";
    let Some(ahead) = ahead else {
        return Finding::fine(CHECK, "the store does not tell its time; no decision rests on it");
    };
    let apart = Duration::try_from_secs_f64(ahead.abs()).unwrap_or(Duration::MAX);
    if apart < Duration::from_secs(1) {
        return Finding::fine(CHECK, "agrees with the store's to the second");
    }
    let text = format!(
        "the store's clock is {} {} this host's",
        units::duration(apart),
        if ahead > 0.0 { "ahead of" } else { "behind" }
    );
    if apart > CLOCK_LIMIT {
        return Finding::warning(CHECK, text).fix("set this host's clock (timedatectl set-ntp true), or the store's");
    }
    Finding::fine(CHECK, text)
}
