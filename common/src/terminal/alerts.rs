//! The verb `alerts`, which both programs have.

use clap::{Args, Subcommand};

use super::{Failure, printable};
use crate::config::Config;
use crate::show;
use crate::telemetry::try_alerts;

/// What `alerts` is told.
#[derive(Args, Debug)]
pub struct AlertsVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Send a test to every receiver of [alerts], and say what each answered
    Test,
}

impl AlertsVerb {
    /// Does it, and says a line for each receiver. Fails where there is none, or one was not told.
    pub async fn run(&self, config: &Config) -> Result<(), Failure> {
        let Verb::Test = self.verb;
        let cluster = config.cluster.name.as_ref().map_or("", |name| name.value.as_str());
        let trials = try_alerts(config, cluster).await.map_err(Failure::from)?;
        if trials.is_empty() {
            return Err(Failure::saying(
                "nobody is told of alerts but the log and `status`: [alerts] names no receiver",
            )
            .next("set one of alerts.command, alerts.webhook_url, alerts.slack_url and alerts.mail_to"));
        }
        let mut failed = Vec::new();
        for trial in trials {
            let (word, text) = match &trial.outcome {
                Ok(answer) => ("told", answer),
                Err(why) => ("FAILED", why),
            };
            show!("{word:<8} {}: {}", printable(&trial.receiver), printable(text).replace('\n', " "));
            if trial.outcome.is_err() {
                failed.push(trial.receiver);
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::saying(format!("not told: {}", failed.join(", "))))
    }
}
