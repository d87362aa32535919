//! `ledger`: what happened to the repository, checked.

use walseal_common::repository::{Body, Drill, LedgerEntry, LedgerReading, ObjectName, RepositoryError};
use walseal_common::show;
use walseal_common::terminal::{Align, Failure, Look, Schema, Table, printable, to_json};
use walseal_common::time::PgTimestamp;

use crate::access::Access;
use crate::record;

const SCHEMA: Schema = Schema { name: "ledger", version: 1 };

/// What `ledger` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Open the evidence of a drill, as its entry names it, and print it
    #[arg(long, value_name = "NAME")]
    evidence: Option<ObjectName>,
    #[command(flatten)]
    choice: Choice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which entries are shown. All of the ledger is verified in any case.
#[derive(clap::Args, Clone, Debug, Default)]
struct Choice {
    /// Show entries from this time on; a time with an offset, such as 2026-11-21T02:30:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "evidence")]
    since: Option<PgTimestamp>,
    /// Show entries before this time
    #[arg(long, value_name = "TIME", conflicts_with = "evidence")]
    until: Option<PgTimestamp>,
    /// Show entries of this kind only, such as gap-recorded; a word that ends in "-" stands for all that begin with it. Several
    /// times for several
    #[arg(long, value_name = "ACT", conflicts_with = "evidence")]
    act: Vec<String>,
}

impl Choice {
    fn takes(&self, body: &Body) -> bool {
        let time = PgTimestamp::from_jiff(body.time);
        let named = |word: &String| body.act == *word || (word.ends_with('-') && body.act.starts_with(word.as_str()));
        self.since.is_none_or(|since| since <= time)
            && self.until.is_none_or(|until| time < until)
            && (self.act.is_empty() || self.act.iter().any(named))
    }
}

/// Shows every entry, and fails where anything is wrong with the ledger.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    if let Some(name) = &arguments.evidence {
        return show_evidence(name, access).await;
    }
    let reading = record::with_own(access).ledger().await;
    let mut reading = reading.map_err(|error| Failure::from_error("read the ledger", &error))?;
    let verified = reading.entries.len();
    reading.entries.retain(|entry| arguments.choice.takes(&entry.body));
    if arguments.json {
        let text = to_json(SCHEMA, &reading).map_err(|error| Failure::from_error("print the ledger", &error))?;
        show!("{text}");
    } else {
        print(&reading, verified);
    }
    let wrong = reading.findings.len();
    if wrong == 0 {
        return Ok(());
    }
    let words = reading.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Err(Failure::new("verify the ledger", printable(&words))
        .next("an entry of a writer that you trust: add its key to keys.trusted_writers, with roles = [\"drill\"] for a restore host")
        .next("anything else was not done by walseal: find out who can write to the bucket"))
}

/// Prints the very object that a drill's entry names, which is JSON.
async fn show_evidence(name: &ObjectName, access: &Access) -> Result<(), Failure> {
    let repository = record::with_own(access);
    let failed = |error: RepositoryError| Failure::from_error("open the evidence", &error);
    let text = name.to_string();
    let names_it = |drill: &Drill| drill.facts.evidence.as_ref().is_some_and(|fact| fact.name == text);
    let drills = repository.drills().await.map_err(failed)?;
    let Some(drill) = drills.iter().find(|drill| names_it(drill)) else {
        return Err(Failure::new("open the evidence", format!("no drill of a trusted writer names {text}"))
            .next("the drills and their evidence: walseal-restorer ledger"));
    };
    let document = repository.evidence(drill, &access.identities).await.map_err(failed)?.unwrap_or_default();
    show!("{}", printable(&String::from_utf8_lossy(&document)));
    Ok(())
}

fn print(reading: &LedgerReading, verified: usize) {
    if reading.entries.is_empty() {
        match verified {
            0 => show!("The ledger has no entries."),
            all => show!("None of the ledger's {all} entries is asked for."),
        }
        return;
    }
    let mut table = Table::new([
        ("time", Align::Left),
        ("act", Align::Left),
        ("facts", Align::Left),
        ("actor", Align::Left),
        ("program", Align::Left),
        ("run", Align::Left),
    ]);
    for LedgerEntry { body, .. } in &reading.entries {
        let facts: Vec<String> = body.facts.iter().filter(|(_, value)| !value.is_null()).map(fact).collect();
        table.row([
            format!("{:.3}", body.time),
            printable(&body.act),
            printable(&facts.join(" ")),
            printable(&body.actor),
            printable(&body.program),
            format!("{}/{}", body.run, body.sequence),
        ]);
    }
    show!("{}", table.render(Look::of_stdout()));
    if reading.findings.is_empty() {
        let shown = reading.entries.len();
        let of_all = if shown == verified { String::new() } else { format!("{shown} of ") };
        show!("\n{of_all}{verified} entries, every signature and chain verified.");
    }
}

fn fact((name, value): (&String, &serde_json::Value)) -> String {
    match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn body(time: &str, act: &str) -> Body {
        serde_json::from_value(serde_json::json!({
            "run": "0000000000000001", "sequence": 0, "previous": null, "heads": [], "time": time, "actor": "ada",
            "program": "test 1", "act": act, "facts": {},
        }))
        .expect("a body")
    }

    #[test]
    fn entries_are_chosen_by_time_and_kind() {
        let at = |text: &str| Some(text.parse().expect("a time"));
        let bodies = [
            body("2026-11-01T00:00:00Z", "base-started"),
            body("2026-11-02T00:00:00Z", "base-finished"),
            body("2026-11-03T00:00:00Z", "gap-recorded"),
        ];
        let chosen = |choice: Choice| bodies.iter().map(|body| choice.takes(body)).collect::<Vec<_>>();
        assert_eq!(chosen(Choice::default()), [true, true, true]);
        let (since, until) = (at("2026-11-02T00:00:00Z"), at("2026-11-03T00:00:00Z"));
        assert_eq!(chosen(Choice { since, until, act: vec![] }), [false, true, false]);
        let act = |words: &[&str]| Choice { act: words.iter().map(ToString::to_string).collect(), ..Choice::default() };
        assert_eq!(chosen(act(&["base-"])), [true, true, false]);
        assert_eq!(chosen(act(&["base-started", "gap-recorded"])), [true, false, true]);
        assert_eq!(chosen(act(&["base"])), [false, false, false], "a kind is named in full");
    }
}
