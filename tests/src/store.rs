//! Where a repository lies, read and broken past walseal.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::proxy::Proxy;
use crate::ring::{self, Ring};
use crate::s3_client;
use crate::scratch::{Scratch, make_dir};

/// A place for a repository, empty at first, that belongs to one test.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder.
    Directory(PathBuf),
    /// A prefix of the bucket of the run's S3 server.
    S3 {
        /// The server.
        server: S3Server,
        /// The prefix, without a slash at its end.
        prefix: String,
    },
}

/// The S3 server that `scripts/test` has started for this run.
#[derive(Clone, Debug)]
pub struct S3Server {
    /// Its address, `http://127.0.0.1:port`.
    pub endpoint: String,
    /// The region it takes.
    pub region: String,
    /// The bucket of the run.
    pub bucket: String,
    /// A key id that may do everything in the bucket.
    pub access_key_id: String,
    /// The key's secret.
    pub secret_access_key: String,
}

/// An object as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its key below the repository's URL.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

impl S3Server {
    /// The server in the environment.
    ///
    /// Errors: there is none, with the command that starts one.
    pub fn of_this_run() -> Result<S3Server> {
        let get = |name: &str| {
            let name = format!("WALSEAL_TEST_S3_{name}");
            std::env::var(&name).ok().filter(|value| !value.is_empty()).with_context(|| {
                format!("{name} is not set: this test needs the S3 server that scripts/test starts; run `scripts/test`")
            })
        };
        Ok(S3Server {
            endpoint: get("ENDPOINT")?,
            region: get("REGION")?,
            bucket: get("BUCKET")?,
            access_key_id: get("ACCESS_KEY_ID")?,
            secret_access_key: get("SECRET_ACCESS_KEY")?,
        })
    }

    fn environment(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([
            ("WALSEAL_TEST_S3_ENDPOINT", self.endpoint.as_str()),
            ("WALSEAL_TEST_S3_REGION", &self.region),
            ("WALSEAL_TEST_S3_BUCKET", &self.bucket),
            ("WALSEAL_TEST_S3_ACCESS_KEY_ID", &self.access_key_id),
            ("WALSEAL_TEST_S3_SECRET_ACCESS_KEY", &self.secret_access_key),
        ])
    }
}

impl Place {
    /// A folder of this test.
    pub fn directory(scratch: &Scratch) -> Result<Place> {
        Ok(Place::Directory(scratch.dir("repository")?))
    }

    /// A prefix of its own on the run's S3 server.
    pub fn s3(scratch: &Scratch) -> Result<Place> {
        Ok(Place::S3 { server: S3Server::of_this_run()?, prefix: scratch.unique_name() })
    }

    /// The same place with a proxy before the server, for an outage.
    ///
    /// Errors: a folder, or a server that speaks TLS.
    pub fn behind_a_proxy(&self) -> Result<(Place, Proxy)> {
        let Place::S3 { server, prefix } = self else { bail!("no proxy stands before a folder") };
        let upstream = server.endpoint.strip_prefix("http://").context("a proxy does not speak TLS")?;
        let proxy = Proxy::start(upstream)?;
        let server = S3Server { endpoint: format!("http://{}", proxy.address()), ..server.clone() };
        Ok((Place::S3 { server, prefix: prefix.clone() }, proxy))
    }

    /// The same place with the fault ring before the server.
    ///
    /// Errors: a folder, or a server that speaks TLS.
    pub fn behind_a_ring(&self, ring: &Arc<Ring>) -> Result<Place> {
        let Place::S3 { server, prefix } = self else { bail!("no proxy stands before a folder") };
        let upstream = server.endpoint.strip_prefix("http://").context("a proxy does not speak TLS")?;
        let endpoint = format!("http://{}", ring::http::before(upstream, ring)?);
        Ok(Place::S3 { server: S3Server { endpoint, ..server.clone() }, prefix: prefix.clone() })
    }

    /// The repository's URL.
    pub fn url(&self) -> String {
        match self {
            Place::Directory(folder) => format!("file://{}", folder.display()),
            Place::S3 { server, prefix } => format!("s3://{}/{prefix}", server.bucket),
        }
    }

