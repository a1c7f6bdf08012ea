//! Registration, verification, and the mails that wait: named defects of others, and what nobody may learn.

use std::collections::BTreeSet;

use auth_core::audit::AuditEvent;
use auth_core::email_address::EmailAddress;
use auth_core::ports::{AuthStore, Commit, CommitId, Expect};
use auth_core::records::{MailKind, User, tables};
use auth_core::refusal::RefusalReason;

use super::audit::all;
use super::races::race;
use super::world::{Bug, DAY, SECOND, START, TENANT, TestStore, World, address, run};

const ADA: &str = "ada@example.org";

#[test]
fn an_address_has_one_canonical_form_and_keeps_what_was_typed_before_the_at() {
    for (typed, canonical) in [
        ("Ada.Lovelace+x@EXAMPLE.Org", "Ada.Lovelace+x@example.org"),
        ("a@b.co", "a@b.co"),
        ("!#$%&'*+-/=?^_`{|}~@xn--bcher-kva.example", "!#$%&'*+-/=?^_`{|}~@xn--bcher-kva.example"),
    ] {
        assert_eq!(address(typed).as_str(), canonical);
    }
    assert_ne!(address("Ada@example.org"), address("ada@example.org"));
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long_label = format!("a@{}.org", "b".repeat(64));
    let long = format!("a@{}org", "bbbbbbbbb.".repeat(26));
    for refused in [
        "",
        "@",
        "a@",
        "@b.co",
        "a@b",
        "a b@c.de",
        "a@b c.de",
        "a@b.co\r\nBcc: x@y.zz",
        "a\r\n@b.co",
        ".a@b.co",
        "a.@b.co",
        "a..b@c.de",
        "\"a b\"@c.de",
        "a@[127.0.0.1]",
        "a@127.0.0.1",
        "a@-b.co",
        "a@b-.co",
        "a@b..co",
        "a@.b.co",
        "a@b.co.",
        "a@b@c.de",
        "a\0@b.co",
        "ä@b.co",
        "a@bücher.example",
        &long_local,
        &long_label,
        &long,
    ] {
        assert!(EmailAddress::parse(refused).is_err(), "{refused:?}");
    }
}

#[test]
fn who_registers_gets_a_mail_whose_token_verifies_the_address_once() {
    let world = World::new();
    world.register(ADA, "correct horse");
    let mails = world.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!((mails[0].kind(), mails[0].to().as_str()), (MailKind::VerifyEmail, ADA));
    let token = mails[0].token().expect("a token");
    let user = world.verify(token).granted().expect("verified");
    assert_eq!(world.verify(token).refusal(), Some(RefusalReason::Unknown));
    let emails = run(world.auth.list_emails(user, world.now)).expect("the store works");
    let emails: Vec<_> = emails.iter().map(|email| (email.address.as_str(), email.verified_at)).collect();
    assert_eq!(emails, [(ADA, Some(world.now))]);
    let events: Vec<_> = all(&world).iter().map(|entry| (entry.event, entry.user)).collect();
    assert_eq!(events, [(AuditEvent::UserRegistered, user), (AuditEvent::UserEmailVerified, user)]);
}

/// M15: six commits, and orphans after a crash. M22's index, the credential, the token and the mail are in the one that makes the user.
#[test]
fn m15_a_registration_is_one_commit() {
    let world = World::new();
    world.register(ADA, "correct horse");
    let page = run(world.store.changes(auth_core::ports::Position::START, 10)).expect("the store works");
    assert_eq!(page.changes.len(), 1);
    let written: BTreeSet<_> = page.changes[0].keys.iter().map(|(key, _)| key.table()).collect();
    for table in [
        tables::USER,
        tables::USER_KEY,
        tables::USER_EMAILS,
        tables::ADDRESS_CLAIM,
        tables::STORED_PASSWORD,
        tables::EMAIL_VERIFICATION,
        tables::OUTBOX_MAIL,
        tables::AUDIT_ENTRY,
    ] {
        assert!(written.contains(&table), "{table:?}");
    }
}

#[test]
fn replies_that_are_lost_neither_lose_nor_double_a_registration() {
    let store = TestStore::new(Bug::None).losing_replies(2);
    let world = World::over(store, auth_core::settings::AuthSettings::default());
    let user = world.person(ADA, "correct horse");
    assert!(world.mails().is_empty());
    let users = world.dump().into_iter().filter(|(key, _)| key.table() == tables::USER);
    assert_eq!(users.map(|(key, _)| key).collect::<Vec<_>>(), [User::key(TENANT, user)]);
}

/// M9: "already in use". The answer is the same, the owner is told, and nothing of theirs changes.
#[test]
fn m9_a_known_address_is_told_to_its_owner_alone() {
    let world = World::new();
    let user = world.person(ADA, "correct horse");
    let before: Vec<_> =
        world.dump().into_iter().filter(|(key, _)| key.table() != tables::AUDIT_ENTRY).collect();
    world.register("ada@EXAMPLE.org", "battery staple");
    let mails = world.mails();
    let told: Vec<_> = mails.iter().map(|mail| (mail.kind(), mail.to().as_str(), mail.token())).collect();
    assert_eq!(told, [(MailKind::AlreadyRegistered, ADA, None)]);
    let after = world.dump().into_iter().filter(|(key, _)| key.table() != tables::AUDIT_ENTRY);
    let heads = |rows: Vec<(auth_core::Key, Vec<u8>)>| {
        rows.into_iter().filter(|(key, _)| key.table() != tables::AUDIT_HEAD).collect::<Vec<_>>()
    };
    assert_eq!(heads(after.collect()), heads(before));
    let last = all(&world).into_iter().map(|entry| (entry.event, entry.user)).collect::<Vec<_>>();
    assert!(last.contains(&(AuditEvent::RegistrationRepeated, user)));
}

