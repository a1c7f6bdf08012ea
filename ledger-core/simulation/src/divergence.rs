//! The one disk of a run that says something else than the cluster: planted under a follower that is down, it must be
//! found, fenced, reported, and replaced by what the leader has.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::{Command, Proposal, Submission};
use ledger_core::entity::EntityValue;
use ledger_core::ledger_state::LedgerState;
use ledger_core::names::VaultRef;
use ledger_core::ports::{LogId, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Bootstrap, DivergenceKind, DivergenceState};

use crate::cluster::{Cluster, HarnessError};
use crate::dice::Dice;
use crate::network::Endpoint;
use crate::violation::Violation;
use crate::workload::entity_key;

/// Of a thousand runs so many have one.
const RUNS_PER_MILLE: u32 = 500;
/// In so many of a thousand of these it is a block; in the others a write that is not remembered.
const BLOCK_PER_MILLE: u32 = 600;
/// A round of comparing, ten more until the other voters are at the same entry, a snapshot, and some elections.
const LIMIT: Duration = Duration::from_secs(40);

/// What was done and seen. Zero of one in a campaign means that it tested less than it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DivergenceCounters {
    /// Disks that were changed.
    pub planted: u64,
    /// Blocks among that.
    pub blocks: u64,
    /// Nodes that fenced the vault.
    pub fenced: u64,
    /// Nodes that said what differs, and who has which.
    pub reported: u64,
    /// Nodes that have the leader's content now.
    pub repaired: u64,
    /// Nodes that got a snapshot before they had compared anything: they were behind the leader's log.
    pub replaced: u64,
}

impl std::ops::AddAssign for DivergenceCounters {
    fn add_assign(&mut self, other: Self) {
        self.planted += other.planted;
        self.blocks += other.blocks;
        self.fenced += other.fenced;
        self.reported += other.reported;
        self.repaired += other.repaired;
        self.replaced += other.replaced;
    }
}

/// A disk that was changed, and what has come of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlantedDivergence {
    node: Endpoint,
    kind: DivergenceKind,
    since: Duration,
    counters: DivergenceCounters,
}

/// Where a planted divergence is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The node is at it.
    Pending,
    /// The node has the leader's content.
    Settled,
    /// It was not dealt with as it must be.
    Failed(Violation),
}

/// A disk that is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    node: Endpoint,
    kind: DivergenceKind,
}

impl Plan {
    /// The disk of one follower, or of none: that is for the seed to say.
    pub fn new(mut dice: Dice, cluster: &Cluster, nodes: &[Endpoint]) -> Option<Self> {
        let leader = cluster.leader()?;
        let followers: Vec<Endpoint> = nodes.iter().copied().filter(|node| *node != leader).collect();
        if followers.is_empty() || !dice.chance(RUNS_PER_MILLE) {
            return None;
        }
        let node = *dice.choose(&followers);
        let is_block = dice.chance(BLOCK_PER_MILLE);
        let kind = if is_block { DivergenceKind::Block } else { DivergenceKind::IdempotencyKeys };
        Some(Self { node, kind })
    }

    /// The node whose disk it is.
    pub fn node(&self) -> Endpoint {
        self.node
    }

    /// Changes the disk of the node, which is down, and boots it. A disk that has nothing of the vault yet stays as it is.
    ///
    /// # Errors
    /// When the harness fails.
    pub fn carry_out(self, cluster: &mut Cluster) -> Result<Option<PlantedDivergence>, HarnessError> {
        let Self { node, kind } = self;
        let Some(store) = cluster.state_store(node) else { return Ok(None) };
        let batch = match kind {
            DivergenceKind::Block => forged_block(&store, cluster.vault())?,
            _ => forgotten_writes(store.as_ref())?,
        };
        if let Some(batch) = &batch {
            store.commit(batch)?;
            cluster.world.trace().tell(format_args!("the disk of {node} gets another {kind:?}"), &[]);
        }
        cluster.boot(node, Bootstrap::Joined)?;
        let blocks = u64::from(kind == DivergenceKind::Block);
        let counters = DivergenceCounters { planted: 1, blocks, ..DivergenceCounters::default() };
        let since = cluster.world.now();
        Ok(batch.map(|_| PlantedDivergence { node, kind, since, counters }))
    }
}

