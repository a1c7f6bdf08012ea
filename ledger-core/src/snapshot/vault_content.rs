//! One vault of a snapshot, rebuilt from its rows and held to its headers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use ledger_verify::hash::sha256;
use ledger_verify::header::BlockHeader;
use ledger_verify::{Hash, hash, log};
use sha2::{Digest, Sha256};

use super::VaultEntry;
use super::leaves::LeafCollector;
use crate::list_sets::ListSets;
use crate::log_tree::LogTree;
use crate::relationship::Relationship;
use crate::rows;
use crate::state_tree::StateTree;

/// What does not fit.
type Fault = String;

/// What is kept of a vault for whoever goes on from a snapshot.
pub(crate) struct KeptVault {
    pub tip: BlockHeader,
    pub tree: StateTree,
    pub lists: ListSets,
    pub log: LogTree,
    /// Roots that the log had at the sizes that were asked for.
    pub roots: BTreeMap<u64, Hash>,
}

/// What is rebuilt of a vault while its rows pass, in the order of the tables.
pub(super) struct VaultContent {
    pub tip: BlockHeader,
    pub keys: u64,
    leaves: LeafCollector,
    /// Every entity and relationship, once all are there.
    tree: StateTree,
    relationships: u64,
    by_subject: u64,
    /// Hashes of the expiry keys that the entities call for.
    expiring: HashSet<Hash>,
    log: LogTree,
    previous: BlockHeader,
    next_height: u64,
    /// A block whose transactions have not come yet.
    bodyless: Option<u64>,
    pub first_body: Option<u64>,
    /// By level: running hash over the tiles that the headers make, and over those that stand there.
    tiles: BTreeMap<u8, (Sha256, Sha256)>,
    /// Sizes of the log whose root is asked for; `None` = nothing is kept of the vault.
    asked: Option<BTreeSet<u64>>,
    lists: ListSets,
    roots: BTreeMap<u64, Hash>,
}

impl VaultContent {
    pub(super) fn new(entry: &VaultEntry, asked: Option<BTreeSet<u64>>) -> Result<Self, Fault> {
        let tip = BlockHeader::decode(&entry.header)
            .map_err(|error| format!("its newest header does not decode: {error}"))?;
        if tip.vault_id != entry.id.0 {
            return Err("its newest header is another vault's".to_owned());
        }
        Ok(Self {
            tip,
            keys: 0,
            leaves: LeafCollector::default(),
            tree: StateTree::new(),
            relationships: 0,
            by_subject: 0,
            expiring: HashSet::new(),
            log: LogTree::new(),
            previous: tip,
            next_height: 0,
            bodyless: None,
            first_body: None,
            tiles: BTreeMap::new(),
            asked,
            lists: ListSets::new(),
            roots: BTreeMap::new(),
        })
    }

    pub(super) fn entity(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.keys += 1;
        let expires_at_ms = self.leaves.entity(key, value).ok_or("an entity row does not decode")?;
        if expires_at_ms > 0 {
            let name = key.get(8..).unwrap_or_default();
            self.expiring.insert(sha256(&[&expires_at_ms.to_be_bytes(), name]));
        }
        Ok(())
    }

    pub(super) fn relationship(&mut self, key: &[u8], value: &Bytes) -> Result<(), Fault> {
        self.keys += 1;
        self.relationships += 1;
        self.leaves.relationship(key, value).ok_or_else(|| "a relationship row does not decode".to_owned())
    }

    /// All entities and relationships have passed: they have the state root of the newest header.
    pub(super) fn finish_state(&mut self) -> Result<(), Fault> {
        let (tree, lists) = std::mem::take(&mut self.leaves).finish(&self.tip);
        self.tree = tree;
        if self.asked.is_some() {
            self.lists = lists;
        }
        if self.tree.root() == self.tip.state_root {
            Ok(())
        } else {
            Err(format!("its rows do not have the state root of its block {}", self.tip.height))
        }
    }

    /// The index by subject names relationships that are there, each once; as many as there are.
    pub(super) fn by_subject(&mut self, key: &[u8]) -> Result<(), Fault> {
        let tuple = rows::relationship_by_subject_of(key);
        let known = tuple.is_some_and(|tuple: Relationship| {
            let key = ledger_verify::state::StateKey::Relationship(tuple.as_ref());
            self.tree.get(&key.hash()).is_some()
        });
        self.by_subject += 1;
        if known {
            Ok(())
        } else {
            Err("its index by subject names a relationship that is not there".to_owned())
        }
    }

