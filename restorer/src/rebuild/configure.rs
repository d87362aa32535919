//! Recovery settings: `postgresql.auto.conf` and `recovery.signal`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use super::put::put_with;
use super::{Layout, RebuildError, Unfinished, access_files, sync_folder};
use crate::plan::RecoverySetting;

/// Every setting that says where recovery ends. Setting one of them, even to nothing, while another is set is an error
/// ("multiple recovery targets specified", `assign_recovery_target_…` in PostgreSQL's `xlogrecovery.c`), and a file's
/// settings are applied in its order (case 53). So all are emptied first, which also overrides what other configuration
/// files bring, and the plan's come last.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"];

/// What must not be inherited, with what it is set to (cases 50 and 53).
const CUT_OFF: [(&str, &str); 6] = [
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    // A delayed standby's would delay this recovery as well.
    ("recovery_min_apply_delay", "0"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
];

/// Settings by which a target is refined; the plan writes those that it needs.
const REFINEMENTS: [&str; 3] = ["recovery_target_action", "recovery_target_inclusive", "recovery_target_timeline"];

/// What is of no use, and may do harm, once recovery has ended, beside a target and its [`REFINEMENTS`]: a standby that is copied from the
/// server would inherit them. What keeps it apart from the old cluster stays.
const OF_RECOVERY: [&str; 4] =
    ["restore_command", "recovery_min_apply_delay", "recovery_end_command", "archive_cleanup_command"];

/// What ALTER SYSTEM writes to, and a restore.
const AUTO_CONF: &str = "postgresql.auto.conf";

/// The line above what [`configure`] adds to `postgresql.auto.conf`.
const OURS: &str = "# Written by walseal-restorer; ALTER SYSTEM RESET takes single lines out.";

/// What a restored cluster is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryConfig {
    /// The plan's settings.
    pub recovery: Vec<RecoverySetting>,
    /// `restore_command`.
    pub restore_command: String,
    /// Whether archiving stays as it was (`--keep-archiving`).
    pub keep_archiving: bool,
    /// A standby in place of a recovery that ends.
    pub standby: Option<Standby>,
}

/// A standby: it goes on from the repository.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standby {
    /// `primary_conninfo`: it goes on from there, too.
    pub primary_conninfo: Option<String>,
    /// How long a commit waits before it is replayed.
    pub delay: Duration,
}

impl Standby {
    /// What a standby needs of the settings that are cut off.
    fn settings(&self) -> [RecoverySetting; 2] {
        [
            RecoverySetting::new("primary_conninfo", self.primary_conninfo.as_deref().unwrap_or_default()),
            RecoverySetting::new("recovery_min_apply_delay", format!("{}ms", self.delay.as_millis())),
        ]
    }
}

impl RecoveryConfig {
    /// The settings in the order in which they must stand.
    fn settings(&self) -> Vec<RecoverySetting> {
        let mut settings: Vec<RecoverySetting> =
            CUT_OFF.iter().map(|(name, value)| RecoverySetting::new(name, *value)).collect();
        for own in self.standby.iter().flat_map(Standby::settings) {
            settings.retain(|setting| setting.name != own.name);
            settings.push(own);
        }
        if !self.keep_archiving {
            settings.push(RecoverySetting::new("archive_mode", "off"));
        }
        settings.push(RecoverySetting::new("restore_command", self.restore_command.as_str()));
        let own = |name: &str| self.recovery.iter().any(|setting| setting.name == name);
        settings.extend(TARGETS.iter().filter(|name| !own(name)).map(|name| RecoverySetting::new(name, "")));
        settings.extend(self.recovery.iter().cloned());
        settings
    }

    /// The text of `postgresql.auto.conf`, from the inherited one, with what the restored files ask for.
    fn edit(&self, inherited: &str, files: Vec<RecoverySetting>) -> String {
        let mut settings = self.settings();
        settings.extend(files);
        let ours = |name: &str| {
            let set = settings.iter().any(|setting| name.eq_ignore_ascii_case(&setting.name));
            set || among(&TARGETS, name) || among(&REFINEMENTS, name)
        };
        let mut text = String::new();
        for line in inherited.lines().filter(|line| !parameter(line).is_some_and(ours)) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(OURS);
        text.push('\n');
        for setting in settings {
            text.push_str(&setting.line());
            text.push('\n');
        }
        text
    }
}

/// The parameter that a line sets, as `guc-file.l` reads it: a word, then `=` or a space.
fn parameter(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
    line.get(..end).filter(|name| !name.is_empty() && !name.starts_with('#'))
}

