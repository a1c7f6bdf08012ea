//! Counters in memory, by policy and key.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::layout::RowKey;

/// A counter in memory, and what the disk has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// What decides.
    pub memory: u64,
    /// The word that is on the disk, or that a commit under way brings there. It is never behind the one in memory.
    pub written: u64,
}

/// The rows of one policy.
pub(super) type PolicyRows = BTreeMap<RowKey, Row>;

/// All rows. Those of a policy are taken out at once, however many they are.
#[derive(Debug, Default)]
pub(super) struct Rows {
    by_policy: BTreeMap<u32, PolicyRows>,
    len: usize,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: RowKey) -> Option<Row> {
        self.by_policy.get(&key.policy)?.get(&key).copied()
    }

    pub(super) fn get_mut(&mut self, key: RowKey) -> Option<&mut Row> {
        self.by_policy.get_mut(&key.policy)?.get_mut(&key)
    }

    /// Puts a row in. Whether the key is new.
    pub(super) fn insert(&mut self, key: RowKey, row: Row) -> bool {
        let is_new = self.by_policy.entry(key.policy).or_default().insert(key, row).is_none();
        self.len = self.len.saturating_add(usize::from(is_new));
        is_new
    }

    pub(super) fn remove(&mut self, key: RowKey) -> Option<Row> {
        let row = self.by_policy.get_mut(&key.policy)?.remove(&key)?;
        self.len = self.len.saturating_sub(1);
        Some(row)
    }

    /// The rows of a policy.
    pub(super) fn of(&self, policy: u32) -> Option<&PolicyRows> {
        self.by_policy.get(&policy)
    }

    pub(super) fn len_of(&self, policy: u32) -> usize {
        self.of(policy).map_or(0, PolicyRows::len)
    }

    /// The rows behind a key, in their order.
    pub(super) fn behind(&self, key: Option<RowKey>) -> impl Iterator<Item = (RowKey, Row)> {
        let policies = self.by_policy.range(key.map_or(0, |key| key.policy)..);
        policies.flat_map(move |(_, rows)| behind(rows, key))
    }

    /// Takes all rows of a policy out.
    pub(super) fn take(&mut self, policy: u32) -> PolicyRows {
        let rows = self.by_policy.remove(&policy).unwrap_or_default();
        self.len = self.len.saturating_sub(rows.len());
        rows
    }

    /// Puts the rows of a policy in that had none.
    pub(super) fn put(&mut self, policy: u32, rows: PolicyRows) {
        self.take(policy);
        self.len = self.len.saturating_add(rows.len());
        self.by_policy.insert(policy, rows);
    }
}

impl FromIterator<(RowKey, Row)> for Rows {
    fn from_iter<I: IntoIterator<Item = (RowKey, Row)>>(rows: I) -> Self {
        let mut all = Self::default();
        for (key, row) in rows {
            all.insert(key, row);
        }
        all
    }
}

/// The rows of a policy behind a key, in their order.
pub(super) fn behind(rows: &PolicyRows, key: Option<RowKey>) -> impl Iterator<Item = (RowKey, Row)> {
    let from = key.map_or(Bound::Unbounded, Bound::Excluded);
    rows.range((from, Bound::Unbounded)).map(|(key, row)| (*key, *row))
}
