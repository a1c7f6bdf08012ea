//! Replaying the blocks of one vault: what its rows, trees and tiles must be.
//!
//! Headers are held to each other, transactions to their header, and the state that the transactions leave
//! to the header's state root: what comes out is what the signed checkpoints cover, or the first thing that
//! is not.

use std::collections::{BTreeMap, HashMap, hash_map};

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{
    self, ActionRef, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED, TransactionView,
};
use ledger_verify::{Hash, hash, log};

use super::integrity::{IntegrityIssue, IssueKind};
use super::lists::list_leaves;
use super::undo::{self, Before, Change};
use super::{StateError, Vault, inconsistent};
use crate::command::OperationResult;
use crate::list_sets::{ListChange, ListSets};
use crate::log_tree::LogTree;
use crate::names::VaultNumber;
use crate::overlay::Overlay;
use crate::ports::{StoreError, Table};
use crate::rows::{self, ClientRow, HorizonRow};
use crate::state_tree::StateTree;
use crate::transaction::{Actor, IdempotencyKey};

/// The operation that wrote a key last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WrittenBy {
    pub height: u64,
    pub transaction: u32,
    pub operation: u32,
}

/// The blocks of one vault, replayed from the first.
pub(super) struct Replay {
    number: VaultNumber,
    vault_id: [u8; 16],
    /// The height that comes next, and the newest one.
    next: u64,
    tip_height: u64,
    /// `None` after a block that could not be read: nothing can be said about the block behind it.
    previous: Option<BlockHeader>,
    /// Whether `tree` is what the blocks so far make of it.
    state_is_known: bool,
    pub tree: StateTree,
    pub lists: ListSets,
    pub log: LogTree,
    /// By key hash, every key that exists.
    pub live: HashMap<Hash, WrittenBy>,
    pub clients: BTreeMap<Actor, ClientRow>,
    /// Stored rows that are not what the blocks make of them.
    pub repairs: Vec<Repair>,
}

/// A row that follows from the blocks and is not stored as it should be.
pub(super) struct Repair {
    pub table: Table,
    pub key: Vec<u8>,
    /// What it should be.
    pub row: Bytes,
    pub issue: IntegrityIssue,
}

/// What a block does to the state.
#[derive(Default)]
struct Effects {
    changes: HashMap<Hash, Change>,
    list_changes: Vec<ListChange>,
}

impl Replay {
    pub fn new(vault: &Vault) -> Self {
        Self {
            number: vault.number,
            vault_id: vault.header.vault_id,
            next: 0,
            tip_height: vault.header.height,
            previous: None,
            state_is_known: true,
            tree: StateTree::new(),
            lists: ListSets::new(),
            log: LogTree::new(),
            live: HashMap::new(),
            clients: BTreeMap::new(),
            repairs: Vec::new(),
        }
    }

    /// Blocks that were replayed.
    pub fn blocks(&self) -> u64 {
        self.next
    }

    /// Whether every block up to the newest one at the start was replayed.
    pub fn is_done(&self) -> bool {
        self.next > self.tip_height
    }

    /// The newest header that was replayed; `None` when it could not be read.
    pub fn newest(&self) -> Option<&BlockHeader> {
        self.previous.as_ref()
    }

    /// Whether the state after the newest replayed block is known.
    pub fn state_is_known(&self) -> bool {
        self.state_is_known
    }

