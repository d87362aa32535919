//! Starts a throwaway cluster, prints where it is, and holds it until standard input ends.
//!
//! For a look by hand, and for the bed's own tests, which end it in unfriendly ways: with the argument
//! `panic` it panics as a failing test does.

use std::io::{Read as _, Write as _};

use anyhow::{Context, Result};

use walseal_tests::cluster::Cluster;

fn main() -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).start()?;
    println!("{} {}", cluster.pid()?, cluster.scratch().path().display());
    std::io::stdout().flush().context("writing to stdout")?;
    #[expect(clippy::panic, reason = "a test that fails does so, too")]
    if std::env::args().nth(1).as_deref() == Some("panic") {
        panic!("as asked");
    }
    std::io::stdin().read_to_end(&mut Vec::new()).context("reading stdin")?;
    Ok(())
}
