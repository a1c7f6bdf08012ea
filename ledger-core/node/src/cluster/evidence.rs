//! Who is wrong when this node has something else than its leader: the other voters are asked what they have.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use ledger_core::ledger_state::{LedgerState, ReplicaDigests};
use ledger_core::names::{VaultId, VaultNumber};
use ledger_verify::Hash;

use super::LeaderCalls;
use super::divergence::{Divergence, DivergenceKind, DivergenceState, Side};
use crate::applied_state::AppliedLedger;
use crate::peers::messages::{
    self, CompareAnswer, CompareRequest, DigestAnswer, DigestPoint, LeaderBlock, VaultTip,
};
use crate::peers::{MemberRecord, PeerMethod, PeerRefusal};

/// How long a voter may take to say what it has. What differs is fenced at the latest then.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(1);
/// Most vaults in one comparison.
pub(super) const TIPS_AT_ONCE: usize = 1_024;
/// Most points in one comparison.
const POINTS_AT_ONCE: usize = 16;

/// One place at which this node differs from its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    pub kind: DivergenceKind,
    pub vault: Option<VaultId>,
    /// The vault's number, of idempotency keys.
    pub number: u64,
    /// Height of a block, or the log entry after which digests were compared.
    pub position: u64,
    pub own: Side,
    pub leader: Side,
    pub leader_id: u64,
    /// What was asked of the leader, for the others.
    pub point: Option<DigestPoint>,
}

/// What the voters have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub with_leader: Vec<u64>,
    pub with_this_node: Vec<u64>,
    pub voters: usize,
}

/// Who is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The leader and a majority of the voters have the same, and this node does not.
    ThisNode,
    /// A majority of the voters has what this node has.
    Leader,
    /// Too few have answered, or they have several things.
    Unknown,
}

impl Evidence {
    pub fn verdict(&self) -> Verdict {
        let majority = self.voters / 2 + 1;
        match () {
            () if self.with_this_node.len() >= majority => Verdict::Leader,
            () if self.with_leader.len() >= majority => Verdict::ThisNode,
            () => Verdict::Unknown,
        }
    }
}

impl Difference {
    pub fn found(&self, vault_name: String, evidence: &Evidence, now_ms: u64) -> Divergence {
        Divergence {
            kind: self.kind,
            vault: self.vault,
            vault_name,
            position: self.position,
            own: self.own,
            leader: self.leader,
            leader_id: self.leader_id,
            with_leader: evidence.with_leader.clone(),
            with_this_node: evidence.with_this_node.clone(),
            found_at_ms: now_ms,
            state: match evidence.verdict() {
                Verdict::Leader => DivergenceState::LeaderAlone,
                Verdict::ThisNode | Verdict::Unknown => DivergenceState::Open,
            },
            attempts: 0,
            changed_at_ms: now_ms,
            reason: String::new(),
        }
    }

    /// A block that the leader has not been asked about yet.
    pub fn of_block((vault, position): (VaultId, u64), own: Side, leader_id: u64) -> Self {
        let (kind, vault) = (DivergenceKind::Block, Some(vault));
        Self { kind, vault, number: 0, position, own, leader: own, leader_id, point: None }
    }

    /// Asks about this place.
    pub(super) fn question(&self) -> CompareRequest {
        let tip = self.vault.filter(|_| self.kind == DivergenceKind::Block).map(|vault| VaultTip {
            vault,
            height: self.position,
            block_hash: self.own.digest,
            state_root: self.own.state_root.unwrap_or_default(),
        });
        CompareRequest { tips: tip.into_iter().collect(), points: self.point.into_iter().collect() }
    }

    /// What an answer says about this place; `None` = nothing.
    pub(super) fn said(&self, answer: &CompareAnswer) -> Option<Side> {
        if self.kind == DivergenceKind::Block {
            return match answer.blocks.first()? {
                LeaderBlock::SameHeight { block_hash, state_root } => {
                    Some(Side { digest: *block_hash, state_root: Some(*state_root) })
                }
                LeaderBlock::Below { .. } | LeaderBlock::Silent => None,
            };
        }
        self.said_of_digests(answer).map(|digest| Side { digest, state_root: None })
    }

    fn said_of_digests(&self, answer: &CompareAnswer) -> Option<Hash> {
        let DigestAnswer { point, vaults } = answer.digests.as_ref()?;
        let asked = self.point.filter(|asked| asked.index == point.index)?;
        if self.kind == DivergenceKind::Membership {
            return Some(point.membership);
        }
        if point.idempotency == asked.idempotency {
            return Some(self.own.digest);
        }
        let of_vault = vaults.iter().find(|(number, _)| *number == self.number);
        Some(of_vault.map_or_else(Hash::default, |(_, digest)| *digest))
    }
}

/// Asks every other voter than the leader what it has at one place.
pub(super) async fn gather(calls: &LeaderCalls, difference: &Difference) -> Evidence {
    let members = calls.consensus.members();
    let mut evidence = Evidence { voters: members.voters.len(), ..Evidence::default() };
    if members.voters.contains(&difference.leader_id) {
        evidence.with_leader.push(difference.leader_id);
    }
    if members.voters.contains(&calls.node_id) {
        evidence.with_this_node.push(calls.node_id);
    }
    let request = difference.question();
    let others = members.voters.iter().filter(|id| **id != calls.node_id && **id != difference.leader_id);
    let records = others.filter_map(|id| Some((*id, members.records.get(id)?.clone()?)));
    let asked = records.map(|(id, record)| ask(calls, id, record, &request));
    for (id, answer) in join_all(asked).await {
        match answer.and_then(|answer| difference.said(&answer)) {
            Some(said) if said.agrees(&difference.leader) => evidence.with_leader.push(id),
            Some(said) if said.agrees(&difference.own) => evidence.with_this_node.push(id),
            _ => {}
        }
    }
    evidence
}

