//! One run: three nodes are set up, clients work while things break, everything heals, and then it is judged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::names::VaultId;
use ledger_core::planted_bugs::{PlantedBug, Planting};
use ledger_node::Bootstrap;

use crate::cluster::{Cluster, HarnessError};
use crate::dice::Dice;
use crate::disk::DiskCounters;
use crate::divergence::{DivergenceCounters, Plan, PlantedDivergence, Progress};
use crate::nemesis::{Nemesis, NemesisCounters};
use crate::network::{Endpoint, NetworkCounters};
use crate::replacement::{Replacement, ReplacementCounters};
use crate::trace::Telling;
use crate::violation::Violation;
use crate::workload::{CheckpointRecord, Client, SharedRecords, Targets, Workload, WorkloadCounters};

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Everything random comes from this.
    pub seed: u64,
    /// How long things break.
    pub safety: Duration,
    /// Clients at work.
    pub clients: u32,
    /// Keys that they share.
    pub keys: u32,
    /// Whether what happens is printed.
    pub telling: Telling,
    /// Of a thousand disturbances so many are traps for votes.
    pub trap_per_mille: u32,
    /// A bug that every node has: the run must find it.
    pub bug: Option<PlantedBug>,
}

impl RunOptions {
    /// A run of a seed.
    pub fn of(seed: u64) -> Self {
        let (safety, telling) = (Duration::from_secs(12), Telling::Quiet);
        Self { seed, safety, clients: 5, keys: 4, telling, trap_per_mille: 80, bug: None }
    }
}

/// The longest that a node waits for an answer which was lost (to a chunk of a snapshot, 10 s), and some elections: by
/// then writes go on after everything is healed.
const PROGRESS_LIMIT: Duration = Duration::from_secs(16);
/// By then everybody has everything.
const REST_LIMIT: Duration = Duration::from_secs(40);
/// By then the cluster has a leader and its vault.
const SETUP_LIMIT: Duration = Duration::from_secs(30);
/// Time that is judged apart: clients finish what they are at.
const CLIENTS_FINISH: Duration = Duration::from_secs(9);
/// By then the members have changed, once everything is healed.
const CHANGE_LIMIT: Duration = Duration::from_secs(40);
/// By then every call that was on its way has arrived.
const CALLS_ARRIVE: Duration = Duration::from_millis(200);
const NODES: [Endpoint; 3] = [Endpoint(0), Endpoint(1), Endpoint(2)];
/// Takes the place of one of them.
const JOINER: Endpoint = Endpoint(3);

/// What happened in a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What everything was folded into.
    pub trace_hash: u64,
    /// Everything that was wrong.
    pub violations: Vec<Violation>,
    /// What happened.
    pub counters: RunCounters,
    /// Every line of what happened, when it was to be kept.
    pub told: Vec<String>,
}

/// What happened in one run, or in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounters {
    /// Runs.
    pub runs: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Times that the lead went to another node.
    pub leader_changes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Longest time from healing to the first write that began after it, milliseconds.
    pub progress_ms_max: u64,
    /// Clients.
    pub workload: WorkloadCounters,
    /// Snapshots that nodes took from others.
    pub snapshots_installed: u64,
    /// The change of members.
    pub replacement: ReplacementCounters,
    /// The disk that differs.
    pub divergence: DivergenceCounters,
    /// Disturbances.
    pub nemesis: NemesisCounters,
    /// Network.
    pub network: NetworkCounters,
    /// Disks.
    pub disks: DiskCounters,
}

impl std::ops::AddAssign for RunCounters {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.simulated_ms += other.simulated_ms;
        self.elections += other.elections;
        self.leader_changes += other.leader_changes;
        self.blocks += other.blocks;
        self.snapshots_installed += other.snapshots_installed;
        self.replacement += other.replacement;
        self.divergence += other.divergence;
        self.workload += other.workload;
        self.nemesis += other.nemesis;
        self.network += other.network;
        self.disks = self.disks + other.disks;
        self.progress_ms_max = self.progress_ms_max.max(other.progress_ms_max);
    }
}

