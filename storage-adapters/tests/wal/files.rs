//! On a real file system.

use std::time::{Duration, Instant};

use ledger_core::ports::{LogChange, LogStore, StoreError};
use storage_adapters::wal::{WalError, WalLogStore, WalOptions};

use super::workload::{append, content};

fn open(dir: &std::path::Path) -> WalLogStore {
    WalLogStore::open(dir, WalOptions::default()).expect("the log opens")
}

#[test]
fn a_log_is_open_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let refused = WalLogStore::open(dir.path(), WalOptions::default()).expect_err("it is open");
    let StoreError::Engine { source, .. } = refused else { panic!("{refused}") };
    assert!(matches!(source.downcast_ref(), Some(WalError::InUse { .. })), "{source}");
    drop(store);
    open(dir.path());
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _store = open(dir.path());
    let files = dir.path().join("raft.wal");
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&files), 0o700);
    let mut segments = 0;
    for entry in std::fs::read_dir(&files).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        // The one that is being prepared may get its name meanwhile.
        if path.extension().is_some_and(|extension| extension == "wal") {
            segments += 1;
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            assert_eq!(path.metadata().expect("it is there").len(), 16 << 20, "filled before it is used");
        }
    }
    assert!(segments >= 1);
}

#[test]
fn a_hundred_thousand_records_are_opened_quickly() {
    const RECORDS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    for first in (1..=RECORDS).step_by(1_000) {
        let batch: Vec<LogChange> =
            (first..first + 1_000).map(|index| append(1, index, vec![7; 300])).collect();
        store.commit(&batch).expect("the batch is valid");
    }
    assert!(store.rotations() > 0, "several segments are in use");
    drop(store);
    let started = Instant::now();
    let store = open(dir.path());
    let took = started.elapsed();
    println!("{RECORDS} records opened in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(store.snapshot().expect("a sound log").last.map(|last| last.index), Some(RECORDS));
    let some = store.read(54_321, 54_331, usize::MAX).expect("a sound log");
    assert_eq!(
        some.iter().map(|record| record.id.index).collect::<Vec<_>>(),
        (54_321..54_331).collect::<Vec<_>>()
    );
    assert!(some.iter().all(|record| record.payload.iter().all(|byte| *byte == 7)));
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_size() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    store.commit(&[append(1, 1, vec![1; 100])]).expect("the batch is valid");
    let large: Vec<LogChange> = (2..12).map(|index| append(1, index, vec![2; 5 << 20])).collect();
    store.commit(&large).expect("the batch is valid");
    store.commit(&[append(1, 12, vec![3; 100])]).expect("the batch is valid");
    assert!(store.segment_bytes() > 50 << 20, "{}", store.segment_bytes());
    assert_eq!(store.syncs(), 3, "one sync each");
    let expected = content(&store).expect("a sound log");
    assert_eq!(expected.1.len(), 12);
    drop(store);
    let store = open(dir.path());
    assert_eq!(content(&store).expect("a sound log"), expected);
    let last = store.snapshot().expect("a sound log").last.expect("it has records");
    store.commit(&[LogChange::PurgeThrough(last)]).expect("the batch is valid");
    assert!(store.segment_bytes() <= 52 << 20, "one segment is left");
}
