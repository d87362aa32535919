//! The row that an insert writes: from the record, or from the page's image that stands in for it.

use super::super::field::{u16_at, u32_at};
use super::super::record::RecordBody;

/// Bytes of `HeapTupleHeaderData` before the bitmap of nulls (`htup_details.h`).
const TUPLE_HEADER: usize = 23;
/// Bytes of `xl_heap_header`: what is kept of that header in a record.
const RECORD_HEADER: usize = 5;
/// Where a page's line pointers begin (`SizeOfPageHeaderData`).
const LINE_POINTERS: usize = 24;
/// Bytes of a data page (`BLCKSZ`).
const PAGE: usize = 8192;

/// The fixed columns and what follows of a row that a heap insert writes; `None` where the page's image is compressed, or the bytes
/// are not those of such a record.
pub(super) fn inserted<'a>(body: &RecordBody<'a>, bytes: &'a [u8]) -> Option<Vec<u8>> {
    let block = body.blocks.first()?;
    let (image, data) = body.block_bytes(bytes, 0)?;
    if !data.is_empty() {
        let hoff = usize::from(*data.get(4)?);
        return data.get(RECORD_HEADER + hoff.checked_sub(TUPLE_HEADER)?..).map(<[u8]>::to_vec);
    }
    let told = block.image.filter(|image| !image.compressed)?;
    let (before, after) = image.split_at_checked(usize::from(told.hole_offset))?;
    let mut page = before.to_vec();
    page.resize(before.len() + usize::from(told.hole_length), 0);
    page.extend_from_slice(after);
    if page.len() != PAGE {
        return None;
    }
    let number = usize::from(u16_at(body.main, 0)?).checked_sub(1)?;
    // lp_off: 15 bits, lp_flags: 2, lp_len: 15 (`itemid.h`).
    let pointer = u32_at(&page, LINE_POINTERS + number * 4)?;
    let (offset, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
    let tuple = page.get(offset..offset + length)?;
    let hoff = usize::from(*tuple.get(TUPLE_HEADER - 1)?);
    tuple.get(hoff..).map(<[u8]>::to_vec)
}
