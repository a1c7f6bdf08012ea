//! The engine under a backend that counts, fails and is cut off.
#![cfg(feature = "redb")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ledger_core::ports::{
    AppliedState, LogChange, LogId, LogKind, LogRecord, LogStore, RowChange, StateBatch, StateStore,
    StoreError, StoredVote, Table,
};
use redb::StorageBackend;
use storage_adapters::redb::{RedbLogStore, RedbOptions, RedbStateStore, RedbStores};

/// A disk in memory. What was synced last stays when the power is cut.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    content: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    syncs: AtomicU64,
    /// Syncs fail from now on.
    syncs_fail: AtomicBool,
}

impl Disk {
    fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }

    fn fail_syncs(&self) {
        self.0.syncs_fail.store(true, Ordering::SeqCst);
    }

    /// The disk after a power cut that lost every write since the last sync.
    fn after_power_cut(&self) -> Self {
        let synced = self.0.synced.lock().expect("nobody panicked").clone();
        let disk = Self::default();
        *disk.0.content.lock().expect("nobody panicked") = synced.clone();
        *disk.0.synced.lock().expect("nobody panicked") = synced;
        disk
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.content.lock().expect("nobody panicked").len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let content = self.0.content.lock().expect("nobody panicked");
        let start = usize::try_from(offset).expect("the disk is small");
        let from = content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = usize::try_from(len).expect("the disk is small");
        self.0.content.lock().expect("nobody panicked").resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.0.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        *self.0.synced.lock().expect("nobody panicked") =
            self.0.content.lock().expect("nobody panicked").clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut content = self.0.content.lock().expect("nobody panicked");
        let start = usize::try_from(offset).expect("the disk is small");
        content.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, node: 1, index }
}

fn append(index: u64, kind: LogKind) -> LogChange {
    LogChange::Append(LogRecord { id: id(index), kind, payload: Bytes::from(vec![7; 256]) })
}

fn vault_row(table: Table, vault: u64, value: &'static str) -> RowChange {
    let value = Some(Bytes::from_static(value.as_bytes()));
    RowChange { table, key: vault.to_be_bytes().to_vec(), value }
}

fn batch(index: u64, rows: Vec<RowChange>) -> StateBatch {
    let applied = AppliedState { last_applied: id(index), membership: Bytes::new() };
    StateBatch { dropped_vaults: Vec::new(), rows, applied }
}

fn open_log(disk: &Disk) -> RedbLogStore {
    RedbLogStore::with_backend(disk.clone(), RedbOptions::default()).expect("the log opens")
}

fn open_state(state: &Disk, blocks: &Disk) -> RedbStateStore {
    RedbStateStore::with_backends(state.clone(), blocks.clone(), RedbOptions::default())
        .expect("the state opens")
}

#[test]
fn a_batch_of_the_log_is_one_sync_and_two_with_a_vote_or_a_membership() {
    const BATCHES: u64 = 200;
    let disk = Disk::default();
    let store = open_log(&disk);
    assert_eq!(store.syncs(), disk.syncs(), "the store counts what reaches the disk");
    let mut next = 0;
    let mut records = |count: u64| -> Vec<LogChange> {
        let first = next;
        next += count;
        (first..next).map(|index| append(index, LogKind::Proposal)).collect()
    };
    let before = (store.syncs(), store.growths());
    for round in 0..BATCHES {
        let mut changes = records(1 + round % 64);
        if round % 3 == 0 {
            changes.push(LogChange::SaveCommitted(id(round)));
        }
        if round % 50 == 49 {
            changes.push(LogChange::PurgeThrough(id(round * 10)));
        }
        store.commit(&changes).expect("the batch is valid");
    }
    let growths = store.growths() - before.1;
    assert!(growths < 8, "the file doubles when it grows: {growths}");
    assert_eq!(store.syncs() - before.0, BATCHES + growths, "one sync a batch, whatever is in it");
    assert_eq!(store.syncs(), disk.syncs(), "the store counts what reaches the disk");
    store.commit(&[]).expect("an empty batch is valid");
    assert_eq!(store.syncs() - before.0, BATCHES + growths, "no sync for nothing");

    let before = store.syncs();
    let vote = StoredVote { term: 2, node: Some(1), committed: false };
    store.commit(&[LogChange::SaveVote(vote)]).expect("the batch is valid");
    assert_eq!(store.syncs() - before, 2, "a vote is written in two phases");
    let last = store.snapshot().expect("the store is sound").last.expect("it has records").index;
    store.commit(&[append(last + 1, LogKind::Membership)]).expect("the batch is valid");
    assert_eq!(store.syncs() - before, 4, "a membership is written in two phases");
}

