//! `walseal-restorer`: from a repository back to a PostgreSQL cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    walseal_restorer::cmd::main()
}
