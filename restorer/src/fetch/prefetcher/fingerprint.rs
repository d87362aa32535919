//! What a process answers from, so that a prefetcher that was started with other keys is not asked.

use std::fmt::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::fetch::Opening;

/// Variables that say which repository is meant, how it is reached, and where programs and keys are looked for.
const VARIABLES: [&str; 6] = ["WALSEAL_", "AWS_", "S3_", "SSL_CERT_", "HOME", "PATH"];

/// A digest of the program, of the environment as far as it matters, and of every file that is named: of who they are and when they
/// were changed, which a look tells without opening them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// That of `opening` now.
    pub fn of(opening: &Opening) -> Fingerprint {
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(env!("CARGO_PKG_VERSION").as_bytes());
        part(opening.cluster.map(|cluster| cluster.to_string()).unwrap_or_default().as_bytes());
        let mut variables: Vec<_> = std::env::vars_os().collect();
        variables.sort();
        for (name, value) in variables {
            if VARIABLES.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
                part(name.as_encoded_bytes());
                part(value.as_encoded_bytes());
            }
        }
        let config = &opening.config;
        let s3 = &config.repository.s3;
        let keys = config.keys.identity_files.iter().flat_map(|files| &files.value);
        let secrets = [&s3.access_key_id_file, &s3.secret_access_key_file, &s3.session_token_file, &s3.ca_file];
        let secrets = secrets.into_iter().flatten().map(|setting| &setting.value);
        let program = crate::program::path().ok();
        let single = [program.as_deref(), config.file(), opening.plan.as_deref()].into_iter().flatten();
        for path in single.chain(keys.map(AsRef::as_ref)).chain(secrets.map(AsRef::as_ref)) {
            part(path.as_os_str().as_encoded_bytes());
            part(look(path).as_bytes());
        }
        let bytes = digest.finalize();
        Fingerprint(bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which file it is, and when it was changed last.
fn look(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) => format!(
            "{} {} {} {}.{} {}.{}",
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec()
        ),
        Err(error) => format!("{:?}", error.kind()),
    }
}
