//! `ledger`: what happened to the repository, checked.

use walseal_common::repository::{Drill, LedgerEntry, LedgerReading, ObjectName, RepositoryError};
use walseal_common::show;
use walseal_common::terminal::{Align, Failure, Look, Schema, Table, printable, to_json};

use crate::access::Access;
use crate::record;

const SCHEMA: Schema = Schema { name: "ledger", version: 1 };

/// What `ledger` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Open the evidence of a drill, as its entry names it, and print it
    #[arg(long, value_name = "NAME")]
    evidence: Option<ObjectName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows every entry, and fails where anything is wrong with the ledger.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    if let Some(name) = &arguments.evidence {
        return show_evidence(name, access).await;
    }
    let reading = record::with_own(access).ledger().await;
    let reading = reading.map_err(|error| Failure::from_error("read the ledger", &error))?;
    if arguments.json {
        let text = to_json(SCHEMA, &reading).map_err(|error| Failure::from_error("print the ledger", &error))?;
        show!("{text}");
    } else {
        print(&reading);
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

fn print(reading: &LedgerReading) {
    if reading.entries.is_empty() {
        show!("The ledger has no entries.");
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
        show!("\n{} entries, every signature and chain verified.", reading.entries.len());
    }
}

fn fact((name, value): (&String, &serde_json::Value)) -> String {
    match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    }
}
