//! What was promised to whom: by the stores to the node, and by the node to its callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::command::Receipt;
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::ports::{
    AppliedState, LogChange, LogRecord, LogSnapshot, LogStore, ScanRange, StateBatch, StateInstall,
    StateStore, StateView, StoreError, Table,
};
use ledger_core::transaction::Transaction;
use ledger_verify::Hash;

use crate::disk::{Disk, Event};

/// What a caller of the node was told.
#[derive(Debug, Clone)]
pub enum Promise {
    VaultCreated(VaultRef, VaultId),
    VaultDeleted(VaultRef),
    /// The number of the write, what it was, and the receipt.
    Written(u64, Transaction, Receipt),
    /// Size and root of a checkpoint that left the node.
    Published(u64, Hash),
}

/// A log that notes when a batch goes in and when it was acknowledged.
pub struct PromisingLog<S> {
    pub inner: S,
    pub disk: Disk,
}

impl<S: LogStore> LogStore for PromisingLog<S> {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        self.inner.snapshot()
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.inner.read(from, to, bytes_max)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        self.disk.note(Event::LogCommitStarted(changes.to_vec()));
        self.inner.commit(changes)?;
        self.disk.note(Event::LogCommitDone);
        Ok(())
    }
}

/// The same for the state.
pub struct PromisingState<S> {
    pub inner: S,
    pub disk: Disk,
}

impl<S: StateStore> StateStore for PromisingState<S> {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        self.inner.applied()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.scan(table, range, visit)
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        self.disk.note(Event::StateCommitStarted(batch.clone()));
        self.inner.commit(batch)?;
        self.disk.note(Event::StateCommitDone);
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.inner.view()
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        self.inner.begin_install()
    }
}

/// All that a log holds: vote, marks and bounds, and every record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogContent {
    pub snapshot: LogSnapshot,
    pub records: Vec<LogRecord>,
}

impl LogContent {
    pub fn of(log: &impl LogStore) -> Result<Self, StoreError> {
        Ok(Self { snapshot: log.snapshot()?, records: log.read(0, u64::MAX, usize::MAX)? })
    }

    /// What the log holds after one more batch, by the rules of the port and without redb.
    fn after(&self, changes: &[LogChange]) -> Self {
        let disk = MemoryLogDisk::default();
        let log = MemoryLogStore::open(&disk);
        let mut all = Vec::new();
        all.extend(self.snapshot.vote.map(LogChange::SaveVote));
        all.extend(self.snapshot.purged.map(LogChange::PurgeThrough));
        all.extend(self.records.iter().cloned().map(LogChange::Append));
        all.extend(self.snapshot.committed.map(LogChange::SaveCommitted));
        all.extend(self.snapshot.signed.iter().copied().map(LogChange::SaveSigned));
        all.extend_from_slice(changes);
        log.commit(&all).expect("the node's batches are valid");
        Self::of(&log).expect("memory can be read")
    }
}

/// All that a state store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateContent {
    pub applied: Option<AppliedState>,
    pub rows: BTreeMap<(Table, Vec<u8>), Bytes>,
}

impl StateContent {
    pub fn of(state: &impl StateStore) -> Result<Self, StoreError> {
        let mut rows = BTreeMap::new();
        for table in Table::ALL {
            let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
            state.scan(table, &everything, &mut |key, value| {
                rows.insert((table, key.to_vec()), Bytes::copy_from_slice(value));
                true
            })?;
        }
        Ok(Self { applied: state.applied()?, rows })
    }

    fn after(&self, batch: &StateBatch) -> Self {
        let mut rows = self.rows.clone();
        let dropped = |table: Table, key: &[u8]| {
            table.is_per_vault()
                && batch.dropped_vaults.iter().any(|vault| key.starts_with(&vault.to_be_bytes()))
        };
        rows.retain(|(table, key), _| !dropped(*table, key));
        for row in &batch.rows {
            match &row.value {
                Some(value) => drop(rows.insert((row.table, row.key.clone()), value.clone())),
                None => drop(rows.remove(&(row.table, row.key.clone()))),
            }
        }
        Self { applied: Some(batch.applied.clone()), rows }
    }

