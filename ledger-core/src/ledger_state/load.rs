//! Opening: from rows back to trees, checked against the newest headers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::hash::sha256;
use ledger_verify::header::{BlockHeader, HEADER_VERSION_WITHOUT_LISTS};
use ledger_verify::state::StateKey;

use super::evidence::Tiles;
use super::fence;
use super::idempotency::{IdempotencyIndex, RememberedBlock};
use super::journal::Journal;
use super::lists::{ListRows, with_lists};
use super::replica_digests::RecentDigests;
use super::{LedgerState, Namespace, StateError, Vault, inconsistent, known_header_version};
use crate::access_token::{AccessToken, AccessTokens};
use crate::codec;
use crate::command::Fence;
use crate::list_sets::ListSets;
use crate::log_tree::{LogTree, TILE_WIDTH};
use crate::names::{NamespaceName, VaultId, VaultNumber, VaultRef};
use crate::overlay::Overlay;
use crate::ports::{ScanRange, StateStore, StoreError, Table};
use crate::rows::{self, HorizonRow, IdempotencyRow, LedgerRow, NamespaceRow, VaultRow};
use crate::state_tree::StateTree;

pub(super) fn load(store: Arc<dyn StateStore>) -> Result<LedgerState, StateError> {
    let applied = store.applied()?;
    let overlay = Overlay::new(store);
    let identity = overlay.get(Table::Ledger, rows::LEDGER_KEY)?;
    let identity: Option<LedgerRow> =
        identity.map(|row| codec::decode("the ledger row", &row)).transpose()?;
    let header_version = header_version(&overlay)?;
    let cluster_id = cluster_id(&overlay)?;
    let mut state = LedgerState {
        applied: applied.as_ref().map(|applied| applied.last_applied),
        membership: applied.map(|applied| applied.membership).unwrap_or_default(),
        identity,
        namespaces: namespaces(&overlay)?,
        vaults: BTreeMap::new(),
        vault_ids_used: BTreeSet::new(),
        idempotency: idempotency(&overlay)?,
        key_count: 0,
        header_version,
        cluster_id,
        tokens: Arc::new(tokens(&overlay)?),
        journal: Journal::load(&overlay)?,
        digests: RecentDigests::default(),
        overlay,
    };
    load_vaults(&mut state)?;
    Ok(state)
}

fn header_version(overlay: &Overlay) -> Result<u16, StateError> {
    let Some(row) = overlay.get(Table::Ledger, rows::HEADER_VERSION_KEY)? else {
        return Ok(HEADER_VERSION_WITHOUT_LISTS);
    };
    let version = <[u8; 2]>::try_from(row.as_ref())
        .map_err(|_| inconsistent("the row of the header version has another length than 2"))?;
    known_header_version(u16::from_be_bytes(version))
}

fn cluster_id(overlay: &Overlay) -> Result<Option<[u8; 16]>, StateError> {
    let row = overlay.get(Table::Ledger, rows::CLUSTER_KEY)?;
    let id = |row: Bytes| {
        <[u8; 16]>::try_from(row.as_ref())
            .map_err(|_| inconsistent("the row of the cluster's identity has another length than 16"))
    };
    row.map(id).transpose()
}

fn tokens(overlay: &Overlay) -> Result<AccessTokens, StateError> {
    let mut tokens = AccessTokens::default();
    each(overlay, Table::Ledger, rows::TOKEN_PREFIX.to_vec(), |key, row| {
        let token: AccessToken = codec::decode("a token row", row)?;
        if rows::token_key(token.id) != key {
            return Err(inconsistent("a token row has the key of another token"));
        }
        tokens.insert(token);
        Ok(())
    })?;
    Ok(tokens)
}

fn namespaces(overlay: &Overlay) -> Result<BTreeMap<NamespaceName, Namespace>, StateError> {
    let mut namespaces = BTreeMap::new();
    each(overlay, Table::Namespaces, Vec::new(), |key, row| {
        let row: NamespaceRow = codec::decode("a namespace row", row)?;
        let name = std::str::from_utf8(key).ok().and_then(|name| NamespaceName::new(name).ok());
        let name = name.ok_or_else(|| inconsistent("a namespace row has no valid name"))?;
        namespaces.insert(name, Namespace { created_at_ms: row.created_at_ms, vaults: BTreeMap::new() });
        Ok(())
    })?;
    Ok(namespaces)
}

