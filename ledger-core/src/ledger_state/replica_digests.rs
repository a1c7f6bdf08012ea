//! What replicas are compared by beside the blocks of their vaults: which idempotency keys they remember, and who belongs
//! to the cluster. Neither is in a state root.
//!
//! Two replicas are hardly ever at the same entry at the same moment. So each keeps, beside what it has now, what it had
//! before the first entry of each of the last seconds of log time: entries and their times are the same everywhere, and
//! so are these points.

use std::collections::{BTreeSet, VecDeque};

use ledger_verify::Hash;
use ledger_verify::hash::sha256;

use super::LedgerState;
use crate::names::{VaultId, VaultNumber};

/// Points that are kept: as many seconds of log time, or more when nothing is written.
const POINTS_MAX: usize = 8;
/// Log time between two points.
const POINT_INTERVAL_MS: u64 = 1_000;

/// What a replica has, beside blocks, once it has applied an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaDigests {
    /// The entry.
    pub index: u64,
    /// What is remembered of the keys of each vault that is not deleted, by number; without vaults of which nothing is.
    pub vaults: Vec<VaultDigest>,
    /// SHA-256 of the membership as the node encoded it.
    pub membership: Hash,
}

/// What a replica remembers of a vault's idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultDigest {
    /// The vault's number in row keys.
    pub number: VaultNumber,
    /// Equal on two replicas that remember the same.
    pub digest: Hash,
}

impl ReplicaDigests {
    /// One digest over those of all vaults.
    pub fn idempotency(&self) -> Hash {
        let parts = self.vaults.iter().map(|vault| (vault.number.0.to_be_bytes(), vault.digest));
        let bytes: Vec<u8> = parts.flat_map(|(number, digest)| number.into_iter().chain(digest)).collect();
        sha256(&[&bytes])
    }
}

/// The points that are kept, oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentDigests {
    points: VecDeque<ReplicaDigests>,
    /// The second of log time in which the newest entry was.
    second: Option<u64>,
}

impl LedgerState {
    /// Points at which this replica can be compared with others, oldest first; the last one is now. None while a vault is
    /// fenced: what its writes will be remembered by is not there yet.
    pub fn replica_digests(&self) -> Vec<ReplicaDigests> {
        let mut points: Vec<ReplicaDigests> = self.digests.points.iter().cloned().collect();
        let now =
            self.applied.filter(|_| !self.is_any_fenced()).map(|applied| self.digests_at(applied.index));
        points.extend(now);
        points
    }

    /// The vault of a number in row keys.
    pub fn vault_of_number(&self, number: VaultNumber) -> Option<VaultId> {
        self.vaults.iter().find(|(_, vault)| vault.number == number).map(|(id, _)| *id)
    }

    /// Called before each entry that has a time.
    pub(super) fn note_digests(&mut self, time_ms: u64) {
        let second = time_ms.max(self.log_time_ms()) / POINT_INTERVAL_MS;
        let before = self.digests.second.replace(second);
        // The first entry since the node has opened: when the second began is not known.
        let Some(applied) = self.applied.filter(|_| before.is_some_and(|before| before != second)) else {
            return;
        };
        if self.is_any_fenced() {
            return;
        }
        let point = self.digests_at(applied.index);
        if self.digests.points.len() >= POINTS_MAX {
            self.digests.points.pop_front();
        }
        self.digests.points.push_back(point);
    }

    fn is_any_fenced(&self) -> bool {
        self.vaults.values().any(|vault| vault.fence.is_some())
    }

    fn digests_at(&self, index: u64) -> ReplicaDigests {
        // Of a deleted vault nothing is asked any more, and a replica on which it was fenced never remembered all of it.
        let alive: BTreeSet<VaultNumber> = self.vaults.values().map(|vault| vault.number).collect();
        let sums = self.idempotency.sums().filter(|(number, _)| alive.contains(number));
        let vaults = sums.map(|(number, digest)| VaultDigest { number, digest }).collect();
        ReplicaDigests { index, vaults, membership: sha256(&[&self.membership]) }
    }
}
