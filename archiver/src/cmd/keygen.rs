//! `keygen`: make a writer key.

use std::path::PathBuf;
use walseal_common::show;

use walseal_common::seal::WriterKey;
use walseal_common::terminal::{Failure, write_new_key};

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
    write_new_key(
        &arguments.output,
        key.to_file().as_bytes(),
        "a key is never overwritten, because nothing signed with it could be told from a forgery",
    )?;
    show!("{}", key.public());
    eprintln!(
        "The writer key is in {} (mode 0600). Tell every restorer to trust it:\n  trusted_writers = [\"{}\"]",
        arguments.output.display(),
        key.public()
    );
    Ok(())
}
