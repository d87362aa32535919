//! PostgreSQL's own benchmark as load.

use anyhow::Result;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::deadline::PATIENCE;
use crate::process::Process;

/// A pgbench that runs until it is stopped.
#[derive(Debug)]
pub struct Pgbench {
    process: Process,
}

impl Pgbench {
    /// Makes pgbench's tables; `scale` is 15 MB each.
    pub fn initialise(cluster: &Cluster, scale: u32) -> Result<()> {
        let call = cluster.client("pgbench").args(["-i", "-q", "-s", &scale.to_string(), &cluster.conninfo()]);
        call.within(PATIENCE * 5).run()?.success()?;
        Ok(())
    }

    /// Starts it with that many clients.
    pub fn start(cluster: &Cluster, clients: u32) -> Result<Pgbench> {
        let call =
            cluster.client("pgbench").args(["-n", "-T", "3600", "-c", &clients.to_string(), &cluster.conninfo()]);
        Ok(Pgbench { process: call.spawn()? })
    }

    /// Stops it.
    ///
    /// Errors: it had ended before, with what it said.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        self.process.ends(PATIENCE)
    }
}