/// Runs a seed.
///
/// # Errors
/// When the harness fails; what the ledger does wrong is in the report.
pub fn run(options: RunOptions) -> Result<Report, HarnessError> {
    let _planting = Planting::of(options.bug);
    let mut run = Run::set_up(options)?;
    run.safety_phase()?;
    // What is broken need not work.
    if run.cluster.evidence.violations().is_empty() {
        run.liveness_phase()?;
    }
    Ok(run.judge())
}

struct Run {
    cluster: Cluster,
    options: RunOptions,
    nemesis: Nemesis,
    replacement: Replacement,
    divergence: DivergenceCounters,
    records: SharedRecords,
    targets: Targets,
    progress_ms: u64,
}

impl Run {
    fn set_up(options: RunOptions) -> Result<Self, HarnessError> {
        let mut cluster = Cluster::new(options.seed, options.telling)?;
        NODES.into_iter().chain([JOINER]).try_for_each(|node| cluster.make(node))?;
        let members = NODES.into_iter().filter_map(|node| cluster.member(node).cloned()).collect();
        cluster.boot(NODES[0], Bootstrap::Members(members))?;
        cluster.boot(NODES[1], Bootstrap::Joined)?;
        cluster.boot(NODES[2], Bootstrap::Joined)?;
        let vault_id = create_vault(&mut cluster)?;
        let (records, targets) = (SharedRecords::default(), Targets::new(NODES.to_vec()));
        start_clients(&mut cluster, &options, &records, &targets, vault_id)?;
        let now = cluster.world.now();
        let dice = Dice::new(options.seed, "nemesis");
        let nemesis = Nemesis::new(dice, NODES.to_vec(), now, options.trap_per_mille);
        let dice = Dice::new(options.seed, "replacement");
        let replacement = Replacement::new(dice, NODES.to_vec(), JOINER, now);
        let divergence = DivergenceCounters::default();
        Ok(Self { cluster, options, nemesis, replacement, divergence, records, targets, progress_ms: 0 })
    }

