//! Followers compare what they have with what the leader has: the same height must have the same block and the same
//! state, the same entry the same memory of idempotency keys and the same members.
//!
//! Of a difference the other voters are asked. A vault that differs is fenced here: it answers nothing, and the others do
//! not notice. When a majority has what this node has, the leader is wrong, and nothing is fenced here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::ledger_state::{LedgerState, ReplicaDigests};
use ledger_core::names::VaultId;
use tokio::time::{Instant, MissedTickBehavior};

use super::LeaderCalls;
use super::divergence::{Divergence, DivergenceKind, DivergenceRegister, DivergenceState, Side};
use super::evidence::{self, Difference, TIPS_AT_ONCE, Verdict, block_to_compare};
use super::leader_calls::AskError;
use crate::applied_state::AppliedLedger;
use crate::clock::Clock;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{
    self, CompareAnswer, CompareRequest, LeaderBlock, TipsAnswer, TipsRequest, VaultTip,
};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::raft::Consensus;

/// How often the vaults that changed are compared.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How long a follower waits for the leader's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// What a majority has as this node has it is looked at again after this, or when another node leads.
const ASIDE: Duration = Duration::from_secs(30);
/// Rounds in which the voters may say what they have beside blocks, before a difference counts without them: they have to
/// be at the same entry for it.
const PATIENT_ROUNDS: u32 = 10;

/// Compares this node with the leader while it follows.
pub(crate) struct Comparison {
    pub leader: LeaderCalls,
    pub ledger: Arc<AppliedLedger>,
    pub counters: Arc<CounterCells>,
    pub register: DivergenceRegister,
    pub clock: Arc<dyn Clock>,
}

/// A place that was found to differ.
type Place = (DivergenceKind, Option<VaultId>);

/// What the rounds remember; bounded by the number of vaults.
#[derive(Default)]
struct Memory {
    /// How often the state had been replaced: another state is compared anew.
    replacements: u64,
    /// The height up to which each vault was found the same.
    same: BTreeMap<VaultId, u64>,
    /// The last vault of the last comparison.
    after: Option<VaultId>,
    /// The entry after which the digests were compared last.
    digests_at: Option<u64>,
    /// Where the leader stood alone, by leader, and since when.
    aside: BTreeMap<Place, (u64, Instant)>,
    /// Rounds in which nobody could say who is right.
    patience: BTreeMap<Place, u32>,
}

/// What one round looks at.
struct Look {
    tips: Vec<VaultTip>,
    digests: Vec<ReplicaDigests>,
}

impl Comparison {
    /// Runs for ever.
    pub async fn run(self) {
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory::default();
        loop {
            rounds.tick().await;
            let status = self.leader.consensus.status();
            let Some(leader) = status.leader.filter(|_| !status.is_leader) else { continue };
            self.settle().await;
            let Some(look) = self.look(&mut memory) else { return std::future::pending().await };
            let mut found = self.compare_tips(look.tips, leader, &mut memory).await;
            // A block that differs is remembered with its hash: that its keys differ says nothing new.
            let blocks: Vec<Option<VaultId>> = found.iter().map(|found| found.vault).collect();
            let digests = self.compare_digests(look.digests, leader, &mut memory).await;
            let is_new = |found: &Difference| {
                let block = (DivergenceKind::Block, found.vault);
                found.kind == DivergenceKind::Membership
                    || !(blocks.contains(&found.vault) || memory.aside.contains_key(&block))
            };
            found.extend(digests.into_iter().filter(is_new));
            for difference in found {
                self.judge(difference, &mut memory).await;
            }
        }
    }

