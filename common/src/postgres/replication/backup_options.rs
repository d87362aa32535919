//! What a base backup is asked to be, and BASE_BACKUP's two grammars (case 34).

use super::{VERSION_15, VERSION_17};
use crate::postgres::error::PostgresError;

/// How the checkpoint at the start is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checkpoint {
    /// At once, at the cost of writes.
    Fast,
    /// Spread over `checkpoint_completion_target`; takes minutes.
    #[default]
    Spread,
}

/// The checksum of each file in the server's manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ManifestChecksums {
    /// SHA-256.
    #[default]
    Sha256,
    /// CRC-32C: cheaper for the server, finds accidents only.
    Crc32c,
}

/// What BASE_BACKUP is asked for. WAL is never part of it, and the server does not wait for its archiver: the caller
/// streams WAL and waits for its own frontier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseBackupOptions {
    /// Kept in `backup_label`.
    pub label: String,
    /// How the checkpoint is made.
    pub checkpoint: Checkpoint,
    /// Whether the server sizes up the cluster first and reports how far it is. Costs it a walk over all files.
    pub progress: bool,
    /// Most KiB per second, 32 to 1048576; `None` for no limit.
    pub max_rate_kib: Option<u32>,
    /// Whether the server checks page checksums as it reads; what fails comes as a warning (case 31).
    pub verify_checksums: bool,
    /// Whether the server sends the file `tablespace_map` in place of the links in `pg_tblspc`. Links are told of in tar
    /// headers, which end at 99 bytes of a location; but before PostgreSQL 16 a server that sends the map leaves out
    /// in-place tablespaces.
    pub tablespace_map: bool,
    /// The server's manifest, or `None` for none.
    pub manifest: Option<ManifestChecksums>,
    /// Whether only blocks are sent that changed since the backup whose manifest was uploaded before. PostgreSQL 17 and
    /// newer, with `summarize_wal`.
    pub incremental: bool,
}

impl Default for BaseBackupOptions {
    fn default() -> BaseBackupOptions {
        BaseBackupOptions {
            label: "walseal".to_owned(),
            checkpoint: Checkpoint::default(),
            progress: true,
            max_rate_kib: None,
            verify_checksums: true,
            tablespace_map: true,
            manifest: Some(ManifestChecksums::default()),
            incremental: false,
        }
    }
}

impl BaseBackupOptions {
    /// The command for a server of that version.
    ///
    /// Errors: a rate that the server would refuse, a label that can not be sent, an incremental backup of a version
    /// that has none.
    pub(super) fn command(&self, version: u32) -> Result<String, PostgresError> {
        if let Some(rate) = self.max_rate_kib.filter(|rate| !(32..=1_048_576).contains(rate)) {
            let why = format!("a rate of {rate} KiB/s is not possible; PostgreSQL takes 32 to 1048576");
            return Err(PostgresError::Argument(why));
        }
        if self.label.len() > 1_024 || self.label.chars().any(char::is_control) {
            let why = "the backup's label has control characters or more than 1024 bytes".to_owned();
            return Err(PostgresError::Argument(why));
        }
        if self.incremental && version < VERSION_17 {
            let has = format!("{}.{}", version / 10_000, version % 10_000);
            return Err(PostgresError::Unsupported { what: "BASE_BACKUP (INCREMENTAL)", needs: 17, has });
        }
        let label = self.label.replace('\'', "''");
        let checksums = self.manifest.map(|checksums| match checksums {
            ManifestChecksums::Sha256 => "SHA256",
            ManifestChecksums::Crc32c => "CRC32C",
        });
        Ok(if version >= VERSION_15 { self.modern(&label, checksums) } else { self.before_15(&label, checksums) })
    }

