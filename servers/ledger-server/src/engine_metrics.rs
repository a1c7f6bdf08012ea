//! The engine's counters as metrics.

use ledger_node::Ledger;
use metrics::{describe_counter, describe_gauge};

/// Publishes what the engine counts to the metrics recorder.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    ledger: Ledger,
}

impl EngineMetrics {
    /// For one ledger. Make it after the recorder is installed.
    pub fn new(ledger: Ledger) -> Self {
        describe();
        Self { ledger }
    }

    /// Publishes the present numbers, which the metrics page shows until the next time: some atomic reads.
    pub fn publish(&self) {
        let counters = self.ledger.counters();
        let totals = [
            ("ledger_writes_total", counters.writes),
            ("ledger_writes_replayed_total", counters.writes_replayed),
            ("ledger_writes_refused_total", counters.writes_refused),
            ("ledger_overloads_total", counters.overloads),
            ("ledger_log_syncs_total", counters.log_batches),
            ("ledger_log_entries_total", counters.log_entries),
            ("ledger_log_bytes_total", counters.log_bytes),
            ("ledger_write_entries_total", counters.write_entries),
            ("ledger_barrier_reads_total", counters.barrier_reads),
            ("ledger_barrier_rounds_total", counters.barrier_rounds),
            ("ledger_checkpoints_signed_total", counters.checkpoints_signed),
            ("ledger_state_flushes_total", counters.flushes),
            ("ledger_apply_stalls_total", counters.apply_stalls),
            ("ledger_entities_expired_total", counters.entities_expired),
            ("ledger_blocks_compacted_total", counters.blocks_compacted),
            ("ledger_watches_total", counters.watches),
            ("ledger_blocks_watched_total", counters.blocks_watched),
            ("ledger_snapshots_written_total", counters.snapshots_written),
            ("ledger_snapshots_failed_total", counters.snapshots_failed),
            ("ledger_snapshot_bytes_total", counters.snapshot_bytes),
            ("ledger_snapshot_ms_total", counters.snapshot_ms),
            ("ledger_snapshots_pruned_total", counters.snapshots_pruned),
            ("ledger_vaults_diverged_total", counters.vaults_diverged),
            ("ledger_digests_diverged_total", counters.digests_diverged),
            ("ledger_leader_alone_total", counters.leader_stands_alone),
            ("ledger_peer_recoveries_begun_total", counters.peer_recoveries_begun),
            ("ledger_peer_recoveries_total", counters.peer_recoveries),
            ("ledger_peer_recoveries_failed_total", counters.peer_recoveries_failed),
        ];
        for (name, total) in totals {
            metrics::counter!(name).absolute(total);
        }
        let node = self.ledger.node_info();
        let gauges = [
            ("ledger_raft_term", node.term),
            ("ledger_raft_is_leader", u64::from(node.is_leader)),
            ("ledger_applied_index", node.last_applied),
            ("ledger_durable_applied_index", node.durable_applied),
            ("ledger_overlay_bytes", node.overlay_bytes),
            ("ledger_namespaces", node.namespace_count),
            ("ledger_vaults", node.vault_count),
            ("ledger_vaults_fenced", node.fenced_vault_count),
            ("ledger_divergences_open", divergences_open(&self.ledger)),
            ("ledger_log_time_ms", self.ledger.log_time_ms()),
            ("ledger_snapshot_index", node.snapshot_index.unwrap_or(0)),
            ("ledger_snapshot_created_at_ms", node.snapshot_created_at_ms.unwrap_or(0)),
        ];
        for (name, value) in gauges {
            metrics::gauge!(name).set(value as f64);
        }
    }
}

fn divergences_open(ledger: &Ledger) -> u64 {
    ledger.cluster().divergences().iter().filter(|found| found.is_pending()).count() as u64
}

