use super::Harness;
use super::world::{START, THREADS, World, all, commit, key, number_in, race};
use crate::key::{Key, Table, Tenant};
use crate::ports::{
    AuthStoreError, CHECKS_PER_COMMIT_MAX, COMMIT_BYTES_MAX, Commit, Expect, Limit, ReadSet, VALUE_BYTES_MAX,
    Version, WRITES_PER_COMMIT_MAX,
};

/// A commit whose last condition does not hold writes nothing; who reads while commits are applied sees whole ones only.
pub fn a1_atomic<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let keys: Vec<Key> = (0..8).map(key).collect();
    let put_all = |commit: Commit, value: u64| {
        keys.iter().fold(commit, |commit, key| commit.put(key, value.to_be_bytes(), None))
    };
    world.commit(&put_all(commit(1), 1));
    let refused = put_all(commit(2), 2).expect(&key(0), Expect::Present).expect(&key(99), Expect::Present);
    let error = world.try_commit(&refused, START).expect_err("key 99 is absent");
    assert!(
        matches!(&error, AuthStoreError::Conflict { key: found, found: None } if *found == key(99)),
        "{error:?}"
    );
    assert!(
        keys.iter().all(|key| world.value(key) == Some(1u64.to_be_bytes().to_vec())),
        "nothing is written"
    );

    const ROUNDS: u64 = 40;
    race(4, |thread| {
        for round in 0..ROUNDS {
            if thread == 0 {
                world.commit(&put_all(commit(1_000 + round), round));
                continue;
            }
            let snapshot = world.read_set(&ReadSet::of(keys.clone()).range(all(), 100), START);
            let values: Vec<u64> =
                snapshot.records.iter().flatten().map(|record| number_in(&record.value)).collect();
            assert_eq!(values.len(), 8);
            assert!(
                values.iter().all(|value| Some(value) == values.first()),
                "a part of a commit: {values:?}"
            );
            let rows: Vec<u64> = snapshot
                .pages
                .iter()
                .flat_map(|page| &page.rows)
                .map(|row| number_in(&row.record.value))
                .collect();
            assert_eq!(rows, values, "ranges are of the same state");
        }
    });
}

/// Races of conditions: put-if-absent, one version, a counter, and write skew.
pub fn a2_serial<H: Harness>(harness: &H) {
    let world = World::open(harness);
    a_key_is_claimed_once(&world);
    no_update_is_lost(&world);
    the_last_owner_stays(&world);
}

/// Of 64 that register one name one succeeds, and it is his value that stays.
fn a_key_is_claimed_once<H: Harness>(world: &World<'_, H>) {
    for round in 0..5 {
        let name = key(1_000 + round);
        let claim = |thread: u64| {
            let id = 10_000 + round * THREADS + thread;
            // What a registration writes beside the unique key.
            let own = key(100_000 + id);
            let claim = commit(id).expect(&name, Expect::Absent).put(&name, thread.to_be_bytes(), None);
            world.is_applied(&claim.put(&own, [1], None), START)
        };
        let winners = race(THREADS, claim);
        let winner: Vec<u64> = (0..).zip(winners).filter_map(|(thread, won)| won.then_some(thread)).collect();
        assert_eq!(winner.len(), 1, "round {round}: {winner:?} believe that they have the key");
        assert_eq!(world.record(&name).map(|record| number_in(&record.value)), winner.first().copied());
        let written = (0..THREADS)
            .filter(|thread| world.record(&key(100_000 + 10_000 + round * THREADS + thread)).is_some());
        assert_eq!(written.collect::<Vec<_>>(), winner, "losers wrote nothing");
    }
}

fn no_update_is_lost<H: Harness>(world: &World<'_, H>) {
    const EACH: u64 = 6;
    let counter = key(1);
    world.commit(&commit(1).expect(&counter, Expect::Absent).put(&counter, 0u64.to_be_bytes(), None));
    race(8, |thread| {
        let mut next_id = (thread + 1) << 32;
        for _ in 0..EACH {
            world.increment(&counter, &mut next_id);
        }
    });
    assert_eq!(world.record(&counter).map(|record| number_in(&record.value)), Some(8 * EACH));
}

/// Two owners; each may leave while the other one stays. A condition of a record that is only read counts.
fn the_last_owner_stays<H: Harness>(world: &World<'_, H>) {
    for round in 0..10 {
        let owners = [key(2_000 + 2 * round), key(2_001 + 2 * round)];
        world.commit(&commit(500 + round).put(&owners[0], [1], None).put(&owners[1], [1], None));
        let versions = [world.version(&owners[0]), world.version(&owners[1])];
        let left = race(2, |thread| {
            let (own, other) = (usize::from(thread == 1), usize::from(thread == 0));
            let id = 600 + 2 * round + thread;
            let leave =
                commit(id).expect(&owners[other], Expect::Version(versions[other])).delete(&owners[own]);
            world.is_applied(&leave, START)
        });
        assert_eq!(left.iter().filter(|left| **left).count(), 1, "round {round}");
        assert_eq!(owners.iter().filter(|owner| world.record(owner).is_some()).count(), 1, "round {round}");
    }
}

