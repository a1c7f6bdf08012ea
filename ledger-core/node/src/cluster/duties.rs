//! What a member does when the lead changes: a new leader makes sure that the ledger has its identity, a follower
//! catches up; either is ready then.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::{Command, Outcome};
use ledger_core::ledger_state::{LedgerState, ReadError};
use ledger_core::names::LedgerId;
use ledger_core::ports::SignedMark;
use ledger_verify::header::HEADER_VERSION;
use tokio::time::Instant;

use super::key_check::{KeyCheck, KeyCheckError};
use super::{ClusterParts, LeaderCalls, membership};
use crate::applied_state::AppliedLedger;
use crate::errors::OpenError;
use crate::failure::{FailedPart, FailureCell, shared};
use crate::ordered_watch;
use crate::peers::{ClusterId, MemberRecord};
use crate::raft::{Consensus, ConsensusError};
use crate::randomness::Randomness;
use crate::read_barrier::{Electorate, ReadBarrier, read_index};

/// How often a member looks whether anything is left to do; at once when the lead changes.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);

/// How often a member that is ready makes sure that its leader still leads a majority.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A member that is behind asks the leader again after this: another node may lead by then.
const CATCH_UP_ROUND: Duration = Duration::from_secs(1);

/// How long a member waits until its new addresses are known.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// A member's duties.
pub(crate) struct Duties {
    pub consensus: Consensus,
    pub leader: LeaderCalls,
    pub ledger: Arc<AppliedLedger>,
    pub barrier: ReadBarrier,
    pub ledger_id: LedgerId,
    pub cluster_id: ClusterId,
    /// What this node has signed before it was opened and may not have applied again yet.
    pub marks: Vec<SignedMark>,
    pub failure: FailureCell,
    pub randomness: Randomness,
    pub ready: ordered_watch::Sender<bool>,
    /// This node as its peers shall know it.
    pub member: MemberRecord,
    pub cluster: Arc<ClusterParts>,
    pub key: KeyCheck,
}

/// A duty was not done.
#[derive(Debug, thiserror::Error)]
enum DutyError {
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The node must stop.
    #[error(transparent)]
    Fatal(#[from] OpenError),
}

impl From<KeyCheckError> for DutyError {
    fn from(error: KeyCheckError) -> Self {
        match error {
            KeyCheckError::Consensus(error) => Self::Consensus(error),
            KeyCheckError::Rotated(error) => Self::Fatal(error),
        }
    }
}

impl Duties {
    /// Runs for ever, or until the node fails.
    pub async fn run(mut self) {
        let mut leader = self.leader.leader.clone();
        let mut done_for = None;
        let mut checked = Instant::now();
        loop {
            let status = self.consensus.status();
            let lead = status.leader.map(|leader| (leader, status.term));
            let is_stale = checked.elapsed() >= CHECK_INTERVAL;
            if lead != done_for || (is_stale && read_index(&self.leader, 0).await.is_err()) {
                done_for = None;
                self.ready.modify_if(|ready| std::mem::replace(ready, false));
            }
            if is_stale {
                checked = Instant::now();
            }
            self.settle_electorate(status.is_leader);
            if lead.is_some() && done_for.is_none() {
                match self.take_up(status.is_leader).await {
                    Ok(()) => {
                        (done_for, checked) = (lead, Instant::now());
                        self.ready.replace(true);
                        continue;
                    }
                    Err(DutyError::Fatal(error)) => {
                        let part = match error {
                            OpenError::KeyRotated { .. } => FailedPart::Key,
                            _ => FailedPart::StateStore,
                        };
                        self.failure.report(part, shared(error));
                        return std::future::pending().await;
                    }
                    Err(DutyError::Consensus(error)) => tracing::debug!(%error, "not ready yet"),
                }
            }
            let _ = tokio::time::timeout(ROUND_INTERVAL, leader.changed()).await;
        }
    }

    /// Once, for each leader.
    async fn take_up(&mut self, leads: bool) -> Result<(), DutyError> {
        let index = read_index(&self.leader, 0).await?;
        // First: until the leader knows where this node is, nothing arrives here.
        self.publish_addresses().await;
        if !leads {
            self.key.run(&self.leader).await?;
        }
        if tokio::time::timeout(CATCH_UP_ROUND, self.ledger.wait_applied(index)).await.is_err() {
            return Err(ConsensusError::Starting.into());
        }
        if leads {
            let identity = (self.ledger_id, Some(self.cluster_id));
            found(&self.consensus, &self.ledger, &self.randomness, identity).await?;
        }
        let state = self.ledger.read().map_err(|_| ConsensusError::Stopped)?;
        check_identity(&state, self.ledger_id, Some(self.cluster_id))?;
        self.marks.iter().try_for_each(|mark| check_mark(&state, mark))?;
        drop(state);
        self.marks.clear();
        Ok(())
    }

