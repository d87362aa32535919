//! `walseal-archiver`: from PostgreSQL into a sealed repository.

use std::process::ExitCode;

fn main() -> ExitCode {
    walseal_archiver::cmd::main()
}
