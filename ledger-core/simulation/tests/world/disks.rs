//! What a crash leaves on the disks.

use bytes::Bytes;
use ledger_core::ports::{AppliedState, LogChange, LogId, LogKind, LogRecord, StateBatch, StoredVote};
use ledger_simulation::dice::Dice;
use ledger_simulation::disk::{Durability, LogDisk, StateDisk};

fn append(index: u64) -> LogChange {
    let id = LogId { term: 1, node: 1, index };
    LogChange::Append(LogRecord { id, kind: LogKind::Blank, payload: Bytes::new() })
}

fn vote(term: u64) -> LogChange {
    LogChange::SaveVote(StoredVote { term, node: Some(1), committed: false })
}

#[test]
fn what_was_synced_survives_and_of_the_rest_only_oldest_batches_do() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = LogDisk::new(Durability::AtSync);
        let store = disk.open();
        store.commit(&[vote(1), append(0)]).unwrap();
        disk.sync().unwrap();
        for index in 1..=4 {
            store.commit(&[append(index)]).unwrap();
        }
        assert_eq!(store.snapshot().unwrap().last.unwrap().index, 4, "what is written is shown at once");
        disk.crash(&mut Dice::new(seed, "crash")).unwrap();
        let reopened = disk.open();
        let snapshot = reopened.snapshot().unwrap();
        let last = snapshot.last.unwrap().index;
        assert_eq!(snapshot.vote.unwrap().term, 1);
        assert_eq!(reopened.read(0, 100, usize::MAX).unwrap().len() as u64, last + 1);
        assert_eq!(snapshot, disk.durable().unwrap());
        let counters = disk.counters();
        assert_eq!((counters.surviving_batches, counters.lost_batches), (last, 4 - last));
        reopened.commit(&[append(last + 1)]).unwrap();
        seen.insert(last);
    }
    assert_eq!(seen, (0..=4).collect());
}

#[test]
fn a_lost_vote_is_counted() {
    let lost: u64 = (0..20)
        .map(|seed| {
            let disk = LogDisk::new(Durability::AtSync);
            disk.open().commit(&[vote(7)]).unwrap();
            disk.crash(&mut Dice::new(seed, "crash")).unwrap();
            assert_eq!(disk.counters().lost_votes == 1, disk.durable().unwrap().vote.is_none());
            disk.counters().lost_votes
        })
        .sum();
    assert!((1..20).contains(&lost), "{lost} of 20");
}

#[test]
fn a_disk_without_a_cache_loses_nothing_that_was_committed() {
    let disk = LogDisk::new(Durability::AtCommit);
    disk.open().commit(&[vote(3), append(0)]).unwrap();
    disk.crash(&mut Dice::new(1, "crash")).unwrap();
    assert_eq!(disk.open().snapshot().unwrap().vote.unwrap().term, 3);
    assert_eq!(disk.counters().lost_batches, 0);
}

#[test]
fn a_store_of_a_dead_process_writes_nothing_more() {
    let (log, state) = (LogDisk::new(Durability::AtSync), StateDisk::default());
    let (dead_log, dead_state) = (log.open(), state.open());
    log.crash(&mut Dice::new(1, "crash")).unwrap();
    state.crash();
    assert!(dead_log.commit(&[vote(1)]).is_err());
    let applied =
        AppliedState { last_applied: LogId { term: 1, node: 1, index: 0 }, membership: Bytes::new() };
    let batch = StateBatch { dropped_vaults: Vec::new(), rows: Vec::new(), applied };
    assert!(dead_state.commit(&batch).is_err());
    assert!(state.open().commit(&batch).is_ok());
    assert_eq!(state.copy().unwrap().open().applied().unwrap(), state.open().applied().unwrap());
}
