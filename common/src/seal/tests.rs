//! Every way in which an object can be other than what its writer made is refused, and named.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

const SYSTEM: SystemIdentifier = SystemIdentifier(7_437_123_456_789_012_345);

/// Keys and an object with a few frames, made from fixed randomness.
pub(super) struct Fixture {
    pub(super) identity: Identity,
    pub(super) writer: WriterKey,
    pub(super) trust: TrustedWriters,
}

/// Fixed bytes in place of random ones.
pub(super) struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, target: &mut [u8]) -> Result<(), SealError> {
        for byte in target {
            self.0 = self.0.wrapping_mul(73).wrapping_add(41);
            *byte = self.0;
        }
        Ok(())
    }
}

pub(super) fn fixture() -> Fixture {
    let identity = Identity::generate().expect("random bytes");
    let writer = WriterKey::generate().expect("random bytes");
    let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
    Fixture { identity, writer, trust }
}

fn draft(kind: Kind, name: &str) -> Draft {
    Draft { kind, cluster: SYSTEM, name: name.to_owned(), wal: None, frame_size: 64 << 10, level: 1 }
}

/// Plaintext of `length` bytes that is neither constant nor random.
pub(super) fn plaintext(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / 3) ^ (at >> 8)) as u8).collect()
}

pub(super) fn sealed(fixture: &Fixture, name: &str, plain: &[u8]) -> Bytes {
    let mut sealer =
        draft(Kind::Data, name).seal(&[fixture.identity.recipient().clone()], &fixture.writer).expect("sealable");
    sealer.frames_of(plain).expect("within bounds");
    sealer.finish().expect("sealable").bytes
}

fn read(fixture: &Fixture, name: &str, bytes: Bytes) -> Result<Vec<u8>, SealError> {
    let envelope = Envelope::read(bytes, &fixture.trust, SYSTEM, name)?;
    envelope.verify_frames()?;
    envelope.read_all(std::slice::from_ref(&fixture.identity))
}

