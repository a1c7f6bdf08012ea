//! Exactly once: which keys were used, with what answer, and for how long that is remembered.
//!
//! A record is dropped only in log order and only inside apply, so every replica forgets at the same
//! entry. Whatever was dropped lies behind the floor, and a key behind the floor is refused, never
//! applied again.

use std::collections::{HashMap, VecDeque};

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

    pub(super) fn remember(&mut self, block: RememberedBlock, digests: impl Iterator<Item = KeyDigest>) {
        for (position, digest) in (0_u32..).zip(digests) {
            if is_planted(PlantedBug::DropIdempotencyRecord)
                && digest.first().is_some_and(|byte| byte % 4 == 0)
            {
                continue;
            }
            let place = RecordPlace { log_index: block.log_index, vault: block.vault, position };
            self.places.insert(digest, place);
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

    pub(super) fn forget_oldest(&mut self, digests: impl Iterator<Item = KeyDigest>) {
        self.blocks.pop_front();
        for digest in digests {
            self.places.remove(&digest);
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
