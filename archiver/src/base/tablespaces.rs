//! The tablespaces of a backup (case 28).

use std::collections::BTreeMap;

use walseal_common::repository::{ManifestEntry, RelativePath};

use super::error::BaseError;

/// Tablespaces by object id, with their places on the server; none for one in the data directory.
///
/// The server lists them at the start. What the data directory's archive shows is compared with that list, and adds
/// to it: tablespaces that were created in the meantime (their files come with WAL), and in-place ones, which
/// servers before PostgreSQL 16 send as plain directories.
#[derive(Debug, Default)]
pub struct Tablespaces(BTreeMap<u32, Option<String>>);

impl Tablespaces {
    /// The list at the start: object ids and locations.
    pub fn new<'a>(listed: impl IntoIterator<Item = (u32, &'a str)>) -> Tablespaces {
        let place = |location: &str| location.starts_with('/').then(|| location.to_owned());
        Tablespaces(listed.into_iter().map(|(oid, location)| (oid, place(location))).collect())
    }

    /// Notes a directory of the data directory.
    ///
    /// Errors: the list says that it is a link.
    pub fn directory(&mut self, path: &RelativePath) -> Result<(), BaseError> {
        let Some(oid) = link_of(path) else { return Ok(()) };
        match self.0.entry(oid).or_insert(None) {
            None => Ok(()),
            Some(_) => Err(BaseError::Order("a directory in pg_tblspc for a tablespace that it listed as a link")),
        }
    }

    /// Notes a link of the data directory.
    ///
    /// Errors: it is no tablespace's, or points elsewhere than the list says.
    pub fn link(&mut self, path: &RelativePath, target: &[u8]) -> Result<(), BaseError> {
        let refuse = |why| {
            let target = target.escape_ascii().to_string();
            Err(BaseError::Link { path: path.clone(), target, why })
        };
        let Some(oid) = link_of(path) else { return refuse("is not a tablespace's; PostgreSQL allows no other links") };
        let Ok(location) = std::str::from_utf8(target) else {
            return refuse("is not UTF-8; rename the tablespace's folder");
        };
        if !location.starts_with('/') {
            return refuse("is not absolute");
        }
        match self.0.entry(oid).or_insert_with(|| Some(location.to_owned())) {
            Some(listed) if listed == location => Ok(()),
            _ => refuse("is not where the server listed that tablespace"),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Their lines in the list of files.
    pub fn entries(&self) -> Vec<ManifestEntry> {
        self.0.iter().map(|(&oid, location)| ManifestEntry::Tablespace { oid, location: location.clone() }).collect()
    }
}

/// The object id of the tablespace whose link or folder this is.
fn link_of(path: &RelativePath) -> Option<u32> {
    let digits = path.as_bytes().strip_prefix(b"pg_tblspc/")?;
    let plain = digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0");
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::new(text.as_bytes()).expect("a path")
    }

    #[test]
    fn case_28_links_must_be_where_the_server_listed_them() {
        let mut spaces = Tablespaces::new([(16384, "/srv/a b"), (16385, "pg_tblspc/16385")]);
        spaces.link(&path("pg_tblspc/16384"), b"/srv/a b").expect("as listed");
        spaces.directory(&path("pg_tblspc/16385")).expect("in place, as listed");
        spaces.directory(&path("pg_tblspc/16386")).expect("in place, not listed before PostgreSQL 16");
        spaces.link(&path("pg_tblspc/16387"), b"/srv/new").expect("created in the meantime");
        spaces.directory(&path("pg_tblspc/16386/PG_15_202209061")).expect("not a tablespace");
        spaces.directory(&path("base/1")).expect("not a tablespace");
        let place = |location: Option<&str>| location.map(str::to_owned);
        let entry = |oid, location| ManifestEntry::Tablespace { oid, location: place(location) };
        assert_eq!(
            spaces.entries(),
            [entry(16384, Some("/srv/a b")), entry(16385, None), entry(16386, None), entry(16387, Some("/srv/new"))]
        );
        assert_eq!(spaces.count(), 4);
    }

    #[test]
    fn case_28_odd_links_are_refused_by_name() {
        let mut spaces = Tablespaces::new([(16384, "/srv/a"), (16385, "pg_tblspc/16385")]);
        for (link, target, words) in [
            ("pg_tblspc/16384", &b"/srv/b"[..], "not where the server listed"),
            ("pg_tblspc/16385", b"/srv/b", "not where the server listed"),
            ("pg_tblspc/16386", b"../../srv", "not absolute"),
            ("pg_tblspc/16386", b"/srv/\xff", "not UTF-8"),
            ("pg_tblspc/016386", b"/srv/a", "not a tablespace's"),
            ("pg_wal", b"/srv/a", "not a tablespace's"),
        ] {
            let error = spaces.link(&path(link), target).expect_err(words).to_string();
            assert!(error.contains(words) && error.starts_with(link), "{error}");
        }
        assert!(spaces.directory(&path("pg_tblspc/16384")).is_err());
    }
}
