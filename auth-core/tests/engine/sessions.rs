//! Sessions: timeouts, the cap, ending, and what others got wrong.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use auth_core::auth::{By, Ended, Touch};
use auth_core::records::{AssuranceLevel, EndReason, SessionKind, tables};
use auth_core::refusal::RefusalReason;
use auth_core::sessions::SignIn;
use auth_core::settings::{AuthSettings, SettingsError};

use super::world::{DAY, HOUR, MINUTE, PASSKEY, PASSWORD, SECOND, START, World, engine, run};

/// M5: the session's token was its time-ordered 64-bit id, guessable from any other; the open logout route took the same id.
#[test]
fn m5_tokens_are_256_random_bits_stored_as_hashes_and_ids_open_nothing() {
    let world = World::new();
    let user = world.user();
    let tokens: Vec<_> = (0..9).map(|_| world.sign_in(user, SessionKind::Web)).collect();
    let secrets: BTreeSet<String> = tokens.iter().map(|opened| opened.token.expose().to_owned()).collect();
    assert_eq!(secrets.len(), 9);
    for opened in &tokens {
        // An id alone signs nobody out.
        assert_eq!(world.refusal(&opened.session.to_string()), Some(RefusalReason::Malformed));
        let ended = run(world.auth.sign_out(&opened.session.to_string(), world.now));
        assert_eq!(ended.expect("the store works"), Ended::Before);
        world.live(opened.token.expose());
    }
    // Neighbours of a token, one character changed: none is let in, none signs out.
    let token = tokens[0].token.expose();
    for place in 0..token.len() {
        for other in ["A", "B", "_", "=", "."] {
            let mut neighbour = token.to_owned();
            neighbour.replace_range(place..=place, other);
            if neighbour != token {
                assert!(world.refusal(&neighbour).is_some(), "{neighbour}");
                let ended = run(world.auth.sign_out(&neighbour, world.now));
                assert_eq!(ended.expect("the store works"), Ended::Before);
            }
        }
    }
    world.live(token);
}

/// M13: sessions slid on without an absolute end, and each request wrote the row.
#[test]
fn m13_activity_does_not_outlast_the_absolute_time_and_writes_once_per_tenth_of_the_idle_time() {
    let mut world = World::new();
    let (_, token) = world.web();
    let mut written = 0;
    for minute in 1..=12 * 60 {
        world.pass(MINUTE);
        if minute == 12 * 60 {
            assert_eq!(world.refusal(&token), Some(RefusalReason::ExpiredAbsolute));
            break;
        }
        let live = world.live(&token);
        if run(world.auth.touch_session(&live, world.now)).expect("the store works") == Touch::Written {
            written += 1;
        }
    }
    // Every third minute of 719.
    assert_eq!(written, 719 / 3);
}

/// M14: count, evict and insert were three commits: two sign-ins at once went beyond the cap.
#[test]
fn m14_the_session_used_least_recently_gives_way_in_the_commit_of_the_new_one() {
    let mut world = World::new();
    let user = world.user();
    let mut opened = Vec::new();
    for _ in 0..10 {
        opened.push(world.sign_in(user, SessionKind::Cli));
        world.pass(SECOND);
    }
    world.pass(DAY);
    let first = world.live(opened[0].token.expose());
    assert_eq!(run(world.auth.touch_session(&first, world.now)).expect("works"), Touch::Written);
    let refresh = world.issue(opened[1].token.expose());
    world.sign_in(user, SessionKind::Cli);
    assert_eq!(world.refusal(opened[1].token.expose()), Some(RefusalReason::Ended(EndReason::Evicted)));
    let refused = world.try_refresh(&refresh).refusal();
    assert_eq!(refused, Some(RefusalReason::Ended(EndReason::Evicted)));
    world.live(opened[0].token.expose());
    let live = run(world.auth.list_sessions(user, world.now)).expect("the store works");
    assert_eq!(live.len(), 10);
}

