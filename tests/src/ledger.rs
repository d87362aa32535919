//! What clients saw committed, kept outside of any server: the other side of every promise.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};

use walseal_common::lsn::Lsn;

use crate::cluster::Cluster;
use crate::deadline::eventually;
use crate::session::Session;

/// A commit that a client saw acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The row that it inserted.
    pub id: i64,
    /// Its record ends beyond this.
    pub before: Lsn,
    /// Its record ends at or before this; `None` where the server was gone before it could be asked.
    pub after: Option<Lsn>,
}

/// Writers that insert a row per commit into the table `ledger`, each with a connection of its own, which they make anew when it
/// breaks. What was acknowledged is noted at once.
///
/// Dropping it stops them.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Between two commits of a writer.
    rest: Duration,
    stop: AtomicBool,
    next: AtomicI64,
    /// How one connects; another server's after a failover.
    conninfo: Mutex<String>,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// Makes the table and starts that many writers, each of which rests for so long after a commit.
    pub fn start(cluster: &Cluster, writers: usize, rest: Duration) -> Result<Ledger> {
        cluster.sql("create table ledger (id bigint primary key, said text)")?;
        let shared = Arc::new(Shared { rest, ..Shared::default() });
        *locked(&shared.conninfo) = cluster.conninfo();
        let writers = (0..writers).map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || write(&shared))
        });
        Ok(Ledger { writers: writers.collect(), shared })
    }

    /// From now on they write to this server.
    pub fn follow(&self, cluster: &Cluster) {
        *locked(&self.shared.conninfo) = cluster.conninfo();
    }

    /// What has been acknowledged until now, in the order in which it was.
    pub fn entries(&self) -> Vec<Entry> {
        locked(&self.shared.entries).clone()
    }

    /// Waits for that many more acknowledged commits than there are now.
    ///
    /// Errors: not `within` that time.
    pub fn goes_on(&self, more: usize, within: Duration) -> Result<()> {
        let wanted = locked(&self.shared.entries).len() + more;
        eventually(&format!("{wanted} commits"), within, || {
            Ok((locked(&self.shared.entries).len() >= wanted).then_some(()))
        })
    }

    /// Stops the writers, whose server answers or is gone, and returns what was acknowledged.
    ///
    /// Errors: a writer panicked.
    pub fn stop(mut self) -> Result<Vec<Entry>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            if writer.join().is_err() {
                bail!("a writer panicked");
            }
        }
        Ok(self.entries())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// The ids of the rows that a cluster holds.
pub fn rows(cluster: &Cluster) -> Result<BTreeSet<i64>> {
    let rows = cluster.sql("select id from ledger")?;
    rows.into_iter().map(|row| Ok(row.into_iter().next().flatten().unwrap_or_default().parse()?)).collect()
}

fn write(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let conninfo = locked(&shared.conninfo).clone();
        // A server that is away takes no connection, and a commit on one that breaks counts as none: no client was told.
        let broken = Session::connect(&conninfo).and_then(|session| commit(shared, &session, &conninfo));
        if broken.is_err() {
            // Only the rate of trying.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Commits until the connection breaks, or another server is to be written to.
fn commit(shared: &Shared, session: &Session, conninfo: &str) -> Result<()> {
    const POSITION: &str = "select pg_current_wal_insert_lsn()";
    let mut before: Lsn = session.value(POSITION)?.parse()?;
    while !shared.stop.load(Ordering::Relaxed) && *locked(&shared.conninfo) == conninfo {
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        session.rows(&format!("insert into ledger values ({id}, md5('{id}') || md5('-{id}'))"))?;
        let at = {
            let mut entries = locked(&shared.entries);
            entries.push(Entry { id, before, after: None });
            entries.len() - 1
        };
        before = session.value(POSITION)?.parse()?;
        if let Some(entry) = locked(&shared.entries).get_mut(at) {
            entry.after = Some(before);
        }
        // The load that was asked for.
        std::thread::sleep(shared.rest);
    }
    Ok(())
}

/// The lock's content, also after a writer panicked: what was noted was acknowledged.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
