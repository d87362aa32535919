//! Little-endian fields at a place in some bytes; `None` where the bytes end too soon.
//!
//! WAL is written in the server's byte order; every platform that PostgreSQL 14 and later are shipped for in
//! practice is little-endian. On others the page magic is not recognised and the WAL is refused by name.

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

pub(super) fn i64_at(bytes: &[u8], offset: usize) -> Option<i64> {
    array(bytes, offset).map(i64::from_le_bytes)
}
