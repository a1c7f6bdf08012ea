//! Operations that fail, one at a time: the log stops for good, and nothing acknowledged is lost.

use ledger_core::ports::{LogStore, StoreError};
use std::io::ErrorKind;
use storage_adapters::wal::{SEGMENT_BYTES_MIN, Upkeep, WalLogStore, WalOptions};

use super::disk::{Disk, Image, Syncs, Unsynced, cut};
use super::workload::{Workload, append, content};

const INLINE: WalOptions = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, upkeep: Upkeep::Inline };

fn open(disk: &Disk) -> Result<WalLogStore, StoreError> {
    WalLogStore::with_files(&disk.files(), INLINE)
}

/// Runs a workload on a disk of which one operation fails. Returns whether the log noticed.
fn run_with_fault(workload: &Workload, operation: u64, kind: ErrorKind) -> bool {
    let disk = Disk::default();
    disk.fail(operation, kind);
    let mut acknowledged = 0;
    let mut noticed = true;
    if let Ok(store) = open(&disk) {
        noticed = false;
        for batch in &workload.batches {
            let Err(error) = store.commit(batch) else {
                acknowledged += 1;
                continue;
            };
            assert!(matches!(error, StoreError::Engine { action: "commit the log", .. }), "{error}");
            noticed = true;
            break;
        }
        if noticed {
            for batch in &workload.batches {
                let refused = store.commit(batch);
                // The disk works again: it is not trusted.
                assert!(batch.is_empty() || matches!(refused, Err(StoreError::Poisoned)), "{refused:?}");
            }
            let found = content(&store).expect("what was acknowledged can be read");
            assert_eq!(found, workload.contents[acknowledged], "operation {operation}");
        }
    }
    let after_cut = cut(&Image::default(), &disk.effects(), Syncs::Work, Unsynced::Lost);
    for image in [disk.image(), after_cut] {
        let found = open(&Disk::of(&image)).and_then(|store| content(&store));
        let found = found.unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        let allowed = &workload.contents[acknowledged..workload.contents.len().min(acknowledged + 2)];
        assert!(
            allowed.contains(&found),
            "operation {operation}: {acknowledged} batches, then {:?}",
            found.0
        );
    }
    noticed
}

#[test]
fn any_failed_write_sync_or_creation_stops_the_log_and_loses_nothing() {
    let workload = Workload::new(7, 40);
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    workload.batches.iter().for_each(|batch| store.commit(batch).expect("the batch is valid"));
    assert!(store.rotations() > 3, "segments were made: {}", store.rotations());
    drop(store);
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let noticed =
            (0..disk.operations()).filter(|operation| run_with_fault(&workload, *operation, kind)).count();
        println!("{kind:?}: {noticed} of {} failures stopped the log", disk.operations());
        assert!(noticed as u64 > disk.operations() / 2, "failures are not ignored: {noticed}");
    }
}

#[test]
fn a_disk_that_is_full_when_a_segment_is_prepared_is_tried_again_when_it_is_needed() {
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    let index = std::cell::Cell::new(0);
    let commit = || {
        index.set(index.get() + 1);
        store.commit(&[append(1, index.get(), vec![3; 900])])
    };
    while store.rotations() == 0 {
        let before = disk.operations();
        // Behind the write, the sync and the seal of a commit that rotates come the end mark and its
        // sync: then the next segment is made.
        disk.fail(before + 5, ErrorKind::StorageFull);
        commit().expect("the commit needs no new segment");
    }
    while store.rotations() == 1 {
        commit().expect("space was freed");
    }
    drop(store);
    let last = open(&disk).expect("a sound log").snapshot().expect("a sound log").last;
    assert_eq!(last.map(|last| last.index), Some(index.get()));
}

#[test]
fn a_batch_is_one_write_and_one_sync() {
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    let workload = Workload::new(11, 200);
    let batches = workload.batches.iter().filter(|batch| !batch.is_empty()).count() as u64;
    workload.batches.iter().for_each(|batch| store.commit(batch).expect("the batch is valid"));
    assert_eq!(store.syncs(), batches, "votes, memberships and new segments included");
    assert_eq!(store.batch_writes(), batches);
    let syncs = disk.effects().iter().filter(|effect| is_sync(effect)).count() as u64;
    // The store cannot count those of making the first segment: there was no log yet.
    assert_eq!(store.syncs() + store.upkeep_syncs(), syncs - 2, "every sync is counted as one or the other");
    store.commit(&[]).expect("an empty batch is valid");
    assert_eq!(store.syncs(), batches, "no sync for nothing");
}

fn is_sync(effect: &super::disk::Effect) -> bool {
    matches!(effect, super::disk::Effect::Sync(_) | super::disk::Effect::SyncNames)
}

#[test]
fn purged_segments_are_removed_and_the_disk_use_stays_bounded() {
    use ledger_core::ports::{LogChange, LogId};
    const HELD: u64 = 20;
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    let mut most = 0;
    for index in 1..=3_000 {
        let mut batch = vec![append(1, index, vec![5; 200])];
        if index > HELD {
            batch.push(LogChange::PurgeThrough(LogId { term: 1, node: 2, index: index - HELD }));
        }
        store.commit(&batch).expect("the batch is valid");
        most = most.max(disk.image().names.len());
    }
    // 20 records of 200 bytes reach into at most three segments of 4 KiB; one is prepared.
    assert!(most <= 5, "{most} segments at once");
    assert!(store.rotations() > 150, "{}", store.rotations());
    let expected = content(&store).expect("a sound log");
    drop(store);
    assert_eq!(content(&open(&disk).expect("a sound log")).expect("a sound log"), expected);
}
