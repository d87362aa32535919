//! A branch that is left while it is streamed: somebody said that another server is the living one (case 17).
//!
//! Nothing that is on its way is lost: the stream ends as if it was asked to, and the next one finds out what this server is.

use std::convert::Infallible;

use tokio::sync::watch;
use tokio::time::sleep;

use super::complaints::Complaints;
use super::resume::Past;
use super::session::{SessionEnd, asked_to_stop};
use super::{StreamError, Streamer};

impl Streamer {
    /// One connection, which ends when WAL of the branch that is streamed was adopted to another.
    pub(super) async fn stream_until_left(
        &self,
        stop: &mut watch::Receiver<bool>,
        past: &mut Past,
        complaints: &mut Complaints,
    ) -> Result<SessionEnd, StreamError> {
        let (end, mut ended) = watch::channel(false);
        let mut left = None;
        let outcome = {
            let once = self.stream_within_limit(&mut ended, past, complaints);
            tokio::pin!(once);
            let leaving = self.left();
            tokio::pin!(leaving);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut once => break outcome,
                    () = asked_to_stop(stop), if !*end.borrow() => drop(end.send_replace(true)),
                    Err(why) = &mut leaving, if left.is_none() => {
                        left = Some(why);
                        end.send_replace(true);
                    }
                }
            }
        };
        match left.filter(|_| !*stop.borrow()) {
            Some(why) => Err(why),
            None => outcome,
        }
    }

    /// Ends once the branch that is streamed was left.
    async fn left(&self) -> Result<Infallible, StreamError> {
        loop {
            sleep(self.timing.adoptions_every).await;
            let now = self.progress.watch().now();
            let Some(branch) = now.branch.filter(|_| now.connected) else { continue };
            match self.repository.adoptions().await {
                Ok(adoptions) => {
                    if let Some((name, adoption)) = adoptions.iter().find(|(_, adoption)| adoption.branch == branch) {
                        let (name, writer) = (name.to_string(), adoption.writer.clone());
                        return Err(StreamError::Left { name, branch, writer });
                    }
                }
                // The next connect says so.
                Err(error) => tracing::debug!(%error, "nobody knows whether WAL was adopted"),
            }
        }
    }
}
