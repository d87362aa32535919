//! Settings of the server, each by itself.

use super::Finding;

/// Whether `wal_level` records enough.
pub fn wal_level(setting: &str) -> Finding {
    if setting == "minimal" {
        Finding::failed("wal_level", "wal_level = minimal does not record enough to restore from")
            .fix("set wal_level = replica in postgresql.conf and restart the server")
    } else {
        Finding::fine("wal_level", setting)
    }
}

/// How the server archives by itself, and how that last went.
#[derive(Clone, Debug, Default)]
pub struct ArchiveSettings {
    /// `archive_mode`.
    pub mode: String,
    /// `archive_command`.
    pub command: String,
    /// `archive_library`; empty before PostgreSQL 15.
    pub library: String,
    /// Whether the last try failed, by `pg_stat_archiver`; `None` where that could not be asked.
    pub fails: Option<bool>,
}

/// Whether `archive_command` gets on with the stream.
pub fn archiving(archiving: &ArchiveSettings) -> Finding {
    const CHECK: &str = "archive_command";
    let ArchiveSettings { mode, command, library, fails } = archiving;
    if mode == "off" {
        return Finding::fine(CHECK, "archive_mode is off: WAL comes by streaming alone, as by default");
    }
    let what = match (library.as_str(), command.as_str()) {
        ("", "" | "(disabled)") => {
            return Finding::warning(
                CHECK,
                format!("archive_mode is {mode}, but there is no archive_command: WAL piles up in pg_wal"),
            )
            .fix("archive_command = 'walseal-archiver push %p', then SELECT pg_reload_conf();")
            .fix("archive_mode = off, which takes a restart of the server: the stream needs no hook");
        }
        ("", command) => format!("archive_command = '{command}'"),
        (library, _) => format!("archive_library = '{library}'"),
    };
    if *fails == Some(true) {
        return Finding::warning(
            CHECK,
            format!("{what} fails at the moment, and WAL piles up in pg_wal until it works"),
        )
        .fix("the server's log says why; SELECT * FROM pg_stat_archiver; shows since when");
    }
    let beside = if what.contains("walseal-archiver") && what.contains("push") {
        "the hook of walseal, beside the stream"
    } else {
        "something else than walseal, beside the stream"
    };
    Finding::fine(CHECK, format!("{what}: {beside}"))
}

/// Whether the server notices damaged pages.
pub fn checksums(setting: &str) -> Finding {
    if setting == "on" {
        return Finding::fine("checksums", "data checksums are on: a base backup notices damaged pages");
    }
    Finding::warning("checksums", "data checksums are off: damaged pages go into base backups unnoticed")
        .fix("pg_checksums --enable -D DATA, while the server is stopped")
}

/// Whether the server can tell what has changed, from PostgreSQL 17 on; backups do without it.
pub fn summarize_wal(setting: &str) -> Finding {
    const CHECK: &str = "summarize_wal";
    if setting == "on" {
        return Finding::fine(CHECK, "summarize_wal is on: incremental base backups take changed blocks only");
    }
    Finding::fine(
        CHECK,
        "summarize_wal is off: for an incremental base backup the server reads and sends everything; with ALTER SYSTEM SET \
         summarize_wal = on; SELECT pg_reload_conf(); it would send changed blocks only",
    )
}

/// Oldest PostgreSQL whose protocol and WAL this version speaks.
pub const OLDEST: u32 = 14;

/// Newest PostgreSQL that this version was tested with.
pub const NEWEST: u32 = 18;

/// Whether this version knows the server's.
pub fn version(number: u32) -> Finding {
    const CHECK: &str = "version";
    match number / 10_000 {
        major if major < OLDEST => {
            Finding::failed(CHECK, format!("PostgreSQL {major}; walseal needs {OLDEST} or later"))
                .fix("upgrade the server")
        }
        major if major > NEWEST => Finding::warning(
            CHECK,
            format!("PostgreSQL {major}, which is newer than {NEWEST}, the last that this version was tested with"),
        )
        .fix("look for a newer walseal; restore a backup to see that it works"),
        major => Finding::fine(CHECK, format!("PostgreSQL {major}.{}", number % 10_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn case_26_an_archive_command_that_does_nothing_or_fails_piles_up_wal() {
        let of = |mode: &str, command: &str, library: &str, fails| {
            let (mode, command, library) = (mode.to_owned(), command.to_owned(), library.to_owned());
            archiving(&ArchiveSettings { mode, command, library, fails })
        };
        assert_eq!(of("off", "(disabled)", "", None).verdict, Verdict::Fine);
        assert_eq!(of("on", "", "", Some(false)).verdict, Verdict::Warning);
        let own = of("on", "walseal-archiver push %p", "", Some(false));
        assert!(own.verdict == Verdict::Fine && own.text.contains("the hook of walseal"), "{own:?}");
        assert!(of("always", "cp %p /x/%f", "", None).text.contains("something else"));
        assert!(of("on", "", "basic_archive", Some(false)).text.contains("archive_library = 'basic_archive'"));
        let broken = of("on", "false", "", Some(true));
        assert!(broken.verdict == Verdict::Warning && broken.fix[0].contains("pg_stat_archiver"), "{broken:?}");
    }

    #[test]
    fn versions_that_are_not_known_are_named() {
        assert_eq!(version(130_011).verdict, Verdict::Failed);
        assert_eq!((version(150_018).verdict, version(150_018).text.as_str()), (Verdict::Fine, "PostgreSQL 15.18"));
        assert_eq!(version(190_000).verdict, Verdict::Warning);
        assert_eq!(wal_level("minimal").verdict, Verdict::Failed);
        for (setting, says) in [("on", "take changed blocks only"), ("off", "it would send changed blocks only")] {
            let finding = summarize_wal(setting);
            assert!(finding.verdict == Verdict::Fine && finding.text.contains(says), "{finding:?}");
        }
        assert_eq!((wal_level("logical").verdict, checksums("off").verdict), (Verdict::Fine, Verdict::Warning));
    }
}