/// Whether a setting is one of these; PostgreSQL does not mind how it is written.
fn among(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Writes `postgresql.auto.conf` and `recovery.signal`, or `standby.signal` for a standby, and nothing else: all other files are as
/// the server's manifest says (case 56). The other signal file, which the backup may have brought, is taken away.
///
/// Gives `postgresql.auto.conf` as the backup has it; `None` where it has none.
pub fn configure(unfinished: &Unfinished, config: &RecoveryConfig) -> Result<Option<Vec<u8>>, RebuildError> {
    let layout = unfinished.layout();
    let file = layout.data.join(AUTO_CONF);
    let inherited = match fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(RebuildError::io("read", &file)(error)),
    };
    let mode = file_mode(layout);
    let write = |path: &Path, text: &str| {
        let write = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(RebuildError::io("write", path))?;
        layout.owner.take_file(&file, path, mode)
    };
    let text = String::from_utf8_lossy(inherited.as_deref().unwrap_or_default());
    let mut files = access_files::brought_along(&layout.data)?;
    files.extend(tablespaces_in_place(&layout.data)?);
    write(&file, &config.edit(&text, files))?;
    let signals = ["recovery.signal", "standby.signal"].map(|name| layout.data.join(name));
    let (signal, other) = match (&signals, &config.standby) {
        ([recovery, standby], None) => (recovery, standby),
        ([recovery, standby], Some(_)) => (standby, recovery),
    };
    match fs::remove_file(other) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(RebuildError::io("remove", other)(error)),
        _ => {}
    }
    write(signal, "")?;
    sync_folder(&layout.data)?;
    Ok(inherited)
}

/// Permission bits of a file in this data directory.
const fn file_mode(layout: &Layout) -> u32 {
    if layout.mode & 0o040 != 0 { 0o640 } else { 0o600 }
}

/// What a server needs for tablespaces within the data directory: at the end of its recovery it takes any folder in `pg_tblspc` that is no
/// link for a mistake unless this is set (`CheckTablespaceDirectory` in `xlogrecovery.c`; case 28). Every server that can make
/// them knows it.
fn tablespaces_in_place(data: &Path) -> Result<Option<RecoverySetting>, RebuildError> {
    let folder = data.join("pg_tblspc");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RebuildError::io("read", &folder)(error)),
    };
    for entry in entries {
        let kind = entry.and_then(|entry| entry.file_type()).map_err(RebuildError::io("read", &folder))?;
        if kind.is_dir() {
            return Ok(Some(RecoverySetting::new("allow_in_place_tablespaces", "on")));
        }
    }
    Ok(None)
}

/// Leaves in the `postgresql.auto.conf` of a restored directory only what [`configure`] wrote: for a server that is to have no
/// setting of the cluster's own (case 48).
///
/// Errors: the file cannot be read or written, or [`configure`] was not there.
pub fn strip_inherited(data: &Path) -> Result<(), RebuildError> {
    let file = data.join(AUTO_CONF);
    let text = fs::read(&file).map_err(RebuildError::io("read", &file))?;
    let text = String::from_utf8_lossy(&text);
    let Some((_, own)) = text.rsplit_once(OURS) else {
        return Err(RebuildError::refused(format!("{} has no recovery settings", file.display()), []));
    };
    // Written over, not replaced: owner and permissions stay.
    fs::write(&file, own.trim_start()).map_err(RebuildError::io("write", &file))
}

/// Takes out of `postgresql.auto.conf` what [`configure`] wrote for the recovery alone, once that has ended and no server runs. A crash
/// leaves it with these lines or without.
///
/// Errors: the disk.
pub fn end_recovery(layout: &Layout) -> Result<(), RebuildError> {
    let file = layout.data.join(AUTO_CONF);
    let mut text = Vec::new();
    // The server's user has had the directory for a while: what is read for another user is a file of that directory.
    let open = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&file);
    open.and_then(|mut file| file.read_to_end(&mut text)).map_err(RebuildError::io("read", &file))?;
    let text = without_recovery(&String::from_utf8_lossy(&text));
    put_with(&layout.data, AUTO_CONF, text.as_bytes(), &layout.owner, file_mode(layout))?;
    Ok(())
}

