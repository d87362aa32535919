//! A free TCP port on loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// A port that was free a moment ago. Another process may take it before it is used: whoever starts a
/// server on it tries again with another.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("asking for a free port on loopback")?;
    Ok(listener.local_addr().context("asking for a free port on loopback")?.port())
}
