//! UPLOAD_MANIFEST: tells the server which backup the next one is to be compared with (PostgreSQL 17 and newer).

use postgres_protocol::message::backend::{COMMAND_COMPLETE_TAG, COPY_IN_RESPONSE_TAG, READY_FOR_QUERY_TAG};
use postgres_protocol::message::frontend::{self, CopyData};

use super::VERSION_17;
use crate::postgres::error::PostgresError;
use crate::postgres::session::Session;
use crate::postgres::wire::unexpected;

/// Bytes of a message to the server.
const CHUNK: usize = 64 << 10;

/// A manifest on its way to the server. Dropping it before [`ManifestUpload::finish`] leaves its client without use.
pub struct ManifestUpload<'a> {
    session: &'a mut Session,
}

impl std::fmt::Debug for ManifestUpload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestUpload").finish_non_exhaustive()
    }
}

const DOING: &str = "UPLOAD_MANIFEST failed";

impl<'a> ManifestUpload<'a> {
    pub(super) async fn start(session: &'a mut Session) -> Result<ManifestUpload<'a>, PostgresError> {
        if session.version() < VERSION_17 {
            let has = session.parameters().get("server_version").cloned().unwrap_or_default();
            return Err(PostgresError::Unsupported { what: "UPLOAD_MANIFEST", needs: 17, has });
        }
        session.send(DOING, "UPLOAD_MANIFEST").await?;
        match session.wire.receive(DOING).await {
            Ok(frame) if frame.tag == COPY_IN_RESPONSE_TAG => Ok(ManifestUpload { session }),
            Ok(frame) => Err(unexpected(DOING, &frame)),
            Err(error) => Err(session.recover(DOING, error).await),
        }
    }

    /// Sends the next bytes of the manifest, cut anyhow. A server that has refused what came before reads on and says
    /// so at the end.
    ///
    /// Errors: a broken connection, or what the server said before it ended it.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), PostgresError> {
        for chunk in bytes.chunks(CHUNK) {
            self.session.wire.queue(DOING, |buffer| {
                CopyData::new(chunk)?.write(buffer);
                Ok(())
            })?;
            self.flush().await?;
        }
        Ok(())
    }

    /// The manifest is whole: the server has read and accepted it on return, and keeps it for this connection.
    ///
    /// Errors: the server's, when the manifest is not whole, of another cluster, or not one at all; the client can be
    /// used for other commands then.
    pub async fn finish(mut self) -> Result<(), PostgresError> {
        self.session.wire.queue(DOING, |buffer| {
            frontend::copy_done(buffer);
            Ok(())
        })?;
        self.flush().await?;
        loop {
            let frame = match self.session.wire.receive(DOING).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.session.recover(DOING, error).await),
            };
            match frame.tag {
                COMMAND_COMPLETE_TAG => {}
                READY_FOR_QUERY_TAG => {
                    self.session.busy = false;
                    return Ok(());
                }
                _ => return Err(unexpected(DOING, &frame)),
            }
        }
    }

    /// Sends what is queued. Of a server that has gone, what it said last tells more than the broken connection.
    async fn flush(&mut self) -> Result<(), PostgresError> {
        let Err(broken) = self.session.wire.flush(DOING).await else { return Ok(()) };
        match self.session.wire.receive(DOING).await {
            Err(said) if said.server().is_some() => Err(said),
            _ => Err(broken),
        }
    }
}
