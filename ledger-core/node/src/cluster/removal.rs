//! A node that does not get ready asks its peers whether it still belongs to them: one that an operator took out while it
//! was away, or while it ran, would wait for a leader for ever without knowing why.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::forming::{PeersWord, Returning};
use crate::ordered_watch;
use crate::peers::{ClusterId, MemberRecord, PeerTransport};
use crate::raft::Consensus;

/// How long a node is not ready before it asks, and how long it waits before it asks again.
const ROUND_INTERVAL: Duration = Duration::from_secs(2);

/// Whether this node was taken out of its cluster, as its leader said last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removal(Arc<AtomicBool>);

impl Removal {
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Answers whether that is news.
    fn set(&self, removed: bool) -> bool {
        self.0.swap(removed, Ordering::Relaxed) != removed
    }
}

/// What the watch works with.
pub(crate) struct RemovalWatch {
    pub removal: Removal,
    pub consensus: Consensus,
    pub transport: Arc<dyn PeerTransport>,
    pub cluster_id: ClusterId,
    pub member: MemberRecord,
    pub ready: ordered_watch::Receiver<bool>,
}

impl RemovalWatch {
    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            let is_ready = *self.ready.borrow();
            if is_ready {
                self.note(false);
            }
            let change = self.ready.changed();
            let changed = tokio::time::timeout(ROUND_INTERVAL, change).await.is_ok();
            if changed || is_ready || *self.ready.borrow() {
                continue;
            }
            match self.ask().await {
                PeersWord::NotMember => self.note(true),
                PeersWord::Good | PeersWord::Older { .. } => self.note(false),
                PeersWord::Unknown => {}
            }
        }
    }

    /// Everybody that this node knows, once.
    async fn ask(&self) -> PeersWord {
        let records = self.consensus.members().records.into_values().flatten();
        let addresses: BTreeSet<_> = records.map(|record| record.peer_address).collect();
        let returning = Returning {
            transport: &self.transport,
            cluster: self.cluster_id,
            me: &self.member,
            last_index: self.consensus.status().last_log_index,
        };
        returning.ask(addresses, Duration::ZERO).await
    }

    fn note(&self, removed: bool) {
        if !self.removal.set(removed) {
            return;
        }
        let (name, peer_address) = (&self.member.identity.name, &self.member.peer_address);
        match removed {
            true => tracing::warn!(
                %name,
                "this node was taken out of its cluster and stays out: it serves nobody. Stop it, or take it in again with \
                 `strongroom ledger cluster join {peer_address}`, or by starting it with --rejoin"
            ),
            false => tracing::info!(%name, "this node belongs to its cluster again"),
        }
    }
}
