//! Lists that prove themselves: their leaves in the state tree, and their members at a height.

use std::collections::BTreeSet;

use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::list::{ListLeaf, state_key_hash};
use ledger_verify::state::StateProof;
use ledger_verify::transaction::{self, ActionRef, RESULT_CREATED, RESULT_DELETED};

use super::read::{PAGE_ROWS_MAX, PageRequest, ReadError, RelationshipFilter};
use super::{LedgerState, Vault, inconsistent};
use crate::command::OperationResult;
use crate::list_sets::{LeafChange, ListChange, ListSets};
use crate::list_snapshot::ListSnapshot;
use crate::names::VaultId;
use crate::relationship::{Relation, Resource, Subject};
use crate::transaction::{Action, Operation};

/// Most members of a list that is proved: more would have to be held in memory at once.
pub const LIST_MEMBERS_MAX: u64 = 1_000_000;
/// How many blocks a vault may have gone on while a list is read page by page.
pub const LIST_BLOCKS_MAX: u64 = 1_024;
/// Blocks that one step of a [`ListCollector`] reads.
const STEP_BLOCKS: u64 = 8;
/// Row bytes that one step of a [`ListCollector`] reads.
const STEP_BYTES: usize = 1 << 20;

/// A resource's list leaf at the newest block, or its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHead {
    /// Count and root of the set; `None` = the resource has no relationships.
    pub leaf: Option<ListLeaf>,
    /// Proof to the header's state root.
    pub proof: StateProof,
    /// The newest header.
    pub header: BlockHeader,
}

impl LedgerState {
    /// The list leaf of a resource, or that it has none, proved to the newest state root.
    pub fn list_head(&self, id: VaultId, resource: &Resource) -> Result<ListHead, ReadError> {
        let vault = self.existing(id)?;
        if !vault.header.covers_lists() {
            return Err(ReadError::ListsNotCovered { height: vault.header.height });
        }
        let proof = vault.tree.prove(&state_key_hash(resource.as_str()));
        Ok(ListHead { leaf: vault.lists.leaf(resource.as_str()), proof, header: vault.header })
    }

    /// Relationships of a resource that a block created or deleted, in order.
    fn list_changes_in(
        &self,
        id: VaultId,
        resource: &Resource,
        height: u64,
    ) -> Result<Vec<(Relation, Subject, OperationResult)>, ReadError> {
        let missing = || inconsistent(format!("block {height} has a transaction that does not decode"));
        let block = self.block(id, height)?.ok_or_else(missing)?;
        let mut changes = Vec::new();
        for bytes in &block.transactions {
            for operation in transaction::decode(bytes).map_err(|_| missing())?.operations {
                let (tuple, result) = match (operation.action, operation.result) {
                    (ActionRef::CreateRelationship(tuple), RESULT_CREATED) => {
                        (tuple, OperationResult::Created)
                    }
                    (ActionRef::DeleteRelationship(tuple), RESULT_DELETED) => {
                        (tuple, OperationResult::Deleted)
                    }
                    _ => continue,
                };
                if tuple.resource == resource.as_str() {
                    let relation = Relation::new(tuple.relation).map_err(|_| missing())?;
                    changes.push((relation, Subject::new(tuple.subject).map_err(|_| missing())?, result));
                }
            }
        }
        Ok(changes)
    }
}

impl Vault {
    /// Entities and relationships in the tree, without the leaves of lists.
    pub(super) fn key_count(&self) -> u64 {
        let lists = if self.header.covers_lists() { self.lists.len() } else { 0 };
        self.tree.len().saturating_sub(lists)
    }

    /// Applies a block's relationships to the sets and returns the list leaves that the block writes into the tree. The
    /// first block whose header covers lists writes all of them.
    pub(super) fn change_lists(&mut self, changes: Vec<ListChange>, header_version: u16) -> Vec<LeafChange> {
        let before = self.header;
        self.header.version = self.header.version.max(header_version);
        list_leaves(&mut self.lists, changes, Some(&before), &self.header)
    }
}

/// Applies a block's relationships to the sets; returns the list leaves that the block writes. `before` is the header
/// of the block before it; `None` = it is the first.
pub(crate) fn list_leaves(
    lists: &mut ListSets,
    changes: Vec<ListChange>,
    before: Option<&BlockHeader>,
    header: &BlockHeader,
) -> Vec<LeafChange> {
    let changed = lists.apply(changes);
    match (before.is_some_and(BlockHeader::covers_lists), header.covers_lists()) {
        (true, _) => changed,
        (false, true) => lists.leaves().map(|(key, leaf)| (key, Some(leaf))).collect(),
        (false, false) => Vec::new(),
    }
}

/// The relationships that a transaction created or deleted.
pub(super) fn changes_of(
    operations: &[Operation],
    results: &[OperationResult],
) -> impl Iterator<Item = ListChange> {
    operations.iter().zip(results).filter_map(|(operation, result)| match (&operation.action, result) {
        (Action::CreateRelationship(tuple), OperationResult::Created) => {
            Some(ListChange::created(&tuple.as_ref()))
        }
        (Action::DeleteRelationship(tuple), OperationResult::Deleted) => {
            Some(ListChange::deleted(&tuple.as_ref()))
        }
        _ => None,
    })
}