    /// What was not compared yet; `None` = the node stops.
    fn look(&self, memory: &mut Memory) -> Option<Look> {
        let state = self.ledger.read().ok()?;
        if memory.replacements != self.ledger.replacements() {
            *memory = Memory { replacements: self.ledger.replacements(), ..Memory::default() };
        }
        memory.same.retain(|vault, _| state.has_vault(*vault));
        let tips = state.tips().map(|(vault, height, block_hash, state_root)| VaultTip {
            vault,
            height,
            block_hash,
            state_root,
        });
        let changed = tips.filter(|tip| memory.same.get(&tip.vault) != Some(&tip.height));
        let tips = next_in_turn(changed, memory.after, TIPS_AT_ONCE);
        let digests = if state.last_applied().map(|id| id.index) == memory.digests_at {
            Vec::new()
        } else {
            state.replica_digests()
        };
        Some(Look { tips, digests })
    }

    async fn compare_tips(&self, tips: Vec<VaultTip>, leader: u64, memory: &mut Memory) -> Vec<Difference> {
        let Some(last) = tips.last() else { return Vec::new() };
        memory.after = Some(last.vault);
        let blocks = match leader_blocks(&self.leader, tips.clone()).await {
            Ok(blocks) => blocks,
            // The next round asks again.
            Err(error) => {
                tracing::debug!(%error, "the replicas were not compared");
                return Vec::new();
            }
        };
        add(&self.counters.tips_compared, tips.len() as u64);
        let mut found = Vec::new();
        for (tip, block) in tips.into_iter().zip(blocks) {
            match self.difference(&tip, block, leader) {
                Some(difference) => found.push(difference),
                None if matches!(block, LeaderBlock::SameHeight { .. }) => {
                    memory.same.insert(tip.vault, tip.height);
                }
                None => {}
            }
        }
        found
    }

    /// Where a vault differs from the leader's block, if it does.
    fn difference(&self, tip: &VaultTip, block: LeaderBlock, leader_id: u64) -> Option<Difference> {
        let side = |digest, state_root| Side { digest, state_root };
        let (position, own, leader) = match block {
            LeaderBlock::SameHeight { block_hash, state_root } => {
                let own = side(tip.block_hash, Some(tip.state_root));
                (tip.height, own, side(block_hash, Some(state_root)))
            }
            // The leader may not have applied all that is committed; up to there both are the same.
            LeaderBlock::Below { height, block_hash } => {
                let own = self.ledger.read().ok()?.header(tip.vault, height).ok()??;
                (height, side(own.leaf_hash(), Some(own.state_root)), side(block_hash, None))
            }
            LeaderBlock::Silent => return None,
        };
        let (kind, vault) = (DivergenceKind::Block, Some(tip.vault));
        let found = Difference { kind, vault, number: 0, position, own, leader, leader_id, point: None };
        (!own.agrees(&leader)).then_some(found)
    }

