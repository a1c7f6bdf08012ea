use super::Harness;
use super::world::{SECOND, START, World, commit, key};
use crate::ports::{AuthStore, AuthStoreError, Expect, Position};

/// Records, ends, ids and feed of what had returned are there when the store is opened again.
pub fn a13_durable<H: Harness>(harness: &H) {
    let end = START.after(SECOND);
    let claim = commit(1).expect(&key(1), Expect::Absent).put(&key(1), b"first", None).put(
        &key(2),
        b"ends",
        Some(end),
    );
    let gone = commit(2).put(&key(3), b"x", None);
    let (first, last) = {
        let world = World::open(harness);
        let first = world.commit(&claim);
        world.commit(&gone);
        (first, world.commit(&commit(3).delete(&key(3)).put(&key(1), b"second", None)))
    };
    for _ in 0..2 {
        let world = World::open(harness);
        assert_eq!(world.value(&key(1)), Some(b"second".to_vec()));
        assert_eq!(world.version(&key(1)).0, last.0);
        assert_eq!(world.record(&key(2)).and_then(|record| record.expires_at), Some(end));
        assert_eq!([world.record_at(&key(2), end), world.record(&key(3))], [None, None]);
        assert_eq!(world.commit(&claim), first, "an id outlives the process");
        let error = world.try_commit(&commit(1).delete(&key(1)), START).expect_err("the id is taken");
        assert!(matches!(error, AuthStoreError::CommitIdReused { .. }), "{error:?}");
        let feed = world.harness.run(world.store.changes(Position::START, 10)).expect("the feed is read");
        let told: Vec<_> = feed.changes.iter().map(|change| (change.position, change.keys.len())).collect();
        assert_eq!(told, [(first, 2), (Position(first.0 + 1), 1), (last, 2)]);
        let expired = world.harness.run(world.store.scan_expired(end, 10)).expect("the store scans");
        assert_eq!(expired.len(), 1);
    }
    let world = World::open(harness);
    let next = world.commit(&commit(4).put(&key(1), b"third", None));
    assert_eq!(next.0, last.0 + 1, "positions go on where they were");
}
