//! `drain`: ship everything up to the server's current position, then return.

use walseal_common::postgres::Conninfo;
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, Schema, to_json, units};

use crate::alone::while_streaming_from;
use crate::archive::Archive;
use crate::drain::{self, Drained};
use crate::socket::{self, Client, Request};

/// What `drain` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Drain this host of cluster.conninfo, an old primary, say, instead of the server that is streamed: db1, or db1:5433
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Waits until everything is durable, and says up to where.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let progress = Progress::new("drain", None);
    let drained = match take(archive, arguments.host.as_deref(), &progress).await {
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

async fn take(archive: Archive, host: Option<&str>, progress: &Progress) -> Result<Drained, Failure> {
    let mut conninfo = archive.config.open_conninfo()?;
    match host {
        // The daemon streams another server; this one is on a branch of its own, and has a slot of its own.
        Some(host) => conninfo = pinned(&conninfo, host)?,
        None => {
            let state_dir = archive.config.need_state_dir()?;
            if let Some(daemon) = Client::connect(&socket::path(&state_dir)).await {
                let asked = daemon.ask(&Request::Drain, |text, _, _| progress.message(text)).await;
                let result = asked.map_err(|error| Failure::new("drain", error))?;
                return serde_json::from_value(result).map_err(|error| Failure::new("read the daemon's answer", error));
            }
        }
    }
    let shown = progress.clone();
    while_streaming_from(&archive, conninfo, |alone| async move {
        let say = move |text: String| shown.message(&text);
        Ok(drain::drain(&alone.conninfo, &alone.repository, &alone.identity, alone.progress, say).await?)
    })
    .await
    .map_err(|error| Failure::new("drain", error))
}

/// The way to the host of that name alone.
///
/// Errors: cluster.conninfo names none, or several, of this name.
fn pinned(conninfo: &Conninfo, wanted: &str) -> Result<Conninfo, Failure> {
    let hosts = conninfo.hosts().iter();
    let found: Vec<_> = hosts
        .filter(|host| {
            let name = host.name();
            name == wanted || format!("{name}:{}", host.port) == wanted || host.to_string() == wanted
        })
        .collect();
    match found.as_slice() {
        [host] => Ok(conninfo.pinned(host)),
        _ => {
            let all = conninfo.hosts().iter().map(|host| format!("{}:{}", host.name(), host.port)).collect::<Vec<_>>();
            let count = if found.is_empty() { "no" } else { "more than one" };
            Err(Failure::saying(format!(
                "cluster.conninfo has {count} host {wanted}; its hosts are {}",
                all.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_20_a_host_is_found_by_its_name_and_where_that_is_not_enough_with_its_port() {
        let text = "host=db1,db2,db2,/run/pg port=5432,5432,5433,5432 user=walseal";
        let conninfo = Conninfo::parse(text, &|_| None).expect("a connection string");
        let port = |wanted: &str| pinned(&conninfo, wanted).map(|one| (one.hosts().len(), one.hosts()[0].port));
        assert_eq!(port("db1").expect("db1"), (1, 5432));
        assert_eq!(port("db2:5433").expect("db2"), (1, 5433));
        assert_eq!(port("/run/pg").expect("a socket"), (1, 5432));
        for (wanted, why) in [("db3", "no host db3"), ("db2", "more than one host db2")] {
            let said = port(wanted).expect_err("refused").to_string();
            assert!(said.contains(why) && said.contains("db2:5433, /run/pg:5432"), "{said}");
        }
    }
}
