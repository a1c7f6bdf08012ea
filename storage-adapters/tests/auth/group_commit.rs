//! Many commits, one fsync.

use std::sync::Barrier;

use auth_core::ports::{AuthStoreError, Expect};

use super::world::{Home, commit, key, run, try_commit, value};

#[test]
fn commits_that_come_together_share_an_fsync() {
    const THREADS: u64 = 64;
    const EACH: u64 = 8;
    let home = Home::new();
    let store = home.open();
    let (_, before) = store.commits();
    let (synced_before, grown_before) = store.syncs();
    let start = Barrier::new(usize::try_from(THREADS).expect("few"));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..EACH {
                    let number = thread * EACH + round;
                    try_commit(store, &commit(number).put(&key(number), b"x", None)).expect("it is applied");
                }
            });
        }
    });
    let (commits, after) = store.commits();
    let (synced, grown) = store.syncs();
    let (transactions, syncs, growths) = (after - before, synced - synced_before, grown - grown_before);
    println!("{transactions} transactions, {syncs} fsyncs, {growths} growths");
    assert_eq!(commits, THREADS * EACH);
    assert!(transactions <= THREADS * EACH / 4, "{transactions} transactions for {commits} commits");
    assert!(
        syncs <= transactions + growths,
        "{syncs} fsyncs, {transactions} transactions, {growths} growths"
    );
    drop(store);
    let store = home.open();
    assert!((0..THREADS * EACH).all(|number| value(&store, &key(number)).is_some()));
}

#[test]
fn what_only_is_refused_or_repeated_costs_no_fsync() {
    let home = Home::new();
    let store = home.open();
    let claim = commit(1).expect(&key(1), Expect::Absent).put(&key(1), b"x", None);
    let position = try_commit(&store, &claim).expect("it is applied");
    let before = store.syncs();
    for number in 2..20 {
        let refused = commit(number).expect(&key(1), Expect::Absent).delete(&key(1));
        assert!(matches!(try_commit(&store, &refused), Err(AuthStoreError::Conflict { .. })));
        assert_eq!(try_commit(&store, &claim).expect("it is known"), position);
    }
    assert_eq!(store.syncs(), before);
}

#[test]
fn a_commit_whose_caller_has_gone_is_found_by_its_id() {
    let home = Home::new();
    let store = home.open();
    let claim = commit(1).expect(&key(1), Expect::Absent).put(&key(1), b"x", None);
    {
        let mut asked =
            std::pin::pin!(auth_core::ports::AuthStore::commit(&store, &claim, super::world::START));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // Asked once, and dropped.
        let _ = asked.as_mut().poll(&mut context);
    }
    let position = try_commit(&store, &claim).expect("it has one effect");
    assert_eq!(super::world::record(&store, &key(1)).map(|record| record.version.0), Some(position.0));
}

#[test]
fn a_store_that_is_closed_writes_what_waited_and_refuses_the_rest() {
    let home = Home::new();
    let store = home.open();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let store = &store;
                scope
                    .spawn(move || (number, try_commit(store, &commit(number).put(&key(number), b"x", None))))
            })
            .collect();
        run(store.close());
        let answers: Vec<_> = writers.into_iter().map(|writer| writer.join().expect("no panic")).collect();
        assert!(matches!(try_commit(&store, &commit(99)), Err(AuthStoreError::Unavailable { .. })));
        // While it is closed, another one may have the file.
        let again = home.open();
        for (number, answer) in answers {
            match answer {
                Ok(_) => {
                    assert!(value(&again, &key(number)).is_some(), "{number} was told that it is written")
                }
                Err(AuthStoreError::Unavailable { .. }) => assert_eq!(value(&again, &key(number)), None),
                Err(error) => panic!("{error}"),
            }
        }
    });
}
