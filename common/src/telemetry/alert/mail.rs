//! Alerts by mail, handed to the host's own `sendmail`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use super::child;
use super::courier::{Letter, Receiver, Undelivered};

/// Longest line of the text, in characters: SMTP takes 998 bytes, and one character has up to four.
const LONGEST_LINE: usize = 200;

/// Who gets mail, and from whom.
#[derive(Debug)]
pub(super) struct Mail {
    /// The program, which takes what sendmail's takes.
    pub(super) sendmail: PathBuf,
    pub(super) to: Vec<String>,
    pub(super) from: String,
    /// How long handing it over may take.
    pub(super) limit: Duration,
}

#[async_trait]
impl Receiver for Mail {
    fn name(&self) -> String {
        format!("alerts.mail_to ({})", self.to.join(", "))
    }

    async fn tell(&self, letter: &Letter) -> Result<String, Undelivered> {
        let mut command = Command::new(&self.sendmail);
        // A line of a single dot is text.
        command.arg("-i").arg("-f").arg(&self.from).arg("--").args(&self.to);
        child::run(command, self.message(letter).as_bytes(), self.limit).await?;
        Ok(format!("{} took it", self.sendmail.display()))
    }
}

impl Mail {
    fn message(&self, letter: &Letter) -> String {
        let (news, alert) = (&letter.news, &letter.news.alert);
        // Subjects of alerts may hold anything, and a header no line end and nothing but ASCII.
        let subject: String = letter.headline().chars().map(|one| if is_plain(one) { one } else { '?' }).collect();
        let date = news.at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let head = match &letter.head {
            Some(head) => format!("ledger: {} {} entry {} {}\n", head.writer, head.run, head.sequence, head.digest),
            None => String::new(),
        };
        format!(
            "From: {}\nTo: {}\nSubject: {subject}\nDate: {date}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}\n\n\
             cluster: {}\nkind: {}\nsubject: {}\nstate: {}\nseverity: {}\nsince: {}\ntold: {}\n{head}",
            self.from,
            self.to.join(", "),
            folded(&alert.text),
            letter.cluster,
            alert.kind,
            folded(&alert.subject),
            news.state.word(),
            alert.severity.word(),
            alert.since,
            news.at,
        )
    }
}

fn is_plain(one: char) -> bool {
    one == ' ' || one.is_ascii_graphic()
}

/// The text in lines that mail takes, broken between words where there are any.
fn folded(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let (mut folded, mut width) = (String::new(), 0);
        for word in line.split_inclusive(' ') {
            for (index, one) in word.chars().enumerate() {
                let room = if index == 0 { word.chars().count().min(LONGEST_LINE) } else { 1 };
                if width + room > LONGEST_LINE {
                    folded.push('\n');
                    width = 0;
                }
                folded.push(one);
                width += 1;
            }
        }
        lines.push(folded);
    }
    lines.join("\n")
}
