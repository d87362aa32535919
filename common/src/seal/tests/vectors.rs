//! The vectors in `common/tests/vectors`: objects made from fixed keys and fixed randomness. They stay readable for ever,
//! and the same input makes the same bytes for as long as the format has this version.

use std::path::PathBuf;

use super::{Counting, SYSTEM, draft, plaintext, wal_section};
use crate::lsn::Lsn;
use crate::seal::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn file(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("the vector {} is part of the project: {error}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).expect("a key file is text")
}

/// Facts of a snapshot: what was dumped, a table, passwords that could not be read.
const FACTS: &str = r#"{"type":"snapshot","database":"shop","label":"before the migration"}
{"type":"table","schema":"public","name":"orders","rows":500}
{"type":"unread","name":"passwords of roles","why":"the role may not read pg_authid"}
"#;

/// Lines of pages, as section 6 of the format has them.
const NAMES: &str = concat!(
    "{\"type\":\"database\",\"oid\":5,\"name\":\"shop\",\"tablespace\":1663}\n",
    "{\"type\":\"relation\",\"database\":5,\"oid\":16384,\"filenode\":16390,\"tablespace\":1663,\"schema\":\"public\",\"name\":\"orders\",\"kind\":\"r\"}\n",
    "{\"type\":\"unread\",\"database\":\"closed\",\"why\":\"permission denied\"}\n",
);
const CONFIG: &str = concat!(
    "{\"type\":\"file\",\"path\":\"/etc/postgresql/15/main/pg_hba.conf\",\"setting\":\"hba_file\",\"mode\":416,\"content\":\"bG9jYWwgYWxs\"}\n",
    "{\"type\":\"unread\",\"path\":\"/etc/postgresql/15/main/pg_ident.conf\",\"setting\":\"ident_file\",\"why\":\"permission denied\"}\n",
);

/// As section 18 of the format has it.
const SUMMARY: &str = concat!(
    "{\"commits\":3,\"times\":{\"lowest\":\"2026-11-21T02:29:58.120000Z\",\"highest\":\"2026-11-21T02:30:00.000000Z\"},\"transactions\":[",
    "{\"end\":{\"outcome\":\"commit\",\"xid\":812,\"time\":\"2026-11-21T02:30:00.000000Z\",\"subtransactions\":1},",
    "\"first\":\"0/10000028\",\"commit\":\"0/10000BB8\",\"commit_end\":\"0/10000C60\",\"records\":9,\"bytes\":1400,",
    "\"relations\":{\"1663/5/1259\":{\"deleted\":3,\"bytes\":162}},\"removed\":[\"1663/5/16390\"],",
    "\"dropped\":[{\"database\":5,\"oid\":16384}],\"left_out\":0}],",
    "\"unlisted\":{\"transactions\":2,\"structural\":0,\"largest\":1,",
    "\"relations\":{\"1663/5/16400\":{\"transactions\":2,\"inserted\":1,\"updated\":1,\"bytes\":300}}},",
    "\"after\":{\"open\":[[815,{\"first\":\"0/1FFFFF00\",\"records\":1,\"bytes\":60,\"relations\":{},",
    "\"created\":[\"1663/5/16410\"],\"left_out\":0}]],\"files\":{\"classes\":{}},\"known_from\":700}}",
);

struct Vector {
    file: &'static str,
    name: &'static str,
    kind: Kind,
    plain: Vec<u8>,
    wal: Option<(u64, u64)>,
    durable: Option<Lsn>,
    body: Option<serde_json::Value>,
}

fn vectors() -> Vec<Vector> {
    vec![
        Vector {
            file: "data.object",
            name: "base/20261121T023000Z-0000002a/data/00000000",
            kind: Kind::Data,
            plain: plaintext(150_000),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "empty.object",
            name: "base/20261121T023000Z-0000002a/manifest/00000000",
            kind: Kind::Manifest,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "tail.object",
            name: "tail/00000001-a2dd04c7/000000010000000000000003/0000000003000064-0000000003000BB8",
            kind: Kind::Tail,
            plain: plaintext(3000)[100..].to_vec(),
            wal: Some((100, 3000)),
            durable: None,
            body: None,
        },
        Vector {
            file: "durable.object",
            name: "tail/00000001-a2dd04c7/000000010000000000000003/0000000003000BB8-0000000003001388",
            kind: Kind::Tail,
            plain: plaintext(5000)[3000..].to_vec(),
            wal: Some((3000, 5000)),
            durable: Some(Lsn(0x300_0064)),
            body: None,
        },
        Vector {
            file: "label.object",
            name: "base/20261121T023000Z-0000002a/label",
            kind: Kind::Label,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({ "id": "20261121T023000Z-0000002a", "type": "full" })),
        },
        Vector {
            file: "resume.object",
            name: "base/20261121T023000Z-0000002a/resume/00000000",
            kind: Kind::Resume,
            plain: resume_list(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "catalog.object",
            name: "catalog/00000001-a2dd04c7/000000010000000100000000-0000000100000001000000FF",
            kind: Kind::Catalog,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(catalog_body()),
        },
        Vector {
            file: "summary.object",
            name: "summary/00000001-a2dd04c7/000000010000000000000010-00000001000000000000001F",
            kind: Kind::Summary,
            plain: SUMMARY.as_bytes().to_vec(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "frontier.object",
            name: "frontier/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/9999999999",
            kind: Kind::Frontier,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "branch": "00000002-a2dd04c7", "frontier": "0/3000BB8", "server_end": "0/3001388",
                "highest_time": "2026-11-21T02:29:58.12Z", "written": "2026-11-21T02:30:00Z", "interval_seconds": 300,
                "earlier": [{ "branch": "00000001-a2dd04c7", "frontier": "0/2000100" }],
            })),
        },
        Vector {
            file: "frontier-ledger.object",
            name: "frontier/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/9999999998",
            kind: Kind::Frontier,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "branch": "00000002-a2dd04c7", "frontier": "0/3001388", "server_end": "0/3001388",
                "highest_time": "2026-11-21T02:34:59.5Z", "written": "2026-11-21T02:35:00Z", "interval_seconds": 300,
                "earlier": [{ "branch": "00000001-a2dd04c7", "frontier": "0/2000100" }],
                "ledger": {
                    "writer": "walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0",
                    "run": "00112233aabbccdd", "sequence": 0, "digest": ObjectDigest::of(&file("ledger.object")),
                },
            })),
        },
        Vector {
            file: "names.object",
            name: "base/20261121T023000Z-0000002a/names/00000000",
            kind: Kind::Names,
            plain: NAMES.as_bytes().to_vec(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "config.object",
            name: "base/20261121T023000Z-0000002a/config/00000000",
            kind: Kind::Config,
            plain: CONFIG.as_bytes().to_vec(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "snapshot.object",
            name: "snapshot/20261121T023000Z-0000002a/label",
            kind: Kind::Snapshot,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "id": "20261121T023000Z-0000002a", "series": "0011223344556677", "start_time": "2026-11-21T02:30:00Z",
                "stop_time": "2026-11-21T02:31:00Z", "postgres_version": 150018, "dump_version": 150018, "whole": true,
                "dump_size": 150000, "stored_size": 0, "dump": [], "facts": [],
            })),
        },
        Vector {
            file: "dump.object",
            name: "snapshot/20261121T023000Z-0000002a/data/00000001",
            kind: Kind::Dump,
            plain: FACTS.as_bytes().to_vec(),
            wal: None,
            durable: None,
            body: None,
        },
        Vector {
            file: "lease.object",
            name: "lease/00112233aabbccdd/00000002",
            kind: Kind::Lease,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "base": "20261121T023000Z-0000002a", "parent": "20261120T023000Z-00000029",
                "objects": ["base/20261114T023000Z-00000007/data/"], "written": "2026-11-21T02:30:00Z", "interval_seconds": 300,
                "released": false,
            })),
        },
        Vector {
            file: "adopt.object",
            name: "adopt/00000001-a2dd04c7/00000000",
            kind: Kind::Adopt,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "branch": "00000001-a2dd04c7", "from": "0/3000000", "to": "00000001-f80303ff",
                "writer": "walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0",
                "found": "2026-11-21T02:30:00Z", "apart": ["00000002-a2dd04c7"],
            })),
        },
        Vector {
            file: "ledger.object",
            name: "ledger/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/00112233aabbccdd/00000000",
            kind: Kind::Ledger,
            plain: Vec::new(),
            wal: None,
            durable: None,
            body: Some(serde_json::json!({
                "run": "00112233aabbccdd", "sequence": 0, "previous": null, "heads": [], "time": "2026-11-21T02:30:00Z",
                "actor": "ada@db1", "program": "walseal-archiver 0.1.0", "act": "daemon-started", "facts": {},
            })),
        },
        Vector {
            file: "evidence.object",
            name: "evidence/walsealw1g8ly2vvytx8fp584s3tygn00jmass9kgv4fgqd8u4ru6wxa8q0lqn0mqg0/00112233aabbccdd/00000000",
            kind: Kind::Evidence,
            plain: br#"{"schema":"walseal.drill/1","verdict":"passed","checks":[]}"#.to_vec(),
            wal: None,
            durable: None,
            body: None,
        },
    ]
}

