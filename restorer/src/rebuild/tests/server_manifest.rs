//! The server's manifest of a backup of changed blocks (case 56).

use std::fs;

use sha2::{Digest, Sha256};

use super::silent;
use super::toy::{Toy, ToyLayer, content};
use crate::rebuild::{RebuildError, rebuild};

const HEAD: &str =
    "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7412345678901234567,\n\"Files\": [\n";
const TAIL: &str =
    "],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n";

fn line(path: &str, size: usize, checksum: &str) -> String {
    format!(
        "{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"2026-11-21 02:30:00 GMT\", \
         \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}"
    )
}

fn sum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Restores a backup with this manifest; what has become of that.
async fn restored(manifest: &str, native: bool) -> Result<String, RebuildError> {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", &content(20_000, 3));
    let (old, new) = (content(5 * 8192, 4), content(8192, 5));
    let whole = [&old[..8192], &new, &old[2 * 8192..]].concat();
    let layer = |blocks, bytes: &[u8]| ToyLayer { blocks, bytes: bytes.to_vec(), length: 5 * 8192 };
    toy.layered_file("base/5/2619.1", vec![layer(None, &old), layer(Some(vec![(1, 1)]), &new)], &whole);
    toy.file("backup_manifest", manifest.as_bytes());
    let mut label = toy.store().await;
    label.native = native;
    let bed = toy.bed(&label).await;
    rebuild(bed.source(), bed.layout.clone(), 3, &silent()).await?.finish()?;
    let path = bed.layout.data.join("backup_manifest");
    assert!(!path.with_extension("unfinished").exists());
    Ok(fs::read_to_string(path).expect("there"))
}

#[tokio::test]
async fn case_56_lines_of_changed_blocks_become_those_of_the_files_and_all_others_stay() {
    let same = line("base/5/1259", 20_000, "0a0b0c0d");
    let lines = [
        line("backup_label", 299, "01020304"),
        line("base/5/INCREMENTAL.2619.1", 16_384, "01020304"),
        same.clone(),
        "{ \"Encoded-Path\": \"ff\", \"Size\": 0, \"Last-Modified\": \"x\" }".to_owned(),
        line("pg_xact/INCREMENTAL.0000", 1, "01020304"),
    ];
    let before = format!("{HEAD}{}\n{TAIL}", lines.join(",\n"));
    let sent = format!("{before}\"Manifest-Checksum\": \"{}\"}}\n", sum(&before));
    assert_eq!(restored(&sent, false).await.expect("sound"), sent, "it was not of changed blocks");

    let manifest = restored(&sent, true).await.expect("sound");
    let (above, last) = manifest.split_at(manifest.rfind("\"Manifest-Checksum\"").expect("its last line"));
    assert_eq!(last, format!("\"Manifest-Checksum\": \"{}\"}}\n", sum(above)));
    assert!(above.starts_with(HEAD) && above.ends_with(TAIL), "{above}");
    for line in &lines[2..] {
        assert!(above.contains(&format!("\n{line}")), "{line} in {above}");
    }
    let read: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let crc = |bytes: &[u8]| -> String {
        crc32c::crc32c(bytes).to_ne_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let label = b"START WAL LOCATION: 0/2000028\n";
    assert_eq!(read["Files"][0]["Path"], "backup_label");
    assert_eq!((&read["Files"][0]["Size"], &read["Files"][0]["Checksum"]), (&label.len().into(), &crc(label).into()));
    let (old, new) = (content(5 * 8192, 4), content(8192, 5));
    let whole = [&old[..8192], &new, &old[2 * 8192..]].concat();
    let file = &read["Files"][1];
    assert_eq!((&file["Path"], &file["Size"]), (&"base/5/2619.1".into(), &whole.len().into()));
    assert_eq!((&file["Checksum"], &file["Checksum-Algorithm"]), (&crc(&whole).into(), &"CRC32C".into()));
    assert_eq!(file["Last-Modified"], "2026-11-21 02:30:00 GMT");
}

#[tokio::test]
async fn a_manifest_that_is_none_is_told() {
    for (manifest, said) in [
        (HEAD.to_owned(), "is cut off"),
        (format!("{HEAD}{{ \"Path\": \"base/5/INCREMENTAL.1259\" }}\n"), "describes no file"),
        (format!("{HEAD}{{ \"Path\": \"../INCREMENTAL.1259\"}}\n"), "describes no file"),
        (format!("{HEAD}{}\n", line("../x", 1, "00")), "not a path below the data directory"),
        (format!("{HEAD}{}", "x".repeat(70_000)), "is cut off"),
    ] {
        let error = restored(&manifest, true).await.expect_err(said).to_string();
        assert!(error.contains("its backup_manifest") && error.contains(said), "{error}");
    }
    let missing = format!("{HEAD}{}\n", line("base/5/INCREMENTAL.7", 1, "00"));
    let missing = format!("{missing}\"Manifest-Checksum\": \"\"}}\n");
    let error = restored(&missing, true).await.expect_err("no such file").to_string();
    assert!(error.contains("base/5/7"), "{error}");
}
