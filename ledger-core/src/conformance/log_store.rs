//! The guarantees of [`LogStore`].
#![expect(clippy::expect_used, reason = "a suite fails by panicking")]

use bytes::Bytes;

use crate::names::VaultId;
use crate::ports::{
    LogChange, LogId, LogKind, LogRecord, LogSnapshot, LogStore, SignedMark, StoreError, StoredVote,
};

fn id(term: u64, index: u64) -> LogId {
    LogId { term, node: 7, index }
}

fn record(term: u64, index: u64) -> LogRecord {
    let payload = Bytes::from(format!("payload {index} of term {term}"));
    LogRecord { id: id(term, index), kind: LogKind::Proposal, payload }
}

fn append(term: u64, index: u64) -> LogChange {
    LogChange::Append(record(term, index))
}

fn appends(term: u64, indexes: std::ops::Range<u64>) -> Vec<LogChange> {
    indexes.map(|index| append(term, index)).collect()
}

fn mark(vault: u8, size: u64) -> SignedMark {
    SignedMark { vault: VaultId([vault; 16]), size, root: [vault.wrapping_add(1); 32] }
}

fn vote(term: u64) -> StoredVote {
    StoredVote { term, node: Some(3), committed: true }
}

fn commit(store: &impl LogStore, changes: &[LogChange]) {
    store.commit(changes).expect("the batch is valid");
}

fn snapshot(store: &impl LogStore) -> LogSnapshot {
    store.snapshot().expect("a sound store has a snapshot")
}

fn read_all(store: &impl LogStore) -> Vec<LogRecord> {
    store.read(0, u64::MAX, usize::MAX).expect("a sound store can be read")
}

fn indexes(store: &impl LogStore) -> Vec<u64> {
    read_all(store).iter().map(|record| record.id.index).collect()
}

/// **G1 atomic**: changes of one batch apply in order; of a batch that fails nothing applies, whichever
/// of its changes was at fault.
pub fn g1_atomic<S: LogStore>(open: impl Fn() -> S) {
    let store = open();
    let in_order = [
        append(1, 0),
        append(1, 1),
        append(1, 2),
        LogChange::TruncateAfter(Some(0)),
        append(2, 1),
        LogChange::SaveVote(vote(1)),
        LogChange::SaveVote(vote(2)),
    ];
    commit(&store, &in_order);
    let expected = vec![record(1, 0), record(2, 1)];
    assert_eq!(read_all(&store), expected, "changes of a batch apply in their order");
    assert_eq!(snapshot(&store).vote, Some(vote(2)), "the last vote of a batch stands");

    let before = snapshot(&store);
    let faulty = [
        LogChange::SaveVote(vote(9)),
        LogChange::SaveCommitted(id(2, 1)),
        LogChange::SaveSigned(mark(1, 5)),
        append(2, 2),
        LogChange::PurgeThrough(id(1, 0)),
        append(2, 9),
        append(2, 3),
    ];
    assert!(store.commit(&faulty).is_err(), "a batch with a hole in it is refused");
    assert_eq!(snapshot(&store), before, "a failed batch leaves no change");
    assert_eq!(read_all(&store), expected, "a failed batch leaves no record");
    drop(store);

    let store = open();
    assert_eq!(snapshot(&store), before, "a failed batch leaves no change behind on the disk");
    assert_eq!(read_all(&store), expected, "a failed batch leaves no record behind on the disk");
}

/// **G2 durable**: all that was committed is there when the store is opened again, batch after batch.
pub fn g2_durable<S: LogStore>(open: impl Fn() -> S) {
    let mut batches = vec![
        vec![LogChange::SaveVote(vote(1))],
        appends(1, 0..5),
        vec![LogChange::SaveCommitted(id(1, 3)), LogChange::SaveSigned(mark(2, 8))],
        vec![LogChange::SaveSigned(mark(1, 4)), LogChange::SaveSigned(mark(2, 9)), append(1, 5)],
        vec![LogChange::TruncateAfter(Some(4))],
        vec![LogChange::PurgeThrough(id(1, 1))],
        vec![LogChange::SaveVote(StoredVote { term: 2, node: None, committed: false })],
        appends(2, 5..40),
    ];
    batches.push(Vec::new());
    for batch in batches {
        let store = open();
        commit(&store, &batch);
        let (records, remembered) = (read_all(&store), snapshot(&store));
        drop(store);
        let store = open();
        assert_eq!(read_all(&store), records, "records survive a restart");
        assert_eq!(snapshot(&store), remembered, "the vote and the marks survive a restart");
    }
    let expected = LogSnapshot {
        vote: Some(StoredVote { term: 2, node: None, committed: false }),
        committed: Some(id(1, 3)),
        purged: Some(id(1, 1)),
        last: Some(id(2, 39)),
        signed: vec![mark(1, 4), mark(2, 9)],
    };
    let store = open();
    assert_eq!(snapshot(&store), expected, "all batches stand together");
    assert_eq!(indexes(&store), (2..40).collect::<Vec<_>>(), "all records stand together");
}

