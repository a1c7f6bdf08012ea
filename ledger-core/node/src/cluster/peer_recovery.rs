//! A follower that differs from its cluster takes the leader's content over: by itself when the leader and a majority of
//! the voters agree on what it should have, or when an operator says so; never when a majority has what this node has.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::names::VaultId;
use ledger_core::ports::{LogStore, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::LeaderCalls;
use super::comparison::{CompareError, ask_leader};
use super::divergence::{Divergence, DivergenceKind, DivergenceRegister, DivergenceState, Side};
use super::evidence::{self, Difference, Evidence, Verdict};
use super::leader_calls::AskError;
use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::blocking_work::BlockingWork;
use crate::clock::Clock;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{self, LeaderBlock, RepairAnswer, RepairRequest, VaultTip};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::randomness::Randomness;
use crate::snapshots::{ExchangeError, ExpectedBlock, RepairOrder, SnapshotReceiver};

/// How often is looked whether there is anything to recover.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How often the leader is asked how the snapshot stands.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the leader may take to answer that.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
/// A leader that says nothing for so long has gone, or another one leads that knows nothing of it.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// After the leader has said that all was taken, this node knows it within this.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How long a recovery waits for the one before it: one that was refused at once ends as quickly.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Longest recovery: a snapshot of a large ledger over a slow network.
const RECOVERY_MAX: Duration = Duration::from_secs(4 * 60 * 60);
/// Recoveries of one divergence that a node begins by itself.
const ATTEMPTS_MAX: u32 = 8;
/// Rest after a recovery that came to nothing: the first, doubled each time, and the longest.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// Whose decision a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The node's own: the evidence must be clear.
    Own,
    /// An operator's: nothing may speak against it.
    Operators,
}

/// A fenced vault beside the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FencedVault {
    /// The newest block is the same: what is stored of it does not fit, and its blocks do.
    SameAsLeaders,
    /// The leader has another block, and a majority has this one.
    SameAsMajoritys,
    /// The leader has another block, or something else of it differs.
    Differs,
    /// The leader is not as high.
    AheadOfLeader { leader: u64 },
    /// The vault is fenced there too, or gone.
    LeaderSilent,
}

/// This node has not taken the leader's content over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerRecoveryError {
    #[error("no other node is known to lead")]
    NoLeader,
    #[error("another recovery is under way")]
    Busy,
    #[error(
        "a majority of the voters has what this node has: hand the lead over to one of them, and the leader of now recovers from it"
    )]
    LeaderAlone,
    #[error(
        "too few voters say what they have: with the leader {with_leader:?}, with this node {with_this_node:?}"
    )]
    Unclear { with_leader: Vec<u64>, with_this_node: Vec<u64> },
    #[error("{0}")]
    Refused(String),
    #[error("the leader did not send its snapshot: {0}")]
    NotSent(String),
    #[error("the leader does not answer: {0}")]
    Unanswered(AskError),
    #[error("the snapshot was not taken over: {0}")]
    Exchange(ExchangeError),
    #[error("the snapshot did not arrive in time")]
    Late,
    #[error(transparent)]
    Compare(#[from] CompareError),
    #[error("the log store cannot be read: {0}")]
    LogStore(StoreError),
    #[error("the node stops")]
    Stopped,
}

impl From<HalfApplied> for PeerRecoveryError {
    fn from(_: HalfApplied) -> Self {
        Self::Stopped
    }
}

/// What it works with.
pub(crate) struct PeerRecoveryParts {
    pub leader: LeaderCalls,
    pub ledger: Arc<AppliedLedger>,
    pub counters: Arc<CounterCells>,
    pub register: DivergenceRegister,
    pub receiver: SnapshotReceiver,
    pub log_store: Arc<dyn LogStore>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Randomness,
    pub blocking: BlockingWork,
}

/// Recovers this node from its leader. Clones share it.
#[derive(Clone)]
pub(crate) struct PeerRecovery(Arc<Inner>);

struct Inner {
    parts: PeerRecoveryParts,
    turn: tokio::sync::Mutex<()>,
}

impl PeerRecovery {
    pub fn new(parts: PeerRecoveryParts) -> Self {
        Self(Arc::new(Inner { parts, turn: tokio::sync::Mutex::new(()) }))
    }

