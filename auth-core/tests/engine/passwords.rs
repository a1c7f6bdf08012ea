//! Sign-in, reset and change of passwords: named defects of others, races, and a model of tokens that work once.

use std::sync::atomic::Ordering;

use auth_core::audit::AuditEvent;
use auth_core::auth::OpenedSession;
use auth_core::ids::UserId;
use auth_core::people::{PasswordOutcome, SignInChallenge};
use auth_core::ports::{AuthStore, Position};
use auth_core::records::{
    AssuranceLevel, EndReason, MailKind, SessionKind, SignInMethod, Stored, StoredPassword, tables,
};
use auth_core::refusal::{Answer, RefusalReason};
use auth_core::settings::{AuthSettings, PeopleSettings};
use auth_credentials::password::{Argon2Cost, HashMemory, Password, PasswordHash, PasswordHasher, Peppers};
use proptest::prelude::*;

use super::audit::all;
use super::races::race;
use super::world::{MINUTE, SECOND, TENANT, World, address, cheap, hash, run};

const ADA: &str = "ada@example.org";
const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

fn challenge(world: &World, at: &str) -> SignInChallenge {
    run(world.auth.begin_sign_in(&address(at), world.now)).expect("the store works")
}

fn compare(challenge: &SignInChallenge, password: &str) -> PasswordOutcome {
    let mut memory = HashMemory::for_cost(cheap().cost());
    let password = Password::new(password).expect("short");
    let verdict = challenge.verify(&cheap(), &password, &mut memory).expect("compared");
    if verdict.is_match() { PasswordOutcome::Match { rehashed: None } } else { PasswordOutcome::Mismatch }
}

fn finish(world: &World, challenge: &SignInChallenge, outcome: &PasswordOutcome) -> Answer<OpenedSession> {
    run(world.auth.finish_sign_in(challenge, outcome, SessionKind::Web, world.now)).expect("the store works")
}

fn sign_in(world: &World, at: &str, password: &str) -> Answer<OpenedSession> {
    let challenge = challenge(world, at);
    finish(world, &challenge, &compare(&challenge, password))
}

fn session(world: &World, password: &str) -> String {
    sign_in(world, ADA, password).granted().expect("signed in").token.expose().to_owned()
}

fn request(world: &World, at: &str) {
    run(world.auth.request_password_reset(&address(at), world.now)).expect("the store works");
}

fn reset_token(world: &World) -> String {
    request(world, ADA);
    world.mailed_token(MailKind::ResetPassword)
}

fn confirm(world: &World, token: &str, password: &str) -> Answer<UserId> {
    run(world.auth.confirm_password_reset(token, &hash(password), world.now)).expect("the store works")
}

fn stored(world: &World, user: UserId) -> StoredPassword {
    let key = StoredPassword::key(TENANT, user);
    let rows = world.dump();
    let (_, value) = rows.iter().find(|(found, _)| *found == key).expect("a password");
    StoredPassword::decode(value).expect("a password")
}

fn dearer(password: &str) -> PasswordHash {
    let hasher = PasswordHasher::new(Argon2Cost::new(16, 1, 1).expect("a cost"), Peppers::none());
    let mut memory = HashMemory::for_cost(hasher.cost());
    hasher.hash(&Password::new(password).expect("short"), [1; 16], &mut memory).expect("a hash")
}

#[test]
fn the_password_of_a_verified_address_opens_a_session_at_level_one() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let live = world.live(&session(&world, OLD));
    assert_eq!(
        (live.user(), live.level(), live.method()),
        (user, AssuranceLevel::One, SignInMethod::Password)
    );
    for wrong in ["", "Correct horse", "correct horse ", NEW] {
        assert_eq!(sign_in(&world, ADA, wrong).refusal(), Some(RefusalReason::Credentials));
    }
}

