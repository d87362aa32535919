//! URLs that are posted to. What stands in them behind the host is as good as a password.

use std::fmt;
use std::path::PathBuf;

use hyper::Uri;

use super::credentials::one_of;
use super::error::ConfigError;
use super::layers::Raw;
use super::origin::{Origin, Setting};
use super::value::Wrong;
use super::{Config, reader};
use crate::secret::Secret;

/// Where to post to.
#[derive(Clone)]
pub struct WebAddress {
    secret: Secret,
    uri: Uri,
}

impl fmt::Debug for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebAddress({}/[hidden])", self.place())
    }
}

impl WebAddress {
    /// Reads a URL of `http` or `https`. Nothing of it is in an error.
    fn parse(secret: &Secret) -> Result<WebAddress, Wrong> {
        const EXAMPLE: &str = "write it as in https://hooks.example.net/path";
        let uri: Uri = secret.expose().trim().parse().map_err(|_| Wrong::new("is no URL", EXAMPLE))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Wrong::new("is no URL", EXAMPLE));
        };
        if !matches!(scheme, "http" | "https") {
            return Err(Wrong::new("is neither http nor https", EXAMPLE));
        }
        if authority.as_str().contains('@') {
            return Err(Wrong::new("holds a user name, which would not be sent", "take it out"));
        }
        if authority.host().is_empty() {
            return Err(Wrong::new("names no host", EXAMPLE));
        }
        Ok(WebAddress { secret: secret.clone(), uri })
    }

    /// Scheme, host and port, for messages.
    pub fn place(&self) -> String {
        format!("{}://{}", self.uri.scheme_str().unwrap_or_default(), self.authority())
    }

    /// Host, and port where there is one, as in the URL.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The host alone, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, given or usual.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Whether the scheme is `https`.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Path and query, which are secret.
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// The whole URL, which is secret.
    pub fn expose(&self) -> &str {
        self.secret.expose().trim()
    }
}

impl Config {
    /// Where alerts go as JSON.
    ///
    /// Errors: the URL is none; its file cannot be read, or others can read it.
    pub fn webhook_url(&self) -> Result<Option<WebAddress>, ConfigError> {
        let alerts = &self.alerts;
        address(["alerts.webhook_url", "alerts.webhook_url_file"], &alerts.webhook_url, &alerts.webhook_url_file)
    }

    /// Where alerts go in Slack's shape. Errors: as [`Config::webhook_url`].
    pub fn slack_url(&self) -> Result<Option<WebAddress>, ConfigError> {
        let alerts = &self.alerts;
        address(["alerts.slack_url", "alerts.slack_url_file"], &alerts.slack_url, &alerts.slack_url_file)
    }

    /// Who misses the daemon. Errors: as [`Config::webhook_url`].
    pub fn heartbeat_url(&self) -> Result<Option<WebAddress>, ConfigError> {
        let alerts = &self.alerts;
        address(
            ["alerts.heartbeat_url", "alerts.heartbeat_url_file"],
            &alerts.heartbeat_url,
            &alerts.heartbeat_url_file,
        )
    }
}

/// A URL in the configuration itself, looked at when it is read.
pub(super) fn url(raw: &Raw, origin: &Origin) -> Result<Secret, Wrong> {
    let secret = reader::secret(raw, origin)?;
    WebAddress::parse(&secret).map(|_| secret)
}

fn address(
    [path, file_path]: [&'static str; 2],
    value: &Option<Setting<Secret>>,
    file: &Option<Setting<PathBuf>>,
) -> Result<Option<WebAddress>, ConfigError> {
    let Some(Setting { value, origin }) = one_of([path, file_path], value.clone(), file)? else { return Ok(None) };
    let invalid = |wrong| ConfigError::Invalid { key: path, origin, wrong };
    WebAddress::parse(&value).map(Some).map_err(invalid)
}
