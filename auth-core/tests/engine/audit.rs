//! The log: that everything is in it, in the commit in which it happened, and that nothing can be changed unseen.

use std::collections::BTreeSet;

use auth_core::Millis;
use auth_core::audit::{AUDIT_SHARDS, AuditEvent, ChainBroken, ChainPoint, shard_of, verify_chain};
use auth_core::auth::By;
use auth_core::ids::UserId;
use auth_core::records::{AuditEntry, AuditHead, EndReason, Resource, SessionKind, Stored};

use super::world::{HOUR, PASSKEY, SECOND, TENANT, World, run};

/// All entries of a chain, by pages of this size; the chain is whole.
fn export(world: &World, shard: u16, page: usize) -> (Vec<Vec<u8>>, ChainPoint) {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let read = run(world.auth.audit_page(shard, after, page, world.now)).expect("the store works");
        assert!(read.entries.len() <= page);
        entries.extend(read.entries);
        match read.next {
            Some(next) => after = next,
            None => return (entries, read.head),
        }
    }
}

pub fn all(world: &World) -> Vec<AuditEntry> {
    let mut all = Vec::new();
    for shard in 0..AUDIT_SHARDS {
        let (entries, head) = export(world, shard, 3);
        assert_eq!(verify_chain(ChainPoint::start(TENANT, shard), &entries), Ok(head));
        all.extend(entries.iter().map(|bytes| AuditEntry::decode(bytes).expect("an entry")));
    }
    all
}

/// Does everything that can be done.
fn eventful(world: &mut World) -> UserId {
    world.person("ada@example.org", "correct horse");
    world.register("ada@example.org", "battery staple");
    super::passwords::everything(world);
    let (user, first) = world.web();
    let again = run(world.auth.reauthenticate(&first, &PASSKEY, world.now)).expect("works");
    let again = again.granted().expect("live");
    let refresh = world.issue(again.token.expose());
    let second = world.refresh(&refresh);
    world.refresh(&second);
    assert!(world.try_refresh(&refresh).refusal().is_some());
    let session = world.sign_in(user, SessionKind::Cli);
    let refresh = world.issue(session.token.expose());
    let _ = run(world.auth.revoke_refresh(&refresh, world.now)).expect("works");
    world.sign_in(user, SessionKind::Web);
    world.pass(HOUR);
    let last = world.sign_in(user, SessionKind::Web);
    let _ = run(world.auth.sign_out(last.token.expose(), world.now)).expect("works");
    let _ = run(world.auth.revoke_all_sessions(By::Operator(user), world.now)).expect("works");
    let _ = run(world.auth.disable_user(user, world.now)).expect("works");
    user
}

/// M29, beat list 16: of 52 declared events no handler wrote one.
#[test]
fn every_declared_event_has_an_emitter() {
    let mut world = World::new();
    eventful(&mut world);
    let seen: BTreeSet<AuditEvent> = all(&world).into_iter().map(|entry| entry.event).collect();
    let declared: BTreeSet<AuditEvent> = AuditEvent::ALL.iter().copied().collect();
    assert_eq!(seen, declared);
    let names: BTreeSet<&str> = AuditEvent::ALL.iter().map(|event| event.name()).collect();
    assert_eq!(names.len(), AuditEvent::ALL.len());
}

#[test]
fn what_is_refused_or_read_is_not_in_the_log_and_what_is_done_is_in_it_once() {
    let world = World::new();
    let (user, token) = world.web();
    let refresh = world.issue(&token);
    world.refresh(&refresh);
    world.live(&token);
    assert!(world.refusal("nonsense").is_some());
    let session = world.live(&token).id();
    for _ in 0..2 {
        let _ = run(world.auth.sign_out(&token, world.now)).expect("works");
    }
    let log: Vec<_> =
        all(&world).into_iter().map(|entry| (entry.event, entry.resource, entry.reason)).collect();
    assert_eq!(
        log,
        [
            (AuditEvent::UserRegistered, Resource::User(user), None),
            (AuditEvent::UserLogin, Resource::Session(session), None),
            (AuditEvent::UserLogout, Resource::Session(session), Some(EndReason::SignedOut)),
        ]
    );
}

#[test]
fn reuse_of_a_refresh_token_is_in_the_log_with_the_end_of_the_session() {
    let world = World::new();
    let (_, token) = world.web();
    let first = world.issue(&token);
    let second = world.refresh(&first);
    world.refresh(&second);
    for _ in 0..3 {
        assert!(world.try_refresh(&first).refusal().is_some());
    }
    let log = all(&world);
    let events: Vec<_> = log.iter().skip(2).map(|entry| (entry.event, entry.reason)).collect();
    let reason = Some(EndReason::RefreshReused);
    let expected = [(AuditEvent::RefreshTokenReused, reason), (AuditEvent::UserSessionRevoked, reason)];
    assert_eq!(events, expected, "once, however often it comes");
}

#[test]
fn no_entry_can_be_changed_left_out_moved_or_added_unseen() {
    let mut world = World::new();
    let user = eventful(&mut world);
    let shard = shard_of(user);
    let (entries, head) = export(&world, shard, 1_000);
    let start = ChainPoint::start(TENANT, shard);
    assert!(entries.len() > 8);
    // Every byte of every entry, except in the last, counts by the chain alone; in the last by the head.
    for place in 0..entries.len() {
        for byte in 0..entries[place].len() {
            let mut changed = entries.clone();
            changed[place][byte] ^= 1;
            assert_ne!(verify_chain(start, &changed), Ok(head), "byte {byte} of entry {place}");
        }
        let mut shorter = entries.clone();
        shorter.remove(place);
        assert_ne!(verify_chain(start, &shorter), Ok(head));
        let mut doubled = entries.clone();
        doubled.insert(place, entries[place].clone());
        assert!(matches!(verify_chain(start, &doubled), Err(ChainBroken::Misplaced { .. })));
    }
    let mut swapped = entries.clone();
    swapped.swap(2, 3);
    assert!(verify_chain(start, &swapped).is_err());
    // One that was made anew, hash and all, does not fit to the one behind it.
    let mut forged = AuditEntry::decode(&entries[1]).expect("an entry");
    forged.at = Millis(1);
    let mut changed = entries.clone();
    changed[1] = forged.encode();
    assert_eq!(verify_chain(start, &changed), Err(ChainBroken::Unlinked { sequence: 3 }));
    // Neither is it the chain of another shard or tenant.
    let other = ChainPoint::start(TENANT, (shard + 1) % AUDIT_SHARDS);
    assert!(verify_chain(other, &entries).is_err());
    // From a point that somebody kept on, the rest follows.
    let kept = verify_chain(start, &entries[..4]).expect("whole");
    assert_eq!(verify_chain(kept, &entries[4..]), Ok(head));
    assert_eq!(head.head.count, u64::try_from(entries.len()).expect("few"));
    assert_ne!(head.head, AuditHead::default());
}

#[test]
fn users_of_one_chain_share_it_without_gaps() {
    let mut world = World::new();
    let users: Vec<_> = (0..64).map(|_| world.user()).collect();
    for user in &users {
        world.sign_in(*user, SessionKind::Web);
        world.pass(SECOND);
    }
    let log = all(&world);
    assert_eq!(log.len(), 128);
    let shards: BTreeSet<u16> = log.iter().map(|entry| entry.shard).collect();
    assert!(shards.len() > 8, "{shards:?}");
    assert!(log.iter().all(|entry| entry.shard == shard_of(entry.user) && entry.tenant == TENANT));
}