    pub(super) fn expiry(&mut self, key: &[u8]) -> Result<(), Fault> {
        let (time, entity) = rows::expiry_of(key).ok_or("an expiry row does not decode")?;
        let known = self.expiring.remove(&sha256(&[&time.to_be_bytes(), entity.as_str().as_bytes()]));
        if known {
            Ok(())
        } else {
            Err(format!("{} has an expiry row but does not expire then", entity.as_str()))
        }
    }

    /// A row of the blocks: the header of a height, or after it the transactions.
    pub(super) fn block(&mut self, key: &[u8], value: &Bytes) -> Result<(), Fault> {
        let rest = key.get(8..).unwrap_or_default();
        let (height, kind) = rest.split_first_chunk::<8>().ok_or("a block row has no height")?;
        let height = u64::from_be_bytes(*height);
        match kind {
            [0] => self.header(height, value),
            [1] => self.body(height, value),
            _ => Err(format!("block {height} has a row of an unknown kind")),
        }
    }

    fn header(&mut self, height: u64, value: &[u8]) -> Result<(), Fault> {
        self.end_of_block()?;
        let header = BlockHeader::decode(value)
            .map_err(|error| format!("the header of block {height} does not decode: {error}"))?;
        if height != self.next_height || height > self.tip.height {
            return Err(format!("block {height} stands where block {} belongs", self.next_height));
        }
        let previous = if height == 0 { [0; 32] } else { self.previous.leaf_hash() };
        let belongs = header.ledger_id == self.tip.ledger_id && header.vault_id == self.tip.vault_id;
        if header.height != height || header.previous != previous || !belongs {
            return Err(format!("block {height} does not continue the block before it"));
        }
        for tile in self.log.append(header.leaf_hash()) {
            let (made, _) = self.tiles.entry(tile.level).or_default();
            made.update(tile.number.to_be_bytes());
            made.update(tile.hashes.concat());
        }
        if self.asked.as_ref().is_some_and(|sizes| sizes.contains(&self.log.size())) {
            self.roots.insert(self.log.size(), self.log.root());
        }
        self.bodyless = (header.tx_count > 0).then_some(height);
        self.previous = header;
        self.next_height = height + 1;
        Ok(())
    }

    fn body(&mut self, height: u64, value: &Bytes) -> Result<(), Fault> {
        if self.bodyless.take() != Some(height) {
            return Err(format!("block {height} has transactions that its header does not know"));
        }
        let transactions =
            rows::decode_body(value).ok_or_else(|| format!("the body of block {height} does not decode"))?;
        let leaves: Vec<Hash> = transactions.iter().map(|transaction| hash::log_leaf(transaction)).collect();
        let header = &self.previous;
        if log::root_of(&leaves) != header.tx_root || leaves.len() != header.tx_count as usize {
            return Err(format!(
                "the transactions of block {height} are not those that its header commits to"
            ));
        }
        self.first_body.get_or_insert(height);
        Ok(())
    }

    /// Bodies of old blocks may have been dropped, but none after the first that is there.
    fn end_of_block(&mut self) -> Result<(), Fault> {
        match (self.bodyless.take(), self.first_body) {
            (Some(height), Some(_)) => Err(format!("the transactions of block {height} are missing")),
            _ => Ok(()),
        }
    }

    pub(super) fn tile(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let rest = key.get(8..).unwrap_or_default();
        let (Some((level, number)), Some(_)) = (rest.split_first(), rows::decode_tile(value)) else {
            return Err("a tile of its log does not decode".to_owned());
        };
        let (_, found) = self.tiles.entry(*level).or_default();
        found.update(number);
        found.update(value);
        Ok(())
    }

    /// Every row has passed.
    pub(super) fn finish(&mut self, log_root: &Hash) -> Result<(), Fault> {
        self.end_of_block()?;
        if self.next_height != self.tip.height + 1 || self.previous != self.tip {
            return Err(format!("its blocks do not end with its block {}", self.tip.height));
        }
        if self.log.root() != *log_root {
            return Err(
                "its blocks do not have the log root that the header of the snapshot gives".to_owned()
            );
        }
        for (level, (made, found)) in std::mem::take(&mut self.tiles) {
            if made.finalize() != found.finalize() {
                return Err(format!("the tiles of level {level} are not those of its log"));
            }
        }
        if self.by_subject != self.relationships {
            return Err("its index by subject lacks relationships".to_owned());
        }
        if self.expiring.is_empty() { Ok(()) } else { Err("it lacks expiry rows".to_owned()) }
    }

    /// What was built, once it is finished.
    pub(super) fn keep(self) -> KeptVault {
        KeptVault { tip: self.tip, tree: self.tree, lists: self.lists, log: self.log, roots: self.roots }
    }
}
