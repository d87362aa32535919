//! `walseal-restorer`: from a repository back to a PostgreSQL cluster.

use std::process::ExitCode;

use walseal_common::secret::keep_out_of_core_dumps;

fn main() -> ExitCode {
    if let Err(error) = keep_out_of_core_dumps() {
        eprintln!("warning: keys could end up in a core dump, because its size cannot be limited: {error}");
    }
    walseal_restorer::cmd::main()
}