    /// Whether a store that promised this may hold `found`: rows of append-only tables may have come ahead.
    pub fn allows(&self, found: &Self, ahead: &BTreeMap<(Table, Vec<u8>), Bytes>) -> bool {
        let may_be_ahead = |row: &(&(Table, Vec<u8>), &Bytes)| {
            !self.rows.contains_key(row.0) && row.0.0.is_append_only() && ahead.get(row.0) == Some(row.1)
        };
        let settled = found.rows.iter().filter(|row| !may_be_ahead(row));
        self.applied == found.applied && settled.eq(self.rows.iter())
    }

    /// Whether all that a store holds was written as it is: rows may be missing, none may be another.
    pub fn holds_nothing_else(&self, found: &Self, ahead: &BTreeMap<(Table, Vec<u8>), Bytes>) -> bool {
        let was_written = |(key, value): (&(Table, Vec<u8>), &Bytes)| {
            self.rows.get(key) == Some(value)
                || (key.0.is_append_only() && !self.rows.contains_key(key) && ahead.get(key) == Some(value))
        };
        self.applied == found.applied && found.rows.iter().all(was_written)
    }

    /// What a store has that should have this.
    pub fn difference(&self, found: &Self) -> String {
        let rows = |one: &Self, other: &Self| -> Vec<_> {
            let only = one.rows.iter().filter(|(key, value)| other.rows.get(*key) != Some(*value));
            only.map(|((table, key), value)| (*table, key.escape_ascii().to_string(), value.len())).collect()
        };
        format!(
            "the state was {:?} and is {:?}; rows only in what was: {:?}; only in what is: {:?}",
            self.applied,
            found.applied,
            rows(self, found),
            rows(found, self)
        )
    }
}

/// What both stores hold after each of a run's batches.
#[derive(Debug)]
pub struct History {
    pub log: Vec<Arc<LogContent>>,
    pub state: Vec<Arc<StateContent>>,
    /// Every row of an append-only table that was ever written.
    pub append_only: BTreeMap<(Table, Vec<u8>), Bytes>,
}

impl History {
    /// Follows a run from what the stores held at its beginning.
    pub fn of(
        log: Arc<LogContent>,
        state: Arc<StateContent>,
        append_only: &BTreeMap<(Table, Vec<u8>), Bytes>,
        trace: &[Event],
    ) -> Self {
        let mut history = Self { log: vec![log], state: vec![state], append_only: append_only.clone() };
        for event in trace {
            match event {
                Event::LogCommitStarted(changes) => {
                    let next = history.log.last().expect("never empty").after(changes);
                    history.log.push(Arc::new(next));
                }
                Event::StateCommitStarted(batch) => {
                    let next = history.state.last().expect("never empty").after(batch);
                    history.state.push(Arc::new(next));
                    let rows = batch.rows.iter().filter(|row| row.table.is_append_only());
                    history.append_only.extend(
                        rows.filter_map(|row| Some(((row.table, row.key.clone()), row.value.clone()?))),
                    );
                }
                _ => {}
            }
        }
        history
    }
}

/// How far a run was at some moment.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    log_started: usize,
    log_done: usize,
    state_started: usize,
    state_done: usize,
    /// What callers were told, oldest first.
    pub promises: Vec<Promise>,
}

impl Progress {
    /// Nothing yet, but what was promised before still holds.
    pub fn with(promises: Vec<Promise>) -> Self {
        Self { promises, ..Self::default() }
    }

    pub fn pass(&mut self, event: &Event) {
        match event {
            Event::LogCommitStarted(_) => self.log_started += 1,
            Event::LogCommitDone => self.log_done += 1,
            Event::StateCommitStarted(_) => self.state_started += 1,
            Event::StateCommitDone => self.state_done += 1,
            Event::Promised(promise) => self.promises.push(promise.clone()),
            Event::Effect(..) => {}
        }
    }

    /// What the log may hold after a crash now: all acknowledged batches, and perhaps the one under way.
    pub fn log<'a>(&self, history: &'a History) -> &'a [Arc<LogContent>] {
        &history.log[self.log_done..=self.log_started]
    }

    /// The same for the state.
    pub fn state<'a>(&self, history: &'a History) -> &'a [Arc<StateContent>] {
        &history.state[self.state_done..=self.state_started]
    }
}