    /// Replays the next block; adds what does not fit. What the vault does not keep any more does not count: behind it
    /// the state is not known.
    pub fn block(
        &mut self,
        overlay: &Overlay,
        horizon: &HorizonRow,
        issues: &mut Vec<IntegrityIssue>,
    ) -> Result<(), StateError> {
        let height = self.next;
        self.next += 1;
        let issue = |kind, what: String| IntegrityIssue { kind, height, what };
        let header = match readable(overlay, &rows::header_key(self.number, height))? {
            Readable::Row(row) => BlockHeader::decode(&row).map_err(|error| error.to_string()),
            Readable::Corrupt => Err("the checksum of its row does not match".to_owned()),
            Readable::Missing => {
                issues.push(issue(IssueKind::MissingBlock, "its header is missing".to_owned()));
                self.lose();
                return Ok(());
            }
        };
        let header = match header {
            Ok(header) => header,
            Err(what) => {
                issues.push(issue(IssueKind::ReadError, format!("its header cannot be read: {what}")));
                self.lose();
                return Ok(());
            }
        };
        if !self.continues(&header, height) {
            let what = "it does not continue the block before it".to_owned();
            issues.push(issue(IssueKind::ChainBreak, what));
            // Another block's transactions are not what happened here.
            self.state_is_known &= header.height == height;
        }
        if header.tx_count > 0 && height < horizon.first_body {
            self.state_is_known = false;
        } else if header.tx_count > 0 {
            self.transactions(overlay, horizon, &header, issues)?;
        }
        if self.state_is_known && self.tree.root() != header.state_root {
            let what = "its transactions do not lead to the state root of its header".to_owned();
            issues.push(issue(IssueKind::StateDivergence, what));
            self.state_is_known = false;
        }
        self.extend_log(overlay, &header)?;
        self.previous = Some(header);
        Ok(())
    }

    /// After a block that cannot be read, what follows has no known beginning.
    fn lose(&mut self) {
        self.previous = None;
        self.state_is_known = false;
    }

    fn continues(&self, header: &BlockHeader, height: u64) -> bool {
        let is_placed = header.height == height && header.vault_id == self.vault_id;
        let follows = match &self.previous {
            Some(previous) => {
                header.previous == previous.leaf_hash() && header.first_sequence == previous.last_sequence + 1
            }
            None => height > 0 || header.previous == [0; 32],
        };
        is_placed && follows
    }

    fn transactions(
        &mut self,
        overlay: &Overlay,
        horizon: &HorizonRow,
        header: &BlockHeader,
        issues: &mut Vec<IntegrityIssue>,
    ) -> Result<(), StateError> {
        let height = header.height;
        let mut lost = |kind, what: &str| issues.push(IntegrityIssue { kind, height, what: what.to_owned() });
        let body = match readable(overlay, &rows::body_key(self.number, height))? {
            Readable::Row(row) => rows::decode_body(&row),
            Readable::Missing => {
                lost(IssueKind::MissingEntry, "its transactions are missing");
                self.state_is_known = false;
                return Ok(());
            }
            Readable::Corrupt => None,
        };
        let Some(transactions) = body else {
            lost(IssueKind::ReadError, "its transactions cannot be read");
            self.state_is_known = false;
            return Ok(());
        };
        let leaves: Vec<Hash> = transactions.iter().map(|transaction| hash::log_leaf(transaction)).collect();
        if leaves.len() != header.tx_count as usize || log::root_of(&leaves) != header.tx_root {
            lost(IssueKind::ArchiveError, "its transactions are not those that its header commits to");
            self.state_is_known = false;
            return Ok(());
        }
        let mut effects = Effects::default();
        for (position, bytes) in (0_u32..).zip(&transactions) {
            let Ok(view) = transaction::decode(bytes) else {
                lost(IssueKind::ArchiveError, "a transaction does not decode");
                self.state_is_known = false;
                return Ok(());
            };
            self.operations(&view, height, position, &mut effects);
            self.remember_client(&view, header, position);
        }
        self.apply(overlay, horizon, effects, header)
    }