    async fn compare_digests(
        &self,
        digests: Vec<ReplicaDigests>,
        leader: u64,
        memory: &mut Memory,
    ) -> Vec<Difference> {
        let points = evidence::points(&digests);
        let Some(newest) = points.last().map(|point| point.index) else { return Vec::new() };
        let answer = match ask_leader(&self.leader, &CompareRequest { tips: Vec::new(), points }).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "what is beside blocks was not compared");
                return Vec::new();
            }
        };
        // The leader is at none of these points: the next round has others.
        let Some(answer) = answer.digests else { return Vec::new() };
        let Some(own) = digests.iter().find(|own| own.index == answer.point.index) else { return Vec::new() };
        add(&self.counters.digests_compared, 1);
        let Ok(state) = self.ledger.read() else { return Vec::new() };
        let found =
            evidence::digest_differences(own, (&answer, leader), |number| state.vault_of_number(number));
        if found.is_empty() && own.index == newest {
            memory.digests_at = Some(newest);
        }
        found
    }

    /// Finds out who is wrong, and fences what is wrong here.
    async fn judge(&self, found: Difference, memory: &mut Memory) {
        let place = (found.kind, found.vault);
        let is_known = match found.vault {
            Some(vault) => self.register.is_vault_pending(vault),
            None => self.register.is_pending(found.kind, None),
        };
        if is_known {
            return;
        }
        let aside = memory.aside.get(&place);
        if aside.is_some_and(|(leader, since)| *leader == found.leader_id && since.elapsed() < ASIDE) {
            return;
        }
        let gathered = evidence::gather(&self.leader, &found).await;
        let verdict = gathered.verdict();
        if found.kind != DivergenceKind::Block && verdict == Verdict::Unknown {
            let rounds = memory.patience.entry(place).or_default();
            *rounds += 1;
            if *rounds < PATIENT_ROUNDS {
                return;
            }
        }
        memory.patience.remove(&place);
        let name = found.vault.and_then(|vault| self.name_of(vault)).unwrap_or_default();
        let divergence = found.found(name, &gathered, self.clock.now_ms());
        if verdict == Verdict::Leader {
            memory.aside.insert(place, (found.leader_id, Instant::now()));
            add(&self.counters.leader_stands_alone, 1);
            report(&divergence, "the leader has something else than a majority: hand the lead over");
            self.register.add(divergence).await;
            return;
        }
        let divergence = self.register.add(divergence).await;
        match found.kind {
            DivergenceKind::Block => add(&self.counters.vaults_diverged, 1),
            _ => add(&self.counters.digests_diverged, 1),
        }
        report(&divergence, "this node has something else than the leader");
        if let Some(vault) = found.vault {
            self.fence(vault, &divergence, memory.replacements);
        }
    }

    fn fence(&self, vault: VaultId, divergence: &Divergence, replacements: u64) {
        let position = divergence.position;
        let what = match divergence.kind {
            DivergenceKind::Block => format!("block {position} differs from the leader's"),
            _ => format!(
                "what is remembered of its idempotency keys differs from the leader's after entry {position}"
            ),
        };
        // Whoever left the state half applied has reported it.
        let Ok(mut state) = self.ledger.write() else { return };
        if self.ledger.replacements() != replacements {
            // What differed is not there any more.
            return;
        }
        if let Err(error) = state.fence_vault(vault, &what) {
            tracing::error!(%error, "the vault could not be fenced");
        }
    }

    /// What is on the list and not fenced was settled otherwise: by a snapshot of the engine, by an operator, by the end of
    /// the vault; or a crash came between the list and the fence, then it is found anew.
    async fn settle(&self) {
        let pending = self.register.pending();
        if pending.is_empty() {
            return;
        }
        let settled: Vec<(Place, Option<DivergenceState>)> = {
            let Ok(state) = self.ledger.read() else { return };
            let settled = pending.iter().filter_map(|known| {
                Some(((known.kind, known.vault), settlement(&state, known, self.ledger.replacements())?))
            });
            settled.collect()
        };
        for ((kind, vault), outcome) in settled {
            self.register.settle((kind, vault), outcome, self.clock.now_ms()).await;
        }
    }

    fn name_of(&self, vault: VaultId) -> Option<String> {
        let state = self.ledger.read().ok()?;
        state.vault_name(vault).map(|name| name.to_string())
    }
}

/// How something on the list was settled: `Some(None)` = it is not known to have been. `None` = it stands.
fn settlement(state: &LedgerState, known: &Divergence, replacements: u64) -> Option<Option<DivergenceState>> {
    let vault = known.vault?;
    if !state.has_vault(vault) {
        return Some(Some(DivergenceState::Recovered));
    }
    if state.fence(vault).is_some() {
        return None;
    }
    let has_leaders_block = || {
        let own = state.header(vault, known.position).ok().flatten();
        own.is_some_and(|own| own.leaf_hash() == known.leader.digest)
    };
    let is_recovered = match known.kind {
        DivergenceKind::Block => has_leaders_block(),
        _ => replacements > 0,
    };
    Some(is_recovered.then_some(DivergenceState::Recovered))
}

