//! Load that remembers what it committed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use walseal_common::lsn::Lsn;

use crate::cluster::Cluster;
use crate::deadline::eventually;
use crate::session::Session;

/// Text that stands in every row of the workload: none of it may appear in a repository.
pub const NEEDLE: &str = "correct horse battery staple, said the archivist";

/// One commit that the server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The row it inserted.
    pub id: i64,
    /// Its transaction, with the epoch.
    pub xid: u64,
    /// Its commit time as the server recorded it, in microseconds.
    pub time: Timestamp,
    /// The insert position just after the commit returned: its record ends at or before this.
    pub after: Lsn,
}

/// Connections that insert a row per commit into the table `commits`, until they are stopped.
///
/// Dropping it stops them.
#[derive(Debug)]
pub struct Workload {
    stop: Arc<AtomicBool>,
    commits: Arc<Mutex<Vec<Commit>>>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl Workload {
    /// Makes the table, unless it is there, and starts that many writers, each with a connection of its own.
    ///
    /// Errors: the cluster does not keep commit times (`track_commit_timestamp`), or takes no connection.
    pub fn start(cluster: &Cluster, writers: usize) -> Result<Workload> {
        let session = cluster.session()?;
        if session.value("show track_commit_timestamp")? != "on" {
            bail!("the workload needs track_commit_timestamp = on");
        }
        session.rows("create table if not exists commits (id bigserial primary key, xid bigint, said text)")?;
        let stop = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(Mutex::new(Vec::new()));
        let mut running = Vec::new();
        for _ in 0..writers {
            let (session, stop, commits) = (cluster.session()?, stop.clone(), commits.clone());
            running.push(std::thread::spawn(move || write(&session, &stop, &commits)));
        }
        Ok(Workload { stop, commits, writers: running })
    }

    /// What has been acknowledged until now, in the order in which it was.
    pub fn commits(&self) -> Vec<Commit> {
        locked(&self.commits).clone()
    }

    /// Waits until that many commits have been acknowledged.
    ///
    /// Errors: not `within` that time, or all writers have ended.
    pub fn reaches(&self, count: usize, within: Duration) -> Result<()> {
        eventually(&format!("{count} commits"), within, || {
            let reached = locked(&self.commits).len() >= count;
            if !reached && self.writers.iter().all(JoinHandle::is_finished) {
                bail!("the writers have ended after {} commits", locked(&self.commits).len());
            }
            Ok(reached.then_some(()))
        })
    }

    /// Waits for that many more commits than there are now.
    pub fn goes_on(&self, more: usize, within: Duration) -> Result<()> {
        // A statement of its own: the list must not stay locked while the writers are waited for.
        let now = locked(&self.commits).len();
        self.reaches(now + more, within)
    }

    /// Stops the writers and returns what was acknowledged.
    ///
    /// Errors: a writer had failed.
    pub fn stop(mut self) -> Result<Vec<Commit>> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(self.commits())
    }

    /// Waits for the writers of a server that was taken away, and returns what was acknowledged.
    ///
    /// Errors: a writer ended without a failure, so that the server was not gone.
    pub fn cut_off(mut self) -> Result<Vec<Commit>> {
        for writer in self.writers.drain(..) {
            if writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?.is_ok() {
                bail!("a writer ended well although its server should be gone");
            }
        }
        Ok(self.commits())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The ids of the rows that a cluster holds.
pub fn rows(cluster: &Cluster) -> Result<BTreeSet<i64>> {
    let rows = cluster.sql("select id from commits order by id")?;
    rows.into_iter().map(|row| number(&row, 0)).collect()
}

/// One writer: a commit, then where and when the server says it happened.
fn write(session: &Session, stop: &AtomicBool, commits: &Mutex<Vec<Commit>>) -> Result<()> {
    let insert = format!(
        "insert into commits (xid, said) values (pg_current_xact_id()::text::bigint, '{NEEDLE} ' || clock_timestamp()) \
         returning id, xid"
    );
    while !stop.load(Ordering::Relaxed) {
        let row = session.rows(&insert)?.into_iter().next().context("an insert returned no row")?;
        let (id, xid) = (number(&row, 0)?, number(&row, 1)?.cast_unsigned());
        // xid8 does not cast to xid; the low 32 bits are what the server looks up.
        let low = xid & 0xFFFF_FFFF;
        let where_and_when = format!("select pg_current_wal_insert_lsn(), pg_xact_commit_timestamp('{low}'::xid)");
        let row = session.rows(&where_and_when)?.into_iter().next().context("a select returned no row")?;
        let text = |column: usize| row.get(column).and_then(Option::as_deref).context("a null where none can be");
        let commit = Commit { id, xid, time: text(1)?.parse()?, after: text(0)?.parse()? };
        locked(commits).push(commit);
    }
    Ok(())
}

fn number(row: &[Option<String>], column: usize) -> Result<i64> {
    let text = row.get(column).and_then(Option::as_deref).context("a null where none can be")?;
    text.parse().with_context(|| format!("{text} is no number"))
}

/// The list, also after a writer panicked: every commit in it was acknowledged.
fn locked(commits: &Mutex<Vec<Commit>>) -> MutexGuard<'_, Vec<Commit>> {
    commits.lock().unwrap_or_else(PoisonError::into_inner)
}
