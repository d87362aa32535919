#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::base::checksum::{ChecksumAlgorithm, FileChecksum, FileDigest};

const FILES: [&str; 3] = [
    r#"{ "Path": "backup_label", "Size": 9, "Last-Modified": "2026-11-21 02:30:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "839206e3" }"#,
    r#"{ "Encoded-Path": "626173652fff", "Size": 0, "Last-Modified": "2026-11-21 02:30:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }"#,
    r#"{ "Path": "pg_tblspc/16384/PG_15_202209061/5/\"\n", "Size": 9, "Last-Modified": "2026-11-21 02:30:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "839206E3" }"#,
];

/// A manifest as `backup_manifest.c` writes it, with the right checksum.
fn manifest(version: u32, files: &[&str]) -> String {
    let mut text = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n");
    if version == 2 {
        text.push_str("\"System-Identifier\": 7437123456789012345,\n");
    }
    text.push_str("\"Files\": [");
    for (index, file) in files.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(file);
    }
    text.push_str("\n],\n\"WAL-Ranges\": [\n");
    text.push_str("{ \"Timeline\": 2, \"Start-LSN\": \"0/3000060\", \"End-LSN\": \"0/3000138\" },\n");
    text.push_str("{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/3000060\" }\n],\n");
    seal(text)
}

fn seal(text: String) -> String {
    let sum = line::hex(&Sha256::digest(text.as_bytes()));
    format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n")
}

fn path(bytes: &[u8]) -> RelativePath {
    RelativePath::new(bytes).expect("a path")
}

fn nine_digits() -> (u64, FileChecksum) {
    let mut digest = FileDigest::new(ChecksumAlgorithm::Crc32c);
    digest.update(b"123456789");
    (9, digest.finish())
}

/// What [`FILES`] describe.
fn received() -> ReceivedFiles {
    let mut received = ReceivedFiles::default();
    let (size, sum) = nine_digits();
    received.note(&path(b"backup_label"), size, sum.clone());
    received.note(&path(b"base/\xff"), 0, FileChecksum::Crc32c(0));
    received.note(&path(b"pg_tblspc/16384/PG_15_202209061/5/\"\n"), size, sum);
    received
}

fn check(text: &str, mut received: ReceivedFiles, piece: usize) -> Result<ServerManifest, ManifestError> {
    let mut reader = ManifestReader::new();
    for bytes in text.as_bytes().chunks(piece) {
        reader.push(bytes, &mut |file| received.strike(file))?;
    }
    let found = reader.finish()?;
    received.finish().map(|()| found)
}

#[test]
fn manifests_of_versions_1_and_2_are_read() {
    for piece in [1, 7, 100_000] {
        let one = check(&manifest(1, &FILES), received(), piece).expect("version 1");
        let two = check(&manifest(2, &FILES), received(), piece).expect("version 2");
        assert_eq!((one.system_identifier, one.files), (None, 3));
        assert_eq!(two.system_identifier, Some(SystemIdentifier(7_437_123_456_789_012_345)));
        let ranges: Vec<String> = one.wal_ranges.iter().map(|r| format!("{} {}", r.timeline, r.range)).collect();
        assert_eq!(ranges, ["00000002 0/3000060..0/3000138", "00000001 0/2000028..0/3000060"]);
        assert_eq!(two.wal_ranges, one.wal_ranges);
        assert!(check(&manifest(2, &[]), ReceivedFiles::default(), piece).is_ok(), "no files");
    }
}