#[test]
fn an_object_comes_back_as_it_was() {
    let fixture = fixture();
    for length in [0, 1, 65_535, 65_536, 65_537, 300_000] {
        let plain = plaintext(length);
        let bytes = sealed(&fixture, "base/x/data/00000000", &plain);
        assert_eq!(read(&fixture, "base/x/data/00000000", bytes), Ok(plain), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn runs_sealed_in_any_order_make_the_same_object_as_one_frame_after_the_other(
        lengths in prop::collection::vec(0usize..=65_536, 1..40),
        cut in 1usize..8,
        pooled: bool,
    ) {
        let fixture = fixture();
        let recipients = [fixture.identity.recipient().clone()];
        let plains: Vec<Vec<u8>> = lengths.iter().map(|length| plaintext(*length)).collect();
        let created = "2026-11-21T02:30:00Z".parse().expect("a time");
        let mut sealer =
            draft(Kind::Data, "x").seal_with(&recipients, &fixture.writer, &mut Counting(1), created).expect("sealable");
        for plain in &plains {
            sealer.frame(plain).expect("within bounds");
        }
        let sequential = sealer.finish().expect("sealable");

        let (frames, mut assembly) =
            draft(Kind::Data, "x").open_with(&recipients, &fixture.writer, &mut Counting(1), created).expect("sealable");
        let workshop = Workshop::new(1, 1 << 20);
        if pooled {
            assembly.reserve_in(&workshop);
        }
        let starts: Vec<usize> = (0..plains.len()).step_by(cut).collect();
        // Sealed from the last to the first, put together in order.
        let mut runs: Vec<SealedRun> = starts.iter().rev().map(|start| {
            let end = (start + cut).min(plains.len());
            let run = plains[*start..end].iter().map(Vec::as_slice);
            workshop.seal(&frames, *start as u64, run, end == plains.len()).expect("within bounds")
        }).collect();
        if runs.len() > 1 {
            prop_assert!(assembly.append(&runs[0]).is_err(), "the last run is not the first");
        }
        while let Some(run) = runs.pop() {
            assembly.append(&run).expect("in order");
        }
        let assembled = assembly.finish::<()>(None).expect("ended");
        prop_assert_eq!(&assembled.bytes, &sequential.bytes);
        prop_assert_eq!(assembled.plain_size, sequential.plain_size);
    }
}

#[test]
fn i7_an_object_without_its_last_frame_is_not_finished() {
    let fixture = fixture();
    let opened = draft(Kind::Data, "x").open(&[fixture.identity.recipient().clone()], &fixture.writer);
    let (frames, mut assembly) = opened.expect("sealable");
    assembly.append(&Workshop::new(1, 0).seal(&frames, 0, [&b"first"[..]], false).expect("small")).expect("in order");
    assert!(assembly.finish::<()>(None).is_err());
}

#[test]
fn i9_no_text_of_the_plaintext_is_in_the_object() {
    let fixture = fixture();
    let needle = b"a customer's name that nobody may read";
    let bytes = sealed(&fixture, "x", &needle.repeat(3000));
    assert!(!bytes.windows(12).any(|window| window == &needle[..12]));
}

#[test]
fn i9_a_writer_key_opens_nothing_but_its_own_lists() {
    let fixture = fixture();
    let resume = fixture.writer.resume().expect("any seed makes one");
    let name = "base/20261121T023000Z-0000002a/resume/00000000";
    let seal = |kind, writer: &WriterKey| {
        let recipients = [resume.recipient().clone(), fixture.identity.recipient().clone()];
        let mut sealer = draft(kind, name).seal(&recipients, writer).expect("sealable");
        sealer.frames_of(b"a list").expect("within bounds");
        sealer.finish().expect("sealable").bytes
    };
    let open = |bytes| resume.open(&Envelope::read(bytes, &fixture.trust, SYSTEM, name).expect("whole"));
    assert_eq!(open(seal(Kind::Resume, &fixture.writer)).as_deref(), Ok(&b"a list"[..]));
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_sealed() && !kind.is_wal() && *kind != Kind::Resume) {
        // Even where somebody sealed it to this key as well.
        assert_eq!(open(seal(kind, &fixture.writer)), Err(SealError::NotForArchivers(kind.word())));
        let refused = resume.seal(draft(kind, name), &fixture.writer).map(|_| ());
        assert_eq!(refused, Err(SealError::NotForArchivers(kind.word())));
    }
    // Another writer's identity is another one, and the restorer's opens none of these.
    let other = fixture.writer.generate_sibling().expect("random bytes").resume().expect("any seed makes one");
    assert_ne!(other.recipient(), resume.recipient());
    let mut own = resume.seal(draft(Kind::Resume, name), &fixture.writer).expect("sealable");
    own.frame(b"a list").expect("within bounds");
    let own = Envelope::read(own.finish().expect("sealable").bytes, &fixture.trust, SYSTEM, name).expect("whole");
    assert!(matches!(other.open(&own), Err(SealError::WrongIdentity(_))));
    assert!(own.read_all(std::slice::from_ref(&fixture.identity)).is_err());
}

#[test]
fn every_single_bit_flip_is_refused() {
    let fixture = fixture();
    let plain = plaintext(3 * (64 << 10) / 2);
    let whole = sealed(&fixture, "x", &plain);
    // Every bit of header, trailer and footer, and a stride over the frames, which are all alike.
    let envelope = Envelope::read(whole.clone(), &fixture.trust, SYSTEM, "x").expect("whole");
    let frames = envelope.trailer.frames[0].at as usize..envelope.trailer.frames[1].range().end as usize;
    for at in 0..whole.len() {
        if frames.contains(&at) && at % 97 != 0 && at - frames.start > 16 {
            continue;
        }
        for bit in 0..8 {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            let outcome = read(&fixture, "x", Bytes::from(flipped));
            assert!(outcome.is_err(), "bit {bit} of byte {at} of {} was flipped unnoticed", whole.len());
            if frames.contains(&at) {
                assert!(matches!(outcome, Err(SealError::FrameDamaged(_))), "byte {at}: {outcome:?}");
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let fixture = fixture();
    let whole = sealed(&fixture, "x", &plaintext(200_000));
    for length in (0..whole.len()).filter(|length| length % 211 == 0 || whole.len() - length < 700 || *length < 900) {
        let outcome = read(&fixture, "x", whole.slice(..length));
        assert!(
            matches!(outcome, Err(SealError::Truncated(_) | SealError::Structure(_))),
            "cut to {length}: {outcome:?}"
        );
    }
    for extra in [1, 16, 80, 5000] {
        let longer = [&whole[..], &vec![0; extra]].concat();
        assert!(read(&fixture, "x", Bytes::from(longer)).is_err(), "{extra} bytes more");
    }
    let twice = [&whole[..], &whole[..]].concat();
    assert!(matches!(read(&fixture, "x", Bytes::from(twice)), Err(SealError::Structure(_))));
}

#[test]
fn swapped_frames_are_refused() {
    let fixture = fixture();
    // Two frames whose ciphertexts have equal length, so that swapping them leaves the structure whole.
    let plain = [[7_u8; 64 << 10], [9_u8; 64 << 10]].concat();
    let whole = sealed(&fixture, "x", &plain);
    let envelope = Envelope::read(whole.clone(), &fixture.trust, SYSTEM, "x").expect("whole");
    let [one, two] = [envelope.trailer.frames[0].range(), envelope.trailer.frames[1].range()];
    assert_eq!(one.end - one.start, two.end - two.start);
    let part = |range: &std::ops::Range<u64>| &whole[range.start as usize..range.end as usize];
    let swapped = [&whole[..one.start as usize], part(&two), part(&one), &whole[two.end as usize..]].concat();
    let swapped = Bytes::from(swapped);
    assert_eq!(read(&fixture, "x", swapped.clone()), Err(SealError::FrameReplaced(0)));
    // Also when the table is not asked: the nonce holds the frame's number.
    let mut opener = envelope.open(std::slice::from_ref(&fixture.identity)).expect("the right identity");
    let mut out = Vec::new();
    assert!(opener.frame_into(0, part(&two), &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn a_frame_that_was_resealed_by_a_reader_is_refused() {
    // Who can read knows the data key, and could encrypt other bytes under it. The trailer's signature says no.
    let fixture = fixture();
    let genuine = sealed(&fixture, "x", &plaintext(1000));
    let other = sealed(&fixture, "x", &plaintext(1000));
    let frames = |bytes: &Bytes| {
        let envelope = Envelope::read(bytes.clone(), &fixture.trust, SYSTEM, "x").expect("whole");
        let range = envelope.trailer.frames[0].range();
        range.start as usize..range.end as usize
    };
    let mut forged = genuine.to_vec();
    forged[frames(&genuine)].copy_from_slice(&other[frames(&other)]);
    assert_eq!(read(&fixture, "x", Bytes::from(forged)), Err(SealError::FrameReplaced(0)));
}

#[test]
fn another_object_under_this_name_is_refused() {
    let fixture = fixture();
    let bytes = sealed(&fixture, "x", b"one");
    assert!(matches!(read(&fixture, "y", bytes.clone()), Err(SealError::WrongName { .. })));
    let other = SystemIdentifier(1);
    let outcome = Envelope::read(bytes, &fixture.trust, other, "x");
    assert!(matches!(outcome, Err(SealError::WrongCluster { .. })));
}

#[test]
fn an_untrusted_writer_is_refused_and_named() {
    let (fixture, stranger) = (fixture(), fixture_of_a_stranger());
    let bytes = sealed(&stranger, "x", b"one");
    let outcome = read(&fixture, "x", bytes.clone());
    assert_eq!(outcome, Err(SealError::UntrustedWriter(stranger.writer.public().to_string())));
    assert_eq!(SignedHeader::claimed_writer(&bytes), Some(stranger.writer.public().to_string()));
    let nobody = Fixture { trust: TrustedWriters::default(), ..fixture_of_a_stranger() };
    assert!(matches!(read(&nobody, "x", bytes), Err(SealError::UntrustedWriter(_))));
}

fn fixture_of_a_stranger() -> Fixture {
    fixture()
}

#[test]
fn a_writer_without_the_role_is_refused() {
    let fixture = fixture();
    let drill = TrustedWriter { key: fixture.writer.public(), roles: vec![Role::Drill] };
    let trust = TrustedWriters::new(vec![drill]);
    let outcome = Envelope::read(sealed(&fixture, "x", b"one"), &trust, SYSTEM, "x");
    assert!(matches!(outcome, Err(SealError::WrongRole { kind: "data", .. })), "{outcome:?}");
}

#[test]
fn a_wrong_identity_is_refused() {
    let (fixture, stranger) = (fixture(), fixture_of_a_stranger());
    let envelope = Envelope::read(sealed(&fixture, "x", b"one"), &fixture.trust, SYSTEM, "x").expect("whole");
    let outcome = envelope.read_all(std::slice::from_ref(&stranger.identity));
    assert!(matches!(outcome, Err(SealError::WrongIdentity(_))), "{outcome:?}");
    assert!(matches!(envelope.read_all(&[]), Err(SealError::WrongIdentity(_))));
}

#[test]
fn every_recipient_can_open_alone() {
    let (one, two) = (fixture(), fixture());
    let recipients = [one.identity.recipient().clone(), two.identity.recipient().clone()];
    let mut sealer = draft(Kind::Data, "x").seal(&recipients, &one.writer).expect("sealable");
    sealer.frame(b"for both").expect("small");
    let bytes = sealer.finish().expect("sealable").bytes;
    let envelope = Envelope::read(bytes, &one.trust, SYSTEM, "x").expect("whole");
    for identity in [one.identity, two.identity] {
        assert_eq!(envelope.read_all(&[identity]).as_deref(), Ok(&b"for both"[..]));
    }
}

#[test]
fn case_37_no_two_objects_share_a_data_key_or_nonce() {
    let fixture = fixture();
    let sealing = |bytes: Bytes| {
        let envelope = Envelope::read(bytes, &fixture.trust, SYSTEM, "x").expect("whole");
        envelope.header().sealed.clone().expect("sealed")
    };
    let (one, two) = (sealing(sealed(&fixture, "x", b"same")), sealing(sealed(&fixture, "x", b"same")));
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.recipients[0].enc, two.recipients[0].enc);
    assert_ne!(one.recipients[0].key, two.recipients[0].key);
}

#[test]
fn nothing_is_sealed_to_nobody() {
    let outcome = draft(Kind::Data, "x").seal(&[], &fixture().writer);
    assert!(outcome.is_err());
}

#[test]
fn an_object_never_holds_more_than_16_mib() {
    let fixture = fixture();
    let mut sealer =
        draft(Kind::Data, "x").seal(&[fixture.identity.recipient().clone()], &fixture.writer).expect("sealable");
    let frame = vec![0; 64 << 10];
    for _ in 0..256 {
        sealer.frame(&frame).expect("within bounds");
    }
    assert!(matches!(sealer.frame(&[0]), Err(SealError::TooLarge(_))));
    assert!(matches!(sealer.frame(&vec![0; (64 << 10) + 1]), Err(SealError::TooLarge(_))));
}

#[test]
fn unknown_versions_and_kinds_are_refused_by_name() {
    let fixture = fixture();
    let whole = sealed(&fixture, "x", b"one");
    let mut future = whole.to_vec();
    future[8] = 2;
    assert_eq!(read(&fixture, "x", Bytes::from(future)), Err(SealError::UnknownVersion(2)));
    let json = br#"{"kind":"hologram","cluster":"7437123456789012345","name":"x","writer":"w","created":"2026-11-21T00:00:00Z"}"#;
    assert_eq!(Header::parse(json), Err(SealError::UnknownKind("hologram".to_owned())));
    assert_eq!(read(&fixture, "x", Bytes::from_static(b"PK\x03\x04 a zip file")), Err(SealError::NotAnObject));
}

#[test]
fn a_plain_body_is_signed() {
    let fixture = fixture();
    let object = draft(Kind::Label, "base/x/label").sign(&fixture.writer, &serde_json::json!({"id": "x"})).expect("ok");
    let envelope = Envelope::read(object.bytes.clone(), &fixture.trust, SYSTEM, "base/x/label").expect("whole");
    assert_eq!(envelope.trailer.body::<serde_json::Value>(), Ok(serde_json::json!({"id": "x"})));
    assert_eq!(envelope.read_all(std::slice::from_ref(&fixture.identity)), Err(SealError::NothingSealed("label")));
    for at in 0..object.bytes.len() {
        let mut flipped = object.bytes.to_vec();
        flipped[at] ^= 4;
        assert!(Envelope::read(Bytes::from(flipped), &fixture.trust, SYSTEM, "base/x/label").is_err(), "byte {at}");
    }
}

/// A section for `start..end` of segment 3 with digests of `segment`, the segment's bytes.
pub(super) fn wal_section(writer: &WriterKey, segment: &[u8], start: u64, end: u64) -> WalSection {
    let size = SegmentSize::DEFAULT;
    let base = SegmentNumber(3).start(size).0;
    let digest = |length: u64| {
        let mut hasher = writer.compare().hasher();
        hasher.update(&segment[..length as usize]);
        hasher.digest()
    };
    let mut transactions = Transactions::default();
    transactions.add("2026-11-21T02:30:00.123456Z".parse().expect("a time"));
    WalSection {
        branch: TimelineHistory::root(TimelineId::FIRST).branch(SYSTEM),
        segment: SegmentName::new(TimelineId::FIRST, SegmentNumber(3), size),
        segment_size: size,
        start: Lsn(base + start),
        end: Lsn(base + end),
        compare_key: writer.compare().id(),
        digest_start: digest(start),
        digest_end: digest(end),
        transactions,
        leading_unread: false,
        durable: None,
    }
}

#[test]
fn a_wal_header_says_what_was_durable_where_its_writer_knew_and_older_ones_stay_readable() {
    let section = wal_section(&fixture().writer, &plaintext(1 << 20), 0, 1000);
    let silent = serde_json::to_value(&section).expect("serialisable");
    assert!(silent.get("durable").is_none(), "objects of before have no such member: {silent}");
    let told = WalSection { durable: Some(Lsn(0x300_0000)), ..section.clone() };
    let mut json = serde_json::to_value(&told).expect("serialisable");
    assert_eq!(json["durable"], "0/3000000");
    assert_eq!(serde_json::from_value::<WalSection>(json.clone()).expect("its own text"), told);
    json["durable"] = serde_json::Value::Null;
    assert_eq!(serde_json::from_value::<WalSection>(json).expect("what may be missing may be null"), section);
}

#[test]
fn a_wal_header_is_trusted_after_one_small_read() {
    let fixture = fixture();
    let segment = plaintext(1 << 20);
    let section = wal_section(&fixture.writer, &segment, 0, 1000);
    let name = "tail/b/s/x";
    let mut sealer = Draft { wal: Some(section.clone()), ..draft(Kind::Tail, name) }
        .seal(&[fixture.identity.recipient().clone()], &fixture.writer)
        .expect("sealable");
    sealer.frames_of(&segment[..1000]).expect("small");
    let bytes = sealer.finish().expect("sealable").bytes;
    let prefix = &bytes[..bytes.len().min(SIGNED_PREFIX_HINT as usize)];
    let signed = SignedHeader::read(prefix, &fixture.trust, SYSTEM, name).expect("whole");
    assert_eq!(signed.header.wal, Some(section));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes: Vec<u8>, dress: bool) {
        let fixture = fixture();
        if dress && bytes.len() >= 16 {
            bytes[..10].copy_from_slice(b"WALSEAL\0\x01\0");
            bytes[10..16].copy_from_slice(&[0, 0, 20, 0, 0, 0]);
        }
        prop_assert!(Envelope::read(Bytes::from(bytes), &fixture.trust, SYSTEM, "x").is_err());
    }

    #[test]
    fn any_damage_to_a_small_object_is_refused(at: prop::sample::Index, with in 1u8.., cut: prop::sample::Index) {
        let fixture = fixture();
        let whole = sealed(&fixture, "x", &plaintext(500));
        let mut damaged = whole.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= with;
        prop_assert!(read(&fixture, "x", Bytes::from(damaged)).is_err());
        prop_assert!(read(&fixture, "x", whole.slice(..cut.index(whole.len()))).is_err());
    }
}

mod outline;
mod vectors;
