//! WAL of which every record is read.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Flaw, FlawKind};
use walseal_common::segment::SegmentNumber;
use walseal_common::terminal::Opened;

use super::wal;
use crate::sample::{SampleRepository, SampleWal};

/// Three segments of commits; `spoil` changes the bytes before they are stored, as nobody but their writer could.
async fn found(spoil: impl FnOnce(&mut SampleWal, Lsn)) -> (Option<Flaw>, Opened) {
    let sample = SampleRepository::new().await;
    let mut sound = SampleWal::from(SegmentNumber(3).start(sample.size));
    let mut middle = Lsn::INVALID;
    let mut xid = 700;
    while sound.end() < SegmentNumber(5).start(sample.size).advance(300_000) {
        let spot = sound.commit(xid, "2026-11-21T02:30:00Z");
        if spot.start > SegmentNumber(4).start(sample.size).advance(5000) && middle == Lsn::INVALID {
            middle = spot.start;
        }
        xid += 1;
    }
    spoil(&mut sound, middle);
    sample.put_wal(sample.branch(), &sound, sound.start).await;
    let range = LsnRange { start: sound.start, end: sound.end() };
    let (mut opened, mut told) = (Opened::default(), |_| ());
    let verified = wal::verify(
        &sample.repository,
        &sample.identities,
        sample.branch(),
        range,
        sample.size,
        &mut opened,
        &mut told,
    );
    (verified.await.expect("the store answers"), opened)
}

#[tokio::test]
async fn records_that_follow_one_another_are_read_to_the_end() {
    let (flaw, opened) = found(|_, _| ()).await;
    assert_eq!(flaw, None);
    assert!(opened.wal_bytes > (2 << 20) + 300_000, "{opened:?}");
}

#[tokio::test]
async fn a_record_that_its_writer_signed_and_that_is_not_right_is_found() {
    // A byte within the record: its checksum does not match. Its link to the one before: it follows nothing.
    for offset in [26, 8] {
        let (flaw, _) = found(|wal, middle| {
            let at = middle.bytes_since(wal.start) as usize + offset;
            wal.bytes[at] ^= 1;
        })
        .await;
        let flaw = flaw.expect("a flaw");
        assert_eq!(flaw.kind, FlawKind::Record);
        assert!(flaw.object.ends_with("/000000010000000000000004"), "{}", flaw.object);
        assert!(flaw.what.contains("its records end at 0/40"), "{}", flaw.what);
    }
}
