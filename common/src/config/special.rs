//! Values that only one key takes.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::layers::Raw;
use super::location::RepositoryUrl;
use super::origin::Origin;
use super::price::Price;
use super::reader::{duration, text};
use super::sections::{Amcheck, Checksums, Count, Tolerance};
use super::value::{self, Wrong};
use crate::schedule::Schedule;
use crate::store::LockMode;

pub(super) fn cluster_name(raw: &Raw, origin: &Origin) -> Result<String, Wrong> {
    let name = text(raw, origin)?;
    value::check_cluster_name(&name)?;
    Ok(name)
}

pub(super) fn slot(raw: &Raw, origin: &Origin) -> Result<String, Wrong> {
    let name = text(raw, origin)?;
    value::check_slot(&name)?;
    Ok(name)
}

pub(super) fn repository_url(raw: &Raw, origin: &Origin) -> Result<RepositoryUrl, Wrong> {
    RepositoryUrl::parse(&text(raw, origin)?)
}

/// `http` or `https`, a host, no path, no credentials.
pub(super) fn endpoint(raw: &Raw, origin: &Origin) -> Result<String, Wrong> {
    let url = text(raw, origin)?;
    let url = url.trim_end_matches('/');
    let example = "write it as in https://s3.example.net";
    let Some((scheme, rest)) = url.split_once("://") else {
        let fix = format!("write \"https://{url}\", or \"http://{url}\" where there is no TLS");
        return Err(Wrong::new("has no scheme", if url.contains('@') { example.to_owned() } else { fix }));
    };
    if rest.contains('@') {
        return Err(Wrong::new("holds credentials", "take them out of the URL; they have keys of their own"));
    }
    if !matches!(scheme, "http" | "https") {
        return Err(Wrong::new("is neither http nor https", example));
    }
    if rest.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#')) {
        return Err(Wrong::new("is more than scheme, host and port", example));
    }
    Ok(url.to_owned())
}

/// A port of loopback, or an address with a port.
pub(super) fn listen(raw: &Raw, origin: &Origin) -> Result<SocketAddr, Wrong> {
    let text = text(raw, origin)?;
    let text = text.trim();
    let port = text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")).unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let example =
        "write a port (\"9187\", which is loopback), or an address with a port (\"10.0.0.5:9187\", \"[::1]:9187\")";
    text.parse().map_err(|_| Wrong::new(format!("is {text:?}"), example))
}

/// An address as sendmail takes it: no option, no header, no list.
pub(super) fn mail_address(raw: &Raw, origin: &Origin) -> Result<String, Wrong> {
    let address = text(raw, origin)?.trim().to_owned();
    check_mail_address(&address)?;
    Ok(address)
}

pub(super) fn mail_addresses(raw: &Raw, origin: &Origin) -> Result<Vec<String>, Wrong> {
    let addresses = super::reader::list(raw, origin)?;
    addresses.iter().try_for_each(|address| check_mail_address(address))?;
    Ok(addresses)
}

fn check_mail_address(address: &str) -> Result<(), Wrong> {
    let odd = |one: char| one.is_whitespace() || one.is_control() || matches!(one, ',' | ';' | '<' | '>' | '"');
    if address.is_empty() || address.starts_with('-') || address.contains(odd) {
        return Err(Wrong::new(
            format!("has {address:?}, which is no plain address"),
            "write it as in \"ops@example.net\"",
        ));
    }
    Ok(())
}

pub(super) fn amcheck(raw: &Raw, origin: &Origin) -> Result<Amcheck, Wrong> {
    match text(raw, origin)?.trim() {
        "heap" => Ok(Amcheck::Heap),
        "indexes" => Ok(Amcheck::Indexes),
        "heapallindexed" => Ok(Amcheck::HeapAllIndexed),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"heap\", \"indexes\" or \"heapallindexed\"")),
    }
}

pub(super) fn random_target(raw: &Raw, origin: &Origin) -> Result<bool, Wrong> {
    match text(raw, origin)?.trim() {
        "latest" => Ok(false),
        "random" => Ok(true),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"latest\" or \"random\"")),
    }
}

pub(super) fn count(raw: &Raw, origin: &Origin) -> Result<Count, Wrong> {
    match text(raw, origin)?.trim() {
        "all" => Ok(Count::All),
        "sample" => Ok(Count::Sample),
        "estimate" => Ok(Count::Estimate),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"all\", \"sample\" or \"estimate\"")),
    }
}

pub(super) fn shrinking_fails(raw: &Raw, origin: &Origin) -> Result<bool, Wrong> {
    match text(raw, origin)?.trim() {
        "fail" => Ok(true),
        "warn" => Ok(false),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"fail\" or \"warn\"")),
    }
}

/// Whether a check that is not passed fails the drill.
pub(super) fn check_fails(raw: &Raw, origin: &Origin) -> Result<bool, Wrong> {
    match text(raw, origin)?.trim() {
        "fail" => Ok(true),
        "warn" => Ok(false),
        other => Err(Wrong::new(format!("has on_failure {other:?}"), "write \"fail\" or \"warn\"")),
    }
}

