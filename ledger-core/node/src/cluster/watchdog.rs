//! A leader whose disk hangs must not go on leading: the engine sends heartbeats without the disk, so nobody would be
//! elected, and nothing would be committed.

use std::time::Duration;

use super::Steward;
use crate::log_writer::LogWriter;
use crate::raft::{Consensus, Heartbeats};

/// A commit of the log that takes longer than this is a disk that hangs.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(2);
/// How often the log is looked at.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);
/// How long a successor may take before the leader simply falls silent.
const SUCCESSION_TIMEOUT: Duration = Duration::from_secs(1);

/// Watches the log's commits, for ever.
pub(crate) async fn run(consensus: Consensus, log_writer: LogWriter, steward: Steward) {
    let mut heartbeats = Heartbeats::On;
    let mut rounds = tokio::time::interval(ROUND_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let stalled = log_writer.oldest_wait().filter(|waits| *waits > STALL_MAX);
        match (stalled, heartbeats) {
            (Some(waits), Heartbeats::On) => {
                tracing::error!(?waits, "the disk of the log hangs: this node gives up the lead");
                // It campaigns no more, and when it leads it lets another node lead.
                heartbeats = Heartbeats::Off;
                consensus.set_heartbeats(Heartbeats::Off);
                if consensus.status().is_leader {
                    let handed_over = steward.hand_over_at_once();
                    let _ = tokio::time::timeout(SUCCESSION_TIMEOUT, handed_over).await;
                }
            }
            (None, Heartbeats::Off) => {
                tracing::warn!("the disk of the log works again");
                heartbeats = Heartbeats::On;
                consensus.set_heartbeats(Heartbeats::On);
            }
            _ => {}
        }
    }
}
