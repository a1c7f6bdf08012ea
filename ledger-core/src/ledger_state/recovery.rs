//! Recovery of a fenced vault: its rows are made anew from its blocks, and the fence is lifted only when
//! they lead to the newest header.
//!
//! Like a check, a recovery is a sequence of bounded steps. First the blocks are replayed, which changes
//! nothing; then rows that are not what the blocks say are written or removed; then, once that is durable,
//! the writes that waited are carried out and the fence goes, in one piece. A crash in between leaves the
//! fence, and a recovery begins anew.

use std::collections::HashSet;

use bytes::Bytes;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::{Hash, hash};

use super::block::OpenBlock;
use super::idempotency;
use super::integrity::{IssueKind, Progress, key_hash};
use super::replay::{self, Replay, WrittenBy};
use super::scan::{self, FoundRow};
use super::{LedgerState, StateError, inconsistent};
use crate::codec;
use crate::names::{VaultId, VaultNumber};
use crate::ports::{ScanRange, Table};
use crate::rows::{self, PostponedRow};

/// Blocks or rows of one step.
const STEP_ROWS: usize = 512;

/// A vault was not recovered; it stays fenced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryRefusal {
    /// There is no such vault.
    #[error("there is no such vault")]
    VaultNotFound,
    /// The vault is not fenced.
    #[error(
        "the vault is not fenced: there is nothing to recover. Blocks that are damaged are not made anew: for them restore a \
         snapshot or a backup"
    )]
    NotFenced,
    /// The vault dropped old blocks, from which its rows would have to be made.
    #[error(
        "the vault cannot be recovered: its retention has dropped the transactions below height {first_height}, from \
         which its rows would have to be made. It stays fenced; restore the node from a snapshot or a backup"
    )]
    Compacted {
        /// Lowest height whose transactions are kept.
        first_height: u64,
    },
    /// A block cannot be used.
    #[error(
        "block {height} cannot be replayed ({}): {what}. The vault stays fenced; restore the node from a snapshot \
         or a backup", kind.as_str()
    )]
    BlockUnusable {
        /// Its height.
        height: u64,
        /// What kind of damage it has.
        kind: IssueKind,
        /// The damage.
        what: String,
    },
    /// The replayed blocks do not end with the newest header of the vault.
    #[error(
        "the blocks do not end with the newest header of the vault, at height {height}. The vault stays fenced; \
         restore the node from a snapshot or a backup"
    )]
    TipDiffers {
        /// Height of the newest header.
        height: u64,
    },
    /// The recovered log is not the one that a checkpoint was signed over.
    #[error(
        "the recovered log does not contain the checkpoint over {signed_size} blocks that was signed here. The vault \
         stays fenced; restore the node from a backup"
    )]
    CheckpointLost {
        /// Size of the checkpoint.
        signed_size: u64,
    },
    /// The store failed: the node must stop.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Height of the newest block, which is that of before the damage.
    pub height: u64,
    /// State root there.
    pub state_root: Hash,
    /// Blocks that were replayed.
    pub blocks: u64,
    /// Rows that were written or removed.
    pub rows_repaired: u64,
    /// Log entries with writes that had waited.
    pub entries_resumed: u64,
    /// The node whose content was taken over; `None` = the vault was made anew from this node's own blocks.
    pub from_node: Option<u64>,
}

/// A recovery under way.
pub struct VaultRecovery {
    id: VaultId,
    number: VaultNumber,
    replay: Replay,
    stage: Stage,
    rows_repaired: u64,
    /// Rows of the derived tables that must exist and were not met yet.
    derived: HashSet<(Table, Vec<u8>)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Stage {
    Replay,
    /// Comparing the rows of a table from a key on.
    Rows(Table, Vec<u8>),
    /// Writing the rows that were not met.
    Missing,
    /// Writing what is derived: rows by subject, expiries, clients, tiles, undo rows, deletions.
    Derived,
    Repaired,
}

type Change = (Table, Vec<u8>, Option<Bytes>);

impl VaultRecovery {
    /// Begins a recovery.
    ///
    /// # Errors
    /// When there is no such vault, or it is not fenced.
    pub fn start(state: &LedgerState, id: VaultId) -> Result<Self, RecoveryRefusal> {
        let vault = state.vaults.get(&id).ok_or(RecoveryRefusal::VaultNotFound)?;
        if vault.fence.is_none() {
            return Err(RecoveryRefusal::NotFenced);
        }
        // The genesis block has no transactions.
        if vault.horizon.first_body > 1 {
            return Err(RecoveryRefusal::Compacted { first_height: vault.horizon.first_body });
        }
        Ok(Self {
            id,
            number: vault.number,
            replay: Replay::new(vault),
            stage: Stage::Replay,
            rows_repaired: 0,
            derived: HashSet::new(),
        })
    }

