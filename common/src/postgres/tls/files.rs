//! The files that `sslrootcert`, `sslcert` and `sslkey` name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::SslMode;

/// Where trusted roots come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RootSource {
    /// The operating system's roots (`sslrootcert=system`).
    System,
    /// A file that was named.
    File(PathBuf),
    /// `~/.postgresql/root.crt`, if it is there.
    DefaultFile(PathBuf),
    /// There is no home directory to look in.
    None,
}

/// A file that was named, or one at its default place that may be missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionalFile {
    /// Named: must be there.
    Named(PathBuf),
    /// At its default place, if it is there.
    Default(PathBuf),
    /// There is no home directory to look in.
    None,
}

/// The files of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SslFiles {
    pub(crate) root: RootSource,
    pub(crate) certificate: OptionalFile,
    pub(crate) key: OptionalFile,
}

impl OptionalFile {
    fn path(&self) -> Option<&Path> {
        match self {
            OptionalFile::Named(path) => Some(path),
            OptionalFile::Default(path) => path.exists().then_some(path.as_path()),
            OptionalFile::None => None,
        }
    }
}

/// Trusted roots: as anchors for chains, and as they are, because a server's own certificate may be among them.
pub(super) struct Roots {
    pub(super) anchors: RootCertStore,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// The roots that `mode` asks for; `None` when certificates are not to be checked.
///
/// Errors: a file that can not be read or holds no certificate, and `verify-*` without a file.
pub(super) fn roots(mode: SslMode, files: &SslFiles) -> Result<Option<Roots>, String> {
    let path = match (&files.root, mode) {
        (_, SslMode::Disable | SslMode::Allow | SslMode::Prefer) => return Ok(None),
        (RootSource::System, _) => return system_roots().map(Some),
        (RootSource::File(path), _) => path,
        (RootSource::DefaultFile(path), _) if path.exists() => path,
        (RootSource::DefaultFile(_) | RootSource::None, SslMode::Require) => return Ok(None),
        (RootSource::DefaultFile(path), _) => {
            let (mode, path) = (mode.as_str(), path.display());
            return Err(format!(
                "sslmode={mode} needs the authority's certificate, and {path} is not there; set sslrootcert to its \
                 file, or to \"system\""
            ));
        }
        (RootSource::None, _) => {
            let mode = mode.as_str();
            return Err(format!("sslmode={mode} needs the authority's certificate; set sslrootcert"));
        }
    };
    let certificates = certificates(path, "sslrootcert")?;
    let mut anchors = RootCertStore::empty();
    // Version 1 certificates can not be anchors, but may still be the server's own.
    anchors.add_parsable_certificates(certificates.iter().cloned());
    Ok(Some(Roots { anchors, certificates }))
}

fn system_roots() -> Result<Roots, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut anchors = RootCertStore::empty();
    let (added, _) = anchors.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), |error| error.to_string());
        return Err(format!("the system has no trusted roots ({why}); install the package ca-certificates"));
    }
    Ok(Roots { anchors, certificates: Vec::new() })
}

fn certificates(path: &Path, keyword: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |why: String| format!("{} ({keyword}) is not readable: {why}", path.display());
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| fail(error.to_string()))?;
    if found.is_empty() {
        return Err(fail("it holds no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

/// The client's certificate chain and key, if there are any.
///
/// Errors: one without the other, unreadable files, and a key that others can read.
pub(super) fn client_identity(
    files: &SslFiles,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
    let Some(certificate) = files.certificate.path() else { return Ok(None) };
    let chain = certificates(certificate, "sslcert")?;
    let Some(key) = files.key.path() else {
        return Err(format!("there is a client certificate in {} but no key; set sslkey", certificate.display()));
    };
    let fail = |why: String| format!("{} (sslkey) {why}", key.display());
    let meta = fs::metadata(key).map_err(|error| fail(format!("is not readable: {error}")))?;
    // As libpq: only the owner, or for a key of root also its group.
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if !meta.is_file() || meta.mode() & forbidden != 0 {
        return Err(fail("can be read by others; run: chmod 0600 on it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| fail(format!("is not readable: {error}; it must be PEM without a password")))?;
    Ok(Some((chain, key)))
}
