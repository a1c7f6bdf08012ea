//! 64 at once, on threads.

use std::collections::BTreeSet;
use std::sync::Barrier;

use auth_core::auth::Ended;
use auth_core::records::{EndReason, SessionKind};
use auth_core::refusal::RefusalReason;
use auth_core::sessions::SignIn;

use super::world::{PASSKEY, World, run};

const THREADS: usize = 64;

/// Runs the same with the numbers of threads, all at once.
#[expect(clippy::disallowed_methods, reason = "the claims are about threads")]
pub fn race<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

/// M6, beat list 12.
#[test]
fn m6_of_64_refreshes_at_once_all_get_the_one_successor() {
    let world = World::new();
    let (_, session) = world.web();
    let token = world.issue(&session);
    let successors: BTreeSet<String> = race(|_| world.refresh(&token)).into_iter().collect();
    assert_eq!(successors.len(), 1);
    world.refresh(successors.first().expect("one"));
}

/// M14, ASVS 7.1.2.
#[test]
fn m14_64_sign_ins_at_once_leave_10_sessions() {
    let world = World::new();
    let user = world.user();
    let sign_in = SignIn { user, kind: SessionKind::Web, authentication: PASSKEY };
    let tokens = race(|_| {
        let opened = run(world.auth.open_session(&sign_in, world.now)).expect("the store works");
        opened.granted().expect("signed in").token.expose().to_owned()
    });
    let live = tokens.iter().filter(|token| world.validate(token).granted().is_some()).count();
    let evicted =
        tokens.iter().filter(|token| world.refusal(token) == Some(RefusalReason::Ended(EndReason::Evicted)));
    assert_eq!((live, evicted.count()), (10, 54));
    let listed = run(world.auth.list_sessions(user, world.now)).expect("the store works");
    assert_eq!(listed.len(), 10);
}

/// Of others: a refresh in flight made a session anew that had been ended (keycloak #51312, better-auth #11073).
#[test]
fn no_refresh_outlives_a_sign_out_at_the_same_time() {
    for round in 0..8 {
        let world = World::new();
        let (_, session) = world.web();
        let token = world.issue(&session);
        let tokens = race(|thread| {
            if thread == round {
                let ended = run(world.auth.sign_out(&session, world.now)).expect("the store works");
                assert_eq!(ended, Ended::Now);
                return None;
            }
            let live = world.validate(&session).granted();
            if let Some(live) = live {
                let later = world.now.after(super::world::MINUTE * 5);
                let _ = run(world.auth.touch_session(&live, later)).expect("the store works");
            }
            Some(world.try_refresh(&token).granted()?.token.expose().to_owned())
        });
        let ended = Some(RefusalReason::Ended(EndReason::SignedOut));
        for token in tokens.into_iter().flatten() {
            assert_eq!(world.try_refresh(&token).refusal(), ended);
        }
        assert_eq!(world.try_refresh(&token).refusal(), ended);
        assert_eq!(world.refusal(&session), ended);
    }
}

#[test]
fn of_64_sign_outs_one_ends_the_session() {
    let world = World::new();
    let (_, session) = world.web();
    let ended = race(|_| run(world.auth.sign_out(&session, world.now)).expect("the store works"));
    assert_eq!(ended.into_iter().filter(|ended| *ended == Ended::Now).count(), 1);
}
