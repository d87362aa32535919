//! The disk that the server's WAL lies on, and how much of it a slot should be allowed to keep (case 26).

use std::path::Path;

use walseal_common::postgres::ReplicationClient;
use walseal_common::terminal::units;

use super::Finding;

/// Room on the file system of `pg_wal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalRoom {
    /// Bytes that are free for the server's user.
    pub free: u64,
}

impl WalRoom {
    /// Looks at the disk of the server's `pg_wal`; `None` where that is on another machine, or not for this user to see.
    pub async fn of(client: &mut ReplicationClient) -> Option<WalRoom> {
        if !client.host().is_unix() {
            return None;
        }
        // Only superusers and pg_read_all_settings are told; an error is an answer here.
        let data = client.show("data_directory").await.ok()?;
        WalRoom::below(&data)
    }

    /// Looks at the disk of `pg_wal` in this data directory.
    pub fn below(data: &str) -> Option<WalRoom> {
        let seen = rustix::fs::statvfs(Path::new(data).join("pg_wal")).ok()?;
        Some(WalRoom { free: seen.f_bavail.saturating_mul(seen.f_frsize) })
    }

    /// What the slot may keep: half of what is free, because the server needs room for its own.
    fn half(self) -> String {
        const GIB: u64 = 1 << 30;
        match self.free / 2 {
            bytes if bytes >= GIB => format!("{}GB", bytes / GIB),
            bytes => format!("{}MB", (bytes >> 20).max(64)),
        }
    }
}

/// Whether the WAL that a slot keeps is bounded, and by less than the disk holds. `setting` is `max_slot_wal_keep_size` as SHOW
/// prints it, `give_up_at` is `wal.give_up_at`, in bytes.
pub fn keep_size(setting: &str, room: Option<WalRoom>, give_up_at: Option<u64>) -> Finding {
    const CHECK: &str = "kept WAL";
    let line = |room: WalRoom| {
        format!(
            "max_slot_wal_keep_size = '{}'   # half of the {} that are free where pg_wal lies",
            room.half(),
            units::size(room.free)
        )
    };
    let reload = "in postgresql.conf, then SELECT pg_reload_conf();";
    if setting == "-1" {
        let full = "the slot fills the disk of pg_wal until the server stops";
        let text = match (give_up_at, room) {
            (None, _) => format!("max_slot_wal_keep_size is unlimited: while the repository cannot be reached, {full}"),
            (Some(limit), Some(room)) if limit > room.free => format!(
                "max_slot_wal_keep_size is unlimited, and of wal.give_up_at = {} only {} are free where pg_wal lies: while the \
                 repository cannot be reached, {full}",
                units::size(limit),
                units::size(room.free)
            ),
            (Some(limit), _) => format!(
                "max_slot_wal_keep_size is unlimited: the daemon gives the slot up at wal.give_up_at = {}, but while no daemon \
                 runs, {full}",
                units::size(limit)
            ),
        };
        let step = room.map_or_else(
            || format!("max_slot_wal_keep_size = '…GB'   # half of what is free where pg_wal lies; {reload}"),
            |room| format!("{}\n{reload}", line(room)),
        );
        return Finding::warning(CHECK, text).fix(step);
    }
    let (Some(limit), Some(room)) = (bytes(setting), room) else {
        return Finding::fine(CHECK, format!("max_slot_wal_keep_size = {setting}"));
    };
    if limit > room.free {
        let text = format!(
            "max_slot_wal_keep_size = {setting}, but only {} are free where pg_wal lies: the disk is full before the limit is met",
            units::size(room.free)
        );
        return Finding::warning(CHECK, text).fix(format!("{}\n{reload}", line(room)));
    }
    Finding::fine(CHECK, format!("max_slot_wal_keep_size = {setting}, of {} free", units::size(room.free)))
}

/// Bytes of a size as SHOW prints it: `50GB`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn case_26_an_unlimited_slot_is_warned_about_with_a_value_from_the_disk() {
        let large = keep_size("-1", Some(WalRoom { free: 79 << 30 }), None);
        assert_eq!(large.verdict, Verdict::Warning);
        assert!(large.fix[0].starts_with("max_slot_wal_keep_size = '39GB'   # half of the 79 GiB"), "{large:?}");
        let small = keep_size("-1", Some(WalRoom { free: 1 << 30 }), None);
        assert!(small.fix[0].starts_with("max_slot_wal_keep_size = '512MB'"), "{small:?}");
        let unseen = keep_size("-1", None, None);
        assert!(unseen.verdict == Verdict::Warning && unseen.fix[0].contains("half of what is free"), "{unseen:?}");
    }

    #[test]
    fn case_26_a_limit_beyond_the_disk_is_no_limit() {
        let room = Some(WalRoom { free: 10 << 30 });
        assert_eq!(keep_size("5GB", room, None).verdict, Verdict::Fine);
        let beyond = keep_size("50GB", room, None);
        assert!(beyond.verdict == Verdict::Warning && beyond.fix[0].contains("'5GB'"), "{beyond:?}");
        assert_eq!(keep_size("50GB", None, None).verdict, Verdict::Fine);
    }

    #[test]
    fn case_26_the_daemons_own_limit_counts_only_while_one_runs_and_within_the_disk() {
        let own = keep_size("-1", Some(WalRoom { free: 10 << 30 }), Some(4 << 30));
        assert!(own.verdict == Verdict::Warning && own.text.contains("while no daemon runs"), "{own:?}");
        let beyond = keep_size("-1", Some(WalRoom { free: 1 << 30 }), Some(4 << 30));
        assert!(beyond.text.contains("of wal.give_up_at = 4 GiB only 1 GiB are free"), "{beyond:?}");
    }

    #[test]
    fn sizes_are_read_as_the_server_prints_them() {
        for (text, size) in
            [("64MB", Some(64 << 20)), ("1TB", Some(1 << 40)), ("7", Some(7)), ("x", None), ("9PB", None)]
        {
            assert_eq!(bytes(text), size, "{text}");
        }
        assert_eq!(bytes("99999999999999TB"), None);
    }
}
