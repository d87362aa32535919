//! Header and trailer without the frames between them.

use bytes::Bytes;

use super::{SYSTEM, fixture, plaintext, sealed};
use crate::seal::{Outline, SealError, SignedHeader};

#[test]
fn an_outline_opens_single_frames_of_an_object_that_nobody_read_whole() {
    let fixture = fixture();
    let plain = plaintext(300_000);
    let whole = sealed(&fixture, "x", &plain);
    let size = whole.len() as u64;
    let header = SignedHeader::length(&whole).expect("a header") as usize;
    let trailer = Outline::trailer_length(&whole[whole.len() - 16..]).expect("a footer") as usize;
    let last = &whole[whole.len() - trailer..];
    let outline =
        Outline::read(&whole[..header], last, size, &fixture.trust, SYSTEM, "x").expect("both ends are whole");
    let mut opener = outline.opener(std::slice::from_ref(&fixture.identity)).expect("the right identity");
    let mut found = Vec::new();
    for number in [4, 1] {
        let range = outline.trailer.frames[number].range();
        let bytes = &whole[range.start as usize..range.end as usize];
        opener.frame_into(number, bytes, &mut found).expect("a frame");
    }
    assert!(
        found[..300_000 - 4 * 65_536] == plain[4 * 65_536..] && found[300_000 - 4 * 65_536..] == plain[65_536..131_072]
    );
}

#[test]
fn an_outline_of_anything_but_both_ends_of_one_object_is_refused() {
    let fixture = fixture();
    let whole = sealed(&fixture, "x", &plaintext(300_000));
    let other = sealed(&fixture, "x", &plaintext(200_000));
    let (size, length) =
        (whole.len() as u64, |bytes: &Bytes| Outline::trailer_length(bytes).expect("a footer") as usize);
    let read = |first: &[u8], last: &[u8], size| Outline::read(first, last, size, &fixture.trust, SYSTEM, "x");
    let last = |bytes: &Bytes| bytes.slice(bytes.len() - length(bytes)..);
    assert!(read(&whole, &last(&whole), size).is_ok());
    // The trailer's signature covers the header.
    assert_eq!(read(&whole, &last(&other), size).err(), Some(SealError::Signature("trailer")));
    for wrong in [size - 1, size + 1, 100, 0] {
        assert!(matches!(read(&whole, &last(&whole), wrong), Err(SealError::Structure(_) | SealError::Truncated(_))));
    }
    for cut in 1..length(&whole) {
        let error = read(&whole, &last(&whole)[cut..], size).expect_err("cut off");
        assert!(matches!(error, SealError::Truncated(_)), "{error:?}");
    }
    let mut flipped = last(&whole).to_vec();
    flipped[100] ^= 1;
    assert!(read(&whole, &flipped, size).is_err());
    let error = Outline::read(&whole, &last(&whole), size, &fixture.trust, SYSTEM, "y").expect_err("another name");
    assert!(matches!(error, SealError::WrongName { .. }), "{error:?}");
}
