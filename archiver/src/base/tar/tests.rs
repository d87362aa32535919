#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use proptest::prelude::*;

use super::*;
use walseal_common::repository::RelativePath;

/// A header block as `tarCreateHeader` makes it.
fn block(name: &[u8], kind: u8, mode: u64, size: u64, mtime: u64, target: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    let mut number = |at: usize, length: usize, value: u64| {
        let field = &mut block[at..at + length];
        if value < 1 << ((length - 1) * 3) {
            let digits = format!("{value:0width$o} ", width = length - 1);
            field.copy_from_slice(digits.as_bytes());
        } else {
            let bytes = value.to_be_bytes();
            field.fill(0);
            let keep = bytes.len().min(length - 1);
            field[length - keep..].copy_from_slice(&bytes[bytes.len() - keep..]);
            field[0] = 0x80;
        }
    };
    number(100, 8, mode);
    number(108, 8, 3_000_000);
    number(116, 8, 105);
    number(124, 12, size);
    number(136, 12, mtime);
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Puts the right checksum in.
fn seal(block: &mut [u8; BLOCK]) {
    let sum = format!("{:07o} ", header::checksum(block));
    block[148..156].copy_from_slice(sum.as_bytes());
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = block(name.as_bytes(), b'0', 0o600, content.len() as u64, 1_700_000_000, b"").to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn read(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<TarEvent>, TarError> {
    let mut reader = TarReader::new();
    let mut events: Vec<TarEvent> = Vec::new();
    for piece in pieces {
        for event in reader.push(piece)? {
            match (events.last_mut(), event) {
                (Some(TarEvent::Data(before)), TarEvent::Data(more)) => {
                    *before = [before.as_ref(), more.as_ref()].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
    }
    reader.finish().map(|()| events)
}

fn read_whole(archive: &[u8]) -> Result<Vec<TarEvent>, TarError> {
    read([Bytes::copy_from_slice(archive)])
}

/// Path, mode, kind and content of each entry, in order.
fn entries(events: Vec<TarEvent>) -> Vec<(TarHeader, Vec<u8>)> {
    let mut found: Vec<(TarHeader, Vec<u8>)> = Vec::new();
    for event in events {
        match event {
            TarEvent::Entry(header) => found.push((header, Vec::new())),
            TarEvent::Data(bytes) => found.last_mut().expect("data follow an entry").1.extend_from_slice(&bytes),
            TarEvent::EntryEnd | TarEvent::End => {}
        }
    }
    found
}

#[test]
fn case_34_an_archive_is_read_with_and_without_its_end_mark() {
    let mut archive = file("backup_label", b"START WAL LOCATION");
    let old = read_whole(&archive).expect("as PostgreSQL 14 sends it");
    archive.extend_from_slice(&[0; 2 * BLOCK]);
    let new = read_whole(&archive).expect("as PostgreSQL 15 sends it");
    assert_eq!(new[..new.len() - 1], old[..]);
    assert_eq!(new.last(), Some(&TarEvent::End));
    archive.extend_from_slice(&[0; 8704]);
    assert_eq!(read_whole(&archive), Ok(new), "zeros behind the end mark, as GNU tar writes them");
}

#[test]
fn an_empty_archive_is_one() {
    assert_eq!(read_whole(b""), Ok(vec![]));
    assert_eq!(read_whole(&[0; 2 * BLOCK]), Ok(vec![TarEvent::End]));
}

#[test]
fn files_over_eight_gigabytes_have_their_size_in_base_256() {
    let size = (1 << 36) + 5;
    let events =
        TarReader::new().push(Bytes::copy_from_slice(&block(b"core", b'0', 0o640, size, 0, b""))).expect("fine");
    let path = RelativePath::new(b"core").expect("fine");
    assert_eq!(events, [TarEvent::Entry(TarHeader { path, mode: 0o640, mtime: 0, kind: EntryKind::File { size } })]);
}

#[test]
fn times_before_1970_are_negative() {
    let archive = block(b"./old/", b'5', 0o700, 0, (-3_600i64) as u64, b"");
    let found = entries(read_whole(&archive).expect("fine"));
    assert_eq!((found[0].0.mtime, &found[0].0.kind), (-3_600, &EntryKind::Directory));
    assert_eq!(found[0].0.path.to_string(), "old");
}

#[test]
fn names_need_not_be_utf8() {
    let archive = block(b"base/\xff\xfe", b'0', 0o600, 0, 0, b"");
    assert_eq!(entries(read_whole(&archive).expect("fine"))[0].0.path.as_bytes(), b"base/\xff\xfe");
}

#[test]
fn whatever_is_odd_is_refused_with_entry_and_offset() {
    let good = file("first", b"x");
    let at = good.len() as u64;
    let changed = |change: &dyn Fn(&mut [u8; BLOCK])| {
        let mut header = block(b"second", b'0', 0o600, 0, 0, b"");
        change(&mut header);
        seal(&mut header);
        header.to_vec()
    };
    let unsealed = {
        let mut header = block(b"second", b'0', 0o600, 0, 0, b"");
        header[0] = b'S';
        header.to_vec()
    };
    let one_zero_block = [vec![0; BLOCK], file("second", b"")].concat();
    let after_end = [vec![0; 2 * BLOCK], b"x".to_vec()].concat();
    let mut padded = file("second", b"abc");
    padded[BLOCK + 3] = 1;
    let dotted = block(b"././x", b'0', 0o600, 0, 0, b"").to_vec();
    let link = |target: &[u8], size| block(b"second/", b'2', 0o777, size, 0, target).to_vec();
    for (odd, offset, entry, words) in [
        (unsealed, at, Some("Second"), "checksum"),
        (changed(&|h| h[257..265].copy_from_slice(b"ustar  \0")), at, Some("second"), "ustar"),
        (changed(&|h| h[156] = b'L'), at, Some("second"), "type 'L'"),
        (changed(&|h| h[156] = b'1'), at, Some("second"), "type '1'"),
        (changed(&|h| h[156] = 0), at, Some("second"), "type '\\x00'"),
        (changed(&|h| h[50] = b'x'), at, None, "name has bytes after its end"),
        (changed(&|h| h[..6].fill(0)), at, Some(""), "not a path"),
        (changed(&|h| h[..6].copy_from_slice(b"a/../b")), at, Some("a/../b"), "not a path"),
        (changed(&|h| h[..6].copy_from_slice(b"/etc/x")), at, Some("/etc/x"), "not a path"),
        (changed(&|h| h[345..347].copy_from_slice(b"..")), at, Some("second"), "\"../second\" is not a path"),
        (changed(&|h| h[100..108].copy_from_slice(b"0100600 ")), at, Some("second"), "mode"),
        (changed(&|h| h[100..108].copy_from_slice(b"        ")), at, Some("second"), "mode is not a number"),
        (changed(&|h| h[124..136].copy_from_slice(b"0000000008  ")), at, Some("second"), "size is not a number"),
        (
            changed(&|h| h[124..136].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
            at,
            Some("second"),
            "64 bits",
        ),
        (changed(&|h| h[108..116].copy_from_slice(b"postgres")), at, Some("second"), "user id"),
        (dotted, at, Some("././x"), "\"./x\" is not a path"),
        (link(b"", 0), at, Some("second/"), "points nowhere"),
        (link(b"/srv/x", 7), at, Some("second/"), "7 bytes follow"),
        (padded, at + 512 + 3, Some("second"), "padding"),
        (one_zero_block, at + 512, None, "one block of zeros"),
        (after_end, at + 1024, None, "after the archive's end"),
        (vec![0; BLOCK], at + 512, None, "end mark"),
        (vec![0; 100], at + 100, None, "middle of a header"),
        (file("second", b"abc")[..514].to_vec(), at + 514, Some("second"), "510 bytes before"),
    ] {
        let error = read_whole(&[good.clone(), odd].concat()).expect_err(words);
        assert!(error.to_string().contains(words), "{error} does not say {words:?}");
        assert_eq!((error.offset, error.entry.as_deref()), (offset, entry), "{error}");
    }
}

#[test]
fn after_an_error_every_call_returns_it() {
    let mut reader = TarReader::new();
    let error = reader.push(Bytes::from_static(&[1; BLOCK])).expect_err("not a header");
    assert_eq!(reader.push(Bytes::from(file("fine", b""))), Err(error.clone()));
    assert_eq!(reader.finish(), Err(error));
}

#[test]
fn archives_of_gnu_tar_are_read_as_it_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("in");
    let deep = root.join("base").join("a".repeat(60)).join("b".repeat(60));
    std::fs::create_dir_all(&deep).expect("folders");
    for (name, size) in [("empty", 0), ("one", 1), ("block", 512), ("with space", 513), ("large", 1 << 20)] {
        let content: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        std::fs::write(root.join("base").join(name), content).expect("a file");
    }
    std::fs::write(deep.join("deep"), b"prefix and name").expect("a file");
    std::os::unix::fs::symlink("/srv/table space", root.join("base/16384")).expect("a link");
    let output = Command::new("tar")
        .args(["--format=ustar", "--sort=name", "--mtime=@1700000000", "-cf", "-", "-C"])
        .arg(&root)
        .arg("base")
        .output()
        .expect("GNU tar is needed; run `apt-get install tar`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = entries(read_whole(&output.stdout).expect("an archive"));
    assert_eq!(found.len(), 10);
    for (header, content) in &found {
        let path = root.join(header.path.to_string());
        assert_eq!(header.mtime, 1_700_000_000, "{}", header.path);
        match &header.kind {
            EntryKind::File { size } => {
                assert_eq!(&std::fs::read(path).expect("the file"), content, "{}", header.path);
                assert_eq!(*size, content.len() as u64);
            }
            EntryKind::Directory => assert!(path.is_dir()),
            EntryKind::Symlink { target } => assert_eq!(target, b"/srv/table space"),
        }
    }
}

prop_compose! {
    fn archives()(
        files in prop::collection::vec(("[a-z]{1,9}(/[a-z]{1,9}){0,3}", prop::collection::vec(any::<u8>(), 0..1_500)), 0..6),
        end in any::<bool>(),
    ) -> Vec<u8> {
        let mut archive: Vec<u8> = files.iter().flat_map(|(name, content)| file(name, content)).collect();
        archive.extend(std::iter::repeat_n(0, if end { 2 * BLOCK } else { 0 }));
        archive
    }
}

proptest! {
    #[test]
    fn any_chunking_reads_like_one_piece(
        archive in archives(),
        cuts in prop::collection::vec(1usize..700, 1..50),
        flip in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
    ) {
        let mut archive = archive;
        if let (Some((at, bits)), false) = (flip, archive.is_empty()) {
            let at = at.index(archive.len());
            archive[at] ^= bits;
        }
        let mut rest = Bytes::from(archive.clone());
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            pieces.push(rest.split_to((*cut).min(rest.len())));
        }
        prop_assert_eq!(read(pieces), read_whole(&archive));
    }

    #[test]
    fn what_was_packed_comes_out(content in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_500), 0..5)) {
        let archive: Vec<u8> = content.iter().enumerate().flat_map(|(n, bytes)| file(&format!("f{n}"), bytes)).collect();
        let found: Vec<Vec<u8>> = entries(read_whole(&archive).expect("fine")).into_iter().map(|(_, bytes)| bytes).collect();
        prop_assert_eq!(found, content);
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let answer = read_whole(&bytes);
        prop_assert!(answer.is_err() || bytes.iter().all(|&b| b == 0));
    }

    #[test]
    fn any_sealed_header_gives_an_answer(bytes in prop::collection::vec(any::<u8>(), BLOCK)) {
        let mut header: [u8; BLOCK] = bytes.try_into().expect("a block");
        header[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut header);
        let answer = read_whole(&header);
        prop_assert!(answer.is_err() || answer.is_ok_and(|events| events.len() >= 2));
    }
}