    fn modern(&self, label: &str, checksums: Option<&str>) -> String {
        let checkpoint = match self.checkpoint {
            Checkpoint::Fast => "fast",
            Checkpoint::Spread => "spread",
        };
        let mut parts = vec![
            format!("LABEL '{label}'"),
            format!("PROGRESS {}", self.progress),
            format!("CHECKPOINT '{checkpoint}'"),
            "WAL false".to_owned(),
            "WAIT false".to_owned(),
            format!("TABLESPACE_MAP {}", self.tablespace_map),
            format!("VERIFY_CHECKSUMS {}", self.verify_checksums),
            "TARGET 'client'".to_owned(),
        ];
        parts.extend(self.max_rate_kib.map(|rate| format!("MAX_RATE {rate}")));
        match checksums {
            Some(checksums) => parts.push(format!("MANIFEST 'yes', MANIFEST_CHECKSUMS '{checksums}'")),
            None => parts.push("MANIFEST 'no'".to_owned()),
        }
        if self.incremental {
            parts.push("INCREMENTAL true".to_owned());
        }
        format!("BASE_BACKUP ({})", parts.join(", "))
    }

    fn before_15(&self, label: &str, checksums: Option<&str>) -> String {
        let mut parts = vec![format!("LABEL '{label}'")];
        let mut flag = |wanted: bool, name: &str| {
            if wanted {
                parts.push(name.to_owned());
            }
        };
        flag(self.progress, "PROGRESS");
        flag(self.checkpoint == Checkpoint::Fast, "FAST");
        flag(true, "NOWAIT");
        flag(self.tablespace_map, "TABLESPACE_MAP");
        flag(!self.verify_checksums, "NOVERIFY_CHECKSUMS");
        parts.extend(self.max_rate_kib.map(|rate| format!("MAX_RATE {rate}")));
        match checksums {
            Some(checksums) => parts.push(format!("MANIFEST 'yes' MANIFEST_CHECKSUMS '{checksums}'")),
            None => parts.push("MANIFEST 'no'".to_owned()),
        }
        format!("BASE_BACKUP {}", parts.join(" "))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod option_tests {
    use super::*;

    #[test]
    fn case_34_each_grammar_has_its_own_form() {
        let options = BaseBackupOptions {
            label: "it's".to_owned(),
            checkpoint: Checkpoint::Fast,
            max_rate_kib: Some(4096),
            ..BaseBackupOptions::default()
        };
        assert_eq!(
            options.command(150_000).expect("legal"),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast', WAL false, WAIT false, TABLESPACE_MAP true, \
             VERIFY_CHECKSUMS true, TARGET 'client', MAX_RATE 4096, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')"
        );
        assert_eq!(
            options.command(140_023).expect("legal"),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT TABLESPACE_MAP MAX_RATE 4096 MANIFEST 'yes' \
             MANIFEST_CHECKSUMS 'SHA256'"
        );
        let bare = BaseBackupOptions {
            progress: false,
            verify_checksums: false,
            manifest: None,
            ..BaseBackupOptions::default()
        };
        assert_eq!(
            bare.command(140_000).expect("legal"),
            "BASE_BACKUP LABEL 'walseal' NOWAIT TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'no'"
        );
    }

    #[test]
    fn case_34_an_incremental_backup_needs_17() {
        let options = BaseBackupOptions { incremental: true, ..BaseBackupOptions::default() };
        for version in [170_000, 180_006] {
            let command = options.command(version).expect("legal");
            assert!(command.ends_with(", MANIFEST_CHECKSUMS 'SHA256', INCREMENTAL true)"), "{command}");
        }
        let error = options.command(160_015).expect_err("none there").to_string();
        assert!(error.contains("17") && error.contains("16.15"), "{error}");
    }

    #[test]
    fn impossible_options_are_refused_before_they_are_sent() {
        for rate in [0, 31, 1_048_577] {
            let options = BaseBackupOptions { max_rate_kib: Some(rate), ..BaseBackupOptions::default() };
            assert!(options.command(150_000).is_err(), "{rate} was accepted");
        }
        let options = BaseBackupOptions { label: "a\0b".to_owned(), ..BaseBackupOptions::default() };
        assert!(options.command(150_000).is_err());
    }
}
