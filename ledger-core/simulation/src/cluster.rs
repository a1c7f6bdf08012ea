//! The nodes of one run: their disks, directories and clocks, and what can be done to them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_core::names::{LedgerId, VaultRef};
use ledger_core::ports::{StateStore, StoreError};
use ledger_node::peers::{ClusterId, Incarnation, MemberRecord, NodeName, PeerIdentity};
use ledger_node::{Bootstrap, ClusterOptions, Options, Stores, Threads};
use ledger_verify::note::{SigningKey, VerifierKey};
use std::sync::Arc;
use tempfile::TempDir;

use crate::clock::HostClock;
use crate::dice::Dice;
use crate::disk::{DiskCounters, Durability, LogDisk, StateDisk};
use crate::disk_timing::DiskTiming;
use crate::evidence::Evidence;
use crate::network::{Endpoint, Network, NetworkCounters, WireQuality};
use crate::node::{self, NodeParts, Stopped};
use crate::trace::{Telling, Trace};
use crate::violation::Violation;
use crate::world::{HostState, World};

/// How often applied state is written to the store: the log is purged after it.
const FLUSH_INTERVAL: Duration = Duration::from_millis(400);
/// In so many runs of a thousand the log is kept for those who are behind; in the others they need a snapshot.
const LOG_KEPT_PER_MILLE: u32 = 400;
const LOG_KEPT_BYTES: u64 = 1 << 30;
const CLUSTER_ID: ClusterId = ClusterId(*b"simulated clustr");
const LEDGER_ID: LedgerId = LedgerId(*b"simulated ledger");

/// A simulation cannot go on, for a reason that is not the ledger's.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// Directories and runtimes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The reference stores.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster could not be set up.
    #[error("the cluster was not set up: {0}")]
    Setup(String),
}

/// What stays of a node when its process ends, and what it is.
struct Machine {
    member: MemberRecord,
    path: PathBuf,
    log: LogDisk,
    state: StateDisk,
    timing: DiskTiming,
    clock: HostClock,
    boots: u64,
    dice: Dice,
}

/// The nodes of one run.
pub struct Cluster {
    /// The world that they are in.
    pub world: World,
    /// What was seen of them.
    pub evidence: Evidence,
    vault: VaultRef,
    machines: BTreeMap<Endpoint, Machine>,
    folder: TempDir,
    seed: u64,
    signing_key: SigningKey,
    stopped: Stopped,
    log_keep_bytes: u64,
    snapshots_installed: u64,
}

/// The address of a node.
pub fn address_of(endpoint: Endpoint) -> String {
    format!("{endpoint}.sim:7400")
}

impl Cluster {
    /// A cluster without nodes.
    ///
    /// # Errors
    /// When there is no temporary directory.
    pub fn new(seed: u64, telling: Telling) -> Result<Self, HarnessError> {
        let trace = Trace::new(telling);
        let network = Network::new(seed, WireQuality::GOOD, trace.clone());
        let signing_key = SigningKey::from_seed(&format!("strongroom/{LEDGER_ID}"), &[7; 32])
            .map_err(|error| HarnessError::Setup(error.to_string()))?;
        Ok(Self {
            world: World::new(seed, network, trace),
            evidence: Evidence::default(),
            vault: "sim/vault".parse().map_err(|_| HarnessError::Setup("the vault's name".to_owned()))?,
            machines: BTreeMap::new(),
            folder: tempfile::Builder::new().prefix("ledger-simulation").tempdir()?,
            seed,
            signing_key,
            stopped: Stopped::default(),
            log_keep_bytes: if Dice::new(seed, "log").chance(LOG_KEPT_PER_MILLE) {
                LOG_KEPT_BYTES
            } else {
                0
            },
            snapshots_installed: 0,
        })
    }

    /// How much of the log nodes keep that boot from now on, whatever the seed says.
    pub fn set_log_keep_bytes(&mut self, bytes: u64) {
        self.log_keep_bytes = bytes;
    }

    /// The vault of the simulation.
    pub fn vault(&self) -> &VaultRef {
        &self.vault
    }

