//! The stores of a node in one directory: what is made, taken over, and refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use bytes::Bytes;
use ledger_core::ports::{AppliedState, LogChange, LogId, LogKind, LogRecord, LogStore, StateBatch};
use ledger_core::ports::{StateStore, StoredVote};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::{RedbLogStore, RedbOptions};

fn open(dir: &Path) -> Result<EmbeddedStores, String> {
    EmbeddedStores::open(dir, RedbOptions::default()).map_err(|error| {
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })
}

fn changes() -> Vec<LogChange> {
    let record = |index: u64| LogRecord {
        id: LogId { term: 2, node: 0, index },
        kind: LogKind::Proposal,
        payload: Bytes::from(vec![index as u8; 300]),
    };
    let vote = LogChange::SaveVote(StoredVote { term: 2, node: Some(7), committed: true });
    std::iter::once(vote).chain((1..=20).map(|index| LogChange::Append(record(index)))).collect()
}

#[test]
fn the_log_of_format_1_is_taken_over_whole_and_removed_also_when_a_crash_left_it_beside_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let former = RedbLogStore::open(dir.path(), RedbOptions::default()).unwrap();
    former.commit(&changes()).unwrap();
    let (snapshot, records) = (former.snapshot().unwrap(), former.read(0, 99, usize::MAX).unwrap());
    drop(former);
    let former = std::fs::read(dir.path().join("raft.db")).unwrap();
    // The state's files of that time.
    drop(storage_adapters::redb::RedbStateStore::open(dir.path(), RedbOptions::default()).unwrap());
    for _ in 0..2 {
        let stores = open(dir.path()).unwrap();
        assert_eq!(stores.log.snapshot().unwrap(), snapshot);
        assert_eq!(stores.log.read(0, 99, usize::MAX).unwrap(), records);
        assert!(!dir.path().join("raft.db").exists());
        drop(stores);
        std::fs::write(dir.path().join("raft.db"), &former).unwrap();
    }
}

#[test]
fn a_missing_log_or_state_is_refused_by_name_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).unwrap();
    stores.log.commit(&changes()).unwrap();
    let last_applied = LogId { term: 2, node: 0, index: 20 };
    let applied = AppliedState { last_applied, membership: Bytes::new() };
    stores.state.commit(&StateBatch { dropped_vaults: Vec::new(), rows: Vec::new(), applied }).unwrap();
    drop(stores);
    for (part, hidden) in [("raft.wal", "wal.hidden"), ("state.db", "state.hidden")] {
        std::fs::rename(dir.path().join(part), dir.path().join(hidden)).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(refused.contains(part) && refused.contains("missing"), "{part}: {refused}");
        assert!(!dir.path().join(part).exists(), "{part} was made anew");
        std::fs::rename(dir.path().join(hidden), dir.path().join(part)).unwrap();
    }
    assert_eq!(open(dir.path()).unwrap().log.read(0, 99, usize::MAX).unwrap().len(), 20);
}