/// M9, beat list 17: an unknown user skipped the hash. What is shown, read, committed and logged has one shape.
#[test]
fn m9_an_unknown_address_and_a_wrong_password_are_refused_by_the_same_work() {
    let world = World::new();
    world.person(ADA, OLD);
    let mut shapes = Vec::new();
    for at in [ADA, "eve@example.org"] {
        let position = |world: &World| {
            run(world.store.changes(Position::START, 1_000)).expect("the store works").changes
        };
        let (reads, commits, entries) =
            (world.store.reads.load(Ordering::Relaxed), position(&world).len(), all(&world).len());
        let reads_of_log = world.store.reads.load(Ordering::Relaxed) - reads;
        let refused = sign_in(&world, at, NEW);
        let reads = world.store.reads.load(Ordering::Relaxed) - reads - reads_of_log;
        let changes = position(&world).split_off(commits);
        let written: Vec<_> = changes
            .iter()
            .flat_map(|change| &change.keys)
            .map(|(key, change)| (key.table(), *change))
            .collect();
        assert_eq!(all(&world).len(), entries + 1);
        shapes.push((format!("{refused:?}"), refused.refusal(), reads, changes.len(), written));
    }
    assert_eq!(shapes[0], shapes[1]);
}

#[test]
fn an_address_without_a_password_opens_nothing_whatever_is_said_of_the_comparison() {
    let world = World::new();
    let challenge = challenge(&world, "eve@example.org");
    assert!(matches!(compare(&challenge, OLD), PasswordOutcome::Mismatch));
    let right = PasswordOutcome::Match { rehashed: Some(hash(OLD)) };
    assert_eq!(finish(&world, &challenge, &right).refusal(), Some(RefusalReason::Credentials));
}

#[test]
fn sign_in_before_verification_is_a_setting() {
    let people = PeopleSettings { sign_in_before_verification: true, ..PeopleSettings::default() };
    for (is_on, world) in
        [(false, World::new()), (true, World::with(AuthSettings { people, ..AuthSettings::default() }))]
    {
        world.register(ADA, OLD);
        let refusal = sign_in(&world, ADA, OLD).refusal();
        assert_eq!(refusal, (!is_on).then_some(RefusalReason::Unverified));
        let token = world.mailed_token(MailKind::VerifyEmail);
        // Somebody else claims the address: the owner verifies it all the same, and from then on only they sign in.
        world.register(ADA, NEW);
        world.verify(&token).granted().expect("verified");
        assert!(sign_in(&world, ADA, OLD).granted().is_some());
        assert!(sign_in(&world, ADA, NEW).refusal().is_some());
    }
}

#[test]
fn a_disabled_user_neither_signs_in_nor_resets() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let token = reset_token(&world);
    let _ = run(world.auth.disable_user(user, world.now)).expect("works");
    assert_eq!(sign_in(&world, ADA, OLD).refusal(), Some(RefusalReason::UserDisabled));
    assert_eq!(confirm(&world, &token, NEW).refusal(), Some(RefusalReason::UserDisabled));
    request(&world, ADA);
    assert!(world.mails().is_empty());
}

/// D2: a blind rehash at sign-in undid a change of password that came between.
#[test]
fn d2_a_rehash_never_undoes_a_change_of_password() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let began = challenge(&world, ADA);
    let token = reset_token(&world);
    confirm(&world, &token, NEW).granted().expect("reset");
    let outcome = PasswordOutcome::Match { rehashed: Some(dearer(OLD)) };
    assert_eq!(finish(&world, &began, &outcome).refusal(), Some(RefusalReason::Credentials));
    assert_eq!(stored(&world, user).number, 2);
    assert!(sign_in(&world, ADA, NEW).granted().is_some());
}

#[test]
fn two_sign_ins_that_both_hash_anew_both_succeed_and_one_hash_is_written() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let (first, second) = (challenge(&world, ADA), challenge(&world, ADA));
    let outcome = PasswordOutcome::Match { rehashed: Some(dearer(OLD)) };
    assert!(finish(&world, &first, &outcome).granted().is_some());
    let other = PasswordOutcome::Match { rehashed: Some(hash(OLD)) };
    assert!(finish(&world, &second, &other).granted().is_some());
    let stored = stored(&world, user);
    assert_eq!((stored.number, stored.hash.as_str()), (1, dearer(OLD).as_str()));
}