/// Versions are the positions of commits, grow, and do not come again when a record does.
pub fn a4_versions<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let (first, second) = (key(1), key(2));
    let made = world.commit(&commit(1).put(&first, b"a", None).put(&second, b"b", None));
    assert_eq!([world.version(&first).0, world.version(&second).0], [made.0; 2]);
    let changed = world.commit(&commit(2).put(&first, b"a", None));
    assert!(changed > made, "the same value is a new version");
    assert_eq!([world.version(&first).0, world.version(&second).0], [changed.0, made.0]);
    world.commit(&commit(3).delete(&first));
    assert_eq!(world.record(&first), None);
    let again = world.commit(&commit(4).expect(&first, Expect::Absent).put(&first, b"a", None));
    assert!(again > changed);
    for old in [made, changed] {
        let late = commit(100 + old.0).expect(&first, Expect::Version(Version(old.0))).delete(&first);
        assert!(!world.is_applied(&late, START), "a version of a record that was deleted since");
    }
    let error = world.try_commit(&commit(5).expect(&first, Expect::Absent), START).expect_err("it is there");
    let told = matches!(&error, AuthStoreError::Conflict { key, found } if *key == first && *found == Some(Version(again.0)));
    assert!(told, "a conflict says of which key, and what is there: {error:?}");
    world.commit(
        &commit(6).expect(&first, Expect::Version(Version(again.0))).expect(&second, Expect::Present),
    );
}

/// What is beyond a limit, or contradicts itself, is refused whole.
pub fn a11_refusals<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let refused = |commit: Commit, limit: Limit| {
        let error = world.try_commit(&commit, START).expect_err("it is too large");
        assert!(
            matches!(error, AuthStoreError::TooLarge { limit: found, .. } if found == limit),
            "{limit:?}: {error:?}"
        );
    };
    let puts = |count: usize, bytes: usize| {
        (0..count as u64).fold(commit(1), |commit, number| commit.put(&key(number), vec![7; bytes], None))
    };
    let long = Key::new(Table::FIRST_OF_TESTS, Tenant(1)).bytes(vec![1; 5_000]);
    refused(puts(WRITES_PER_COMMIT_MAX + 1, 1), Limit::Writes);
    refused(puts(1, VALUE_BYTES_MAX + 1), Limit::ValueBytes);
    refused(puts(COMMIT_BYTES_MAX / VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX), Limit::CommitBytes);
    refused(commit(1).put(&key(0), b"a", None).delete(&long), Limit::KeyBytes);
    refused(commit(1).expect(&long, Expect::Absent).put(&key(0), b"a", None), Limit::KeyBytes);
    let checks = 0..=CHECKS_PER_COMMIT_MAX as u64;
    refused(
        checks.fold(puts(1, 1), |commit, number| commit.expect(&key(number), Expect::Absent)),
        Limit::Checks,
    );
    let twice = |commit: Commit| {
        let error = world.try_commit(&commit, START).expect_err("a key comes twice");
        assert!(matches!(error, AuthStoreError::RepeatedKey { .. }), "{error:?}");
    };
    twice(puts(1, 1).delete(&key(0)));
    twice(puts(1, 1).expect(&key(5), Expect::Absent).expect(&key(5), Expect::Present));

    let read = |reads: &ReadSet, limit: Limit| {
        let error = world
            .harness
            .run(crate::ports::AuthStore::read(&world.store, reads, START))
            .expect_err("too large");
        assert!(
            matches!(error, AuthStoreError::TooLarge { limit: found, .. } if found == limit),
            "{limit:?}: {error:?}"
        );
    };
    read(&ReadSet::of((0..=crate::ports::KEYS_PER_READ_MAX as u64).map(key)), Limit::Keys);
    read(&ReadSet::of([long]), Limit::KeyBytes);
    read(&ReadSet::default().range(all(), crate::ports::ROWS_PER_RANGE_MAX + 1), Limit::Rows);
    let ranges = 0..=crate::ports::RANGES_PER_READ_MAX;
    read(&ranges.fold(ReadSet::default(), |reads, _| reads.range(all(), 1)), Limit::Ranges);

    let after = world.read_set(&ReadSet::default().range(all(), 10), START);
    assert!(after.pages.iter().all(|page| page.rows.is_empty()), "nothing was written");
    // The most there may be is accepted, and the id of what was refused is still free.
    world.commit(&puts(WRITES_PER_COMMIT_MAX, 1));
    let whole =
        (0..15).fold(commit(2), |commit, number| commit.put(&key(number), vec![9; VALUE_BYTES_MAX], None));
    world.commit(&whole);
    assert_eq!(world.value(&key(14)), Some(vec![9; VALUE_BYTES_MAX]));
}
