//! redb serves what a damaged page says. These tests damage every byte of small files, one at a time,
//! and hold the stores to "as it was written, or an error".
#![cfg(feature = "redb")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use bytes::Bytes;
use ledger_core::names::VaultId;
use ledger_core::ports::{
    AppliedState, LogChange, LogId, LogKind, LogRecord, LogStore, RowChange, ScanRange, SignedMark,
    StateBatch, StateStore, StoredVote, Table,
};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use storage_adapters::redb::{OpenCheck, RedbLogStore, RedbOptions, RedbStateStore};

fn options(check: OpenCheck) -> RedbOptions {
    let cache_bytes = 1 << 20;
    RedbOptions {
        log_cache_bytes: cache_bytes,
        state_cache_bytes: cache_bytes,
        blocks_cache_bytes: cache_bytes,
        check,
    }
}

/// A file's content as redb sees it.
fn backend(content: &[u8]) -> InMemoryBackend {
    let backend = InMemoryBackend::new();
    backend.set_len(content.len() as u64).expect("memory grows");
    backend.write(0, content).expect("memory can be written");
    backend
}

/// What came of damaging bytes.
#[derive(Debug, Default)]
struct Tally {
    /// Some call failed.
    detected: usize,
    /// All that was asked for came back as it was written.
    harmless: usize,
    /// redb panicked through our call.
    panicked: usize,
    /// A row that was written came back as absent.
    hidden: Vec<usize>,
    /// Something came back that was not written.
    wrong: Vec<usize>,
}

enum Outcome {
    Detected,
    Harmless,
    Hidden,
    Wrong,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Flips all bits, and one bit, of every byte of `content` that lies in a page with content, and asks
/// `look` what the store makes of it.
fn damage_every_byte(content: &[u8], look: impl Fn(&[u8]) -> Outcome) -> Tally {
    const PAGE_BYTES: usize = 4096;
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            report(info);
        }
    }));
    let mut tally = Tally::default();
    let mut damaged = content.to_vec();
    for (page, bytes) in content.chunks(PAGE_BYTES).enumerate() {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        for position in page * PAGE_BYTES..page * PAGE_BYTES + bytes.len() {
            for mask in [0xFF, 1 << (position % 8)] {
                damaged[position] ^= mask;
                QUIET.set(true);
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| look(&damaged)));
                QUIET.set(false);
                damaged[position] ^= mask;
                match outcome {
                    Ok(Outcome::Detected) => tally.detected += 1,
                    Ok(Outcome::Harmless) => tally.harmless += 1,
                    Ok(Outcome::Hidden) => tally.hidden.push(position),
                    Ok(Outcome::Wrong) => tally.wrong.push(position),
                    Err(_) => tally.panicked += 1,
                }
            }
        }
    }
    println!(
        "{} flips: {} detected, {} harmless, {} panicked, {} hidden, {} wrong",
        tally.detected + tally.harmless + tally.panicked + tally.hidden.len() + tally.wrong.len(),
        tally.detected, tally.harmless, tally.panicked, tally.hidden.len(), tally.wrong.len(),
    );
    tally
}

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

#[test]
fn no_damaged_byte_of_the_log_is_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = RedbLogStore::open(dir.path(), options(OpenCheck::Log)).expect("the store opens");
    write_log(&store);
    let expected = store.snapshot().expect("the store is sound");
    let records: Vec<LogRecord> = (10..50).map(record).collect();
    assert_eq!(store.read(0, u64::MAX, usize::MAX).expect("the store is sound"), records);
    drop(store);
    let content = std::fs::read(dir.path().join("raft.db")).expect("the file is there");

    let tally = damage_every_byte(&content, |damaged| {
        let Ok(store) = RedbLogStore::with_backend(backend(damaged), options(OpenCheck::Log)) else {
            return Outcome::Detected;
        };
        match (store.snapshot(), store.read(0, u64::MAX, usize::MAX)) {
            (Ok(snapshot), Ok(read)) if snapshot == expected && read == records => Outcome::Harmless,
            (Ok(_), Ok(_)) => Outcome::Wrong,
            _ => Outcome::Detected,
        }
    });
    assert_eq!(tally.wrong, [0; 0], "damage was served");
    assert_eq!(tally.panicked, 0, "a panic came through");
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

/// Damages `state.db` and `blocks.db` in turn.
fn damage_the_state(check: OpenCheck) -> Vec<Tally> {
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
    let state = std::fs::read(dir.path().join("state.db")).expect("the file is there");
    let blocks = std::fs::read(dir.path().join("blocks.db")).expect("the file is there");
    let look = |state: &[u8], blocks: &[u8]| {
        match RedbStateStore::with_backends(backend(state), backend(blocks), options(check)) {
            Ok(store) => look_at_state(&store, &expected),
            Err(_) => Outcome::Detected,
        }
    };
    vec![
        damage_every_byte(&state, |damaged| look(damaged, &blocks)),
        damage_every_byte(&blocks, |damaged| look(&state, damaged)),
    ]
}

#[test]
fn no_damaged_byte_of_the_state_is_served_as_a_value() {
    for tally in damage_the_state(OpenCheck::Log) {
        assert_eq!(tally.wrong, [0; 0], "damage was served");
        assert_eq!(tally.panicked, 0, "a panic came through");
        assert!(tally.detected > 2_000, "too little was damaged to prove anything: {tally:?}");
    }
}

#[test]
fn checked_files_hide_no_row_when_a_byte_is_damaged() {
    for tally in damage_the_state(OpenCheck::AllFiles) {
        assert_eq!(tally.wrong, [0; 0], "damage was served");
        assert_eq!(tally.hidden, [0; 0], "a row was hidden");
        assert_eq!(tally.panicked, 0, "a panic came through");
        assert!(tally.detected > 2_000, "too little was damaged to prove anything: {tally:?}");
    }
}
