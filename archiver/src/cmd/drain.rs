//! `drain`: ship everything up to the server's current position, then return.

use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, Schema, to_json, units};

use crate::alone::while_streaming;
use crate::archive::Archive;
use crate::drain::{self, Drained};
use crate::socket::{self, Client, Request};

/// What `drain` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Waits until everything is durable, and says up to where.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let progress = Progress::new("drain", None);
    let drained = match take(archive, &progress).await {
        Ok(drained) => drained,
        Err(failure) => {
            progress.abandon();
            return Err(failure);
        }
    };
    progress.finish("done");
    if arguments.json {
        let text = to_json(Schema { name: "drain", version: 1 }, &drained)
            .map_err(|error| Failure::from_error("print the result", &error))?;
        show!("{text}");
    } else {
        let took = units::duration(std::time::Duration::from_secs_f64(drained.seconds.max(0.0)));
        show!("Durable through {} on branch {}, after {took}.", drained.through, drained.branch);
    }
    Ok(())
}

async fn take(archive: Archive, progress: &Progress) -> Result<Drained, Failure> {
    let state_dir = archive.config.need_state_dir()?;
    if let Some(daemon) = Client::connect(&socket::path(&state_dir)).await {
        let asked = daemon.ask(&Request::Drain, |text, _, _| progress.message(text)).await;
        let result = asked.map_err(|error| Failure::new("drain", error))?;
        return serde_json::from_value(result).map_err(|error| Failure::new("read the daemon's answer", error));
    }
    let shown = progress.clone();
    while_streaming(&archive, |alone| async move {
        let say = move |text: String| shown.message(&text);
        Ok(drain::drain(&alone.conninfo, &alone.repository, &alone.identity, alone.progress, say).await?)
    })
    .await
    .map_err(|error| Failure::new("drain", error))
}
