//! A leader whose disk is nearly full refuses writes for the whole cluster. When another voter has room, that one should lead.

use std::time::Duration;

use futures::future::join_all;

use super::Steward;
use crate::peers::messages::{self, WriteStateAnswer, WriteStateRequest};
use crate::peers::{MemberRecord, PeerCalls, PeerMethod};
use crate::raft::Consensus;
use crate::write_state::WriteSwitch;

/// How often the own state is looked at.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How long a voter may take to say whether it has room.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// After a round in which nobody took over.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the watch works with.
pub(crate) struct FullDiskWatch {
    pub node_id: u64,
    pub consensus: Consensus,
    pub writes: WriteSwitch,
    pub steward: Steward,
    pub calls: PeerCalls,
}

impl FullDiskWatch {
    /// Runs for ever.
    pub async fn run(self) {
        let mut has_said = false;
        loop {
            tokio::time::sleep(ROUND_INTERVAL).await;
            if self.writes.admit().is_ok() || !self.consensus.status().is_leader {
                has_said = false;
                continue;
            }
            if !self.hand_over().await {
                if !std::mem::replace(&mut has_said, true) {
                    tracing::warn!(
                        "the disk of this leader is nearly full, and no other voter has room and can take over: the cluster \
                         refuses writes"
                    );
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// To the one with room that has most of the log; answers whether it leads.
    async fn hand_over(&self) -> bool {
        let members = self.consensus.members();
        let others = members.voters.iter().filter(|id| **id != self.node_id);
        let records: Vec<&MemberRecord> =
            others.filter_map(|id| members.records.get(id).and_then(Option::as_ref)).collect();
        let asked = join_all(records.iter().map(|record| self.has_room(record))).await;
        let with_room = records.iter().zip(asked).filter(|(_, has_room)| *has_room);
        let progress = self.consensus.progress();
        let matched = |id: &u64| progress.get(id).and_then(|known| known.matched);
        let Some(to) = with_room.map(|(record, _)| record.identity.node_id).max_by_key(matched) else {
            return false;
        };
        match self.steward.transfer(Some(to)).await {
            Ok(leader) => {
                tracing::warn!(leader, "the disk of this node is nearly full: another one leads now");
                true
            }
            Err(error) => {
                tracing::info!(%error, to, "the lead was not handed to a voter with room");
                false
            }
        }
    }

    /// One that does not answer, or is of a release that does not know the question, is none to hand over to.
    async fn has_room(&self, record: &MemberRecord) -> bool {
        let Ok(body) = messages::encode(&WriteStateRequest {}) else { return false };
        let answer = self.calls.call(record, PeerMethod::WriteState, body, ASK_TIMEOUT).await;
        answer.is_ok_and(|answer| matches!(messages::decode(&answer), Ok(WriteStateAnswer::Open)))
    }
}