/// Beat list of resets (M): password, mark and revocation were three commits; a crash left a token that still worked.
#[test]
fn m_a_reset_is_one_commit_that_ends_every_session_and_every_other_reset() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let first = session(&world, OLD);
    let refresh = world.issue(&first);
    let (unused, token) = (reset_token(&world), reset_token(&world));
    let before = run(world.store.changes(Position::START, 1_000)).expect("works").changes.len();
    assert_eq!(confirm(&world, &token, NEW).granted(), Some(user));
    let changes = run(world.store.changes(Position::START, 1_000)).expect("works").changes.split_off(before);
    assert_eq!(changes.len(), 1);
    let written: Vec<_> = changes[0].keys.iter().map(|(key, _)| key.table()).collect();
    for table in [
        tables::USER,
        tables::STORED_PASSWORD,
        tables::PASSWORD_RESET,
        tables::AUDIT_ENTRY,
        tables::OUTBOX_MAIL,
    ] {
        assert!(written.contains(&table), "{table:?}");
    }
    assert_eq!(world.refusal(&first), Some(RefusalReason::Epoch));
    assert_eq!(world.try_refresh(&refresh).refusal(), Some(RefusalReason::Epoch));
    assert_eq!(confirm(&world, &token, OLD).refusal(), Some(RefusalReason::Unknown));
    assert_eq!(confirm(&world, &unused, OLD).refusal(), Some(RefusalReason::Epoch));
    assert!(sign_in(&world, ADA, OLD).refusal().is_some());
    assert!(sign_in(&world, ADA, NEW).granted().is_some());
    assert_eq!(
        world.mails().iter().map(auth_core::auth::ClaimedMail::kind).collect::<Vec<_>>(),
        [MailKind::PasswordChanged]
    );
}

#[test]
fn a_reset_of_an_address_that_nobody_has_verified_is_not_mailed_and_is_logged_alike() {
    let world = World::new();
    world.register("eve@example.org", OLD);
    world.mails();
    for at in ["nobody@example.org", "eve@example.org"] {
        let before = all(&world).len();
        request(&world, at);
        assert!(world.mails().is_empty());
        assert_eq!(all(&world).len(), before + 1);
    }
}

#[test]
fn a_reset_ends_after_30_minutes_and_a_verification_is_none() {
    let mut world = World::new();
    world.register(ADA, OLD);
    let verification = world.mailed_token(MailKind::VerifyEmail);
    for other in [verification.as_str(), &verification.replace("av_", "ap_"), ""] {
        assert_eq!(confirm(&world, other, NEW).refusal(), Some(RefusalReason::Malformed));
    }
    world.verify(&verification).granted().expect("verified");
    let token = reset_token(&world);
    world.pass(MINUTE * 30 - SECOND);
    let almost = world.now;
    world.pass(SECOND);
    assert_eq!(confirm(&world, &token, NEW).refusal(), Some(RefusalReason::Unknown));
    world.now = almost;
    assert!(confirm(&world, &token, NEW).granted().is_some());
}

#[test]
fn of_64_who_redeem_one_reset_at_once_one_sets_the_password() {
    let world = World::new();
    let user = world.person(ADA, OLD);
    let token = reset_token(&world);
    let passwords: Vec<_> = (0..64).map(|number| format!("password {number}")).collect();
    let set = race(|thread| confirm(&world, &token, &passwords[thread]).granted().is_some());
    let winners: Vec<_> = (0..64).filter(|thread| set[*thread]).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(stored(&world, user).number, 2);
    assert!(sign_in(&world, ADA, &passwords[winners[0]]).granted().is_some());
}

/// Every event of passwords.
pub fn everything(world: &World) {
    assert!(sign_in(world, ADA, NEW).refusal().is_some());
    let token = session(world, OLD);
    assert!(change(world, &token, OLD, OLD).granted().is_some());
    world.mails();
    let token = reset_token(world);
    confirm(world, &token, NEW).granted().expect("reset");
}

