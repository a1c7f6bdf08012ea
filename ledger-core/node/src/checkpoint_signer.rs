//! Signs checkpoints of vaults for those who wait for one.
//!
//! Equivocation is what a signature must never allow: so a checkpoint is taken from the applied state
//! only, and its size and root are durable in the log store before the key is used.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_core::ledger_state::{ReadError, StateError, Tip};
use ledger_core::names::VaultId;
use ledger_core::planted_bugs::{PlantedBug, is_planted};
use ledger_core::ports::{LogChange, SignedMark, StoreError};
use ledger_verify::Hash;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::applied_state::AppliedLedger;
use crate::cluster::{LeaderCheckpoints, check_mark};
use crate::counters::{CounterCells, add};
use crate::log_writer::{LogWriter, Urgency};

/// Rounds start at most this often, so that many waiters share a signature. With the `fsync` of a round
/// that leaves a checkpoint at least every 10 ms while someone waits.
const ROUND_INTERVAL: Duration = Duration::from_millis(5);
/// Most callers that wait at once; more are refused.
const WAITERS_MAX: usize = 16_384;
/// Most lists of exact tips that wait at once; more are refused.
const EXACT_MAX: usize = 64;
/// Most vaults in one question to the leader; the others come with the next one.
const FETCHED_AT_ONCE: usize = 256;

/// A checkpoint that was signed.
#[derive(Debug)]
pub(crate) struct SignedTip {
    pub size: u64,
    pub note: String,
}

/// No checkpoint was signed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SignError {
    #[error("there is no such vault")]
    VaultNotFound,
    #[error("the vault is fenced")]
    VaultDiverged,
    #[error("too many callers wait for a checkpoint")]
    Overloaded,
    #[error("the state cannot be read: {0}")]
    State(Arc<StateError>),
    #[error("the leader gave no checkpoint: {0}")]
    Leader(String),
    #[error("the node stops")]
    Stopped,
}

type Answer = Result<Arc<SignedTip>, SignError>;

/// Who signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Here,
    Leader,
}

struct Waiter {
    size_min: u64,
    answer: oneshot::Sender<Answer>,
}

/// Tips that are to be signed as they are, and who waits for that.
struct ExactTips {
    tips: Vec<(VaultId, u64, Hash)>,
    answer: oneshot::Sender<Result<Vec<String>, SignError>>,
}

#[derive(Default)]
struct Desk {
    /// The newest checkpoint of each vault that was signed here.
    newest: BTreeMap<VaultId, Arc<SignedTip>>,
    /// The newest checkpoint of each vault that the leader has signed.
    fetched: BTreeMap<VaultId, Arc<SignedTip>>,
    waiting: BTreeMap<VaultId, Vec<Waiter>>,
    waiters: usize,
    exact: VecDeque<ExactTips>,
    closed: bool,
}

/// What the signer works with.
pub(crate) struct SignerParts {
    pub key: SigningKey,
    pub ledger: Arc<AppliedLedger>,
    pub log_writer: LogWriter,
    pub counters: Arc<CounterCells>,
    /// Of a member of a cluster: only the leader signs.
    pub leader: Option<LeaderCheckpoints>,
    /// What this node has signed before it was opened.
    pub marks: Vec<SignedMark>,
}

/// The signer's desk. Clones share it.
#[derive(Clone)]
pub(crate) struct CheckpointSigner(Arc<Inner>);

struct Inner {
    /// One at a time makes marks durable: a mark never goes back behind one that was signed.
    marking: tokio::sync::Mutex<()>,
    desk: Mutex<Desk>,
    arrived: Notify,
    parts: SignerParts,
}

impl CheckpointSigner {
    pub fn new(parts: SignerParts) -> Self {
        Self(Arc::new(Inner {
            marking: tokio::sync::Mutex::new(()),
            desk: Mutex::new(Desk::default()),
            arrived: Notify::new(),
            parts,
        }))
    }

    /// The origin of a vault's checkpoints: `<key name>/<vault uuid>`.
    pub fn origin(&self, vault: VaultId) -> String {
        format!("{}/{vault}", self.0.parts.key.name())
    }

