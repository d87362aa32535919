//! What to do about what a scrub finds.

use super::FlawKind;
use crate::lsn::Lsn;
use crate::repository::ObjectName;

const COPY: &str = "put it back as it was, from another copy of the repository or an older version of the object, where the store keeps \
                    versions: names are written once, so any copy of these bytes is right";
const FULL: &str = "take a base backup that needs nothing older: walseal-archiver backup --full";
const WHO: &str = "no program of walseal does this: find out who can write to the repository";

fn words<const N: usize>(cure: [&str; N]) -> Vec<String> {
    cure.iter().map(|one| (*one).to_owned()).collect()
}

/// WAL that is not there.
pub(super) fn of_hole(kind: FlawKind, start: Lsn) -> Vec<String> {
    let heal = format!(
        "look for it in the server's pg_wal, on a standby or in a folder: walseal-archiver heal --gap {start} [--from DIR]"
    );
    let mut cure = vec![heal];
    if kind == FlawKind::CutOff {
        cure.push(WHO.to_owned());
        cure.push(
            "where it is known and cannot be cured: walseal-archiver verify --accept takes what is there for what was"
                .to_owned(),
        );
    }
    cure.push("start a new window behind it: walseal-archiver backup --full".to_owned());
    cure
}

/// An object that holds WAL, and is of no use.
pub fn of_wal_object(name: &ObjectName, start: Lsn) -> Vec<String> {
    vec![
        COPY.to_owned(),
        format!(
            "or remove {name} from the store, so that its name is free, and fill the hole: walseal-archiver heal --gap {start} \
             [--from DIR]"
        ),
        "start a new window behind it: walseal-archiver backup --full".to_owned(),
    ]
}

/// An object of a base backup, or its label.
pub fn of_base_object() -> Vec<String> {
    words([COPY, FULL])
}

/// An object of a snapshot, or its label.
pub(super) fn of_snapshot() -> Vec<String> {
    words([
        COPY,
        "take another snapshot: walseal-archiver snapshot",
        "leave the removal of this one to retention, which writes it down (snapshot.last and the like): what somebody else removes \
         is missed from then on",
    ])
}

/// The ledger.
pub(super) fn of_ledger() -> Vec<String> {
    words([
        "an entry of a writer that you trust: add its key to keys.trusted_writers, with roles = [\"drill\"] for a restore host",
        WHO,
    ])
}

/// A history.
pub(super) fn of_history() -> Vec<String> {
    words([
        COPY,
        "a daemon that streams this timeline stores it again when it is restarted, where the server still has the file",
    ])
}

/// An object that a restore hardly needs, or that is read and verified each time.
pub(super) fn of_small_object(name: &str) -> Vec<String> {
    let kind = name.split('/').next().unwrap_or_default();
    match kind {
        "ledger" | "evidence" => of_ledger(),
        "identity" | "gap" | "adopt" => words([COPY, WHO]),
        _ => words([
            "nothing that can be restored depends on it; remove it, or put it back as it was",
            "an object of a writer of yours: add its key to keys.trusted_writers",
            WHO,
        ]),
    }
}
