//! The simulated disks of a node: what was written and not yet synced may be lost when the power goes.
//!
//! The contents are those of the reference stores. Beside what a store shows, a disk keeps what is durable and the
//! batches between the two; a crash lets some of these survive, oldest first, and throws the others away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore, MemoryStateDisk, MemoryStateStore};
use ledger_core::names::VaultId;
use ledger_core::ports::{
    AppliedState, LogChange, LogRecord, LogSnapshot, LogStore, RowChange, ScanRange, SignedMark, StateBatch,
    StateInstall, StateStore, StateView, StoreError, Table,
};

use crate::dice::Dice;
use crate::disk_timing::DiskTiming;

/// When a batch of a disk becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When its commit returns.
    AtCommit,
    /// At the next [`LogDisk::sync`]: the node is told so separately.
    AtSync,
}

/// What crashes did to the disks of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Batches of the log that were committed.
    pub log_commits: u64,
    /// Unsynced batches that a crash destroyed.
    pub lost_batches: u64,
    /// Unsynced batches that survived a crash although nobody had been told.
    pub surviving_batches: u64,
    /// Votes in the batches that were destroyed.
    pub lost_votes: u64,
    /// Records that were cut off the end of a log.
    pub truncations: u64,
    /// Purges.
    pub purges: u64,
}

impl std::ops::Add for DiskCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            log_commits: self.log_commits + other.log_commits,
            lost_batches: self.lost_batches + other.lost_batches,
            surviving_batches: self.surviving_batches + other.surviving_batches,
            lost_votes: self.lost_votes + other.lost_votes,
            truncations: self.truncations + other.truncations,
            purges: self.purges + other.purges,
        }
    }
}

/// What stays of a node's log when its process ends. Clones share it.
#[derive(Debug, Clone)]
pub struct LogDisk(Arc<Mutex<LogImage>>);

#[derive(Debug)]
struct LogImage {
    durability: Durability,
    durable: MemoryLogDisk,
    shown: MemoryLogDisk,
    unsynced: VecDeque<Vec<LogChange>>,
    /// Goes up with each crash: a store that was opened before is of a process that is dead.
    boots: u64,
    counters: DiskCounters,
}

impl LogDisk {
    /// An empty disk.
    pub fn new(durability: Durability) -> Self {
        Self(Arc::new(Mutex::new(LogImage {
            durability,
            durable: MemoryLogDisk::default(),
            shown: MemoryLogDisk::default(),
            unsynced: VecDeque::new(),
            boots: 0,
            counters: DiskCounters::default(),
        })))
    }

    /// Opens the log that the disk holds, for the process that runs now.
    pub fn open(&self) -> Arc<dyn LogStore> {
        self.open_taking(None)
    }

    /// The same on a disk that takes time. What a node has not committed when it crashes is lost.
    pub fn open_timed(&self, timing: DiskTiming) -> Arc<dyn LogStore> {
        self.open_taking(Some(timing))
    }

    fn open_taking(&self, timing: Option<DiskTiming>) -> Arc<dyn LogStore> {
        let image = self.lock();
        let (shown, boot) = (MemoryLogStore::open(&image.shown), image.boots);
        Arc::new(SimulatedLog { disk: self.clone(), shown, boot, timing })
    }

