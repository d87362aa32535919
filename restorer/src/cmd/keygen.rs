//! `keygen`: make an identity, or the key of an archiver that lost its own.

use std::path::PathBuf;
use walseal_common::show;

use walseal_common::seal::{Identity, WriterKey};
use walseal_common::terminal::{Failure, write_new_key};

use crate::access::Access;
use crate::segment_source;

/// What `keygen` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Where to write the identity; never overwritten
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Make a writer key instead, for an archiver that lost its own: it goes on in the repository that is configured
    #[arg(long)]
    pub(super) writer: bool,
}

/// Makes an identity and prints its recipient on standard output.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let identity = Identity::generate().map_err(|error| Failure::from_error("make an identity", &error))?;
    let path = &arguments.output;
    write_new_key(
        path,
        identity.to_file().as_bytes(),
        "an identity is never overwritten, because nothing else opens what was sealed to it",
    )?;
    show!("{}", identity.recipient());
    eprintln!(
        "The identity is in {} (mode 0600). It is the only thing that opens the backups: keep a copy offline, and never on \
         the host that is backed up. Tell every archiver to seal to its recipient:\n  recipients = [\"{}\"]",
        path.display(),
        identity.recipient()
    );
    Ok(())
}

/// Makes a writer key that shares the compare key of the repository, which its archivers share and its identities open, and prints
/// its public half on standard output.
pub async fn run_writer(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let compare = segment_source::compare_key(&access.repository, &access.identities).await;
    let compare = compare.map_err(|error| Failure::from_error("read the compare key of the repository", &error))?;
    let key = WriterKey::generate_for(compare).map_err(|error| Failure::from_error("make a writer key", &error))?;
    let path = &arguments.output;
    write_new_key(
        path,
        key.to_file().as_bytes(),
        "nothing signed with a key that was overwritten could be told from a forgery",
    )?;
    show!("{}", key.public());
    eprintln!(
        "The writer key is in {} (mode 0600): move it to the archiver's host, and keep no copy here. Tell every restorer to trust it, beside \
         the one that was lost, and the archiver to trust that one:\n  trusted_writers = [\"{}\", …]",
        path.display(),
        key.public()
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_written_once_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = folder.path().join("identity.key");
        run(&Arguments { output: output.clone(), writer: false }).expect("a new file");
        let mode = std::fs::metadata(&output).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let content = std::fs::read_to_string(&output).expect("readable");
        assert_eq!(Identity::read_file(&content).expect("an identity").len(), 1);

        let refused = run(&Arguments { output: output.clone(), writer: false }).expect_err("it is there");
        assert!(refused.to_string().contains("never overwritten"), "{refused}");
        assert_eq!(std::fs::read_to_string(&output).expect("readable"), content);
    }
}
