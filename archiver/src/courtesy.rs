//! The database goes first.

use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// A niceness of 0, where the library maps 0 to 99 to 19 to -20.
const NICENESS_0: u8 = 47;

/// Makes this thread, and all that it starts from here on, ones that never take a core from a thread that runs when they wake
/// up (`SCHED_BATCH`, sched(7)). Beside a server that sends 8 KiB after 8 KiB, an eager reader would interrupt it for each of
/// them: both pay for the change, a hundred thousand times in a backup of 5 GB. Their share of the cores stays as it is.
///
/// Where the system does not allow it, or whoever started the process has chosen a niceness for it, all stays as it was.
pub fn let_the_server_go_first() {
    // What sets the policy sets the niceness as well, and only to raise it is allowed to everybody.
    if getpriority_process(None).ok() != Some(0) {
        return;
    }
    let Ok(zero) = ThreadPriorityValue::try_from(NICENESS_0) else { return };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(zero), policy)
    {
        tracing::debug!(?error, "the system does not let this process wait for its turn");
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    /// The scheduling policy of this thread, as proc(5) has it: field 41.
    fn policy() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("there is one");
        let behind = stat.rsplit_once(')').expect("a name").1;
        behind.split_whitespace().nth(38).expect("a field").parse().expect("a number")
    }

    #[test]
    fn threads_that_are_started_later_wait_for_their_turn_and_keep_their_share() {
        let told = std::thread::spawn(|| {
            let_the_server_go_first();
            std::thread::spawn(|| (policy(), getpriority_process(None).ok())).join().expect("no panic")
        });
        // 3 is SCHED_BATCH (sched.h).
        assert_eq!(told.join().expect("no panic"), (3, Some(0)));
        assert_eq!(policy(), 0);
    }
}
