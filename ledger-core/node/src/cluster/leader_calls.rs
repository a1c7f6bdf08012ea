//! Questions to whoever leads.

use std::time::Duration;

use bytes::Bytes;

use crate::ordered_watch;
use crate::peers::{PeerCalls, PeerError, PeerMethod, PeerRefusal};
use crate::raft::{Consensus, ConsensusError};

/// A leader that says it does not lead names another: so many are asked.
const HOPS_MAX: usize = 3;

/// Finds the leader and asks it. Clones share the connections.
#[derive(Clone)]
pub(crate) struct LeaderCalls {
    pub consensus: Consensus,
    /// `None` = this ledger runs alone.
    pub calls: Option<PeerCalls>,
    pub node_id: u64,
    pub leader: ordered_watch::Receiver<Option<u64>>,
}

/// The leader gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody is known to lead, or this node itself.
    #[error("no other node is known to lead")]
    NoLeader { leader: Option<u64> },
    /// Whether it was done is unknown.
    #[error("the leader (node {leader}) does not answer: {error}")]
    Unanswered { leader: u64, error: PeerError },
    /// It said no: nothing was done.
    #[error("the leader (node {leader}) refuses: {refusal}")]
    Refused { leader: u64, refusal: PeerRefusal },
}

impl LeaderCalls {
    /// Asks the leader. When the node that was asked does not lead, asks the one that it names.
    pub async fn ask(&self, method: PeerMethod, body: Bytes, timeout: Duration) -> Result<Bytes, AskError> {
        let mut leader = self.consensus.status().leader;
        let Some(calls) = &self.calls else { return Err(AskError::NoLeader { leader: None }) };
        for _ in 0..HOPS_MAX {
            let asked = leader.filter(|id| *id != self.node_id);
            let members = self.consensus.members();
            let record = asked.and_then(|id| members.records.get(&id)).and_then(Option::as_ref);
            let (Some(asked), Some(record)) = (asked, record) else { break };
            let call = calls.call(record, method, body.clone(), timeout);
            let answer = tokio::select! {
                biased;
                answer = call => answer,
                // One that does not lead any more may never answer.
                () = self.leader_other_than(asked) => Err(PeerError::Unreachable {
                    address: record.peer_address.clone(),
                    reason: "another node leads now".to_owned(),
                }),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(PeerError::Refused { refusal: PeerRefusal::NotLeader { leader: named }, .. }) => {
                    leader = named
                }
                Err(PeerError::Refused { refusal, .. }) => {
                    return Err(AskError::Refused { leader: asked, refusal });
                }
                Err(error) => return Err(AskError::Unanswered { leader: asked, error }),
            }
        }
        Err(AskError::NoLeader { leader })
    }
}

impl LeaderCalls {
    /// Resolves when somebody else than `node_id` begins to lead.
    async fn leader_other_than(&self, node_id: u64) {
        let mut leader = self.leader.clone();
        leader.mark_unchanged();
        while leader.changed().await.is_ok() {
            if leader.borrow().is_some_and(|id| id != node_id) {
                return;
            }
        }
        // The node stops, and with it whoever waits.
        std::future::pending().await
    }
}

impl From<AskError> for ConsensusError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NoLeader { leader } => Self::NotLeader { leader },
            AskError::Unanswered { leader, error } => {
                Self::LeaderUnreachable { leader, reason: error.to_string() }
            }
            AskError::Refused { leader, refusal } => {
                Self::LeaderUnreachable { leader, reason: refusal.to_string() }
            }
        }
    }
}
