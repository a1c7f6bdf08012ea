//! Checking that what is stored of a vault is what its blocks say, while the ledger serves.
//!
//! A check is a sequence of bounded steps, each over a borrowed [`LedgerState`]: between two of them others may
//! write. What a step compares it reads in one piece, so writes in between never look like damage.

use std::collections::HashMap;

use ledger_verify::header::BlockHeader;
use ledger_verify::state::StateKey;
use ledger_verify::{Hash, hash};

use super::evidence::Tiles;
use super::read::ReadError;
use super::replay::{self, Replay, WrittenBy};
use super::scan::{self, FoundRow};
use super::{LedgerState, StateError, Vault};
use crate::command::Fence;
use crate::log_tree::{LogTree, TILE_WIDTH};
use crate::names::{VaultId, VaultRef};
use crate::ports::{ScanRange, StoreError, Table};
use crate::relationship::Relationship;
use crate::rows;
use crate::state_tree::StateTree;

/// Most issues that a report lists; more are counted only.
pub const ISSUES_MAX: usize = 100;
/// Blocks at the end of the chain that a quick check reads.
const QUICK_BLOCKS: u64 = 256;
/// Blocks or rows of one step.
const STEP_ROWS: usize = 512;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityDepth {
    /// The newest headers, the state tree against the newest of them, the log tree against its tiles.
    Quick,
    /// Every block is replayed; every row is compared with what the blocks say.
    Full,
}

/// What kind of thing does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssueKind {
    /// A block does not continue the one before it.
    ChainBreak,
    /// The stored state is not what the blocks say.
    StateDivergence,
    /// A block is missing.
    MissingBlock,
    /// The transactions of a block are missing.
    MissingEntry,
    /// Transactions or tiles are not what headers commit to.
    ArchiveError,
    /// A row cannot be read, or does not have its checksum.
    ReadError,
}

impl IssueKind {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChainBreak => "chain_break",
            Self::StateDivergence => "state_divergence",
            Self::MissingBlock => "missing_block",
            Self::MissingEntry => "missing_entry",
            Self::ArchiveError => "archive_error",
            Self::ReadError => "read_error",
        }
    }
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityIssue {
    /// Its kind.
    pub kind: IssueKind,
    /// The block that it concerns; for a row the newest block.
    pub height: u64,
    /// What does not fit, for people.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityReport {
    /// The vault.
    pub vault: VaultRef,
    /// Its identity.
    pub id: VaultId,
    /// Height of the newest block when the check began.
    pub height: u64,
    /// Blocks that were read.
    pub blocks: u64,
    /// Rows of the state that were compared.
    pub rows: u64,
    /// What does not fit, at most [`ISSUES_MAX`].
    pub issues: Vec<IntegrityIssue>,
    /// How many issues there are.
    pub issue_count: u64,
    /// Whether a row of the state is not what the blocks say: such a vault must not be served.
    pub state_is_wrong: bool,
    /// Why the vault was fenced before the check; `None` = it was not.
    pub fence: Option<Fence>,
}

/// Whether a check, or a recovery, goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// It is finished.
    Done,
}

/// A check under way.
pub struct IntegrityCheck {
    report: IntegrityReport,
    stage: Stage,
}

enum Stage {
    Quick,
    Replay(Box<Replay>),
    Rows(Box<Rows>),
    Done,
}

/// Comparing the rows of the tables in [`ROW_TABLES`], one after the other.
struct Rows {
    /// The tables that are left.
    tables: std::slice::Iter<'static, Table>,
    table: Table,
    start: Vec<u8>,
    /// Keys that the blocks call for and that were not met yet.
    unseen: HashMap<Hash, WrittenBy>,
    /// What the rows of a fenced vault are held to; others are held to the tree that they are served with.
    replayed: Option<StateTree>,
}

const ROW_TABLES: &[Table] = &[
    Table::Entities,
    Table::Relationships,
    Table::RelationshipsBySubject,
    Table::Expiries,
    Table::Tombstones,
];

