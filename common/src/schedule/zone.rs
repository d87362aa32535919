//! Time zones by their names.

use jiff::tz::TimeZone;

/// There is no such time zone on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the time zone {0:?} is not known on this host; write a name such as \"Europe/Berlin\" or \"UTC\", or install the package tzdata"
)]
pub struct UnknownZone(pub String);

/// The time zone of that IANA name, from the host's own database.
///
/// Errors: there is none.
pub fn zone(name: &str) -> Result<TimeZone, UnknownZone> {
    let name = name.trim();
    match name {
        "UTC" | "Etc/UTC" | "GMT" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned())),
    }
}

/// The time zone of a server's setting `TimeZone`, which may also be written as POSIX does (`<+03>-03`, what `SET TIME ZONE 3`
/// leaves there).
///
/// Errors: neither.
pub fn server_zone(setting: &str) -> Result<TimeZone, UnknownZone> {
    zone(setting).or_else(|unknown| TimeZone::posix(setting.trim()).map_err(|_| unknown))
}