/// **G3 visible**: what `commit` returned for is seen at once, by every thread.
#[expect(clippy::disallowed_methods, reason = "visibility across threads needs a second thread")]
pub fn g3_visible<S: LogStore>(open: impl Fn() -> S) {
    let store = open();
    assert_eq!(snapshot(&store), LogSnapshot::default(), "a new store remembers nothing");
    assert!(read_all(&store).is_empty(), "a new store holds nothing");
    for index in 0..20 {
        commit(&store, &[append(1, index), LogChange::SaveCommitted(id(1, index))]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(snapshot(&store).last, Some(id(1, index)), "the append is seen");
                assert_eq!(snapshot(&store).committed, Some(id(1, index)), "the mark is seen");
                let seen = store.read(index, index + 1, usize::MAX).expect("a sound store can be read");
                assert_eq!(seen, [record(1, index)], "the record is seen");
            });
        });
    }
}

/// **G4 contiguous**: an append that is not the next record is refused, wherever the log stands.
pub fn g4_contiguous<S: LogStore>(open: impl Fn() -> S) {
    commit(&open(), &appends(1, 5..8));
    assert_eq!(indexes(&open()), [5, 6, 7], "an empty log begins anywhere");
    for wrong in [0, 5, 7, 9] {
        // A store takes nothing after an error: open it again for each.
        assert!(open().commit(&[append(1, wrong)]).is_err(), "record {wrong} after 7 is refused");
    }
    assert!(open().commit(&[append(1, 8), append(1, 10)]).is_err(), "a hole inside a batch is refused");
    assert_eq!(indexes(&open()), [5, 6, 7], "nothing refused was kept");

    commit(&open(), &[LogChange::PurgeThrough(id(3, 20))]);
    for wrong in [8, 20, 22] {
        assert!(open().commit(&[append(3, wrong)]).is_err(), "record {wrong} after a purge of 20 is refused");
    }
    commit(&open(), &appends(3, 21..24));
    commit(&open(), &[LogChange::TruncateAfter(None)]);
    assert!(open().commit(&[append(3, 24)]).is_err(), "a truncated log goes on where it was purged");
    commit(&open(), &[append(4, 21)]);
    assert_eq!(indexes(&open()), [21], "the log has no hole");
}

/// **G5 truncate, purge**: exactly the named records go, and a purge is remembered and final.
pub fn g5_truncate_and_purge<S: LogStore>(open: impl Fn() -> S) {
    let store = open();
    commit(&store, &appends(1, 0..10));
    commit(&store, &[LogChange::TruncateAfter(Some(12)), LogChange::TruncateAfter(Some(9))]);
    assert_eq!(snapshot(&store).last, Some(id(1, 9)), "a truncation after the last record changes nothing");
    commit(&store, &[LogChange::TruncateAfter(Some(7))]);
    assert_eq!(indexes(&store), (0..8).collect::<Vec<_>>(), "records after 7 are gone");
    assert_eq!(snapshot(&store).last, Some(id(1, 7)), "record 7 is the last");

    commit(&store, &[LogChange::PurgeThrough(id(1, 2))]);
    assert_eq!(indexes(&store), (3..8).collect::<Vec<_>>(), "records up to 2 are gone");
    assert_eq!(snapshot(&store).purged, Some(id(1, 2)), "the purge is remembered");
    commit(&store, &[LogChange::PurgeThrough(id(1, 1))]);
    assert_eq!(snapshot(&store).purged, Some(id(1, 2)), "a purge never goes back");
    assert_eq!(indexes(&store), (3..8).collect::<Vec<_>>(), "an older purge removes nothing");

    commit(&store, &[LogChange::TruncateAfter(Some(1))]);
    assert!(read_all(&store).is_empty(), "a truncation below the log empties it");
    assert_eq!(snapshot(&store).last, Some(id(1, 2)), "the purged record is the last when none is left");
    commit(&store, &appends(2, 3..6));
    commit(&store, &[LogChange::PurgeThrough(id(2, 5))]);
    assert!(read_all(&store).is_empty(), "a purge of all records empties the log");
    assert_eq!(snapshot(&store).last, Some(id(2, 5)), "the purged record is the last");
    commit(&store, &[LogChange::PurgeThrough(id(4, 100))]);
    drop(store);

    let store = open();
    let remembered = snapshot(&store);
    assert_eq!(remembered.purged, Some(id(4, 100)), "a purge beyond the log is remembered");
    assert_eq!(remembered.last, Some(id(4, 100)), "and the log goes on behind it");
    commit(&store, &[append(4, 101), append(4, 102)]);
    assert_eq!(indexes(&store), [101, 102], "no purged record comes back");
    commit(&store, &[LogChange::TruncateAfter(None)]);
    assert!(read_all(&store).is_empty(), "a truncation of everything leaves no record");
    assert_eq!(snapshot(&store).purged, Some(id(4, 100)), "and keeps the purge");
}

