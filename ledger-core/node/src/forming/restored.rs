//! A directory that may have gone back in time: its log lacks what its peers know it to have acknowledged.
//!
//! The marker of a directory tells most copies (see `directory::origin`); the peers' word tells an original that lost the
//! end of its log, and copies that the marker does not tell, such as those of a whole disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use ledger_verify::note::VerifierKey;
use tokio::time::{Instant, timeout};

use super::driver::PeerDiscovery;
use crate::peers::messages::{
    self, JoinAnswer, JoinRequest, LedgerKeyAnswer, LedgerKeyRequest, MessageError,
};
use crate::peers::{
    ClusterId, LedgerKey, MemberRecord, MemberStanding, NodeInfo, NodeInfoRequest, PeerError, PeerMethod,
    PeerRefusal, PeerRequest, PeerTransport, Standing,
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
    /// A leader answered: the node has all that it acknowledged.
    Good,
    /// The leader knows more of this node's log than the node itself: its directory is an older copy. It must not vote.
    Older {
        /// Index of the last entry that it acknowledged.
        acknowledged: u64,
    },
    /// The leader answered that the node is no member.
    NotMember,
    /// No leader answered that could tell.
    Unknown,
}

/// With which key the ledger signs now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentKey {
    /// Its public part.
    pub key: VerifierKey,
    /// The address of the leader, which said so.
    pub leader: String,
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
    /// Asks at these addresses, and at those that the answers name, until a leader has told or time is up.
    pub async fn ask(&self, addresses: BTreeSet<String>, patience: Duration) -> PeersWord {
        let deadline = Instant::now() + patience;
        let mut addresses = addresses;
        addresses.remove(&self.me.peer_address);
        if addresses.is_empty() {
            return PeersWord::Unknown;
        }
        loop {
            if let Some(word) =
                self.round(&mut addresses).await.and_then(|leader| word(self.last_index, &leader))
            {
                return word;
            }
            if Instant::now() + PAUSE >= deadline {
                return PeersWord::Unknown;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a leader answers: at these addresses, at those that `discovery` finds, and at those that the answers
    /// name. `false` when time is up.
    pub async fn await_leader(
        &self,
        mut addresses: BTreeSet<String>,
        discovery: &dyn PeerDiscovery,
        patience: Duration,
    ) -> bool {
        let leader = async {
            loop {
                // Those that were found before are asked when nothing is found now.
                if let Ok(Ok(found)) = timeout(CALL_TIMEOUT, discovery.addresses()).await {
                    addresses.extend(found);
                }
                addresses.remove(&self.me.peer_address);
                if self.round(&mut addresses).await.is_some() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        timeout(patience, leader).await.is_ok()
    }

    /// Asks everybody once; the addresses that they name are asked the next time.
    async fn round(&self, addresses: &mut BTreeSet<String>) -> Option<MemberStanding> {
        let standings = join_all(addresses.iter().map(|address| self.standing(address))).await;
        for answered in standings.into_iter().flatten() {
            if answered.leader == Some(answered.node_id) {
                return Some(answered.standing);
            }
            let known = answered.standing.members.into_iter().map(|member| member.peer_address);
            addresses.extend(known.filter(|address| *address != self.me.peer_address));
        }
        None
    }

    /// Asks the leader to take the node in again, with the directory that it has; answers with the ledger's present key.
    ///
    /// # Errors
    /// The leader's refusal, or that there is none to be found.
    pub async fn join_again(&self, addresses: BTreeSet<String>) -> Result<LedgerKey, PeerError> {
        let mut outcome = Err(PeerError::Unreachable {
            address: "any address".to_owned(),
            reason: "no other member is known".to_owned(),
        });
        for address in addresses.iter().filter(|address| **address != self.me.peer_address) {
            let refused = |refusal| PeerError::Refused { address: address.clone(), refusal };
            let malformed =
                |error: MessageError| refused(PeerRefusal::Malformed { reason: error.to_string() });
            let body = messages::encode(&JoinRequest { member: self.me.clone() }).map_err(malformed)?;
            match self.call(address, PeerMethod::Join, body, JOIN_TIMEOUT).await {
                Ok(answer) => {
                    let JoinAnswer { log_key, .. } = messages::decode(&answer).map_err(malformed)?;
                    return Ok(LedgerKey::new(log_key));
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Which key the ledger signs with now, as its leader says; `None` when no leader answers.
    pub async fn present_key(&self, addresses: BTreeSet<String>) -> Option<PresentKey> {
        let others = addresses.iter().filter(|address| **address != self.me.peer_address);
        let asked = others.map(|address| async move {
            match self.ledger_key(address, &LedgerKeyRequest::Public).await? {
                LedgerKeyAnswer::Public { key } => {
                    Some(PresentKey { key: key.parse().ok()?, leader: address.clone() })
                }
                LedgerKeyAnswer::Private { .. } => None,
            }
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// The private key itself, from the leader that said which it is, in place of the one that is held here; `None` when it
    /// does not answer, or signs with that one.
    pub async fn private_key(&self, present: &PresentKey, held: &VerifierKey) -> Option<LedgerKey> {
        let request = LedgerKeyRequest::Private { held: held.to_string() };
        match self.ledger_key(&present.leader, &request).await? {
            LedgerKeyAnswer::Private { key } => Some(key),
            LedgerKeyAnswer::Public { .. } => None,
        }
    }

    async fn ledger_key(&self, address: &str, asked: &LedgerKeyRequest) -> Option<LedgerKeyAnswer> {
        let body = messages::encode(asked).ok()?;
        let answer = self.call(address, PeerMethod::LedgerKey, body, CALL_TIMEOUT).await.ok()?;
        messages::decode(&answer).ok()
    }

    async fn call(
        &self,
        address: &str,
        method: PeerMethod,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let (cluster, from) = (Some(self.cluster), self.me.identity.clone());
        let request = PeerRequest { cluster, from, to: None, method, body };
        self.transport.call(address, None, request, timeout).await
    }

    async fn standing(&self, address: &str) -> Option<Answered> {
        let body = messages::encode(&NodeInfoRequest { asker: self.me.clone() }).ok()?;
        let answer = self.call(address, PeerMethod::NodeInfo, body, CALL_TIMEOUT).await.ok()?;
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

/// What a leader's answer says of a node whose log ends there; `None` when that leader cannot tell.
fn word(last_index: Option<u64>, leader: &MemberStanding) -> Option<PeersWord> {
    let Some(known) = &leader.asker else { return Some(PeersWord::NotMember) };
    match known.matched_index {
        Some(acknowledged) if Some(acknowledged) > last_index => Some(PeersWord::Older { acknowledged }),
        // It may have acknowledged what it lacks to a leader before this one.
        None if last_index < Some(known.committed_index) => None,
        _ => Some(PeersWord::Good),
    }
}

struct Answered {
    node_id: u64,
    leader: Option<u64>,
    standing: MemberStanding,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Incarnation, KnownAsker, NodeName, PeerIdentity};

    fn leader(matched_index: Option<u64>) -> MemberStanding {
        let name = NodeName::new("node-1").unwrap();
        let identity = PeerIdentity { node_id: 1, name, incarnation: Incarnation([1; 16]) };
        let asker = Some(KnownAsker { identity, matched_index, committed_index: 7 });
        MemberStanding { cluster: ClusterId([7; 16]), leader: Some(2), members: Vec::new(), asker }
    }

    #[test]
    fn a_leader_that_has_not_heard_of_a_node_vouches_only_for_one_that_lacks_nothing() {
        let heard = leader(Some(5));
        assert_eq!(word(Some(4), &heard), Some(PeersWord::Older { acknowledged: 5 }));
        assert_eq!(word(None, &heard), Some(PeersWord::Older { acknowledged: 5 }));
        assert_eq!(word(Some(5), &heard), Some(PeersWord::Good));
        let unheard = leader(None);
        assert_eq!(word(Some(6), &unheard), None);
        assert_eq!(word(None, &unheard), None);
        assert_eq!(word(Some(7), &unheard), Some(PeersWord::Good));
        let removed = MemberStanding { asker: None, ..unheard };
        assert_eq!(word(Some(7), &removed), Some(PeersWord::NotMember));
    }
}
