//! What the node is asked to do while its disk is recorded.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::ports::StoreError;
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{DataDirectory, DirectoryError, Ledger, ManualClock, Options, ReadFailure, Stores};
use ledger_verify::Hash;
use ledger_verify::note::SignedCheckpoint;
use storage_adapters::redb::{OpenCheck, RedbOptions, RedbStateStore};
use storage_adapters::wal::{SEGMENT_BYTES_MIN, Upkeep, WalFiles, WalLogStore, WalOptions};

use crate::disk::{Disk, Event};
use crate::disk_image::{Image, Place};
use crate::power_cut::Dice;
use crate::promises::{Promise, PromisingLog, PromisingState};
use crate::recorded_files::{RecordedDirectory, RecordedFile};

/// When every run takes place, unix milliseconds.
pub const NOW_MS: u64 = 1_800_000_000_000;
/// Longest wait for one step of the node.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Applied bytes that start a flush: some ten writes.
const FLUSH_BYTES: usize = 12 * 1_024;

/// The identity of a node: the small files of its data directory. Nothing in them changes after the first opening.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        let home = Self(temporary());
        drop(home.directory());
        home
    }

    /// Another place for the same node, for a second thread.
    pub fn twin(&self) -> Self {
        let twin = temporary();
        for entry in std::fs::read_dir(self.0.path()).expect("the directory is there") {
            let entry = entry.expect("it can be listed");
            std::fs::copy(entry.path(), twin.path().join(entry.file_name())).expect("small files");
        }
        Self(twin)
    }

    /// Waits for the node before it: one that refused to go on gives the lock back from its own thread.
    pub fn directory(&self) -> DataDirectory {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match DataDirectory::open(self.0.path()) {
                Err(DirectoryError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                opened => return opened.expect("the directory opens"),
            }
        }
    }
}

/// In memory where there is such a place: the campaigns open thousands of times.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// The stores of a node on a disk.
pub struct DiskStores {
    pub log: Arc<PromisingLog<WalLogStore>>,
    pub state: Arc<PromisingState<RedbStateStore>>,
}

impl DiskStores {
    pub fn open(disk: &Disk, upkeep: Upkeep) -> Result<Self, StoreError> {
        let files: Arc<dyn WalFiles> = Arc::new(RecordedDirectory(disk.clone()));
        let wal = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, upkeep };
        let log = WalLogStore::with_files(&files, wal)?;
        Ok(Self {
            log: Arc::new(PromisingLog { inner: log, disk: disk.clone() }),
            state: Arc::new(PromisingState { inner: open_state(disk)?, disk: disk.clone() }),
        })
    }

    pub fn ports(&self) -> Stores {
        Stores { log: self.log.clone(), state: self.state.clone() }
    }
}

fn open_state(disk: &Disk) -> Result<RedbStateStore, StoreError> {
    let cache_bytes = 1 << 20;
    let options = RedbOptions {
        log_cache_bytes: cache_bytes,
        state_cache_bytes: cache_bytes,
        blocks_cache_bytes: cache_bytes,
        check: OpenCheck::default(),
        ..RedbOptions::default()
    };
    let file = |place| RecordedFile { disk: disk.clone(), place };
    RedbStateStore::with_backends(file(Place::State), file(Place::Blocks), options)
}

/// A disk with the two new, empty files of redb, which get their names when they are whole. The log is made by the run.
pub fn new_disk() -> Disk {
    let disk = Disk::default();
    drop(open_state(&disk).expect("new files are made"));
    Disk::holding(disk.image())
}

pub fn options() -> Options {
    Options {
        flush_interval: Duration::from_secs(3_600),
        flush_bytes: FLUSH_BYTES,
        clock: Arc::new(ManualClock::new(NOW_MS)),
        ..Options::default()
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

pub fn vault() -> VaultRef {
    "acme/orders".parse().expect("a valid name")
}

/// A vault that comes and goes.
pub fn brief_vault() -> VaultRef {
    "acme/brief".parse().expect("a valid name")
}

pub fn actor() -> Actor {
    Actor::new("client:crash").expect("a valid name")
}

pub fn key(text: &str) -> EntityKey {
    EntityKey::new(text).expect("a valid key")
}

/// The key that write `number` alone sets.
pub fn own_key(number: u64) -> EntityKey {
    key(&format!("own:{number}"))
}

fn set(key: EntityKey, value: Vec<u8>, expires_at_ms: u64) -> Operation {
    let value = EntityValue::new(value).expect("a small value");
    Operation { action: Action::SetEntity { key, value, expires_at_ms }, condition: None }
}

/// A write of several kinds of operations; its own key holds its number.
pub fn transaction(number: u64, dice: &mut Dice) -> Transaction {
    let mut operations = vec![set(own_key(number), number.to_be_bytes().to_vec(), 0)];
    let shared = key(&format!("shared:{}", dice.below(5)));
    let value = vec![b'v'; 100 + dice.below(900)];
    let tuple = Relationship {
        resource: Resource::new("doc:plan").expect("valid"),
        relation: Relation::new("viewer").expect("valid"),
        subject: Subject::new(&format!("user:{}", dice.below(6))).expect("valid"),
    };
    let action = match dice.below(5) {
        0 => Some(Action::DeleteEntity { key: shared }),
        1 => Some(Action::DeleteRelationship(tuple)),
        2 => Some(Action::CreateRelationship(tuple)),
        3 => {
            operations.push(set(shared, value, NOW_MS + 86_400_000));
            None
        }
        _ => {
            operations.push(set(shared, value, 0));
            None
        }
    };
    operations.extend(action.map(|action| Operation { action, condition: None }));
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(number + 1).to_be_bytes());
    Transaction::new(IdempotencyKey::from_parts(NOW_MS, random), operations).expect("a valid transaction")
}

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Writes or bursts of writes.
    pub rounds: usize,
    /// Whether segments of the log are prepared and removed by a thread of its own.
    pub upkeep: Upkeep,
}

