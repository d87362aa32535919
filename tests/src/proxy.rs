//! A TCP proxy before a store or a server: an outage, or a line that is cut, at the turn of a switch. Before a server, too: one that
//! answers some of its clients slowly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// How often a connection looks whether the proxy was switched.
const LOOK: Duration = Duration::from_millis(50);

/// What the proxy does with connections, those that are open included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Line {
    /// Everything passes.
    Up = 0,
    /// Connections are taken and closed at once.
    Down = 1,
    /// Connections are taken and stay open, but no byte passes: the worst kind of outage.
    Stalled = 2,
}

/// A proxy on a port of its own. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    switch: Arc<Switch>,
}

#[derive(Debug, Default)]
struct Switch {
    line: AtomicU8,
    gone: AtomicBool,
    /// A client that sends this gets its answers late, by so many milliseconds.
    mark: Option<&'static str>,
    late: AtomicU64,
}

impl Proxy {
    /// A proxy to `upstream`, a `host:port`; its line is up.
    pub fn start(upstream: &str) -> Result<Proxy> {
        Proxy::with(Upstream::Tcp(upstream.to_owned()), Switch::default())
    }

    /// A proxy to whoever listens at a Unix socket; its line is up.
    pub fn start_before_socket(upstream: PathBuf) -> Result<Proxy> {
        Proxy::with(Upstream::Unix(upstream), Switch::default())
    }

    /// A proxy behind which clients that send `mark` wait for each answer, as long as [`Proxy::answer_late`] says.
    pub fn start_late_for(upstream: &str, mark: &'static str, late: Duration) -> Result<Proxy> {
        let upstream = Upstream::Tcp(upstream.to_owned());
        let proxy = Proxy::with(upstream, Switch { mark: Some(mark), ..Switch::default() })?;
        proxy.answer_late(late);
        Ok(proxy)
    }

    fn with(upstream: Upstream, switch: Switch) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").context("opening a port for a proxy")?;
        let address = listener.local_addr().context("asking for the port of a proxy")?;
        let switch = Arc::new(switch);
        let shared = switch.clone();
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                if shared.gone.load(Ordering::Relaxed) {
                    break;
                }
                // A client that left before it was let in is none, and neither is one whose upstream is gone.
                let Ok(client) = incoming else { continue };
                let Ok(server) = upstream.connect() else { continue };
                let marked = Arc::new(AtomicBool::new(false));
                for (from, to, way) in
                    [(client.try_clone(), server.try_clone(), Way::Question), (Ok(server), Ok(client), Way::Answer)]
                {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let (switch, marked) = (shared.clone(), marked.clone());
                    std::thread::spawn(move || pass(from, to, way, &marked, &switch));
                }
            }
        });
        Ok(Proxy { address, switch })
    }

    /// Switches the line.
    pub fn set(&self, line: Line) {
        self.switch.line.store(line as u8, Ordering::Relaxed);
    }

    /// From now on each answer to a marked client waits so long.
    pub fn answer_late(&self, late: Duration) {
        self.switch.late.store(late.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Where clients connect to: `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.switch.gone.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a client, so that it ends; where that fails it ends with the process.
        let _ = TcpStream::connect(self.address);
    }
}

/// Where connections go on to.
enum Upstream {
    /// A `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl Upstream {
    fn connect(&self) -> std::io::Result<TcpStream> {
        match self {
            Upstream::Tcp(address) => TcpStream::connect(address),
            // All that is asked of it here, any socket can do.
            Upstream::Unix(path) => Ok(TcpStream::from(OwnedFd::from(UnixStream::connect(path)?))),
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client.
    Question,
    /// To it.
    Answer,
}

/// Carries bytes one way until either side ends, or the line goes down.
fn pass(mut from: TcpStream, mut to: TcpStream, way: Way, marked: &AtomicBool, switch: &Switch) {
    let mut buffer = vec![0; 64 << 10];
    // Bytes that were read and wait for the line.
    let mut held = 0;
    let ready = from.set_read_timeout(Some(LOOK)).is_ok();
    while ready && !switch.gone.load(Ordering::Relaxed) && switch.line.load(Ordering::Relaxed) != Line::Down as u8 {
        if switch.line.load(Ordering::Relaxed) == Line::Stalled as u8 {
            // Only the rate of looking at the switch.
            std::thread::sleep(LOOK);
        } else if held > 0 {
            match way {
                Way::Question => {
                    let sent = buffer.get(..held).unwrap_or_default();
                    if switch.mark.is_some_and(|mark| sent.windows(mark.len()).any(|bytes| bytes == mark.as_bytes())) {
                        marked.store(true, Ordering::Relaxed);
                    }
                }
                Way::Answer if marked.load(Ordering::Relaxed) => {
                    // The line's own latency.
                    std::thread::sleep(Duration::from_millis(switch.late.load(Ordering::Relaxed)));
                }
                Way::Answer => {}
            }
            if to.write_all(&buffer[..held]).is_err() {
                break;
            }
            held = 0;
        } else {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => held = read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
    }
    // Either side may be closed already; then there is nothing left to close.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