impl IntegrityCheck {
    /// Begins a check.
    ///
    /// # Errors
    /// When there is no such vault.
    pub fn start(state: &LedgerState, id: VaultId, depth: IntegrityDepth) -> Result<Self, ReadError> {
        let vault = state.vaults.get(&id).ok_or(ReadError::VaultNotFound)?;
        let report = IntegrityReport {
            vault: vault.name.clone(),
            id,
            height: vault.header.height,
            blocks: 0,
            rows: 0,
            issues: Vec::new(),
            issue_count: 0,
            state_is_wrong: false,
            fence: vault.fence.clone(),
        };
        let stage = match depth {
            IntegrityDepth::Quick => Stage::Quick,
            IntegrityDepth::Full => Stage::Replay(Box::new(Replay::new(vault))),
        };
        Ok(Self { report, stage })
    }

    /// Does a bounded piece of the check.
    ///
    /// # Errors
    /// When the vault was deleted meanwhile, or the store fails as a whole.
    pub fn step(&mut self, state: &LedgerState) -> Result<Progress, ReadError> {
        let vault = state.vaults.get(&self.report.id).ok_or(ReadError::VaultNotFound)?;
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Quick => self.report.quick(state, vault)?,
            Stage::Replay(replay) => self.stage = self.report.replay(state, vault, replay)?,
            Stage::Rows(rows) => self.stage = self.report.compare(state, vault, rows)?,
            Stage::Done => {}
        }
        Ok(if matches!(self.stage, Stage::Done) { Progress::Done } else { Progress::More })
    }

    /// What was found so far.
    pub fn into_report(self) -> IntegrityReport {
        self.report
    }
}

