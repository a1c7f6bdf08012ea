//! A directory that went back in time: its log lacks what its peers know it to have acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::peers::messages::{self, JoinRequest};
use crate::peers::{
    ClusterId, MemberRecord, MemberStanding, NodeInfo, NodeInfoRequest, PeerError, PeerMethod, PeerRefusal,
    PeerRequest, PeerTransport, Standing,
};

/// How long one peer may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a leader may take to change the membership.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node's peers say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeersWord {
    /// A leader answered, and nothing speaks against the node.
    Good,
    /// The leader knows more of this node's log than the node itself: its directory is an older copy. It must not vote.
    Older {
        /// Index of the last entry that it acknowledged.
        acknowledged: u64,
    },
    /// The leader answered that the node is no member.
    NotMember,
    /// No leader answered: nobody knows.
    Unknown,
}

/// A node that asks about itself before it takes part.
#[derive(Debug, Clone, Copy)]
pub struct Returning<'a> {
    /// How it reaches its peers.
    pub transport: &'a Arc<dyn PeerTransport>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub me: &'a MemberRecord,
    /// Index of the last entry of its log.
    pub last_index: Option<u64>,
}

impl Returning<'_> {
    /// Asks at these addresses, and at those that the answers name, until a leader has answered or time is up.
    pub async fn ask(&self, addresses: BTreeSet<String>, patience: Duration) -> PeersWord {
        let deadline = Instant::now() + patience;
        let mut addresses = addresses;
        addresses.remove(&self.me.peer_address);
        if addresses.is_empty() {
            return PeersWord::Unknown;
        }
        loop {
            let standings = join_all(addresses.iter().map(|address| self.standing(address))).await;
            for standing in standings.into_iter().flatten() {
                if standing.leader == Some(standing.node_id) {
                    return self.word(&standing.standing);
                }
                let known = standing.standing.members.into_iter().map(|member| member.peer_address);
                addresses.extend(known.filter(|address| *address != self.me.peer_address));
            }
            if Instant::now() + PAUSE >= deadline {
                return PeersWord::Unknown;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the leader to take the node in again, with the directory that it has.
    ///
    /// # Errors
    /// The leader's refusal, or that there is none to be found.
    pub async fn join_again(&self, addresses: BTreeSet<String>) -> Result<(), PeerError> {
        let mut outcome = Ok(());
        for address in addresses.iter().filter(|address| **address != self.me.peer_address) {
            let refused = |refusal| PeerError::Refused { address: address.clone(), refusal };
            let body = messages::encode(&JoinRequest { member: self.me.clone() })
                .map_err(|error| refused(PeerRefusal::Malformed { reason: error.to_string() }))?;
            let from = self.me.identity.clone();
            let request =
                PeerRequest { cluster: Some(self.cluster), from, to: None, method: PeerMethod::Join, body };
            match self.transport.call(address, None, request, JOIN_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn word(&self, leader: &MemberStanding) -> PeersWord {
        match &leader.asker {
            None => PeersWord::NotMember,
            Some(known) => match known.matched_index {
                Some(acknowledged) if Some(acknowledged) > self.last_index => {
                    PeersWord::Older { acknowledged }
                }
                _ => PeersWord::Good,
            },
        }
    }

    async fn standing(&self, address: &str) -> Option<Answered> {
        let body = messages::encode(&NodeInfoRequest { asker: self.me.clone() }).ok()?;
        let from = self.me.identity.clone();
        let request =
            PeerRequest { cluster: Some(self.cluster), from, to: None, method: PeerMethod::NodeInfo, body };
        let answer = self.transport.call(address, None, request, CALL_TIMEOUT).await.ok()?;
        let info: NodeInfo = messages::decode(&answer).ok()?;
        match info.standing {
            Standing::Member(standing) if standing.cluster == self.cluster => {
                let (node_id, leader) = (info.node.identity.node_id, standing.leader);
                Some(Answered { node_id, leader, standing })
            }
            _ => None,
        }
    }
}

struct Answered {
    node_id: u64,
    leader: Option<u64>,
    standing: MemberStanding,
}
