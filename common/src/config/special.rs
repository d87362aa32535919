//! Values that only one key takes.

use std::time::Duration;

use super::layers::Raw;
use super::location::RepositoryUrl;
use super::origin::Origin;
use super::reader::{duration, text};
use super::sections::Checksums;
use super::value::{self, Wrong};

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

pub(super) fn checksums(raw: &Raw, origin: &Origin) -> Result<Checksums, Wrong> {
    match text(raw, origin)?.as_str() {
        "when_required" => Ok(Checksums::WhenRequired),
        "when_supported" => Ok(Checksums::WhenSupported),
        other => Err(Wrong::new(format!("is {other:?}"), "write \"when_required\" or \"when_supported\"")),
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
    let interval = duration(raw, origin)?;
    if (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err(Wrong::new("is out of range", "write a time from \"10ms\" to \"1h\""))
    }
}