#[test]
fn case_30_files_that_disagree_with_the_manifest_are_named() {
    let text = manifest(1, &FILES);
    let mut other_size = received();
    other_size.replace(&path(b"base/\xff"), Some((1, FileChecksum::Crc32c(0))));
    let mut other_bytes = received();
    other_bytes.replace(&path(b"backup_label"), Some((9, FileChecksum::Crc32c(7))));
    let mut other_algorithm = received();
    other_algorithm.replace(&path(b"backup_label"), Some((9, FileChecksum::None)));
    let mut missing = received();
    missing.replace(&path(b"base/\xff"), None);
    let mut surplus = received();
    surplus.note(&path(b"base/2"), 0, FileChecksum::Crc32c(0));
    surplus.note(&path(b"base/1"), 0, FileChecksum::Crc32c(0));
    for (received, words) in [
        (other_size, "base/\\xff has 1 bytes, but 0"),
        (other_bytes, "backup_label was changed on its way: its CRC32C is 07000000, but 839206e3"),
        (other_algorithm, "backup_label has a checksum of type CRC32C in the server's backup manifest, where NONE"),
        (missing, "base/\\xff is in the server's backup manifest, but was not received"),
        (surplus, "base/1 was received, but is not in the server's backup manifest (2 such files)"),
    ] {
        let error = check(&text, received, 64).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let twice = manifest(1, &[FILES[0], FILES[1], FILES[2], FILES[0]]);
    assert_eq!(check(&twice, received(), 64), Err(ManifestError::NotReceived(path(b"backup_label"))));
    let (size, sum) = nine_digits();
    // Whatever the manifest says of it.
    for text in [text, twice] {
        let mut received = received();
        received.note(&path(b"backup_label"), size, sum.clone());
        assert_eq!(check(&text, received, 64), Err(ManifestError::ReceivedTwice(path(b"backup_label"))));
    }
}

#[test]
fn what_lies_in_pg_wal_is_not_compared() {
    let listed =
        r#"{ "Path": "pg_wal/archive_status/000000010000000000000001.done", "Size": 5, "Last-Modified": "x" }"#;
    let text = manifest(1, &[FILES[0], FILES[1], FILES[2], listed]);
    let mut received = received();
    received.note(&path(b"pg_wal/000000010000000000000001"), 7, FileChecksum::None);
    assert!(check(&text, received, 64).is_ok());
}

#[test]
fn lines_that_postgres_would_not_write_are_refused() {
    let good = manifest(2, &FILES);
    for (from, to, words) in [
        ("Version\": 2", "Version\": 3", "version 3"),
        ("Version\": 2", "Version\": \"2\"", "line 1"),
        ("\"System-Identifier\": 7437123456789012345,\n", "", "line 2"),
        ("\"System-Identifier\": 7", "\"System-Identifier\": -7", "line 2"),
        ("\"Files\": [\n", "\"Files\": [ ]\n", "line 3"),
        ("\"Size\": 9,", "\"Size\": -9,", "line 4"),
        ("\"Size\": 9,", "\"Size\": 9, \"Size\": 9,", "duplicate"),
        ("\"Size\": 9,", "\"Size\": 9, \"Colour\": 9,", "Colour"),
        ("\"Path\": \"backup_label\"", "\"Path\": \"../backup_label\"", "not a path"),
        ("\"Path\": \"backup_label\"", "\"Path\": \"x\", \"Encoded-Path\": \"00\"", "one of Path and Encoded-Path"),
        ("\"626173652fff\"", "\"626173652ff\"", "not hexadecimal"),
        ("\"626173652fff\"", "\"626173652fé\"", "not hexadecimal"),
        (", \"Checksum\": \"839206e3\"", "", "both or none"),
        ("\"839206e3\" },\n", "\"839206e3\" }\n", "line 5"),
        ("\"839206E3\" }\n", "\"839206E3\" },\n", "line 7"),
        ("\"Start-LSN\": \"0/3000060\"", "\"Start-LSN\": \"0/4000060\"", "backwards"),
        ("\"Timeline\": 1", "\"Timeline\": 0", "timeline"),
        ("\"}\n", "\"}\n\n", "should have ended"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from} was not there");
        let resealed = match changed.split_once("\"Manifest-Checksum\"") {
            Some((body, _)) if words != "should have ended" => seal(body.to_owned()),
            _ => changed,
        };
        let error = check(&resealed, received(), 64).expect_err(words);
        assert!(error.to_string().contains(words), "{error} does not say {words}");
    }
}

#[test]
fn a_line_without_an_end_does_not_fill_memory() {
    let mut reader = ManifestReader::new();
    let error = reader.push(&vec![b'x'; LONGEST_LINE + 1], &mut |_| Ok(())).expect_err("too long");
    assert!(error.to_string().contains("too long"), "{error}");
}

proptest! {
    #[test]
    fn every_changed_byte_of_a_manifest_is_found(at: prop::sample::Index, bits in 1u8..) {
        let good = manifest(2, &FILES);
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let mut received = received();
        let mut reader = ManifestReader::new();
        let answer = reader
            .push(&bytes, &mut |file| received.strike(file))
            .and_then(|()| reader.finish())
            .and_then(|_| received.finish());
        // The checksum itself may change between upper and lower case.
        let same = bytes.eq_ignore_ascii_case(good.as_bytes()) && at > good.len() - 70;
        prop_assert!(answer.is_err() || same, "byte {at}");
    }

    #[test]
    fn every_cut_manifest_is_found(at: prop::sample::Index) {
        let good = manifest(1, &FILES);
        let cut = &good[..at.index(good.len())];
        prop_assert!(check(cut, received(), 64).is_err());
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut reader = ManifestReader::new();
        let answer = reader.push(&bytes, &mut |_| Ok(())).and_then(|()| reader.finish());
        prop_assert!(answer.is_err());
    }
}
