//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A log sequence number: a byte position in the WAL stream of a cluster.
///
/// Printed and parsed as PostgreSQL does: `0/3000060`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position that PostgreSQL calls invalid.
    pub const INVALID: Lsn = Lsn(0);

    /// The position `bytes` further on, saturating at the end of the address space.
    pub const fn advance(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to `self`; 0 when `earlier` lies behind.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether this is position 0, which PostgreSQL uses for "none".
    pub const fn is_invalid(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an LSN; expected two hexadecimal numbers such as 0/3000060")]
pub struct LsnParseError(pub String);

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |part: &str| -> Option<u64> {
            let plain = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u64::from_str_radix(part, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn((half(high)? << 32) | half(low)?)))
            .ok_or_else(|| LsnParseError(text.to_owned()))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A half-open range of WAL: `start` belongs to it, `end` does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LsnRange {
    /// First byte of the range.
    pub start: Lsn,
    /// First byte after the range; never below `start`.
    pub end: Lsn,
}

impl LsnRange {
    /// A range, or `None` when it would run backwards.
    pub fn new(start: Lsn, end: Lsn) -> Option<LsnRange> {
        (start <= end).then_some(LsnRange { start, end })
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.end.bytes_since(self.start)
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the byte at `lsn` lies inside.
    pub fn contains(&self, lsn: Lsn) -> bool {
        self.start <= lsn && lsn < self.end
    }

    /// The same bytes in order, without ranges that overlap or touch.
    pub fn joined(mut ranges: Vec<LsnRange>) -> Vec<LsnRange> {
        ranges.sort();
        let mut joined: Vec<LsnRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// What of it lies in `others` as well, which are in order and do not overlap.
    pub fn within(self, others: &[LsnRange]) -> Vec<LsnRange> {
        let cut = |other: &LsnRange| LsnRange::new(self.start.max(other.start), self.end.min(other.end));
        others.iter().filter_map(cut).filter(|both| !both.is_empty()).collect()
    }

    /// What of it does not lie in `others`, in order.
    pub fn without(self, others: &[LsnRange]) -> Vec<LsnRange> {
        let mut rest = vec![self];
        for other in others {
            let cut = |one: LsnRange| {
                let before = LsnRange { start: one.start, end: one.end.min(other.start) };
                let after = LsnRange { start: one.start.max(other.end), end: one.end };
                [before, after].into_iter().filter(|left| left.start < left.end)
            };
            rest = rest.into_iter().flat_map(cut).collect();
        }
        rest
    }
}

impl fmt::Display for LsnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    #[test]
    fn what_lies_in_others_is_left_out() {
        assert_eq!(range(10, 90).without(&[range(20, 30), range(80, 95)]), [range(10, 20), range(30, 80)]);
        assert_eq!(range(10, 90).without(&[range(0, 100)]), []);
        assert_eq!(range(10, 90).without(&[range(90, 95)]), [range(10, 90)]);
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let parts = vec![range(40, 50), range(10, 20), range(20, 30), range(25, 28), range(60, 70)];
        assert_eq!(LsnRange::joined(parts), [range(10, 30), range(40, 50), range(60, 70)]);
    }

    #[test]
    fn lsn_refuses_what_postgres_refuses() {
        for text in ["", "/", "0/", "/0", "1/123456789", "0x1/2", "-1/0", "1/2/3", "g/0", "1 /2", "+1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn lsn_survives_text(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>(), Ok(Lsn(raw)));
        }

        #[test]
        fn lsn_never_panics_on_any_text(text: String) {
            let parsed = text.parse::<Lsn>();
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
