//! Offline inspection of a state store: recomputes everything that a block commits to, and names what
//! does not fit.
//!
//! The blocks are replayed: each transaction says what every key must hold, so a changed row is named,
//! not only noticed. The blocks themselves are held to their hashes: header to header, transactions to
//! the header's transaction root, the newest header to the vault's row.

mod derived;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{self, ActionRef, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED};
use ledger_verify::{Hash, hash, log};

use crate::codec;
use crate::ledger_state::StateError;
use crate::list_sets::{ListChange, ListSets};
use crate::log_tree::LogTree;
use crate::names::{LedgerId, VaultId, VaultNumber};
use crate::overlay::Overlay;
use crate::ports::{ScanRange, StateStore, StoreError, Table};
use crate::rows::{self, LedgerRow, VaultRow};
use crate::state_tree::StateTree;

/// Most problems that are reported of one vault; more are counted only.
pub const PROBLEMS_MAX: usize = 100;

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The ledger; `None` in an empty store.
    pub ledger_id: Option<LedgerId>,
    /// Every vault that is not deleted, in order of creation.
    pub vaults: Vec<VaultReport>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.vaults.iter().all(|vault| vault.problem_count == 0)
    }
}

/// What an inspection found in one vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultReport {
    /// `NAMESPACE/VAULT`.
    pub vault: String,
    /// Its identity.
    pub id: VaultId,
    /// Height of the newest block.
    pub height: u64,
    /// Blocks that were replayed.
    pub blocks: u64,
    /// Entities and relationships found.
    pub keys: u64,
    /// State root in the newest header.
    pub recorded_state_root: Hash,
    /// State root over the rows as they are stored now.
    pub computed_state_root: Hash,
    /// What is wrong, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A stored row differs from what the last transaction on its key wrote.
    #[error("{key} was changed outside the ledger: its stored row is not what transaction {version} wrote")]
    RowChanged {
        /// Entity key or tuple.
        key: String,
        /// The transaction that wrote it last.
        version: u64,
    },
    /// A stored row does not have its checksum: the disk, or somebody, changed it.
    #[error("{key} cannot be read: its stored row does not have its checksum")]
    RowCorrupt {
        /// Entity key or tuple.
        key: String,
    },
    /// A row that the blocks call for is gone.
    #[error("{key} was removed outside the ledger: transaction {version} wrote it and none deleted it")]
    RowMissing {
        /// Entity key or tuple.
        key: String,
        /// The transaction that wrote it last.
        version: u64,
    },
    /// A row that no block calls for.
    #[error("{key} was added outside the ledger: no transaction wrote it")]
    RowUnexplained {
        /// Entity key or tuple.
        key: String,
    },
    /// A block is missing or does not decode.
    #[error("block {height} cannot be read: {what}")]
    BlockUnreadable {
        /// Its height.
        height: u64,
        /// Why.
        what: String,
    },
    /// A block does not continue the one before it.
    #[error("block {height} does not continue block {before}: its previous hash is another", before = height.saturating_sub(1))]
    ChainBroken {
        /// Its height.
        height: u64,
    },
    /// The transactions of a block are not those that its header commits to.
    #[error("the transactions of block {height} are not those that its header commits to")]
    TransactionsChanged {
        /// Its height.
        height: u64,
    },
    /// The newest header differs between the vault's row and its block.
    #[error("the newest header of the vault is not the header of its block {height}")]
    TipDiffers {
        /// Its height.
        height: u64,
    },
    /// A row that follows from others, such as a relationship by its subject, is missing, or does not follow.
    #[error("{what}, which follows from other rows, {fault}")]
    DerivedRow {
        /// Which row.
        what: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A tile of the log tree is not what the headers make of it.
    #[error("tile {number} of level {level} of the log {fault}")]
    TileWrong {
        /// Its level.
        level: u8,
        /// Its number in the level.
        number: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The vault was fenced by a server: it serves nothing of it until it is recovered.
    #[error(
        "the vault is fenced since its block {height}: {what}. Recover it with `strongroom ledger recover`"
    )]
    Fenced {
        /// Height of the newest block then.
        height: u64,
        /// What did not fit.
        what: String,
    },
    /// The rows have another root than the newest header says.
    #[error("the stored rows do not have the state root of block {height}")]
    StateRootDiffers {
        /// Its height.
        height: u64,
    },
}