    /// Recovers by itself, for ever.
    pub async fn run(self) {
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rest = REST_MIN;
        loop {
            rounds.tick().await;
            let pending = self.0.parts.register.pending();
            if pending.is_empty() {
                rest = REST_MIN;
                continue;
            }
            // One that stays fenced would be recovered with the others.
            if pending.iter().any(|known| known.state == DivergenceState::StaysFenced) {
                continue;
            }
            match self.recover(Decision::Own).await {
                Ok(_) => rest = REST_MIN,
                Err(error) => {
                    tracing::debug!(%error, "not recovered yet");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(REST_MAX);
                }
            }
        }
    }

    /// Takes the leader's content over; answers whose. It is finished when nobody waits for it any more.
    pub async fn recover(&self, decision: Decision) -> Result<u64, PeerRecoveryError> {
        let recovery = self.clone();
        // A task of its own, so that an order never stands without somebody who ends it.
        let outcome = tokio::spawn(async move {
            let consensus = recovery.0.parts.leader.consensus.clone();
            tokio::select! {
                biased;
                // Nothing of a node that stops is kept open by it.
                _ = consensus.stopped() => Err(PeerRecoveryError::Stopped),
                outcome = recovery.attempt(decision) => outcome,
            }
        })
        .await;
        outcome.unwrap_or(Err(PeerRecoveryError::Stopped))
    }

    /// Compares a fenced vault that is not on the list yet with the leader's, and puts it there when it differs.
    pub async fn look_at_fenced(
        &self,
        tip: VaultTip,
        name: String,
    ) -> Result<FencedVault, PeerRecoveryError> {
        let parts = &self.0.parts;
        if parts.register.is_vault_pending(tip.vault) {
            return Ok(FencedVault::Differs);
        }
        let status = parts.leader.consensus.status();
        let leader_id = status.leader.filter(|_| !status.is_leader).ok_or(PeerRecoveryError::NoLeader)?;
        let own = Side { digest: tip.block_hash, state_root: Some(tip.state_root) };
        let mut found = Difference::of_block((tip.vault, tip.height), own, leader_id);
        let answer = ask_leader(&parts.leader, &found.question()).await?;
        match (answer.blocks.first(), found.said(&answer)) {
            (_, Some(said)) if said.agrees(&own) => return Ok(FencedVault::SameAsLeaders),
            (_, Some(said)) => found.leader = said,
            (Some(LeaderBlock::Below { height, .. }), None) => {
                return Ok(FencedVault::AheadOfLeader { leader: *height });
            }
            (_, None) => return Ok(FencedVault::LeaderSilent),
        }
        let gathered = evidence::gather(&parts.leader, &found).await;
        if gathered.verdict() == Verdict::Leader {
            return Ok(FencedVault::SameAsMajoritys);
        }
        parts.register.add(found.found(name, &gathered, parts.clock.now_ms())).await;
        Ok(FencedVault::Differs)
    }

    async fn attempt(&self, decision: Decision) -> Result<u64, PeerRecoveryError> {
        let turn = tokio::time::timeout(TURN_WAIT, self.0.turn.lock());
        let _turn = turn.await.map_err(|_| PeerRecoveryError::Busy)?;
        let parts = &self.0.parts;
        let status = parts.leader.consensus.status();
        let leader = status.leader.filter(|_| !status.is_leader).ok_or(PeerRecoveryError::NoLeader)?;
        let mut expected = Vec::new();
        for known in parts.register.pending() {
            expected.extend(self.examine(&known, leader, decision).await?);
        }
        if decision == Decision::Own {
            self.check_attempts().await?;
        }
        let now_ms = parts.clock.now_ms();
        parts
            .register
            .change_pending(|known| {
                known.state = DivergenceState::Recovering;
                known.attempts = known.attempts.saturating_add(1);
                known.changed_at_ms = now_ms;
            })
            .await;
        add(&parts.counters.peer_recoveries_begun, 1);
        tracing::warn!(leader, "this node takes the leader's content over");
        let outcome = self.transfer(expected).await;
        self.note(&outcome, leader).await;
        outcome.map(|_| leader)
    }