fn describe() {
    describe_counter!(
        "ledger_vaults_diverged_total",
        "Vaults found to differ from the leader's, and fenced."
    );
    describe_counter!(
        "ledger_digests_diverged_total",
        "Times that idempotency keys or members were found to differ from the leader's."
    );
    describe_counter!(
        "ledger_leader_alone_total",
        "Times that a majority had something else than the leader: hand the lead over."
    );
    describe_counter!("ledger_peer_recoveries_begun_total", "Recoveries from the leader that were begun.");
    describe_counter!("ledger_peer_recoveries_total", "Recoveries from the leader that succeeded.");
    describe_counter!(
        "ledger_peer_recoveries_failed_total",
        "Recoveries from the leader that came to nothing."
    );
    describe_gauge!(
        "ledger_divergences_open",
        "What this node has otherwise than its cluster, not recovered."
    );
    describe_counter!("ledger_writes_total", "Transactions answered with a new receipt.");
    describe_counter!("ledger_writes_replayed_total", "Transactions answered with an earlier receipt.");
    describe_counter!("ledger_writes_refused_total", "Transactions refused by the state.");
    describe_counter!(
        "ledger_overloads_total",
        "Transactions and commands turned away because a queue was full."
    );
    describe_counter!("ledger_log_syncs_total", "Durable commits of the replicated log.");
    describe_counter!("ledger_log_entries_total", "Records appended to the replicated log.");
    describe_counter!("ledger_log_bytes_total", "Payload bytes appended to the replicated log.");
    describe_counter!("ledger_write_entries_total", "Log entries with transactions.");
    describe_counter!("ledger_barrier_reads_total", "Linearizable reads that asked for a read barrier.");
    describe_counter!("ledger_barrier_rounds_total", "Rounds of the read barrier; reads share them.");
    describe_counter!("ledger_checkpoints_signed_total", "Checkpoints signed.");
    describe_counter!("ledger_state_flushes_total", "Durable commits of the state store.");
    describe_counter!("ledger_apply_stalls_total", "Times that applying waited for the state store.");
    describe_counter!("ledger_entities_expired_total", "Entities expired by garbage collection.");
    describe_counter!(
        "ledger_blocks_compacted_total",
        "Blocks whose transactions were dropped in the background."
    );
    describe_counter!("ledger_watches_total", "Watches begun.");
    describe_counter!("ledger_blocks_watched_total", "Blocks returned by watches.");
    describe_counter!("ledger_snapshots_written_total", "Snapshots written.");
    describe_counter!("ledger_snapshots_failed_total", "Snapshots that could not be written.");
    describe_counter!("ledger_snapshot_bytes_total", "Bytes of the snapshots written.");
    describe_counter!("ledger_snapshot_ms_total", "Milliseconds spent writing snapshots.");
    describe_counter!("ledger_snapshots_pruned_total", "Older snapshots removed.");
    describe_gauge!("ledger_snapshot_index", "Last log entry in the newest snapshot; 0 without one.");
    describe_gauge!(
        "ledger_snapshot_created_at_ms",
        "Unix milliseconds at which the newest snapshot was begun; 0 without one."
    );
    describe_gauge!("ledger_raft_term", "Raft term.");
    describe_gauge!("ledger_raft_is_leader", "1 on the leader.");
    describe_gauge!("ledger_applied_index", "Index of the newest applied log entry.");
    describe_gauge!("ledger_durable_applied_index", "Index up to which the state store is durable.");
    describe_gauge!("ledger_overlay_bytes", "Applied but unwritten bytes.");
    describe_gauge!("ledger_namespaces", "Namespaces.");
    describe_gauge!("ledger_vaults", "Vaults.");
    describe_gauge!("ledger_vaults_fenced", "Vaults whose stored rows do not fit their blocks: not served.");
    describe_gauge!("ledger_read_only", "1 while the disk is nearly full and writes are refused.");
    describe_gauge!("ledger_log_time_ms", "The ledger's time, unix milliseconds.");
}
