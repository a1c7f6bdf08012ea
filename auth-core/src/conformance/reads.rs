use super::Harness;
use super::world::{SECOND, START, World, all, commit, key, number_in, race};
use crate::key::{Key, KeyRange, Table, Tenant};
use crate::millis::Millis;
use crate::ports::{
    AuthStore, AuthStoreError, Direction, EXPIRED_PER_SCAN_MAX, Expect, Limit, Page,
    RANGE_BYTES_PER_READ_MAX, RangeRead, ReadSet, VALUE_BYTES_MAX,
};

/// One state, with everything that had returned; two records that are always changed together are never seen apart.
pub fn a3_snapshot<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let (left, right) = (key(1), key(2));
    let reads = ReadSet::of([left.clone(), right.clone(), key(3)]);
    let empty = world.read_set(&reads, START);
    assert_eq!(empty.records, [None, None, None]);
    const SUM: u64 = 1_000;
    let put = |number, share: u64| {
        commit(number).put(&left, share.to_be_bytes(), None).put(&right, (SUM - share).to_be_bytes(), None)
    };
    let position = world.commit(&put(1, 0));
    let snapshot = world.read_set(&reads, START);
    assert_eq!(snapshot.position, position);
    assert_eq!(snapshot.records.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    race(4, |thread| {
        for round in 1..50 {
            if thread == 0 {
                let position = world.commit(&put(1 + round, round));
                let seen = world.read_set(&reads, START);
                assert!(seen.position >= position, "what had returned is read");
                assert_eq!(seen.records[0].as_ref().map(|record| number_in(&record.value)), Some(round));
                continue;
            }
            let seen = world.read_set(&reads, START);
            let shares: Vec<u64> =
                seen.records.iter().flatten().map(|record| number_in(&record.value)).collect();
            assert_eq!(shares.iter().sum::<u64>(), SUM, "two states in one snapshot");
            let versions: Vec<u64> = seen.records.iter().flatten().map(|record| record.version.0).collect();
            assert!(
                versions.iter().all(|version| *version <= seen.position.0),
                "its position is not behind what it shows"
            );
        }
    });
}

/// From its end on a record is absent for everybody, takes room until it is removed, and whoever removes it spares a
/// successor.
pub fn a7_expiry<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let (short, long, endless) = (key(1), key(2), key(3));
    let (first, second) = (START.after(SECOND), START.after(2 * SECOND));
    world.commit(
        &commit(1).put(&long, b"l", Some(second)).put(&short, b"s", Some(first)).put(&endless, b"e", None),
    );
    assert_eq!(world.record(&short).and_then(|record| record.expires_at), Some(first));
    let shown = |now: Millis| {
        let snapshot = world
            .read_set(&ReadSet::of([short.clone(), long.clone(), endless.clone()]).range(all(), 10), now);
        let of_keys = snapshot.records.iter().flatten().count();
        assert_eq!(
            snapshot.pages.iter().map(|page| page.rows.len()).sum::<usize>(),
            of_keys,
            "ranges hide what keys hide"
        );
        of_keys
    };
    assert_eq!(shown(START), 3);
    assert_eq!([shown(Millis(first.0 - 1)), shown(first), shown(second)], [3, 2, 1]);

    let scan = |now: Millis, rows_max: usize| -> Vec<(Key, Millis)> {
        let expired = world.harness.run(world.store.scan_expired(now, rows_max)).expect("the store scans");
        expired.into_iter().map(|expired| (expired.key, expired.expires_at)).collect()
    };
    assert_eq!(scan(Millis(first.0 - 1), 10), []);
    assert_eq!(
        scan(second, 10),
        [(short.clone(), first), (long.clone(), second)],
        "the longest expired first"
    );
    assert_eq!(scan(second, 1), [(short.clone(), first)]);
    let error =
        world.harness.run(world.store.scan_expired(second, EXPIRED_PER_SCAN_MAX + 1)).expect_err("too many");
    assert!(matches!(error, AuthStoreError::TooLarge { limit: Limit::Rows, .. }), "{error:?}");

    let old = world.version(&short);
    assert!(!world.is_applied(&commit(2).expect(&short, Expect::Present).put(&short, b"x", None), first));
    assert!(
        !world.is_applied(&commit(2).expect(&short, Expect::Version(old)).put(&short, b"x", None), first),
        "it cannot be touched back to life"
    );
    assert!(
        !world.is_applied(&commit(2).expect(&short, Expect::Absent).put(&short, b"x", None), START),
        "it is still there"
    );
    assert!(world.is_applied(&commit(2).expect(&short, Expect::Absent).put(&short, b"new", None), first));
    assert_eq!(scan(second, 10), [(long.clone(), second)], "its old end is forgotten");

    // The sweep of what was scanned before the successor came.
    assert!(
        !world.is_applied(&commit(3).expect(&short, Expect::Absent).delete(&short), second),
        "the successor stays"
    );
    assert!(world.is_applied(&commit(4).expect(&long, Expect::Absent).delete(&long), second));
    assert_eq!(scan(second, 10), [], "what was removed takes no room");
    assert_eq!(shown(second), 2);
    assert_eq!(shown(START), 2, "by no clock does it come back");

    // An end that is moved, taken away, or in the past.
    world.commit(&commit(5).put(&long, b"l", Some(first)));
    world.commit(&commit(6).put(&long, b"l", Some(second)).put(&endless, b"e", Some(Millis(1))));
    assert_eq!(world.record(&endless), None);
    assert_eq!(scan(first, 10), [(endless.clone(), Millis(1))]);
    world.commit(&commit(7).put(&long, b"l", None).delete(&endless));
    assert_eq!(scan(Millis(u64::MAX), 10), []);
}

