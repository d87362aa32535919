//! What somebody was told of alerts: `alerts.command` writes it down, a document on a line.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::deadline::PATIENCE;
use crate::process::read;
use crate::scratch::Scratch;
use crate::site::{Daemon, Side};

/// A file that alerts are written to.
#[derive(Clone, Debug)]
pub struct Told {
    path: PathBuf,
}

impl Told {
    /// Has `side` tell its alerts to a file in a folder of this name; counts from the next [`Side::write_config`].
    pub fn by(side: &mut Side, scratch: &Arc<Scratch>, folder: &str) -> Result<Told> {
        let path = scratch.dir(folder)?.join("alerts");
        side.set_text("alerts.command", &format!("cat >> '{}'", path.display()));
        Ok(Told { path })
    }

    /// All that was told until now, oldest first.
    pub fn news(&self) -> Result<Vec<Value>> {
        let text = if self.path.exists() { read(&self.path)? } else { String::new() };
        // The last line may be half there.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// What was told of one kind.
    pub fn of(&self, kind: &str) -> Result<Vec<Value>> {
        let mut news = self.news()?;
        news.retain(|news| news["kind"] == kind);
        Ok(news)
    }

    /// The states of one kind, in order.
    pub fn states(&self, kind: &str) -> Result<Vec<String>> {
        Ok(self.of(kind)?.iter().map(|news| news["state"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until exactly this was told of a kind, and fails as soon as it was told more often.
    pub fn arrives(&self, daemon: &mut Daemon, kind: &str, expected: &[&str]) -> Result<()> {
        daemon.until(&format!("{kind} to be told as {expected:?}"), PATIENCE * 2, || {
            let states = self.states(kind)?;
            ensure!(states.len() <= expected.len(), "{kind} was told too often: {states:?}");
            Ok((states == expected).then_some(()))
        })
    }
}
