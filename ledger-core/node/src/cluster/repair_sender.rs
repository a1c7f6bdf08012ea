//! The leader's side of a recovery: a member that differs asks for a snapshot of everything, and gets it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::applied_state::AppliedLedger;
use crate::blocking_work::BlockingWork;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{RepairAnswer, RepairRequest};
use crate::peers::{MemberRecord, PeerCalls, PeerError, PeerMethod, PeerRefusal};
use crate::raft::Consensus;
use crate::snapshots::{SendError, SnapshotDesk, SnapshotFailure, SnapshotPeer, SnapshotTaker, send};

/// How long the leader may take to apply what the member has applied already.
const APPLY_WAIT: Duration = Duration::from_secs(10);

/// What it works with.
pub(crate) struct RepairSender {
    pub consensus: Consensus,
    pub ledger: Arc<AppliedLedger>,
    pub desk: SnapshotDesk,
    /// `None` = this ledger runs alone.
    pub calls: Option<PeerCalls>,
    pub counters: Arc<CounterCells>,
    pub blocking: BlockingWork,
    /// One at a time.
    pub job: Arc<Mutex<Option<RepairJob>>>,
}

/// The newest job.
pub(crate) struct RepairJob {
    member: u64,
    attempt: u64,
    answer: RepairAnswer,
}

/// Nothing was sent.
#[derive(Debug, thiserror::Error)]
enum RepairSendError {
    #[error("the leader has not applied as much as the member: try again")]
    Behind,
    #[error("no snapshot can be made: {0}")]
    Snapshot(#[from] SnapshotFailure),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl RepairSender {
    /// Begins to send, or says how that stands.
    pub fn answer(&self, member: u64, asked: RepairRequest) -> Result<RepairAnswer, PeerRefusal> {
        let status = self.consensus.status();
        if !status.is_leader {
            return Err(PeerRefusal::NotLeader { leader: status.leader });
        }
        let record = self.consensus.members().records.get(&member).cloned().flatten();
        let (Some(record), Some(calls)) = (record, self.calls.clone()) else {
            return Err(PeerRefusal::NotReady { reason: "the member has no address".to_owned() });
        };
        let mut job = lock(&self.job);
        match &*job {
            Some(known) if (known.member, known.attempt) == (member, asked.attempt) => {
                return Ok(known.answer.clone());
            }
            Some(known) if known.answer == RepairAnswer::Working => return Err(PeerRefusal::Busy),
            _ => {}
        }
        *job = Some(RepairJob { member, attempt: asked.attempt, answer: RepairAnswer::Working });
        drop(job);
        let end = EndOfJob { job: Arc::clone(&self.job), answer: None };
        let (consensus, ledger, desk) = (self.consensus.clone(), Arc::clone(&self.ledger), self.desk.clone());
        let with = (Arc::clone(&self.counters), self.blocking);
        tokio::spawn(async move {
            let mut end = end;
            let peer = RepairedMember { calls, record };
            let sent = tokio::select! {
                biased;
                // Nothing of a node that stops is kept open by it.
                _ = consensus.stopped() => return,
                sent = send_everything(&peer, (&consensus, &ledger, &desk), asked.at_least, with) => sent,
            };
            end.answer = Some(match sent {
                Ok(()) => RepairAnswer::Sent,
                Err(error) => {
                    tracing::warn!(member, %error, "a member that differs did not get a snapshot");
                    RepairAnswer::Failed(error.to_string())
                }
            });
        });
        Ok(RepairAnswer::Working)
    }
}

async fn send_everything(
    peer: &RepairedMember,
    (consensus, ledger, desk): (&Consensus, &AppliedLedger, &SnapshotDesk),
    at_least: u64,
    (counters, blocking): (Arc<CounterCells>, BlockingWork),
) -> Result<(), RepairSendError> {
    let applied = ledger.wait_applied(at_least);
    tokio::time::timeout(APPLY_WAIT, applied).await.map_err(|_| RepairSendError::Behind)?;
    let file = desk.make(at_least).await?;
    tracing::warn!(
        member = peer.record.identity.node_id,
        last = file.last.index,
        "sending a snapshot to a member that differs"
    );
    send(peer, consensus.vote(), &file, (counters.as_ref(), blocking)).await?;
    add(&counters.repairs_sent, 1);
    Ok(())
}

/// A job that ends without a word has failed: nobody waits for it for ever.
struct EndOfJob {
    job: Arc<Mutex<Option<RepairJob>>>,
    answer: Option<RepairAnswer>,
}

impl Drop for EndOfJob {
    fn drop(&mut self) {
        let answer = self.answer.take();
        if let Some(job) = lock(&self.job).as_mut() {
            job.answer = answer.unwrap_or_else(|| RepairAnswer::Failed("it was broken off".to_owned()));
        }
    }
}

struct RepairedMember {
    calls: PeerCalls,
    record: MemberRecord,
}

impl SnapshotPeer for RepairedMember {
    async fn call(&self, method: PeerMethod, body: Bytes, timeout: Duration) -> Result<Bytes, PeerError> {
        self.calls.call(&self.record, method, body, timeout).await
    }
}

/// Every change of the job is whole.
fn lock(job: &Mutex<Option<RepairJob>>) -> MutexGuard<'_, Option<RepairJob>> {
    job.lock().unwrap_or_else(PoisonError::into_inner)
}
