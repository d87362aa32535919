//! The command that is told of alerts.

use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use super::child;
use super::courier::{Letter, Receiver, Undelivered};

/// A command of the operator's, run for each letter.
#[derive(Debug)]
pub(super) struct AlertCommand {
    /// Given to `sh -c`.
    pub(super) command: String,
    /// How long one run may take.
    pub(super) limit: Duration,
}

#[async_trait]
impl Receiver for AlertCommand {
    fn name(&self) -> String {
        "alerts.command".to_owned()
    }

    async fn tell(&self, letter: &Letter) -> Result<String, Undelivered> {
        let (news, alert) = (&letter.news, &letter.news.alert);
        let facts = [
            ("KIND", alert.kind.word().to_owned()),
            ("SUBJECT", alert.subject.clone()),
            ("SEVERITY", alert.severity.word().to_owned()),
            ("STATE", news.state.word().to_owned()),
            ("CLUSTER", letter.cluster.clone()),
            ("TEXT", alert.text.clone()),
            ("SINCE", alert.since.to_string()),
            ("AT", news.at.to_string()),
            // As `verify --witness` takes it.
            ("FRONTIER", news.frontier.map_or_else(String::new, |at| at.to_string())),
        ];
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        command.envs(facts.map(|(name, value)| (format!("WALSEAL_ALERT_{name}"), value)));
        child::run(command, &letter.json()?, self.limit).await?;
        Ok("exit code 0".to_owned())
    }
}