/// A list of one object and one file of 150,000 bytes in it.
fn resume_list() -> Vec<u8> {
    let digest = ObjectDigest::of(&file("data.object"));
    let size = file("data.object").len();
    let digests = "AQEBAQEBAQEBAQEBAQEBAQICAgICAgICAgICAgICAgIDAwMDAwMDAwMDAwMDAwMD";
    format!(
        "{{\"type\":\"object\",\"name\":\"base/20261121T023000Z-0000002a/data/00000000\",\"size\":{size},\"digest\":\"{digest}\",\
         \"plain_size\":150000}}\n\
         {{\"type\":\"file\",\"path\":\"base/1/1259\",\"mode\":384,\"mtime\":1795228200,\"size\":150000,\"extents\":[[0,0,3]],\
         \"digests\":\"{digests}\"}}\n"
    )
    .into_bytes()
}

/// The body of a page: transactions in two of three segments, and one segment that is `leading_unread`.
fn catalog_body() -> serde_json::Value {
    let time = |second: u64| format!("2026-11-21T02:{:02}:{:02}Z", second / 60, second % 60);
    let segment = |number: u64| {
        let mut entry =
            serde_json::json!({ "count": number % 3, "digest": format!("{number:064x}"), "size": 5000 + number });
        let members = entry.as_object_mut().expect("an object");
        if !number.is_multiple_of(3) {
            members.insert("lowest".to_owned(), time(number).into());
            members.insert("highest".to_owned(), time(number + 1).into());
        }
        match number {
            100 => drop(members.insert("leading_unread".to_owned(), true.into())),
            0 => {}
            _ => drop(
                members.insert("running".to_owned(), time(number - u64::from(number.is_multiple_of(3)) + 1).into()),
            ),
        }
        entry
    };
    serde_json::json!({
        "branch": "00000001-a2dd04c7", "segment_size": 16 << 20, "first": "000000010000000100000000",
        "compare_key": "0011223344556677", "begin": "1/65000000", "segments": (0..256).map(segment).collect::<Vec<_>>(),
    })
}

