//! Exactly once: which keys were used, with what answer, and for how long that is remembered.
//!
//! A record is dropped only in log order and only inside apply, so every replica forgets at the same
//! entry. Whatever was dropped lies behind the floor, and a key behind the floor is refused, never
//! applied again.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ledger_verify::Hash;
use sha2::{Digest, Sha256};

use crate::names::{VaultId, VaultNumber};
use crate::planted_bugs::{PlantedBug, is_planted};
use crate::transaction::{Actor, IdempotencyKey};

/// How long a key is remembered, in log time.
pub(super) const WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// How far a key may lie ahead of log time.
pub(super) const AHEAD_MS: u64 = 5 * 60 * 1_000;
/// Records per ledger.
pub(super) const RECORDS_MAX: usize = 4_000_000;

/// Names a key within its scope: vault, actor, key.
pub(super) type KeyDigest = [u8; 16];

/// Where the record of a key stands: its block's row, and the position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub log_index: u64,
    pub vault: VaultNumber,
    pub position: u32,
}

/// The block rows in log order and where each remembered key is.
#[derive(Debug, Default)]
pub(super) struct IdempotencyIndex {
    places: HashMap<KeyDigest, RecordPlace>,
    blocks: VecDeque<RememberedBlock>,
    /// Of every vault of which anything is remembered; as many as vaults at most.
    sums: BTreeMap<VaultNumber, RememberedSum>,
}

/// What is remembered of a vault, as a number that does not depend on the order in which it came: the sum, modulo
/// 2^256, of the SHA-256 of every row and of every key's place. Two nodes that remember the same have the same sum, also
/// when one of them was restarted or has recovered the vault. It finds faults; it is no defence against somebody who
/// chooses what is summed.
#[derive(Debug, Clone, Copy, Default)]
struct RememberedSum {
    sum: [u64; 4],
    blocks: u64,
}

impl RememberedSum {
    fn add(&mut self, hash: &Hash) {
        let mut carry = false;
        for (word, added) in self.sum.iter_mut().zip(words(hash)) {
            let (sum, first) = word.overflowing_add(added);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
    }

    fn subtract(&mut self, hash: &Hash) {
        let mut borrow = false;
        for (word, removed) in self.sum.iter_mut().zip(words(hash)) {
            let (rest, first) = word.overflowing_sub(removed);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, first || second);
        }
    }

    /// Least significant byte first.
    fn bytes(&self) -> Hash {
        let mut bytes = [0; 32];
        let words = self.sum.iter().flat_map(|word| word.to_le_bytes());
        bytes.iter_mut().zip(words).for_each(|(to, from)| *to = from);
        bytes
    }
}

fn words(hash: &Hash) -> [u64; 4] {
    let (words, _) = hash.as_chunks::<8>();
    let mut found = [0; 4];
    found.iter_mut().zip(words).for_each(|(to, from)| *to = u64::from_le_bytes(*from));
    found
}

fn row_hash(row: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"strongroom remembered row 1");
    hasher.update(row);
    hasher.finalize().into()
}

fn place_hash(digest: &KeyDigest, place: &RecordPlace) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"strongroom remembered key 1");
    hasher.update(digest);
    hasher.update(place.log_index.to_be_bytes());
    hasher.update(place.vault.0.to_be_bytes());
    hasher.update(place.position.to_be_bytes());
    hasher.finalize().into()
}

/// One row of the idempotency table.
#[derive(Debug, Clone, Copy)]
pub(super) struct RememberedBlock {
    pub log_index: u64,
    pub vault: VaultNumber,
    pub time_ms: u64,
}

impl IdempotencyIndex {
    pub(super) fn place(&self, digest: &KeyDigest) -> Option<RecordPlace> {
        self.places.get(digest).copied()
    }

    /// What is remembered of each vault.
    pub(super) fn sums(&self) -> impl Iterator<Item = (VaultNumber, Hash)> {
        self.sums.iter().map(|(vault, sum)| (*vault, sum.bytes()))
    }

    /// `row` is the stored row of the block.
    pub(super) fn remember(
        &mut self,
        block: RememberedBlock,
        row: &[u8],
        digests: impl Iterator<Item = KeyDigest>,
    ) {
        let sum = self.sums.entry(block.vault).or_default();
        sum.add(&row_hash(row));
        sum.blocks += 1;
        for (position, digest) in (0_u32..).zip(digests) {
            if is_planted(PlantedBug::DropIdempotencyRecord)
                && digest.first().is_some_and(|byte| byte % 4 == 0)
            {
                continue;
            }
            let place = RecordPlace { log_index: block.log_index, vault: block.vault, position };
            sum.add(&place_hash(&digest, &place));
            if let Some(before) = self.places.insert(digest, place) {
                sum.subtract(&place_hash(&digest, &before));
            }
        }
        // In log order, whatever the order of the calls: a recovered vault's blocks come late.
        let order = |block: &RememberedBlock| (block.log_index, block.vault);
        let place = match self.blocks.back() {
            Some(newest) if order(newest) > order(&block) => {
                self.blocks.partition_point(|other| order(other) < order(&block))
            }
            _ => self.blocks.len(),
        };
        self.blocks.insert(place, block);
    }

    /// The oldest block, when it has to go: too old, or too many records.
    pub(super) fn due(&self, log_time_ms: u64) -> Option<RememberedBlock> {
        let oldest = self.blocks.front()?;
        let too_old = oldest.time_ms.saturating_add(WINDOW_MS + AHEAD_MS) < log_time_ms;
        (too_old || self.places.len() > RECORDS_MAX).then_some(*oldest)
    }

    /// `row` is the stored row of the oldest block.
    pub(super) fn forget_oldest(&mut self, row: &[u8], digests: impl Iterator<Item = KeyDigest>) {
        let Some(block) = self.blocks.pop_front() else { return };
        let sum = self.sums.entry(block.vault).or_default();
        sum.subtract(&row_hash(row));
        sum.blocks = sum.blocks.saturating_sub(1);
        for digest in digests {
            if let Some(place) = self.places.remove(&digest) {
                sum.subtract(&place_hash(&digest, &place));
            }
        }
        if sum.blocks == 0 {
            self.sums.remove(&block.vault);
        }
    }
}

/// First 16 bytes of SHA-256 over vault id, actor and key.
pub(super) fn key_digest(vault: VaultId, actor: &Actor, key: IdempotencyKey) -> KeyDigest {
    let mut hasher = Sha256::new();
    hasher.update(b"strongroom idempotency 1");
    hasher.update(vault.0);
    hasher.update(key.as_bytes());
    hasher.update(actor.as_str().as_bytes());
    first_16(&hasher.finalize())
}

/// First 16 bytes of SHA-256 over the encoded operations with their results.
pub(super) fn payload_digest(encoded_operations: &[u8]) -> [u8; 16] {
    first_16(&Sha256::digest(encoded_operations))
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = *from;
    }
    first
}
