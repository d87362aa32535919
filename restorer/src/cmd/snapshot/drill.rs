//! `snapshot drill`.

use serde::Serialize;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::SnapshotId;
use walseal_common::show;
use walseal_common::terminal::{Failure, Look, printable, to_json};

use super::super::drill::{conclude, interrupted, until_told_to_end};
use super::failure;
use super::restore::conninfo;
use crate::access::Access;
use crate::drill::{evidence, render};
use crate::snapshot::drill;

#[derive(clap::Args, Debug)]
pub(super) struct Drill {
    /// The snapshot [default: the newest]
    id: Option<SnapshotId>,
    /// A server to restore it on, in a database that is made for it and dropped after, without a password [default: drill.conninfo, else
    /// a new cluster]
    #[arg(long, value_name = "CONNINFO")]
    on: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The report of a drill, and what became of it.
#[derive(Serialize)]
struct Drilled<'a> {
    #[serde(flatten)]
    report: &'a drill::Report,
    recorded: Option<&'a str>,
    not_recorded: Option<String>,
}

impl Drill {
    /// Where it is restored, where the command line names that.
    pub(super) fn server(&self) -> Result<Option<Conninfo>, Failure> {
        self.on.as_ref().map(|text| conninfo("--on", text)).transpose()
    }
}

pub(super) async fn run(arguments: &Drill, server: Option<Conninfo>, access: &Access) -> Result<(), Failure> {
    let doing = "drill a snapshot";
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => {
            let ids = access.repository.snapshot_ids().await.map_err(|error| failure(doing, &error.into()))?;
            let newest = ids.into_iter().next_back();
            newest.ok_or_else(|| Failure::new(doing, "there is none").next("take one: walseal-archiver snapshot"))?
        }
    };
    let server = match server {
        Some(server) => Some(server),
        None => access.config.open_drill_conninfo().map_err(|error| Failure::from_error(doing, &error))?,
    };
    let Some(report) = until_told_to_end(drill::drill(access, &id, server.as_ref())).await? else {
        return Err(interrupted());
    };
    let recorded = evidence::record_snapshot(access, &report).await;
    if arguments.json {
        let document = Drilled {
            report: &report,
            recorded: recorded.as_deref().ok(),
            not_recorded: recorded.as_ref().err().map(ToString::to_string),
        };
        let text =
            to_json(drill::SCHEMA, &document).map_err(|error| Failure::from_error("print the report", &error))?;
        show!("{text}");
    } else {
        let mut text = format!("Drill of snapshot {id}");
        if let Some(database) = &report.database {
            text.push_str(&format!(" of {database}"));
        }
        text.push('\n');
        render::checks(&mut text, &report.checks, Look::of_stdout());
        render::took(&mut text, report.seconds, &report.stages);
        print!("{}", printable(&text));
    }
    conclude(report.verdict, &render::words(report.verdict, &report.checks), recorded, arguments.json)
}
