//! A disk that fails: nothing is answered that is not durable, and what was answered holds.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ratelimit_core::ports::{Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::{KeyParts, Nanos};
use storage_adapters::redb::rates::{RECOVERY_PAUSE, RedbRateError, RedbRateStore};

use super::disk::Disk;
use super::files::RedbDisk;
use super::world::{START, admits, bucket, charge, key, left, options, policy, run, try_admit};

const SIZE: u64 = 20;

fn policies() -> Vec<Policy> {
    vec![policy("bucket", bucket(SIZE))]
}

fn open(disk: &Disk) -> Result<RedbRateStore, RedbRateError> {
    RedbRateStore::with_files(RedbDisk(disk.clone()).files(), "rates.db", policies(), options(), START)
}

fn clients() -> [KeyParts; 2] {
    [key("a"), key("b")]
}

fn later(seconds: u64) -> Nanos {
    START.after(Duration::from_secs(seconds))
}

/// Each operation of a run fails once, as a full disk does and as a broken one does.
#[test]
fn whichever_operation_fails_nobody_gets_more_than_the_limit() {
    let recorded = Disk::default();
    drop(open(&recorded).expect("a sound disk"));
    let first = recorded.operations();
    let used = spend(&open(&recorded).expect("a sound disk"));
    assert_eq!(used.values().sum::<u64>(), 2 * SIZE);
    let (last, base) = (recorded.operations(), new_image());
    assert!(last - first > 50, "{} operations", last - first);
    let (mut refused, mut recovered) = (0, 0);
    for operation in 0..last - first + 2 {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let disk = Disk::of(&base);
            disk.fail(operation, kind);
            let Ok(store) = open(&disk) else {
                refused += 1;
                assert_all(&disk, &BTreeMap::new());
                continue;
            };
            let mut used = spend(&store);
            if store.failure().is_some() {
                refused += 1;
                run(store.recover(START)).expect("only one operation fails");
                recovered += 1;
            }
            for (client, more) in spend(&store) {
                *used.entry(client).or_default() += more;
            }
            for used in used.values() {
                assert!(*used <= SIZE, "operation {operation}, {kind:?}: {used} of {SIZE}");
            }
            drop(store);
            assert_all(&disk, &used);
        }
    }
    assert!(refused > 50 && recovered > 20, "{refused} failures were noticed, {recovered} recoveries");
}

fn new_image() -> super::disk::Image {
    let disk = Disk::default();
    drop(open(&disk).expect("a sound disk"));
    disk.image()
}

/// Takes what there is, cell after cell. What was admitted for each client.
fn spend(store: &RedbRateStore) -> BTreeMap<usize, u64> {
    let mut used = BTreeMap::new();
    for _ in 0..SIZE + 2 {
        for (number, client) in clients().iter().enumerate() {
            let admitted = try_admit(store, 0, client, 1, START).unwrap_or(false);
            *used.entry(number).or_default() += u64::from(admitted);
        }
    }
    used
}

/// What is opened again admits the rest at most.
fn assert_all(disk: &Disk, used: &BTreeMap<usize, u64>) {
    // The operation that fails may be one of this opening; then it is the only one.
    let store = open(disk).or_else(|_| open(disk)).expect("it opens again");
    for (number, client) in clients().iter().enumerate() {
        let used = used.get(&number).copied().unwrap_or(0);
        assert!(left(&store, 0, client, START) + used <= SIZE);
    }
}