#[test]
fn every_kind_of_session_ends_without_use_and_however_much_it_is_used() {
    let kinds = [
        (SessionKind::Web, MINUTE * 30, HOUR * 12),
        (SessionKind::RememberedWeb, DAY * 30, DAY * 30),
        (SessionKind::Cli, DAY * 7, DAY * 30),
        (SessionKind::Sdk, DAY * 30, DAY * 90),
    ];
    for (kind, idle, absolute) in kinds {
        let mut world = World::new();
        let user = world.user();
        let token = world.sign_in(user, kind).token.expose().to_owned();
        let millisecond = std::time::Duration::from_millis(1);
        world.now = START.after(idle - millisecond);
        world.live(&token);
        world.now = START.after(idle);
        let reason =
            if idle == absolute { RefusalReason::ExpiredAbsolute } else { RefusalReason::ExpiredIdle };
        assert_eq!(world.refusal(&token), Some(reason), "{kind:?}");
        // Used all the time.
        world.now = START;
        while world.now < START.after(absolute - idle / 2) {
            let live = world.live(&token);
            let _ = run(world.auth.touch_session(&live, world.now)).expect("the store works");
            world.pass(idle / 2);
        }
        world.now = START.after(absolute - millisecond);
        world.live(&token);
        world.now = START.after(absolute);
        assert_eq!(world.refusal(&token), Some(RefusalReason::ExpiredAbsolute), "{kind:?}");
    }
}

#[test]
fn a_remembered_session_falls_to_level_one_and_a_step_up_raises_it_for_a_while() {
    let mut world = World::new();
    let user = world.user();
    let token = world.sign_in(user, SessionKind::RememberedWeb).token.expose().to_owned();
    assert_eq!(world.live(&token).level(), AssuranceLevel::Two);
    world.pass(MINUTE * 30);
    let live = world.live(&token);
    assert_eq!(live.level(), AssuranceLevel::One);
    assert!(live.require(AssuranceLevel::Two, HOUR, world.now).is_err());
    let again = run(world.auth.reauthenticate(&token, &PASSKEY, world.now)).expect("works");
    let token = again.granted().expect("live").token.expose().to_owned();
    let live = world.live(&token);
    assert_eq!((live.level(), live.authenticated_at()), (AssuranceLevel::Two, world.now));
    assert_eq!(live.require(AssuranceLevel::Two, MINUTE * 10, world.now), Ok(()));
    world.pass(MINUTE * 10);
    let needed = world.live(&token).require(AssuranceLevel::Two, MINUTE * 10, world.now);
    assert_eq!(needed.expect_err("too long ago").level, AssuranceLevel::Two);
}

/// ASVS 7.2.4: a token from before a sign-in must not be worth more after it (fixation).
#[test]
fn signing_in_again_gives_a_new_token_and_ends_the_old_one_and_its_refresh_tokens() {
    let mut world = World::new();
    let (user, old) = world.web();
    let refresh = world.issue(&old);
    world.pass(MINUTE);
    let again = run(world.auth.reauthenticate(&old, &PASSWORD, world.now)).expect("works").granted();
    let again = again.expect("it lives");
    assert_eq!(world.refusal(&old), Some(RefusalReason::Unknown));
    let refused = world.try_refresh(&refresh).refusal();
    assert_eq!(refused, Some(RefusalReason::Ended(EndReason::Replaced)));
    let live = world.live(again.token.expose());
    assert_eq!((live.id(), live.user()), (again.session, user));
    // What was proved now counts, not what was proved before.
    assert_eq!(live.level(), AssuranceLevel::One);
    // The old token neither signs in again nor out.
    let refused = run(world.auth.reauthenticate(&old, &PASSKEY, world.now)).expect("works").refusal();
    assert_eq!(refused, Some(RefusalReason::Unknown));
    assert_eq!(run(world.auth.sign_out(&old, world.now)).expect("works"), Ended::Before);
    world.live(again.token.expose());
}

#[test]
fn a_check_is_two_point_reads_and_no_write() {
    let world = World::new();
    let (_, token) = world.web();
    let before = (world.store.reads.load(Ordering::Relaxed), world.dump());
    let reads = world.store.reads.load(Ordering::Relaxed);
    world.live(&token);
    assert_eq!(world.store.reads.load(Ordering::Relaxed) - reads, 2);
    assert_eq!(world.dump(), before.1);
}

