//! `run`: the daemon that drills on schedule.

use jiff::tz::TimeZone;
use walseal_common::schedule::zone;
use walseal_common::telemetry;
use walseal_common::terminal::{Exit, Failure};

use super::drill::until_told_to_end;
use crate::access::Access;
use crate::daemon::{self, Timetable};

/// Drills until it is told to end.
pub async fn run(access: &Access) -> Result<(), Failure> {
    let config = &access.config.drill;
    let Some(schedule) = config.schedule.clone() else {
        return Err(Failure::saying("there is nothing to do: drill.schedule is not set")
            .next("write when to drill under [drill], as cron does: schedule = \"30 4 * * *\"")
            .next("or drill once: walseal-restorer drill")
            .exit(Exit::Failed));
    };
    let zone = match &config.timezone {
        Some(name) => zone(&name.value).map_err(Failure::saying)?,
        None => TimeZone::system(),
    };
    let target = Timetable::choice(config.random.value);
    let server = access.config.open_drill_conninfo();
    let server = server.map_err(|error| Failure::from_error("drill on the server of drill.conninfo", &error))?;
    let timetable = Timetable { schedule, zone, jitter: config.jitter.value, target, server };
    let listener = match access.config.listen.as_ref().map(|setting| setting.value) {
        Some(address) => {
            let listener = telemetry::listen(address).await.map_err(|error| {
                Failure::new(format!("serve /metrics at {address} (http.listen)"), error).next(
                    "name another address or port, or leave it out; the archiver on the same host has one of its own",
                )
            })?;
            tracing::info!(%address, "serving /metrics and /healthz");
            Some(listener)
        }
        None => None,
    };
    match until_told_to_end(daemon::run(access, &timetable, listener)).await? {
        Some(ended) => ended.map_err(Failure::saying),
        None => {
            tracing::info!("stopped; a drill that was under way is gone without a trace");
            Ok(())
        }
    }
}