    /// The key that verifies checkpoints.
    pub fn verifier_key(&self) -> VerifierKey {
        self.signing_key.verifier_key()
    }

    /// All nodes that were ever made.
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.machines.keys().copied().collect()
    }

    /// The record of a node in the membership.
    pub fn member(&self, node: Endpoint) -> Option<&MemberRecord> {
        self.machines.get(&node).map(|machine| &machine.member)
    }

    /// The node of a number.
    pub fn endpoint_of(&self, node_id: u64) -> Option<Endpoint> {
        let of_id = |machine: &&Machine| machine.member.identity.node_id == node_id;
        self.machines.iter().find(|(_, machine)| of_id(machine)).map(|(endpoint, _)| *endpoint)
    }

    /// Makes a node with empty disks. It does not run yet.
    ///
    /// # Errors
    /// When its directory cannot be written.
    pub fn make(&mut self, endpoint: Endpoint) -> Result<(), HarnessError> {
        let node_id = u64::from(endpoint.0) + 1;
        let name =
            NodeName::new(endpoint.to_string()).map_err(|error| HarnessError::Setup(error.to_string()))?;
        let incarnation = Incarnation([endpoint.0 + 1; 16]);
        let member = MemberRecord {
            identity: PeerIdentity { node_id, name: name.clone(), incarnation },
            peer_address: address_of(endpoint),
            client_url: String::new(),
        };
        self.world.network().attach(endpoint, address_of(endpoint), name);
        let path = self.folder.path().join(endpoint.to_string());
        write_identity(&path, node_id, &self.signing_key)?;
        let log = LogDisk::new(Durability::AtCommit);
        let timing = DiskTiming::new(Dice::new(self.seed, ("disk", endpoint)));
        let machine = Machine {
            member,
            path,
            log,
            state: StateDisk::default(),
            timing,
            clock: HostClock::new(self.world.time().clone()),
            boots: 0,
            dice: Dice::new(self.seed, ("machine", endpoint)),
        };
        self.machines.insert(endpoint, machine);
        Ok(())
    }

    /// Starts the process of a node, as a member that waits to be contacted unless it is told otherwise.
    ///
    /// # Errors
    /// When its runtime cannot be built.
    pub fn boot(&mut self, endpoint: Endpoint, bootstrap: Bootstrap) -> Result<(), HarnessError> {
        let transport = self.world.network().transport(endpoint);
        let Some(machine) = self.machines.get_mut(&endpoint) else { return Ok(()) };
        machine.boots += 1;
        let mut cluster = ClusterOptions::new(transport, CLUSTER_ID, machine.member.clone());
        cluster.silent_after = None;
        cluster.log_keep_bytes = self.log_keep_bytes;
        let options = Options {
            flush_interval: FLUSH_INTERVAL,
            snapshot_every: Duration::ZERO,
            bootstrap,
            cluster: Some(cluster),
            clock: Arc::new(machine.clock.clone()),
            threads: Threads::Inline { seed: machine.dice.seed() },
            ..Options::default()
        };
        let stores =
            Stores { log: machine.log.open_timed(machine.timing.clone()), state: machine.state.open() };
        let parts = NodeParts {
            endpoint,
            path: machine.path.clone(),
            stores,
            options,
            vault: self.vault.clone(),
            stopped: self.stopped.clone(),
        };
        self.world.boot(endpoint, node::open(parts))?;
        Ok(())
    }

    /// Ends the process of a node at once; of what its disks had not synced, a part survives.
    ///
    /// # Errors
    /// When the reference stores contradict themselves.
    pub fn crash(&mut self, endpoint: Endpoint) -> Result<(), HarnessError> {
        self.look_at(endpoint);
        self.count_process(endpoint);
        self.evidence.forget_process(endpoint);
        self.world.crash(endpoint);
        if let Some(machine) = self.machines.get_mut(&endpoint) {
            machine.log.crash(&mut machine.dice)?;
            machine.state.crash();
        }
        Ok(())
    }

    /// Lets everything on a node's disks take longer; zero = as usual.
    pub fn stall(&self, endpoint: Endpoint, by: Duration) {
        if let Some(machine) = self.machines.get(&endpoint) {
            machine.timing.set_stall(by);
        }
    }

    /// Sets the error of a node's clock.
    pub fn set_clock_error_ms(&self, endpoint: Endpoint, error_ms: i64) {
        if let Some(machine) = self.machines.get(&endpoint) {
            machine.clock.set_error_ms(error_ms);
        }
    }

    /// The disks of all logs.
    pub fn log_disks(&self) -> Vec<LogDisk> {
        self.machines.values().map(|machine| machine.log.clone()).collect()
    }

    /// The state on a node's disk, while its process is down.
    pub fn state_store(&self, endpoint: Endpoint) -> Option<Arc<dyn StateStore>> {
        let machine = self.machines.get(&endpoint).filter(|_| !self.world.is_running(endpoint));
        machine.map(|machine| machine.state.open())
    }

    /// Who leads in the highest term, as far as the running nodes say.
    pub fn leader(&self) -> Option<Endpoint> {
        let statuses = self.machines.keys().filter_map(|endpoint| {
            let node = self.world.node(*endpoint)?;
            let status = node.ledger()?.node_info();
            status.is_leader.then_some((status.term, *endpoint))
        });
        statuses.max().map(|(_, endpoint)| endpoint)
    }

    /// Moves everything on by one step, and looks at every node.
    pub fn step(&mut self) {
        self.world.step();
        for (node, reason) in self.stopped.take() {
            self.evidence.report(Violation::Stopped { node, reason });
        }
        let nodes = self.nodes();
        for endpoint in nodes {
            match self.world.state(endpoint) {
                HostState::Up(node) => {
                    let Some(ledger) = node.ledger() else { continue };
                    let status = ledger.node_info();
                    if status.is_leader {
                        self.evidence.saw_leader(endpoint, status.term);
                    }
                }
                HostState::Refused(reason) => {
                    self.evidence.report(Violation::Stopped { node: endpoint, reason });
                    self.world.crash(endpoint);
                }
                HostState::Down | HostState::Booting => {}
            }
        }
    }

    /// Looks at the blocks of a node.
    pub fn look_at(&mut self, endpoint: Endpoint) {
        if let Some(node) = self.world.node(endpoint)
            && let Some(ledger) = node.ledger()
        {
            self.evidence.look_at_chain(endpoint, ledger, &self.vault);
        }
    }

    /// Looks at the blocks of all nodes.
    pub fn look_at_all(&mut self) {
        self.nodes().into_iter().for_each(|endpoint| self.look_at(endpoint));
    }

    /// Adds what the processes that run have counted.
    pub fn count_processes(&mut self) {
        self.nodes().into_iter().for_each(|endpoint| self.count_process(endpoint));
    }

    fn count_process(&mut self, endpoint: Endpoint) {
        if let Some(node) = self.world.node(endpoint)
            && let Some(ledger) = node.ledger()
        {
            self.snapshots_installed += ledger.counters().snapshots_installed;
        }
    }

    /// Snapshots that nodes took from others, as far as they were counted.
    pub fn snapshots_installed(&self) -> u64 {
        self.snapshots_installed
    }

    /// Compares the logs on the disks.
    pub fn compare_logs(&mut self) {
        let logs: Vec<_> =
            self.machines.iter().map(|(endpoint, machine)| (*endpoint, machine.log.open())).collect();
        self.evidence.compare_logs(&logs);
    }

    /// What happened to all disks.
    pub fn disk_counters(&self) -> DiskCounters {
        self.machines.values().fold(DiskCounters::default(), |sum, machine| sum + machine.log.counters())
    }

    /// What the network did.
    pub fn network_counters(&self) -> NetworkCounters {
        self.world.network().counters()
    }
}

/// What a directory of a node needs to be this node, and not one with an identity of its own.
fn write_identity(path: &Path, node_id: u64, key: &SigningKey) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let write = |name: &str, text: &str| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path.join(name))?;
        io::Write::write_all(&mut file, text.as_bytes())
    };
    write("node_id", &format!("{node_id}\n"))?;
    write("log.key", &format!("{}\n", *key.to_secret_text()))
}
