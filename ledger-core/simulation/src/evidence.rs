//! What is seen of the nodes from outside, compared with everything that was seen before.
//!
//! Nothing here trusts a node: blocks are hashed again, checkpoints are compared with the log over them, and the order
//! of versions with real time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ledger_core::names::VaultRef;
use ledger_core::ports::{LogRecord, LogStore};
use ledger_core::transaction::IdempotencyKey;
use ledger_node::Ledger;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::log::root_of;
use ledger_verify::transaction;

use crate::history::{Ending, Moment};
use crate::linearizability::{STEPS_MAX, Verdict, check};
use crate::network::Endpoint;
use crate::violation::Violation;
use crate::workload::{CheckpointRecord, Records};

/// A block as it was first seen.
#[derive(Debug, Clone)]
struct SeenBlock {
    by: Endpoint,
    leaf: Hash,
    transactions: Vec<SeenTransaction>,
}

#[derive(Debug, Clone, Copy)]
struct SeenTransaction {
    idempotency_key: IdempotencyKey,
    version: u64,
}

/// Everything that was seen of the nodes of one run.
#[derive(Debug, Default)]
pub struct Evidence {
    leaders: BTreeMap<u64, Endpoint>,
    blocks: Vec<SeenBlock>,
    /// How far the chain of each node's present process was looked at.
    looked_at: BTreeMap<Endpoint, u64>,
    checkpoints: BTreeMap<u64, Hash>,
    violations: Vec<Violation>,
}

impl Evidence {
    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Adds what was found elsewhere.
    pub fn report(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// Terms that had a leader.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Times that the lead went from one node to another.
    pub fn leader_changes(&self) -> u64 {
        let leaders: Vec<_> = self.leaders.values().collect();
        leaders.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
    }

    /// Blocks of the longest chain that was seen.
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// A node claims to lead.
    pub fn saw_leader(&mut self, node: Endpoint, term: u64) {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            self.violations.push(Violation::TwoLeaders { term, first, second: node });
        }
    }

    /// The process on a node ended: the next one is looked at from its first block.
    pub fn forget_process(&mut self, node: Endpoint) {
        self.looked_at.remove(&node);
    }

    /// Looks at all blocks of a node that were not looked at before.
    pub fn look_at_chain(&mut self, node: Endpoint, ledger: &Ledger, vault: &VaultRef) {
        let from = self.looked_at.get(&node).copied().unwrap_or(0);
        for height in from.. {
            // A node that does not know the vault yet, or is half down, shows nothing.
            let Ok(Some(block)) = ledger.block(vault, height) else { break };
            if !self.show_block(node, height, &block.header, &block.transactions) {
                break;
            }
        }
    }

    /// A node shows a block, the one after the last that it showed; answers whether it can be read.
    pub fn show_block(
        &mut self,
        node: Endpoint,
        height: u64,
        header: &BlockHeader,
        transactions: &[Bytes],
    ) -> bool {
        self.looked_at.insert(node, height + 1);
        let transactions: Option<Vec<_>> = transactions.iter().map(|bytes| seen_transaction(bytes)).collect();
        let Some(transactions) = transactions.filter(|_| header.height == height) else {
            let what = format!("{node} shows a block {height} that is malformed");
            self.violations.push(Violation::BadAnswer { what });
            return false;
        };
        self.saw_block(node, height, SeenBlock { by: node, leaf: header.leaf_hash(), transactions });
        true
    }

    fn saw_block(&mut self, node: Endpoint, height: u64, block: SeenBlock) {
        match usize::try_from(height).ok().and_then(|height| self.blocks.get(height)) {
            Some(known) if known.leaf == block.leaf => {}
            Some(known) => {
                self.violations.push(Violation::Fork { height, first: known.by, second: node });
            }
            // Blocks are looked at in order, so this is the next one.
            None => self.blocks.push(block),
        }
    }

    /// A client has a checkpoint.
    pub fn saw_checkpoint(&mut self, checkpoint: CheckpointRecord) {
        let CheckpointRecord { size, root } = checkpoint;
        if *self.checkpoints.entry(size).or_insert(root) != root {
            self.violations.push(Violation::CheckpointConflict { size, with: "another one of that size" });
        }
    }

    /// Compares everything that clients were told with the chain.
    pub fn judge(&mut self, records: &Records) {
        self.violations.extend(records.violations.iter().cloned());
        records.checkpoints.iter().for_each(|checkpoint| self.saw_checkpoint(*checkpoint));
        self.judge_checkpoints();
        self.judge_transactions(records);
        self.judge_receipts(records);
        self.judge_order(records);
        match check(&records.history, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Violated(violation) => {
                self.violations.push(Violation::NotLinearizable(violation.to_string()));
            }
            Verdict::Inconclusive { key, steps } => self.violations.push(Violation::Undecided { key, steps }),
        }
    }

