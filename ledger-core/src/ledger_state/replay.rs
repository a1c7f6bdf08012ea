//! Replaying the blocks of one vault: what its rows, trees and tiles must be.
//!
//! Headers are held to each other, transactions to their header, and the state that the transactions leave
//! to the header's state root: what comes out is what the signed checkpoints cover, or the first thing that
//! is not.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{
    self, ActionRef, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED, TransactionView,
};
use ledger_verify::{Hash, hash, log};

use super::integrity::{IntegrityIssue, IssueKind};
use super::{StateError, Vault, inconsistent};
use crate::command::OperationResult;
use crate::log_tree::{LogTree, Tile};
use crate::names::VaultNumber;
use crate::overlay::Overlay;
use crate::ports::{StoreError, Table};
use crate::rows::{self, ClientRow};
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
    pub log: LogTree,
    /// By key hash, every key that exists.
    pub live: HashMap<Hash, WrittenBy>,
    pub clients: BTreeMap<Actor, ClientRow>,
    /// Stored tiles that are not what the headers make of them, with what they should be.
    pub wrong_tiles: Vec<Tile>,
}

/// A transaction with the hashes of what it leaves.
struct Effects {
    changes: Vec<(Hash, Option<Hash>)>,
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
            log: LogTree::new(),
            live: HashMap::new(),
            clients: BTreeMap::new(),
            wrong_tiles: Vec::new(),
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

    /// Replays the next block; adds what does not fit.
    pub fn block(&mut self, overlay: &Overlay, issues: &mut Vec<IntegrityIssue>) -> Result<(), StateError> {
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
        }
        if header.tx_count > 0 {
            self.transactions(overlay, &header, issues)?;
        }
        if self.state_is_known && self.tree.root() != header.state_root {
            let what = "its transactions do not lead to the state root of its header".to_owned();
            issues.push(issue(IssueKind::StateDivergence, what));
            self.state_is_known = false;
        }
        self.extend_log(overlay, &header, issues)?;
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
        let mut effects = Effects { changes: Vec::new() };
        for (position, bytes) in (0_u32..).zip(&transactions) {
            let Ok(view) = transaction::decode(bytes) else {
                lost(IssueKind::ArchiveError, "a transaction does not decode");
                self.state_is_known = false;
                return Ok(());
            };
            self.operations(&view, height, position, &mut effects);
            self.remember_client(&view, header, position);
        }
        self.apply(effects, header);
        Ok(())
    }

    /// Brings the tree to the state after a block. Leaves that are derived from several rows are updated
    /// here, as the block's sealing does.
    fn apply(&mut self, effects: Effects, _header: &BlockHeader) {
        self.tree.update(effects.changes);
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
            match effect.result {
                RESULT_CREATED | RESULT_UPDATED => {
                    self.live.insert(key_hash, WrittenBy { height, transaction, operation });
                    effects.changes.push((key_hash, Some(hash::sha256(&[&leaf.encode()]))));
                }
                RESULT_DELETED => {
                    self.live.remove(&key_hash);
                    effects.changes.push((key_hash, None));
                }
                _ => {}
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

    fn extend_log(
        &mut self,
        overlay: &Overlay,
        header: &BlockHeader,
        issues: &mut Vec<IntegrityIssue>,
    ) -> Result<(), StateError> {
        if self.log.size() != header.height {
            return Ok(());
        }
        for tile in self.log.append(header.leaf_hash()) {
            let key = rows::tile_key(self.number, tile.level, tile.number);
            let what = match overlay.get(Table::Tiles, &key) {
                Ok(Some(row)) if rows::decode_tile(&row).as_ref() == Some(&tile.hashes) => continue,
                Ok(Some(_)) => "is not what the headers make of it",
                Ok(None) => "is missing",
                Err(StoreError::Corrupt { .. }) => "does not have its checksum",
                Err(error) => return Err(error.into()),
            };
            let what = format!("tile {} of level {} of the log {what}", tile.number, tile.level);
            issues.push(IntegrityIssue { kind: IssueKind::ArchiveError, height: header.height, what });
            self.wrong_tiles.push(tile);
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
pub(super) fn written<'a>(
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

fn result_of(byte: u8) -> Option<OperationResult> {
    use OperationResult::{AlreadyExists, Created, Deleted, Held, NotFound, Updated};
    [Created, AlreadyExists, Updated, Deleted, NotFound, Held]
        .into_iter()
        .find(|result| *result as u8 == byte)
}