impl IntegrityReport {
    fn add(&mut self, issue: IntegrityIssue) {
        self.issue_count += 1;
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(issue);
        }
    }

    fn add_row(&mut self, kind: IssueKind, height: u64, what: String) {
        self.state_is_wrong = true;
        self.add(IntegrityIssue { kind, height, what });
    }

    fn quick(&mut self, state: &LedgerState, vault: &Vault) -> Result<(), StateError> {
        let tip = &vault.header;
        if let Some(fence) = &vault.fence {
            let what = format!("the vault is fenced: {}", fence.what);
            self.add(IntegrityIssue { kind: IssueKind::StateDivergence, height: fence.height, what });
        } else if vault.tree.root() != tip.state_root {
            let what = "the state tree does not have the root of the newest header".to_owned();
            self.add_row(IssueKind::StateDivergence, tip.height, what);
        }
        let first = (tip.height + 1).saturating_sub(QUICK_BLOCKS);
        let mut previous: Option<BlockHeader> = None;
        let mut leaves = Vec::new();
        for height in first..=tip.height {
            let row = state.overlay.get(Table::Blocks, &rows::header_key(vault.number, height));
            let header = match row {
                Ok(Some(row)) => BlockHeader::decode(&row).ok(),
                Ok(None) => None,
                Err(StoreError::Corrupt { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let Some(header) = header else {
                let what = "its header is missing or cannot be read".to_owned();
                self.add(IntegrityIssue { kind: IssueKind::MissingBlock, height, what });
                previous = None;
                continue;
            };
            let hash = header.leaf_hash();
            let follows = previous.is_none_or(|previous| previous.leaf_hash() == header.previous);
            let is_tip = height < tip.height || hash == vault.block_hash;
            if !follows || header.height != height || !is_tip {
                let what = "it does not continue the block before it, or is not the newest".to_owned();
                self.add(IntegrityIssue { kind: IssueKind::ChainBreak, height, what });
            }
            leaves.push((height, hash));
            previous = Some(header);
            self.blocks += 1;
        }
        self.quick_log(state, vault, &leaves);
        Ok(())
    }

    /// The log tree that is served, against the one that its tiles and the newest headers make.
    fn quick_log(&mut self, state: &LedgerState, vault: &Vault, leaves: &[(u64, Hash)]) {
        if vault.fence.is_some() {
            return;
        }
        let size = vault.log.size();
        let tail_from = size - size % TILE_WIDTH as u64;
        let tail: Vec<Hash> =
            leaves.iter().filter(|(height, _)| *height >= tail_from).map(|(_, hash)| *hash).collect();
        let restored = LogTree::restore(size, &Tiles { overlay: &state.overlay, vault: vault.number }, &tail);
        let what = match restored {
            Ok(restored) if restored.root() == vault.log.root() => return,
            Ok(_) => "the stored log has another root".to_owned(),
            Err(error) => error.to_string(),
        };
        let height = vault.header.height;
        self.add(IntegrityIssue { kind: IssueKind::ArchiveError, height, what });
    }

    fn replay(
        &mut self,
        state: &LedgerState,
        vault: &Vault,
        mut replay: Box<Replay>,
    ) -> Result<Stage, StateError> {
        let mut issues = Vec::new();
        for _ in 0..STEP_ROWS {
            if replay.is_done() {
                break;
            }
            replay.block(&state.overlay, &vault.horizon, &mut issues)?;
        }
        for wrong in replay.repairs.drain(..) {
            // Tiles are no part of the state, and what cannot be recovered is better read than not.
            self.state_is_wrong |= wrong.table != Table::Tiles && vault.horizon.first_body <= 1;
            issues.push(wrong.issue);
        }
        issues.into_iter().for_each(|issue| self.add(issue));
        self.blocks = replay.blocks();
        if !replay.is_done() {
            return Ok(Stage::Replay(replay));
        }
        if self.height == vault.header.height
            && replay.newest().map(BlockHeader::leaf_hash) != Some(vault.block_hash)
        {
            let what = "the newest header of the vault is not that of its newest block".to_owned();
            self.add(IntegrityIssue { kind: IssueKind::ChainBreak, height: self.height, what });
        }
        let known = replay.state_is_known();
        // Without a known state there is nothing to hold the rows of a fenced vault to.
        if vault.fence.is_some() && !known {
            return Ok(Stage::Done);
        }
        let Replay { live, tree, .. } = *replay;
        let replayed = vault.fence.is_some().then_some(tree);
        let mut tables = ROW_TABLES.iter();
        let Some(table) = tables.next().copied() else { return Ok(Stage::Done) };
        let unseen = if known { live } else { HashMap::new() };
        Ok(Stage::Rows(Box::new(Rows { tables, table, start: Vec::new(), unseen, replayed })))
    }

    fn compare(
        &mut self,
        state: &LedgerState,
        vault: &Vault,
        mut rows: Box<Rows>,
    ) -> Result<Stage, StateError> {
        let range = ScanRange { prefix: rows::vault_prefix(vault.number), start: rows.start.clone() };
        let (table, height) = (rows.table, vault.header.height);
        let mut found = Vec::new();
        let tree = rows.replayed.as_ref().unwrap_or(&vault.tree);
        let unseen = &mut rows.unseen;
        let next = scan::piece(&state.overlay, table, &range, STEP_ROWS, &mut |row| {
            self.rows += 1;
            match row {
                FoundRow::Corrupt { key } => {
                    if let Some(hash) = key_hash(table, key) {
                        unseen.remove(&hash);
                    }
                    let what = format!("{} does not have its checksum", name(table, key));
                    found.push((IssueKind::ReadError, what));
                }
                FoundRow::Whole { key, value } => {
                    if let Some(what) = misfit(state, vault, tree, unseen, table, key, value) {
                        found.push((IssueKind::StateDivergence, what));
                    }
                }
            }
        })?;
        found.into_iter().for_each(|(kind, what)| self.add_row(kind, height, what));
        if let Some(next) = next {
            rows.start = next;
            return Ok(Stage::Rows(rows));
        }
        match rows.tables.next() {
            Some(table) => {
                rows.table = *table;
                rows.start = Vec::new();
                Ok(Stage::Rows(rows))
            }
            None => {
                self.missing(state, vault, &rows)?;
                Ok(Stage::Done)
            }
        }
    }

    /// Rows that the blocks call for and that no scan met. What was deleted, or made anew, since the check began
    /// is not missing.
    fn missing(&mut self, state: &LedgerState, vault: &Vault, rows: &Rows) -> Result<(), StateError> {
        let tree = rows.replayed.as_ref().unwrap_or(&vault.tree);
        let mut wanted: Vec<WrittenBy> =
            rows.unseen.iter().filter(|(key, _)| tree.get(key).is_some()).map(|(_, by)| *by).collect();
        wanted.sort_unstable();
        let mut keys = Vec::new();
        replay::each_written(&state.overlay, vault.number, &wanted, &mut |key, _| {
            keys.push(row_key(vault, &key))
        })?;
        for (table, key) in keys {
            if matches!(state.overlay.get(table, &key), Ok(None)) {
                let what = format!("{} is missing", name(table, &key));
                self.add_row(IssueKind::StateDivergence, vault.header.height, what);
            }
        }
        Ok(())
    }
}

fn row_key(vault: &Vault, key: &StateKey<'_>) -> (Table, Vec<u8>) {
    match key {
        StateKey::Entity { key } => (Table::Entities, rows::entity_key(vault.number, key)),
        StateKey::Relationship(tuple) => {
            (Table::Relationships, rows::relationship_ref_key(vault.number, tuple))
        }
    }
}

/// What is wrong with a row, if anything is.
fn misfit(
    state: &LedgerState,
    vault: &Vault,
    tree: &StateTree,
    unseen: &mut HashMap<Hash, WrittenBy>,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Option<String> {
    let wrong = |what: &str| Some(format!("{} {what}", name(table, key)));
    if table == Table::Tombstones {
        let is_right = replay::is_deletion(&state.overlay, vault.number, key);
        return if is_right { None } else { wrong("is of no deletion") };
    }
    let Some(hash) = key_hash(table, key) else { return wrong("has no valid key") };
    match table {
        Table::Entities | Table::Relationships => {
            unseen.remove(&hash);
            match tree.get(&hash) {
                Some(leaf) if leaf == hash::sha256(&[value]) => underived(state, vault, table, key, value),
                Some(_) => wrong("is not what the last transaction on it wrote"),
                None => wrong("was written by no transaction"),
            }
        }
        Table::RelationshipsBySubject if tree.get(&hash).is_none() => wrong("was written by no transaction"),
        Table::Expiries if !expires_then(state, vault, key) => wrong("is not the expiry of its entity"),
        _ => None,
    }
}

/// What is wrong with the row that is derived from a right one: by subject, or its expiry.
fn underived(state: &LedgerState, vault: &Vault, table: Table, key: &[u8], value: &[u8]) -> Option<String> {
    let derived = if table == Table::Relationships {
        let tuple = rows::relationship_of(key)?;
        (Table::RelationshipsBySubject, rows::by_subject_key(vault.number, &tuple))
    } else {
        let leaf = ledger_verify::state::LeafValue::decode(value).ok()?;
        let entity = rows::entity_of(key).filter(|_| leaf.expires_at_ms != 0)?;
        (Table::Expiries, rows::expiry_key(vault.number, leaf.expires_at_ms, &entity))
    };
    // One that cannot be read is named when its own table is compared.
    let is_missing = matches!(state.overlay.get(derived.0, &derived.1), Ok(None));
    is_missing.then(|| format!("{} is missing", name(derived.0, &derived.1)))
}

fn expires_then(state: &LedgerState, vault: &Vault, key: &[u8]) -> bool {
    let Some((expires_at_ms, entity)) = rows::expiry_of(key) else { return false };
    let row = state.overlay.get(Table::Entities, &rows::entity_key(vault.number, entity.as_str()));
    // A row that cannot be read was named when its own table was compared.
    let Ok(Some(row)) = row else { return row.is_err() };
    ledger_verify::state::LeafValue::decode(&row).is_ok_and(|leaf| leaf.expires_at_ms == expires_at_ms)
}

/// Key hash of what a row of the state is about.
pub(super) fn key_hash(table: Table, key: &[u8]) -> Option<Hash> {
    let of_tuple = |tuple: Relationship| StateKey::Relationship(tuple.as_ref()).hash();
    match table {
        Table::Entities => Some(StateKey::Entity { key: rows::entity_of(key)?.as_str() }.hash()),
        Table::Expiries => Some(StateKey::Entity { key: rows::expiry_of(key)?.1.as_str() }.hash()),
        Table::Relationships => rows::relationship_of(key).map(of_tuple),
        Table::RelationshipsBySubject => rows::relationship_by_subject_of(key).map(of_tuple),
        _ => None,
    }
}

/// How a row is named to people.
fn name(table: Table, key: &[u8]) -> String {
    let tuple = |tuple: Relationship| {
        format!("{} {} {}", tuple.resource.as_str(), tuple.relation.as_str(), tuple.subject.as_str())
    };
    let named = match table {
        Table::Entities => rows::entity_of(key).map(|key| format!("entity {}", key.as_str())),
        Table::Expiries => rows::expiry_of(key).map(|(_, key)| format!("the expiry row of {}", key.as_str())),
        Table::Relationships => {
            rows::relationship_of(key).map(|found| format!("relationship {}", tuple(found)))
        }
        Table::RelationshipsBySubject => rows::relationship_by_subject_of(key)
            .map(|found| format!("the row by subject of {}", tuple(found))),
        _ => None,
    };
    named.unwrap_or_else(|| format!("a row of {}", table.name()))
}