/// Pages in both directions, cut by rows and by bytes, give each row once.
pub fn a8_ranges<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let parent = |number: u64| Key::new(Table::FIRST_OF_TESTS, Tenant(1)).number(number);
    let child = |number: u64, place: u64| parent(number).number(place);
    const CHILDREN: u64 = 25;
    for number in 1..=3 {
        let filled = (0..CHILDREN).fold(commit(number), |commit, place| {
            // Every fifth is gone when it is read.
            let end = place.is_multiple_of(5).then_some(START);
            commit.put(&child(number, place), place.to_be_bytes(), end)
        });
        world.commit(&filled);
    }
    let expected: Vec<u64> = (0..CHILDREN).filter(|place| !place.is_multiple_of(5)).collect();
    let places =
        |page: &Page| -> Vec<u64> { page.rows.iter().map(|row| number_in(&row.record.value)).collect() };
    let paged = |first: RangeRead| {
        let (mut found, mut next, mut pages) = (Vec::new(), Some(first), 0);
        while let Some(range) = next {
            let mut snapshot =
                world.read_set(&ReadSet { keys: Vec::new(), ranges: vec![range.clone()] }, START);
            let page = snapshot.pages.remove(0);
            assert!(page.rows.len() <= range.rows_max);
            assert!(
                page.rest.is_none() || page.rows.len() == range.rows_max,
                "no page is short without a reason"
            );
            found.append(&mut places(&page));
            next = page.rest;
            pages += 1;
            assert!(pages < 100, "paging ends");
        }
        found
    };
    let range = KeyRange::under(&parent(2));
    for rows_max in [1, 2, 7, 19, 20, 21, 1_000] {
        let ascending = RangeRead { range: range.clone(), direction: Direction::Ascending, rows_max };
        assert_eq!(paged(ascending.clone()), expected, "{rows_max} rows at a time");
        let descending = RangeRead { direction: Direction::Descending, ..ascending };
        assert_eq!(paged(descending), expected.iter().rev().copied().collect::<Vec<_>>());
    }
    let some = range.clone().from(&child(2, 6)).until(&child(2, 9));
    assert_eq!(places(&world.read_set(&ReadSet::default().range(some, 10), START).pages[0]), [6, 7, 8]);
    let behind = range.clone().behind(&child(2, 22));
    let snapshot = world.read_set(&ReadSet::default().range(behind, 10).latest(range.clone(), 1), START);
    assert_eq!([places(&snapshot.pages[0]), places(&snapshot.pages[1])], [vec![23, 24], vec![24]]);
    let nothing = world.read_set(
        &ReadSet::default().range(range.clone().until(&child(2, 0)), 9).range(range.until(&parent(1)), 9),
        START,
    );
    assert!(nothing.pages.iter().all(|page| page.rows.is_empty() && page.rest.is_none()));
    pages_are_cut_by_bytes(&world);
}

