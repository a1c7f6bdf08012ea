//! Mails that wait: claimed by one, tried again later and later, given up in the end.

use std::time::Duration;

use auth_core::auth::{ClaimedMail, Ended};
use auth_core::outbox::{MailFailure, MailFate};
use auth_core::ports::{AuthStore, Commit, CommitId};
use auth_core::records::{DeadMail, DeathReason, MailKind, Stored, tables};
use auth_core::settings::{AuthSettings, OutboxSettings};
use auth_core::{AuthError, Millis};

use super::races::race;
use super::world::{DAY, HOUR, MINUTE, SECOND, World, address, run, secret_parts};

const ADA: &str = "ada@example.org";

fn claim(world: &World) -> Option<ClaimedMail> {
    run(world.auth.claim_mail(world.now)).expect("the store works")
}

fn fail(world: &World, mail: &ClaimedMail, failure: MailFailure) -> MailFate {
    run(world.auth.mail_failed(mail, failure, world.now)).expect("the store works")
}

fn dead(world: &World) -> Vec<DeadMail> {
    let rows = world.dump().into_iter().filter(|(key, _)| key.table() == tables::DEAD_MAIL);
    rows.map(|(_, value)| DeadMail::decode(&value).expect("a dead mail")).collect()
}

fn waiting(world: &World) -> usize {
    world.dump().iter().filter(|(key, _)| key.table() == tables::OUTBOX_MAIL).count()
}

#[test]
fn a_mail_that_fails_is_tried_again_twice_as_late_each_time_and_dies_after_the_eighth() {
    let mut world = World::new();
    world.register(ADA, "correct horse");
    for (attempt, minutes) in (1u8..).zip([1u32, 2, 4, 8, 16, 32, 60]) {
        let mail = claim(&world).expect("due");
        assert_eq!((mail.attempt(), mail.to()), (attempt, &address(ADA)));
        let at = world.now.after(MINUTE * minutes);
        assert_eq!(fail(&world, &mail, MailFailure::Temporary), MailFate::Retried { at });
        world.pass(MINUTE * minutes - Duration::from_millis(1));
        assert!(claim(&world).is_none());
        world.pass(Duration::from_millis(1));
    }
    let mail = claim(&world).expect("due");
    let token = mail.token().expect("a token").to_owned();
    assert_eq!(fail(&world, &mail, MailFailure::Temporary), MailFate::Dead(DeathReason::Attempts));
    let [dead] = dead(&world)[..] else { panic!("one") };
    assert_eq!((dead.kind, dead.attempts, dead.reason), (MailKind::VerifyEmail, 8, DeathReason::Attempts));
    // Nothing of what it said is left, and after 30 days nothing at all.
    for secret in secret_parts(&format!("{token}.")) {
        assert!(
            world.dump().iter().all(|(_, value)| !value.windows(secret.len()).any(|part| part == secret))
        );
    }
    assert_eq!(waiting(&world), 0);
    world.pass(DAY * 30);
    assert!(self::dead(&world).is_empty());
}

#[test]
fn a_mail_that_is_refused_for_good_or_is_too_old_dies_at_once() {
    let mut world = World::new();
    world.register(ADA, "correct horse");
    let mail = claim(&world).expect("due");
    assert_eq!(fail(&world, &mail, MailFailure::Permanent), MailFate::Dead(DeathReason::Permanent));
    assert_eq!(fail(&world, &mail, MailFailure::Permanent), MailFate::Lost);
    world.register(ADA, "correct horse");
    world.pass(DAY);
    assert!(claim(&world).is_none());
    let reasons: Vec<_> = dead(&world).iter().map(|dead| dead.reason).collect();
    assert_eq!((reasons.len(), waiting(&world)), (2, 0));
    assert!(reasons.contains(&DeathReason::Expired));
}

/// The process that had it stopped: after the claim has ended somebody else sends it, and what the first one says is too late.
#[test]
fn a_claim_that_ends_gives_the_mail_to_the_next() {
    let mut world = World::new();
    world.register(ADA, "correct horse");
    let first = claim(&world).expect("due");
    world.pass(MINUTE * 2 - SECOND);
    assert!(claim(&world).is_none());
    world.pass(SECOND);
    let second = claim(&world).expect("due again");
    assert_eq!((second.id(), second.attempt()), (first.id(), 2));
    assert_eq!(run(world.auth.mail_sent(&first, world.now)).expect("works"), Ended::Before);
    assert_eq!(fail(&world, &first, MailFailure::Permanent), MailFate::Lost);
    assert_eq!(run(world.auth.mail_sent(&second, world.now)).expect("works"), Ended::Now);
    world.pass(HOUR);
    assert!(claim(&world).is_none());
}

/// Claims that nobody answers are attempts too: a mail that stops its sender does not for ever.
#[test]
fn a_mail_whose_sender_stops_each_time_dies_as_well() {
    let outbox = OutboxSettings { attempts_max: 3, ..OutboxSettings::default() };
    let mut world = World::with(AuthSettings { outbox, ..AuthSettings::default() });
    world.register(ADA, "correct horse");
    for _ in 0..3 {
        claim(&world).expect("due");
        world.pass(MINUTE * 2);
    }
    assert!(claim(&world).is_none());
    assert_eq!(dead(&world).len(), 1);
}

/// A mail that cannot be opened holds up no other, and dies when its time is over; with the right keys it is sent.
#[test]
fn a_mail_under_an_unknown_key_holds_up_no_other() {
    let mut world = World::new();
    world.register(ADA, "correct horse");
    let rows = world.dump();
    let (key, value) = rows.iter().find(|(key, _)| key.table() == tables::USER_KEY).expect("a key");
    let store = std::sync::Arc::clone(&world.store);
    let put = |random: u8, now: Millis, value: &[u8]| {
        let commit = Commit::new(CommitId::new(now, [random; 10])).put(key, value, None);
        run(store.commit(&commit, now)).expect("written");
    };
    let mut changed = value.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    put(1, world.now, &changed);
    world.register("eve@example.org", "correct horse");
    assert_eq!(claim(&world).expect("due").to(), &address("eve@example.org"));
    assert!(matches!(run(world.auth.claim_mail(world.now)), Err(AuthError::Sealed)));
    put(2, world.now, value);
    assert_eq!(claim(&world).expect("due").to(), &address(ADA));
    put(3, world.now, &changed);
    world.pass(DAY);
    assert!(claim(&world).is_none());
    assert_eq!((dead(&world).len(), waiting(&world)), (2, 0));
}

#[test]
fn of_64_senders_at_once_each_mail_has_one() {
    let world = World::new();
    for number in 0..8 {
        world.register(&format!("user{number}@example.org"), "correct horse");
    }
    let claimed = race(|_| claim(&world));
    let mut ids: Vec<_> = claimed.iter().flatten().map(ClaimedMail::id).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 8);
    ids.dedup();
    assert_eq!(ids.len(), 8);
}
