//! Transaction ids of 32 and of 64 bits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A transaction id as WAL carries it: 32 bits that wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub u32);

impl Xid {
    /// No transaction: most records of maintenance carry this.
    pub const INVALID: Xid = Xid(0);

    /// The lowest id that a transaction of a user can have (`FirstNormalTransactionId`, `transam.h`).
    pub const FIRST_NORMAL: Xid = Xid(3);
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A transaction id that never wraps (`FullTransactionId`): the epoch in the upper 32 bits, as
/// `pg_current_xact_id()` shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FullXid(pub u64);

impl FullXid {
    /// The full id of `xid`, which ran within 2^31 transactions of `near`; at any time that holds for all ids in
    /// the WAL around a checkpoint and its [`next_xid`](super::Checkpoint::next_xid).
    ///
    /// `None` for ids that no transaction of a user has, and for those that would lie before the first.
    pub fn resolve(xid: Xid, near: FullXid) -> Option<FullXid> {
        if xid.0 < Xid::FIRST_NORMAL.0 {
            return None;
        }
        // The truncation is the wrap-around: PostgreSQL compares ids by this same signed difference.
        let distance = xid.0.wrapping_sub(near.0 as u32).cast_signed();
        near.0.checked_add_signed(i64::from(distance)).map(FullXid)
    }

    /// The 32 bits that WAL carries, and that `recovery_target_xid` compares.
    pub const fn xid(self) -> Xid {
        Xid(self.0 as u32)
    }
}

impl fmt::Display for FullXid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_10_xids_around_a_checkpoint_resolve_across_the_wrap() {
        let near = FullXid((7 << 32) | 5);
        assert_eq!(FullXid::resolve(Xid(4), near), Some(FullXid((7 << 32) | 4)));
        assert_eq!(FullXid::resolve(Xid(900), near), Some(FullXid((7 << 32) | 900)));
        assert_eq!(FullXid::resolve(Xid(u32::MAX), near), Some(FullXid((6 << 32) | 0xFFFF_FFFF)));
        assert_eq!(FullXid::resolve(Xid(u32::MAX), FullXid(5)), None, "before the first transaction of all");
        assert_eq!(FullXid::resolve(Xid::INVALID, near), None);
    }

    proptest! {
        #[test]
        fn case_10_a_full_xid_is_found_again_from_its_32_bits(full in 3u64..u64::MAX / 2, distance in -0x7FFF_FFFFi64..0x7FFF_FFFF) {
            let full = FullXid(full);
            prop_assume!(full.xid().0 >= 3);
            if let Some(near) = full.0.checked_add_signed(distance) {
                prop_assert_eq!(FullXid::resolve(full.xid(), FullXid(near)), Some(full));
            }
        }
    }
}