    /// A signed checkpoint over at least `size_min` blocks; the tree must have that many.
    pub async fn checkpoint(&self, vault: VaultId, size_min: u64) -> Answer {
        let (sender, answer) = oneshot::channel();
        {
            let mut desk = self.lock();
            let known = [desk.newest.get(&vault), desk.fetched.get(&vault)];
            if let Some(newest) = known.into_iter().flatten().find(|newest| newest.size >= size_min) {
                return Ok(Arc::clone(newest));
            }
            if desk.closed {
                return Err(SignError::Stopped);
            }
            if desk.waiters >= WAITERS_MAX {
                return Err(SignError::Overloaded);
            }
            desk.waiters += 1;
            desk.waiting.entry(vault).or_default().push(Waiter { size_min, answer: sender });
        }
        self.0.arrived.notify_one();
        answer.await.unwrap_or(Err(SignError::Stopped))
    }

    /// Checkpoints over tips that were the newest at some time: a snapshot's. The roots must be those of the applied
    /// state. May be awaited on any runtime, or on none that has a clock.
    pub async fn signed_tips(&self, tips: &[(VaultId, u64, Hash)]) -> Result<Vec<String>, SignError> {
        if self.may_sign_applied() {
            return self.sign_tips(tips).await;
        }
        let (answer, notes) = oneshot::channel();
        {
            let mut desk = self.lock();
            if desk.closed {
                return Err(SignError::Stopped);
            }
            if desk.exact.len() >= EXACT_MAX {
                return Err(SignError::Overloaded);
            }
            desk.exact.push_back(ExactTips { tips: tips.to_vec(), answer });
        }
        self.0.arrived.notify_one();
        notes.await.unwrap_or(Err(SignError::Stopped))
    }

    /// Whether this node signs tips of what it has applied. A leader does so before it is ready: it is ready once it
    /// has committed something, and the member that it needs for that may need a snapshot from it first. What is
    /// applied is committed, so there is nothing to contradict once the node has found again what it signed before.
    fn may_sign_applied(&self) -> bool {
        let parts = &self.0.parts;
        let Some(leader) = &parts.leader else { return true };
        if leader.leads() {
            return true;
        }
        let Ok(state) = parts.ledger.read() else { return false };
        leader.is_leader() && parts.marks.iter().all(|mark| check_mark(&state, mark).is_ok())
    }

    /// Signs such tips here.
    pub async fn sign_tips(&self, tips: &[(VaultId, u64, Hash)]) -> Result<Vec<String>, SignError> {
        let _marking = self.0.marking.lock().await;
        let newer: Vec<LogChange> = {
            let desk = self.lock();
            let is_newer = |vault, size| desk.newest.get(vault).is_none_or(|newest| newest.size < size);
            tips.iter()
                .filter(|(vault, size, _)| is_newer(vault, *size))
                .map(|(vault, size, root)| {
                    LogChange::SaveSigned(SignedMark { vault: *vault, size: *size, root: *root })
                })
                .collect()
        };
        if !newer.is_empty() && self.remember(newer).await.is_err() {
            return Err(SignError::Stopped);
        }
        let mut notes = Vec::with_capacity(tips.len());
        for (vault, size, root) in tips {
            let signed = self.sign(*vault, *size, *root);
            notes.push(signed.note.clone());
            let mut desk = self.lock();
            if desk.newest.get(vault).is_none_or(|newest| newest.size < *size) {
                desk.newest.insert(*vault, signed);
            }
        }
        Ok(notes)
    }

    /// Forgets the checkpoint of a vault that was deleted.
    pub fn forget(&self, vault: VaultId) {
        let mut desk = self.lock();
        desk.newest.remove(&vault);
        desk.fetched.remove(&vault);
    }

    /// Signs in rounds, for ever.
    pub async fn run(self) {
        let mut last_round: Option<Instant> = None;
        loop {
            self.0.arrived.notified().await;
            if let Some(last) = last_round {
                tokio::time::sleep_until(last + ROUND_INTERVAL).await;
            }
            last_round = Some(Instant::now());
            self.round().await;
        }
    }

    /// Turns away those who wait and those who come.
    pub fn close(&self) {
        let mut desk = self.lock();
        desk.closed = true;
        desk.waiters = 0;
        desk.waiting.clear();
        desk.exact.clear();
    }

    async fn round(&self) {
        if let Some(leader) = &self.0.parts.leader {
            leader.settle().await;
        }
        self.serve_exact().await;
        match self.0.parts.leader.as_ref().filter(|leader| !leader.leads()) {
            Some(leader) => self.fetch_round(leader).await,
            None => self.sign_round().await,
        }
    }

    async fn serve_exact(&self) {
        loop {
            let Some(ExactTips { tips, answer }) = self.lock().exact.pop_front() else { return };
            let notes = match self.0.parts.leader.as_ref().filter(|_| !self.may_sign_applied()) {
                Some(leader) => leader.exact(tips).await,
                None => self.sign_tips(&tips).await,
            };
            // Whoever asked may have gone.
            let _ = answer.send(notes);
        }
    }

