//! Who of a cluster is alive, asked by a node that is about to leave it for a new cluster of its own: two clusters would go
//! on with one ledger and one key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use crate::peers::messages::{self, MessageError};
use crate::peers::{
    ClusterId, MemberRecord, NodeInfo, NodeInfoRequest, PeerError, PeerMethod, PeerRefusal, PeerRequest,
    PeerTransport, Standing,
};

/// How long one member may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Something lives at the address of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LivingMember {
    /// The member, as the asking node knows it.
    pub member: MemberRecord,
    /// The cluster of the node that answered; `None` = it starts.
    pub cluster: Option<ClusterId>,
}

impl fmt::Display for LivingMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, address) = (&self.member.identity.name, &self.member.peer_address);
        match self.cluster {
            Some(cluster) => write!(f, "{name} at {address} (in cluster {cluster})"),
            None => write!(f, "{name} at {address} (it starts)"),
        }
    }
}

/// Asks these members, but for the asking node, again and again for as long as `patience`, until one answers that is in a
/// cluster, whichever: it goes on with the ledger. A node that starts is waited for, and counts when it still does in the end.
/// One that is to join a cluster does not count: it has nothing of the ledger.
pub async fn living_members(
    transport: &Arc<dyn PeerTransport>,
    me: &MemberRecord,
    members: &BTreeMap<u64, Option<MemberRecord>>,
    patience: Duration,
) -> Vec<LivingMember> {
    // A record of this node that cannot be written would be refused by every peer.
    let Ok(body) = messages::encode(&NodeInfoRequest { asker: me.clone() }) else { return Vec::new() };
    let is_other = |member: &&MemberRecord| member.peer_address != me.peer_address;
    let others: Vec<&MemberRecord> = members.values().flatten().filter(is_other).collect();
    let deadline = Instant::now() + patience;
    loop {
        let answers = join_all(others.iter().map(|member| ask(transport, me, member, body.clone()))).await;
        let alive: Vec<LivingMember> = answers.into_iter().flatten().collect();
        let is_over = Instant::now() + PAUSE >= deadline;
        if is_over || alive.iter().any(|member| member.cluster.is_some()) || others.is_empty() {
            return alive;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    transport: &Arc<dyn PeerTransport>,
    me: &MemberRecord,
    member: &MemberRecord,
    body: Bytes,
) -> Option<LivingMember> {
    let request = PeerRequest {
        cluster: None,
        from: me.identity.clone(),
        to: None,
        method: PeerMethod::NodeInfo,
        body,
    };
    let alive = |cluster| Some(LivingMember { member: member.clone(), cluster });
    match transport.call(&member.peer_address, None, request, CALL_TIMEOUT).await {
        Ok(answer) => match messages::decode(&answer) {
            Ok(NodeInfo { standing: Standing::Member(standing), .. }) => alive(Some(standing.cluster)),
            Ok(NodeInfo { .. }) | Err(MessageError::Format { .. } | MessageError::Malformed(_)) => None,
        },
        Err(PeerError::Refused { refusal: PeerRefusal::NotReady { .. } | PeerRefusal::Busy, .. }) => {
            alive(None)
        }
        Err(_) => None,
    }
}
