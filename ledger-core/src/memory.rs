//! Stores in memory: the contracts of the [`ports`](crate::ports) made executable, for tests and for
//! ephemeral ledgers. They cannot corrupt a row and nothing survives the process.
//!
//! A [`MemoryLogDisk`] or [`MemoryStateDisk`] plays the disk: a store that is dropped and opened on it
//! again finds all that was committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::names::VaultId;
use crate::ports::{
    AppliedState, BatchRefused, InstallOrder, LogChange, LogExtent, LogId, LogRecord, LogSnapshot, LogStore,
    RowChange, ScanRange, SignedMark, StateBatch, StateInstall, StateStore, StateView, StoreError,
    StoredVote, Table,
};

/// What stays of a [`MemoryLogStore`] when it is dropped; clones share the content.
#[derive(Debug, Clone, Default)]
pub struct MemoryLogDisk(Arc<Mutex<LogImage>>);

#[derive(Debug, Default)]
struct LogImage {
    vote: Option<StoredVote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    records: BTreeMap<u64, LogRecord>,
    signed: BTreeMap<VaultId, SignedMark>,
}

/// A [`LogStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryLogStore {
    disk: MemoryLogDisk,
    gate: CommitGate,
}

impl MemoryLogStore {
    /// Opens the log that `disk` holds.
    pub fn open(disk: &MemoryLogDisk) -> Self {
        Self { disk: disk.clone(), gate: CommitGate::default() }
    }
}

impl LogStore for MemoryLogStore {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        let image = lock(&self.disk.0);
        Ok(LogSnapshot {
            vote: image.vote,
            committed: image.committed,
            purged: image.purged,
            last: image.records.last_key_value().map(|(_, record)| record.id).or(image.purged),
            signed: image.signed.values().copied().collect(),
        })
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        let image = lock(&self.disk.0);
        let mut records = Vec::new();
        let mut bytes = 0_usize;
        // `range` panics on a range that ends before it starts.
        for record in image.records.range(from..to.max(from)).map(|(_, record)| record) {
            bytes = bytes.saturating_add(record.size_bytes());
            records.push(record.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        self.gate.commit("commit the log", || {
            let mut image = lock(&self.disk.0);
            image.extent().after_all(changes)?;
            changes.iter().for_each(|change| image.apply(change));
            Ok(())
        })
    }
}

impl LogImage {
    fn extent(&self) -> LogExtent {
        let first = self.records.first_key_value().map(|(index, _)| *index);
        let last = self.records.last_key_value().map(|(index, _)| *index);
        LogExtent { held: first.zip(last), purged: self.purged.map(|id| id.index) }
    }

    /// Applies a change that [`LogExtent::after_all`] allowed.
    fn apply(&mut self, change: &LogChange) {
        match change {
            LogChange::Append(record) => {
                self.records.insert(record.id.index, record.clone());
            }
            LogChange::SaveVote(vote) => self.vote = Some(*vote),
            LogChange::TruncateAfter(Some(index)) => {
                self.records.retain(|candidate, _| candidate <= index);
            }
            LogChange::TruncateAfter(None) => self.records.clear(),
            LogChange::PurgeThrough(id) => {
                if self.purged.is_none_or(|purged| purged.index < id.index) {
                    self.records.retain(|candidate, _| *candidate > id.index);
                    self.purged = Some(*id);
                }
            }
            LogChange::SaveCommitted(id) => self.committed = Some(*id),
            LogChange::SaveSigned(mark) => {
                self.signed.insert(mark.vault, *mark);
            }
        }
    }
}

/// What stays of a [`MemoryStateStore`] when it is dropped; clones share the content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStateDisk(Arc<Mutex<StateImage>>);

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// A table is copied when it changes while a view shows it.
#[derive(Debug, Default)]
struct StateImage {
    tables: BTreeMap<Table, Arc<Rows>>,
    applied: Option<AppliedState>,
}

/// A [`StateStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStateStore {
    disk: MemoryStateDisk,
    gate: Arc<CommitGate>,
    /// Held by the install that is under way.
    installing: Arc<()>,
}

impl MemoryStateStore {
    /// Opens the state that `disk` holds.
    pub fn open(disk: &MemoryStateDisk) -> Self {
        Self { disk: disk.clone(), ..Self::default() }
    }

    fn rows(&self, table: Table) -> Option<Arc<Rows>> {
        lock(&self.disk.0).tables.get(&table).cloned()
    }
}

