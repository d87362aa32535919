//! The database goes first.

use std::io;
use std::sync::LazyLock;

use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, spawn_blocking};

/// Nicenesses of 0 and of 10, where the library maps 0 to 99 to 19 to -20.
const NICENESS_0: u8 = 47;
const NICENESS_10: u8 = 22;

/// Most threads in the background: more than all base backups and snapshots of a process use at once.
const BACKGROUND_THREADS: usize = 8;

/// Threads that give way. A thread may raise its niceness and not lower it again, so that it must not be one of those that others
/// use as well.
static BACKGROUND: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .thread_name("background")
        .max_blocking_threads(BACKGROUND_THREADS)
        .on_thread_start(|| be(NICENESS_10))
        .build()
});

/// Makes this thread, and all that it starts from here on, ones that never take a core from a thread that runs when they wake
/// up (`SCHED_BATCH`, sched(7)). Beside a server that sends 8 KiB after 8 KiB, an eager reader would interrupt it for each of
/// them: both pay for the change, a hundred thousand times in a backup of 5 GB. Their share of the cores stays as it is.
///
/// Where the system does not allow it, or whoever started the process has chosen a niceness for it, all stays as it was.
pub fn let_the_server_go_first() {
    be(NICENESS_0);
}

/// Runs `work`, which takes a core and may wait for one, on a thread of niceness 10: where the cores are not enough for all,
/// the server gets nine times as much, and so does whoever reads what it sends, so that the next work is there when this is done.
///
/// Where the system does not allow it, or whoever started the process has chosen a niceness for it, it is a thread like others.
///
/// Errors: the work panicked.
pub fn in_the_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match BACKGROUND.as_ref() {
        Ok(threads) => threads.spawn_blocking(work),
        Err(error) => {
            tracing::debug!(%error, "there are no threads in the background");
            spawn_blocking(work)
        }
    }
}

/// Sets the policy of this thread, and its niceness, which only to raise everybody is allowed.
fn be(niceness: u8) {
    if getpriority_process(None).ok() != Some(0) {
        return;
    }
    let Ok(value) = ThreadPriorityValue::try_from(niceness) else { return };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy);
    if let Err(error) = set {
        tracing::debug!(?error, "the system does not let this thread wait for its turn");
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    /// The scheduling policy of this thread, as proc(5) has it: field 41; and its niceness. 3 is `SCHED_BATCH` (sched.h).
    fn standing() -> (u32, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("there is one");
        let behind = stat.rsplit_once(')').expect("a name").1;
        let policy = behind.split_whitespace().nth(38).expect("a field").parse().expect("a number");
        (policy, getpriority_process(None).expect("everybody may ask"))
    }

    #[test]
    fn threads_that_are_started_later_wait_for_their_turn_and_keep_their_share() {
        let told = std::thread::spawn(|| {
            let_the_server_go_first();
            std::thread::spawn(standing).join().expect("no panic")
        });
        assert_eq!(told.join().expect("no panic"), (3, 0));
        assert_eq!(standing(), (0, 0));
    }

    #[tokio::test]
    async fn work_in_the_background_gives_way_and_nothing_else_does() {
        assert_eq!(in_the_background(standing).await.expect("no panic"), (3, 10));
        assert_eq!(tokio::task::spawn_blocking(standing).await.expect("no panic"), (0, 0));
        assert_eq!(standing(), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_in_the_background_reaches_whoever_waits_and_the_next_work_is_done() {
        let failed = in_the_background(|| std::panic::resume_unwind(Box::new("on purpose"))).await;
        assert!(failed.expect_err("it panicked").is_panic());
        assert_eq!(in_the_background(|| 7).await.expect("no panic"), 7);
    }
}
