//! What a run is told.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Nodes of the cluster.
pub const NODES: usize = 3;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Kills, freezes and partitions under load; then everything is judged.
    Faults,
    /// Kills the leader again and again: how long nothing can be written.
    Failover,
    /// Hands the lead over again and again: how long nothing can be written.
    Transfer,
    /// Disks stand still for half a second now and then: nobody may be elected.
    Stalls,
}

/// Processes of the ledger under faults; run by `scripts/chaos`, which prepares the network.
#[derive(Debug, Parser)]
pub struct Settings {
    /// What is done.
    #[arg(long, value_enum, default_value = "faults")]
    pub mode: Mode,
    /// The program under test.
    #[arg(long)]
    pub strongroom: PathBuf,
    /// An empty directory for data, certificates and logs.
    #[arg(long)]
    pub work: PathBuf,
    /// Network namespaces of the nodes, each with a chain `inet faults input`.
    #[arg(long, num_args = NODES)]
    pub hosts: Vec<String>,
    /// The nodes' addresses, in the same order.
    #[arg(long, num_args = NODES)]
    pub addresses: Vec<Ipv4Addr>,
    /// How long things break, or disks stall.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What breaks when is drawn from this.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rounds of a measurement.
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
}

impl Settings {
    /// How long things break.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