/// Collects the members that a list had at a height, in steps: between them the ledger may go on.
///
/// It reads the rows as they are, whenever it gets to each, and then takes back what the blocks after the height did,
/// newest first. What a block changed is so set to what it was before, whatever the rows said; the rest did not change.
#[derive(Debug)]
pub struct ListCollector {
    vault: VaultId,
    resource: Resource,
    height: u64,
    members: BTreeSet<(Relation, Subject)>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Reading rows after this one.
    Rows(Option<Vec<u8>>),
    /// Taking back this block and those below it, down to the height.
    Blocks(u64),
    Done,
}

/// Whether a [`ListCollector`] wants another step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// There is more to read.
    Partly,
    /// It has all members.
    Wholly,
}

impl ListCollector {
    /// Begins; `height` is one at which the vault was before.
    pub fn new(vault: VaultId, resource: Resource, height: u64) -> Self {
        Self { vault, resource, height, members: BTreeSet::new(), progress: Progress::Rows(None) }
    }

    /// Reads on, a bounded number of rows or blocks.
    pub fn step(&mut self, state: &LedgerState) -> Result<Collected, ReadError> {
        self.progress = match &self.progress {
            Progress::Rows(after) => {
                let after = after.clone();
                self.read_rows(state, after)?
            }
            Progress::Blocks(from) => {
                let from = *from;
                self.take_back(state, from)?
            }
            Progress::Done => Progress::Done,
        };
        Ok(if matches!(self.progress, Progress::Done) { Collected::Wholly } else { Collected::Partly })
    }

    /// The list with these members; only of use when its leaf is the one that the header commits to.
    pub fn finish(self) -> ListSnapshot {
        ListSnapshot::new(self.members.iter().map(|(relation, subject)| (relation, subject)))
    }

    fn read_rows(&mut self, state: &LedgerState, after: Option<Vec<u8>>) -> Result<Progress, ReadError> {
        let filter = RelationshipFilter::ByResource { resource: self.resource.clone(), relation: None };
        let page = PageRequest { after, limit: PAGE_ROWS_MAX, bytes_max: STEP_BYTES };
        let rows = state.relationships(self.vault, &filter, &page)?;
        self.members.extend(rows.items.into_iter().map(|tuple| (tuple.relation, tuple.subject)));
        self.check_size()?;
        let tip = state.existing(self.vault)?.header.height;
        if tip.saturating_sub(self.height) > LIST_BLOCKS_MAX {
            return Err(self.height_gone(tip));
        }
        Ok(match rows.next {
            Some(next) => Progress::Rows(Some(next)),
            None if tip > self.height => Progress::Blocks(tip),
            None => Progress::Done,
        })
    }

    fn take_back(&mut self, state: &LedgerState, from: u64) -> Result<Progress, ReadError> {
        let mut height = from;
        for _ in 0..STEP_BLOCKS {
            if height <= self.height {
                return Ok(Progress::Done);
            }
            let changes = match state.list_changes_in(self.vault, &self.resource, height) {
                Err(ReadError::HeightUnavailable { .. }) => return Err(self.height_gone(from)),
                changes => changes?,
            };
            for (relation, subject, result) in changes.into_iter().rev() {
                match result {
                    OperationResult::Created => self.members.remove(&(relation, subject)),
                    _ => self.members.insert((relation, subject)),
                };
            }
            self.check_size()?;
            height -= 1;
        }
        Ok(Progress::Blocks(height))
    }

    fn check_size(&self) -> Result<(), ReadError> {
        let count = self.members.len() as u64;
        if count > LIST_MEMBERS_MAX {
            Err(ReadError::ListTooLong { count, max: LIST_MEMBERS_MAX })
        } else {
            Ok(())
        }
    }

    fn height_gone(&self, tip: u64) -> ReadError {
        ReadError::ListHeightGone { height: self.height, tip }
    }
}

/// The members of one resource after the other, as the relationship rows come in order.
#[derive(Default)]
pub(crate) struct ListRows {
    resource: Option<Resource>,
    changes: Vec<ListChange>,
    sets: ListSets,
}

impl ListRows {
    pub(crate) fn push(&mut self, tuple: &crate::relationship::Relationship) {
        if self.resource.as_ref() != Some(&tuple.resource) {
            self.sets.apply(std::mem::take(&mut self.changes));
            self.resource = Some(tuple.resource.clone());
        }
        self.changes.push(ListChange::created(&tuple.as_ref()));
    }

    pub(crate) fn finish(mut self) -> ListSets {
        self.sets.apply(self.changes);
        self.sets
    }
}

/// Hash and value hash of every leaf that a header of this version commits to.
pub(crate) fn with_lists(
    mut leaves: Vec<(Hash, Hash)>,
    lists: &ListSets,
    header: &BlockHeader,
) -> Vec<(Hash, Hash)> {
    if header.covers_lists() {
        leaves.extend(lists.leaves());
    }
    leaves
}
