//! What asks this program to end while it watches a server: the system, a person, or a terminal that is gone.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that are waited for; from when it is made on they do not end this program by themselves.
#[derive(Debug)]
pub(super) struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// SIGTERM, SIGINT, and SIGHUP unless whoever started this program wanted it to survive that (`nohup`).
    ///
    /// Errors: the system does not let them be waited for.
    pub(super) fn listen() -> io::Result<Interrupts> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
        if !is_ignored(&status, SignalKind::hangup()) {
            kinds.push(SignalKind::hangup());
        }
        kinds.into_iter().map(signal).collect::<io::Result<_>>().map(Interrupts)
    }

    /// Waits for the first of them.
    pub(super) async fn any(&mut self) {
        poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Whether a process with this `/proc/<pid>/status` ignores a signal: `SigIgn` is a mask in hexadecimal (`proc(5)`).
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let bit = u32::try_from(kind.as_raw_value() - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
    bit.is_some_and(|bit| mask & bit != 0)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_told_from_what_is_not_ignored() {
        let nohup = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(nohup, SignalKind::hangup()));
        assert!(!is_ignored(nohup, SignalKind::terminate()));
        assert!(!is_ignored("SigIgn:\t0000000000001000\n", SignalKind::hangup()));
        assert!(!is_ignored("", SignalKind::hangup()));
    }

    #[tokio::test]
    async fn a_terminal_that_is_gone_is_heard_of() {
        let mut interrupts = Interrupts::listen().expect("they can be waited for");
        if interrupts.0.len() < 3 {
            return; // These tests run below nohup.
        }
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("ourselves");
        interrupts.any().await;
    }
}
