//! What was promised: the objectives in this host's configuration.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, Setting};

/// The loss that is taken for the objective where `drill.max_rpo` says nothing.
const DEFAULT_RPO: Duration = Duration::from_secs(60);

/// What the configuration of a host promises.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Promises {
    /// Seconds of work that may be lost.
    pub rpo_seconds: f64,
    /// Whether `drill.max_rpo` says so; else it is an assumption.
    pub rpo_configured: bool,
    /// Seconds that a restore may take up to the first answer, where `drill.max_rto` says so.
    pub rto_seconds: Option<f64>,
    /// When drills are due, where `drill.schedule` says so.
    pub drill_schedule: Option<String>,
}

impl Promises {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Promises {
        let seconds = |setting: &Setting<Duration>| setting.value.as_secs_f64();
        let rpo = config.drill.max_rpo.as_ref().map(seconds);
        Promises {
            rpo_seconds: rpo.unwrap_or(DEFAULT_RPO.as_secs_f64()),
            rpo_configured: rpo.is_some(),
            rto_seconds: config.drill.max_rto.as_ref().map(seconds),
            drill_schedule: config.drill.schedule.as_ref().map(ToString::to_string),
        }
    }
}
