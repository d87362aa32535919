//! What a restore and its recovery add to a data directory, taken away while a base backup is made of it (case 55).
//!
//! A server reads these files at its start only, so that one that runs does not miss them; but it wants `recovery.signal` to be there
//! when recovery ends (`FinishWalRecovery` and what calls it, in `xlogrecovery.c` and `xlog.c`).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::InstanceError;
use crate::rebuild::Restored;

/// What starts recovery; gone as soon as recovery has ended with a promotion.
pub(super) const SIGNAL: &str = "recovery.signal";

/// What the cluster itself, and a restore, write settings to.
const SETTINGS: &str = "postgresql.auto.conf";

/// What PostgreSQL leaves of the files that began recovery.
const LEFT: [&str; 2] = ["backup_label.old", "tablespace_map.old"];

/// What was taken away, to be put back.
#[derive(Debug)]
#[must_use = "recovery cannot end without what was taken away"]
pub struct Additions {
    restored: Restored,
    settings: Vec<u8>,
}

impl Additions {
    /// Takes them away, and puts the settings back that the backup has.
    ///
    /// Errors: the disk.
    pub(super) fn take_away(restored: &Restored) -> Result<Additions, InstanceError> {
        let data = &restored.layout.data;
        let file = data.join(SETTINGS);
        let settings = fs::read(&file).map_err(InstanceError::io("read", &file))?;
        match &restored.inherited {
            // Written over, not replaced: owner and permissions stay.
            Some(inherited) => fs::write(&file, inherited).map_err(InstanceError::io("write", &file))?,
            None => fs::remove_file(&file).map_err(InstanceError::io("remove", &file))?,
        }
        for name in LEFT.into_iter().chain([SIGNAL]) {
            let file = data.join(name);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(InstanceError::io("remove", &file)(error));
                }
                _ => {}
            }
        }
        Ok(Additions { restored: restored.clone(), settings })
    }

    /// Puts back what the server has to find.
    ///
    /// Errors: the disk.
    pub fn put_back(self) -> Result<(), InstanceError> {
        let data = &self.restored.layout.data;
        self.write(&data.join(SETTINGS), &self.settings)?;
        self.write(&data.join(SIGNAL), b"")
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), InstanceError> {
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut file = open.map_err(InstanceError::io("write", path))?;
        file.write_all(content).map_err(InstanceError::io("write", path))?;
        Ok(self.restored.layout.owner.take_file(&file, path, 0o600)?)
    }
}