fn pages_are_cut_by_bytes<H: Harness>(world: &World<'_, H>) {
    let place = |number: u64| Key::new(Table::FIRST_OF_TESTS, Tenant(2)).number(number);
    let rows = (RANGE_BYTES_PER_READ_MAX / VALUE_BYTES_MAX + 3) as u64;
    for number in 0..rows {
        world.commit(&commit(100 + number).put(&place(number), vec![1; VALUE_BYTES_MAX], None));
    }
    let range = KeyRange::under(&Key::new(Table::FIRST_OF_TESTS, Tenant(2)));
    // The second range has its turn when the bytes are used up.
    let snapshot =
        world.read_set(&ReadSet::default().range(range.clone(), 1_000).latest(range, 1_000), START);
    let bytes: usize = snapshot.pages[0].rows.iter().map(|row| row.size_bytes()).sum();
    assert!(
        bytes <= RANGE_BYTES_PER_READ_MAX && bytes + 2 * VALUE_BYTES_MAX > RANGE_BYTES_PER_READ_MAX,
        "{bytes}"
    );
    assert_eq!(snapshot.pages[1].rows.len(), 1, "who pages gets on");
    let mut left = rows - snapshot.pages[0].rows.len() as u64;
    let rest = snapshot.pages[0].rest.clone().expect("some are left");
    let snapshot = world.read_set(&ReadSet { keys: Vec::new(), ranges: vec![rest] }, START);
    left -= snapshot.pages[0].rows.len() as u64;
    assert_eq!((left, &snapshot.pages[0].rest), (0, &None));
}

/// Parts that look alike when they are joined, tenants and tables have records of their own.
pub fn a10_injective<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let of = |table: u16, tenant: u64, parts: &[&[u8]]| {
        let table = Table(Table::FIRST_OF_TESTS.0 + table);
        parts.iter().fold(Key::new(table, Tenant(tenant)), |key, part| key.bytes(part))
    };
    let keys = [
        of(0, 1, &[b"a:b", b"c"]),
        of(0, 1, &[b"a", b"b:c"]),
        of(0, 1, &[b"a", b"b", b"c"]),
        of(0, 1, &[b"a:b:c"]),
        of(0, 1, &[b"abc", b""]),
        of(0, 1, &[b"", b"abc"]),
        of(0, 1, &[b"a\0", b"b"]),
        of(0, 1, &[b"a", b"\0b"]),
        of(0, 1, &[b"A:B", b"C"]),
        of(0, 1, &[&[0xff; 8]]),
        of(0, 1, &[&[0xff; 9]]),
        of(0, 1, &[]),
        of(0, 2, &[b"a", b"b:c"]),
        of(1, 1, &[b"a", b"b:c"]),
        of(0, 256, &[b"a", b"b:c"]),
        of(0, u64::MAX, &[b"a", b"b:c"]),
    ];
    for (number, key) in (1..).zip(&keys) {
        let claim = commit(number).expect(key, Expect::Absent).put(key, number.to_be_bytes(), None);
        assert!(world.is_applied(&claim, START), "{key:?} is a key of its own");
    }
    for (number, key) in (1u64..).zip(&keys) {
        assert_eq!(world.record(key).map(|record| number_in(&record.value)), Some(number), "{key:?}");
    }
    let in_range = |prefix: Key| {
        let snapshot = world.read_set(&ReadSet::default().range(KeyRange::under(&prefix), 100), START);
        snapshot.pages[0].rows.iter().map(|row| number_in(&row.record.value)).collect::<Vec<_>>()
    };
    assert_eq!(in_range(of(0, 2, &[])), [13], "a tenant's range has no other tenant's records");
    assert_eq!(in_range(of(0, 1, &[b"a"])), [3, 8, 2], "keys that begin with the part, not with its bytes");
    assert_eq!(in_range(of(1, 1, &[])), [14]);
}