fn idempotency(overlay: &Overlay) -> Result<IdempotencyIndex, StateError> {
    let mut index = IdempotencyIndex::default();
    each(overlay, Table::Idempotency, Vec::new(), |key, stored| {
        let row: IdempotencyRow = codec::decode("an idempotency row", stored)?;
        let (log_index, vault) =
            rows::idempotency_of(key).ok_or_else(|| inconsistent("an idempotency row has no valid key"))?;
        let block = RememberedBlock { log_index, vault, time_ms: row.time_ms };
        index.remember(block, stored, row.records.iter().map(|record| record.digest));
        Ok(())
    })?;
    Ok(index)
}

fn load_vaults(state: &mut LedgerState) -> Result<(), StateError> {
    let mut stored = Vec::new();
    each(&state.overlay, Table::Vaults, Vec::new(), |key, row| {
        let number = <[u8; 8]>::try_from(key).map_err(|_| inconsistent("a vault row has no valid number"))?;
        let (row, horizon) = rows::decode_vault(row)?;
        stored.push((VaultNumber(u64::from_be_bytes(number)), row, horizon));
        Ok(())
    })?;
    let log_time_ms = state.log_time_ms();
    for (number, row, horizon) in stored {
        state.vault_ids_used.insert(row.id);
        if row.deleted_at_ms.is_some() {
            continue;
        }
        let name = VaultRef { namespace: row.namespace.clone(), vault: row.name.clone() };
        let namespace = state.namespaces.get_mut(&row.namespace);
        let namespace = namespace.ok_or_else(|| inconsistent(format!("vault {name} has no namespace")))?;
        namespace.vaults.insert(row.name.clone(), row.id);
        let vault = load_vault(&mut state.overlay, number, name, (&row, horizon), log_time_ms)?;
        state.key_count += vault.key_count();
        state.vaults.insert(row.id, vault);
    }
    Ok(())
}

/// Loads a vault, or fences it when its rows do not fit its newest header. A header that cannot be read is an
/// error: nothing says then what the rows should be.
fn load_vault(
    overlay: &mut Overlay,
    number: VaultNumber,
    name: VaultRef,
    (row, horizon): (&VaultRow, Option<HorizonRow>),
    log_time_ms: u64,
) -> Result<Vault, StateError> {
    let header = BlockHeader::decode(&row.header).map_err(|error| {
        inconsistent(format!("the newest header of vault {name} does not decode: {error}"))
    })?;
    if VaultId(header.vault_id) != row.id {
        return Err(inconsistent(format!("the newest header of vault {name} is another vault's")));
    }
    let stored_fence = fence::stored(overlay, number)?;
    let (trees, fence) = match (trees(overlay, number, &name, &header), stored_fence) {
        (Ok(trees), None) => (trees, None),
        (Ok(_), Some(fence)) => (Trees::default(), Some(fence)),
        (Err(error), stored) => {
            let new = Misfit::of(error)?.fence(&header, log_time_ms);
            let fence = stored.unwrap_or(new);
            fence::store(overlay, number, &fence)?;
            (Trees::default(), Some(fence))
        }
    };
    let block_hash = header.leaf_hash();
    let horizon = horizon.unwrap_or_else(|| HorizonRow::of_format_1(header.height));
    let created_at_ms = row.created_at_ms;
    let Trees { tree, lists, log } = trees;
    Ok(Vault { number, name, created_at_ms, header, block_hash, tree, lists, log, horizon, fence })
}

/// What is rebuilt of a vault; empty while it is fenced.
#[derive(Default)]
struct Trees {
    tree: StateTree,
    lists: ListSets,
    log: LogTree,
}

/// What is stored of a vault and does not fit.
struct Misfit {
    computed_root: Option<Hash>,
    what: String,
}

enum TreesError {
    Root(Hash),
    State(StateError),
}

impl From<StateError> for TreesError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl Misfit {
    /// A store that fails as a whole is no matter of one vault: that error is returned.
    fn of(error: TreesError) -> Result<Self, StateError> {
        match error {
            TreesError::Root(computed) => Ok(Self {
                computed_root: Some(computed),
                what: "the stored rows do not have the state root of the newest block".to_owned(),
            }),
            TreesError::State(StateError::Store(error)) if !matches!(error, StoreError::Corrupt { .. }) => {
                Err(error.into())
            }
            TreesError::State(StateError::Store(StoreError::Corrupt { table, key })) => {
                Ok(Self { computed_root: None, what: corrupt_row(table, &key) })
            }
            TreesError::State(StateError::Inconsistent { what }) => Ok(Self { computed_root: None, what }),
            TreesError::State(error) => Ok(Self { computed_root: None, what: error.to_string() }),
        }
    }