/// **G6 faithful**: records of every kind and size come back byte for byte, before and after a restart.
pub fn g6_faithful<S: LogStore>(open: impl Fn() -> S) {
    const LARGE_BYTES: usize = 5 << 20;
    let every_byte = (0..=u8::MAX).collect::<Vec<_>>();
    let large = every_byte.iter().copied().cycle().take(LARGE_BYTES).collect::<Vec<_>>();
    let payloads = [Vec::new(), vec![0], every_byte, vec![0xFF; 4096], large];
    let kinds = [LogKind::Blank, LogKind::Proposal, LogKind::Membership];
    let shapes = payloads.iter().flat_map(|payload| kinds.map(|kind| (payload, kind)));
    let records: Vec<LogRecord> = shapes
        .zip(0_u64..)
        .map(|((payload, kind), index)| {
            let id = LogId { term: u64::MAX - 100 + index, node: u64::MAX - index, index };
            LogRecord { id, kind, payload: Bytes::from(payload.clone()) }
        })
        .collect();
    let changes: Vec<LogChange> = records.iter().cloned().map(LogChange::Append).collect();
    let extremes = [
        StoredVote { term: u64::MAX, node: Some(u64::MAX), committed: true },
        StoredVote { term: 0, node: Some(0), committed: false },
        StoredVote { term: 5, node: None, committed: true },
    ];

    let store = open();
    commit(&store, &changes);
    assert_eq!(read_all(&store), records, "records come back as they were appended");
    for vote in extremes {
        commit(&store, &[LogChange::SaveVote(vote)]);
        assert_eq!(snapshot(&store).vote, Some(vote), "a vote comes back as it was saved");
    }
    drop(store);
    assert_eq!(read_all(&open()), records, "records come back as they were appended, after a restart");
}

/// **G7 fail-stop**: after an error of `commit` the store takes nothing more, and reads go on.
pub fn g7_fail_stop<S: LogStore>(open: impl Fn() -> S) {
    let store = open();
    commit(&store, &appends(1, 0..3));
    assert!(store.commit(&[append(1, 7)]).is_err(), "a hole is refused");
    for batch in [vec![append(1, 3)], vec![LogChange::SaveVote(vote(1))], vec![append(1, 3)]] {
        let refused = store.commit(&batch);
        assert!(matches!(refused, Err(StoreError::Poisoned)), "after an error nothing is taken: {refused:?}");
    }
    assert_eq!(indexes(&store), [0, 1, 2], "what was committed can be read");
    assert_eq!(snapshot(&store).vote, None, "nothing was taken");
    drop(store);

    let store = open();
    commit(&store, &[append(1, 3)]);
    assert_eq!(indexes(&store), [0, 1, 2, 3], "opened again, the store goes on");
}

/// **G8 bounded**: a read returns at least one record and stops at the limit; ranges are half-open.
pub fn g8_bounded<S: LogStore>(open: impl Fn() -> S) {
    let store = open();
    let changes = appends(1, 10..20);
    commit(&store, &changes);
    let read = |from, to, bytes_max| -> Vec<u64> {
        let records = store.read(from, to, bytes_max).expect("a sound store can be read");
        records.iter().map(|record| record.id.index).collect()
    };
    let size = record(1, 10).size_bytes();
    assert_eq!(read(10, 20, 0), [10], "at least one record");
    assert_eq!(read(10, 20, size), [10], "the record that reaches the limit is the last");
    assert_eq!(read(10, 20, size + 1), [10, 11], "a limit between two records includes the second");
    assert_eq!(read(10, 20, size * 3), [10, 11, 12], "the limit is on the sum");
    assert_eq!(read(12, 14, usize::MAX), [12, 13], "the end is exclusive");
    assert_eq!(read(0, 12, usize::MAX), [10, 11], "a range may begin before the log");
    assert_eq!(read(18, u64::MAX, usize::MAX), [18, 19], "a range may end behind the log");
    assert!(read(14, 14, usize::MAX).is_empty(), "an empty range has no record");
    assert!(read(15, 12, usize::MAX).is_empty(), "a range that ends before it begins has no record");
    assert!(read(20, 30, usize::MAX).is_empty(), "there is nothing behind the log");
}