    /// Whether blocks are still to be replayed with [`replay`](Self::replay).
    pub fn is_replaying(&self) -> bool {
        self.stage == Stage::Replay
    }

    /// Replays some blocks; changes nothing in the state.
    ///
    /// # Errors
    /// At the first block that does not fit: nothing was changed.
    pub fn replay(&mut self, state: &LedgerState) -> Result<(), RecoveryRefusal> {
        let vault = state.fenced(self.id).ok_or(RecoveryRefusal::VaultNotFound)?;
        let mut issues = Vec::new();
        for _ in 0..STEP_ROWS {
            if self.replay.is_done() {
                break;
            }
            // Tiles and the like are made anew; what else does not fit cannot be made up.
            self.replay.block(&state.overlay, &vault.horizon, &mut issues)?;
            if let Some(issue) = issues.pop() {
                let (height, kind, what) = (issue.height, issue.kind, issue.what);
                return Err(RecoveryRefusal::BlockUnusable { height, kind, what });
            }
        }
        if self.replay.is_done() {
            if self.replay.newest().map(|header| header.leaf_hash()) != Some(vault.block_hash) {
                return Err(RecoveryRefusal::TipDiffers { height: vault.header.height });
            }
            self.stage = Stage::Rows(Table::Entities, Vec::new());
        }
        Ok(())
    }

    /// Repairs some rows. Once it answers [`Progress::Done`], make what is applied durable before
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the store fails, or the vault is gone.
    pub fn repair(&mut self, state: &mut LedgerState) -> Result<Progress, RecoveryRefusal> {
        state.fenced(self.id).ok_or(RecoveryRefusal::VaultNotFound)?;
        let mut changes = Vec::new();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Repaired) {
            Stage::Replay => return Err(inconsistent("a recovery repairs before it has replayed").into()),
            Stage::Rows(table, start) => self.compare(state, table, start, &mut changes)?,
            Stage::Missing => self.missing(state, &mut changes)?,
            Stage::Derived => self.derived_rows(state, &mut changes)?,
            Stage::Repaired => Stage::Repaired,
        };
        self.rows_repaired += changes.len() as u64;
        for (table, key, value) in changes {
            match value {
                Some(value) => state.overlay.put(table, key, value),
                None => state.overlay.delete(table, key),
            }
        }
        Ok(if self.stage == Stage::Repaired { Progress::Done } else { Progress::More })
    }

    /// Lifts the fence and carries out the writes that waited. `signed` is size and root of the newest
    /// checkpoint that was signed of this vault.
    ///
    /// # Errors
    /// When the recovered log does not contain that checkpoint: the vault stays fenced.
    pub fn finish(
        self,
        state: &mut LedgerState,
        signed: Option<(u64, Hash)>,
    ) -> Result<Recovered, RecoveryRefusal> {
        let postponed = self.postponed(state)?;
        let vault = state.vaults.get_mut(&self.id).ok_or(RecoveryRefusal::VaultNotFound)?;
        let Some(fence) = vault.fence.take() else { return Err(RecoveryRefusal::NotFenced) };
        let blocks = self.replay.blocks();
        vault.tree = self.replay.tree;
        vault.lists = self.replay.lists;
        vault.log = self.replay.log;
        state.key_count += vault.key_count();
        for row in &postponed {
            state.resume(self.id, row)?;
        }
        if let Some((signed_size, root)) = signed {
            let agrees = state.tip(self.id).is_ok_and(|tip| signed_size <= tip.size)
                && state.log_root_at(self.id, signed_size).is_ok_and(|computed| computed == root);
            if !agrees {
                // The rows that wait are still there: nothing below was reached.
                state.fence_vault(self.id, &fence.what)?;
                return Err(RecoveryRefusal::CheckpointLost { signed_size });
            }
        }
        state.overlay.delete(Table::Fenced, rows::vault_prefix(self.number));
        for row in &postponed {
            state.overlay.delete(Table::Fenced, rows::postponed_key(self.number, row.at.index));
        }
        let vault = state.vaults.get(&self.id).ok_or(RecoveryRefusal::VaultNotFound)?;
        Ok(Recovered {
            height: vault.header.height,
            state_root: vault.header.state_root,
            blocks,
            rows_repaired: self.rows_repaired,
            entries_resumed: postponed.len() as u64,
            from_node: None,
        })
    }