    /// Every object, in the order of keys.
    pub fn list(&self) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        match self {
            Place::Directory(folder) => walk(folder, folder, &mut objects)?,
            Place::S3 { prefix, .. } => {
                let listing = self.oracle(&["list", &format!("{prefix}/")])?;
                for line in listing.lines() {
                    let (size, key) = line.split_once(' ').context("a listing has sizes and keys")?;
                    let key = key.strip_prefix(prefix).context("a listing keeps to its prefix")?;
                    objects.push(Object { key: key.trim_start_matches('/').to_owned(), size: size.parse()? });
                }
            }
        }
        objects.sort();
        Ok(objects)
    }

    /// The bytes of an object.
    pub fn read(&self, scratch: &Scratch, key: &str) -> Result<Vec<u8>> {
        match self {
            Place::Directory(folder) => {
                std::fs::read(folder.join(key)).with_context(|| format!("reading {key} of {}", self.url()))
            }
            Place::S3 { prefix, .. } => {
                let file = scratch.path().join("object");
                self.oracle(&["get", &format!("{prefix}/{key}"), &file.to_string_lossy()])?;
                std::fs::read(&file).with_context(|| format!("reading {}", file.display()))
            }
        }
    }

    /// Writes an object, over another if need be, as somebody who holds the bucket can.
    pub fn write(&self, scratch: &Scratch, key: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Place::Directory(folder) => {
                let path = folder.join(key);
                let missing: Vec<_> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
                for folder in missing.iter().rev() {
                    crate::scratch::make_dir(folder, 0o755)?;
                    scratch.account().own(folder)?;
                }
                std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
                scratch.account().own(&path)
            }
            Place::S3 { prefix, .. } => {
                let file = scratch.path().join("object");
                std::fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
                self.oracle(&["put", &format!("{prefix}/{key}"), &file.to_string_lossy()]).map(|_| ())
            }
        }
    }

    /// Removes an object.
    ///
    /// Errors: there is none of that name.
    pub fn remove(&self, key: &str) -> Result<()> {
        if !self.list()?.iter().any(|object| object.key == key) {
            bail!("{} has no object {key} to remove", self.url());
        }
        match self {
            Place::Directory(folder) => {
                std::fs::remove_file(folder.join(key)).with_context(|| format!("removing {key} of {}", self.url()))
            }
            Place::S3 { prefix, .. } => self.oracle(&["delete", &format!("{prefix}/{key}")]).map(|_| ()),
        }
    }

    /// A folder with every object as a file: the repository itself, or a copy of it.
    pub fn as_folder(&self, scratch: &Scratch) -> Result<PathBuf> {
        match self {
            Place::Directory(folder) => Ok(folder.clone()),
            Place::S3 { prefix, .. } => {
                let folder = scratch.path().join("downloaded");
                make_dir(&folder, 0o755)?;
                self.oracle(&["download", &format!("{prefix}/"), &folder.to_string_lossy()])?;
                Ok(folder)
            }
        }
    }

    /// Asks the tests' own S3 client (`tests/oracle/s3.py`), for what only a bucket has.
    pub fn oracle(&self, args: &[&str]) -> Result<String> {
        let Place::S3 { server, .. } = self else { bail!("a folder needs no S3 client") };
        s3_client::ask(&server.environment(), args)
    }
}

/// Where a directory store keeps files that are still being written.
const UNFINISHED: &str = ".walseal-unfinished";

/// Adds every file below `folder`, by its path from `root`. Files and folders that go meanwhile are not there: retention and the
/// archiver work beside whoever looks.
fn walk(root: &Path, folder: &Path, objects: &mut Vec<Object>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if folder != root && error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", folder.display()))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.strip_prefix(root).is_ok_and(|key| key == Path::new(UNFINISHED)) {
            continue; // Files there are no objects yet, and vanish while they are looked at.
        }
        let about = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            about => about.with_context(|| format!("looking at {}", path.display()))?,
        };
        if about.is_dir() {
            walk(root, &path, objects)?;
        } else {
            let key = path.strip_prefix(root).context("a walk stays below its root")?;
            objects.push(Object { key: key.to_string_lossy().into_owned(), size: about.len() });
        }
    }
    Ok(())
}