    /// Brings the tree to the state after a block, as the block's sealing does, and compares the rows of its past.
    fn apply(
        &mut self,
        overlay: &Overlay,
        horizon: &HorizonRow,
        effects: Effects,
        header: &BlockHeader,
    ) -> Result<(), StateError> {
        let Effects { mut changes, list_changes } = effects;
        let height = header.height;
        let has_past = height >= horizon.first_undo;
        for (key_hash, _) in changes.iter().filter(|(_, change)| has_past && change.after.is_none()) {
            let key = rows::tombstone_key(self.number, key_hash, height);
            let name = || "the row of a deletion".to_owned();
            self.hold(overlay, height, (Table::Tombstones, key), Bytes::new(), &name)?;
        }
        for (key_hash, after) in list_leaves(&mut self.lists, list_changes, self.previous.as_ref(), header) {
            let before = self.tree.get(&key_hash).map(|value_hash| Before { value_hash, modified_height: 0 });
            changes.insert(key_hash, Change { before, after });
        }
        let changes = undo::in_key_order(changes);
        // Only a known state says what stood there before.
        if has_past && self.state_is_known {
            let key = rows::undo_key(self.number, height);
            self.hold(overlay, height, (Table::Undo, key), undo::encode(&changes), &|| {
                "its undo row".to_owned()
            })?;
        }
        self.tree.update(changes.iter().map(|(key_hash, change)| (*key_hash, change.after)).collect());
        Ok(())
    }

    /// Compares a stored row with what the blocks make of it.
    fn hold(
        &mut self,
        overlay: &Overlay,
        height: u64,
        (table, key): (Table, Vec<u8>),
        row: Bytes,
        name: &dyn Fn() -> String,
    ) -> Result<(), StateError> {
        let what = match overlay.get(table, &key) {
            Ok(Some(stored)) if stored == row => return Ok(()),
            Ok(Some(_)) => "is not what the blocks make of it",
            Ok(None) => "is missing",
            Err(StoreError::Corrupt { .. }) => "does not have its checksum",
            Err(error) => return Err(error.into()),
        };
        let what = format!("{} {what}", name());
        let issue = IntegrityIssue { kind: IssueKind::ArchiveError, height, what };
        self.repairs.push(Repair { table, key, row, issue });
        Ok(())
    }

    fn operations(
        &mut self,
        view: &TransactionView<'_>,
        height: u64,
        transaction: u32,
        effects: &mut Effects,
    ) {
        for (operation, effect) in (0_u32..).zip(&view.operations) {
            let Some((key, leaf)) = written(&effect.action, height, view.header.sequence) else { continue };
            let key_hash = key.hash();
            let (after, written_before) = match effect.result {
                RESULT_CREATED | RESULT_UPDATED => {
                    let by = WrittenBy { height, transaction, operation };
                    (Some(hash::sha256(&[&leaf.encode()])), self.live.insert(key_hash, by))
                }
                RESULT_DELETED => (None, self.live.remove(&key_hash)),
                _ => continue,
            };
            match effects.changes.entry(key_hash) {
                hash_map::Entry::Occupied(mut changed) => changed.get_mut().after = after,
                hash_map::Entry::Vacant(unchanged) => {
                    let before = self.tree.get(&key_hash).zip(written_before);
                    let before =
                        before.map(|(value_hash, by)| Before { value_hash, modified_height: by.height });
                    unchanged.insert(Change { before, after });
                }
            }
            if let StateKey::Relationship(tuple) = key {
                let changed = if after.is_some() { ListChange::created } else { ListChange::deleted };
                effects.list_changes.push(changed(&tuple));
            }
        }
    }

    fn remember_client(&mut self, view: &TransactionView<'_>, header: &BlockHeader, position: u32) {
        let (Ok(actor), Ok(idempotency_key)) =
            (Actor::new(view.header.actor), IdempotencyKey::new(view.header.idempotency_key))
        else {
            return;
        };
        let results = view.operations.iter().filter_map(|operation| result_of(operation.result)).collect();
        let row = ClientRow {
            idempotency_key,
            height: header.height,
            version: view.header.sequence,
            index_in_block: position,
            block_hash: header.leaf_hash(),
            time_ms: header.time_ms,
            results,
        };
        self.clients.insert(actor, row);
    }

