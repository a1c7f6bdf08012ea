//! Followers compare their vaults with the leader's: the same height must have the same block and the same state.
//!
//! A vault that differs is fenced here: it answers nothing, and the others do not notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::names::VaultId;
use tokio::time::MissedTickBehavior;

use super::LeaderCalls;
use crate::applied_state::AppliedLedger;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{self, TipsAnswer, TipsRequest, VaultTip};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::raft::Consensus;

/// How often the vaults that changed are compared.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Most vaults in one comparison; the others come with the next one.
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
        loop {
            rounds.tick().await;
            let status = self.leader.consensus.status();
            if status.is_leader || status.leader.is_none() {
                continue;
            }
            let Some(tips) = self.changed(&mut same) else { return std::future::pending().await };
            if !tips.is_empty() {
                self.compare(tips, &mut same).await;
            }
        }
    }

    /// Tips that were not compared yet; `None` = the node stops.
    fn changed(&self, same: &mut BTreeMap<VaultId, u64>) -> Option<Vec<VaultTip>> {
        let state = self.ledger.read().ok()?;
        same.retain(|vault, _| state.has_vault(*vault));
        let tips = state.tips().map(|(vault, height, block_hash, state_root)| VaultTip {
            vault,
            height,
            block_hash,
            state_root,
        });
        let changed = tips.filter(|tip| same.get(&tip.vault) != Some(&tip.height));
        Some(changed.take(TIPS_AT_ONCE).collect())
    }

    async fn compare(&self, tips: Vec<VaultTip>, same: &mut BTreeMap<VaultId, u64>) {
        let Ok(body) = messages::encode(&TipsRequest { tips: tips.clone() }) else { return };
        let answer = match self.leader.ask(PeerMethod::Tips, body, ASK_TIMEOUT).await {
            Ok(answer) => answer,
            // The next round asks again.
            Err(error) => return tracing::debug!(%error, "the replicas were not compared"),
        };
        let Ok(answer) = messages::decode::<TipsAnswer>(&answer) else { return };
        add(&self.counters.tips_compared, tips.len() as u64);
        for (tip, leader) in tips.into_iter().zip(answer.leader) {
            match leader {
                Some(theirs) if theirs == (tip.block_hash, tip.state_root) => {
                    same.insert(tip.vault, tip.height);
                }
                Some(_) => self.fence(&tip),
                // The leader has not applied it yet, or the vault is fenced or gone there.
                None => {}
            }
        }
    }

    fn fence(&self, tip: &VaultTip) {
        add(&self.counters.vaults_diverged, 1);
        tracing::error!(
            vault = %tip.vault,
            height = tip.height,
            "this node's block differs from the leader's: the vault is fenced here"
        );
        let what = format!("block {} differs from the leader's", tip.height);
        // Whoever left the state half applied has reported it.
        let Ok(mut state) = self.ledger.write() else { return };
        if let Err(error) = state.fence_vault(tip.vault, &what) {
            tracing::error!(%error, "the vault could not be fenced");
        }
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
    let at = |tip: &VaultTip| {
        // A vault that is fenced or gone here says nothing about the other's.
        let header = state.header(tip.vault, tip.height).ok()??;
        Some((header.leaf_hash(), header.state_root))
    };
    Ok(TipsAnswer { leader: asked.tips.iter().map(at).collect() })
}
