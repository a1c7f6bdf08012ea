//! Rows that are applied but not yet in the state store, in front of it.
//!
//! Apply writes to the active layer. A flush freezes that layer, writes it to the store as one batch
//! and then drops it; readers look in the active layer, the frozen one, the store, in this order.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;

use crate::ports::{AppliedState, RowChange, ScanRange, StateBatch, StateStore, StoreError, Table};

/// Bookkeeping of a row beside its key and value, for the byte count.
const ROW_OVERHEAD_BYTES: usize = 96;

type Rows = BTreeMap<Vec<u8>, Option<Bytes>>;

/// The changes of whole log entries.
#[derive(Debug, Default)]
struct Layer {
    tables: [Rows; Table::NUMBERS],
    dropped_vaults: Vec<u64>,
    bytes: usize,
}

impl Layer {
    fn rows(&self, table: Table) -> &Rows {
        const EMPTY: &Rows = &Rows::new();
        self.tables.get(table as usize).unwrap_or(EMPTY)
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Option<Bytes>) {
        let added = key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES;
        if let Some(rows) = self.tables.get_mut(table as usize) {
            let key_bytes = key.len();
            if let Some(old) = rows.insert(key, value) {
                let replaced = key_bytes + old.map_or(0, |v| v.len()) + ROW_OVERHEAD_BYTES;
                self.bytes = self.bytes.saturating_sub(replaced);
            }
            self.bytes += added;
        }
    }

    fn drop_vault(&mut self, number: u64) {
        let prefix = number.to_be_bytes();
        for table in Table::ALL.into_iter().filter(|table| table.is_per_vault()) {
            if let Some(rows) = self.tables.get_mut(table as usize) {
                rows.retain(|key, _| !key.starts_with(&prefix));
            }
        }
        self.dropped_vaults.push(number);
    }

    fn is_empty(&self) -> bool {
        self.dropped_vaults.is_empty() && self.tables.iter().all(BTreeMap::is_empty)
    }

    fn range<'a>(
        &'a self,
        table: Table,
        range: &ScanRange,
    ) -> Peekable<btree_map::Range<'a, Vec<u8>, Option<Bytes>>> {
        let start = range.start.as_slice().max(range.prefix.as_slice()).to_vec();
        self.rows(table).range(start..).peekable()
    }
}

/// A frozen layer on its way to the store.
#[derive(Debug, Clone)]
pub struct FlushJob {
    layer: Arc<Layer>,
    applied: AppliedState,
}

impl FlushJob {
    /// The batch to commit. Costs a copy of the keys: call it outside any lock.
    pub fn batch(&self) -> StateBatch {
        let rows_of = |table: Table| {
            self.layer.rows(table).iter().map(move |(key, value)| RowChange {
                table,
                key: key.clone(),
                value: value.clone(),
            })
        };
        StateBatch {
            dropped_vaults: self.layer.dropped_vaults.clone(),
            rows: Table::ALL.into_iter().flat_map(rows_of).collect(),
            applied: self.applied.clone(),
        }
    }

    /// How far the store goes once the batch is committed.
    pub fn applied(&self) -> &AppliedState {
        &self.applied
    }

    /// Roughly what the batch weighs, in bytes.
    pub fn bytes(&self) -> usize {
        self.layer.bytes
    }
}

/// The store with the layers in front of it.
pub(crate) struct Overlay {
    store: Arc<dyn StateStore>,
    active: Layer,
    frozen: Option<Arc<Layer>>,
}

impl Overlay {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, active: Layer::default(), frozen: None }
    }

    /// Lets the layers stand in front of another store, which has the same rows.
    pub(crate) fn move_to(&mut self, store: Arc<dyn StateStore>) {
        self.store = store;
    }

    /// Bytes of both layers.
    pub(crate) fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.as_ref().map_or(0, |layer| layer.bytes)
    }

    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, value: impl Into<Bytes>) {
        self.active.put(table, key, Some(value.into()));
    }

    pub(crate) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.active.put(table, key, None);
    }

    /// Removes every row of a vault, here now and in the store with the next flush.
    pub(crate) fn drop_vault(&mut self, number: u64) {
        self.active.drop_vault(number);
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let layers = [Some(&self.active), self.frozen.as_deref()];
        for layer in layers.into_iter().flatten() {
            if let Some(value) = layer.rows(table).get(key) {
                return Ok(value.clone());
            }
        }
        self.store.get(table, key)
    }

    /// Rows of a range in key order, layers and store merged, until `visit` returns `false`.
    pub(crate) fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut merged = Merged {
            active: self.active.range(table, range),
            frozen: self.frozen.as_deref().map(|layer| layer.range(table, range)),
            prefix: &range.prefix,
        };
        let mut stopped = false;
        self.store.scan(table, range, &mut |key, value| {
            while let Some((newer_key, newer)) = merged.next_through(key) {
                if let Some(newer) = newer
                    && !visit(newer_key.as_slice(), newer.as_ref())
                {
                    stopped = true;
                    return false;
                }
                if newer_key == key {
                    return true;
                }
            }
            stopped = !visit(key, value);
            !stopped
        })?;
        while !stopped {
            let Some((key, value)) = merged.next_row() else { break };
            stopped = value.as_ref().is_some_and(|value| !visit(key, value));
        }
        Ok(())
    }

    /// Freezes the active layer; `None` when there is nothing to write or a flush is under way.
    pub(crate) fn start_flush(&mut self, applied: AppliedState) -> Option<FlushJob> {
        if self.frozen.is_some() || self.active.is_empty() {
            return None;
        }
        let layer = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(Arc::clone(&layer));
        Some(FlushJob { layer, applied })
    }

    /// Drops the frozen layer: the store has it now.
    pub(crate) fn finish_flush(&mut self) {
        self.frozen = None;
    }
}

type LayerRow<'a> = (&'a Vec<u8>, &'a Option<Bytes>);

/// The rows of both layers in key order; the active layer's row hides the frozen one's.
struct Merged<'a> {
    active: Peekable<btree_map::Range<'a, Vec<u8>, Option<Bytes>>>,
    frozen: Option<Peekable<btree_map::Range<'a, Vec<u8>, Option<Bytes>>>>,
    prefix: &'a [u8],
}

impl<'a> Merged<'a> {
    /// The next row whose key is at most `limit`.
    fn next_through(&mut self, limit: &[u8]) -> Option<LayerRow<'a>> {
        (self.peek_key()?.as_slice() <= limit).then(|| self.next_row()).flatten()
    }

    fn next_row(&mut self) -> Option<LayerRow<'a>> {
        let key = self.peek_key()?;
        if !key.starts_with(self.prefix) {
            return None;
        }
        let frozen = self.frozen.as_mut().and_then(|rows| rows.next_if(|(k, _)| *k == key));
        self.active.next_if(|(k, _)| *k == key).or(frozen)
    }

    fn peek_key(&mut self) -> Option<&'a Vec<u8>> {
        let active = self.active.peek().map(|(key, _)| *key);
        let frozen = self.frozen.as_mut().and_then(Peekable::peek).map(|(key, _)| *key);
        match (active, frozen) {
            (Some(a), Some(f)) => Some(a.min(f)),
            (a, f) => a.or(f),
        }
    }
}
