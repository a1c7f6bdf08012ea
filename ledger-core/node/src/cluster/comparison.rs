//! Followers compare their vaults with the leader's: the same height must have the same block and the same state.
//!
//! A vault that differs is fenced here: it answers nothing, and the others do not notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::ledger_state::LedgerState;
use ledger_core::names::VaultId;
use ledger_verify::Hash;
use tokio::time::MissedTickBehavior;

use super::LeaderCalls;
use super::leader_calls::AskError;
use crate::applied_state::AppliedLedger;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{self, LeaderBlock, TipsAnswer, TipsRequest, VaultTip};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::raft::Consensus;

/// How often the vaults that changed are compared.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Most vaults in one comparison; the next one begins with those after them.
const TIPS_AT_ONCE: usize = 1_024;
/// How long a follower waits for the leader's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Compares this node's vaults with the leader's while it follows.
pub(crate) struct Comparison {
    pub leader: LeaderCalls,
    pub ledger: Arc<AppliedLedger>,
    pub counters: Arc<CounterCells>,
}

impl Comparison {
    /// Runs for ever.
    pub async fn run(self) {
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The height up to which each vault was found the same, bounded by the number of vaults.
        let mut same: BTreeMap<VaultId, u64> = BTreeMap::new();
        // The last vault of the last comparison.
        let mut after: Option<VaultId> = None;
        loop {
            rounds.tick().await;
            let status = self.leader.consensus.status();
            if status.is_leader || status.leader.is_none() {
                continue;
            }
            let Some(tips) = self.changed(&mut same, after) else { return std::future::pending().await };
            if let Some(last) = tips.last() {
                after = Some(last.vault);
                self.compare(tips, &mut same).await;
            }
        }
    }

    /// Tips that were not compared yet; `None` = the node stops.
    fn changed(&self, same: &mut BTreeMap<VaultId, u64>, after: Option<VaultId>) -> Option<Vec<VaultTip>> {
        let state = self.ledger.read().ok()?;
        same.retain(|vault, _| state.has_vault(*vault));
        let tips = state.tips().map(|(vault, height, block_hash, state_root)| VaultTip {
            vault,
            height,
            block_hash,
            state_root,
        });
        let changed = tips.filter(|tip| same.get(&tip.vault) != Some(&tip.height));
        Some(next_in_turn(changed, after, TIPS_AT_ONCE))
    }

    async fn compare(&self, tips: Vec<VaultTip>, same: &mut BTreeMap<VaultId, u64>) {
        let blocks = match leader_blocks(&self.leader, tips.clone()).await {
            Ok(blocks) => blocks,
            // The next round asks again.
            Err(error) => return tracing::debug!(%error, "the replicas were not compared"),
        };
        add(&self.counters.tips_compared, tips.len() as u64);
        for (tip, block) in tips.into_iter().zip(blocks) {
            match block {
                LeaderBlock::SameHeight { block_hash, state_root } => {
                    if (block_hash, state_root) == (tip.block_hash, tip.state_root) {
                        same.insert(tip.vault, tip.height);
                    } else {
                        self.fence(tip.vault, tip.height);
                    }
                }
                // The leader may not have applied all that is committed; up to there both are the same.
                LeaderBlock::Below { height, block_hash } => {
                    if self.own_block_differs(&tip, height, block_hash) {
                        self.fence(tip.vault, height);
                    }
                }
                LeaderBlock::Silent => {}
            }
        }
    }

    /// Whether this node has another block than the leader at a height below its own.
    fn own_block_differs(&self, tip: &VaultTip, height: u64, leader: Hash) -> bool {
        let Ok(state) = self.ledger.read() else { return false };
        let own = state.header(tip.vault, height);
        own.is_ok_and(|header| header.is_some_and(|header| header.leaf_hash() != leader))
    }

    fn fence(&self, vault: VaultId, height: u64) {
        add(&self.counters.vaults_diverged, 1);
        tracing::error!(
            %vault,
            height,
            "this node's block differs from the leader's: the vault is fenced here"
        );
        let what = format!("block {height} differs from the leader's");
        // Whoever left the state half applied has reported it.
        let Ok(mut state) = self.ledger.write() else { return };
        if let Err(error) = state.fence_vault(vault, &what) {
            tracing::error!(%error, "the vault could not be fenced");
        }
    }
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

fn block_to_compare(state: &LedgerState, tip: &VaultTip) -> LeaderBlock {
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
