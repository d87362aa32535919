//! The URL of a repository.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::key::check_key;

/// Where a repository lies: `s3://bucket/prefix` or `file:///path`.
///
/// Taken literally: no percent-decoding, no query, no credentials. Slashes at the end mean nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreUrl {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What every key starts with, without slashes around it; may be empty.
        prefix: String,
    },
    /// `file:///path`.
    Directory(PathBuf),
}

/// The text is not the URL of a repository. The text itself is not repeated: it may hold a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreUrlError {
    /// It has no scheme.
    #[error("the repository URL has no scheme; write s3://bucket/prefix or file:///absolute/path")]
    NoScheme,
    /// It is a path.
    #[error("the repository URL is a path; write file://{}", .0.display())]
    BarePath(PathBuf),
    /// The scheme is not known.
    #[error("the repository URL starts with \"{0}://\"; supported are s3://bucket/prefix and file:///absolute/path")]
    UnknownScheme(String),
    /// The scheme is planned and not there yet.
    #[error("sftp:// repositories are not available yet; use s3://bucket/prefix or file:///absolute/path")]
    SftpNotAvailable,
    /// The part that names the place cannot be one.
    #[error("the repository URL is not usable: {0}")]
    Invalid(String),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(if text.starts_with('/') {
                StoreUrlError::BarePath(PathBuf::from(text))
            } else {
                StoreUrlError::NoScheme
            });
        };
        match scheme {
            "s3" => parse_s3(rest),
            "file" => parse_file(rest),
            "sftp" => Err(StoreUrlError::SftpNotAvailable),
            // What stands there could be anything, so only what can be a scheme is repeated.
            _ if !scheme.is_empty() && scheme.len() <= 16 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Err(StoreUrlError::UnknownScheme(scheme.to_owned()))
            }
            _ => Err(StoreUrlError::NoScheme),
        }
    }
}

fn parse_s3(rest: &str) -> Result<StoreUrl, StoreUrlError> {
    let invalid = |why: &str| Err(StoreUrlError::Invalid(why.to_owned()));
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return invalid(
            "credentials do not belong into it; put them into the configuration or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        );
    }
    if bucket.is_empty() {
        return invalid("the bucket is missing; write s3://bucket/prefix");
    }
    if bucket.len() > 255 || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return invalid("a bucket's name has letters, digits, hyphens and dots only; write s3://bucket/prefix");
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() {
        check_key(prefix).map_err(|why| StoreUrlError::Invalid(format!("its prefix cannot be one: {why}")))?;
    }
    Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn parse_file(rest: &str) -> Result<StoreUrl, StoreUrlError> {
    let invalid = |why: &str| Err(StoreUrlError::Invalid(why.to_owned()));
    if !rest.starts_with('/') {
        return invalid("a directory is written file:///absolute/path, with three slashes and no host");
    }
    if rest.chars().any(char::is_control) {
        return invalid("the path contains a control character");
    }
    let path = rest.trim_end_matches('/');
    if path.is_empty() {
        return invalid("the root of the file system cannot be a repository; write file:///absolute/path");
    }
    if Path::new(path).components().any(|part| part == std::path::Component::ParentDir) {
        return invalid("the path contains \"..\"; write the path it leads to");
    }
    Ok(StoreUrl::Directory(PathBuf::from(path)))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            StoreUrl::Directory(path) => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> StoreUrl {
        StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    }

    #[test]
    fn urls_are_read_and_printed() {
        for (text, url, printed) in [
            ("s3://acme-pg/orders", s3("acme-pg", "orders"), "s3://acme-pg/orders"),
            ("s3://acme-pg/a/b/", s3("acme-pg", "a/b"), "s3://acme-pg/a/b"),
            ("s3://acme-pg", s3("acme-pg", ""), "s3://acme-pg"),
            ("s3://acme-pg/", s3("acme-pg", ""), "s3://acme-pg"),
            ("file:///srv/x/", StoreUrl::Directory("/srv/x".into()), "file:///srv/x"),
            ("file:///srv/a b%20", StoreUrl::Directory("/srv/a b%20".into()), "file:///srv/a b%20"),
        ] {
            let parsed: StoreUrl = text.parse().expect("a legal URL");
            assert_eq!(parsed, url);
            assert_eq!(parsed.to_string(), printed);
        }
    }

    #[test]
    fn urls_that_name_no_repository_say_what_to_write() {
        for (text, part) in [
            ("", "no scheme"),
            ("bucket/prefix", "no scheme"),
            ("/srv/x", "write file:///srv/x"),
            ("https://bucket.example.net/x", "starts with \"https://\""),
            ("sftp://user@host/path", "not available yet"),
            ("s3://", "bucket is missing"),
            ("s3:///prefix", "bucket is missing"),
            ("s3://bu cket/x", "letters, digits"),
            ("s3://bucket//x", "empty part"),
            ("s3://bucket/../x", "leave its folder"),
            ("file://host/path", "three slashes"),
            ("file:///", "root of the file system"),
            ("file:///srv/../etc", "\"..\""),
        ] {
            let error = text.parse::<StoreUrl>().expect_err("not a repository");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_repeated() {
        for text in ["s3://AKIAKEY:hunter2@bucket/x", "s3:key=hunter2://x", "hunter2"] {
            let error = text.parse::<StoreUrl>().expect_err("credentials are refused");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