#[test]
fn users_see_and_end_their_own_sessions_and_nobody_elses() {
    let world = World::new();
    let (ada, eve) = (world.user(), world.user());
    let mine: Vec<_> = (0..3).map(|_| world.sign_in(ada, SessionKind::Web)).collect();
    let of_eve = world.sign_in(eve, SessionKind::Web);
    let live = world.live(mine[0].token.expose());
    let list = |user| run(world.auth.list_sessions(user, world.now)).expect("the store works");
    let ids: Vec<_> = mine.iter().map(|opened| opened.session).collect();
    assert_eq!(list(ada).iter().map(|live| live.id()).collect::<Vec<_>>(), ids);

    let end = |by: By<'_>, id| run(world.auth.revoke_session(by, id, world.now)).expect("works");
    assert_eq!(end(By::Session(&live), of_eve.session), Ended::Before);
    world.live(of_eve.token.expose());
    assert_eq!(end(By::Session(&live), mine[1].session), Ended::Now);
    assert_eq!(end(By::Session(&live), mine[1].session), Ended::Before);
    let revoked = Some(RefusalReason::Ended(EndReason::Revoked));
    assert_eq!(world.refusal(mine[1].token.expose()), revoked);

    let others = run(world.auth.revoke_other_sessions(&live, world.now)).expect("works");
    assert_eq!(others.granted(), Some(1));
    assert_eq!(world.refusal(mine[2].token.expose()), revoked);
    world.live(of_eve.token.expose());
    assert_eq!(list(ada).len(), 1);
    assert_eq!(run(world.auth.sign_out(mine[0].token.expose(), world.now)).expect("works"), Ended::Now);
    let gone = world.refusal(mine[0].token.expose());
    assert_eq!(gone, Some(RefusalReason::Ended(EndReason::SignedOut)));
    // The session that ends others has to live itself.
    let refused = run(world.auth.revoke_other_sessions(&live, world.now)).expect("works").refusal();
    assert_eq!(refused, Some(RefusalReason::Unknown));
}

#[test]
fn all_sessions_end_by_one_number_and_new_ones_are_let_in() {
    let world = World::new();
    let user = world.user();
    let opened: Vec<_> = (0..10).map(|_| world.sign_in(user, SessionKind::Sdk)).collect();
    let refresh = world.issue(opened[0].token.expose());
    let before = world.dump();
    let epoch = run(world.auth.revoke_all_sessions(By::Operator(user), world.now)).expect("works");
    assert_eq!(epoch.granted(), Some(2));
    let changed: Vec<_> = world.dump().into_iter().filter(|row| !before.contains(row)).collect();
    let is_log = |table| table == tables::AUDIT_ENTRY || table == tables::AUDIT_HEAD;
    assert_eq!(changed.iter().filter(|(key, _)| !is_log(key.table())).count(), 1, "one row of the user");
    for opened in &opened {
        assert_eq!(world.refusal(opened.token.expose()), Some(RefusalReason::Epoch));
    }
    assert_eq!(world.try_refresh(&refresh).refusal(), Some(RefusalReason::Epoch));
    assert!(run(world.auth.list_sessions(user, world.now)).expect("works").is_empty());
    let new = world.sign_in(user, SessionKind::Web);
    assert_eq!(world.live(new.token.expose()).epoch(), 2);
}

/// ASVS 7.4.2.
#[test]
fn a_disabled_user_is_signed_out_everywhere_and_does_not_sign_in() {
    let world = World::new();
    let (user, token) = world.web();
    let refresh = world.issue(&token);
    let disabled = run(world.auth.disable_user(user, world.now)).expect("works");
    assert_eq!(disabled.granted(), Some(()));
    let refused = Some(RefusalReason::UserDisabled);
    assert_eq!(world.refusal(&token), refused);
    assert_eq!(world.try_refresh(&refresh).refusal(), refused);
    assert_eq!(run(world.auth.issue_refresh(&token, world.now)).expect("works").refusal(), refused);
    let sign_in = SignIn { user, kind: SessionKind::Web, authentication: PASSKEY };
    assert_eq!(run(world.auth.open_session(&sign_in, world.now)).expect("works").refusal(), refused);
}