impl StateStore for MemoryStateStore {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        Ok(lock(&self.disk.0).applied.clone())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(lock(&self.disk.0).tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        // The visitor runs without the lock, on the table as it is now.
        if let Some(rows) = self.rows(table) {
            scan_rows(&rows, range, visit);
        }
        Ok(())
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        self.gate.commit("commit the state", || {
            batch.check_order()?;
            lock(&self.disk.0).apply(batch);
            Ok(())
        })
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        let image = lock(&self.disk.0);
        Ok(Box::new(MemoryStateView { tables: image.tables.clone(), applied: image.applied.clone() }))
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        // The lock keeps a second caller from counting before the first has its share.
        let _image = lock(&self.disk.0);
        if Arc::strong_count(&self.installing) > 1 {
            return Err(refused(BEGIN_INSTALL, BatchRefused::InstallUnderWay));
        }
        Ok(Box::new(MemoryStateInstall {
            disk: self.disk.clone(),
            gate: Arc::clone(&self.gate),
            _turn: Arc::clone(&self.installing),
            order: InstallOrder::default(),
            tables: BTreeMap::new(),
            applied: None,
        }))
    }
}

const BEGIN_INSTALL: &str = "begin to replace the state";
const INSTALL: &str = "replace the state";

fn refused(action: &'static str, refused: BatchRefused) -> StoreError {
    StoreError::Engine { action, source: Box::new(refused) }
}

/// A [`StateInstall`] of a [`MemoryStateStore`].
struct MemoryStateInstall {
    disk: MemoryStateDisk,
    gate: Arc<CommitGate>,
    _turn: Arc<()>,
    order: InstallOrder,
    tables: BTreeMap<Table, Arc<Rows>>,
    applied: Option<AppliedState>,
}

impl StateInstall for MemoryStateInstall {
    fn put(&mut self, rows: &[RowChange]) -> Result<(), StoreError> {
        self.order.put(rows).map_err(|why| refused(INSTALL, why))?;
        for row in rows {
            if let Some(value) = &row.value {
                let table = Arc::make_mut(self.tables.entry(row.table).or_default());
                table.insert(row.key.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn seal(&mut self, applied: &AppliedState) -> Result<(), StoreError> {
        self.order.seal().map_err(|why| refused(INSTALL, why))?;
        self.applied = Some(applied.clone());
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.order.check_sealed().map_err(|why| refused(INSTALL, why))?;
        Ok(Box::new(MemoryStateView { tables: self.tables.clone(), applied: self.applied.clone() }))
    }

    fn publish(self: Box<Self>) -> Result<(), StoreError> {
        self.order.check_sealed().map_err(|why| refused(INSTALL, why))?;
        let Self { disk, gate, tables, applied, .. } = *self;
        gate.commit(INSTALL, || {
            *lock(&disk.0) = StateImage { tables, applied };
            Ok(())
        })
    }
}

/// A [`StateView`] of a [`MemoryStateStore`].
struct MemoryStateView {
    tables: BTreeMap<Table, Arc<Rows>>,
    applied: Option<AppliedState>,
}

impl StateView for MemoryStateView {
    fn applied(&self) -> Option<&AppliedState> {
        self.applied.as_ref()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if let Some(rows) = self.tables.get(&table) {
            scan_rows(rows, range, visit);
        }
        Ok(())
    }
}

fn scan_rows(rows: &Rows, range: &ScanRange, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
    let start = range.start.as_slice().max(range.prefix.as_slice());
    let from_start = rows.range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded));
    for (key, value) in from_start.take_while(|(key, _)| key.starts_with(&range.prefix)) {
        if !visit(key, value) {
            return;
        }
    }
}

impl StateImage {
    /// Applies a batch that [`StateBatch::check_order`] allowed.
    fn apply(&mut self, batch: &StateBatch) {
        for vault in &batch.dropped_vaults {
            let prefix = vault.to_be_bytes();
            for (table, rows) in &mut self.tables {
                if table.is_per_vault() {
                    Arc::make_mut(rows).retain(|key, _| !key.starts_with(&prefix));
                }
            }
        }
        for row in &batch.rows {
            let rows = Arc::make_mut(self.tables.entry(row.table).or_default());
            match &row.value {
                Some(value) => rows.insert(row.key.clone(), value.clone()),
                None => rows.remove(&row.key),
            };
        }
        self.applied = Some(batch.applied.clone());
    }
}

/// Lets commits through one at a time until one fails (G7).
#[derive(Debug, Default)]
struct CommitGate {
    failed: Mutex<bool>,
}

impl CommitGate {
    fn commit(
        &self,
        action: &'static str,
        write: impl FnOnce() -> Result<(), crate::ports::BatchRefused>,
    ) -> Result<(), StoreError> {
        let mut failed = lock(&self.failed);
        if *failed {
            return Err(StoreError::Poisoned);
        }
        write().map_err(|refused| {
            *failed = true;
            StoreError::Engine { action, source: Box::new(refused) }
        })
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one guards no broken invariant.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
