//! A file of which the server sent changed blocks only: which blocks, and the file's length. No I/O.
//!
//! The form is that of PostgreSQL 17 and newer (`basebackup.c`, `sendFile`): magic, how many blocks, truncation block
//! length, the blocks' numbers, all 32 bits in the server's byte order; zeros up to a multiple of the block size where there
//! are blocks; the blocks. "Truncation block length" is the server's name for the length of the file, in blocks: older
//! blocks at or beyond it do not count any more.

use walseal_common::repository::{BlockRun, LAYER_BLOCK};

/// Its first four bytes.
const MAGIC: u32 = 0xd3ae_1f0d;

/// Blocks of a relation's file, at most: PostgreSQL's RELSEG_SIZE, files of 1 GiB.
pub const MOST_BLOCKS: u32 = 131_072;

/// Bytes before the blocks' numbers.
const FIXED: usize = 12;

/// The bytes are not what the server sends of a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its list of changed blocks is not as PostgreSQL writes it: {0}")]
pub struct IncrementalError(pub String);

/// What such a file says beside the blocks themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChangedBlocks {
    /// The blocks that were sent, in order.
    pub runs: Vec<BlockRun>,
    /// Bytes of the file. Of older blocks only those before it are still there.
    pub length: u64,
}

/// Where the reader stands.
#[derive(Debug)]
enum State {
    /// In the first bytes.
    Fixed,
    /// In the numbers, `left` of them.
    Numbers { left: u32 },
    /// In the zeros, `left` bytes of them.
    Padding { left: usize },
    /// In the blocks, `left` bytes of them.
    Blocks { left: u64 },
}

/// Reads one such file as it arrives, in whatever pieces. Holds runs of block numbers only (I11).
#[derive(Debug)]
pub struct IncrementalReader {
    /// Bytes of all of it, by its header in the archive.
    size: u64,
    state: State,
    /// The beginning of a field that came in pieces.
    field: Vec<u8>,
    big_endian: bool,
    /// Blocks that were announced.
    count: u32,
    changed: ChangedBlocks,
}

impl IncrementalReader {
    /// A reader of a file that has `size` bytes in the archive.
    pub fn new(size: u64) -> IncrementalReader {
        let (state, field, changed) = (State::Fixed, Vec::with_capacity(FIXED), ChangedBlocks::default());
        IncrementalReader { size, state, field, big_endian: false, count: 0, changed }
    }