    fn fence(self, header: &BlockHeader, since_ms: u64) -> Fence {
        Fence {
            height: header.height,
            expected_root: header.state_root,
            computed_root: self.computed_root,
            what: self.what,
            since_ms,
        }
    }
}

/// What is corrupt, by the name that people know it by.
fn corrupt_row(table: &str, key: &str) -> String {
    // As the store writes it in its error: hexadecimal.
    let byte = |at| u8::from_str_radix(key.get(at..at + 2)?, 16).ok();
    let stored: Vec<u8> = (0..key.len()).step_by(2).map_while(byte).collect();
    let entity = (table == Table::Entities.name()).then(|| rows::entity_of(&stored)).flatten();
    let tuple = (table == Table::Relationships.name()).then(|| rows::relationship_of(&stored)).flatten();
    let row = match (entity, tuple) {
        (Some(entity), _) => format!("entity {}", entity.as_str()),
        (_, Some(tuple)) => format!("relationship {} {} {}", tuple.resource, tuple.relation, tuple.subject),
        (None, None) => format!("row {key} of {table}"),
    };
    format!("{row} is corrupt: its checksum does not match")
}

fn trees(
    overlay: &Overlay,
    number: VaultNumber,
    name: &VaultRef,
    header: &BlockHeader,
) -> Result<Trees, TreesError> {
    let (leaves, lists) = leaves(overlay, number)?;
    let tree = StateTree::from_leaves(with_lists(leaves, &lists, header));
    if tree.root() != header.state_root {
        return Err(TreesError::Root(tree.root()));
    }
    Ok(Trees { tree, lists, log: load_log(overlay, number, name, header)? })
}

/// Key hash and value hash of every entity and relationship of a vault, and the lists of its resources.
fn leaves(overlay: &Overlay, number: VaultNumber) -> Result<(Vec<(Hash, Hash)>, ListSets), StateError> {
    let mut leaves = Vec::new();
    each(overlay, Table::Entities, rows::vault_prefix(number), |key, row| {
        let key = rows::entity_of(key).ok_or_else(|| inconsistent("an entity row has no valid key"))?;
        leaves.push((StateKey::Entity { key: key.as_str() }.hash(), sha256(&[row])));
        Ok(())
    })?;
    let mut lists = ListRows::default();
    each(overlay, Table::Relationships, rows::vault_prefix(number), |key, row| {
        let tuple =
            rows::relationship_of(key).ok_or_else(|| inconsistent("a relationship row has no valid key"))?;
        leaves.push((StateKey::Relationship(tuple.as_ref()).hash(), sha256(&[row])));
        lists.push(&tuple);
        Ok(())
    })?;
    Ok((leaves, lists.finish()))
}

fn load_log(
    overlay: &Overlay,
    number: VaultNumber,
    name: &VaultRef,
    newest: &BlockHeader,
) -> Result<LogTree, StateError> {
    let size = newest.height.checked_add(1);
    let size = size.ok_or_else(|| inconsistent(format!("vault {name} claims an impossible height")))?;
    let first = size - size % TILE_WIDTH as u64;
    let mut tail = Vec::new();
    for height in first..size {
        let header = overlay.get(Table::Blocks, &rows::header_key(number, height))?;
        let header: Bytes =
            header.ok_or_else(|| inconsistent(format!("vault {name} has no block {height}")))?;
        tail.push(ledger_verify::hash::log_leaf(&header));
    }
    let log = LogTree::restore(size, &Tiles { overlay, vault: number }, &tail)
        .map_err(|error| inconsistent(format!("the log of vault {name} cannot be restored: {error}")))?;
    if tail.last().is_some_and(|last| *last != newest.leaf_hash()) {
        return Err(inconsistent(format!("the newest block of vault {name} is not the one in its log")));
    }
    Ok(log)
}

/// Visits every row under a prefix; the first error ends it.
pub(super) fn each(
    overlay: &Overlay,
    table: Table,
    prefix: Vec<u8>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let mut outcome = Ok(());
    overlay.scan(table, &ScanRange { prefix, start: Vec::new() }, &mut |key, row| {
        outcome = visit(key, row);
        outcome.is_ok()
    })?;
    outcome
}
