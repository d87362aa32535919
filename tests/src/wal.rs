//! What WAL says, as `pg_waldump` and `pg_receivewal` read it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::process::Signal;

use walseal_common::lsn::Lsn;

use crate::cluster::Cluster;
use crate::deadline::PATIENCE;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::Server;

/// The end of a transaction in WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The transaction, without the epoch. Of a prepared one, its own and not its finisher's.
    pub xid: u32,
    /// Where the record starts.
    pub lsn: Lsn,
    /// The time in it.
    pub time: Timestamp,
    /// Whether it was committed, and not rolled back.
    pub committed: bool,
}

/// Every end of a transaction from `start` on, in LSN order, in the segments of `folder`.
///
/// `start` must be the start of a record or lie between two; without `end`, reading goes on to the end of WAL.
pub fn transaction_ends(
    scratch: &Scratch,
    server: &Server,
    folder: &Path,
    timeline: u32,
    start: Lsn,
    end: Option<Lsn>,
) -> Result<Vec<TransactionEnd>> {
    let call = scratch.call(server.program("pg_waldump")).env("TZ", "UTC").arg("-p").arg(folder);
    let mut call = call.args(["-r", "Transaction", "-t", &timeline.to_string(), "-s", &start.to_string()]);
    if let Some(end) = end {
        call = call.args(["-e", &end.to_string()]);
    }
    let dump = call.run()?;
    // Without an end it stops at the first record that is not there yet and says so.
    if dump.code != Some(0) && (end.is_some() || !dump.stderr.contains("error in WAL record at")) {
        bail!("{dump}");
    }
    let ends: Result<Vec<Option<TransactionEnd>>> = dump.stdout.lines().map(transaction_end).collect();
    Ok(ends?.into_iter().flatten().collect())
}

/// The transactions that a restore to `time` holds, by PostgreSQL's rule: every commit before the first
/// commit or abort, in LSN order, with a later time (`xlogrecovery.c`, `recoveryStopsBefore`).
pub fn committed_by(ends: &[TransactionEnd], time: Timestamp) -> BTreeSet<u32> {
    ends.iter().take_while(|end| end.time <= time).filter(|end| end.committed).map(|end| end.xid).collect()
}

/// The end of a transaction in a line of `pg_waldump`; none in other lines.
///
/// For example `rmgr: Transaction len (rec/tot): 34/34, tx: 733, lsn: 0/01500028, prev 0/01500000, desc: COMMIT
/// 2026-11-21 06:50:01.123456 UTC; …`, and for prepared ones `desc: COMMIT_PREPARED 733: 2026-…`.
fn transaction_end(line: &str) -> Result<Option<TransactionEnd>> {
    let unreadable = || format!("a line of pg_waldump: {line}");
    let Some((head, description)) = line.split_once("desc: ") else { return Ok(None) };
    let Some((kind, rest)) = description.split_once(' ') else { return Ok(None) };
    let (committed, prepared) = match kind {
        "COMMIT" => (true, false),
        "ABORT" => (false, false),
        "COMMIT_PREPARED" => (true, true),
        "ABORT_PREPARED" => (false, true),
        _ => return Ok(None),
    };
    let field = |name: &str| {
        let value = head.split_once(name).map(|(_, after)| after.trim_start());
        value.and_then(|after| after.split(',').next()).with_context(unreadable)
    };
    let (xid, time) = if prepared { rest.split_once(": ").with_context(unreadable)? } else { (field("tx:")?, rest) };
    let time = time.split(" UTC").next().with_context(unreadable)?;
    Ok(Some(TransactionEnd {
        xid: xid.trim().parse().with_context(unreadable)?,
        lsn: field("lsn:")?.parse().with_context(unreadable)?,
        time: format!("{time}Z").parse().with_context(unreadable)?,
        committed,
    }))
}

/// A `pg_receivewal` that follows a cluster on a slot of its own.
#[derive(Debug)]
pub struct ReceiveWal {
    process: Process,
    folder: PathBuf,
}

impl ReceiveWal {
    /// Makes the slot `oracle` and starts receiving into a folder of the test.
    pub fn start(cluster: &Cluster) -> Result<ReceiveWal> {
        let folder = cluster.scratch().dir("received")?;
        let call = || cluster.client("pg_receivewal").args(["-D"]).arg(&folder).args(["--slot", "oracle", "-d"]);
        call().arg(cluster.conninfo()).args(["--create-slot", "--if-not-exists"]).run()?.success()?;
        let process = call().arg(cluster.conninfo()).args(["--no-loop", "--synchronous"]).spawn()?;
        Ok(ReceiveWal { process, folder })
    }

    /// Waits until everything before `lsn` is flushed to its folder.
    pub fn reaches(&self, cluster: &Cluster, lsn: Lsn) -> Result<()> {
        let session = cluster.session()?;
        let sql = format!(
            "select coalesce(bool_or(flush_lsn >= '{lsn}'), false) from pg_stat_replication \
             where application_name = 'pg_receivewal'"
        );
        crate::deadline::eventually(&format!("pg_receivewal to reach {lsn}"), PATIENCE, || {
            Ok((session.value(&sql)? == "t").then_some(()))
        })
    }

    /// Where its segments lie; the last one ends in `.partial`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops it.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        self.process.ends(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_transactions_are_read_as_pg_waldump_prints_them() -> Result<()> {
        let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        733, lsn: 0/01500028, prev 0/01500000, \
                    desc: COMMIT 2026-11-21 06:50:01.123456 UTC; inval msgs: catcache 54";
        let end = transaction_end(line)?.context("a commit")?;
        assert_eq!((end.xid, end.lsn, end.committed), (733, Lsn(0x0150_0028), true));
        assert_eq!(end.time.to_string(), "2026-11-21T06:50:01.123456Z");
        let prepared = transaction_end(&line.replace("COMMIT ", "ABORT_PREPARED 700: "))?.context("an abort")?;
        assert_eq!((prepared.xid, prepared.committed), (700, false));
        assert_eq!(transaction_end(&line.replace("COMMIT", "ASSIGNMENT"))?, None);
        Ok(())
    }

    #[test]
    fn a_time_ends_at_the_first_later_end_of_any_transaction() -> Result<()> {
        let end = |xid, second: i64, committed| -> Result<TransactionEnd> {
            Ok(TransactionEnd { xid, lsn: Lsn(u64::from(xid)), time: Timestamp::from_second(second)?, committed })
        };
        let ends = [end(1, 10, true)?, end(2, 12, true)?, end(3, 14, false)?, end(4, 11, true)?];
        let at = |second| -> Result<BTreeSet<u32>> { Ok(committed_by(&ends, Timestamp::from_second(second)?)) };
        assert_eq!(at(12)?, BTreeSet::from([1, 2]), "the abort at 14 stops recovery before the commit at 11");
        assert_eq!(at(14)?, BTreeSet::from([1, 2, 4]));
        assert_eq!(at(9)?, BTreeSet::new());
        Ok(())
    }
}
