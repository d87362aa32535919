//! `keygen`: make a writer key.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use walseal_common::show;

use walseal_common::seal::WriterKey;
use walseal_common::terminal::Failure;

/// What `keygen` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Where to write the key; never overwritten
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Share the compare key of this writer key: for a second archiver of the same cluster
    #[arg(long, value_name = "FILE")]
    sibling_of: Option<PathBuf>,
}

/// Makes the key and prints its public half.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error("make a writer key", error);
    let key = match &arguments.sibling_of {
        None => WriterKey::generate().map_err(|error| failed(&error))?,
        Some(path) => {
            let content = std::fs::read_to_string(path)
                .map(zeroize::Zeroizing::new)
                .map_err(|error| Failure::new(format!("read {}", path.display()), error))?;
            let first = WriterKey::read_file(&content)
                .map_err(|error| Failure::new(format!("read {}", path.display()), error))?;
            first.generate_sibling().map_err(|error| failed(&error))?
        }
    };
    write_new(&arguments.output, key.to_file().as_bytes())?;
    show!("{}", key.public());
    eprintln!(
        "The writer key is in {} (mode 0600). Tell every restorer to trust it:\n  trusted_writers = [\"{}\"]",
        arguments.output.display(),
        key.public()
    );
    Ok(())
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::new(format!("write {}", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.next(
                "name another file; a key is never overwritten, because nothing signed with it could be told from a forgery",
            ),
            std::io::ErrorKind::NotFound => failure.next("make its folder first, or name a file in another one"),
            std::io::ErrorKind::PermissionDenied => {
                failure.next("name a file in a folder of this user, or run this as the user whom the folder belongs to")
            }
            _ => failure,
        }
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}
