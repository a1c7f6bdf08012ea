//! A log moves in from another engine.

use std::path::Path;

use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use ledger_core::ports::{LogStore, StoreError};
use storage_adapters::wal::{self, WalDirectory, WalError, WalLogStore, WalOptions};

use super::workload::{Workload, append, content};

fn check_import(source: &dyn LogStore, dir: &Path) {
    let expected = (
        source.snapshot().expect("a sound source"),
        source.read(0, u64::MAX, usize::MAX).expect("a sound source"),
    );
    // What an import that was interrupted leaves.
    std::fs::create_dir(dir.join("raft.wal.new")).expect("it can be made");
    std::fs::write(dir.join("raft.wal.new/00000000000000000001.wal"), "half").expect("it can be written");
    wal::import(source, dir, WalOptions::default()).expect("the import succeeds");
    assert!(WalDirectory::is_in(dir) && !dir.join("raft.wal.new").exists());
    let store = WalLogStore::open(dir, WalOptions::default()).expect("the copy opens");
    assert_eq!(content(&store).expect("the copy is sound"), expected);
    let next = expected.0.last.map_or(1, |last| last.index + 1);
    store.commit(&[append(99, next, vec![1])]).expect("the log goes on");
    drop(store);
    let refused = wal::import(source, dir, WalOptions::default()).expect_err("there is a log already");
    let StoreError::Engine { source: reason, .. } = refused else { panic!("{refused}") };
    assert!(matches!(reason.downcast_ref(), Some(WalError::Exists { .. })), "{reason}");
}

#[test]
fn a_log_in_memory_moves_in_whole() {
    for seed in 0..4 {
        let store = MemoryLogStore::open(&MemoryLogDisk::default());
        let workload = Workload::new(seed, 60);
        workload.batches.iter().for_each(|batch| store.commit(batch).expect("the batch is valid"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        check_import(&store, dir.path());
    }
}

#[test]
fn an_empty_log_moves_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    check_import(&MemoryLogStore::open(&MemoryLogDisk::default()), dir.path());
}

#[test]
#[cfg(feature = "redb")]
fn a_log_in_redb_moves_in_whole() {
    use storage_adapters::redb::{RedbLogStore, RedbOptions};
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = RedbLogStore::open(dir.path(), RedbOptions::default()).expect("a new log");
    let workload = Workload::new(21, 60);
    workload.batches.iter().for_each(|batch| store.commit(batch).expect("the batch is valid"));
    let last = store.snapshot().expect("a sound log").last.map_or(0, |last| last.index);
    // More than one batch of the copy.
    for index in last + 1..last + 10 {
        store.commit(&[append(50, index, vec![8; 1 << 20])]).expect("the batch is valid");
    }
    check_import(&store, dir.path());
}