    /// A member that is reached elsewhere than before tells the others.
    async fn publish_addresses(&self) {
        let members = self.consensus.members();
        let known = members.records.get(&self.leader.node_id);
        if known.is_none_or(|known| known.as_ref() == Some(&self.member)) {
            return;
        }
        let publish = membership::publish(&self.cluster, self.member.clone());
        match tokio::time::timeout(PUBLISH_TIMEOUT, publish).await {
            Ok(Ok(())) => tracing::info!("the addresses of this node are known to its cluster"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the new addresses of this node are not known to its cluster")
            }
            Err(_) => tracing::warn!("the new addresses of this node may not be known to its cluster"),
        }
    }

    /// Reads need no quorum while this node is the only voter, and everything that led there is applied here.
    fn settle_electorate(&self, leads: bool) {
        let members = self.consensus.members();
        let alone = members.voters.len() == 1 && members.voters.contains(&self.leader.node_id);
        let applied = self.ledger.applied_index() >= members.log_index;
        let is_settled = leads && alone && members.is_committed && !members.is_joint && applied;
        if !is_settled {
            self.barrier.set_electorate(Electorate::Quorum);
        } else if *self.ready.borrow() && members.records.len() == 1 {
            self.barrier.set_electorate(Electorate::ThisNodeAlone);
        }
    }
}

/// What the first leader of a ledger decides for it, and a leader with a newer program. Every other leader finds it
/// decided.
pub(crate) async fn found(
    consensus: &Consensus,
    ledger: &AppliedLedger,
    randomness: &Randomness,
    (ledger_id, cluster_id): (LedgerId, Option<ClusterId>),
) -> Result<(), FoundError> {
    let (has_identity, header_version, named) = {
        let state = ledger.read().map_err(|_| ConsensusError::Stopped)?;
        (state.ledger_id().is_some(), state.header_version(), state.cluster_id())
    };
    if !has_identity {
        let page_key = randomness.bytes().map_err(OpenError::Directory)?;
        match consensus.propose(Command::Initialise { ledger_id, page_key }).await? {
            Some(Outcome::Initialised(_)) => {}
            _ => return Err(OpenError::Consensus { reason: "the ledger took no identity".to_owned() }.into()),
        }
    }
    if header_version < HEADER_VERSION {
        consensus.propose(Command::RaiseHeaderVersion { version: HEADER_VERSION }).await?;
    }
    if let (None, Some(ClusterId(cluster_id))) = (named, cluster_id) {
        consensus.propose(Command::NameCluster { cluster_id }).await?;
    }
    Ok(())
}

/// The ledger could not be given its identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundError {
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<FoundError> for DutyError {
    fn from(error: FoundError) -> Self {
        match error {
            FoundError::Consensus(error) => Self::Consensus(error),
            FoundError::Open(error) => Self::Fatal(error),
        }
    }
}

/// The state must be of the ledger whose key this node holds, and of its cluster.
pub(crate) fn check_identity(
    state: &LedgerState,
    ledger_id: LedgerId,
    cluster_id: Option<ClusterId>,
) -> Result<(), OpenError> {
    if let Some(data) = state.ledger_id()
        && data != ledger_id
    {
        return Err(OpenError::KeyOfAnotherLedger { key: ledger_id, data });
    }
    match (state.cluster_id().map(ClusterId), cluster_id) {
        (Some(data), Some(directory)) if data != directory => {
            Err(OpenError::OtherCluster { data, directory })
        }
        _ => Ok(()),
    }
}

/// What was signed must still be there. The id of a vault that is gone is never used again, so nothing
/// can be signed against its old checkpoints.
pub(crate) fn check_mark(state: &LedgerState, mark: &SignedMark) -> Result<(), OpenError> {
    let broken = |error| match error {
        ReadError::State(error) => OpenError::StateStore(error),
        other => OpenError::Consensus { reason: other.to_string() },
    };
    let recovered_size = match state.tip(mark.vault) {
        Ok(tip) => tip.size,
        // Of a fenced vault it is checked when it is recovered.
        Err(ReadError::VaultNotFound | ReadError::VaultDiverged(_)) => return Ok(()),
        Err(error) => return Err(broken(error)),
    };
    let agrees =
        mark.size <= recovered_size && state.log_root_at(mark.vault, mark.size).map_err(broken)? == mark.root;
    if agrees {
        return Ok(());
    }
    let named = state.vaults(None, None, usize::MAX).into_iter().find(|info| info.id == mark.vault);
    Err(OpenError::SignedCheckpointLost {
        vault: named
            .map_or_else(|| mark.vault.to_string(), |info| format!("{}/{}", info.namespace, info.name)),
        vault_id: mark.vault,
        signed_size: mark.size,
        recovered_size,
    })
}