    fn extend_log(&mut self, overlay: &Overlay, header: &BlockHeader) -> Result<(), StateError> {
        if self.log.size() != header.height {
            return Ok(());
        }
        for tile in self.log.append(header.leaf_hash()) {
            let key = rows::tile_key(self.number, tile.level, tile.number);
            let name = || format!("tile {} of level {} of the log", tile.number, tile.level);
            self.hold(overlay, header.height, (Table::Tiles, key), tile.hashes.concat().into(), &name)?;
        }
        Ok(())
    }
}

enum Readable {
    Row(Bytes),
    Missing,
    Corrupt,
}

fn readable(overlay: &Overlay, key: &[u8]) -> Result<Readable, StateError> {
    match overlay.get(Table::Blocks, key) {
        Ok(Some(row)) => Ok(Readable::Row(row)),
        Ok(None) => Ok(Readable::Missing),
        Err(StoreError::Corrupt { .. }) => Ok(Readable::Corrupt),
        Err(error) => Err(error.into()),
    }
}

/// Key and leaf of an operation that can write; the leaf counts where the operation created or updated.
pub(crate) fn written<'a>(
    action: &ActionRef<'a>,
    modified_height: u64,
    version: u64,
) -> Option<(StateKey<'a>, LeafValue<'a>)> {
    let (key, kind, expires_at_ms, value): (_, _, _, &[u8]) = match *action {
        ActionRef::SetEntity { key, value, expires_at_ms } => {
            (StateKey::Entity { key }, LeafKind::Entity, expires_at_ms, value)
        }
        ActionRef::DeleteEntity { key } | ActionRef::ExpireEntity { key } => {
            (StateKey::Entity { key }, LeafKind::Entity, 0, &[])
        }
        ActionRef::CreateRelationship(tuple) | ActionRef::DeleteRelationship(tuple) => {
            (StateKey::Relationship(tuple), LeafKind::Relationship, 0, &[])
        }
        ActionRef::AssertEntity { .. } | ActionRef::AssertRelationship(_) => return None,
    };
    Some((key, LeafValue { kind, modified_height, version, expires_at_ms, value }))
}

/// Calls `visit` with key and leaf of each of `written`, which are sorted; each body is read once.
pub(super) fn each_written(
    overlay: &Overlay,
    number: VaultNumber,
    written_by: &[WrittenBy],
    visit: &mut dyn FnMut(StateKey<'_>, LeafValue<'_>),
) -> Result<(), StateError> {
    let gone = |height| inconsistent(format!("the transactions of block {height} cannot be read any more"));
    for of_block in written_by.chunk_by(|a, b| a.height == b.height) {
        let Some(height) = of_block.first().map(|first| first.height) else { continue };
        let body = overlay.get(Table::Blocks, &rows::body_key(number, height))?;
        let transactions = body.as_ref().and_then(rows::decode_body).ok_or_else(|| gone(height))?;
        for by in of_block {
            let bytes = transactions.get(by.transaction as usize).ok_or_else(|| gone(height))?;
            let view = transaction::decode(bytes).map_err(|_| gone(height))?;
            let operation = view.operations.get(by.operation as usize).ok_or_else(|| gone(height))?;
            let (key, leaf) =
                written(&operation.action, height, view.header.sequence).ok_or_else(|| gone(height))?;
            visit(key, leaf);
        }
    }
    Ok(())
}

/// Whether a row of `Table::Tombstones` says what the undo row of its block says.
pub(super) fn is_deletion(overlay: &Overlay, number: VaultNumber, row_key: &[u8]) -> bool {
    let Some((key_hash, height)) = rows::tombstone_of(row_key) else { return false };
    let row = overlay.get(Table::Undo, &rows::undo_key(number, height));
    // One that cannot be read is named with its block.
    let Ok(Some(row)) = row else { return row.is_err() };
    undo::decode(&row).flatten().any(|entry| entry.is_deleted && entry.key_hash == key_hash)
}

fn result_of(byte: u8) -> Option<OperationResult> {
    use OperationResult::{AlreadyExists, Created, Deleted, Held, NotFound, Updated};
    [Created, AlreadyExists, Updated, Deleted, NotFound, Held]
        .into_iter()
        .find(|result| *result as u8 == byte)
}
