//! What the engine reads of the log: something where there is something, and an error where the store has one
//! (openraft issues 1601 and 1795: an empty read, and one that failed, were taken for the end of the log).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use ledger_core::ports::{
    LogChange, LogId, LogKind, LogRecord, LogSnapshot, LogStore, StoreError, StoredVote,
};
use openraft::storage::RaftLogReader;

use super::LeaderId;
use super::log::Log;
use crate::log_writer::LogWriter;

const RECORDS: u64 = 5;
const TERM: u64 = 3;
const NODE: u64 = 7;

/// A store whose reads fail on demand.
struct Unreadable {
    inner: MemoryLogStore,
    fails: AtomicBool,
}

impl LogStore for Unreadable {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        self.inner.snapshot()
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Engine { action: "read the log", source: "the disk is broken".into() });
        }
        self.inner.read(from, to, bytes_max)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        self.inner.commit(changes)
    }
}

/// A log of entries 1 to 5 that were there when it was opened: none of them is held in memory.
fn log() -> (Arc<Unreadable>, Log) {
    let inner = MemoryLogStore::open(&MemoryLogDisk::default());
    let record = |index| LogRecord {
        id: LogId { term: TERM, node: NODE, index },
        kind: LogKind::Blank,
        payload: bytes::Bytes::new(),
    };
    let vote = LogChange::SaveVote(StoredVote { term: TERM, node: Some(NODE), committed: true });
    let first = LogChange::PurgeThrough(LogId { term: TERM, node: NODE, index: 0 });
    let records = (1..=RECORDS).map(|index| LogChange::Append(record(index)));
    let changes: Vec<LogChange> = [vote, first].into_iter().chain(records).collect();
    assert!(inner.commit(&changes).is_ok());
    let store = Arc::new(Unreadable { inner, fails: AtomicBool::new(false) });
    let log = Log::open(store.clone(), LogWriter::new());
    (store, log.unwrap_or_else(|error| panic!("{error}")))
}

#[tokio::test]
async fn a_limited_read_is_never_empty_where_there_are_entries() {
    let (_, mut log) = log();
    for from in 1..=RECORDS {
        for to in from + 1..=RECORDS + 3 {
            let read = log.limited_get_log_entries(from, to).await;
            let indexes: Vec<u64> = read.into_iter().flatten().map(|entry| entry.log_id.index).collect();
            assert!(!indexes.is_empty(), "{from}..{to}");
            assert!(
                indexes.iter().copied().eq(from..from + indexes.len() as u64),
                "{from}..{to}: {indexes:?}"
            );
        }
    }
    let beyond = log.limited_get_log_entries(RECORDS + 1, RECORDS + 3).await;
    assert!(beyond.is_ok_and(|entries| entries.is_empty()), "there is nothing");
}

#[tokio::test]
async fn a_read_of_the_log_that_fails_is_an_error_and_never_the_end_of_the_log() {
    let (store, mut log) = log();
    let leader = LeaderId { term: TERM, voted_for: NODE };
    for fails in [false, true] {
        store.fails.store(fails, Ordering::SeqCst);
        assert_eq!(log.limited_get_log_entries(1, RECORDS + 1).await.is_err(), fails);
        assert_eq!(log.try_get_log_entries(1..=RECORDS).await.is_err(), fails);
        let entries: Vec<_> = log.entries_stream(1..=RECORDS).await.collect().await;
        let sent: Vec<_> = log.leader_bounded_stream(leader, 1..=RECORDS).await.collect().await;
        let expected = if fails { 1 } else { RECORDS as usize };
        assert_eq!((entries.len(), sent.len()), (expected, expected), "after an error there is nothing more");
        assert_eq!(entries.iter().any(Result::is_err), fails);
        assert_eq!(sent.iter().any(Result::is_err), fails);
    }
}
