//! The fault ring: proxies before the store and before the server that count messages, and let something go wrong at the n-th.
//!
//! Programs know nothing of it. [`Ring`] decides, [`http`] and [`wire`] stand in the way.

pub mod http;
pub mod wire;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::{PATIENCE, eventually};

/// What goes wrong with a message. What is said of a request to the store holds for any message of the server's protocol, in either
/// direction, as well, unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The watched process is killed with SIGKILL, and the message does not pass.
    KillBefore,
    /// It takes effect, then the watched process is killed, and no answer passes.
    KillAfter,
    /// The connection is closed, and the message does not pass.
    Reset,
    /// It takes effect, and the connection is closed before the answer.
    LoseAnswer,
    /// It waits for so long, then it passes.
    Stall(Duration),
    /// From it on, for so long, nothing passes: each connection is closed with its first message.
    Away(Duration),
    /// Half of it passes, then the connection is closed. A request to the store.
    TruncateRequest,
    /// Half of the answer passes, then the connection is closed.
    TruncateAnswer,
    /// The store answers with this status, and the request does not pass. Only of the store.
    Refuse(u16),
    /// The store says that all is well, and the request does not pass. Only of the store.
    Lie,
}

impl Fault {
    /// Whether the watched process does not survive it.
    pub const fn kills(self) -> bool {
        matches!(self, Fault::KillBefore | Fault::KillAfter)
    }

    /// For how long nothing need be expected to go on.
    pub const fn lasts(self) -> Duration {
        match self {
            Fault::Stall(time) | Fault::Away(time) => time,
            _ => Duration::ZERO,
        }
    }
}

/// Counts the messages that pass, and says which of them meet a fault.
#[derive(Debug, Default)]
pub struct Ring {
    seen: AtomicU64,
    plan: Mutex<Option<(u64, Fault)>>,
    /// Until when nothing passes.
    away: Mutex<Option<Instant>>,
    met: AtomicBool,
    /// The process that a fault kills; 0 as long as there is none.
    watched: AtomicI32,
    gone: AtomicBool,
}

impl Ring {
    /// From now on messages are counted anew, and the `number`-th one, from 1 on, meets `fault`.
    pub fn plan(&self, number: u64, fault: Fault) {
        let mut plan = self.locked();
        self.watched.store(0, Ordering::SeqCst);
        self.met.store(false, Ordering::SeqCst);
        self.seen.store(0, Ordering::SeqCst);
        *plan = Some((number, fault));
    }

    /// From now on no message meets a fault. Who is away stays so for as long as was planned.
    pub fn clear(&self) {
        *self.locked() = None;
    }

    /// The process that faults kill.
    pub fn watch(&self, pid: i32) {
        self.watched.store(pid, Ordering::SeqCst);
    }

    /// Whether a message has met the fault.
    pub fn is_met(&self) -> bool {
        self.met.load(Ordering::SeqCst)
    }

    /// How many messages there were since the plan.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Ends the proxies.
    pub fn end(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<(u64, Fault)>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more message. What it meets; one that does not count meets nothing, unless nothing passes.
    fn next(&self, counts: bool) -> Option<Fault> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_some_and(|until| Instant::now() < until) {
            return Some(Fault::Reset);
        }
        if !counts {
            return None;
        }
        let mut plan = self.locked();
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        let (_, fault) = plan.take_if(|(planned, _)| *planned == number)?;
        self.met.store(true, Ordering::SeqCst);
        if let Fault::Away(time) = fault {
            *away = Some(Instant::now() + time);
        }
        Some(fault)
    }

    /// Kills the watched process, once its starter has said which it is.
    fn kill(&self) -> Result<()> {
        let pid =
            eventually("somebody to be killed", PATIENCE, || Ok(Pid::from_raw(self.watched.load(Ordering::SeqCst))))?;
        kill_process(pid, Signal::KILL).context("killing the watched process")
    }
}
