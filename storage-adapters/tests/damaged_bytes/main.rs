//! redb serves what a damaged page says. These tests damage every byte of small files, one at a time,
//! and hold the stores to "as it was written, or an error".
#![cfg(feature = "redb")]

mod damage;

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger_core::names::VaultId;
use ledger_core::ports::{
    AppliedState, LogChange, LogId, LogKind, LogRecord, LogStore, RowChange, ScanRange, SignedMark,
    StateBatch, StateStore, StoredVote, Table,
};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use storage_adapters::redb::{OpenCheck, RedbLogStore, RedbOptions, RedbStateStore};

use crate::damage::{Outcome, Tally, damage};

fn options(check: OpenCheck) -> RedbOptions {
    let cache_bytes = 1 << 20;
    RedbOptions {
        log_cache_bytes: cache_bytes,
        state_cache_bytes: cache_bytes,
        blocks_cache_bytes: cache_bytes,
        check,
        ..RedbOptions::default()
    }
}

/// A file's content as redb sees it.
fn backend(content: &[u8]) -> InMemoryBackend {
    let backend = InMemoryBackend::new();
    backend.set_len(content.len() as u64).expect("memory grows");
    backend.write(0, content).expect("memory can be written");
    backend
}

/// Every how many bytes of a file one is damaged: a prime, so that all places in a row are met.
const STRIDE_BYTES: usize = 29;

fn id(index: u64) -> LogId {
    LogId { term: 3, node: 1, index }
}

fn record(index: u64) -> LogRecord {
    let payload = Bytes::from(vec![index as u8; 150]);
    LogRecord { id: id(index), kind: LogKind::Proposal, payload }
}

fn write_log(store: &impl LogStore) {
    let append = |range: std::ops::Range<u64>| range.map(|index| LogChange::Append(record(index)));
    store.commit(&append(0..40).collect::<Vec<_>>()).expect("the batch is valid");
    let mark = SignedMark { vault: VaultId([4; 16]), size: 9, root: [5; 32] };
    let rest = [
        LogChange::PurgeThrough(id(9)),
        LogChange::SaveCommitted(id(30)),
        LogChange::SaveSigned(mark),
        LogChange::SaveVote(StoredVote { term: 3, node: Some(1), committed: true }),
    ];
    store.commit(&rest).expect("the batch is valid");
    store.commit(&append(40..50).collect::<Vec<_>>()).expect("the batch is valid");
}

fn damage_the_log(test: &str, stride: usize) -> Tally {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = RedbLogStore::open(dir.path(), options(OpenCheck::Log)).expect("the store opens");
    write_log(&store);
    let expected = store.snapshot().expect("the store is sound");
    let records: Vec<LogRecord> = (10..50).map(record).collect();
    assert_eq!(store.read(0, u64::MAX, usize::MAX).expect("the store is sound"), records);
    drop(store);
    let content = std::fs::read(dir.path().join("raft.db")).expect("the file is there");
    damage(test, stride, &content, |damaged| {
        let Ok(store) = RedbLogStore::with_backend(backend(damaged), options(OpenCheck::Log)) else {
            return Outcome::Detected;
        };
        match (store.snapshot(), store.read(0, u64::MAX, usize::MAX)) {
            (Ok(snapshot), Ok(read)) if snapshot == expected && read == records => Outcome::Harmless,
            (Ok(_), Ok(_)) => Outcome::Wrong,
            _ => Outcome::Detected,
        }
    })
}

#[test]
fn a_damaged_log_is_served_whole_or_refused() {
    let tally = damage_the_log("a_damaged_log_is_served_whole_or_refused", STRIDE_BYTES);
    assert_eq!((tally.wrong, tally.panicked, tally.aborted), (0, 0, 0), "{tally:?}");
    assert!(tally.detected > 500, "too little was damaged to prove anything: {tally:?}");
}

#[test]
#[ignore = "takes minutes: every byte, not a sample"]
fn a_log_with_any_byte_damaged_is_served_whole_or_refused() {
    let tally = damage_the_log("a_log_with_any_byte_damaged_is_served_whole_or_refused", 1);
    assert_eq!((tally.wrong, tally.panicked, tally.aborted), (0, 0, 0), "{tally:?}");
    assert!(tally.detected > 10_000, "too little was damaged to prove anything: {tally:?}");
}

fn state_rows() -> BTreeMap<(Table, Vec<u8>), Bytes> {
    let mut rows = BTreeMap::new();
    for table in Table::ALL {
        for number in 0..10_u8 {
            let key = [&u64::from(number % 3).to_be_bytes()[..], &[number]].concat();
            rows.insert((table, key), Bytes::from(vec![number ^ table as u8; 40]));
        }
    }
    rows
}

