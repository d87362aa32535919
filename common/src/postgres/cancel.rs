//! Asking a server to stop what a session does (PostgreSQL documentation, chapter 55.2.8).

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::conninfo::{Conninfo, Host};
use super::error::PostgresError;
use super::tls::Ladder;
use super::transport;

/// CancelRequest's number in place of a protocol version.
const CANCEL: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// Stops what a session does, over a connection of its own. Holds the session's secret.
pub struct Canceller {
    pub(super) conninfo: Conninfo,
    pub(super) host: Host,
    /// Process id and secret of the server's process, as sent.
    pub(super) key: Bytes,
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Canceller {
    /// Asks. The server answers nothing but the end of the connection, for which this waits; what the session does then ends in an
    /// error of its own, or is over already.
    ///
    /// Errors: the server could not be reached.
    pub async fn cancel(&self) -> Result<(), PostgresError> {
        let mut ladder = Ladder::new(self.conninfo.ssl_mode(), self.host.is_unix());
        loop {
            let rung = ladder.rung();
            let mut transport = match transport::connect(&self.conninfo, &self.host, rung).await {
                Ok(transport) => transport,
                Err(error) if ladder.next(&error) => continue,
                Err(error) => return Err(error),
            };
            let length = u32::try_from(8 + self.key.len()).unwrap_or_default();
            let message = [&length.to_be_bytes()[..], &CANCEL, &self.key].concat();
            let failed = |source| PostgresError::Io { doing: "asking the server to cancel".to_owned(), source };
            transport.write_all(&message).await.map_err(failed)?;
            transport.flush().await.map_err(failed)?;
            // What comes is the end, however it looks.
            let mut nothing = [0; 1];
            let _ = transport.read(&mut nothing).await;
            return Ok(());
        }
    }
}