/// M22: an address that somebody had added and never verified was blocked for its owner.
#[test]
fn m22_an_address_that_nobody_verified_blocks_nobody() {
    let world = World::new();
    world.register(ADA, "of the squatter");
    let of_squatter = world.mailed_token(MailKind::VerifyEmail);
    world.register(ADA, "of the owner");
    let of_owner = world.mailed_token(MailKind::VerifyEmail);
    let owner = world.verify(&of_owner).granted().expect("verified");
    // Whoever did not verify first never does, and keeps an address that is worth nothing.
    assert_eq!(world.verify(&of_squatter).refusal(), Some(RefusalReason::Unverified));
    let emails = run(world.auth.list_emails(owner, world.now)).expect("the store works");
    assert!(emails.iter().all(|email| email.verified_at.is_some()));
    // Also in the opposite order.
    let world = World::new();
    world.register(ADA, "first");
    let first = world.mailed_token(MailKind::VerifyEmail);
    world.register(ADA, "second");
    let second = world.mailed_token(MailKind::VerifyEmail);
    world.verify(&first).granted().expect("verified");
    assert_eq!(world.verify(&second).refusal(), Some(RefusalReason::Unverified));
}

#[test]
fn a_verification_ends_after_24_hours_and_nothing_else_is_one() {
    let mut world = World::new();
    world.register(ADA, "correct horse");
    let token = world.mailed_token(MailKind::VerifyEmail);
    let (_, session) = world.web();
    for other in [session.as_str(), "", "av_", &token[..50], &token.replace("av_", "ap_")] {
        assert_eq!(world.verify(other).refusal(), Some(RefusalReason::Malformed));
    }
    world.pass(DAY - SECOND);
    let almost = world.now;
    world.pass(SECOND);
    assert_eq!(world.verify(&token).refusal(), Some(RefusalReason::Unknown));
    world.now = almost;
    assert!(world.verify(&token).granted().is_some());
}

#[test]
fn of_64_who_register_one_address_and_verify_it_at_once_one_has_it() {
    let world = World::new();
    race(|_| world.register(ADA, "correct horse"));
    let tokens: Vec<_> = world.mails().iter().map(|mail| mail.token().expect("a token").to_owned()).collect();
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 64);
    let verified = race(|thread| world.verify(&tokens[thread]).granted());
    let winners: Vec<_> = verified.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
}

#[test]
fn of_64_uses_of_one_token_at_once_one_verifies() {
    let world = World::new();
    world.register(ADA, "correct horse");
    let token = world.mailed_token(MailKind::VerifyEmail);
    let verified = race(|_| world.verify(&token).granted().is_some());
    assert_eq!(verified.into_iter().filter(|verified| *verified).count(), 1);
}

/// Beat list 11: what is stored has neither tokens nor addresses in clear, also in mails that wait.
#[test]
fn the_store_holds_no_address_and_no_token_in_clear() {
    let world = World::new();
    world.register(ADA, "correct horse");
    let before = world.dump();
    let token = world.mailed_token(MailKind::VerifyEmail);
    world.verify(&token).granted().expect("verified");
    let mut secrets = super::world::secret_parts(&format!("{token}."));
    secrets.extend([b"ada@".to_vec(), b"example.org".to_vec(), b"correct horse".to_vec()]);
    for (key, value) in before.iter().chain(&world.dump()) {
        for secret in &secrets {
            let found = [key.as_bytes(), value]
                .iter()
                .any(|bytes| bytes.windows(secret.len()).any(|part| part == secret));
            assert!(!found, "{key:?}");
        }
    }
}

/// A row that was moved to another user does not open: the envelope names its place.
#[test]
fn addresses_that_were_moved_to_another_user_do_not_open() {
    let world = World::new();
    let ada = world.person(ADA, "correct horse");
    let eve = world.person("eve@example.org", "battery staple");
    let rows = world.dump();
    let of = |table, user: auth_core::ids::UserId| {
        let is_it = |(key, _): &&(auth_core::Key, Vec<u8>)| {
            key.table() == table && key.parts().next() == Some(&user.to_bytes()[..])
        };
        rows.iter().find(is_it).expect("a row").clone()
    };
    for table in [tables::USER_EMAILS, tables::USER_KEY] {
        let ((_, of_ada), (key, old)) = (of(table, ada), of(table, eve));
        for (random, value) in [(1, &of_ada), (2, &old)] {
            let id = CommitId::new(START, [random; 10]);
            let id = if table == tables::USER_KEY { CommitId::new(START, [random + 2; 10]) } else { id };
            let commit = Commit::new(id).expect(&key, Expect::Present).put(&key, value, None);
            run(world.store.commit(&commit, START)).expect("written");
            let listed = run(world.auth.list_emails(eve, world.now));
            assert_eq!(listed.is_ok(), random == 2, "{table:?}");
        }
    }
}
