//! Page checksums that failed (case 31).

use walseal_common::postgres::Notice;

/// Counts what the server says of page checksums that fail while it reads.
///
/// It warns of the first few pages of each file, then of each such file, then of all of them together, and ends with an
/// error although everything was sent (`basebackup.c`). Texts are in the server's language, so they are told apart by
/// the C function that reports them.
#[derive(Debug, Default)]
pub struct Suspect {
    warned: bool,
    total: Option<u64>,
    confirmed: bool,
}

impl Suspect {
    /// Takes a notice into account, and says whether it is about a page checksum.
    pub fn note(&mut self, notice: &Notice) -> bool {
        let said = &notice.0;
        match (said.severity.as_str(), said.routine.as_deref()) {
            ("ERROR", _) if said.sqlstate == "XX001" => self.confirmed = true,
            // Its text has one number: how many there are.
            ("WARNING", Some("perform_base_backup")) => self.total = number(&said.message).or(self.total),
            ("WARNING", Some("sendFile" | "read_file_data_into_buffer")) => self.warned = true,
            _ => return false,
        }
        true
    }

    /// How many pages; 0 in a sound backup.
    pub fn count(&self) -> u64 {
        // There is no warning of all together where there is but one.
        self.total.unwrap_or(0).max(u64::from(self.warned || self.confirmed))
    }
}

/// The only number in a text.
fn number(text: &str) -> Option<u64> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.next().filter(|_| numbers.next().is_none())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use walseal_common::postgres::ServerError;

    use super::*;

    fn error() -> Notice {
        let (severity, sqlstate) = ("ERROR".to_owned(), "XX001".to_owned());
        Notice(ServerError { severity, sqlstate, ..ServerError::default() })
    }

    fn warning(routine: &str, message: &str) -> Notice {
        Notice(ServerError {
            severity: "WARNING".to_owned(),
            message: message.to_owned(),
            routine: Some(routine.to_owned()),
            ..ServerError::default()
        })
    }

    #[test]
    fn case_31_failures_are_counted_in_any_language() {
        let mut none = Suspect::default();
        assert!(!none.note(&warning("do_pg_backup_stop", "WAL archiving is not enabled")));
        assert_eq!(none.count(), 0);

        let mut one = Suspect::default();
        assert!(one.note(&warning("sendFile", "checksum verification failed in file \"./base/5/16384\", block 3")));
        assert!(one.note(&error()));
        assert_eq!(one.count(), 1);

        let mut many = Suspect::default();
        for block in 0..5 {
            assert!(many.note(&warning("sendFile", &format!("Prüfsumme falsch in »base/5/16384«, Block {block}"))));
        }
        assert!(many.note(&warning("sendFile", "Datei »base/5/16384« hat insgesamt 12 falsche Prüfsummen")));
        assert!(many.note(&warning("perform_base_backup", "insgesamt 12 falsche Prüfsummen")));
        assert!(many.note(&error()));
        assert_eq!(many.count(), 12);

        let mut silent = Suspect::default();
        assert!(silent.note(&error()));
        assert_eq!(silent.count(), 1, "the error alone is enough");
    }
}