    fn safety_phase(&mut self) -> Result<(), HarnessError> {
        let until = self.cluster.world.now() + self.options.safety;
        while self.cluster.world.now() < until && self.cluster.evidence.violations().is_empty() {
            self.step()?;
            self.nemesis.step(&mut self.cluster)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), HarnessError> {
        self.cluster.step();
        if self.replacement.step(&mut self.cluster)? {
            let nodes = self.replacement.nodes().to_vec();
            self.targets.set(nodes.clone());
            self.nemesis.set_nodes(nodes);
        }
        Ok(())
    }

    /// In half of the runs one node stays broken at first: the other two must do without.
    fn liveness_phase(&mut self) -> Result<(), HarnessError> {
        let mut dice = Dice::new(self.options.seed, "liveness");
        let stays_broken = dice.chance(500).then(|| *dice.choose(self.replacement.nodes()));
        self.nemesis.calm(&mut self.cluster, stays_broken)?;
        self.wait_for_progress()?;
        if stays_broken.is_some() {
            self.nemesis.calm(&mut self.cluster, None)?;
        }
        self.wait_for_change()?;
        // A bug of all nodes is found by other means.
        if self.options.bug.is_none() && self.cluster.evidence.violations().is_empty() {
            self.change_a_disk()?;
        }
        self.targets.stop();
        self.cluster.world.run_for(CLIENTS_FINISH);
        self.wait_for_rest();
        Ok(())
    }

    /// The members change once nothing is in the way.
    fn wait_for_change(&mut self) -> Result<(), HarnessError> {
        let began = self.cluster.world.now();
        while !self.replacement.is_done() {
            self.step()?;
            if self.cluster.world.now() - began > CHANGE_LIMIT {
                self.no_progress("of the change of members", CHANGE_LIMIT);
                break;
            }
        }
        Ok(())
    }

    /// A node with something else on its disk than the cluster is repaired, while the others are written to.
    fn change_a_disk(&mut self) -> Result<(), HarnessError> {
        let nodes = self.replacement.nodes().to_vec();
        let dice = Dice::new(self.options.seed, "divergence");
        let Some(plan) = Plan::new(dice, &self.cluster, &nodes) else { return Ok(()) };
        // Nobody knows that it differs until it has compared: clients leave it alone, also those who ask it already.
        self.targets.set(nodes.iter().copied().filter(|node| *node != plan.node()).collect());
        self.cluster.crash(plan.node())?;
        let until = self.cluster.world.now() + CALLS_ARRIVE;
        while self.cluster.world.now() < until {
            self.step()?;
        }
        if let Some(planted) = plan.carry_out(&mut self.cluster)? {
            self.wait_for_repair(planted)?;
        }
        self.targets.set(nodes);
        Ok(())
    }

    fn wait_for_repair(&mut self, mut planted: PlantedDivergence) -> Result<(), HarnessError> {
        loop {
            self.step()?;
            let progress = planted.look(&self.cluster);
            self.divergence = planted.counters();
            match progress {
                Progress::Pending => {}
                Progress::Settled => return Ok(()),
                Progress::Failed(violation) => {
                    self.cluster.evidence.report(violation);
                    return Ok(());
                }
            }
        }
    }

    /// Writes that began after the healing are acknowledged.
    fn wait_for_progress(&mut self) -> Result<(), HarnessError> {
        let healed = self.cluster.world.now();
        let before = self.records.lock().counters.writes;
        loop {
            self.step()?;
            let waited = self.cluster.world.now() - healed;
            // Those that were under way at the healing are at most one for each client.
            let writes = self.records.lock().counters.writes - before;
            if writes > u64::from(self.options.clients) {
                self.progress_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return Ok(());
            }
            if waited > PROGRESS_LIMIT {
                self.no_progress("of writes", PROGRESS_LIMIT);
                return Ok(());
            }
        }
    }

    /// Every node runs and has the same blocks.
    fn wait_for_rest(&mut self) {
        let began = self.cluster.world.now();
        loop {
            self.cluster.step();
            let tips: Vec<_> = self.replacement.nodes().iter().map(|node| self.tip(*node)).collect();
            if tips[0].is_some() && tips.iter().all(|tip| *tip == tips[0]) {
                return;
            }
            if let Some(different) = different(self.replacement.nodes(), &tips) {
                return self.cluster.evidence.report(different);
            }
            if self.cluster.world.now() - began > REST_LIMIT {
                return self.no_progress(&format!("to one state: {tips:?}"), REST_LIMIT);
            }
        }
    }

    fn tip(&self, node: Endpoint) -> Option<NodeTip> {
        let open = self.cluster.world.node(node)?;
        let ledger = open.ledger()?;
        let info = ledger.vault(self.cluster.vault())?;
        let last_applied = ledger.node_info().last_applied;
        Some(NodeTip {
            last_applied,
            height: info.height,
            block_hash: info.block_hash,
            state_root: info.state_root,
        })
    }

    fn no_progress(&mut self, what: &str, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.cluster.evidence.report(Violation::NoProgress { what: what.to_owned(), limit_ms });
    }

    fn judge(mut self) -> Report {
        self.cluster.look_at_all();
        self.cluster.compare_logs();
        self.cluster.count_processes();
        let records = self.records.lock();
        self.cluster.evidence.judge(&records);
        let evidence = &self.cluster.evidence;
        let trace = self.cluster.world.trace();
        trace.tell(
            format_args!("{} blocks, {} violations", evidence.height(), evidence.violations().len()),
            &[],
        );
        Report {
            seed: self.options.seed,
            trace_hash: trace.hash(),
            violations: evidence.violations().to_vec(),
            told: trace.kept(),
            counters: RunCounters {
                runs: 1,
                simulated_ms: u64::try_from(self.cluster.world.now().as_millis()).unwrap_or(u64::MAX),
                elections: evidence.elections(),
                leader_changes: evidence.leader_changes(),
                blocks: evidence.height(),
                progress_ms_max: self.progress_ms,
                workload: records.counters,
                snapshots_installed: self.cluster.snapshots_installed(),
                replacement: self.replacement.counters(),
                divergence: self.divergence,
                nemesis: self.nemesis.counters(),
                network: self.cluster.network_counters(),
                disks: self.cluster.disk_counters(),
            },
        }
    }
}

/// How far a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeTip {
    last_applied: u64,
    height: u64,
    block_hash: [u8; 32],
    state_root: [u8; 32],
}

