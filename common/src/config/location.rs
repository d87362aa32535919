//! Where a repository is, as its URL says.

use std::fmt;
use std::path::PathBuf;

use super::value::Wrong;

/// A repository's URL, taken apart. `Display` gives the URL back; it never holds a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepositoryUrl {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What all keys start with, without a slash at either end; may be empty.
        prefix: String,
    },
    /// `file:///folder`.
    Directory {
        /// The folder, absolute.
        path: PathBuf,
    },
    /// `sftp://user@host:port/path`.
    Sftp {
        /// The login, where the URL names one.
        user: Option<String>,
        /// Host name or address.
        host: String,
        /// Port, 22 where the URL names none.
        port: u16,
        /// The folder on that host, absolute.
        path: String,
    },
}

impl RepositoryUrl {
    /// Reads a URL. Errors: another scheme, no bucket, a relative folder, a password in it.
    pub fn parse(text: &str) -> Result<RepositoryUrl, Wrong> {
        let examples = "write s3://bucket/prefix or file:///folder";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(if text.starts_with('/') {
                Wrong::new("is a path and not a URL", format!("write \"file://{text}\""))
            } else {
                Wrong::new("is not a URL", examples)
            });
        };
        let authority = rest.split('/').next().unwrap_or(rest);
        if authority.contains('@') && (scheme != "sftp" || authority.contains(':') && is_password(authority)) {
            return Err(Wrong::new(
                "holds credentials, which would end up in messages and logs",
                "take them out of the URL; credentials have keys of their own, such as repository.s3.access_key_id",
            ));
        }
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Wrong::new("holds a character that a repository's URL cannot have", examples));
        }
        match scheme {
            "s3" => s3(rest),
            "file" => directory(rest),
            "sftp" => sftp(rest),
            other => Err(Wrong::new(format!("has the scheme {other:?}, which walseal does not know"), examples)),
        }
    }
}

/// Whether what stands before the last `@` is `user:password`.
fn is_password(authority: &str) -> bool {
    authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
}

fn s3(rest: &str) -> Result<RepositoryUrl, Wrong> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Wrong::new("names no bucket", "write s3://bucket/prefix"));
    }
    Ok(RepositoryUrl::S3 { bucket: bucket.to_owned(), prefix: plain_path(prefix)? })
}

fn directory(rest: &str) -> Result<RepositoryUrl, Wrong> {
    if !rest.starts_with('/') {
        return Err(Wrong::new("names no absolute folder", format!("write three slashes, as in file:///{rest}")));
    }
    Ok(RepositoryUrl::Directory { path: PathBuf::from(format!("/{}", plain_path(rest)?)) })
}

fn sftp(rest: &str) -> Result<RepositoryUrl, Wrong> {
    let example = "write sftp://user@host/path";
    let Some((authority, path)) = rest.split_once('/') else {
        return Err(Wrong::new("names no folder", example));
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, authority),
    };
    // An IPv6 address has colons of its own and stands in brackets.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| Wrong::new(format!("has {port:?} for a port"), example))?)
        }
        _ => (address, 22),
    };
    if host.is_empty() {
        return Err(Wrong::new("names no host", example));
    }
    Ok(RepositoryUrl::Sftp { user, host: host.to_owned(), port, path: format!("/{}", plain_path(path)?) })
}

/// A path without slashes at its ends; empty, `.` and `..` parts would make one place look like two.
fn plain_path(path: &str) -> Result<String, Wrong> {
    let path = path.trim_matches('/');
    if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Wrong::new("has an empty, \".\" or \"..\" part in its path", "write the path without them"));
    }
    Ok(path.to_owned())
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepositoryUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            RepositoryUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            RepositoryUrl::Directory { path } => write!(f, "file://{}", path.display()),
            RepositoryUrl::Sftp { user, host, port, path } => {
                f.write_str("sftp://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                f.write_str(host)?;
                if *port != 22 {
                    write!(f, ":{port}")?;
                }
                f.write_str(path)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_of_all_three_kinds_are_read_and_printed() {
        for (text, printed) in [
            ("s3://acme-pg/orders", "s3://acme-pg/orders"),
            ("s3://acme-pg", "s3://acme-pg"),
            ("s3://acme-pg/a/b/", "s3://acme-pg/a/b"),
            ("file:///srv/walseal/orders", "file:///srv/walseal/orders"),
            ("sftp://pg@backup.example.net/srv/orders", "sftp://pg@backup.example.net/srv/orders"),
            ("sftp://[::1]:2222/srv", "sftp://[::1]:2222/srv"),
        ] {
            assert_eq!(RepositoryUrl::parse(text).expect(text).to_string(), printed);
        }
    }

    #[test]
    fn a_path_is_told_how_to_become_a_url() {
        let wrong = RepositoryUrl::parse("/srv/walseal").expect_err("a path");
        assert_eq!(wrong.fix, "write \"file:///srv/walseal\"");
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_printing_it() {
        for url in ["s3://key:hunter2@bucket/prefix", "sftp://pg:hunter2@host/path", "https://hunter2@host/x"] {
            let wrong = RepositoryUrl::parse(url).expect_err("credentials");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
    }

    #[test]
    fn urls_that_name_no_place_are_refused() {
        for url in [
            "",
            "s3://",
            "s3:///x",
            "file://srv",
            "ftp://h/x",
            "s3://b/a/../c",
            "s3://b//c/./d",
            "sftp://host",
            "sftp://:1/x",
            "sftp://h:port/x",
            "s3://b/a?x=1",
            "s3://b/a b",
        ] {
            assert!(RepositoryUrl::parse(url).is_err(), "{url} was accepted");
        }
    }

    proptest! {
        #[test]
        fn a_url_that_was_read_is_read_the_same_once_printed(text in "(s3|file|sftp)://[a-z/@:.0-9]{0,20}") {
            if let Ok(url) = RepositoryUrl::parse(&text) {
                prop_assert_eq!(RepositoryUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
