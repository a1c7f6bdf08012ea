//! A ledger under test: its directory, its disks, its clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledger_core::command::Receipt;
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore, MemoryStateDisk, MemoryStateStore};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::ports::{LogChange, LogStore, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, Actor, Condition, IdempotencyKey, Operation, Transaction};
use ledger_node::{DataDirectory, Ledger, ManualClock, Options, Stores};

use super::observed_stores::{ObservedLog, ObservedState};

/// When the tests begin, unix milliseconds.
pub const START_MS: u64 = 1_800_000_000_000;
/// No test waits longer for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node's home: what survives a restart.
pub struct Home {
    pub folder: tempfile::TempDir,
    pub log: MemoryLogDisk,
    pub state: MemoryStateDisk,
    pub clock: Arc<ManualClock>,
}

impl Home {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            log: MemoryLogDisk::default(),
            state: MemoryStateDisk::default(),
            clock: Arc::new(ManualClock::new(START_MS)),
        }
    }

    pub fn stores(&self) -> Stores {
        Stores {
            log: Arc::new(MemoryLogStore::open(&self.log)),
            state: Arc::new(MemoryStateStore::open(&self.state)),
        }
    }

    /// Nothing happens by itself: no flush, no garbage collection.
    pub fn options(&self) -> Options {
        Options {
            flush_interval: Duration::from_secs(3_600),
            gc_interval: Duration::from_secs(60),
            clock: self.clock.clone(),
            ..Options::default()
        }
    }

    pub fn directory(&self) -> DataDirectory {
        DataDirectory::open(self.folder.path()).unwrap()
    }

    pub async fn open(&self) -> Ledger {
        self.open_with(self.stores(), self.options()).await
    }

    pub async fn open_with(&self, stores: Stores, options: Options) -> Ledger {
        Ledger::open(self.directory(), stores, options).await.unwrap()
    }

    /// Opens a ledger with its vault on stores that can be made to fail.
    pub async fn open_observed(&self, options: Options) -> Observed {
        let stores = self.stores();
        let (log, state) =
            (Arc::new(ObservedLog::new(stores.log)), Arc::new(ObservedState::new(stores.state)));
        let ledger = self.open_with(Stores { log: log.clone(), state: state.clone() }, options).await;
        create_vault(&ledger).await;
        Observed { ledger, log, state }
    }

    /// What a backup of the directory would hold now: as after a crash, nothing is flushed for it.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_files(self.folder.path(), folder.path());
        // The state first: it must never be ahead of the log.
        let state = copy_state(&self.state);
        let log = copy_log(&self.log);
        Self { folder, log, state, clock: Arc::clone(&self.clock) }
    }
}

/// A ledger with a vault, and the stores under it.
pub struct Observed {
    pub ledger: Ledger,
    pub log: Arc<ObservedLog>,
    pub state: Arc<ObservedState>,
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // Folders hold snapshots, without which a node starts as well.
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn copy_state(disk: &MemoryStateDisk) -> MemoryStateDisk {
    let (source, copy) = (MemoryStateStore::open(disk), MemoryStateDisk::default());
    let Some(applied) = source.applied().unwrap() else { return copy };
    let mut rows = Vec::new();
    for table in Table::ALL {
        let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
        source
            .scan(table, &everything, &mut |key, value| {
                let value = Some(bytes::Bytes::copy_from_slice(value));
                rows.push(RowChange { table, key: key.to_vec(), value });
                true
            })
            .unwrap();
    }
    MemoryStateStore::open(&copy).commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    copy
}

fn copy_log(disk: &MemoryLogDisk) -> MemoryLogDisk {
    let (source, copy) = (MemoryLogStore::open(disk), MemoryLogDisk::default());
    let snapshot = source.snapshot().unwrap();
    let mut changes = Vec::new();
    changes.extend(snapshot.vote.map(LogChange::SaveVote));
    changes.extend(snapshot.purged.map(LogChange::PurgeThrough));
    changes.extend(source.read(0, u64::MAX, usize::MAX).unwrap().into_iter().map(LogChange::Append));
    changes.extend(snapshot.committed.map(LogChange::SaveCommitted));
    changes.extend(snapshot.signed.into_iter().map(LogChange::SaveSigned));
    MemoryLogStore::open(&copy).commit(&changes).unwrap();
    copy
}

pub fn vault() -> VaultRef {
    "acme/orders".parse().unwrap()
}

pub async fn create_vault(ledger: &Ledger) -> VaultRef {
    ledger.create_namespace(NamespaceName::new("acme").unwrap()).await.unwrap();
    ledger.create_vault(vault()).await.unwrap();
    vault()
}

pub fn actor() -> Actor {
    Actor::new("client:test").unwrap()
}

pub fn key(text: &str) -> EntityKey {
    EntityKey::new(text).unwrap()
}

pub fn tuple(resource: &str, relation: &str, subject: &str) -> Relationship {
    Relationship {
        resource: Resource::new(resource).unwrap(),
        relation: Relation::new(relation).unwrap(),
        subject: Subject::new(subject).unwrap(),
    }
}

/// A key that no other call returned, stamped with `unix_ms`.
pub fn fresh_key(unix_ms: u64) -> IdempotencyKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    IdempotencyKey::from_parts(unix_ms, random)
}

pub fn set(name: &str, value: &str, condition: Option<Condition>) -> Operation {
    set_until(name, value, 0, condition)
}

pub fn set_until(name: &str, value: &str, expires_at_ms: u64, condition: Option<Condition>) -> Operation {
    let value = EntityValue::new(value.as_bytes().to_vec()).unwrap();
    Operation { action: Action::SetEntity { key: key(name), value, expires_at_ms }, condition }
}

pub fn transaction(operations: Vec<Operation>) -> Transaction {
    Transaction::new(fresh_key(START_MS), operations).unwrap()
}

pub fn put(name: &str, value: &str) -> Transaction {
    transaction(vec![set(name, value, None)])
}

pub async fn write(ledger: &Ledger, transaction: Transaction) -> Receipt {
    ledger.write(&vault(), &actor(), transaction).await.unwrap()
}

/// Polls until something holds; fails the test when it does not within a minute.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: did not happen in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Every header and transaction of the vault, encoded.
pub fn chain(ledger: &Ledger) -> Vec<Vec<u8>> {
    let mut chain = Vec::new();
    for height in 0.. {
        let Some(block) = ledger.block(&vault(), height).unwrap() else { break };
        chain.push(block.header.encode().to_vec());
        chain.extend(block.transactions.iter().map(|transaction| transaction.to_vec()));
    }
    chain
}