    /// Whether a divergence may be recovered from the leader, and which block it must bring.
    async fn examine(
        &self,
        known: &Divergence,
        leader_id: u64,
        decision: Decision,
    ) -> Result<Option<ExpectedBlock>, PeerRecoveryError> {
        let parts = &self.0.parts;
        let (gathered, expected) = match (known.kind, known.vault) {
            (DivergenceKind::Block, Some(vault)) => {
                let (position, own) = (known.position, known.own);
                let mut found = Difference::of_block((vault, position), own, leader_id);
                let answer = ask_leader(&parts.leader, &found.question()).await?;
                let Some(said) = found.said(&answer) else {
                    let what = "it is fenced there too, gone, or not as high".to_owned();
                    return Err(PeerRecoveryError::NotSent(what));
                };
                found.leader = said;
                let block = ExpectedBlock { vault, height: position, block_hash: said.digest };
                if said.agrees(&own) {
                    // The leader of now has this node's block: nothing else is put in its place.
                    return Ok(Some(block));
                }
                (evidence::gather(&parts.leader, &found).await, Some(block))
            }
            // While a vault is fenced nothing can be compared beside blocks: what was found before counts.
            _ => {
                let voters = parts.leader.consensus.members().voters.len();
                let (with_leader, with_this_node) = (known.with_leader.clone(), known.with_this_node.clone());
                (Evidence { with_leader, with_this_node, voters }, None)
            }
        };
        match (gathered.verdict(), decision) {
            (Verdict::Leader, _) => {
                self.stay_fenced("a majority of the voters has what this node has: the leader is wrong")
                    .await;
                Err(PeerRecoveryError::LeaderAlone)
            }
            (Verdict::Unknown, Decision::Own) => {
                let Evidence { with_leader, with_this_node, .. } = gathered;
                Err(PeerRecoveryError::Unclear { with_leader, with_this_node })
            }
            _ => Ok(expected),
        }
    }

    async fn check_attempts(&self) -> Result<(), PeerRecoveryError> {
        let most = self.0.parts.register.pending().iter().map(|known| known.attempts).max();
        if most < Some(ATTEMPTS_MAX) {
            return Ok(());
        }
        let reason = format!("{ATTEMPTS_MAX} recoveries came to nothing");
        self.stay_fenced(&reason).await;
        Err(PeerRecoveryError::Refused(reason))
    }

    async fn stay_fenced(&self, reason: &str) {
        let parts = &self.0.parts;
        let now_ms = parts.clock.now_ms();
        tracing::error!(%reason, "what differs stays fenced here: an operator decides");
        let change = |known: &mut Divergence| {
            known.state = DivergenceState::StaysFenced;
            known.changed_at_ms = now_ms;
            known.reason = reason.to_owned();
        };
        parts.register.change_pending(change).await;
    }

    async fn note(&self, outcome: &Result<u64, PeerRecoveryError>, leader: u64) {
        let parts = &self.0.parts;
        let now_ms = parts.clock.now_ms();
        match outcome {
            Ok(index) => {
                add(&parts.counters.peer_recoveries, 1);
                tracing::warn!(
                    leader,
                    index,
                    "this node has the leader's content: what differed is served again"
                );
                let reason = format!("took over what node {leader} had after entry {index}");
                let change = |known: &mut Divergence| {
                    known.state = DivergenceState::Recovered;
                    known.changed_at_ms = now_ms;
                    known.reason.clone_from(&reason);
                };
                parts.register.change_pending(change).await;
            }
            Err(error) => {
                add(&parts.counters.peer_recoveries_failed, 1);
                if let PeerRecoveryError::Refused(_)
                | PeerRecoveryError::Exchange(ExchangeError::Refused(_)) = error
                {
                    return self.stay_fenced(&error.to_string()).await;
                }
                tracing::warn!(%error, "the recovery from the leader came to nothing");
                let reason = error.to_string();
                let change = |known: &mut Divergence| {
                    known.state = DivergenceState::Open;
                    known.changed_at_ms = now_ms;
                    known.reason.clone_from(&reason);
                };
                parts.register.change_pending(change).await;
            }
        }
    }