impl PlantedDivergence {
    /// What was done and seen.
    pub fn counters(&self) -> DivergenceCounters {
        self.counters
    }

    /// Looks at the node.
    pub fn look(&mut self, cluster: &Cluster) -> Progress {
        if cluster.world.now() - self.since > LIMIT {
            return self.failed(format!("was not repaired within {LIMIT:?}: {:?}", self.counters));
        }
        let Some(open) = cluster.world.node(self.node) else { return Progress::Pending };
        let Some(ledger) = open.ledger() else { return Progress::Pending };
        if ledger.node_info().fenced_vault_count > 0 {
            self.counters.fenced = 1;
        }
        let found = ledger.cluster().divergences();
        let Some(found) = found.first() else {
            if ledger.counters().snapshots_installed == 0 {
                return Progress::Pending;
            }
            self.counters.replaced = 1;
            cluster.world.trace().tell(format_args!("the content of {} was replaced", self.node), &[]);
            return Progress::Settled;
        };
        // Of a vault with another block other writes are remembered too, and either may be seen first.
        let is_it = found.kind == self.kind || self.kind == DivergenceKind::Block && found.vault.is_some();
        // The third voter may not be so high yet: then it is asked again before anything is recovered.
        if !is_it || found.with_this_node.len() != 1 || found.with_leader.is_empty() {
            return self.failed(format!("was taken for something else: {found:?}"));
        }
        self.counters.reported = 1;
        match found.state {
            DivergenceState::Open | DivergenceState::Recovering => Progress::Pending,
            DivergenceState::Recovered if self.counters.fenced == 0 => {
                self.failed("was not fenced".to_owned())
            }
            DivergenceState::Recovered => {
                self.counters.repaired = 1;
                cluster.world.trace().tell(format_args!("{} is repaired", self.node), &[]);
                Progress::Settled
            }
            _ => self.failed(format!("was given up: {found:?}")),
        }
    }

    fn failed(&self, what: String) -> Progress {
        Progress::Failed(Violation::Unrepaired { node: self.node, what })
    }
}

/// One more block, of a write that nobody made; all of it fits together. As far as the log is concerned nothing has
/// happened.
fn forged_block(store: &Arc<dyn StateStore>, vault: &VaultRef) -> Result<Option<StateBatch>, HarnessError> {
    let mut state = LedgerState::load(Arc::clone(store)).map_err(|error| setup(&error))?;
    let (Some(applied), Some(vault)) = (store.applied()?, state.vault_id(vault)) else { return Ok(None) };
    let value = EntityValue::new(b"forged".to_vec()).map_err(|error| setup(&error))?;
    let action = Action::SetEntity { key: entity_key(0), value, expires_at_ms: 0 };
    let operations = vec![Operation { action, condition: None }];
    let time_ms = state.log_time_ms();
    let transaction = Transaction::new(IdempotencyKey::from_parts(time_ms, [0xf0; 10]), operations)
        .map_err(|error| setup(&error))?;
    let actor = Actor::new("client:nobody").map_err(|error| setup(&error))?;
    let submissions = vec![Submission { vault, actor, transaction }];
    let at = LogId { index: applied.last_applied.index + 1, ..applied.last_applied };
    let forged = Proposal { time_ms, command: Command::Write { submissions } };
    state.apply(at, &forged).map_err(|error| setup(&error))?;
    Ok(state.start_flush().map(|job| StateBatch { applied, ..job.batch() }))
}

/// What was written last is not remembered as done.
fn forgotten_writes(store: &dyn StateStore) -> Result<Option<StateBatch>, HarnessError> {
    let (mut newest, everything) = (None, ScanRange { prefix: Vec::new(), start: Vec::new() });
    store.scan(Table::Idempotency, &everything, &mut |key, _| {
        newest = Some(key.to_vec());
        true
    })?;
    let (Some(applied), Some(key)) = (store.applied()?, newest) else { return Ok(None) };
    let rows = vec![RowChange { table: Table::Idempotency, key, value: None }];
    Ok(Some(StateBatch { dropped_vaults: Vec::new(), rows, applied }))
}

fn setup(error: &dyn std::fmt::Display) -> HarnessError {
    HarnessError::Setup(error.to_string())
}
