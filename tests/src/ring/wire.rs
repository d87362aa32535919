//! A proxy before a PostgreSQL server's Unix socket, a message at a time, in both directions.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{Fault, Ring};

/// Listens in `folder`, as a server with port 5432 does, and passes messages on to the server whose socket is `upstream`, and
/// back, as `ring` lets them.
pub fn before(upstream: PathBuf, folder: &Path, ring: &Arc<Ring>) -> Result<()> {
    let socket = folder.join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&socket).with_context(|| format!("listening at {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))
        .with_context(|| format!("opening {} to all", socket.display()))?;
    let ring = ring.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            if ring.is_gone() {
                break;
            }
            // A client that left before it was let in is none; one whose server is gone hears that at once.
            let Ok(client) = client else { continue };
            let Ok(server) = UnixStream::connect(&upstream) else { continue };
            let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
            for (from, to, begins_untyped) in [(client_too, server_too, true), (server, client, false)] {
                let ring = ring.clone();
                std::thread::spawn(move || {
                    // Whoever is cut off hears it from the closed connection.
                    let _ = pass(&from, &to, begins_untyped, &ring);
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    Ok(())
}

/// One message with its length; the first one of a client has no type.
fn message(mut from: &UnixStream, untyped: bool) -> Result<Vec<u8>> {
    let start = usize::from(!untyped);
    let mut message = vec![0; start + 4];
    from.read_exact(&mut message)?;
    let mut length = [0; 4];
    length.copy_from_slice(&message[start..]);
    let Some(rest) = u32::from_be_bytes(length).checked_sub(4) else { bail!("a message is shorter than its length") };
    from.take(u64::from(rest)).read_to_end(&mut message)?;
    Ok(message)
}

/// Messages of which each in a row is like the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// Pieces of a base backup's archives, thousands of them.
    Archive,
    /// Pieces of WAL, one for each commit of the load.
    Wal,
    /// What the archiver says of each of them.
    Status,
    /// Rows of an answer: the names of a base backup's relations are hundreds of them.
    Row,
}

impl Alike {
    /// DataRow (a client's Describe has the same letter, and never comes twice in a row), and CopyData by its first byte: chapters
    /// "Message Formats" and "Streaming Replication Protocol" of PostgreSQL's documentation; archives from version 15 on.
    fn of(message: &[u8]) -> Option<Alike> {
        match message {
            [b'd', _, _, _, _, b'd', ..] => Some(Alike::Archive),
            [b'd', _, _, _, _, b'w', ..] => Some(Alike::Wal),
            [b'd', _, _, _, _, b'r', ..] => Some(Alike::Status),
            [b'D', ..] => Some(Alike::Row),
            _ => None,
        }
    }

    /// So many of a row count as messages, and then each so-many-th.
    fn counted(self) -> (u32, u32) {
        match self {
            Alike::Archive => (4, 64),
            Alike::Wal | Alike::Status | Alike::Row => (16, 16),
        }
    }
}

/// Passes messages one way until either side ends.
fn pass(from: &UnixStream, mut to: &UnixStream, begins_untyped: bool, ring: &Ring) -> Result<()> {
    let mut untyped = begins_untyped;
    let (mut row, mut in_a_row): (_, u32) = (None, 0);
    loop {
        let message = message(from, untyped)?;
        let alike = Alike::of(&message).filter(|_| !untyped);
        in_a_row = if alike == row { in_a_row + 1 } else { 1 };
        (row, untyped) = (alike, false);
        let counts = alike.map(Alike::counted).is_none_or(|(first, each)| in_a_row <= first || in_a_row % each == 0);
        match ring.next(counts) {
            Some(Fault::KillBefore) => return ring.kill(),
            Some(Fault::KillAfter) => {
                to.write_all(&message)?;
                return ring.kill();
            }
            Some(Fault::Reset | Fault::Away(_)) => return Ok(()),
            Some(Fault::LoseAnswer) => {
                to.write_all(&message)?;
                return Ok(());
            }
            Some(Fault::TruncateRequest | Fault::TruncateAnswer) => {
                to.write_all(&message[..message.len() / 2])?;
                return Ok(());
            }
            // The line's own latency.
            Some(Fault::Stall(time)) => std::thread::sleep(time),
            Some(Fault::Refuse(_) | Fault::Lie) => bail!("a server answers no messages with a status"),
            None => {}
        }
        to.write_all(&message)?;
    }
}
