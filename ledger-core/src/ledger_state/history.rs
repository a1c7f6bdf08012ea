//! The past of a vault: headers, the versions of a key, and what a key held at a height.
//!
//! Each version leads to the one before it: a leaf says which block wrote it, that block's undo row says
//! which block had written what it replaced, and a tombstone says which block deleted a key that was not
//! there. So going back costs one step per version of the key, however many blocks lie between.

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{
    self, ActionRef, OperationRef, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED,
};

use super::read::ReadError;
use super::undo::{self, UndoEntry};
use super::{LedgerState, Vault, inconsistent};
use crate::names::VaultId;
use crate::ports::{ScanRange, Table};
use crate::rows;

/// Steps (versions of the key) of one call: bounds how long the state stays locked.
const STEPS_MAX: u32 = 256;
/// Blocks whose transactions one call looks through.
const BLOCKS_MAX: u32 = 32;

/// What a transaction did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyChange {
    /// It wrote the entity.
    Set {
        /// The value.
        value: Bytes,
        /// Unix time in milliseconds after which it is hidden; 0 = never.
        expires_at_ms: u64,
    },
    /// It created the relationship.
    Related,
    /// It deleted the entity or the relationship.
    Deleted,
    /// It removed the entity because its time was over.
    Expired,
}

/// One transaction that changed a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersion {
    /// Height of its block.
    pub height: u64,
    /// Its sequence number: the version that the key had from then on.
    pub version: u64,
    /// Its index in the block.
    pub index_in_block: u32,
    /// When it was proposed, unix milliseconds.
    pub time_ms: u64,
    /// Who wrote it.
    pub actor: String,
    /// What it left behind.
    pub change: KeyChange,
}

/// Where the history of a key goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCursor {
    /// A block that changed the key.
    pub height: u64,
    /// Only versions below this.
    pub below: u64,
}

/// Some versions of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub versions: Vec<KeyVersion>,
    /// Where to go on; `None` at the end.
    pub next: Option<HistoryCursor>,
    /// Set at the end when there may have been older versions that are not kept: the lowest height that is.
    pub cut_at: Option<u64>,
}

/// How much of a history to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Versions at most.
    pub versions: usize,
    /// Stop after the version that reaches this many bytes.
    pub bytes: usize,
}

/// Which block had changed a key last, seen from a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastChange {
    /// This one; `None` = no block did.
    Found(Option<u64>),
    /// Not found yet: go on from this height, which changed the key later.
    GoOn(u64),
}

impl LedgerState {
    /// A header by height; `None` when the vault is not that high yet. Headers are kept for ever.
    pub fn header(&self, id: VaultId, height: u64) -> Result<Option<BlockHeader>, ReadError> {
        let vault = self.existing(id)?;
        if height > vault.header.height {
            return Ok(None);
        }
        self.stored_header(vault, height).map(Some)
    }

    /// Lowest height at which values and transactions can be read.
    pub fn first_height(&self, id: VaultId) -> Result<u64, ReadError> {
        Ok(self.existing(id)?.horizon.first_height())
    }

    /// The block that had changed `key` last at `height`. A key with many later versions takes several
    /// calls: hand back what [`LastChange::GoOn`] says as `from`, first `None`.
    pub fn last_change(
        &self,
        id: VaultId,
        key: &StateKey<'_>,
        height: u64,
        from: Option<u64>,
    ) -> Result<LastChange, ReadError> {
        let vault = self.existing(id)?;
        vault.check_readable(height)?;
        let key_hash = key.hash();
        let mut changed = match from {
            Some(from) => Some(from),
            None => self.newest_change(vault, key, &key_hash)?,
        };
        for _ in 0..STEPS_MAX {
            match changed {
                Some(at) if at > height => changed = self.change_before(vault, &key_hash, at)?,
                found => return Ok(LastChange::Found(found)),
            }
        }
        Ok(changed.map_or(LastChange::Found(None), LastChange::GoOn))
    }

    /// The encoded leaf that block `changed`, a change of the key, left behind; `None` when it deleted it.
    pub fn leaf_written_by(
        &self,
        id: VaultId,
        key: &StateKey<'_>,
        changed: u64,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let vault = self.existing(id)?;
        if let Some((row, modified_height)) = self.current_leaf(vault, key)?
            && modified_height == changed
        {
            return Ok(Some(row.to_vec()));
        }
        let versions = self.versions_in(vault, key, changed)?;
        let newest =
            versions.last().ok_or_else(|| vault.broken(changed, "does not change a key that it should"))?;
        let (kind, expires_at_ms, value): (_, _, &[u8]) = match &newest.change {
            KeyChange::Set { value, expires_at_ms } => (LeafKind::Entity, *expires_at_ms, value),
            KeyChange::Related => (LeafKind::Relationship, 0, &[]),
            KeyChange::Deleted | KeyChange::Expired => return Ok(None),
        };
        let version = newest.version;
        Ok(Some(LeafValue { kind, modified_height: changed, version, expires_at_ms, value }.encode()))
    }

