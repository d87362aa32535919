//! The settings by which PostgreSQL itself stops where the plan says.

use serde::{Deserialize, Serialize};
use walseal_common::timeline::TimelineId;
use walseal_common::wal::FullXid;

use super::{Request, Target};

/// One line of `postgresql.auto.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoverySetting {
    /// The parameter.
    pub name: String,
    /// Its value, unquoted.
    pub value: String,
}

impl RecoverySetting {
    /// A setting.
    pub fn new(name: &str, value: impl Into<String>) -> RecoverySetting {
        RecoverySetting { name: name.to_owned(), value: value.into() }
    }

    /// The line, quoted as `guc-file.l` reads it (`GUC_scanstr`): quotes doubled, backslashes escaped. Without a newline.
    pub fn line(&self) -> String {
        format!("{} = '{}'", self.name, self.value.replace('\\', "\\\\").replace('\'', "''"))
    }
}

/// The settings for `request` on `timeline`. Chapter "Archive recovery settings" of PostgreSQL's documentation (Recovery Target).
///
/// The kinds of target stay PostgreSQL's own, so that the server itself decides where to stop; the timeline is a number, never
/// `latest` (case 6). `recovery_target_inclusive` is always written, because a configuration may bring its own.
pub fn recovery_settings(request: &Request, timeline: TimelineId) -> Vec<RecoverySetting> {
    let mut settings = vec![RecoverySetting::new("recovery_target_timeline", timeline.number().to_string())];
    let target = match &request.target {
        // Without a target recovery goes on to the end of WAL.
        Target::Latest => return settings,
        Target::Immediate => RecoverySetting::new("recovery_target", "immediate"),
        Target::Time(time) => RecoverySetting::new("recovery_target_time", postgres_time(*time)),
        Target::Lsn(lsn) => RecoverySetting::new("recovery_target_lsn", lsn.to_string()),
        // PostgreSQL compares 32 bits; before 18 it takes a larger number and cuts it (case 10).
        Target::Xid(xid) => RecoverySetting::new("recovery_target_xid", FullXid(*xid).xid().to_string()),
        Target::Name(name) => RecoverySetting::new("recovery_target_name", name.as_str()),
    };
    settings.push(target);
    let inclusive = if request.exclusive { "off" } else { "on" };
    settings.push(RecoverySetting::new("recovery_target_inclusive", inclusive));
    settings.push(RecoverySetting::new("recovery_target_action", request.action.to_string()));
    settings
}

/// With all six digits and an offset, so that neither `TimeZone` nor `DateStyle` of the server matters.
fn postgres_time(time: walseal_common::time::PgTimestamp) -> String {
    match time.to_jiff() {
        Some(moment) => {
            let utc = moment.to_zoned(jiff::tz::TimeZone::UTC);
            utc.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
        }
        None => time.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn lines(target: &str, exclusive: bool) -> Vec<String> {
        let request = Request { exclusive, ..Request::to(target.parse().expect("a target")) };
        recovery_settings(&request, TimelineId::FIRST).iter().map(RecoverySetting::line).collect()
    }

    #[test]
    fn case_06_the_timeline_is_written_as_a_number() {
        assert_eq!(lines("latest", false), ["recovery_target_timeline = '1'"]);
    }

    #[test]
    fn times_are_written_with_microseconds_and_offset() {
        assert_eq!(
            lines("2026-11-21T08:00:00.12+05:30", true)[1..],
            [
                "recovery_target_time = '2026-11-21 02:30:00.120000+00'",
                "recovery_target_inclusive = 'off'",
                "recovery_target_action = 'promote'"
            ]
        );
    }

    #[test]
    fn case_10_an_xid_of_64_bits_is_written_with_the_32_that_postgres_compares() {
        assert_eq!(lines("xid:4294979641", false)[1], "recovery_target_xid = '12345'");
    }

    #[test]
    fn names_are_quoted_as_the_configuration_file_wants_them() {
        assert_eq!(lines(r"name:it's \n", false)[1], r"recovery_target_name = 'it''s \\n'");
        assert_eq!(lines("lsn:0/3000060", false)[1], "recovery_target_lsn = '0/3000060'");
        assert_eq!(lines("immediate", false)[1], "recovery_target = 'immediate'");
    }
}