async fn ask(
    calls: &LeaderCalls,
    id: u64,
    record: MemberRecord,
    request: &CompareRequest,
) -> (u64, Option<CompareAnswer>) {
    let Some(calls) = &calls.calls else { return (id, None) };
    let Ok(body) = messages::encode(request) else { return (id, None) };
    let answer = calls.call(&record, PeerMethod::Compare, body, WITNESS_TIMEOUT).await;
    (id, answer.ok().and_then(|answer| messages::decode(&answer).ok()))
}

/// This node's points, as they are asked about.
pub(super) fn points(digests: &[ReplicaDigests]) -> Vec<DigestPoint> {
    let newest = digests.iter().rev().take(POINTS_AT_ONCE).rev();
    newest.map(point).collect()
}

pub(super) fn point(digests: &ReplicaDigests) -> DigestPoint {
    DigestPoint { index: digests.index, idempotency: digests.idempotency(), membership: digests.membership }
}

/// The places at which an answer differs from this node's digests at the same point.
pub(super) fn digest_differences(
    own: &ReplicaDigests,
    (answer, leader_id): (&DigestAnswer, u64),
    vault_of: impl Fn(VaultNumber) -> Option<VaultId>,
) -> Vec<Difference> {
    let side = |digest| Side { digest, state_root: None };
    let point = point(own);
    let difference = |kind, (vault, number), (mine, theirs): (Hash, Hash)| Difference {
        kind,
        vault,
        number,
        position: own.index,
        own: side(mine),
        leader: side(theirs),
        leader_id,
        point: Some(point),
    };
    let mut found = Vec::new();
    if answer.point.membership != own.membership {
        let sides = (own.membership, answer.point.membership);
        found.push(difference(DivergenceKind::Membership, (None, 0), sides));
    }
    if answer.point.idempotency == point.idempotency {
        return found;
    }
    let mut sides: BTreeMap<u64, (Hash, Hash)> = BTreeMap::new();
    for vault in &own.vaults {
        sides.entry(vault.number.0).or_default().0 = vault.digest;
    }
    for (number, digest) in &answer.vaults {
        sides.entry(*number).or_default().1 = *digest;
    }
    for (number, sides) in sides.into_iter().filter(|(_, (mine, theirs))| mine != theirs) {
        if let Some(vault) = vault_of(VaultNumber(number)) {
            found.push(difference(DivergenceKind::IdempotencyKeys, (Some(vault), number), sides));
        }
    }
    found
}

/// What this node says to whoever compares.
pub(super) fn answer(ledger: &AppliedLedger, asked: &CompareRequest) -> Result<CompareAnswer, PeerRefusal> {
    if asked.tips.len() > TIPS_AT_ONCE || asked.points.len() > POINTS_AT_ONCE {
        let reason = format!("it compares more than {TIPS_AT_ONCE} vaults or {POINTS_AT_ONCE} points");
        return Err(PeerRefusal::Malformed { reason });
    }
    let state = ledger.read().map_err(|_| PeerRefusal::NotReady { reason: "it stops".to_owned() })?;
    let blocks = asked.tips.iter().map(|tip| block_to_compare(&state, tip)).collect();
    let known = if asked.points.is_empty() { Vec::new() } else { state.replica_digests() };
    drop(state);
    let asked_about = |index| asked.points.iter().find(|point| point.index == index);
    let newest = known.iter().rev().find_map(|known| Some((known, asked_about(known.index)?)));
    let digests = newest.map(|(known, asked)| {
        let own = point(known);
        let vaults = known.vaults.iter().map(|vault| (vault.number.0, vault.digest));
        let vaults = if own.idempotency == asked.idempotency { Vec::new() } else { vaults.collect() };
        DigestAnswer { point: own, vaults }
    });
    Ok(CompareAnswer { blocks, digests })
}

pub(super) fn block_to_compare(state: &LedgerState, tip: &VaultTip) -> LeaderBlock {
    match state.header(tip.vault, tip.height) {
        Ok(Some(header)) => {
            LeaderBlock::SameHeight { block_hash: header.leaf_hash(), state_root: header.state_root }
        }
        Ok(None) => match state.tip(tip.vault) {
            Ok(own) => LeaderBlock::Below { height: own.header.height, block_hash: own.block_hash },
            Err(_) => LeaderBlock::Silent,
        },
        // Fenced or gone here.
        Err(_) => LeaderBlock::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(voters: usize, with_leader: usize, with_this_node: usize) -> Verdict {
        let some = |count: usize| (0..count as u64).collect();
        Evidence { voters, with_leader: some(with_leader), with_this_node: some(with_this_node) }.verdict()
    }

    #[test]
    fn a_majority_with_the_leader_is_needed_and_the_leader_alone_is_none() {
        assert_eq!(verdict(3, 2, 1), Verdict::ThisNode);
        assert_eq!(verdict(3, 1, 2), Verdict::Leader);
        assert_eq!(verdict(3, 1, 1), Verdict::Unknown);
        // Two voters: nobody can tell.
        assert_eq!(verdict(2, 1, 1), Verdict::Unknown);
        // A learner that differs has no voice of its own.
        assert_eq!(verdict(3, 2, 0), Verdict::ThisNode);
        assert_eq!(verdict(1, 1, 0), Verdict::ThisNode);
        assert_eq!(verdict(5, 2, 2), Verdict::Unknown);
        assert_eq!(verdict(5, 3, 2), Verdict::ThisNode);
        assert_eq!(verdict(5, 2, 3), Verdict::Leader);
        assert_eq!(verdict(4, 2, 2), Verdict::Unknown);
    }
}