/// Nodes of one height have one block and one state.
fn different(nodes: &[Endpoint], tips: &[Option<NodeTip>]) -> Option<Violation> {
    let mut known: BTreeMap<u64, (Endpoint, &NodeTip)> = BTreeMap::new();
    for (node, tip) in nodes.iter().zip(tips) {
        let Some(tip) = tip else { continue };
        let (first, other) = *known.entry(tip.height).or_insert((*node, tip));
        if (other.block_hash, other.state_root) != (tip.block_hash, tip.state_root) {
            let what = format!("the block of height {} or the state after it", tip.height);
            return Some(Violation::DifferentAtRest { first, second: *node, what });
        }
    }
    None
}

/// Waits for a leader and lets it make the vault.
fn create_vault(cluster: &mut Cluster) -> Result<VaultId, HarnessError> {
    let made: Arc<Mutex<Option<Result<VaultId, String>>>> = Arc::default();
    let mut asked = false;
    while cluster.world.now() < SETUP_LIMIT {
        cluster.step();
        let outcome = made.lock().unwrap_or_else(PoisonError::into_inner).take();
        match outcome {
            Some(Ok(vault)) => return Ok(vault),
            Some(Err(_)) => asked = false,
            None => {}
        }
        let leader = cluster.leader().and_then(|leader| Some((leader, cluster.world.node(leader)?)));
        let Some((leader, node)) = leader.filter(|_| !asked) else { continue };
        let Some(ledger) = node.ledger().filter(|ledger| ledger.ready()).cloned() else { continue };
        asked = true;
        let (made, vault) = (Arc::clone(&made), cluster.vault().clone());
        cluster.world.spawn(leader, async move {
            // It may exist from an attempt whose answer was lost.
            let _ = ledger.create_namespace(vault.namespace.clone()).await;
            let outcome =
                ledger.create_vault(vault).await.map(|info| info.id).map_err(|error| error.to_string());
            *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        });
    }
    Err(HarnessError::Setup("no vault in time".to_owned()))
}

fn start_clients(
    cluster: &mut Cluster,
    options: &RunOptions,
    records: &SharedRecords,
    targets: &Targets,
    vault_id: VaultId,
) -> Result<(), HarnessError> {
    let disks = cluster.log_disks();
    let is_marked = move |checkpoint: CheckpointRecord| {
        let marks = disks.iter().filter_map(|disk| disk.durable_mark(vault_id).ok().flatten());
        let size = checkpoint.size;
        let known = marks
            .into_iter()
            .any(|mark| mark.size > size || (mark.size == size && mark.root == checkpoint.root));
        (!known).then_some(Violation::CheckpointUnmarked { size })
    };
    let workload = Workload {
        network: cluster.world.network().clone(),
        time: cluster.world.time().clone(),
        targets: targets.clone(),
        records: records.clone(),
        verifier_key: cluster.verifier_key(),
        key_count: options.keys,
        on_checkpoint: Arc::new(is_marked),
    };
    let clients: Vec<Client> = (0..options.clients)
        .map(|number| Client::new(workload.clone(), number, Dice::new(options.seed, ("client", number))))
        .collect();
    cluster.world.run_on(Endpoint::CLIENTS, async move {
        for client in clients {
            tokio::spawn(client.run());
        }
        std::future::pending().await
    })?;
    Ok(())
}
