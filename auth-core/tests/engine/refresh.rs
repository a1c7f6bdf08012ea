//! Refresh tokens: exchange, retries, reuse.

use std::time::Duration;

use auth_core::auth::{By, Ended};
use auth_core::records::{EndReason, SessionKind};
use auth_core::refusal::RefusalReason;
use auth_core::settings::{AuthSettings, RefreshSettings};

use super::world::{Bug, DAY, HOUR, MINUTE, SECOND, TestStore, World, run, run_both};

const REUSED: Option<RefusalReason> = Some(RefusalReason::Reused);
const DEAD: Option<RefusalReason> = Some(RefusalReason::Ended(EndReason::RefreshReused));

fn with_grace(grace: Duration) -> AuthSettings {
    AuthSettings { refresh: RefreshSettings { grace, ..Default::default() }, ..Default::default() }
}

/// M6: read, then write: two refreshes at once both won and the family had two branches; reuse ended nothing.
#[test]
fn m6_parallel_refreshes_get_one_successor_in_every_order_of_their_steps() {
    for schedule in 0..1 << 9 {
        let world =
            World::over(TestStore::new(Bug::None).pausing().losing_replies(3), AuthSettings::default());
        let (_, session) = world.web();
        let token = world.issue(&session);
        let refresh = || async { world.auth.refresh(&token, world.now).await.expect("the store works") };
        let (a, b) = run_both(refresh(), refresh(), schedule);
        let (a, b) = (a.granted().expect("one"), b.granted().expect("the same"));
        assert_eq!(a.token, b.token, "schedule {schedule:b}");
        world.refresh(a.token.expose());
    }
}

/// M6: a token that had been used was refused, and whoever had stolen it kept what it had been exchanged for.
#[test]
fn m6_a_token_that_comes_again_after_its_successor_was_used_ends_family_and_session() {
    let world = World::new();
    let (user, session) = world.web();
    let first = world.issue(&session);
    let second = world.refresh(&first);
    let third = world.refresh(&second);
    assert_eq!(world.try_refresh(&first).refusal(), REUSED);
    assert_eq!(world.try_refresh(&third).refusal(), DEAD);
    assert_eq!(world.try_refresh(&second).refusal(), DEAD);
    assert_eq!(world.refusal(&session), DEAD);
    assert!(run(world.auth.list_sessions(user, world.now)).expect("works").is_empty());
    // Once is enough.
    assert_eq!(world.try_refresh(&first).refusal(), DEAD);
}

#[test]
fn a_retry_yields_the_same_successor_until_the_grace_is_over() {
    let mut world = World::new();
    let (_, session) = world.web();
    let first = world.issue(&session);
    let second = world.refresh(&first);
    world.pass(SECOND * 10 - Duration::from_millis(1));
    assert_eq!(world.refresh(&first), second);
    assert_eq!(world.refresh(&first), second);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.try_refresh(&first).refusal(), REUSED);
    assert_eq!(world.try_refresh(&second).refusal(), DEAD);
}

#[test]
fn without_grace_every_token_works_once() {
    let world = World::with(with_grace(Duration::ZERO));
    let (_, session) = world.web();
    let first = world.issue(&session);
    let second = world.refresh(&first);
    assert_eq!(world.try_refresh(&first).refusal(), REUSED);
    assert_eq!(world.try_refresh(&second).refusal(), DEAD);
    assert_eq!(world.refusal(&session), DEAD);
}

/// Whoever has seen the id of a family could otherwise end it by a made-up token.
#[test]
fn a_made_up_token_ends_nothing() {
    let world = World::new();
    let (_, session) = world.web();
    let first = world.issue(&session);
    let second = world.refresh(&first);
    world.refresh(&second);
    for place in 3..first.len() {
        let mut forged = first.clone();
        forged.replace_range(place..=place, if &first[place..=place] == "A" { "B" } else { "A" });
        assert_eq!(world.try_refresh(&forged).refusal(), Some(RefusalReason::Malformed));
        assert_eq!(run(world.auth.revoke_refresh(&forged, world.now)).expect("works"), Ended::Before);
    }
    for text in ["", "ar_", &session, &"ar_".repeat(10_000), &first[..first.len() - 1], "ar_é"] {
        assert_eq!(world.try_refresh(text).refusal(), Some(RefusalReason::Malformed));
    }
    world.live(&session);
}