/// Reads every row by key and by scan.
fn look_at_state(store: &impl StateStore, expected: &BTreeMap<(Table, Vec<u8>), Bytes>) -> Outcome {
    let (mut detected, mut hidden) = (false, false);
    for ((table, key), value) in expected {
        match store.get(*table, key) {
            Ok(Some(found)) if found == value => {}
            Ok(Some(_)) => return Outcome::Wrong,
            Ok(None) => hidden = true,
            Err(_) => detected = true,
        }
    }
    for table in Table::ALL {
        let mut visited = 0;
        let mut wrong = false;
        let range = ScanRange { prefix: Vec::new(), start: Vec::new() };
        let scanned = store.scan(table, &range, &mut |key, value| {
            visited += 1;
            wrong |= expected.get(&(table, key.to_vec())).is_none_or(|expected| expected != value);
            true
        });
        match scanned {
            _ if wrong => return Outcome::Wrong,
            Ok(()) => hidden |= visited != expected.keys().filter(|(of, _)| *of == table).count(),
            Err(_) => detected = true,
        }
    }
    match store.applied() {
        Ok(Some(applied)) if applied.last_applied == id(7) && applied.membership == "members" => {}
        Ok(Some(_)) => return Outcome::Wrong,
        Ok(None) => hidden = true,
        Err(_) => detected = true,
    }
    match (detected, hidden) {
        (true, _) => Outcome::Detected,
        (false, true) => Outcome::Hidden,
        (false, false) => Outcome::Harmless,
    }
}

/// Damages one of the two files of a state.
fn damage_the_state(test: &str, stride: usize, file: &str, check: OpenCheck) -> Tally {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = RedbStateStore::open(dir.path(), options(check)).expect("the store opens");
    let expected = state_rows();
    let rows = expected.iter().map(|((table, key), value)| RowChange {
        table: *table,
        key: key.clone(),
        value: Some(value.clone()),
    });
    let applied = AppliedState { last_applied: id(7), membership: Bytes::from_static(b"members") };
    let batch = StateBatch { dropped_vaults: Vec::new(), rows: rows.collect(), applied };
    store.commit(&batch).expect("the batch is valid");
    assert!(matches!(look_at_state(&store, &expected), Outcome::Harmless), "the store is sound");
    drop(store);
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("the file is there");
    let (state, blocks) = (read("state.db"), read("blocks.db"));
    damage(test, stride, &read(file), |damaged| {
        let (state, blocks) = if file == "state.db" { (damaged, &blocks[..]) } else { (&state[..], damaged) };
        match RedbStateStore::with_backends(backend(state), backend(blocks), options(check)) {
            Ok(store) => look_at_state(&store, &expected),
            Err(_) => Outcome::Detected,
        }
    })
}

/// Without the check a row may be hidden, and redb may abort the process as it closes the file; what is
/// served is still what was written.
fn no_altered_value(tally: &Tally) {
    assert_eq!((tally.wrong, tally.panicked), (0, 0), "{tally:?}");
    assert!(tally.detected > 150, "too little was damaged to prove anything: {tally:?}");
}

fn nothing_altered_or_hidden(tally: &Tally) {
    assert_eq!((tally.wrong, tally.hidden, tally.panicked, tally.aborted), (0, 0, 0, 0), "{tally:?}");
    assert!(tally.detected > 150, "too little was damaged to prove anything: {tally:?}");
}

#[test]
fn a_damaged_state_serves_no_altered_value() {
    let test = "a_damaged_state_serves_no_altered_value";
    no_altered_value(&damage_the_state(test, STRIDE_BYTES, "state.db", OpenCheck::Log));
}

#[test]
fn damaged_blocks_serve_no_altered_value() {
    let test = "damaged_blocks_serve_no_altered_value";
    no_altered_value(&damage_the_state(test, STRIDE_BYTES, "blocks.db", OpenCheck::Log));
}

#[test]
fn a_checked_state_hides_no_row() {
    let test = "a_checked_state_hides_no_row";
    nothing_altered_or_hidden(&damage_the_state(test, STRIDE_BYTES, "state.db", OpenCheck::AllFiles));
}

#[test]
fn checked_blocks_hide_no_row() {
    let test = "checked_blocks_hide_no_row";
    nothing_altered_or_hidden(&damage_the_state(test, STRIDE_BYTES, "blocks.db", OpenCheck::AllFiles));
}

#[test]
#[ignore = "takes minutes: every byte, not a sample"]
fn a_state_with_any_byte_damaged_serves_no_altered_value() {
    let test = "a_state_with_any_byte_damaged_serves_no_altered_value";
    no_altered_value(&damage_the_state(test, 1, "state.db", OpenCheck::Log));
}