    /// Takes the next bytes, and returns which of them belong to blocks; those are the last ones always.
    ///
    /// Errors: they are not as the server writes them.
    pub fn push<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], IncrementalError> {
        loop {
            match &mut self.state {
                State::Fixed => {
                    let Some(field) = take(&mut self.field, &mut bytes) else { return Ok(&[]) };
                    self.fixed(field)?;
                }
                State::Numbers { left: 0 } => {
                    let before = FIXED as u64 + 4 * u64::from(self.count);
                    let left = if self.count == 0 { 0 } else { padding(before) };
                    self.state = State::Padding { left };
                }
                State::Numbers { left } => {
                    let Some(field) = take(&mut self.field, &mut bytes) else { return Ok(&[]) };
                    *left -= 1;
                    let number = number(field, self.big_endian);
                    self.block(number)?;
                }
                State::Padding { left: 0 } => {
                    self.state = State::Blocks { left: u64::from(self.count) * LAYER_BLOCK };
                }
                State::Padding { left } => {
                    if bytes.is_empty() {
                        return Ok(&[]);
                    }
                    let (zeros, rest) = bytes.split_at((*left).min(bytes.len()));
                    if zeros.iter().any(|byte| *byte != 0) {
                        return Err(wrong("there are bytes between the list and the first block"));
                    }
                    *left -= zeros.len();
                    bytes = rest;
                }
                State::Blocks { left } => {
                    *left = left
                        .checked_sub(bytes.len() as u64)
                        .ok_or_else(|| wrong("there are more bytes than blocks"))?;
                    return Ok(bytes);
                }
            }
        }
    }

    /// All of it has come.
    ///
    /// Errors: it is cut off.
    pub fn finish(mut self) -> Result<ChangedBlocks, IncrementalError> {
        self.push(&[])?;
        match self.state {
            State::Blocks { left: 0 } => Ok(self.changed),
            _ => Err(wrong("it is cut off")),
        }
    }

    fn fixed(&mut self, field: [u8; FIXED]) -> Result<(), IncrementalError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = field;
        let magic = u32::from_le_bytes([a, b, c, d]);
        self.big_endian = magic == MAGIC.swap_bytes();
        if magic != MAGIC && !self.big_endian {
            return Err(wrong(format!("it begins with {magic:08x}, not {MAGIC:08x}")));
        }
        let (count, length) = (number([e, f, g, h], self.big_endian), number([i, j, k, l], self.big_endian));
        if count > MOST_BLOCKS {
            return Err(wrong(format!("it announces {count} blocks; a relation's file has at most {MOST_BLOCKS}")));
        }
        let head = FIXED as u64 + 4 * u64::from(count);
        let head = if count == 0 { head } else { head + padding(head) as u64 };
        let whole = head + u64::from(count) * LAYER_BLOCK;
        if whole != self.size {
            return Err(wrong(format!("with {count} blocks it should have {whole} bytes; it has {}", self.size)));
        }
        self.count = count;
        // The server gives more than a file can have where a relation of several files was cut in a later one.
        self.changed.length = u64::from(length.min(MOST_BLOCKS)) * LAYER_BLOCK;
        self.state = State::Numbers { left: count };
        Ok(())
    }

    fn block(&mut self, number: u32) -> Result<(), IncrementalError> {
        let end = self.changed.runs.last().map_or(0, |run| run.first + run.count);
        if number < end {
            return Err(wrong(format!("block {number} stands after block {}", end - 1)));
        }
        if u64::from(number) * LAYER_BLOCK >= self.changed.length {
            return Err(wrong(format!("block {number} lies beyond its {} bytes", self.changed.length)));
        }
        match self.changed.runs.last_mut() {
            Some(run) if end == number => run.count += 1,
            _ => self.changed.runs.push(BlockRun { first: number, count: 1 }),
        }
        Ok(())
    }
}

/// Zeros between `before` bytes and the next multiple of the block size.
fn padding(before: u64) -> usize {
    ((LAYER_BLOCK - before % LAYER_BLOCK) % LAYER_BLOCK) as usize
}

/// The next `N` bytes, part of which may have come before; none as long as they are not all there.
fn take<const N: usize>(field: &mut Vec<u8>, bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (now, rest) = bytes.split_at((N - field.len().min(N)).min(bytes.len()));
    field.extend_from_slice(now);
    *bytes = rest;
    let whole = <[u8; N]>::try_from(field.as_slice()).ok()?;
    field.clear();
    Some(whole)
}

fn number(field: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) }
}

