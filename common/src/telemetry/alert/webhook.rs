//! Alerts by HTTP: as `walseal.alert/1`, or in the shape that Slack's incoming webhooks take.

use async_trait::async_trait;

use super::AlertState;
use super::courier::{Letter, Receiver, Undelivered};
use crate::config::WebAddress;
use crate::telemetry::client::{RequestError, post};

/// What a receiver understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// `walseal.alert/1`.
    Json,
    /// `{"text": …}`, which Slack, Mattermost, Rocket.Chat and others take.
    Slack,
}

/// A URL that is posted to.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) address: WebAddress,
    pub(super) shape: Shape,
}

#[async_trait]
impl Receiver for Webhook {
    fn name(&self) -> String {
        let key = match self.shape {
            Shape::Json => "alerts.webhook_url",
            Shape::Slack => "alerts.slack_url",
        };
        format!("{key} ({})", self.address.place())
    }

    async fn tell(&self, letter: &Letter) -> Result<String, Undelivered> {
        let body = match self.shape {
            Shape::Json => letter.json()?,
            Shape::Slack => slack(letter),
        };
        post(&self.address, body).await.map_err(|RequestError { why, passing }| Undelivered { why, passing })
    }
}

/// A headline, and the text below it.
fn slack(letter: &Letter) -> Vec<u8> {
    let alert = &letter.news.alert;
    let since = match letter.news.state {
        AlertState::Raised => String::new(),
        AlertState::Standing | AlertState::Cleared => format!("\nsince {}", alert.since),
    };
    let text = format!("*{}*\n{}{since}", escaped(&letter.headline()), escaped(&alert.text));
    serde_json::json!({ "text": text }).to_string().into_bytes()
}

/// What Slack takes for markup otherwise, links and mentions among it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