#[test]
fn after_a_failed_commit_nothing_is_answered_until_all_is_durable_in_a_new_file() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    let [client, other] = clients();
    assert!(admits(&store, 0, &client, 7, START));
    disk.fail(disk.operations(), io::ErrorKind::StorageFull);
    let failed = try_admit(&store, 0, &other, 1, START);
    assert!(matches!(failed, Err(RateStoreError::Failed { .. })), "{failed:?}");
    assert!(matches!(store.failure(), Some(RedbRateError::Failed { .. })));

    // The disk works again, and is not trusted.
    assert!(try_admit(&store, 0, &client, 1, START).is_err(), "a charge that needs no disk");
    assert!(run(store.peek(&[charge(0, &client, 0)], START)).is_err());
    let known = |key| store.last_known(PolicyId(0), key, START).map(|decision| decision.remaining());
    assert_eq!(known(&client), Some(SIZE - 7), "what is in memory can be told all the same");
    assert_eq!(known(&key("nobody")), None);
    assert!(store.last_known(PolicyId(1), &client, START).is_none(), "there is no such policy");
    assert!(run(store.reset(&[charge(0, &client, 0)], START)).is_err());
    let again = run(store.reopen(policies(), START));
    assert!(matches!(again, Err(RedbRateError::Failed { .. })), "{again:?}");

    run(store.recover(START)).expect("there is room again");
    assert!(store.failure().is_none());
    assert_eq!(left(&store, 0, &client, START), SIZE - 7, "nothing is lost");
    assert_eq!(left(&store, 0, &other, START), SIZE - 1, "what was answered with an error is charged");
    assert!(admits(&store, 0, &other, SIZE - 1, START));
    run(store.recover(START)).expect("there is nothing to do");
    drop(store);
    let store = open(&disk).expect("it opens");
    assert!(left(&store, 0, &client, START) <= SIZE - 7);
    assert_eq!(left(&store, 0, &other, START), 0);
    assert_eq!(disk.image().names.into_keys().collect::<Vec<_>>(), ["rates.db"], "nothing is left over");
}

#[test]
fn requests_bring_a_store_back_by_themselves_when_the_disk_works_again() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    let [client, ..] = clients();
    disk.fail(disk.operations(), io::ErrorKind::Other);
    assert!(try_admit(&store, 0, &client, 1, START).is_err());
    let pause = later(RECOVERY_PAUSE.as_secs());
    assert!(try_admit(&store, 0, &client, 1, START).is_err(), "too early");
    assert!(store.failure().is_some());
    assert!(try_admit(&store, 0, &client, 1, pause).is_err(), "this one asks for it, and is refused");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.failure().is_some() {
        assert!(std::time::Instant::now() < deadline, "it recovers");
        std::thread::yield_now();
    }
    assert_eq!(left(&store, 0, &client, pause), SIZE - 1);
}

#[test]
fn while_the_disk_stays_broken_recovery_fails_and_nothing_is_answered() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    let [client, ..] = clients();
    disk.fail(disk.operations(), io::ErrorKind::Other);
    assert!(try_admit(&store, 0, &client, 1, START).is_err());
    for operation in 0..4 {
        disk.fail(disk.operations() + operation, io::ErrorKind::StorageFull);
        assert!(run(store.recover(START)).is_err(), "operation {operation} of the recovery");
        assert!(try_admit(&store, 0, &client, 1, START).is_err());
    }
    run(store.recover(START)).expect("it works at last");
    assert!(admits(&store, 0, &client, 1, START));
}

#[test]
fn policies_that_cannot_be_made_durable_are_not_in_force() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    let [client, ..] = clients();
    assert!(admits(&store, 0, &client, 3, START));
    disk.fail(disk.operations(), io::ErrorKind::StorageFull);
    let error = run(store.reopen(vec![policy("bucket", bucket(1_000))], START)).expect_err("no room");
    assert!(matches!(error, RedbRateError::Failed { .. }), "{error}");
    run(store.recover(START)).expect("there is room again");
    assert_eq!(left(&store, 0, &client, START), SIZE - 3, "the limit of before");
}

#[test]
fn a_probe_is_a_durable_commit_and_fails_when_there_can_be_none() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    let [client, ..] = clients();
    let (commits, (syncs, _)) = (store.commits(), store.syncs());
    run(store.probe(START)).expect("a sound disk");
    assert_eq!(store.commits(), commits + 1);
    assert!(store.syncs().0 > syncs, "it was synced");
    assert_eq!(left(&store, 0, &client, START), SIZE, "it charges nobody");
    disk.fail(disk.operations(), io::ErrorKind::Other);
    assert!(run(store.probe(START)).is_err());
    assert!(store.failure().is_some(), "what is on the disk is unknown");
    assert!(run(store.probe(START)).is_err(), "until it has recovered");
    run(store.recover(START)).expect("it works again");
    run(store.probe(START)).expect("it works again");
}
