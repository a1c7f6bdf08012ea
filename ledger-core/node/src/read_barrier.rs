//! Linearizable reads: all readers that wait share one question to the leader.
//!
//! A reader that arrives while a round runs waits for the next one: the round may have fixed its read
//! index before the reader came.
//!
//! A ledger with one voter needs no rounds: see [`Electorate`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::applied_state::AppliedLedger;
use crate::cluster::LeaderCalls;
use crate::counters::{CounterCells, add};
use crate::errors::ReadFailure;
use crate::peers::PeerMethod;
use crate::peers::messages::{self, ReadIndexAnswer, ReadIndexRequest};
use crate::raft::ConsensusError;

/// Most readers that wait at once; more are refused with a retry time.
const READERS_MAX: usize = 65_536;
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long a follower waits for the leader's answer; a leader that has lost its quorum needs its lease's time to say so.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

type Passed = Result<(), Arc<ConsensusError>>;

/// The barrier. Clones share it.
#[derive(Clone)]
pub(crate) struct ReadBarrier(Arc<Inner>);

/// Who has to be asked whether a leader still leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Electorate {
    /// Nobody: this node is the only voter. No other node can commit anything, and a write is
    /// acknowledged only after it is applied here, so the applied state holds all that a read must see.
    /// Other voters can only join through this node, which ends this before it appends the change.
    ThisNodeAlone,
    /// A quorum, in rounds that the readers share.
    Quorum,
}

struct Inner {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    counters: Arc<CounterCells>,
}

struct Waiting {
    readers: Vec<oneshot::Sender<Passed>>,
    closed: bool,
    electorate: Electorate,
}

impl ReadBarrier {
    pub fn new(counters: Arc<CounterCells>, electorate: Electorate) -> Self {
        let waiting = Mutex::new(Waiting { readers: Vec::new(), closed: false, electorate });
        Self(Arc::new(Inner { waiting, arrived: Notify::new(), counters }))
    }

    /// Before a second voter is taken in: from now on reads ask a quorum.
    pub fn require_quorum(&self) {
        self.set_electorate(Electorate::Quorum);
    }

    /// [`Electorate::ThisNodeAlone`] only once the membership with this node alone is applied here.
    pub fn set_electorate(&self, electorate: Electorate) {
        self.lock().electorate = electorate;
    }

    /// Returns once everything that was committed before the call is applied here.
    pub async fn pass(&self) -> Result<(), ReadFailure> {
        let (sender, passed) = oneshot::channel();
        let first = {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(ReadFailure::Stopped);
            }
            if waiting.electorate == Electorate::ThisNodeAlone {
                drop(waiting);
                add(&self.0.counters.barrier_reads, 1);
                return Ok(());
            }
            if waiting.readers.len() >= READERS_MAX {
                return Err(ReadFailure::Overloaded { retry_after: RETRY_AFTER });
            }
            waiting.readers.push(sender);
            waiting.readers.len() == 1
        };
        if first {
            self.0.arrived.notify_one();
        }
        match passed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.as_ref().into()),
            Err(_) => Err(ReadFailure::Stopped),
        }
    }

    /// Lets readers through in rounds, for ever.
    pub async fn run(self, leader: LeaderCalls, ledger: Arc<AppliedLedger>) {
        loop {
            self.0.arrived.notified().await;
            let readers = std::mem::take(&mut self.lock().readers);
            if readers.is_empty() {
                continue;
            }
            add(&self.0.counters.barrier_reads, readers.len() as u64);
            add(&self.0.counters.barrier_rounds, 1);
            let passed = match read_index(&leader, readers.len() as u64).await {
                Ok(index) => {
                    ledger.wait_applied(index).await;
                    Ok(())
                }
                Err(error) => Err(Arc::new(error)),
            };
            for reader in readers {
                let _ = reader.send(passed.clone());
            }
        }
    }

    /// Turns away those who wait and those who come.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.readers.clear();
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that was acknowledged before the call is at or before this index: asked of whoever leads.
pub(crate) async fn read_index(leader: &LeaderCalls, readers: u64) -> Result<u64, ConsensusError> {
    let hint = match leader.consensus.status().leader {
        Some(id) if id == leader.node_id => match leader.consensus.read_index().await {
            Err(ConsensusError::NotLeader { leader }) => leader,
            outcome => return outcome,
        },
        other => other,
    };
    let unreadable = |reason: String| ConsensusError::LeaderUnreachable { leader: hint.unwrap_or(0), reason };
    let body =
        messages::encode(&ReadIndexRequest { readers }).map_err(|error| unreadable(error.to_string()))?;
    let answer = leader.ask(PeerMethod::ReadIndex, body, ASK_TIMEOUT).await?;
    let answer: ReadIndexAnswer = messages::decode(&answer).map_err(|error| unreadable(error.to_string()))?;
    Ok(answer.index)
}