fn change(world: &World, token: &str, current: &str, new: &str) -> Answer<OpenedSession> {
    let change = run(world.auth.begin_password_change(token, world.now)).expect("the store works");
    let change = change.granted().expect("a live session");
    let mut memory = HashMemory::for_cost(cheap().cost());
    let current = Password::new(current).expect("short");
    let outcome = match change.verify(&cheap(), &current, &mut memory).expect("compared").is_match() {
        true => PasswordOutcome::Match { rehashed: None },
        false => PasswordOutcome::Mismatch,
    };
    run(world.auth.finish_password_change(token, &change, &outcome, &hash(new), world.now)).expect("works")
}

/// ASVS 6.2.3, 7.4.3; P4: a change of password ended nothing.
#[test]
fn p4_a_change_of_password_needs_the_current_one_and_ends_every_other_session() {
    let world = World::new();
    world.person(ADA, OLD);
    let (mine, other) = (session(&world, OLD), session(&world, OLD));
    let refresh = world.issue(&mine);
    let pending = reset_token(&world);
    assert_eq!(change(&world, &mine, NEW, NEW).refusal(), Some(RefusalReason::Credentials));
    assert!(world.validate(&mine).granted().is_some());
    let opened = change(&world, &mine, OLD, NEW).granted().expect("changed");
    let next = opened.token.expose();
    assert!(world.validate(next).granted().is_some());
    assert_eq!(world.refusal(&mine), Some(RefusalReason::Unknown));
    assert_eq!(world.refusal(&other), Some(RefusalReason::Epoch));
    assert_eq!(world.try_refresh(&refresh).refusal(), Some(RefusalReason::Ended(EndReason::Replaced)));
    assert_eq!(confirm(&world, &pending, OLD).refusal(), Some(RefusalReason::Epoch));
    assert!(sign_in(&world, ADA, OLD).refusal().is_some());
    assert!(sign_in(&world, ADA, NEW).granted().is_some());
    let events: Vec<_> = all(&world).into_iter().map(|entry| entry.event).collect();
    assert!(events.contains(&AuditEvent::PasswordChanged));
}

#[derive(Debug, Clone)]
enum Act {
    Request,
    Confirm(usize),
    SignIn,
    EndAll,
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => Just(Act::Request),
        4 => any::<usize>().prop_map(Act::Confirm),
        2 => Just(Act::SignIn),
        1 => Just(Act::EndAll),
        1 => (1u64..1_200).prop_map(Act::Pass),
    ];
    proptest::collection::vec(act, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A model of resets: a token works once, within its time, and only while nothing has ended what is older than it.
    #[test]
    fn resets_are_what_the_model_says(acts in acts()) {
        let mut world = World::new();
        let user = world.person(ADA, OLD);
        let (mut tokens, mut epoch, mut password) = (Vec::new(), 0, OLD.to_owned());
        for (step, act) in acts.into_iter().enumerate() {
            match act {
                Act::Request => {
                    request(&world, ADA);
                    let mails = world.mails();
                    let mail = mails.iter().find(|mail| mail.kind() == MailKind::ResetPassword).expect("mailed");
                    tokens.push((mail.token().expect("a token").to_owned(), epoch, world.now, false));
                }
                Act::Confirm(_) if tokens.is_empty() => {}
                Act::Confirm(choice) => {
                    let place = choice % tokens.len();
                    let (token, of_epoch, made_at, is_used) = &mut tokens[place];
                    let is_young = world.now < made_at.after(MINUTE * 30);
                    let works = !*is_used && *of_epoch == epoch && is_young;
                    let next = format!("password {step}");
                    prop_assert_eq!(confirm(&world, token, &next).granted().is_some(), works);
                    if works {
                        (*is_used, epoch, password) = (true, epoch + 1, next);
                    }
                }
                Act::SignIn => prop_assert!(sign_in(&world, ADA, &password).granted().is_some()),
                Act::EndAll => {
                    let by = auth_core::auth::By::Operator(user);
                    let _ = run(world.auth.revoke_all_sessions(by, world.now)).expect("works");
                    epoch += 1;
                }
                Act::Pass(seconds) => world.pass(SECOND * u32::try_from(seconds).expect("few")),
            }
        }
        prop_assert!(sign_in(&world, ADA, &password).granted().is_some());
    }
}