fn make(vector: &Vector, recipients: &[Recipient], writer: &WriterKey) -> SealedObject {
    let section =
        |(start, end)| WalSection { durable: vector.durable, ..wal_section(writer, &plaintext(1 << 20), start, end) };
    let wal = vector.wal.map(section);
    let created = "2026-11-21T02:30:00Z".parse().expect("a time");
    let draft = Draft { wal, ..draft(vector.kind, vector.name) };
    if let Some(body) = &vector.body {
        return draft.sign_at(writer, body, created).expect("a small body");
    }
    let own = [writer.resume().expect("any seed makes one").recipient().clone()];
    let recipients = if vector.kind == Kind::Resume { &own } else { recipients };
    let mut sealer = draft.seal_with(recipients, writer, &mut Counting(1), created).expect("sealable");
    sealer.frames_of(&vector.plain).expect("within bounds");
    sealer.finish().expect("sealable")
}

#[test]
fn vectors_are_read_as_they_were_written() {
    let identities = Identity::read_file(&text("identity.key")).expect("an identity");
    let writer = WriterKey::read_file(&text("writer.key")).expect("a writer key");
    let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
    for vector in vectors() {
        let envelope = Envelope::read(file(vector.file).into(), &trust, SYSTEM, vector.name)
            .unwrap_or_else(|error| panic!("{}: {error}", vector.file));
        let plain = match vector.kind {
            Kind::Resume => writer.resume().expect("any seed makes one").open(&envelope),
            _ => envelope.read_all(&identities),
        };
        match &vector.body {
            Some(body) => assert_eq!(envelope.trailer.body::<serde_json::Value>().as_ref(), Ok(body)),
            None => assert_eq!(plain.as_ref(), Ok(&vector.plain), "{}", vector.file),
        }
        assert_eq!(envelope.header().wal.is_some(), vector.wal.is_some());
        assert_eq!(envelope.header().wal.as_ref().and_then(|wal| wal.durable), vector.durable, "{}", vector.file);
    }
}

#[test]
fn the_same_input_makes_the_same_header_and_structure() {
    let identities = Identity::read_file(&text("identity.key")).expect("an identity");
    let recipients: Vec<Recipient> = identities.iter().map(|identity| identity.recipient().clone()).collect();
    let writer = WriterKey::read_file(&text("writer.key")).expect("a writer key");
    for vector in vectors() {
        let made = make(&vector, &recipients, &writer);
        let stored = file(vector.file);
        let header = SignedHeader::length(&stored).expect("an object") as usize;
        // Header and signatures are deterministic; what zstd makes of the same bytes may change between its versions.
        assert_eq!(made.bytes[..header], stored[..header], "{}", vector.file);
    }
}

#[test]
fn the_summary_among_the_vectors_is_read_and_written_as_it_stands() {
    let summary: crate::wal::change::RunSummary = serde_json::from_str(SUMMARY).expect("a summary");
    assert_eq!(serde_json::to_string(&summary).expect("JSON"), SUMMARY);
    assert_eq!((summary.commits, summary.transactions.len(), summary.after.open.len()), (3, 1, 1));
}

/// Writes vectors that are missing. Existing ones are never written again: they are what older walseals wrote.
#[test]
fn every_vector_is_checked_in() {
    let identities = Identity::read_file(&text("identity.key")).expect("an identity");
    let recipients: Vec<Recipient> = identities.iter().map(|identity| identity.recipient().clone()).collect();
    let writer = WriterKey::read_file(&text("writer.key")).expect("a writer key");
    let missing: Vec<&str> = vectors()
        .iter()
        .filter(|vector| !folder().join(vector.file).exists())
        .map(|vector| {
            let new = folder().join(format!("{}.new", vector.file));
            std::fs::write(&new, make(vector, &recipients, &writer).bytes).expect("the folder is writable");
            vector.file
        })
        .collect();
    assert!(missing.is_empty(), "not checked in: {missing:?}; look at the .new files and rename them");
}
