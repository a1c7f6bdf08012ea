//! What only a member of a cluster does, beside what every ledger does.

use std::sync::Arc;

use ledger_core::names::LedgerId;
use ledger_core::ports::SignedMark;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{NodeHandles, NodeParts};
use crate::cluster::{Comparison, Duties, FullDiskWatch, KeyCheck, RemovalWatch, watch_the_disk};
use crate::ordered_watch;
use crate::peers::{ClusterId, MemberRecord, PeerTransport};

/// What only a member of a cluster does; it begins once the node is open.
#[derive(Clone)]
pub(super) struct MemberTasks {
    pub marks: Vec<SignedMark>,
    pub ledger_id: LedgerId,
    pub key: KeyCheck,
    pub cluster_id: ClusterId,
    pub record: MemberRecord,
    pub transport: Arc<dyn PeerTransport>,
    pub leader: ordered_watch::Sender<Option<u64>>,
    pub leader_shown: watch::Sender<Option<u64>>,
    pub ready: ordered_watch::Sender<bool>,
}

/// Begins all of it.
pub(super) fn spawn(
    parts: &NodeParts,
    handles: &NodeHandles,
    member: MemberTasks,
    forever: &mut JoinSet<()>,
) {
    let removal = RemovalWatch {
        removal: handles.cluster.removal.clone(),
        consensus: handles.consensus.clone(),
        transport: member.transport,
        cluster_id: member.cluster_id,
        member: member.record.clone(),
        ready: handles.cluster.ready.clone(),
    };
    forever.spawn(removal.run());
    let duties = Duties {
        consensus: handles.consensus.clone(),
        leader: handles.cluster.leader_calls.clone(),
        ledger: Arc::clone(&handles.ledger),
        barrier: handles.barrier.clone(),
        ledger_id: member.ledger_id,
        cluster_id: member.cluster_id,
        marks: member.marks,
        failure: parts.failure.clone(),
        randomness: parts.randomness.clone(),
        ready: member.ready,
        member: member.record,
        cluster: Arc::clone(&handles.cluster),
        key: member.key,
    };
    forever.spawn(duties.run());
    forever.spawn(handles.consensus.clone().follow_leader(member.leader, member.leader_shown));
    forever.spawn(handles.consensus.clone().begin_elections());
    forever.spawn(handles.cluster.steward.clone().run());
    let comparison = Comparison {
        leader: handles.cluster.leader_calls.clone(),
        ledger: Arc::clone(&handles.ledger),
        counters: Arc::clone(&parts.counters),
        register: handles.cluster.register.clone(),
        clock: Arc::clone(&parts.options.clock),
    };
    forever.spawn(comparison.run());
    forever.spawn(handles.recovery.clone().run());
    if let Some(calls) = handles.cluster.leader_calls.calls.clone() {
        let full_disk = FullDiskWatch {
            node_id: parts.directory.node_id(),
            consensus: handles.consensus.clone(),
            writes: handles.queue.switch().clone(),
            steward: handles.cluster.steward.clone(),
            calls,
        };
        forever.spawn(full_disk.run());
    }
    let steward = handles.cluster.steward.clone();
    forever.spawn(watch_the_disk(handles.consensus.clone(), handles.log_writer.clone(), steward));
}
