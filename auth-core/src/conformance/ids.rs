use super::Harness;
use super::world::{SECOND, START, THREADS, World, commit, id, id_at, key, race};
use crate::ports::{AuthStoreError, COMMIT_ID_AHEAD_MAX, COMMIT_ID_HORIZON, Commit, Expect};

/// What comes again has the first answer and no second effect; what was refused leaves no id behind.
pub fn a5_idempotent<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let (first, second) = (key(1), key(2));
    let claim = commit(1).expect(&first, Expect::Absent).put(&first, b"mine", None);
    let position = world.commit(&claim);
    assert_eq!(
        world.commit(&claim),
        position,
        "its own condition does not hold any more, and is not judged again"
    );
    let version = world.version(&first);
    world.commit(&commit(2).put(&first, b"changed since", None));
    assert_eq!(world.commit(&claim), position);
    assert_eq!(world.value(&first), Some(b"changed since".to_vec()), "it has no second effect");
    assert!(world.version(&first) > version);

    let others = [
        commit(1).expect(&first, Expect::Absent).put(&first, b"yours", None),
        commit(1).expect(&first, Expect::Absent).put(&first, b"mine", Some(START.after(SECOND))),
        commit(1).expect(&first, Expect::Present).put(&first, b"mine", None),
        commit(1).put(&first, b"mine", None),
        commit(1).expect(&first, Expect::Absent).delete(&first),
        commit(1).expect(&first, Expect::Absent).put(&second, b"mine", None),
    ];
    for other in others {
        let error = world.try_commit(&other, START).expect_err("another commit of this id");
        assert!(
            matches!(error, AuthStoreError::CommitIdReused { id: found } if found == id(1)),
            "{other:?}: {error:?}"
        );
    }
    assert_eq!(world.value(&first), Some(b"changed since".to_vec()));
    assert_eq!(world.record(&second), None);

    let waiting = commit(3).expect(&second, Expect::Present).put(&first, b"at last", None);
    assert!(!world.is_applied(&waiting, START));
    world.commit(&commit(4).put(&second, b"now", None));
    assert!(world.is_applied(&waiting, START), "a refused commit leaves no id behind");
    let refused = commit(5).expect(&second, Expect::Absent).delete(&second);
    assert!(!world.is_applied(&refused, START));
    world.commit(&commit(5).delete(&second));
}

/// Ids are known until they are as old as the horizon, and then refused: by no clock are they applied again.
pub fn a6_horizon<H: Harness>(harness: &H) {
    let world = World::open(harness);
    let counter = key(1);
    let old = commit(1).put(&counter, b"old", None);
    let position = world.commit(&old);
    let end = START.after(COMMIT_ID_HORIZON);
    let last_moment = crate::Millis(end.0 - 1);
    // Others, as far ahead as they may be and at the time itself, are no reason to forget it.
    let ahead = last_moment.after(COMMIT_ID_AHEAD_MAX);
    for (number, made_at) in [(2, ahead), (3, last_moment)] {
        let other = Commit::new(id_at(made_at, number)).put(&counter, b"new", None);
        world.try_commit(&other, last_moment).expect("it is applied");
    }
    assert_eq!(world.try_commit(&old, last_moment).expect("it is known"), position);

    let expired = |commit: &Commit, now: crate::Millis| {
        let error = world.try_commit(commit, now).expect_err("it is too old");
        assert!(matches!(error, AuthStoreError::CommitIdExpired { .. }), "{error:?}");
    };
    expired(&old, end);
    // One that never was applied is refused as well: who could tell?
    expired(&commit(9).put(&counter, b"late", None), end);
    // Now stores forget, some a few ids with each commit.
    for number in 10..60 {
        let later = Commit::new(id_at(end, number)).put(&key(number), b"x", None);
        world.try_commit(&later, end).expect("it is applied");
    }
    // By a clock that has gone back the id is in time, and may have been forgotten.
    match world.try_commit(&old, START) {
        Ok(known) => assert_eq!(known, position),
        Err(error) => assert!(matches!(error, AuthStoreError::CommitIdExpired { .. }), "{error:?}"),
    }
    assert_eq!(
        world.record_at(&counter, end).map(|record| record.value.to_vec()),
        Some(b"new".to_vec()),
        "no second effect"
    );

    let far = Commit::new(id_at(crate::Millis(end.after(COMMIT_ID_AHEAD_MAX).0 + 1), 70))
        .put(&counter, b"far", None);
    let error = world.try_commit(&far, end).expect_err("it is ahead");
    assert!(matches!(error, AuthStoreError::CommitIdAhead { .. }), "{error:?}");
}

/// Whoever does not know sends it again, however often and from wherever: it has one effect and one answer.
pub fn a12_errors<H: Harness>(harness: &H) {
    let world = World::open(harness);
    for round in 0..10 {
        let name = key(round);
        let claim = commit(100 + round).expect(&name, Expect::Absent).put(&name, b"once", None);
        let positions = race(THREADS / 2, |_| world.commit(&claim));
        assert!(positions.iter().all(|position| Some(position) == positions.first()), "{positions:?}");
        assert_eq!(world.version(&name).0, positions.first().map_or(0, |position| position.0));
    }
    let untouched = key(1_000);
    let refusals = [
        commit(1).expect(&untouched, Expect::Present).put(&untouched, b"x", None),
        commit(100).put(&untouched, b"x", None),
        Commit::new(id_at(START.before(COMMIT_ID_HORIZON), 1)).put(&untouched, b"x", None),
        commit(2).put(&untouched, b"x", None).delete(&untouched),
    ];
    for refused in refusals {
        let error = world.try_commit(&refused, START).expect_err("it is refused");
        assert!(!matches!(error, AuthStoreError::UnknownOutcome { .. }), "{error:?}");
        assert_eq!(world.record(&untouched), None, "after {error:?} nothing was applied");
    }
}