    /// Makes everything that was committed durable.
    ///
    /// # Errors
    /// When the reference store refuses a batch that it accepted before.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut image = self.lock();
        let store = MemoryLogStore::open(&image.durable);
        image.unsynced.drain(..).try_for_each(|batch| store.commit(&batch))
    }

    /// The power goes: of what was not synced, some of the oldest batches survive.
    ///
    /// # Errors
    /// When the reference store refuses a batch that it accepted before.
    pub fn crash(&self, dice: &mut Dice) -> Result<(), StoreError> {
        let mut image = self.lock();
        let survivors = dice.below(image.unsynced.len() + 1);
        let store = MemoryLogStore::open(&image.durable);
        let rest = image.unsynced.split_off(survivors);
        image.unsynced.drain(..).try_for_each(|batch| store.commit(&batch))?;
        image.counters.surviving_batches += survivors as u64;
        image.counters.lost_batches += rest.len() as u64;
        let is_vote = |change: &&LogChange| matches!(change, LogChange::SaveVote(_));
        image.counters.lost_votes += rest.iter().flatten().filter(is_vote).count() as u64;
        image.shown = copy_log(&image.durable)?;
        image.boots += 1;
        Ok(())
    }

    /// The newest checkpoint of a vault that is durably known to have been signed here.
    ///
    /// # Errors
    /// When the reference store cannot be read.
    pub fn durable_mark(&self, vault: VaultId) -> Result<Option<SignedMark>, StoreError> {
        let image = self.lock();
        let snapshot = MemoryLogStore::open(&image.durable).snapshot()?;
        Ok(snapshot.signed.into_iter().find(|mark| mark.vault == vault))
    }

    /// What the log remembers, as far as it is durable.
    ///
    /// # Errors
    /// When the reference store cannot be read.
    pub fn durable(&self) -> Result<LogSnapshot, StoreError> {
        MemoryLogStore::open(&self.lock().durable).snapshot()
    }

    /// What happened to this disk.
    pub fn counters(&self) -> DiskCounters {
        self.lock().counters
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, LogImage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy_log(disk: &MemoryLogDisk) -> Result<MemoryLogDisk, StoreError> {
    let (source, copy) = (MemoryLogStore::open(disk), MemoryLogDisk::default());
    let snapshot = source.snapshot()?;
    let mut changes = Vec::new();
    changes.extend(snapshot.vote.map(LogChange::SaveVote));
    changes.extend(snapshot.purged.map(LogChange::PurgeThrough));
    changes.extend(source.read(0, u64::MAX, usize::MAX)?.into_iter().map(LogChange::Append));
    changes.extend(snapshot.committed.map(LogChange::SaveCommitted));
    changes.extend(snapshot.signed.into_iter().map(LogChange::SaveSigned));
    MemoryLogStore::open(&copy).commit(&changes)?;
    Ok(copy)
}

struct SimulatedLog {
    disk: LogDisk,
    shown: MemoryLogStore,
    boot: u64,
    timing: Option<DiskTiming>,
}

impl LogStore for SimulatedLog {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        self.shown.snapshot()
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.shown.read(from, to, bytes_max)
    }

    fn simulated_delay(&self) -> Duration {
        self.timing.as_ref().map_or(Duration::ZERO, DiskTiming::draw)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        let mut image = self.disk.lock();
        if image.boots != self.boot {
            return Err(StoreError::Poisoned);
        }
        self.shown.commit(changes)?;
        image.counters.log_commits += 1;
        for change in changes {
            match change {
                LogChange::TruncateAfter(_) => image.counters.truncations += 1,
                LogChange::PurgeThrough(_) => image.counters.purges += 1,
                _ => {}
            }
        }
        match image.durability {
            Durability::AtCommit => MemoryLogStore::open(&image.durable).commit(changes),
            Durability::AtSync => {
                image.unsynced.push_back(changes.to_vec());
                Ok(())
            }
        }
    }
}

/// What stays of a node's state when its process ends. Clones share it.
///
/// A commit is durable when it returns; what a crash destroys is what the node had not committed yet.
#[derive(Debug, Clone, Default)]
pub struct StateDisk(Arc<Mutex<StateImage>>);

#[derive(Debug, Default)]
struct StateImage {
    content: MemoryStateDisk,
    boots: u64,
    commits: u64,
}

impl StateDisk {
    /// Opens the state that the disk holds, for the process that runs now.
    pub fn open(&self) -> Arc<dyn StateStore> {
        let image = self.lock();
        let store = MemoryStateStore::open(&image.content);
        Arc::new(SimulatedState { disk: self.clone(), store, boot: image.boots })
    }

    /// The power goes.
    pub fn crash(&self) {
        self.lock().boots += 1;
    }

    /// Batches that were committed.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// A disk with the same content: what a backup of it would hold.
    ///
    /// # Errors
    /// When the reference store cannot be read.
    pub fn copy(&self) -> Result<Self, StoreError> {
        let source = MemoryStateStore::open(&self.lock().content);
        let content = MemoryStateDisk::default();
        if let Some(applied) = source.applied()? {
            let mut rows = Vec::new();
            for table in Table::ALL {
                let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
                source.scan(table, &everything, &mut |key, value| {
                    let value = Some(Bytes::copy_from_slice(value));
                    rows.push(RowChange { table, key: key.to_vec(), value });
                    true
                })?;
            }
            let batch = StateBatch { dropped_vaults: Vec::new(), rows, applied };
            MemoryStateStore::open(&content).commit(&batch)?;
        }
        Ok(Self(Arc::new(Mutex::new(StateImage { content, boots: 0, commits: 0 }))))
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, StateImage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SimulatedState {
    disk: StateDisk,
    store: MemoryStateStore,
    boot: u64,
}

impl StateStore for SimulatedState {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        self.store.applied()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan(table, range, visit)
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        let mut image = self.disk.lock();
        if image.boots != self.boot {
            return Err(StoreError::Poisoned);
        }
        image.commits += 1;
        self.store.commit(batch)
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.store.view()
    }

    /// A crash drops the process's tasks, and with them whatever installs.
    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        if self.disk.lock().boots != self.boot {
            return Err(StoreError::Poisoned);
        }
        self.store.begin_install()
    }
}
