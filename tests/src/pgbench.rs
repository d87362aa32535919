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
        Pgbench::start_with(cluster, clients, &[])
    }

    /// Likewise, with about so many transactions per second.
    pub fn start_at_rate(cluster: &Cluster, clients: u32, rate: u32) -> Result<Pgbench> {
        Pgbench::start_with(cluster, clients, &["-R", &rate.to_string()])
    }

    fn start_with(cluster: &Cluster, clients: u32, more: &[&str]) -> Result<Pgbench> {
        let call = cluster.client("pgbench").args(["-n", "-T", "3600", "-c", &clients.to_string()]).args(more);
        Ok(Pgbench { process: call.arg(cluster.conninfo()).spawn()? })
    }

    /// Stops it.
    ///
    /// Errors: it had ended before, with what it said.
    pub fn stop(mut self) -> Result<()> {
        // Not SIGINT: whoever is started in the background by a shell ignores that.
        self.process.signal(Signal::TERM)?;
        self.process.ends(PATIENCE)
    }
}