/// A refusal that told reasons would tell whether a token was ever valid.
#[test]
fn every_refusal_looks_the_same_to_a_client() {
    let mut world = World::new();
    let (user, token) = world.web();
    let mut refusals = vec![world.validate("nonsense")];
    let other = world.sign_in(user, SessionKind::Web);
    let _ = run(world.auth.sign_out(other.token.expose(), world.now)).expect("works");
    refusals.push(world.validate(other.token.expose()));
    world.pass(HOUR);
    refusals.push(world.validate(&token));
    let _ = run(world.auth.revoke_all_sessions(By::Operator(user), world.now)).expect("works");
    refusals.push(world.validate(&token));
    let reasons: BTreeSet<_> = refusals.iter().map(|refused| refused.refusal()).collect();
    assert_eq!(reasons.len(), 4);
    assert_eq!(refusals.iter().map(|refused| format!("{refused:?}")).collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn sessions_outlive_a_restart_and_a_new_key_until_the_old_one_is_left_out() {
    let world = World::new();
    let (_, token) = world.web();
    let refresh = world.issue(&token);
    let second = engine(&world.store, 2, 2, AuthSettings::default());
    let live = run(second.validate_session(&token, world.now)).expect("works");
    assert!(live.granted().is_some());
    let next = run(second.refresh(&refresh, world.now)).expect("works").granted().expect("live");
    assert_eq!(
        run(second.refresh(&refresh, world.now)).expect("works").granted().expect("live").token,
        next.token
    );
    // A retry yields the very same text from an engine that has yet another key.
    let third = engine(&world.store, 3, 3, AuthSettings::default());
    let again = run(third.refresh(&refresh, world.now)).expect("works").granted().expect("live");
    assert_eq!(again.token, next.token);
    let without = auth_core::Auth::new(
        std::sync::Arc::clone(&world.store),
        super::world::TENANT,
        super::world::secrets(99),
        super::world::SeededBytes::new(3),
        AuthSettings::default(),
    )
    .expect("valid");
    let refused = run(without.validate_session(&token, world.now)).expect("works").refusal();
    assert_eq!(refused, Some(RefusalReason::Unknown));
}

#[test]
fn what_was_written_of_a_session_is_gone_a_day_after_its_end() {
    let mut world = World::new();
    let (user, token) = world.web();
    world.pass(MINUTE * 30 + DAY);
    assert_eq!(world.refusal(&token), Some(RefusalReason::Unknown));
    assert!(world.dump().iter().all(|(key, _)| key.table() != tables::SESSION));
    assert!(run(world.auth.list_sessions(user, world.now)).expect("works").is_empty());
}

/// Beat list 11: tokens were stored as they were, or sealed beside their key.
#[test]
fn no_issued_token_is_in_the_store() {
    let mut world = World::new();
    let mut issued = Vec::new();
    for _ in 0..3 {
        let (_, session) = world.web();
        let first = world.issue(&session);
        let second = world.refresh(&first);
        issued.extend([first, second.clone()]);
        world.pass(SECOND);
        issued.push(world.refresh(&second));
        let again = run(world.auth.reauthenticate(&session, &PASSKEY, world.now)).expect("works");
        issued.push(again.granted().expect("live").token.expose().to_owned());
        issued.push(session);
    }
    let dump = world.dump();
    assert!(dump.len() > 10);
    for token in issued {
        for secret in super::world::secret_parts(&token) {
            let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
            for (key, value) in &dump {
                assert!(!holds(value) && !holds(key.as_bytes()), "a part of {token} is in {key:?}");
            }
        }
    }
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let of = |change: &dyn Fn(&mut AuthSettings)| {
        let mut settings = AuthSettings::default();
        change(&mut settings);
        settings.validate()
    };
    assert_eq!(of(&|_| {}), Ok(()));
    assert_eq!(of(&|settings| settings.refresh.grace = std::time::Duration::ZERO), Ok(()));
    let refused = of(&|settings| settings.sessions.web.idle = DAY);
    assert_eq!(refused, Err(SettingsError::Timeouts { kind: SessionKind::Web }));
    for per_user_max in [0, 33] {
        let refused = of(&|settings| settings.sessions.per_user_max = per_user_max);
        assert_eq!(refused, Err(SettingsError::SessionsPerUser { per_user_max }));
    }
    assert_eq!(of(&|settings| settings.refresh.grace = DAY * 3), Err(SettingsError::Refresh));
}