/// The text without what was for the recovery alone. Targets are emptied, not taken out, so that those which other configuration
/// files bring stay overridden: PostgreSQL does not start with two of them.
fn without_recovery(text: &str) -> String {
    let Some((inherited, own)) = text.rsplit_once(OURS) else { return text.to_owned() };
    let kept = own.split_inclusive('\n').filter_map(|line| match parameter(line) {
        Some(name) if among(&TARGETS, name) => Some(format!("{}\n", RecoverySetting::new(name, "").line())),
        Some(name) if among(&REFINEMENTS, name) || among(&OF_RECOVERY, name) => None,
        _ => Some(line.to_owned()),
    });
    format!("{inherited}{OURS}{}", kept.collect::<String>())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn config(keep_archiving: bool) -> RecoveryConfig {
        let recovery = vec![
            RecoverySetting::new("recovery_target_timeline", "1"),
            RecoverySetting::new("recovery_target_xid", "742"),
            RecoverySetting::new("recovery_target_action", "promote"),
        ];
        RecoveryConfig { recovery, restore_command: "fetch %f %p".to_owned(), keep_archiving, standby: None }
    }

    #[test]
    fn case_53_inherited_targets_go_and_empty_ones_stand_before_the_real_one() {
        let inherited = "# Do not edit this file manually!\nwork_mem = '4MB'\nrecovery_target_time = ''\n\
                         Recovery_Target='immediate'\n  primary_conninfo 'host=a'\nrecovery_target_inclusive=off\n";
        let text = config(false).edit(inherited, Vec::new());
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "work_mem = '4MB'",
                "primary_conninfo = ''",
                "primary_slot_name = ''",
                "synchronous_standby_names = ''",
                "recovery_min_apply_delay = '0'",
                "recovery_end_command = ''",
                "archive_cleanup_command = ''",
                "archive_mode = 'off'",
                "restore_command = 'fetch %f %p'",
                "recovery_target = ''",
                "recovery_target_lsn = ''",
                "recovery_target_name = ''",
                "recovery_target_time = ''",
                "recovery_target_timeline = '1'",
                "recovery_target_xid = '742'",
                "recovery_target_action = 'promote'",
            ]
        );
    }

    #[test]
    fn case_50_archiving_is_switched_off_unless_it_is_to_be_kept() {
        let inherited = "archive_mode = on\narchive_command = 'push %p'\n";
        let off = config(false).edit(inherited, Vec::new());
        assert!(off.contains("archive_mode = 'off'") && !off.contains("archive_mode = on"), "{off}");
        let kept = config(true).edit(inherited, Vec::new());
        assert!(kept.contains("archive_mode = on\n") && !kept.contains("archive_mode = 'off'"), "{kept}");
    }

    #[test]
    fn case_53_after_recovery_nothing_of_it_is_inherited_and_the_cluster_stays_apart() {
        let inherited = "work_mem = '4MB'\narchive_cleanup_command = 'mine'\n";
        let text = config(false).edit(inherited, vec![RecoverySetting::new("hba_file", "/a")]);
        let over = without_recovery(&text);
        let lines: Vec<&str> = over.lines().collect();
        assert_eq!(
            lines,
            [
                "work_mem = '4MB'",
                OURS,
                "primary_conninfo = ''",
                "primary_slot_name = ''",
                "synchronous_standby_names = ''",
                "archive_mode = 'off'",
                "recovery_target = ''",
                "recovery_target_lsn = ''",
                "recovery_target_name = ''",
                "recovery_target_time = ''",
                "recovery_target_xid = ''",
                "hba_file = '/a'",
            ]
        );
        assert_eq!(without_recovery(&over), over);
        assert_eq!(without_recovery("restore_command = 'of another'\n"), "restore_command = 'of another'\n");
    }

    #[test]
    fn a_standby_follows_the_primary_that_is_named_and_waits_as_long_as_it_is_told() {
        let standby =
            Standby { primary_conninfo: Some("host=db1 user=it's".to_owned()), delay: Duration::from_secs(3600) };
        let config = RecoveryConfig {
            recovery: vec![RecoverySetting::new("recovery_target_timeline", "latest")],
            standby: Some(standby),
            ..config(false)
        };
        let inherited = "primary_conninfo = 'host=old'\nprimary_slot_name = 'old'\nrecovery_min_apply_delay = '1d'\n";
        let text = config.edit(inherited, Vec::new());
        let count = |line: &str| text.lines().filter(|found| *found == line).count();
        for line in [
            "primary_conninfo = 'host=db1 user=it''s'",
            "recovery_min_apply_delay = '3600000ms'",
            "primary_slot_name = ''",
            "recovery_target_timeline = 'latest'",
        ] {
            assert_eq!(count(line), 1, "{line}\n{text}");
        }
        assert!(!text.contains("host=old") && text.matches("primary_conninfo").count() == 1, "{text}");
    }

    #[test]
    fn case_48_nothing_inherited_is_left_where_only_recovery_settings_are_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("postgresql.auto.conf");
        let text = config(false).edit("shared_buffers = '1TB'\nssl = on\n", Vec::new());
        fs::write(&file, text).expect("ours");
        strip_inherited(folder.path()).expect("configured");
        let text = fs::read_to_string(&file).expect("ours");
        assert!(!text.contains("shared_buffers") && !text.contains("ssl"), "{text}");
        assert!(text.starts_with("primary_conninfo = ''") && text.contains("recovery_target_xid = '742'"), "{text}");
        assert!(strip_inherited(folder.path()).is_err(), "nothing of ours is in it any more");
    }
}