#[test]
fn a_batch_of_the_state_syncs_only_the_files_it_changes() {
    let (state, blocks) = (Disk::default(), Disk::default());
    let store = open_state(&state, &blocks);
    let before = (state.syncs(), blocks.syncs());
    store.commit(&batch(1, vec![vault_row(Table::Entities, 1, "v")])).expect("the batch is valid");
    assert_eq!((state.syncs() - before.0, blocks.syncs() - before.1), (2, 0), "no block, no sync of blocks");
    store.commit(&batch(2, vec![vault_row(Table::Blocks, 1, "b")])).expect("the batch is valid");
    assert_eq!((state.syncs() - before.0, blocks.syncs() - before.1), (4, 2), "both files");
    assert_eq!(store.syncs(), state.syncs() + blocks.syncs(), "the store counts both");
    assert!(store.bytes_written() > 0);
}

#[test]
fn both_stores_count_what_they_cost_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = RedbStores::open(dir.path(), RedbOptions::default()).expect("a new directory opens");
    let before = (stores.log.syncs(), stores.log.bytes_written());
    for index in 0..100 {
        stores.log.commit(&[append(index, LogKind::Proposal)]).expect("the batch is valid");
    }
    assert_eq!(stores.log.syncs() - before.0, 100, "one fsync a batch");
    let bytes = stores.log.bytes_written() - before.1;
    println!("{} bytes written for each batch of one record of 256 bytes", bytes / 100);
    assert!(bytes >= 100 * 256, "the payload is counted: {bytes}");
}

#[test]
fn a_failed_sync_of_the_log_ends_all_writes() {
    let disk = Disk::default();
    let store = open_log(&disk);
    store.commit(&[append(0, LogKind::Proposal)]).expect("the batch is valid");
    disk.fail_syncs();
    let failed = store.commit(&[append(1, LogKind::Proposal)]);
    assert!(matches!(failed, Err(StoreError::Engine { action: "commit the log", .. })), "{failed:?}");
    disk.0.syncs_fail.store(false, Ordering::SeqCst);
    let refused = store.commit(&[append(1, LogKind::Proposal)]);
    assert!(
        matches!(refused, Err(StoreError::Poisoned)),
        "a disk that works again is not trusted: {refused:?}"
    );
    drop(store);
    let store = open_log(&disk.after_power_cut());
    let last = store.snapshot().expect("the log is sound").last;
    assert_eq!(last, Some(id(0)), "what was acknowledged is there, and no more");
}

#[test]
fn a_failed_sync_of_either_file_of_the_state_ends_all_writes() {
    let rows = || vec![vault_row(Table::Entities, 1, "new"), vault_row(Table::Blocks, 1, "new")];
    for fault_in_blocks in [false, true] {
        let (state, blocks) = (Disk::default(), Disk::default());
        let store = open_state(&state, &blocks);
        store.commit(&batch(1, vec![vault_row(Table::Entities, 1, "old")])).expect("the batch is valid");
        let faulty = if fault_in_blocks { &blocks } else { &state };
        faulty.fail_syncs();
        let failed = store.commit(&batch(2, rows()));
        assert!(matches!(failed, Err(StoreError::Engine { action: "commit the state", .. })), "{failed:?}");
        faulty.0.syncs_fail.store(false, Ordering::SeqCst);
        assert!(matches!(store.commit(&batch(2, rows())), Err(StoreError::Poisoned)));
        drop(store);
        let store = open_state(&state.after_power_cut(), &blocks.after_power_cut());
        let applied = store.applied().expect("the state is sound").expect("it has a mark");
        assert_eq!(applied.last_applied, id(1), "the failed batch does not count");
        let value = store.get(Table::Entities, &1_u64.to_be_bytes()).expect("the state is sound");
        assert_eq!(value.as_deref(), Some(&b"old"[..]), "the failed batch changed nothing");
        store.commit(&batch(2, rows())).expect("opened again, the store goes on");
    }
}