    fn judge_checkpoints(&mut self) {
        let leaves: Vec<Hash> = self.blocks.iter().map(|block| block.leaf).collect();
        for (size, root) in &self.checkpoints {
            let covered = usize::try_from(*size).ok().and_then(|size| leaves.get(..size));
            if covered.map(root_of) != Some(*root) {
                self.violations.push(Violation::CheckpointConflict { size: *size, with: "the log" });
            }
        }
    }

    /// Every transaction is there once, and somebody asked for it who was not told that it did not happen.
    fn judge_transactions(&mut self, records: &Records) {
        let mut versions: BTreeMap<IdempotencyKey, u64> = BTreeMap::new();
        for seen in self.blocks.iter().flat_map(|block| &block.transactions) {
            let SeenTransaction { idempotency_key, version } = *seen;
            if let Some(first) = versions.insert(idempotency_key, version) {
                self.violations.push(Violation::AppliedTwice { idempotency_key, first, second: version });
            }
            let call =
                records.writes.get(&idempotency_key).and_then(|write| records.history.call(write.call));
            if call.is_none() {
                self.violations.push(Violation::Phantom { idempotency_key, version });
            }
        }
    }

    fn judge_receipts(&mut self, records: &Records) {
        for (idempotency_key, write) in &records.writes {
            let Some(receipt) = &write.receipt else { continue };
            let block = usize::try_from(receipt.height).ok().and_then(|height| self.blocks.get(height));
            let what = match block {
                None => format!("the chain has {} blocks", self.blocks.len()),
                Some(block) if block.leaf != receipt.block_hash => "the block is another one".to_owned(),
                Some(block) => match block.transactions.get(receipt.index_in_block as usize) {
                    Some(seen)
                        if seen.idempotency_key == *idempotency_key && seen.version == receipt.version =>
                    {
                        continue;
                    }
                    Some(seen) => {
                        format!("its place has {} with version {}", seen.idempotency_key, seen.version)
                    }
                    None => format!("the block has {} transactions", block.transactions.len()),
                },
            };
            let (idempotency_key, receipt) = (*idempotency_key, Box::new(receipt.clone()));
            self.violations.push(Violation::LostWrite { idempotency_key, receipt, what });
        }
    }

    /// Versions agree with real time over all keys: strict serializability of the writes.
    fn judge_order(&mut self, records: &Records) {
        let mut by_version: Vec<(u64, Moment, Moment)> = Vec::new();
        for write in records.writes.values() {
            let call = records.history.call(write.call);
            if let (Some(receipt), Some(call)) = (&write.receipt, call)
                && let Ending::Answered { at, .. } = call.ending
            {
                by_version.push((receipt.version, call.began, at));
            }
        }
        by_version.sort_unstable();
        let mut latest_began: Option<(u64, Moment)> = None;
        for (version, began, at) in by_version {
            if let Some((earlier, earlier_began)) = latest_began
                && at < earlier_began
            {
                self.violations.push(Violation::OutOfOrder { earlier, later: version });
            }
            if latest_began.is_none_or(|(_, latest)| latest < began) {
                latest_began = Some((version, began));
            }
        }
    }

    /// Compares the logs of nodes as far as each knows its own to be committed. A log that ends before that was left behind
    /// by a snapshot: what the disk still has of it was perhaps never committed, and goes with the next purge, which a
    /// start makes good.
    pub fn compare_logs(&mut self, logs: &[(Endpoint, std::sync::Arc<dyn LogStore>)]) {
        let mut known: BTreeMap<u64, (Endpoint, LogRecord)> = BTreeMap::new();
        for (node, log) in logs {
            let Ok(snapshot) = log.snapshot() else { continue };
            let Some(committed) = snapshot.committed else { continue };
            if snapshot.last.is_none_or(|last| last.index < committed.index) {
                continue;
            }
            let Ok(records) = log.read(0, committed.index + 1, usize::MAX) else { continue };
            for record in records {
                let index = record.id.index;
                match known.get(&index) {
                    None => drop(known.insert(index, (*node, record))),
                    Some((_, same)) if *same == record => {}
                    Some((first, other)) => {
                        let (first, second) = (*first, *node);
                        let what = format!("{other:?}, and {record:?} where {committed:?} is committed");
                        self.violations.push(Violation::LogMismatch { index, first, second, what });
                        break;
                    }
                }
            }
        }
    }

    /// Every node that was looked at since its boot, and how far.
    pub fn heights(&self) -> BTreeSet<(Endpoint, u64)> {
        self.looked_at.iter().map(|(node, height)| (*node, *height)).collect()
    }
}

fn seen_transaction(bytes: &[u8]) -> Option<SeenTransaction> {
    let view = transaction::decode(bytes).ok()?;
    let idempotency_key = IdempotencyKey::new(view.header.idempotency_key).ok()?;
    Some(SeenTransaction { idempotency_key, version: view.header.sequence })
}

#[cfg(test)]
mod claims;
