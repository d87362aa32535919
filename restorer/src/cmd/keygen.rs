//! `keygen`: make an identity.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use walseal_common::show;

use walseal_common::seal::Identity;
use walseal_common::terminal::Failure;

/// What `keygen` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Where to write the identity; never overwritten
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes an identity and prints its recipient on standard output.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let identity = Identity::generate().map_err(|error| Failure::from_error("make an identity", &error))?;
    let path = &arguments.output;
    write_new(path, identity.to_file().as_bytes())?;
    show!("{}", identity.recipient());
    eprintln!(
        "The identity is in {} (mode 0600). It is the only thing that opens the backups: keep a copy offline, and never on \
         the host that is backed up. Tell every archiver to seal to its recipient:\n  recipients = [\"{}\"]",
        path.display(),
        identity.recipient()
    );
    Ok(())
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::new(format!("write {}", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.next(
                "name another file; an identity is never overwritten, because nothing else opens what was sealed to it",
            ),
            std::io::ErrorKind::NotFound => failure.next("make the folder first"),
            _ => failure,
        }
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    // The only copy of a key must survive a power cut: the folder's entry, too, is made durable.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
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
        run(&Arguments { output: output.clone() }).expect("a new file");
        let mode = std::fs::metadata(&output).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let content = std::fs::read_to_string(&output).expect("readable");
        assert_eq!(Identity::read_file(&content).expect("an identity").len(), 1);

        let refused = run(&Arguments { output: output.clone() }).expect_err("it is there");
        assert!(refused.to_string().contains("never overwritten"), "{refused}");
        assert_eq!(std::fs::read_to_string(&output).expect("readable"), content);
    }
}
