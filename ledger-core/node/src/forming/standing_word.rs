//! What a member answers about the forming of its cluster, for as long as it runs.

use super::events::Answer;
use crate::directory::{DirectoryError, Formation, NodeDirectory};
use crate::peers::{
    ClusterId, LedgerKey, MemberRecord, MemberStanding, NodeInfo, PeerIdentity, PeerRefusal, PromiseAnswer,
    PromiseRefusal, SettleAnswer, SettleRequest, Settlement, Standing,
};

/// The word that a member's directory holds.
#[derive(Debug, Clone)]
pub(super) struct StandingWord {
    pub me: MemberRecord,
    pub cluster: ClusterId,
    pub key: LedgerKey,
    /// The first members, when this node is one of them.
    pub first_members: Vec<MemberRecord>,
}

impl StandingWord {
    pub fn of(directory: &NodeDirectory, me: MemberRecord) -> Result<Self, DirectoryError> {
        let unformed = || DirectoryError::Unformed { path: directory.path().to_owned() };
        let first_members = match directory.formation() {
            Formation::Settled { members } => members.clone(),
            _ => Vec::new(),
        };
        let cluster = directory.cluster_id().ok_or_else(unformed)?;
        let key = directory.key().ok_or_else(unformed)?;
        Ok(Self { me, cluster, key, first_members })
    }

    /// Before the ledger is open, which knows more.
    pub fn info(&self) -> NodeInfo {
        let standing = MemberStanding {
            cluster: self.cluster,
            leader: None,
            members: self.first_members.clone(),
            asker: None,
        };
        NodeInfo { node: self.me.clone(), standing: Standing::Member(standing) }
    }

    pub fn promise(&self) -> Answer {
        Answer::Promise(PromiseAnswer::Refused(PromiseRefusal::Member { cluster: self.cluster }))
    }

    pub fn settle(&self, from: &PeerIdentity, request: &SettleRequest) -> Result<Answer, PeerRefusal> {
        let answer = match *request {
            SettleRequest::Ask { cluster, .. } if cluster == self.cluster => {
                if !self.first_members.iter().any(|member| member.identity == *from) {
                    let reason = "it is none of the first members of the cluster".to_owned();
                    return Err(PeerRefusal::Identity { reason });
                }
                let (key, members) = (self.key.clone(), self.first_members.clone());
                SettleAnswer::Exists(Settlement { cluster, key, members })
            }
            // This node belongs to one cluster, so it gave every other one up that it coordinated.
            SettleRequest::Ask { coordinator, .. } if coordinator == self.me.identity.node_id => {
                SettleAnswer::Dead
            }
            SettleRequest::Ask { .. } => SettleAnswer::Unknown,
            SettleRequest::Dead { .. } => SettleAnswer::Noted,
        };
        Ok(Answer::Settle(answer))
    }
}