    /// Removes rows that no transaction wrote; what is right needs no writing.
    fn compare(
        &mut self,
        state: &LedgerState,
        table: Table,
        start: Vec<u8>,
        changes: &mut Vec<Change>,
    ) -> Result<Stage, StateError> {
        let range = ScanRange { prefix: rows::vault_prefix(self.number), start };
        let next = scan::piece(&state.overlay, table, &range, STEP_ROWS, &mut |row| {
            let (key, value) = match row {
                FoundRow::Whole { key, value } => (key, Some(value)),
                FoundRow::Corrupt { key } => (key, None),
            };
            match table {
                Table::Entities | Table::Relationships => self.compare_leaf(table, key, value, changes),
                Table::Tombstones => {
                    if !replay::is_deletion(&state.overlay, self.number, key) {
                        changes.push((table, key.to_vec(), None));
                    }
                }
                _ => {
                    let known = self.derived.contains(&(table, key.to_vec()));
                    if known && value.is_some_and(<[u8]>::is_empty) {
                        self.derived.remove(&(table, key.to_vec()));
                    } else if !known {
                        changes.push((table, key.to_vec(), None));
                    }
                }
            }
        })?;
        Ok(match (next, table) {
            (Some(next), table) => Stage::Rows(table, next),
            (None, Table::Entities) => Stage::Rows(Table::Relationships, Vec::new()),
            (None, Table::Relationships) => Stage::Missing,
            (None, Table::RelationshipsBySubject) => Stage::Rows(Table::Expiries, Vec::new()),
            (None, Table::Tombstones) => Stage::Repaired,
            (None, _) => Stage::Derived,
        })
    }

    fn compare_leaf(&mut self, table: Table, key: &[u8], value: Option<&[u8]>, changes: &mut Vec<Change>) {
        let leaf = key_hash(table, key).and_then(|hash| Some((hash, self.replay.tree.get(&hash)?)));
        match (leaf, value) {
            (None, _) => changes.push((table, key.to_vec(), None)),
            (Some((key_hash, leaf)), Some(value)) if leaf == hash::sha256(&[value]) => {
                self.replay.live.remove(&key_hash);
                let expires_at_ms = LeafValue::decode(value).map_or(0, |leaf| leaf.expires_at_ms);
                self.derive(table, key, expires_at_ms);
            }
            // Damaged: `missing` writes it.
            (Some(_), _) => {}
        }
    }

    /// Notes the derived row of a row of entities or relationships.
    fn derive(&mut self, table: Table, key: &[u8], expires_at_ms: u64) {
        if table == Table::Relationships {
            if let Some(tuple) = rows::relationship_of(key) {
                let by_subject = rows::by_subject_key(self.number, &tuple);
                self.derived.insert((Table::RelationshipsBySubject, by_subject));
            }
        } else if expires_at_ms != 0
            && let Some(entity) = rows::entity_of(key)
        {
            let expiry = rows::expiry_key(self.number, expires_at_ms, &entity);
            self.derived.insert((Table::Expiries, expiry));
        }
    }