    /// Versions of a key, newest first, from the newest or from where the call before ended. A call may
    /// return fewer than asked for, even none, and still have a `next`.
    pub fn key_history(
        &self,
        id: VaultId,
        key: &StateKey<'_>,
        from: Option<HistoryCursor>,
        limit: HistoryLimit,
    ) -> Result<HistoryPage, ReadError> {
        let vault = self.existing(id)?;
        let key_hash = key.hash();
        let mut next = match from {
            Some(cursor) => Some(cursor),
            None => self.newest_change(vault, key, &key_hash)?.map(HistoryCursor::all_of),
        };
        let mut page = HistoryPage::default();
        let mut bytes = 0;
        for _ in 0..BLOCKS_MAX {
            let Some(cursor) = next.filter(|cursor| cursor.height >= vault.horizon.first_body) else {
                return Ok(page.ended(vault));
            };
            let found = self.versions_in(vault, key, cursor.height)?;
            for version in found.into_iter().rev().filter(|found| found.version < cursor.below) {
                if page.versions.len() >= limit.versions || bytes >= limit.bytes {
                    let below = page.versions.last().map_or(cursor.below, |last| last.version);
                    page.next = Some(HistoryCursor { height: cursor.height, below });
                    return Ok(page);
                }
                bytes += version.content_bytes();
                page.versions.push(version);
            }
            if cursor.height < vault.horizon.first_undo {
                return Ok(page.ended(vault));
            }
            next = self.change_before(vault, &key_hash, cursor.height)?.map(HistoryCursor::all_of);
        }
        page.next = next;
        Ok(page)
    }

    pub(super) fn stored_header(&self, vault: &Vault, height: u64) -> Result<BlockHeader, ReadError> {
        let header = self.overlay.get(Table::Blocks, &rows::header_key(vault.number, height))?;
        let header = header.and_then(|row| BlockHeader::decode(&row).ok());
        Ok(header.ok_or_else(|| vault.broken(height, "has no readable header"))?)
    }

    pub(super) fn body(&self, vault: &Vault, height: u64) -> Result<Vec<Bytes>, ReadError> {
        if height < vault.horizon.first_body {
            return Err(vault.compacted(height));
        }
        let body = self.overlay.get(Table::Blocks, &rows::body_key(vault.number, height))?;
        let body = body.as_ref().and_then(rows::decode_body);
        Ok(body.ok_or_else(|| vault.broken(height, "has no readable body"))?)
    }

    /// The undo entries of a block.
    pub(super) fn undo_entries(&self, vault: &Vault, height: u64) -> Result<Vec<UndoEntry>, ReadError> {
        if height < vault.horizon.first_undo {
            return Err(vault.compacted(height.saturating_sub(1)));
        }
        let row = self.overlay.get(Table::Undo, &rows::undo_key(vault.number, height))?;
        let entries = row.as_deref().and_then(|row| undo::decode(row).collect::<Option<Vec<_>>>());
        Ok(entries.ok_or_else(|| vault.broken(height, "has no readable undo row"))?)
    }

    /// The row of a key that exists, and the block that wrote it.
    fn current_leaf(&self, vault: &Vault, key: &StateKey<'_>) -> Result<Option<(Bytes, u64)>, ReadError> {
        let (table, row_key) = match key {
            StateKey::Entity { key } => (Table::Entities, rows::entity_key(vault.number, key)),
            StateKey::Relationship(tuple) => {
                (Table::Relationships, rows::relationship_ref_key(vault.number, tuple))
            }
        };
        let Some(row) = self.overlay.get(table, &row_key)? else { return Ok(None) };
        let leaf = LeafValue::decode(&row)
            .map_err(|error| inconsistent(format!("a stored leaf does not decode: {error}")))?;
        let modified_height = leaf.modified_height;
        Ok(Some((row, modified_height)))
    }

    fn newest_change(
        &self,
        vault: &Vault,
        key: &StateKey<'_>,
        key_hash: &Hash,
    ) -> Result<Option<u64>, ReadError> {
        match self.current_leaf(vault, key)? {
            Some((_, modified_height)) => Ok(Some(modified_height)),
            None => self.deletion_before(vault, key_hash, u64::MAX),
        }
    }

    /// The block that had changed a key before block `changed` did.
    fn change_before(&self, vault: &Vault, key_hash: &Hash, changed: u64) -> Result<Option<u64>, ReadError> {
        let entries = self.undo_entries(vault, changed)?;
        let entry = entries.binary_search_by(|entry| entry.key_hash.cmp(key_hash));
        let entry = entry.ok().and_then(|position| entries.get(position));
        let entry = entry.ok_or_else(|| vault.broken(changed, "does not undo a key that it changed"))?;
        match entry.before {
            Some(before) => Ok(Some(before.modified_height)),
            None => self.deletion_before(vault, key_hash, changed),
        }
    }