/// M6: the token was marked used before the checks, so a refused request used it up.
#[test]
fn a_refused_refresh_uses_nothing_up() {
    let mut world = World::new();
    let user = world.user();
    let session = world.sign_in(user, SessionKind::Cli).token.expose().to_owned();
    let token = world.issue(&session);
    let before = world.dump();
    let later = world.now.after(DAY * 7);
    let refused = run(world.auth.refresh(&token, later)).expect("works").refusal();
    assert_eq!(refused, Some(RefusalReason::ExpiredIdle));
    assert_eq!(world.dump(), before);
    world.pass(MINUTE);
    world.refresh(&token);
}

#[test]
fn a_family_ends_after_30_days_however_much_it_is_used() {
    let mut world = World::new();
    let user = world.user();
    let session = world.sign_in(user, SessionKind::Sdk).token.expose().to_owned();
    let mut token = world.issue(&session);
    for _ in 1..30 {
        world.pass(DAY);
        token = world.refresh(&token);
    }
    world.pass(DAY);
    assert_eq!(world.try_refresh(&token).refusal(), Some(RefusalReason::ExpiredAbsolute));
    // Refreshes are use: the session, which nobody touched, lives on.
    world.live(&session);
}

#[test]
fn a_refresh_keeps_a_session_from_idling_but_not_from_its_absolute_end() {
    let mut world = World::new();
    let (_, session) = world.web();
    let mut token = world.issue(&session);
    for _ in 0..35 {
        world.pass(MINUTE * 20);
        token = world.refresh(&token);
        world.live(&session);
    }
    world.pass(MINUTE * 20);
    assert_eq!(world.try_refresh(&token).refusal(), Some(RefusalReason::ExpiredAbsolute));
    assert_eq!(world.refusal(&session), Some(RefusalReason::ExpiredAbsolute));
}

#[test]
fn any_token_of_a_family_revokes_it_and_its_session() {
    for back in 0..3 {
        let world = World::new();
        let (_, session) = world.web();
        let mut tokens = vec![world.issue(&session)];
        for _ in 0..2 {
            tokens.push(world.refresh(tokens.last().expect("one")));
        }
        let ended = run(world.auth.revoke_refresh(&tokens[back], world.now)).expect("works");
        assert_eq!(ended, Ended::Now);
        let refused = Some(RefusalReason::Ended(EndReason::RefreshRevoked));
        assert_eq!(world.try_refresh(&tokens[2]).refusal(), refused);
        assert_eq!(world.refusal(&session), refused);
        let again = run(world.auth.revoke_refresh(&tokens[back], world.now)).expect("works");
        assert_eq!(again, Ended::Before);
    }
}

#[test]
fn a_session_that_ends_takes_its_refresh_tokens_with_it() {
    let world = World::new();
    let user = world.user();
    for way in 0..3 {
        let opened = world.sign_in(user, SessionKind::Cli);
        let token = world.issue(opened.token.expose());
        let keeping = world.sign_in(user, SessionKind::Web);
        let keeping = world.live(keeping.token.expose());
        match way {
            0 => drop(run(world.auth.sign_out(opened.token.expose(), world.now)).expect("works")),
            1 => drop(
                run(world.auth.revoke_session(By::Session(&keeping), opened.session, world.now))
                    .expect("works"),
            ),
            _ => drop(run(world.auth.revoke_other_sessions(&keeping, world.now)).expect("works")),
        }
        let reason = if way == 0 { EndReason::SignedOut } else { EndReason::Revoked };
        assert_eq!(world.try_refresh(&token).refusal(), Some(RefusalReason::Ended(reason)));
    }
}

#[test]
fn a_lost_reply_of_every_single_commit_changes_nothing() {
    for period in 1..7 {
        let store = TestStore::new(Bug::None).losing_replies(period);
        let mut world = World::over(store, AuthSettings::default());
        if period == 1 {
            // No reply ever comes: nobody is let in, and who asks is told.
            assert!(run(world.auth.create_user(world.now)).is_err());
            continue;
        }
        let (_, session) = world.web();
        let mut token = world.issue(&session);
        for _ in 0..20 {
            world.pass(SECOND);
            token = world.refresh(&token);
        }
        world.pass(HOUR / 4);
        world.refresh(&token);
        world.live(&session);
    }
}