/// The event.
fn report(divergence: &Divergence, what: &str) {
    let root = |side: &Side| side.state_root.map(hex::encode);
    tracing::error!(
        kind = divergence.kind.as_str(),
        vault = %divergence.vault_name,
        position = divergence.position,
        own_digest = %hex::encode(divergence.own.digest),
        own_state_root = root(&divergence.own),
        leader = divergence.leader_id,
        leader_digest = %hex::encode(divergence.leader.digest),
        leader_state_root = root(&divergence.leader),
        with_leader = ?divergence.with_leader,
        with_this_node = ?divergence.with_this_node,
        state = divergence.state.as_str(),
        reason = %divergence.reason,
        "{what}"
    );
}

/// At most `max` tips, those of vaults behind `after` first: each gets its turn, however often the others change. The tips
/// come in the order of their vaults.
fn next_in_turn(tips: impl Iterator<Item = VaultTip>, after: Option<VaultId>, max: usize) -> Vec<VaultTip> {
    let (mut behind, mut before) = (Vec::new(), Vec::new());
    for tip in tips {
        let turn = if Some(tip.vault) > after { &mut behind } else { &mut before };
        if turn.len() < max {
            turn.push(tip);
        }
        if behind.len() == max {
            break;
        }
    }
    behind.extend(before.into_iter().take(max - behind.len()));
    behind
}

/// The leader gave nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the leader's answer is none of this protocol: {0}")]
    Message(#[from] messages::MessageError),
    #[error("the leader answers for {answered} vaults instead of {asked}")]
    Count { asked: usize, answered: usize },
}

/// Asks the leader what it has.
pub(super) async fn ask_leader(
    leader: &LeaderCalls,
    request: &CompareRequest,
) -> Result<CompareAnswer, CompareError> {
    let answer = leader.ask(PeerMethod::Compare, messages::encode(request)?, ASK_TIMEOUT).await?;
    Ok(messages::decode(&answer)?)
}

/// Asks the leader for its blocks at the heights of tips, or below.
pub(crate) async fn leader_blocks(
    leader: &LeaderCalls,
    tips: Vec<VaultTip>,
) -> Result<Vec<LeaderBlock>, CompareError> {
    let asked = tips.len();
    let body = messages::encode(&TipsRequest { tips })?;
    let answer = leader.ask(PeerMethod::Tips, body, ASK_TIMEOUT).await?;
    let blocks = messages::decode::<TipsAnswer>(&answer)?.leader;
    if blocks.len() == asked {
        Ok(blocks)
    } else {
        Err(CompareError::Count { asked, answered: blocks.len() })
    }
}

/// The leader's side.
pub(super) fn answer(
    consensus: &Consensus,
    ledger: &AppliedLedger,
    asked: &TipsRequest,
) -> Result<TipsAnswer, PeerRefusal> {
    let status = consensus.status();
    if !status.is_leader {
        return Err(PeerRefusal::NotLeader { leader: status.leader });
    }
    if asked.tips.len() > TIPS_AT_ONCE {
        return Err(PeerRefusal::Malformed {
            reason: format!("it compares more than {TIPS_AT_ONCE} vaults"),
        });
    }
    let state = ledger.read().map_err(|_| PeerRefusal::NotReady { reason: "it stops".to_owned() })?;
    Ok(TipsAnswer { leader: asked.tips.iter().map(|tip| block_to_compare(&state, tip)).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vault_gets_its_turn_while_all_of_them_keep_changing() {
        let tip = |number: u8| VaultTip {
            vault: VaultId([number; 16]),
            height: 1,
            block_hash: [0; 32],
            state_root: [0; 32],
        };
        let turn = |after: Option<VaultId>| {
            let tips = next_in_turn((0..10).map(tip), after, 4);
            (tips.iter().map(|tip| tip.vault.0[0]).collect::<Vec<u8>>(), tips.last().map(|tip| tip.vault))
        };
        let (first, after) = turn(None);
        let (second, after) = turn(after);
        let (third, after) = turn(after);
        let (fourth, _) = turn(after);
        assert_eq!(
            [first, second, third, fourth],
            [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5]].map(Vec::from)
        );
        assert_eq!(next_in_turn(std::iter::once(tip(3)), Some(VaultId([7; 16])), 4), [tip(3)]);
    }
}
