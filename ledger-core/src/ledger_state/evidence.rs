//! Tips, blocks, and what proofs are made of.

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{StateKey, StateProof};

use super::read::ReadError;
use super::{LedgerState, Vault, inconsistent};
use crate::log_tree::{LogTreeError, TileError, TileSource};
use crate::names::{VaultId, VaultNumber};
use crate::overlay::Overlay;
use crate::ports::{StoreError, Table};
use crate::rows;

/// The newest block of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its header.
    pub header: BlockHeader,
    /// RFC 6962 leaf hash of the header.
    pub block_hash: Hash,
    /// Headers in the log: height + 1.
    pub size: u64,
    /// RFC 6962 root over all headers.
    pub log_root: Hash,
}

/// A block with its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: BlockHeader,
    /// Canonical transactions in order; none in the genesis block.
    pub transactions: Vec<Bytes>,
}

/// What stands, or does not stand, under a key at the newest block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEvidence {
    /// The encoded leaf value; `None` = absent.
    pub leaf: Option<Vec<u8>>,
    /// Proof to the header's state root.
    pub proof: StateProof,
    /// The newest header.
    pub header: BlockHeader,
}

/// Full tiles of a vault's log tree, from the overlay or the store.
pub(super) struct Tiles<'a> {
    pub overlay: &'a Overlay,
    pub vault: VaultNumber,
}

impl TileSource for Tiles<'_> {
    type Error = StoreError;

    fn tile(&self, level: u8, number: u64) -> Result<Vec<Hash>, StoreError> {
        let key = rows::tile_key(self.vault, level, number);
        let row = self.overlay.get(Table::Tiles, &key)?;
        row.as_deref().and_then(rows::decode_tile).ok_or_else(|| StoreError::Corrupt {
            table: Table::Tiles.name(),
            key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

impl LedgerState {
    /// A vault that may be read.
    pub(super) fn existing(&self, id: VaultId) -> Result<&Vault, ReadError> {
        let vault = self.vaults.get(&id).ok_or(ReadError::VaultNotFound)?;
        match &vault.fence {
            Some(fence) => Err(ReadError::VaultDiverged(Box::new(fence.clone()))),
            None => Ok(vault),
        }
    }

    /// Height, block hash and state root of every vault's newest block, fenced vaults not counted: what replicas compare.
    pub fn tips(&self) -> impl Iterator<Item = (VaultId, u64, Hash, Hash)> {
        let readable = self.vaults.iter().filter(|(_, vault)| vault.fence.is_none());
        readable.map(|(id, vault)| (*id, vault.header.height, vault.block_hash, vault.header.state_root))
    }

    /// The newest block.
    pub fn tip(&self, id: VaultId) -> Result<Tip, ReadError> {
        let vault = self.existing(id)?;
        let size = vault.log.size();
        Ok(Tip { header: vault.header, block_hash: vault.block_hash, size, log_root: vault.log.root() })
    }

    /// A block by height; `None` when the vault is not that high yet, an error when its body was dropped.
    pub fn block(&self, id: VaultId, height: u64) -> Result<Option<Block>, ReadError> {
        let vault = self.existing(id)?;
        if height > vault.header.height {
            return Ok(None);
        }
        let header = self.stored_header(vault, height)?;
        let transactions = if header.tx_count == 0 { Vec::new() } else { self.body(vault, height)? };
        Ok(Some(Block { header, transactions }))
    }

    /// The leaf under a key, or its absence, proved to the newest state root.
    pub fn state_evidence(&self, id: VaultId, key: &StateKey<'_>) -> Result<StateEvidence, ReadError> {
        let vault = self.existing(id)?;
        let key_hash = key.hash();
        let leaf = if vault.tree.get(&key_hash).is_some() {
            let (table, row_key) = match key {
                StateKey::Entity { key } => (Table::Entities, rows::entity_key(vault.number, key)),
                StateKey::Relationship(tuple) => {
                    (Table::Relationships, rows::relationship_ref_key(vault.number, tuple))
                }
            };
            let row = self.overlay.get(table, &row_key)?;
            let row =
                row.ok_or_else(|| inconsistent(format!("vault {} has a leaf without a row", vault.name)))?;
            Some(row.to_vec())
        } else {
            None
        };
        Ok(StateEvidence { leaf, proof: vault.tree.prove(&key_hash), header: vault.header })
    }

    /// RFC 6962 inclusion path of the header at `height` in the tree of the first `size` headers.
    pub fn inclusion_path(&self, id: VaultId, height: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        let vault = self.existing(id)?;
        vault
            .log
            .inclusion_path(height, size, &self.tiles(vault))
            .map_err(|error| unavailable(error, height, vault))
    }

    /// RFC 6962 consistency path between the trees of the first `old` and the first `new` headers.
    pub fn consistency_path(&self, id: VaultId, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        let vault = self.existing(id)?;
        vault
            .log
            .consistency_path(old, new, &self.tiles(vault))
            .map_err(|error| unavailable(error, old.max(new), vault))
    }

    /// RFC 6962 root over the first `size` headers.
    pub fn log_root_at(&self, id: VaultId, size: u64) -> Result<Hash, ReadError> {
        let vault = self.existing(id)?;
        vault.log.root_at(size, &self.tiles(vault)).map_err(|error| unavailable(error, size, vault))
    }

    fn tiles<'a>(&'a self, vault: &Vault) -> Tiles<'a> {
        Tiles { overlay: &self.overlay, vault: vault.number }
    }
}

fn unavailable(error: LogTreeError<StoreError>, asked: u64, vault: &Vault) -> ReadError {
    match error {
        LogTreeError::Tile(TileError::Source { source, .. }) => ReadError::State(source.into()),
        LogTreeError::Tile(other) => ReadError::State(inconsistent(other.to_string())),
        _ => ReadError::HeightUnavailable { asked, height: vault.header.height },
    }
}