    /// Asks the leader for what is waited for.
    async fn fetch_round(&self, leader: &LeaderCheckpoints) {
        let most = |waiters: &Vec<Waiter>| waiters.iter().map(|waiter| waiter.size_min).max().unwrap_or(0);
        let wanted: Vec<(VaultId, u64)> = {
            let desk = self.lock();
            desk.waiting
                .iter()
                .map(|(vault, waiters)| (*vault, most(waiters)))
                .take(FETCHED_AT_ONCE)
                .collect()
        };
        if wanted.is_empty() {
            return;
        }
        for (vault, answer) in leader.newest(wanted, |vault| self.origin(vault)).await {
            self.answer(vault, &answer.map(Arc::new), Source::Leader);
        }
    }

    async fn sign_round(&self) {
        let _marking = self.0.marking.lock().await;
        let tips = self.tips();
        let marks = tips.iter().filter_map(|(vault, tip)| {
            let tip = tip.as_ref().ok()?;
            Some(LogChange::SaveSigned(SignedMark { vault: *vault, size: tip.size, root: tip.log_root }))
        });
        let marks: Vec<LogChange> = marks.collect();
        if !marks.is_empty() && self.remember(marks).await.is_err() {
            return self.close();
        }
        for (vault, tip) in tips {
            let answer = tip.map(|tip| self.sign(vault, tip.size, tip.log_root));
            self.answer(vault, &answer, Source::Here);
        }
    }

    /// Makes it durable that checkpoints are signed: before they are.
    async fn remember(&self, marks: Vec<LogChange>) -> Result<(), Arc<StoreError>> {
        if is_planted(PlantedBug::SignEarly) {
            return self.0.parts.log_writer.enqueue(marks, Urgency::RideAlong, None).map(drop);
        }
        self.0.parts.log_writer.write(marks).await
    }

    /// The newest block of every vault that someone waits for.
    fn tips(&self) -> Vec<(VaultId, Result<Tip, SignError>)> {
        let vaults: Vec<VaultId> = self.lock().waiting.keys().copied().collect();
        let Ok(state) = self.0.parts.ledger.read() else {
            return vaults.into_iter().map(|vault| (vault, Err(SignError::Stopped))).collect();
        };
        let tip = |vault| match state.tip(vault) {
            Ok(tip) => Ok(tip),
            Err(ReadError::VaultNotFound) => Err(SignError::VaultNotFound),
            Err(ReadError::VaultDiverged(_)) => Err(SignError::VaultDiverged),
            Err(ReadError::State(error)) => Err(SignError::State(Arc::new(error))),
            Err(_) => Err(SignError::Stopped),
        };
        vaults.into_iter().map(|vault| (vault, tip(vault))).collect()
    }

    fn sign(&self, vault: VaultId, size: u64, root: Hash) -> Arc<SignedTip> {
        let checkpoint = Checkpoint { origin: self.origin(vault), size, root };
        add(&self.0.parts.counters.checkpoints_signed, 1);
        Arc::new(SignedTip { size, note: SignedCheckpoint::sign(&checkpoint, &self.0.parts.key) })
    }

    /// Answers those whom the outcome serves; whoever came later and asks for more waits on.
    fn answer(&self, vault: VaultId, answer: &Answer, source: Source) {
        let mut desk = self.lock();
        match (answer, source) {
            (Ok(tip), Source::Here) => drop(desk.newest.insert(vault, Arc::clone(tip))),
            (Ok(tip), Source::Leader) => drop(desk.fetched.insert(vault, Arc::clone(tip))),
            (Err(_), Source::Here) => drop(desk.newest.remove(&vault)),
            (Err(_), Source::Leader) => drop(desk.fetched.remove(&vault)),
        }
        let waiting = desk.waiting.remove(&vault).unwrap_or_default();
        let is_served = |waiter: &Waiter| answer.as_ref().map_or(true, |tip| tip.size >= waiter.size_min);
        let (served, later): (Vec<Waiter>, Vec<Waiter>) = waiting.into_iter().partition(is_served);
        desk.waiters = desk.waiters.saturating_sub(served.len());
        if !later.is_empty() {
            desk.waiting.insert(vault, later);
        }
        if !desk.waiting.is_empty() {
            self.0.arrived.notify_one();
        }
        drop(desk);
        for waiter in served {
            let _ = waiter.answer.send(answer.clone());
        }
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
