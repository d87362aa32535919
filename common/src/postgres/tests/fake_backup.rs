//! Base backups against a scripted server: both forms of the answer, and answers that are not whole.

use crate::lsn::Lsn;
use crate::postgres::PostgresError;
use crate::postgres::fake_server::*;
use crate::postgres::replication::{BackupEvent, BaseBackupOptions, Tablespace};
use crate::postgres::transport::Privacy;
use crate::timeline::TimelineId;

fn position(lsn: &str) -> Vec<u8> {
    rows(&["recptr", "tli"], &[&[Some(lsn), Some("1")]])
}

fn header() -> Vec<u8> {
    let columns = ["spcoid", "spclocation", "size"];
    let list = rows(&columns, &[&[Some("16385"), Some("/fast"), Some("12")], &[None, None, Some("34")]]);
    [position("0/2000028"), list].concat()
}

/// The pieces of a whole answer in the one form or the other; each piece may be left out or doubled by a test.
fn pieces(version: u32) -> Vec<Vec<u8>> {
    let end = || [position("0/2000100"), complete("BASE_BACKUP")].concat();
    if version >= 15 {
        vec![
            [header(), copy(b'H')].concat(),
            [copy_data(b"n16385.tar\0/fast\0"), copy_data(b"dspace")].concat(),
            [copy_data(b"nbase.tar\0\0"), copy_data(b"dba"), copy_data(b"p\0\0\0\0\0\0\x12\x34"), copy_data(b"dse")]
                .concat(),
            [copy_data(b"m"), notice("01000", "checksum"), copy_data(b"d{}")].concat(),
            copy_done(),
            end(),
            ready(),
        ]
    } else {
        vec![
            header(),
            [copy(b'H'), copy_data(b"space"), copy_done()].concat(),
            [copy(b'H'), copy_data(b"ba"), copy_data(b"se"), copy_done()].concat(),
            [copy(b'H'), notice("01000", "checksum"), copy_data(b"{}"), copy_done()].concat(),
            end(),
            ready(),
        ]
    }
}

async fn backup_of(capacity: usize, version: u32, answer: Vec<u8>) -> Result<Vec<BackupEvent>, PostgresError> {
    let script = |mut server: FakeServer| async move {
        server.trust(&format!("{version}.1")).await;
        assert!(server.command().await.starts_with("BASE_BACKUP "));
        server.send(&answer).await;
    };
    with_server(capacity, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        let mut backup = client.base_backup(&BaseBackupOptions::default()).await?;
        assert_eq!((backup.start_position(), backup.timeline()), (Lsn(0x200_0028), TimelineId::FIRST));
        let fast = Tablespace { place: Some((16385, "/fast".to_owned())), size_kib: Some(12) };
        assert_eq!(backup.tablespaces(), [fast, Tablespace { place: None, size_kib: Some(34) }]);
        let mut events = Vec::new();
        loop {
            let event = backup.next().await?;
            events.push(event.clone());
            if matches!(event, BackupEvent::End { .. }) {
                assert_eq!(backup.next().await?, event, "the end comes again");
                return Ok(events);
            }
        }
    })
    .await
}

/// Events in short, data joined.
fn brief(events: &[BackupEvent]) -> Vec<String> {
    let mut brief: Vec<String> = Vec::new();
    for event in events {
        match event {
            BackupEvent::ArchiveStart { tablespace, name } => brief.push(format!("{name} {tablespace:?} ")),
            BackupEvent::ManifestStart => brief.push("manifest ".to_owned()),
            BackupEvent::Data(data) | BackupEvent::ManifestData(data) => {
                brief.last_mut().expect("something began").push_str(&String::from_utf8_lossy(data));
            }
            BackupEvent::Progress(bytes) => assert_eq!(*bytes, 0x1234),
            BackupEvent::Notice(notice) => assert_eq!(notice.0.message, "checksum"),
            BackupEvent::End { stop, timeline } => brief.push(format!("{stop} {}", timeline.number())),
        }
    }
    brief
}

#[tokio::test]
async fn case_34_both_forms_of_a_base_backup_give_the_same_events() {
    for version in [14, 15, 18] {
        for capacity in [1, 3, 7, 1 << 16] {
            let events = backup_of(capacity, version, pieces(version).concat()).await.expect("a whole backup");
            assert_eq!(
                brief(&events),
                ["16385.tar Some((16385, \"/fast\")) space", "base.tar None base", "manifest {}", "0/2000100 1"],
                "version {version}, {capacity} bytes at a time"
            );
            assert_eq!(events.iter().filter(|event| matches!(event, BackupEvent::Notice(_))).count(), 1);
        }
    }
}

#[tokio::test]
async fn i7_a_backup_with_a_piece_missing_or_doubled_has_no_end() {
    for version in [14, 15] {
        let whole = pieces(version);
        for index in 0..whole.len() {
            let mut without = whole.clone();
            without.remove(index);
            let outcome = backup_of(1 << 16, version, without.concat()).await;
            assert!(outcome.is_err(), "{version} without piece {index}: {outcome:?}");
        }
        for index in 1..whole.len() - 2 {
            let mut doubled = whole.clone();
            doubled.insert(index, whole[index].clone());
            let outcome = backup_of(1 << 16, version, doubled.concat()).await;
            assert!(outcome.is_err(), "{version} with piece {index} twice: {outcome:?}");
        }
        let bytes = whole.concat();
        for cut in 0..bytes.len() {
            let error = backup_of(1 << 16, version, bytes[..cut].to_vec()).await.expect_err("cut off");
            assert!(error.is_disconnect(), "{version} cut at {cut}: {error}");
        }
    }
}

#[tokio::test]
async fn answers_that_no_server_gives_are_refused() {
    let start = [header(), copy(b'H')].concat();
    for (what, more) in [
        ("data before an archive", copy_data(b"dx")),
        ("a manifest before an archive", copy_data(b"m")),
        ("an archive that is not in the list", copy_data(b"n99.tar\0/x\0")),
        ("an archive of another place", copy_data(b"n16385.tar\0/slow\0")),
        ("an archive without a name", copy_data(b"n\0\0")),
        ("a name without an end", copy_data(b"nbase.tar")),
        ("a short progress", copy_data(b"p\0")),
        ("an unknown message in the copy", copy_data(b"?")),
        ("an empty message in the copy", copy_data(b"")),
        ("another copy", copy(b'H')),
        ("WAL", copy(b'W')),
    ] {
        let error = backup_of(1 << 16, 15, [start.clone(), more].concat()).await.expect_err(what);
        assert!(matches!(error, PostgresError::Protocol { .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_server_error_in_a_backup_ends_it_with_its_reason() {
    let mut pieces = pieces(15);
    pieces.truncate(3);
    pieces.push(error("ERROR", "58030", "could not read file"));
    pieces.push(ready());
    let error = backup_of(1 << 16, 15, pieces.concat()).await.expect_err("an error");
    assert_eq!(error.sqlstate(), Some("58030"));
    // Data that is corrupt in the middle of it is no whole backup, other than at its end.
    let mut half = self::pieces(15);
    half.truncate(3);
    half.push(super::super::fake_server::error("ERROR", "XX001", "corrupt"));
    half.push(ready());
    assert!(backup_of(1 << 16, 15, half.concat()).await.is_err());
}