#[test]
fn power_cuts_keep_every_acknowledged_batch() {
    let mut log_disk = Disk::default();
    let (mut state_disk, mut blocks_disk) = (Disk::default(), Disk::default());
    for index in 0..60 {
        let (log, state) = (open_log(&log_disk), open_state(&state_disk, &blocks_disk));
        let indexes: Vec<u64> = log
            .read(0, u64::MAX, usize::MAX)
            .expect("the log is sound")
            .iter()
            .map(|record| record.id.index)
            .collect();
        assert_eq!(indexes, (0..index).collect::<Vec<_>>(), "every acknowledged record is there");
        let applied = state.applied().expect("the state is sound").map(|applied| applied.last_applied.index);
        assert_eq!(applied, index.checked_sub(1), "every acknowledged batch is there");
        log.commit(&[append(index, LogKind::Proposal)]).expect("the batch is valid");
        let rows = vec![vault_row(Table::Entities, index, "v"), vault_row(Table::Blocks, index, "b")];
        state.commit(&batch(index, rows)).expect("the batch is valid");
        // Cut before the stores are closed.
        (log_disk, state_disk, blocks_disk) =
            (log_disk.after_power_cut(), state_disk.after_power_cut(), blocks_disk.after_power_cut());
    }
}

#[test]
fn a_vault_keeps_its_blocks_until_the_state_has_dropped_it() {
    let present = |store: &RedbStateStore, table| {
        store.get(table, &1_u64.to_be_bytes()).expect("the state is sound").is_some()
    };
    let (state, blocks) = (Disk::default(), Disk::default());
    let store = open_state(&state, &blocks);
    let rows = vec![vault_row(Table::Vaults, 1, "v"), vault_row(Table::Blocks, 1, "b")];
    store.commit(&batch(1, rows)).expect("the batch is valid");
    let dropping = StateBatch { dropped_vaults: vec![1], ..batch(2, Vec::new()) };

    // Cut between the two files: the state's part fails, the blocks must not have gone ahead of it.
    state.fail_syncs();
    assert!(store.commit(&dropping).is_err());
    let store = open_state(&state.after_power_cut(), &blocks.after_power_cut());
    assert!(present(&store, Table::Vaults) && present(&store, Table::Blocks), "nothing was dropped");

    // The other half: the state's part is durable, the blocks' part is not.
    let (state, blocks) = (state.after_power_cut(), blocks.after_power_cut());
    let store = open_state(&state, &blocks);
    blocks.fail_syncs();
    assert!(store.commit(&dropping).is_err());
    let (state, blocks) = (state.after_power_cut(), blocks.after_power_cut());
    let store = open_state(&state, &blocks);
    assert!(!present(&store, Table::Vaults), "the vault is dropped");
    assert!(!present(&store, Table::Blocks), "opening finished the removal of its blocks");

    // Once a later batch is in, the removal is over: what is written then stays.
    store.commit(&batch(3, vec![vault_row(Table::Blocks, 1, "born again")])).expect("the batch is valid");
    let store = open_state(&state.after_power_cut(), &blocks.after_power_cut());
    assert!(present(&store, Table::Blocks), "a removal that is over does not happen again");
}

#[test]
fn a_deleted_block_stays_until_the_state_no_longer_needs_it() {
    let present = |store: &RedbStateStore| {
        store.get(Table::Undo, &1_u64.to_be_bytes()).expect("the state is sound").is_some()
    };
    let (state, blocks) = (Disk::default(), Disk::default());
    let store = open_state(&state, &blocks);
    store.commit(&batch(1, vec![vault_row(Table::Undo, 1, "u")])).expect("the batch is valid");
    let mut deletion = vault_row(Table::Undo, 1, "u");
    deletion.value = None;
    let deleting = batch(2, vec![deletion]);

    // Cut before the state is durable: the row must still be there.
    state.fail_syncs();
    assert!(store.commit(&deleting).is_err());
    let (state, blocks) = (state.after_power_cut(), blocks.after_power_cut());
    let store = open_state(&state, &blocks);
    assert!(present(&store), "nothing was deleted");

    // Cut after it: opening finishes the deletion.
    blocks.fail_syncs();
    assert!(store.commit(&deleting).is_err());
    let store = open_state(&state.after_power_cut(), &blocks.after_power_cut());
    assert_eq!(
        store.applied().expect("the state is sound").map(|applied| applied.last_applied.index),
        Some(2)
    );
    assert!(!present(&store), "opening finished the deletion");
}