fn wrong(why: impl Into<String>) -> IncrementalError {
    IncrementalError(why.into())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The file as the server writes it.
    fn file(numbers: &[u32], length: u32, big_endian: bool) -> Vec<u8> {
        let field = |number: u32| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut bytes = Vec::new();
        for number in [MAGIC, numbers.len() as u32, length].into_iter().chain(numbers.iter().copied()) {
            bytes.extend(field(number));
        }
        if !numbers.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(LAYER_BLOCK as usize), 0);
        }
        for number in numbers {
            bytes.extend((0..LAYER_BLOCK as u32).map(|at| (at * 3 + number * 7) as u8));
        }
        bytes
    }

    /// Reads it in pieces: what it says, and the blocks' bytes.
    fn read(file: &[u8], piece: usize) -> Result<(ChangedBlocks, Vec<u8>), IncrementalError> {
        let mut reader = IncrementalReader::new(file.len() as u64);
        let mut blocks = Vec::new();
        for bytes in file.chunks(piece) {
            blocks.extend_from_slice(reader.push(bytes)?);
        }
        Ok((reader.finish()?, blocks))
    }

    fn told(numbers: &[u32], length: u32, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = file(numbers, length, false);
        change(&mut bytes);
        read(&bytes, 1000).expect_err("wrong").to_string()
    }

    #[test]
    fn a_file_without_changes_is_its_head_alone() {
        let bytes = file(&[], 7, false);
        assert_eq!(bytes.len(), 12);
        assert_eq!(read(&bytes, 5), Ok((ChangedBlocks { runs: vec![], length: 7 * LAYER_BLOCK }, vec![])));
    }

    #[test]
    fn a_head_that_ends_at_a_blocks_end_is_not_padded() {
        let numbers: Vec<u32> = (0..(8192 - 12) / 4).collect();
        let (changed, blocks) = read(&file(&numbers, 131_072, false), 4096).expect("right");
        assert_eq!(changed.runs, [BlockRun { first: 0, count: 2045 }]);
        assert_eq!(blocks.len(), 2045 * 8192);
    }

    #[test]
    fn a_length_beyond_what_a_file_can_have_is_the_longest() {
        let (changed, _) = read(&file(&[], 200_000, false), 12).expect("right");
        assert_eq!(changed.length, 1 << 30);
    }

    #[test]
    fn what_the_server_does_not_write_is_told() {
        assert!(told(&[3], 9, |bytes| bytes[0] ^= 1).contains("begins with d3ae1f0c"));
        assert!(told(&[3], 9, |bytes| bytes[4] = 2).contains("with 2 blocks it should have 24576 bytes; it has 16384"));
        assert!(told(&[3], 9, |bytes| bytes[6] = 9).contains("announces 589825 blocks"));
        assert!(told(&[3], 9, |bytes| bytes[8191] = 1).contains("between the list and the first block"));
        assert!(told(&[3, 3], 9, |_| {}).contains("block 3 stands after block 3"));
        assert!(told(&[4, 3], 9, |_| {}).contains("block 3 stands after block 4"));
        assert!(told(&[9], 9, |_| {}).contains("block 9 lies beyond its 73728 bytes"));
        assert!(told(&[3], 9, |bytes| bytes.truncate(9000)).contains("it has 9000"));
        // A size that is right, but not the bytes.
        let bytes = file(&[3], 9, false);
        let mut reader = IncrementalReader::new(bytes.len() as u64);
        reader.push(&bytes[..9000]).expect("so far");
        assert!(reader.finish().expect_err("cut off").to_string().contains("cut off"));
        let mut reader = IncrementalReader::new(bytes.len() as u64);
        reader.push(&bytes).expect("all of it");
        assert!(reader.push(b"x").expect_err("more").to_string().contains("more bytes than blocks"));
        assert!(read(b"", 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_the_server_writes_is_read_whatever_the_pieces(
            numbers in prop::collection::btree_set(0u32..5000, 0..30),
            more in 0u32..100,
            piece in prop_oneof![1usize..20, 1000usize..40_000],
            big_endian in any::<bool>(),
        ) {
            let numbers: Vec<u32> = numbers.into_iter().collect();
            let length = numbers.last().map_or(0, |last| last + 1) + more;
            let bytes = file(&numbers, length, big_endian);
            let (changed, blocks) = read(&bytes, piece).expect("as the server writes it");
            prop_assert_eq!(changed.length, u64::from(length) * LAYER_BLOCK);
            let listed: Vec<u32> = changed.runs.iter().flat_map(|run| run.first..run.first + run.count).collect();
            prop_assert_eq!(&listed, &numbers);
            prop_assert!(changed.runs.windows(2).all(|two| two[0].first + two[0].count < two[1].first), "runs are joined");
            prop_assert!(blocks == bytes[bytes.len() - blocks.len()..] && blocks.len() == numbers.len() * 8192);
        }

        #[test]
        fn bytes_of_any_kind_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..20_000),
            magic in any::<bool>(),
            count in 0u32..4,
            size in prop_oneof![Just(None), Just(Some(8192u64 * 2))],
            piece in 1usize..9000,
        ) {
            if magic && bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                bytes[4..8].copy_from_slice(&count.to_le_bytes());
            }
            let mut reader = IncrementalReader::new(size.unwrap_or(bytes.len() as u64));
            let outcome = bytes.chunks(piece).try_for_each(|bytes| reader.push(bytes).map(|_| ()));
            let outcome = outcome.and_then(|()| reader.finish());
            if let Ok(changed) = outcome {
                prop_assert!(changed.length <= 1 << 30);
            }
        }
    }
}