/// The plan of a seed: half of the runs leave the log's segments to a thread, as a node does, and the others do all in one
/// order.
pub fn plan(seed: u64, rounds: usize) -> Plan {
    Plan { seed, rounds, upkeep: if seed.is_multiple_of(2) { Upkeep::Background } else { Upkeep::Inline } }
}

/// What one run left behind.
pub struct Run {
    pub home: Home,
    /// What the files held before the first event.
    pub image: Image,
    pub trace: Vec<Event>,
    /// Hash of every block of the vault, by height.
    pub chain: Vec<Hash>,
}

/// Runs the node from its first opening to its end in order, and records everything.
pub fn record(plan: Plan) -> Run {
    let home = Home::new();
    let disk = new_disk();
    let image = disk.restart_trace();
    let chain = runtime().block_on(async {
        let stores = DiskStores::open(&disk, plan.upkeep).expect("the stores open");
        let ledger = Ledger::open(home.directory(), stores.ports(), options()).await.expect("it opens");
        drive(&ledger, &disk, plan).await.expect("a sound disk refuses nothing");
        let chain = chain(&ledger).expect("blocks can be read");
        ledger.shutdown().await.expect("it ends in order");
        chain
    });
    Run { home, image, trace: disk.take_trace(), chain }
}

/// Hash of every block of the vault, by height.
pub fn chain(ledger: &Ledger) -> Result<Vec<Hash>, ReadFailure> {
    let block = |height| ledger.block(&vault(), height).transpose();
    (0..).map_while(block).map(|block| Ok(block?.header.leaf_hash())).collect()
}

/// Asks for everything in turn, notes each answer at once, and ends at the first refusal.
pub async fn drive(ledger: &Ledger, disk: &Disk, plan: Plan) -> Result<(), Box<dyn std::error::Error>> {
    let promise = |promise| disk.note(Event::Promised(promise));
    ledger.create_namespace(NamespaceName::new("acme")?).await?;
    let made = ledger.create_vault(vault()).await?;
    promise(Promise::VaultCreated(vault(), made.id));
    let mut dice = Dice::new(plan.seed);
    let mut number = 0;
    for round in 0..plan.rounds {
        let burst = if dice.below(3) == 0 { 1 + dice.below(4) } else { 1 };
        let writes = (0..burst).map(|_| {
            let write = (number, transaction(number, &mut dice));
            number += 1;
            write
        });
        let answers = writes.collect::<Vec<_>>().into_iter().map(async |(number, transaction)| {
            let receipt = ledger.write(&vault(), &actor(), transaction.clone()).await?;
            disk.note(Event::Promised(Promise::Written(number, transaction, receipt)));
            Ok::<(), ledger_node::WriteError>(())
        });
        join_all(answers).await.into_iter().collect::<Result<(), _>>()?;
        if round % 7 == 3 {
            let note = ledger.checkpoint(&vault(), 0).await?.note;
            let signed = SignedCheckpoint::open(&note, &[ledger.verifier_key()])?;
            promise(Promise::Published(signed.size, signed.root));
        }
        match round * 4 / plan.rounds.max(1) {
            1 if ledger.vault(&brief_vault()).is_none() => {
                ledger.create_vault(brief_vault()).await?;
                ledger.write(&brief_vault(), &actor(), transaction(u64::MAX - 1, &mut dice)).await?;
            }
            3 if ledger.vault(&brief_vault()).is_some() => {
                ledger.delete_vault(brief_vault()).await?;
                promise(Promise::VaultDeleted(brief_vault()));
            }
            _ => {}
        }
    }
    Ok(())
}