    /// The newest block below `height` that deleted a key.
    fn deletion_before(&self, vault: &Vault, key_hash: &Hash, height: u64) -> Result<Option<u64>, ReadError> {
        let Some(newest) = height.checked_sub(1) else { return Ok(None) };
        let range = ScanRange {
            prefix: rows::tombstones_prefix(vault.number, key_hash),
            start: rows::tombstone_key(vault.number, key_hash, newest),
        };
        let mut found = None;
        self.overlay.scan(Table::Tombstones, &range, &mut |key, _| {
            found = rows::tombstone_height(key);
            false
        })?;
        Ok(found)
    }

    /// What the transactions of a block did to a key, in their order.
    fn versions_in(
        &self,
        vault: &Vault,
        key: &StateKey<'_>,
        height: u64,
    ) -> Result<Vec<KeyVersion>, ReadError> {
        let mut versions = Vec::new();
        for (index_in_block, bytes) in (0_u32..).zip(self.body(vault, height)?) {
            let view = transaction::decode(&bytes)
                .map_err(|_| vault.broken(height, "has a transaction that does not decode"))?;
            let changes = view.operations.iter().rev().filter(|operation| is_change_of(operation, key));
            let change = changes.filter_map(|operation| change_of(&operation.action)).next();
            versions.extend(change.map(|change| KeyVersion {
                height,
                version: view.header.sequence,
                index_in_block,
                time_ms: view.header.time_ms,
                actor: view.header.actor.to_owned(),
                change,
            }));
        }
        Ok(versions)
    }
}

impl HistoryCursor {
    fn all_of(height: u64) -> Self {
        Self { height, below: u64::MAX }
    }
}

impl HistoryPage {
    fn ended(mut self, vault: &Vault) -> Self {
        let first = vault.horizon.first_height();
        self.cut_at = (first > 0).then_some(first);
        self
    }
}

impl KeyVersion {
    /// About how much it weighs in an answer, in bytes.
    pub fn content_bytes(&self) -> usize {
        const FIXED_BYTES: usize = 48;
        let value = match &self.change {
            KeyChange::Set { value, .. } => value.len(),
            _ => 0,
        };
        FIXED_BYTES + self.actor.len() + value
    }
}

impl Vault {
    /// Refuses heights above the newest block and below what is kept.
    pub(super) fn check_readable(&self, height: u64) -> Result<(), ReadError> {
        if height > self.header.height {
            return Err(ReadError::HeightUnavailable { asked: height, height: self.header.height });
        }
        if height < self.horizon.first_height() {
            return Err(self.compacted(height));
        }
        Ok(())
    }

    pub(super) fn compacted(&self, asked: u64) -> ReadError {
        ReadError::Compacted { asked, first: self.horizon.first_height() }
    }

    pub(super) fn broken(&self, height: u64, what: &str) -> super::StateError {
        inconsistent(format!("block {height} of vault {} {what}", self.name))
    }
}

/// The key that an operation is about; `None` for an assertion, which changes nothing.
fn key_of<'a>(action: &ActionRef<'a>) -> Option<StateKey<'a>> {
    match *action {
        ActionRef::SetEntity { key, .. }
        | ActionRef::DeleteEntity { key }
        | ActionRef::ExpireEntity { key } => Some(StateKey::Entity { key }),
        ActionRef::CreateRelationship(tuple) | ActionRef::DeleteRelationship(tuple) => {
            Some(StateKey::Relationship(tuple))
        }
        ActionRef::AssertEntity { .. } | ActionRef::AssertRelationship(_) => None,
    }
}

fn is_change_of(operation: &OperationRef<'_>, key: &StateKey<'_>) -> bool {
    matches!(operation.result, RESULT_CREATED | RESULT_UPDATED | RESULT_DELETED)
        && key_of(&operation.action).is_some_and(|changed| changed == *key)
}

fn change_of(action: &ActionRef<'_>) -> Option<KeyChange> {
    Some(match *action {
        ActionRef::SetEntity { value, expires_at_ms, .. } => {
            KeyChange::Set { value: Bytes::copy_from_slice(value), expires_at_ms }
        }
        ActionRef::CreateRelationship(_) => KeyChange::Related,
        ActionRef::DeleteEntity { .. } | ActionRef::DeleteRelationship(_) => KeyChange::Deleted,
        ActionRef::ExpireEntity { .. } => KeyChange::Expired,
        ActionRef::AssertEntity { .. } | ActionRef::AssertRelationship(_) => return None,
    })
}
