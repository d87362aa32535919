//! How much lies in a repository, in words.

use super::units;
use crate::repository::{Sum, Usage};

/// In a clause: `12 GiB in 5012 objects: base backups 10 GiB, WAL 2 GiB`. Kinds of which there is nothing are left out.
pub fn usage(usage: &Usage) -> String {
    let Sum { objects, bytes } = usage.total();
    let there = usage.kinds().into_iter().filter(|(_, sum)| sum.objects > 0);
    let kinds: Vec<String> = there.map(|(kind, sum)| format!("{kind} {}", units::size(sum.bytes))).collect();
    let colon = if kinds.is_empty() { "" } else { ": " };
    format!("{} in {objects} objects{colon}{}", units::size(bytes), kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_said_by_kind() {
        let mut there = Usage::default();
        assert_eq!(usage(&there), "0 B in 0 objects");
        for (part, objects, bytes) in [("base", 2, 3 << 20), ("wal", 1, 1 << 20), ("ledger", 3, 100), ("gap", 1, 24)] {
            there.take(part, Sum { objects, bytes });
        }
        assert_eq!(usage(&there), "4 MiB in 7 objects: base backups 3 MiB, WAL 1 MiB, the rest 124 B");
        assert_eq!(there.rest, Sum { objects: 4, bytes: 124 });
    }
}
