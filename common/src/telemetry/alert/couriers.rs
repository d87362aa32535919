//! Everybody whom the configuration names to be told.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::command::AlertCommand;
use super::courier::{Courier, Letter, Receiver};
use super::mail::Mail;
use super::webhook::{Shape, Webhook};
use super::{AlertKind, AlertNews, AlertState, OpenAlert, Outlet, Severity};
use crate::config::{Config, ConfigError};
use crate::repository::Ledger;

/// The ways to all receivers.
#[derive(Debug)]
pub struct Couriers(Vec<Arc<Courier>>);

/// What became of a letter that was sent to see whether it arrives.
#[derive(Debug)]
pub struct Trial {
    /// The receiver.
    pub receiver: String,
    /// What it answered, or why it was not told.
    pub outcome: Result<String, String>,
}

impl Couriers {
    /// Starts a task for each receiver that is configured. `ledger` knows the head that alerts carry.
    ///
    /// Errors: a URL, or the file that holds it, cannot be used.
    pub fn start(config: &Config, cluster: &str, ledger: &Ledger) -> Result<Couriers, ConfigError> {
        let receivers = receivers(config)?.into_iter();
        Ok(Couriers(receivers.map(|receiver| Courier::start(receiver, cluster, ledger.clone())).collect()))
    }

    /// As the board takes them.
    pub fn outlets(&self) -> Vec<Arc<dyn Outlet>> {
        self.0.iter().map(|courier| courier.clone() as Arc<dyn Outlet>).collect()
    }

    /// Takes no more news, and waits until all are told, for at most `limit`.
    pub async fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        futures_util::future::join_all(self.0.iter().map(|courier| courier.finish(end))).await;
    }
}

/// Sends a letter to every receiver that is configured, once to each, and tells what became of it.
///
/// Errors: a URL, or the file that holds it, cannot be used.
pub async fn try_alerts(config: &Config, cluster: &str) -> Result<Vec<Trial>, ConfigError> {
    let now = Timestamp::now();
    let alert = OpenAlert {
        kind: AlertKind::Test,
        subject: String::new(),
        severity: Severity::Warning,
        text: format!("a test, sent by {}: nothing is wrong", config.actor()),
        since: now,
    };
    let letter = Letter::new(cluster, AlertNews { state: AlertState::Raised, alert, at: now, frontier: None }, None);
    let mut trials = Vec::new();
    for receiver in receivers(config)? {
        let outcome = receiver.tell(&letter).await.map_err(|undelivered| undelivered.why);
        trials.push(Trial { receiver: receiver.name(), outcome });
    }
    Ok(trials)
}

fn receivers(config: &Config) -> Result<Vec<Arc<dyn Receiver>>, ConfigError> {
    let (alerts, limit) = (&config.alerts, config.alerts.command_limit.value);
    let mut receivers: Vec<Arc<dyn Receiver>> = Vec::new();
    if let Some(command) = &alerts.command {
        receivers.push(Arc::new(AlertCommand { command: command.value.clone(), limit }));
    }
    for (shape, address) in [(Shape::Json, config.webhook_url()?), (Shape::Slack, config.slack_url()?)] {
        if let Some(address) = address {
            receivers.push(Arc::new(Webhook { address, shape }));
        }
    }
    if let Some(to) = alerts.mail_to.as_ref().map(|to| &to.value).filter(|to| !to.is_empty()) {
        let from = alerts.mail_from.as_ref().map_or_else(|| config.login_and_host(), |from| from.value.clone());
        receivers.push(Arc::new(Mail { sendmail: alerts.sendmail.value.clone(), to: to.clone(), from, limit }));
    }
    Ok(receivers)
}
