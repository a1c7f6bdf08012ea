//! Members of a cluster, and how they change.

use ledger_node::peers::{Incarnation, MemberRecord, NodeName, PeerIdentity};
use ledger_node::{
    ClusterStatus, Divergence, DivergenceKind, DivergenceState, MemberRole, MemberStatus, MembershipChange,
    Side,
};
use ledger_proto::v1;

use super::field::{AtField, BadField, FieldFault, exact, required};

/// A node that shall be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// The caller says who it is.
    Known(MemberRecord),
    /// Only where it is reached: it has to be asked.
    At {
        /// Where its peers reach it.
        peer_address: String,
    },
}

/// The node of a request to join.
pub(crate) fn newcomer(request: v1::JoinClusterRequest) -> Result<Newcomer, BadField> {
    let node = required(request.node, "node")?;
    if node.peer_address.is_empty() {
        return Err(FieldFault::Missing).at("node.peer_address");
    }
    let is_bare = node.node_id == 0 && node.name.is_empty() && node.incarnation.is_empty();
    if is_bare && node.client_url.is_empty() {
        return Ok(Newcomer::At { peer_address: node.peer_address });
    }
    let node_id = node_id(node.node_id, "node.node_id")?;
    let name = NodeName::new(node.name).at("node.name")?;
    let incarnation = Incarnation(exact(&node.incarnation, "node.incarnation")?);
    Ok(Newcomer::Known(MemberRecord {
        identity: PeerIdentity { node_id, name, incarnation },
        peer_address: node.peer_address,
        client_url: node.client_url,
    }))
}

/// The number of a node, which is never 0.
pub(crate) fn node_id(given: u64, field: &str) -> Result<u64, BadField> {
    if given == 0 { Err(FieldFault::Missing).at(field) } else { Ok(given) }
}

/// A change that happened.
pub(crate) fn change_answer(change: MembershipChange) -> v1::MembershipChange {
    use v1::membership_change::Kind;
    let (kind, node_id, log_index) = match change {
        MembershipChange::Learner { node_id, log_index } => (Kind::Learner, node_id, log_index),
        MembershipChange::Voter { node_id, log_index } => (Kind::Voter, node_id, log_index),
        MembershipChange::Removed { node_id, log_index } => (Kind::Removed, node_id, log_index),
        // A kind that this server does not know yet.
        _ => (Kind::Unspecified, 0, 0),
    };
    v1::MembershipChange { node_id, kind: kind.into(), log_index }
}

/// What a node knows about its cluster.
pub(crate) fn info_answer(status: ClusterStatus) -> v1::ClusterInfo {
    v1::ClusterInfo {
        node_id: status.node_id,
        cluster_id: status.cluster_id.map(|id| id.0.to_vec()).unwrap_or_default().into(),
        term: status.term,
        leader_id: status.leader.unwrap_or(0),
        membership_index: status.membership_index,
        is_changing: status.is_changing,
        is_ready: status.is_ready,
        members: status.members.into_iter().map(member_answer).collect(),
        divergences: status.divergences.into_iter().map(divergence_answer).collect(),
    }
}

fn divergence_answer(found: Divergence) -> v1::Divergence {
    use v1::divergence::{Kind, State};
    let kind = match found.kind {
        DivergenceKind::Block => Kind::Block,
        DivergenceKind::IdempotencyKeys => Kind::IdempotencyKeys,
        DivergenceKind::Membership => Kind::Membership,
        // A kind that this server does not know yet.
        _ => Kind::Unspecified,
    };
    let state = match found.state {
        DivergenceState::Open => State::Open,
        DivergenceState::Recovering => State::Recovering,
        DivergenceState::Recovered => State::Recovered,
        DivergenceState::StaysFenced => State::StaysFenced,
        DivergenceState::LeaderAlone => State::LeaderAlone,
        // A state that this server does not know yet.
        _ => State::Unspecified,
    };
    let root = |side: &Side| side.state_root.map(|root| root.to_vec()).unwrap_or_default().into();
    v1::Divergence {
        kind: kind.into(),
        vault: found.vault_name,
        position: found.position,
        own_digest: found.own.digest.to_vec().into(),
        own_state_root: root(&found.own),
        leader_digest: found.leader.digest.to_vec().into(),
        leader_state_root: root(&found.leader),
        leader_id: found.leader_id,
        with_leader: found.with_leader,
        with_this_node: found.with_this_node,
        found_at_ms: found.found_at_ms,
        changed_at_ms: found.changed_at_ms,
        state: state.into(),
        attempts: found.attempts,
        reason: found.reason,
    }
}

fn member_answer(member: MemberStatus) -> v1::ClusterMember {
    use v1::cluster_member::Role;
    let role = match member.role {
        MemberRole::Leader => Role::Leader,
        MemberRole::Voter => Role::Voter,
        MemberRole::Learner => Role::Learner,
        // A role that this server does not know yet.
        _ => Role::Unspecified,
    };
    let node = match member.record {
        None => v1::ClusterNode { node_id: member.node_id, ..v1::ClusterNode::default() },
        Some(record) => v1::ClusterNode {
            node_id: member.node_id,
            name: record.identity.name.into(),
            incarnation: record.identity.incarnation.0.to_vec().into(),
            peer_address: record.peer_address,
            client_url: record.client_url,
        },
    };
    v1::ClusterMember {
        node: Some(node),
        role: role.into(),
        matched_index: member.matched_index,
        last_heard_ms: member.last_heard_ms,
        clock_ahead_ms: member.clock_ahead_ms,
    }
}

/// Where clients reach the leader, when that is known.
pub(crate) fn leader_url(status: &ClusterStatus) -> Option<&str> {
    let leader = status.members.iter().find(|member| Some(member.node_id) == status.leader)?;
    Some(leader.record.as_ref()?.client_url.as_str()).filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(node: v1::ClusterNode) -> Result<Newcomer, BadField> {
        newcomer(v1::JoinClusterRequest { node: Some(node) })
    }

    fn whole() -> v1::ClusterNode {
        v1::ClusterNode {
            node_id: 7,
            name: "node-7".to_owned(),
            incarnation: vec![1; 16].into(),
            peer_address: "10.0.0.7:50052".to_owned(),
            client_url: String::new(),
        }
    }

    #[test]
    fn a_newcomer_is_described_whole_or_by_its_address_alone() {
        let Ok(Newcomer::Known(record)) = request(whole()) else { panic!("it is whole") };
        assert_eq!((record.identity.node_id, record.identity.name.as_str()), (7, "node-7"));
        let bare = v1::ClusterNode { peer_address: "h:1".to_owned(), ..v1::ClusterNode::default() };
        assert_eq!(request(bare), Ok(Newcomer::At { peer_address: "h:1".to_owned() }));
    }

    #[test]
    fn a_half_described_newcomer_is_refused_by_the_name_of_the_field() {
        let refused = |node| request(node).map(drop).unwrap_err().field;
        assert_eq!(newcomer(v1::JoinClusterRequest { node: None }).unwrap_err().field, "node");
        assert_eq!(refused(v1::ClusterNode { peer_address: String::new(), ..whole() }), "node.peer_address");
        assert_eq!(refused(v1::ClusterNode { node_id: 0, ..whole() }), "node.node_id");
        assert_eq!(refused(v1::ClusterNode { name: "Node".to_owned(), ..whole() }), "node.name");
        assert_eq!(
            refused(v1::ClusterNode { incarnation: vec![1; 15].into(), ..whole() }),
            "node.incarnation"
        );
    }
}
