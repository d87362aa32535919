//! The hook's side.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;

use super::message::{Answer, LONGEST_LINE, PULSE, Request};
use super::{Fingerprint, Premises};
use crate::fetch::Reply;

/// How long a prefetcher may be silent before the hook does without it.
const SILENCE: Duration = PULSE.saturating_mul(5);

/// Why there is no reply. None of it says anything about the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoReply {
    /// Nobody is there.
    Nobody,
    /// It was started with something else than is configured now, and ends.
    Stale,
    /// It broke off, or is not to be trusted: a statement.
    Broken(String),
}

impl std::fmt::Display for NoReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoReply::Nobody => write!(f, "nobody answers"),
            NoReply::Stale => write!(f, "it was started with another configuration"),
            NoReply::Broken(why) => write!(f, "{why}"),
        }
    }
}

/// Asks whoever serves at `premises` for `file`, and renames it to `target` where it is ready. `fingerprint` is what this process
/// would answer from itself; `None` where it could not.
///
/// Waits as long as the other side says that it is at it, and for 5 s when it falls silent.
pub fn ask(
    premises: &Premises,
    file: &str,
    fingerprint: Option<&Fingerprint>,
    target: &Path,
) -> Result<Reply, NoReply> {
    let broken = |what: &str, error: std::io::Error| NoReply::Broken(format!("{what}: {error}"));
    let stream = match UnixStream::connect(premises.socket()) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Err(NoReply::Nobody);
        }
        Err(error) => return Err(broken("connect", error)),
    };
    let peer = socket_peercred(&stream).map_err(|error| broken("ask who is there", error.into()))?.uid;
    if !peer.is_root() && peer != rustix::process::geteuid() {
        return Err(NoReply::Broken(format!("user {} is there, who is not trusted with WAL", peer.as_raw())));
    }
    let limits = stream.set_read_timeout(Some(SILENCE)).and_then(|()| stream.set_write_timeout(Some(SILENCE)));
    limits.map_err(|error| broken("set a limit", error))?;
    let request = Request { file: file.to_owned(), fingerprint: fingerprint.map(|own| own.to_string()) };
    let mut line = serde_json::to_vec(&request).map_err(|error| broken("ask", error.into()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(|error| broken("ask", error))?;
    let mut read = BufReader::new(&stream);
    loop {
        let mut line = String::new();
        let length = (&mut read).take(LONGEST_LINE).read_line(&mut line).map_err(|error| broken("hear", error))?;
        if length == 0 || !line.ends_with('\n') {
            return Err(NoReply::Broken("it broke off".to_owned()));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Working) => {}
            Ok(Answer::Ready { path, size }) => return take(&path, size, target),
            Ok(Answer::NotThere { why }) => return Ok(Reply::NotThere(why)),
            Ok(Answer::StandbyWaits { why }) => return Ok(Reply::StandbyWaits(why)),
            Ok(Answer::Failed { why }) => return Ok(Reply::Failed(why)),
            Ok(Answer::Stale) => return Err(NoReply::Stale),
            Err(error) => return Err(NoReply::Broken(format!("it says what nobody understands: {error}"))),
        }
    }
}

/// Gives the file its place (case 3: never one of another length).
fn take(path: &Path, size: u64, target: &Path) -> Result<Reply, NoReply> {
    let found = std::fs::symlink_metadata(path)
        .map_err(|error| NoReply::Broken(format!("look at {}: {error}", path.display())))?;
    if !found.is_file() || found.len() != size {
        return Err(NoReply::Broken(format!("{} is not the file of {size} bytes that was promised", path.display())));
    }
    match std::fs::rename(path, target) {
        Ok(()) => Ok(Reply::Delivered),
        Err(error) => Err(NoReply::Broken(format!("rename {} to {}: {error}", path.display(), target.display()))),
    }
}
