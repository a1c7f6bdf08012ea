use std::collections::BTreeMap;

use super::Harness;
use super::world::{START, World, commit, id_at, key, race};
use crate::key::{Key, Table, Tenant};
use crate::ports::{
    AuthStore, AuthStoreError, CHANGE_BYTES_PER_READ_MAX, COMMITS_PER_CHANGES_MAX, Change, Changed, Commit,
    Expect, FEED_HORIZON, Limit, Position, WRITES_PER_COMMIT_MAX,
};

/// Each commit once, whole and in order, also while others commit; who has lost the thread is told.
pub fn a9_feed<H: Harness>(harness: &H) {
    let world = World::open(harness);
    the_feed_tells_what_was_written(&world);
    nothing_is_left_out_while_others_commit(&world);
    a_reply_has_a_limit(&world);
    who_is_too_far_behind_is_told(&world);
}

fn page<H: Harness>(world: &World<'_, H>, after: Position, commits_max: usize) -> (Vec<Change>, Position) {
    let page = world.harness.run(world.store.changes(after, commits_max)).expect("the feed is read");
    assert!(page.changes.len() <= commits_max);
    (page.changes, page.next)
}

fn the_feed_tells_what_was_written<H: Harness>(world: &World<'_, H>) {
    assert_eq!(page(world, Position::START, 10), (Vec::new(), Position::START));
    let first = world.commit(&commit(1).put(&key(1), b"a", None).put(&key(2), b"b", None));
    assert!(!world.is_applied(&commit(2).expect(&key(1), Expect::Absent).delete(&key(2)), START));
    let second = world.commit(&commit(3).delete(&key(1)).put(&key(2), b"c", None));
    // Again: it was there before.
    world.commit(&commit(1).put(&key(1), b"a", None).put(&key(2), b"b", None));
    let told = |position, keys: Vec<(Key, Changed)>| Change { position, committed_at: START, keys };
    let expected = vec![
        told(first, vec![(key(1), Changed::Put), (key(2), Changed::Put)]),
        told(second, vec![(key(1), Changed::Deleted), (key(2), Changed::Put)]),
    ];
    assert_eq!(page(world, Position::START, 10), (expected.clone(), second));
    assert_eq!(page(world, Position::START, 1), (expected[..1].to_vec(), first));
    assert_eq!(page(world, first, 1), (expected[1..].to_vec(), second));
    assert_eq!(page(world, second, 10), (Vec::new(), second));
    assert_eq!(page(world, first, 0), (Vec::new(), first));
}

fn nothing_is_left_out_while_others_commit<H: Harness>(world: &World<'_, H>) {
    const EACH: u64 = 30;
    const WRITERS: u64 = 6;
    let (_, start) = page(world, Position::START, 10);
    let mut told: BTreeMap<u64, Vec<Position>> = BTreeMap::new();
    let results = race(WRITERS + 1, |thread| {
        if thread < WRITERS {
            let commits = (0..EACH).map(|round| thread * EACH + round);
            let applied = commits.map(|number| {
                (number, world.commit(&commit(1_000 + number).put(&key(1_000 + number), b"x", None)))
            });
            return applied.collect::<Vec<_>>();
        }
        let (mut after, mut seen) = (start, Vec::new());
        while (seen.len() as u64) < WRITERS * EACH {
            let (changes, next) = page(world, after, 7);
            for change in &changes {
                assert_eq!(change.position.0, after.0 + 1, "no position is left out");
                after = change.position;
                let [(key, Changed::Put)] = change.keys.as_slice() else { panic!("one write: {change:?}") };
                let number =
                    key.parts().next().and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes);
                seen.push((number - 1_000, change.position));
            }
            assert_eq!(next, after);
            std::thread::yield_now();
        }
        seen
    });
    for (number, position) in results.into_iter().flatten() {
        told.entry(number).or_default().push(position);
    }
    assert_eq!(told.len() as u64, WRITERS * EACH);
    for (number, positions) in told {
        assert!(
            matches!(positions.as_slice(), [a, b] if a == b),
            "commit {number}: its answer and the feed say {positions:?}"
        );
    }
}

fn a_reply_has_a_limit<H: Harness>(world: &World<'_, H>) {
    let error = world
        .harness
        .run(world.store.changes(Position::START, COMMITS_PER_CHANGES_MAX + 1))
        .expect_err("too many");
    assert!(matches!(error, AuthStoreError::TooLarge { limit: Limit::Changes, .. }), "{error:?}");
    let mut after = world.commit(&commit(5_000));
    let long = |number: u64| Key::new(Table::FIRST_OF_TESTS, Tenant(3)).number(number).bytes([7; 1_000]);
    for round in 0..6 {
        let filled = (0..WRITES_PER_COMMIT_MAX as u64)
            .fold(commit(6_000 + round), |commit, number| commit.delete(&long(number)));
        world.commit(&filled);
    }
    let mut pages = 0;
    loop {
        let (changes, next) = page(world, after, COMMITS_PER_CHANGES_MAX);
        if changes.is_empty() {
            break;
        }
        let bytes: usize = changes.iter().map(Change::size_bytes).sum();
        assert!(bytes <= CHANGE_BYTES_PER_READ_MAX, "{bytes}");
        assert!(
            changes.iter().all(|change| change.keys.len() == WRITES_PER_COMMIT_MAX),
            "commits are told whole"
        );
        (after, pages) = (next, pages + 1);
    }
    assert!(pages > 1, "{pages} pages");
}

fn who_is_too_far_behind_is_told<H: Harness>(world: &World<'_, H>) {
    let lost = |after: Position| match world.harness.run(world.store.changes(after, 10)) {
        Err(AuthStoreError::PositionLost { oldest, newest }) => Some((oldest, newest)),
        Err(error) => panic!("{error}"),
        Ok(page) => {
            let first = page.changes.first().map_or(after.0 + 1, |change| change.position.0);
            assert_eq!(first, after.0 + 1, "a gap that nobody is told of");
            None
        }
    };
    let last = world.commit(&commit(7_000));
    assert_eq!(lost(Position::START), None, "within the horizon all is there");
    let (_, newest) = lost(Position(last.0 + 1)).expect("a position that never was");
    assert_eq!(newest, last);
    // Beyond it stores forget, some a few with each commit.
    let later = START.after(FEED_HORIZON);
    for number in 0..1_000 {
        world.try_commit(&Commit::new(id_at(later, number)), later).expect("it is applied");
        if let Some((oldest, newest)) = lost(Position::START) {
            assert!(oldest > Position::START && oldest <= newest);
            assert_eq!(lost(oldest), None, "the oldest that is told can be asked for");
            assert_eq!(lost(last), None, "what is within the horizon stays");
            return;
        }
    }
    panic!("the feed grows without bound");
}