    /// Writes some of the rows that were not met, or not right.
    fn missing(&mut self, state: &LedgerState, changes: &mut Vec<Change>) -> Result<Stage, StateError> {
        let mut left: Vec<(WrittenBy, Hash)> = self.replay.live.iter().map(|(key, by)| (*by, *key)).collect();
        left.sort_unstable();
        left.truncate(STEP_ROWS);
        if left.is_empty() {
            return Ok(Stage::Rows(Table::RelationshipsBySubject, Vec::new()));
        }
        let written_by: Vec<WrittenBy> = left.iter().map(|(by, _)| *by).collect();
        let number = self.number;
        let mut found = Vec::new();
        replay::each_written(&state.overlay, number, &written_by, &mut |key, leaf| {
            let (table, row_key) = match (&key, leaf.kind) {
                (StateKey::Relationship(tuple), LeafKind::Relationship) => {
                    (Table::Relationships, rows::relationship_ref_key(number, tuple))
                }
                (StateKey::Entity { key }, LeafKind::Entity) => {
                    (Table::Entities, rows::entity_key(number, key))
                }
                _ => return,
            };
            found.push((table, row_key, leaf.expires_at_ms, Bytes::from(leaf.encode())));
        })?;
        for (table, key, expires_at_ms, leaf) in found {
            self.derive(table, &key, expires_at_ms);
            changes.push((table, key, Some(leaf)));
        }
        for (_, key) in left {
            self.replay.live.remove(&key);
        }
        Ok(Stage::Missing)
    }

    /// Writes rows by subject, expiries, tiles and rows of the past that are not there, and every client's last
    /// transaction.
    fn derived_rows(&mut self, state: &LedgerState, changes: &mut Vec<Change>) -> Result<Stage, StateError> {
        changes.extend(self.derived.drain().map(|(table, key)| (table, key, Some(Bytes::new()))));
        changes.extend(self.replay.repairs.drain(..).map(|wrong| (wrong.table, wrong.key, Some(wrong.row))));
        for (actor, row) in std::mem::take(&mut self.replay.clients) {
            let key = rows::client_key(self.number, &actor);
            let row = codec::encode("a client row", &row)?;
            if !state.overlay.get(Table::Clients, &key).is_ok_and(|stored| stored.as_ref() == Some(&row)) {
                changes.push((Table::Clients, key, Some(row)));
            }
        }
        // Deletions are held to the undo rows, which are right now.
        Ok(Stage::Rows(Table::Tombstones, Vec::new()))
    }

    /// What waits for this vault, in the order of the log.
    fn postponed(&self, state: &LedgerState) -> Result<Vec<PostponedRow>, StateError> {
        let mut found = Ok(Vec::new());
        let prefix = rows::vault_prefix(self.number);
        let fence_key = prefix.clone();
        state.overlay.scan(Table::Fenced, &ScanRange { prefix, start: Vec::new() }, &mut |key, row| {
            if key != fence_key.as_slice() {
                match codec::decode::<PostponedRow>("postponed writes", row) {
                    Ok(row) => {
                        if let Ok(found) = &mut found {
                            found.push(row);
                        }
                    }
                    Err(error) => found = Err(StateError::from(error)),
                }
            }
            found.is_ok()
        })?;
        found
    }
}

impl LedgerState {
    /// Carries out the writes of one entry that waited, as their entry would have done.
    fn resume(&mut self, id: VaultId, row: &PostponedRow) -> Result<(), StateError> {
        let vault = self.vaults.get(&id).ok_or_else(|| inconsistent("a recovered vault is gone"))?;
        let mut block = OpenBlock::new(id, vault);
        for submission in &row.submissions {
            let key = submission.transaction.idempotency_key();
            let digest = idempotency::key_digest(id, &submission.actor, key);
            let is_repeated = self.idempotency.place(&digest).is_some() || block.record(&digest).is_some();
            if !is_repeated {
                // A refusal then is a refusal now: nothing is written.
                let _ = self.evaluate(row.time_ms, submission, digest, &mut block)?;
            }
        }
        if !block.is_empty() {
            // The block that the entry would have made has the header version of then.
            let header_version = std::mem::replace(&mut self.header_version, row.header_version);
            let sealed = self.seal(row.at, row.time_ms, block);
            self.header_version = header_version;
            sealed?;
        }
        Ok(())
    }
}
