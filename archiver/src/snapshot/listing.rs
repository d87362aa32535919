//! Which tables the dump of a part holds. Only `pg_dump` knows how it reads patterns, so what it writes is asked: its beginning passes by
//! a `pg_restore` that lists it, and that is done before the first rows are there.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::process::{Child, ChildStdin, Command};
use walseal_common::postgres::DumpList;

use super::SnapshotError;
use super::dump::Programs;

/// Bytes between two programs that wait, as in a pipe of the system.
const PIPE: usize = 64 << 10;

const PROGRAM: &str = "pg_restore";

/// An archive that passes by.
pub(super) struct Passing<R> {
    from: R,
    to: DuplexStream,
    beside: Option<ChildStdin>,
}

/// A `pg_restore` that lists. Dropped, it is killed.
pub(super) struct Listing(io::Result<Child>);

/// Lets an archive pass by the `pg_restore` beside this `pg_dump`: gives what comes out, what moves it, and who tells what it holds.
pub(super) fn beside<R>(programs: &Programs, from: R) -> (DuplexStream, Passing<R>, Listing) {
    let mut command = Command::new(programs.dump.path.with_file_name(PROGRAM));
    command.arg("--list").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn();
    let (to, out) = tokio::io::duplex(PIPE);
    let beside = child.as_mut().ok().and_then(|child| child.stdin.take());
    (out, Passing { from, to, beside }, Listing(child))
}

impl<R: AsyncRead + Unpin> Passing<R> {
    /// Moves it to its end.
    ///
    /// Errors: it could not be read; nobody takes what comes out.
    pub(super) async fn pass(mut self) -> Result<(), SnapshotError> {
        let unread = |source| SnapshotError::Run { program: "pg_dump", source };
        let mut piece = vec![0; PIPE];
        loop {
            let read = self.from.read(&mut piece).await.map_err(unread)?;
            let bytes = piece.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            // It takes no more once it knows all of the list.
            if let Some(beside) = &mut self.beside
                && beside.write_all(bytes).await.is_err()
            {
                self.beside = None;
            }
            self.to.write_all(bytes).await.map_err(unread)?;
        }
    }
}

impl Listing {
    /// The tables whose rows are in the archive.
    ///
    /// Errors: it did not start; it is no archive.
    pub(super) async fn read(self) -> Result<DumpList, SnapshotError> {
        let output = self.0.map_err(failed)?.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(DumpList::read(&String::from_utf8_lossy(&output.stdout)));
        }
        Err(SnapshotError::Failed { program: PROGRAM, said: output.status.to_string() })
    }
}

fn failed(source: io::Error) -> SnapshotError {
    SnapshotError::Run { program: PROGRAM, source }
}