/// Recomputes every vault of a store. Reads only.
pub fn inspect(store: Arc<dyn StateStore>) -> Result<Report, StateError> {
    let overlay = Overlay::new(store);
    let identity = overlay.get(Table::Ledger, rows::LEDGER_KEY)?;
    let identity: Option<LedgerRow> =
        identity.map(|row| codec::decode("the ledger row", &row)).transpose()?;
    let mut stored = Vec::new();
    let mut failure = None;
    overlay.scan(Table::Vaults, &everything(), &mut |key, row| {
        match (<[u8; 8]>::try_from(key), rows::decode_vault(row)) {
            (Ok(number), Ok((row, horizon))) => {
                let first_body = horizon.map_or(0, |horizon| horizon.first_body);
                stored.push((VaultNumber(u64::from_be_bytes(number)), row, first_body));
            }
            (_, Err(error)) => failure = Some(StateError::from(error)),
            (Err(_), _) => {
                failure = Some(crate::ledger_state::inconsistent("a vault row has no valid number"))
            }
        }
        failure.is_none()
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let alive = stored.into_iter().filter(|(_, row, _)| row.deleted_at_ms.is_none());
    let vaults = alive
        .map(|(number, row, first_body)| inspect_vault(&overlay, number, &row, first_body))
        .collect::<Result<_, _>>()?;
    Ok(Report { ledger_id: identity.map(|row| row.ledger_id), vaults })
}

fn everything() -> ScanRange {
    ScanRange { prefix: Vec::new(), start: Vec::new() }
}

/// What the blocks say that a key holds: the hash of its leaf, and who wrote it.
struct Expected {
    leaf: Hash,
    version: u64,
}

/// What the rows make: the leaves of keys, and the members of lists.
struct Found<'a> {
    leaves: &'a mut Vec<(Hash, Hash)>,
    lists: &'a mut Vec<ListChange>,
}

struct Inspection {
    report: VaultReport,
    covers_lists: bool,
    expected: BTreeMap<Hash, (String, Expected)>,
    /// Lowest height whose body is kept: what was written before is held to the state root only.
    first_body: u64,
    /// Rows that follow from the stored ones.
    derived: BTreeSet<(Table, Vec<u8>)>,
    /// The log over the headers that were read without a gap.
    log: LogTree,
}

fn inspect_vault(
    overlay: &Overlay,
    number: VaultNumber,
    row: &VaultRow,
    first_body: u64,
) -> Result<VaultReport, StateError> {
    let tip = BlockHeader::decode(&row.header).map_err(|error| {
        crate::ledger_state::inconsistent(format!("a vault's header does not decode: {error}"))
    })?;
    let report = VaultReport {
        vault: format!("{}/{}", row.namespace, row.name),
        id: row.id,
        height: tip.height,
        blocks: 0,
        keys: 0,
        recorded_state_root: tip.state_root,
        computed_state_root: hash::STATE_EMPTY,
        problems: Vec::new(),
        problem_count: 0,
    };
    let mut inspection = Inspection {
        report,
        covers_lists: tip.covers_lists(),
        expected: BTreeMap::new(),
        first_body,
        derived: BTreeSet::new(),
        log: LogTree::new(),
    };
    inspection.replay(overlay, number, &tip)?;
    inspection.compare_rows(overlay, number)?;
    inspection.compare_derived(overlay, number)?;
    inspection.name_fence(overlay, number)?;
    if inspection.report.computed_state_root != tip.state_root {
        inspection.problem(Problem::StateRootDiffers { height: tip.height });
    }
    Ok(inspection.report)
}

impl Inspection {
    fn problem(&mut self, problem: Problem) {
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(problem);
        }
    }

    fn replay(
        &mut self,
        overlay: &Overlay,
        number: VaultNumber,
        tip: &BlockHeader,
    ) -> Result<(), StateError> {
        let mut previous = [0; 32];
        for height in 0..=tip.height {
            let header = readable(overlay.get(Table::Blocks, &rows::header_key(number, height)))?;
            let Some(header) = header.and_then(|row| BlockHeader::decode(&row).ok()) else {
                self.problem(Problem::BlockUnreadable {
                    height,
                    what: "its header is missing or malformed".into(),
                });
                continue;
            };
            if header.previous != previous || header.height != height || header.vault_id != tip.vault_id {
                self.problem(Problem::ChainBroken { height });
            }
            previous = header.leaf_hash();
            self.extend_log(overlay, number, &header)?;
            if header.tx_count > 0 && height >= self.first_body {
                self.replay_transactions(overlay, number, &header)?;
            }
            self.report.blocks += 1;
        }
        if previous != tip.leaf_hash() {
            self.problem(Problem::TipDiffers { height: tip.height });
        }
        Ok(())
    }

    fn replay_transactions(
        &mut self,
        overlay: &Overlay,
        number: VaultNumber,
        header: &BlockHeader,
    ) -> Result<(), StateError> {
        let height = header.height;
        let body = readable(overlay.get(Table::Blocks, &rows::body_key(number, height)))?;
        let Some(transactions) = body.as_ref().and_then(rows::decode_body) else {
            self.problem(Problem::BlockUnreadable {
                height,
                what: "its body is missing or malformed".into(),
            });
            return Ok(());
        };
        let leaves: Vec<Hash> = transactions.iter().map(|transaction| hash::log_leaf(transaction)).collect();
        if log::root_of(&leaves) != header.tx_root || leaves.len() != header.tx_count as usize {
            self.problem(Problem::TransactionsChanged { height });
        }
        for bytes in &transactions {
            match transaction::decode(bytes) {
                Ok(view) => self.replay_operations(&view, height),
                Err(error) => self.problem(Problem::BlockUnreadable { height, what: error.to_string() }),
            }
        }
        Ok(())
    }

    fn replay_operations(&mut self, view: &transaction::TransactionView<'_>, modified_height: u64) {
        let version = view.header.sequence;
        for operation in &view.operations {
            let (key, kind, expires_at_ms, value): (_, _, _, &[u8]) = match operation.action {
                ActionRef::SetEntity { key, value, expires_at_ms } => {
                    (StateKey::Entity { key }, LeafKind::Entity, expires_at_ms, value)
                }
                ActionRef::DeleteEntity { key } | ActionRef::ExpireEntity { key } => {
                    (StateKey::Entity { key }, LeafKind::Entity, 0, &[])
                }
                ActionRef::CreateRelationship(tuple) | ActionRef::DeleteRelationship(tuple) => {
                    (StateKey::Relationship(tuple), LeafKind::Relationship, 0, &[])
                }
                ActionRef::AssertEntity { .. } | ActionRef::AssertRelationship(_) => continue,
            };
            match operation.result {
                RESULT_CREATED | RESULT_UPDATED => {
                    let leaf = LeafValue { kind, modified_height, version, expires_at_ms, value }.encode();
                    let expected = Expected { leaf: hash::sha256(&[&leaf]), version };
                    self.expected.insert(key.hash(), (describe(&key), expected));
                }
                RESULT_DELETED => {
                    self.expected.remove(&key.hash());
                }
                _ => {}
            }
        }
    }

    fn compare_rows(&mut self, overlay: &Overlay, number: VaultNumber) -> Result<(), StateError> {
        let (mut leaves, mut lists) = (Vec::new(), Vec::new());
        for table in [Table::Entities, Table::Relationships] {
            let mut range = ScanRange { prefix: rows::vault_prefix(number), start: Vec::new() };
            // A corrupt row ends a scan: note it, and go on behind it.
            let mut found = Found { leaves: &mut leaves, lists: &mut lists };
            while let Some(corrupt) = self.compare_table(overlay, number, table, &range, &mut found)? {
                self.corrupt_row(table, &corrupt);
                range.start = corrupt;
                range.start.push(0);
            }
        }
        for (name, expected) in std::mem::take(&mut self.expected).into_values() {
            self.problem(Problem::RowMissing { key: name, version: expected.version });
        }
        self.report.keys = leaves.len() as u64;
        if self.covers_lists {
            leaves.extend(ListSets::from_changes(lists).leaves());
        }
        self.report.computed_state_root = StateTree::from_leaves(leaves).root();
        Ok(())
    }

    /// Whether a row says of itself that a block wrote it whose body is not kept any more.
    fn is_older_than_bodies(&self, row: &[u8]) -> bool {
        LeafValue::decode(row).is_ok_and(|leaf| leaf.modified_height < self.first_body)
    }

    /// Compares the rows of a range; returns the key of the first corrupt one.
    fn compare_table(
        &mut self,
        overlay: &Overlay,
        number: VaultNumber,
        table: Table,
        range: &ScanRange,
        found: &mut Found<'_>,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let scanned = overlay.scan(table, range, &mut |row_key, row| {
            let leaf = hash::sha256(&[row]);
            let Some((key_hash, name)) = named(table, row_key) else {
                let key = format!("a row of {} with an invalid key", table.name());
                self.problem(Problem::RowUnexplained { key });
                return true;
            };
            found.leaves.push((key_hash, leaf));
            if table == Table::Relationships {
                found
                    .lists
                    .extend(rows::relationship_of(row_key).map(|tuple| ListChange::created(&tuple.as_ref())));
            }
            self.derive(number, table, row_key, row);
            match self.expected.remove(&key_hash) {
                Some((_, expected)) if expected.leaf == leaf => {}
                Some((_, expected)) => {
                    self.problem(Problem::RowChanged { key: name, version: expected.version });
                }
                None if self.is_older_than_bodies(row) => {}
                None => self.problem(Problem::RowUnexplained { key: name }),
            }
            true
        });
        match scanned {
            Ok(()) => Ok(None),
            Err(StoreError::Corrupt { key, table }) => match crate::ledger_state::from_hex(&key) {
                Some(key) => Ok(Some(key)),
                None => Err(StoreError::Corrupt { key, table }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn corrupt_row(&mut self, table: Table, row_key: &[u8]) {
        let key = match named(table, row_key) {
            Some((key_hash, name)) => {
                self.expected.remove(&key_hash);
                name
            }
            None => format!("a row of {} with an invalid key", table.name()),
        };
        self.problem(Problem::RowCorrupt { key });
    }
}

/// A corrupt row counts as one that is not there: the caller names its block.
fn readable(row: Result<Option<Bytes>, StoreError>) -> Result<Option<Bytes>, StateError> {
    match row {
        Err(StoreError::Corrupt { .. }) => Ok(None),
        other => Ok(other?),
    }
}

/// Key hash and name of what a row is about.
fn named(table: Table, row_key: &[u8]) -> Option<(Hash, String)> {
    if table == Table::Entities {
        let entity = rows::entity_of(row_key)?;
        let key = StateKey::Entity { key: entity.as_str() };
        return Some((key.hash(), describe(&key)));
    }
    let tuple = rows::relationship_of(row_key)?;
    let key = StateKey::Relationship(tuple.as_ref());
    Some((key.hash(), describe(&key)))
}

fn describe(key: &StateKey<'_>) -> String {
    match key {
        StateKey::Entity { key } => (*key).to_owned(),
        StateKey::Relationship(tuple) => format!("{} {} {}", tuple.resource, tuple.relation, tuple.subject),
    }
}
