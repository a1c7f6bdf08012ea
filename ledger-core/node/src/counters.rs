//! What a node has done since it opened: plain numbers that servers turn into metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use ledger_core::ports::LogChange;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a node has done since it opened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct CounterCells {
            $(pub $name: AtomicU64,)+
        }

        impl CounterCells {
            pub fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Commits of the log store: each is one `fsync`, or two when a vote is in it.
    log_batches,
    /// Records appended to the log.
    log_entries,
    /// Payload bytes appended to the log.
    log_bytes,
    /// Transactions that were answered with a new receipt.
    writes,
    /// Transactions that were answered with an earlier receipt.
    writes_replayed,
    /// Transactions that were refused by the state.
    writes_refused,
    /// Transactions and commands that were turned away because the queue was full.
    overloads,
    /// Transactions that were sent on to the leader.
    writes_forwarded,
    /// Log entries with transactions that were proposed.
    write_entries,
    /// Linearizable reads that asked for a read barrier.
    barrier_reads,
    /// Rounds of the read barrier: many reads share one.
    barrier_rounds,
    /// Checkpoints that were signed.
    checkpoints_signed,
    /// Vault tips that were compared with the leader's.
    tips_compared,
    /// Vaults that were fenced because they differ from the leader's.
    vaults_diverged,
    /// Times that what is beside blocks (idempotency keys, membership) was compared with the leader's.
    digests_compared,
    /// Times that it was found to differ.
    digests_diverged,
    /// Times that a difference was found and a majority has what this node has: the leader stands alone.
    leader_stands_alone,
    /// Recoveries from a peer that were begun.
    peer_recoveries_begun,
    /// Recoveries from a peer that ended with the peer's content here.
    peer_recoveries,
    /// Recoveries from a peer that came to nothing.
    peer_recoveries_failed,
    /// Snapshots that were sent to members that differ.
    repairs_sent,
    /// Commits of the state store.
    flushes,
    /// Times that applying waited for a flush because the overlay was full.
    apply_stalls,
    /// Entities that garbage collection expired.
    entities_expired,
    /// Blocks whose bodies garbage collection dropped because their vault's retention does not cover them.
    blocks_compacted,
    /// Watches that were begun.
    watches,
    /// Blocks that watches returned.
    blocks_watched,
    /// Snapshots that were written.
    snapshots_written,
    /// Snapshots that could not be written.
    snapshots_failed,
    /// Bytes of the snapshots that were written.
    snapshot_bytes,
    /// Milliseconds that writing them took.
    snapshot_ms,
    /// Older snapshots that were removed to keep to the number asked for.
    snapshots_pruned,
    /// Chunks of snapshots that were sent to peers and acknowledged.
    snapshot_chunks_sent,
    /// Requests of such a transfer that were sent again.
    snapshot_retries,
    /// Snapshots that peers have installed, or did not need any more.
    snapshots_sent,
    /// Chunks of snapshots that came from peers, intact.
    snapshot_chunks_received,
    /// Chunks that arrived damaged.
    snapshot_chunks_damaged,
    /// Snapshots of peers that were installed.
    snapshots_installed,
    /// Snapshots of peers that were refused because they are not sound.
    snapshots_refused,
    /// Followers that were too far behind for the log and get a snapshot.
    followers_cut_off,
}

impl CounterCells {
    pub fn count_log_batch(&self, changes: &[LogChange]) {
        add(&self.log_batches, 1);
        for change in changes {
            if let LogChange::Append(record) = change {
                add(&self.log_entries, 1);
                add(&self.log_bytes, record.payload.len() as u64);
            }
        }
    }
}

/// Counters are statistics: no other memory is ordered by them.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