    /// Orders the leader's snapshot and waits until it is in place; answers its last entry.
    async fn transfer(&self, expected: Vec<ExpectedBlock>) -> Result<u64, PeerRecoveryError> {
        let parts = &self.0.parts;
        let consensus = &parts.leader.consensus;
        let at_least = parts.ledger.applied_index().unwrap_or(0);
        // What comes after it is applied again from this node's log.
        consensus.hold_log_here(at_least);
        let _held = HeldLog(&parts.leader);
        let store = Arc::clone(&parts.log_store);
        let stored = parts.blocking.short(move || store.snapshot()).await;
        let stored = stored.map_err(|_| PeerRecoveryError::Stopped)?.map_err(PeerRecoveryError::LogStore)?;
        let vaults: Vec<VaultId> = expected.iter().map(|block| block.vault).collect();
        let (order, done) =
            RepairOrder::new(at_least, expected, (parts.ledger.replacements(), stored.signed));
        let _standing = parts.receiver.order(order);
        let random: [u8; 32] = parts.randomness.bytes().map_err(|_| PeerRecoveryError::Stopped)?;
        let attempt = random.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let request = RepairRequest { attempt, at_least };
        let index = self.wait_for_snapshot(request, done, &vaults).await?;
        // What is left of the log before it may be what was wrong.
        if consensus.release_replaced(index).await.is_err() {
            return Err(PeerRecoveryError::Stopped);
        }
        Ok(index)
    }

    async fn wait_for_snapshot(
        &self,
        request: RepairRequest,
        mut done: oneshot::Receiver<Result<u64, ExchangeError>>,
        vaults: &[VaultId],
    ) -> Result<u64, PeerRecoveryError> {
        let began = Instant::now();
        let (mut heard, mut sent) = (began, None);
        loop {
            match self.poll(request).await {
                Ok(RepairAnswer::Working) => heard = Instant::now(),
                Ok(RepairAnswer::Failed(what)) if done.is_empty() => {
                    return Err(PeerRecoveryError::NotSent(what));
                }
                Ok(RepairAnswer::Sent | RepairAnswer::Failed(_)) => {
                    heard = Instant::now();
                    sent.get_or_insert(heard);
                }
                // It sends to another member first.
                Err(AskError::Refused { refusal: PeerRefusal::Busy, .. }) => heard = Instant::now(),
                Err(error) if heard.elapsed() > QUIET_MAX => {
                    return Err(PeerRecoveryError::Unanswered(error));
                }
                Err(_) => {}
            }
            match tokio::time::timeout(POLL_INTERVAL, &mut done).await {
                Ok(Ok(Ok(index))) => return Ok(index),
                Ok(Ok(Err(error))) => return Err(PeerRecoveryError::Exchange(error)),
                Ok(Err(_)) => return Err(PeerRecoveryError::Stopped),
                Err(_) => {}
            }
            if sent.is_some_and(|sent: Instant| sent.elapsed() > SETTLE_WAIT) {
                return self.without_exchange(vaults);
            }
            if began.elapsed() > RECOVERY_MAX {
                return Err(PeerRecoveryError::Late);
            }
        }
    }

    /// The engine needed the snapshot itself, and took it before the order did.
    fn without_exchange(&self, vaults: &[VaultId]) -> Result<u64, PeerRecoveryError> {
        let state = self.0.parts.ledger.read()?;
        if vaults.iter().any(|vault| state.fence(*vault).is_some()) {
            return Err(PeerRecoveryError::Late);
        }
        Ok(self.0.parts.ledger.applied_index().unwrap_or(0))
    }

    async fn poll(&self, request: RepairRequest) -> Result<RepairAnswer, AskError> {
        let leader = &self.0.parts.leader;
        let unanswered = |reason: String| AskError::Refused {
            leader: leader.node_id,
            refusal: PeerRefusal::Malformed { reason },
        };
        let body = messages::encode(&request).map_err(|error| unanswered(error.to_string()))?;
        let answer = leader.ask(PeerMethod::Repair, body, POLL_TIMEOUT).await?;
        messages::decode(&answer).map_err(|error| unanswered(error.to_string()))
    }
}

/// While it lives this node keeps the end of its log for itself.
struct HeldLog<'l>(&'l LeaderCalls);

impl Drop for HeldLog<'_> {
    fn drop(&mut self) {
        self.0.consensus.release_log_here();
    }
}
