//! What a node sees when it looks around: who answered, who did not, and whether that is a cluster's first members.

use std::collections::{BTreeMap, BTreeSet};

use super::errors::{SilentPeer, Waiting};
use crate::peers::{ClusterId, MemberRecord, MemberStanding, NodeInfo, Standing};

/// One look around, complete or under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlook {
    /// Who answered, by id, without the looking node.
    nodes: BTreeMap<u64, NodeInfo>,
    /// Addresses that the node was given and that gave no usable answer, with the reason.
    silent: BTreeMap<String, String>,
    /// Why addresses are missing.
    unknown: Option<String>,
}

impl Outlook {
    pub fn answered(&mut self, info: NodeInfo) {
        self.nodes.insert(info.node.identity.node_id, info);
    }

    pub fn is_silent(&mut self, address: String, reason: String) {
        self.silent.insert(address, reason);
    }

    /// Who gave no usable answer.
    pub fn silent(&self) -> Vec<SilentPeer> {
        let peer = |(address, reason): (&String, &String)| SilentPeer {
            address: address.clone(),
            reason: reason.clone(),
        };
        self.silent.iter().map(peer).collect()
    }

    pub fn discovery_failed(&mut self, reason: String) {
        self.unknown = Some(reason);
    }

    /// Whether every address that the node was given answered.
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.unknown.is_none()
    }

    /// Where a node was seen.
    pub fn node(&self, node_id: u64) -> Option<&MemberRecord> {
        self.nodes.get(&node_id).map(|info| &info.node)
    }

    /// Nodes that belong to clusters.
    pub fn members(&self) -> impl Iterator<Item = (&MemberRecord, &MemberStanding)> {
        self.nodes.values().filter_map(|info| match &info.standing {
            Standing::Member(standing) => Some((&info.node, standing)),
            Standing::Joining | Standing::Forming { .. } => None,
        })
    }

    /// The clusters that are seen.
    pub fn clusters(&self) -> BTreeSet<ClusterId> {
        self.members().map(|(_, standing)| standing.cluster).collect()
    }

    /// The nodes that want to form a cluster, the looking node included, ascending by id.
    pub fn forming(&self, me: &MemberRecord) -> Vec<MemberRecord> {
        let others = self.nodes.values().filter(|info| matches!(info.standing, Standing::Forming { .. }));
        let mut nodes: Vec<_> = others.map(|info| info.node.clone()).chain([me.clone()]).collect();
        nodes.sort_by_key(|node| node.identity.node_id);
        nodes
    }

    /// The first members of a cluster of `expected` nodes, ascending by id, when what this node sees is exactly them.
    pub fn first_members(&self, me: &MemberRecord, expected: u32) -> Result<Vec<MemberRecord>, Waiting> {
        for info in self.nodes.values() {
            let Standing::Forming { expected: theirs, .. } = info.standing else { continue };
            if theirs != expected {
                let name = info.node.identity.name.clone();
                return Err(Waiting::OtherSize { name, theirs, ours: expected });
            }
        }
        let members = self.forming(me);
        if members.len() > expected as usize {
            let seen = members.into_iter().map(|member| member.identity.name).collect();
            return Err(Waiting::TooMany { seen, expected });
        }
        if let Some(reason) = &self.unknown {
            return Err(Waiting::Discovery { reason: reason.clone() });
        }
        if !self.silent.is_empty() {
            return Err(Waiting::Silent { peers: self.silent() });
        }
        if members.len() < expected as usize {
            return Err(Waiting::TooFew { seen: members.len(), expected });
        }
        let mut names = BTreeSet::new();
        match members.iter().find(|member| !names.insert(&member.identity.name)) {
            Some(twice) => Err(Waiting::SameName { name: twice.identity.name.clone() }),
            None => Ok(members),
        }
    }

    /// Whether every other node sees the same, completely.
    pub fn agreed(&self, me: &MemberRecord) -> Result<(), Waiting> {
        let ours = self.forming(me);
        for info in self.nodes.values() {
            let Standing::Forming { seen, complete, .. } = &info.standing else { continue };
            if *seen != ours || !complete {
                let name = info.node.identity.name.clone();
                return Err(Waiting::OtherView { name, theirs: seen.len(), ours: ours.len() });
            }
        }
        Ok(())
    }
}