pub(super) fn percent(raw: &Raw, origin: &Origin) -> Result<u32, Wrong> {
    match super::reader::number(raw, origin)? {
        percent @ 0..=100 => Ok(percent),
        more => Err(Wrong::new(format!("is {more}"), "write a number from 0 to 100")),
    }
}

/// An amount of money: a number, not negative, with at most six digits behind the point.
pub(super) fn price(raw: &Raw, origin: &Origin) -> Result<Price, Wrong> {
    let written = match raw {
        Raw::Number(number) => number.to_string(),
        other => text(other, origin)?,
    };
    written.trim().parse().map_err(|()| {
        Wrong::new(
            format!("has the price {written:?}"),
            "write it as in 0.023, with at most six digits behind the point",
        )
    })
}

/// How many at a time.
pub(super) fn jobs(raw: &Raw, origin: &Origin) -> Result<usize, Wrong> {
    match super::reader::number(raw, origin)? {
        jobs @ 1..=64 => Ok(jobs as usize),
        other => Err(Wrong::new(format!("is {other}"), "write a number from 1 to 64")),
    }
}

/// A number, or one with `%`: not negative, finite.
pub(super) fn tolerance(raw: &Raw, origin: &Origin) -> Result<Tolerance, Wrong> {
    let written = match raw {
        Raw::Number(number) => number.to_string(),
        other => text(other, origin)?,
    };
    let written = written.trim();
    let (number, percent) = written.strip_suffix('%').map_or((written, false), |number| (number.trim_end(), true));
    match number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0) {
        Some(number) => Ok(if percent { Tolerance::Percent(number) } else { Tolerance::Absolute(number) }),
        None => Err(Wrong::new(format!("has the tolerance {written:?}"), "write it as in \"5\" or \"2.5%\"")),
    }
}

pub(super) fn checksums(raw: &Raw, origin: &Origin) -> Result<Checksums, Wrong> {
    match text(raw, origin)?.as_str() {
        "when_required" => Ok(Checksums::WhenRequired),
        "when_supported" => Ok(Checksums::WhenSupported),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"when_required\" or \"when_supported\"")),
    }
}

pub(super) fn object_lock(raw: &Raw, origin: &Origin) -> Result<LockMode, Wrong> {
    match text(raw, origin)?.as_str() {
        "governance" => Ok(LockMode::Governance),
        "compliance" => Ok(LockMode::Compliance),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"governance\" or \"compliance\"")),
    }
}

/// Five fields of cron; nothing, or `off`, for never.
pub(super) fn schedule(raw: &Raw, origin: &Origin) -> Result<Option<Schedule>, Wrong> {
    match raw {
        Raw::Word(text) | Raw::Text(text) if matches!(text.trim(), "" | "off") => Ok(None),
        other => {
            let parsed = text(other, origin)?.parse();
            parsed.map(Some).map_err(|error: crate::schedule::ScheduleError| {
                Wrong::new(format!("cannot be used: {}", error.problem), error.fix)
            })
        }
    }
}

/// Bytes per second that PostgreSQL's `MAX_RATE` takes; 0 for no limit.
pub(super) fn max_rate(raw: &Raw, origin: &Origin) -> Result<u64, Wrong> {
    const RANGE: RangeInclusive<u64> = (32 << 10)..=(1 << 30);
    match super::reader::size(raw, origin)? {
        0 => Ok(0),
        bytes if RANGE.contains(&bytes) => Ok(bytes),
        _ => Err(Wrong::new(
            "is a rate that PostgreSQL does not take",
            "write one from \"32KiB\" to \"1GiB\" a second, or \"0\" for no limit",
        )),
    }
}

/// A size that is more than nothing.
pub(super) fn limit(raw: &Raw, origin: &Origin) -> Result<u64, Wrong> {
    match super::reader::size(raw, origin)? {
        0 => Err(Wrong::new("is nothing at all", "write a size such as \"50GB\", or leave it out for no limit")),
        bytes => Ok(bytes),
    }
}

pub(super) fn ship_interval(raw: &Raw, origin: &Origin) -> Result<Duration, Wrong> {
    within(raw, origin, Duration::from_millis(10)..=Duration::from_secs(3600), "\"10ms\" to \"1h\"")
}

/// Of what is written or stored again and again, whether or not anything happens.
/// How often the daemon verifies; zero is never.
pub(super) fn verify_every(raw: &Raw, origin: &Origin) -> Result<Duration, Wrong> {
    let every = duration(raw, origin)?;
    let wrong = || Wrong::new("is too often", "write \"1s\" or more, or \"0s\" for never");
    (every.is_zero() || every >= Duration::from_secs(1)).then_some(every).ok_or_else(wrong)
}

pub(super) fn slow_interval(raw: &Raw, origin: &Origin) -> Result<Duration, Wrong> {
    within(raw, origin, Duration::from_secs(1)..=Duration::from_secs(86_400), "\"1s\" to \"1d\"")
}

fn within(raw: &Raw, origin: &Origin, range: RangeInclusive<Duration>, words: &str) -> Result<Duration, Wrong> {
    let interval = duration(raw, origin)?;
    let wrong = || Wrong::new("is out of range", format!("write a time from {words}"));
    range.contains(&interval).then_some(interval).ok_or_else(wrong)
}
