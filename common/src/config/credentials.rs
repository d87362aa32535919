//! Credentials of an S3 store.

use std::fmt;
use std::path::PathBuf;

use super::Config;
use super::error::ConfigError;
use super::key_file::read_secret_file;
use super::origin::{Origin, Setting};
use super::value::Wrong;
use crate::secret::Secret;

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The access key, not secret by itself.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token that temporary credentials have besides.
    pub session_token: Option<Secret>,
    /// Who set the access key, for messages.
    pub origin: Origin,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Credentials({} from {})", self.access_key_id, self.origin)
    }
}

impl Config {
    /// The credentials that are configured, with their files read now; `None` when none are, which leaves it to the
    /// store to look for profiles and roles.
    ///
    /// Errors: half a pair, a value and a file for the same thing, a file that cannot be read or that others can.
    pub fn s3_credentials(&self) -> Result<Option<S3Credentials>, ConfigError> {
        let s3 = &self.repository.s3;
        let hidden = s3.access_key_id.as_ref().map(|id| Setting::new(Secret::new(id.value.clone()), id.origin.clone()));
        let id = one_of(
            ["repository.s3.access_key_id", "repository.s3.access_key_id_file"],
            hidden,
            &s3.access_key_id_file,
        )?;
        let secret = one_of(
            ["repository.s3.secret_access_key", "repository.s3.secret_access_key_file"],
            s3.secret_access_key.clone(),
            &s3.secret_access_key_file,
        )?;
        let token = one_of(
            ["repository.s3.session_token", "repository.s3.session_token_file"],
            s3.session_token.clone(),
            &s3.session_token_file,
        )?;
        let half = |key, origin: Origin, missing: &str| {
            let problem = format!("stands alone: {missing} is not set");
            Err(ConfigError::Invalid {
                key,
                origin,
                wrong: Wrong::new(problem, format!("set {missing} as well, or neither")),
            })
        };
        match (id, secret, token) {
            (Some(id), Some(secret), token) => Ok(Some(S3Credentials {
                access_key_id: id.value.expose().to_owned(),
                secret_access_key: secret.value,
                session_token: token.map(|token| token.value),
                origin: id.origin,
            })),
            (None, None, None) => Ok(None),
            (Some(id), None, _) => {
                half("repository.s3.access_key_id", id.origin, "repository.s3.secret_access_key (or …_file)")
            }
            (None, Some(secret), _) => {
                half("repository.s3.secret_access_key", secret.origin, "repository.s3.access_key_id")
            }
            (None, None, Some(token)) => {
                half("repository.s3.session_token", token.origin, "repository.s3.access_key_id with its secret")
            }
        }
    }
}

/// How strong a layer is; 0 is the strongest.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Flag(_) => 0,
        Origin::Variable(_) => 1,
        Origin::File { .. } => 2,
        Origin::Default => 3,
    }
}

/// The value, or what the file holds: whichever the stronger layer sets.
pub(super) fn one_of(
    [key, file_key]: [&'static str; 2],
    value: Option<Setting<Secret>>,
    file: &Option<Setting<PathBuf>>,
) -> Result<Option<Setting<Secret>>, ConfigError> {
    match (value, file) {
        (Some(value), Some(file)) if rank(&value.origin) == rank(&file.origin) => {
            let wrong =
                Wrong::new(format!("says the same as {file_key} (from {})", file.origin), "set only one of them");
            Err(ConfigError::Invalid { key, origin: value.origin, wrong })
        }
        (Some(value), Some(file)) if rank(&value.origin) < rank(&file.origin) => Ok(Some(value)),
        (Some(value), None) => Ok(Some(value)),
        (_, Some(file)) => {
            let secret = read_secret_file(file_key, &file.origin, file)?;
            Ok(Some(Setting::new(secret, file.origin.clone())))
        }
        (None, None) => Ok(None),
    }
}
