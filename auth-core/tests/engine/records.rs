//! The bytes of records, as `docs/formats.md` says they are.

use auth_core::audit::AuditEvent;
use auth_core::email_address::{AddressHash, AddressKey, EmailAddress};
use auth_core::ids::{AddressId, FamilyId, MailId, SessionId, UserId};
use auth_core::records::{
    Actor, AddressClaim, AssuranceLevel, AuditEntry, AuditHead, DeadMail, DeathReason, Email, EmailList,
    EmailVerification, EndReason, FamilyState, MailKind, OutboxMail, PasswordReset, Previous, RecordError,
    RefreshFamily, Resource, Session, SessionKind, SessionState, SignInMethod, Stored, StoredPassword, User,
    UserEmails, UserKey, UserSessions, UserState,
};
use auth_core::tokens::{SEALED_SUCCESSOR_BYTES, TokenHash};
use auth_core::{Key, Millis, Tenant};
use auth_credentials::password::PasswordHash;
use proptest::prelude::*;

const USER: UserId = UserId::from_bytes([0x11; 16]);
const SESSION: SessionId = SessionId::from_bytes([0x22; 16]);
const FAMILY: FamilyId = FamilyId::from_bytes([0x33; 16]);
const ID_1: &str = "11111111111111111111111111111111";
const ID_2: &str = "22222222222222222222222222222222";
const ID_3: &str = "33333333333333333333333333333333";

fn hash_bytes(key: u8, byte: u8) -> [u8; 36] {
    let mut bytes = [byte; 36];
    bytes[..4].copy_from_slice(&[0, 0, 0, key]);
    bytes
}

fn hash_hex(key: u8, byte: u8) -> String {
    format!("000000{key:02x}{}", format!("{byte:02x}").repeat(32))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value has these bytes and is read back from them; what is cut, extended or of another version is refused.
fn check<T: Stored + PartialEq + std::fmt::Debug>(value: &T, expected: &[&str]) {
    let bytes = value.encode();
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value));
    for end in 0..bytes.len() {
        assert_eq!(T::decode(&bytes[..end]), Err(RecordError::Short), "cut to {end}");
    }
    assert_eq!(T::decode(&[&*bytes, &[0]].concat()), Err(RecordError::Long { bytes: 1 }));
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(T::decode(&newer), Err(RecordError::Version { found: 2, known: 1 }));
}

fn session() -> Session {
    Session {
        user: USER,
        state: SessionState::Live,
        kind: SessionKind::Cli,
        method: SignInMethod::PasswordAndTotp,
        level: AssuranceLevel::Two,
        epoch: 7,
        created_at: Millis(1),
        authenticated_at: Millis(2),
        last_seen_at: Millis(3),
        ends_at: Millis(4),
        token: TokenHash::from_bytes(hash_bytes(5, 0xaa)),
        family: None,
    }
}

fn family() -> RefreshFamily {
    RefreshFamily {
        session: SESSION,
        user: USER,
        state: FamilyState::Live,
        epoch: 7,
        created_at: Millis(1),
        ends_at: Millis(4),
        generation: 1,
        current: TokenHash::from_bytes(hash_bytes(5, 0xaa)),
        previous: None,
    }
}

fn entry() -> AuditEntry {
    AuditEntry {
        previous: [0; 32],
        tenant: Tenant(7),
        shard: 1,
        sequence: 1,
        at: Millis(1_763_800_000_000),
        event: AuditEvent::UserLogin,
        actor: Actor::User(USER),
        user: USER,
        resource: Resource::Session(SESSION),
        reason: None,
    }
}

#[test]
fn users_have_the_documented_bytes() {
    let user = User { state: UserState::Disabled, epoch: 2, created_at: Millis(1_763_800_000_000) };
    check(&user, &["01", "01", "0000000000000002", "0000019aaaac2600"]);
}

#[test]
fn lists_of_sessions_have_the_documented_bytes() {
    check(&UserSessions::default(), &["01", "00"]);
    let two = UserSessions { sessions: vec![SESSION, SessionId::from_bytes([0x44; 16])] };
    check(&two, &["01", "02", ID_2, "44444444444444444444444444444444"]);
    let twice = UserSessions { sessions: vec![SESSION, SESSION] }.encode();
    assert_eq!(UserSessions::decode(&twice), Err(RecordError::Field { field: "sessions" }));
    assert_eq!(UserSessions::decode(&[1, 33]), Err(RecordError::Field { field: "sessions" }));
}

#[test]
fn sessions_have_the_documented_bytes() {
    let times = "00000000000000070000000000000001000000000000000200000000000000030000000000000004";
    let token = hash_hex(5, 0xaa);
    check(&session(), &["01", ID_1, "00", "02", "02", "02", times, &token, "00"]);
    let ended = Session {
        state: SessionState::Ended { at: Millis(9), reason: EndReason::Evicted },
        family: Some(FAMILY),
        ..session()
    };
    check(&ended, &["01", ID_1, "03", "0000000000000009", "02", "02", "02", times, &token, "01", ID_3]);
}

#[test]
fn families_have_the_documented_bytes() {
    let (current, previous) = (hash_hex(5, 0xaa), hash_hex(4, 0xbb));
    let times = "000000000000000700000000000000010000000000000004";
    check(&family(), &["01", ID_2, ID_1, "00", times, "0000000000000001", &current, "00"]);
    let dead = RefreshFamily {
        state: FamilyState::Dead { at: Millis(9), reason: EndReason::RefreshReused },
        generation: 2,
        previous: Some(Previous {
            token: TokenHash::from_bytes(hash_bytes(4, 0xbb)),
            rotated_at: Millis(8),
            successor: [0xcc; SEALED_SUCCESSOR_BYTES],
        }),
        ..family()
    };
    let sealed = "cc".repeat(97);
    let state = ["06", "0000000000000009"].concat();
    let exchanged = ["01", &previous, "0000000000000008", &sealed].concat();
    check(&dead, &["01", ID_2, ID_1, &state, times, "0000000000000002", &current, &exchanged]);
    // A first token with one before it, a second one without.
    for wrong in [RefreshFamily { generation: 1, ..dead }, RefreshFamily { generation: 2, ..family() }] {
        assert_eq!(RefreshFamily::decode(&wrong.encode()), Err(RecordError::Field { field: "generation" }));
    }
}

#[test]
fn entries_of_the_log_have_the_documented_bytes_and_hash() {
    let zeros = "00".repeat(32);
    let head = ["01", &zeros, "0000000000000007", "0001", "0000000000000001", "0000019aaaac2600"].concat();
    check(&entry(), &[&head, "0003", "02", ID_1, ID_1, "02", ID_2, "00"]);
    assert_eq!(
        hex(&entry().hash()),
        sha256_hex(&[b"strongroom audit entry v1\0".to_vec(), entry().encode()].concat())
    );
    let ended = AuditEntry {
        actor: Actor::System,
        event: AuditEvent::RefreshTokenReused,
        resource: Resource::RefreshToken(FAMILY),
        reason: Some(EndReason::RefreshReused),
        ..entry()
    };
    check(&ended, &[&head, "0009", "00", ID_1, "03", ID_3, "06"]);
    let by_operator = AuditEntry { actor: Actor::Operator, resource: Resource::User(USER), ..entry() };
    check(&by_operator, &[&head, "0003", "01", ID_1, "01", ID_1, "00"]);
    let of_address = AuditEntry {
        event: AuditEvent::LoginFailed,
        actor: Actor::System,
        resource: Resource::Address(AddressId::from_bytes([0x33; 16])),
        ..entry()
    };
    check(&of_address, &[&head, "000c", "00", ID_1, "04", ID_3, "00"]);
    check(&AuditHead { count: 3, hash: [0xdd; 32] }, &["01", "0000000000000003", &"dd".repeat(32)]);
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

const ADDRESS: AddressHash = AddressHash::from_bytes([0x55; 32]);
const ADDRESS_HASH: &str = "945171152adf5ae0ed35a5a0e72010c94f3b98ed5a74b67bd42c8cdc9c36915d";
const MAIL: MailId = MailId::from_bytes([0x66; 16]);
const PHC: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn records_of_people_have_the_documented_bytes() {
    let address = "55".repeat(32);
    check(&AddressClaim { user: USER, is_verified: true }, &["01", ID_1, "01"]);
    check(&AddressClaim { user: USER, is_verified: false }, &["01", ID_1, "00"]);
    check(&UserKey { sealed: vec![0xab; 3] }, &["01", "0003", "ababab"]);
    check(&UserEmails { sealed: vec![0xcd; 2] }, &["01", "0002", "cdcd"]);
    let hash = PasswordHash::parse(PHC).expect("a hash");
    let phc = hex(PHC.as_bytes());
    let password = StoredPassword { number: 3, set_at: Millis(9), hash };
    check(&password, &["01", "0000000000000003", "0000000000000009", "0061", &phc]);
    let verification = EmailVerification { user: USER, address: ADDRESS, ends_at: Millis(9) };
    check(&verification, &["01", ID_1, &address, "0000000000000009"]);
    let reset = PasswordReset { user: USER, epoch: 7, ends_at: Millis(9) };
    check(&reset, &["01", ID_1, "0000000000000007", "0000000000000009"]);
}

#[test]
fn mails_have_the_documented_bytes() {
    let mail = OutboxMail {
        user: USER,
        kind: MailKind::ResetPassword,
        made_at: Millis(1),
        ends_at: Millis(2),
        attempts: 4,
        sealed: vec![0xee; 2],
    };
    let times = "00000000000000010000000000000002";
    check(&mail, &["01", ID_1, "03", times, "04", "0002", "eeee"]);
    let (kind, reason) = (MailKind::PasswordChanged, DeathReason::Expired);
    let dead = DeadMail { user: USER, kind, made_at: Millis(1), attempts: 4, died_at: Millis(2), reason };
    check(&dead, &["01", ID_1, "04", "0000000000000001", "04", "0000000000000002", "03"]);
}

#[test]
fn lists_of_addresses_have_the_documented_bytes() {
    let email = |text, verified_at| Email {
        address: EmailAddress::parse(text).expect("an address"),
        added_at: Millis(1),
        verified_at,
    };
    let list = EmailList { emails: vec![email("a@b.co", Some(Millis(2))), email("c@d.eu", None)] };
    let first = "0006 6140622e636f 0000000000000001 01 0000000000000002";
    let second = "0006 6340642e6575 0000000000000001 00";
    let bytes = list.encode();
    assert_eq!(hex(&bytes), format!("0102{first}{second}").replace(' ', ""));
    assert_eq!(EmailList::decode(&bytes).as_ref(), Ok(&list));
    for end in 0..bytes.len() {
        assert!(EmailList::decode(&bytes[..end]).is_err());
    }
    // Twice the same, and one that is not in its canonical form.
    let twice = EmailList { emails: vec![email("a@b.co", None), email("a@b.co", None)] };
    assert!(EmailList::decode(&twice.encode()).is_err());
    let mut upper = EmailList { emails: vec![email("a@b.co", None)] }.encode();
    upper[6] = b'B';
    assert!(EmailList::decode(&upper).is_err());
}

/// The vectors were computed by another program, from the layout.
#[test]
fn addresses_have_the_documented_hash() {
    let key = AddressKey::new(&[0xad; 32]).expect("a long secret");
    let hash = key.hash(&EmailAddress::parse("Ada@EXAMPLE.org").expect("an address"));
    assert_eq!(hex(&hash.to_bytes()), ADDRESS_HASH);
    assert!(AddressKey::new(&[0; 31]).is_err());
}

#[test]
fn keys_have_the_tenant_first_and_no_two_kinds_share_one() {
    let tenant = Tenant(7);
    let keys = [
        (User::key(tenant, USER), format!("0001 0000000000000007 0010 {ID_1}")),
        (UserSessions::key(tenant, USER), format!("0002 0000000000000007 0010 {ID_1}")),
        (Session::key(tenant, SESSION), format!("0003 0000000000000007 0010 {ID_2}")),
        (RefreshFamily::key(tenant, FAMILY), format!("0004 0000000000000007 0010 {ID_3}")),
        (
            AuditEntry::key(tenant, 1, 2),
            "0005 0000000000000007 0008 0000000000000001 0008 0000000000000002".to_owned(),
        ),
        (AuditHead::key(tenant, 1), "0006 0000000000000007 0008 0000000000000001".to_owned()),
        (UserKey::key(tenant, USER), format!("0007 0000000000000007 0010 {ID_1}")),
        (UserEmails::key(tenant, USER), format!("0008 0000000000000007 0010 {ID_1}")),
        (AddressClaim::key(tenant, ADDRESS), format!("0009 0000000000000007 0020 {}", "55".repeat(32))),
        (StoredPassword::key(tenant, USER), format!("000a 0000000000000007 0010 {ID_1}")),
        (
            EmailVerification::key(tenant, &TokenHash::from_bytes(hash_bytes(5, 0xaa))),
            format!("000b 0000000000000007 0024 {}", hash_hex(5, 0xaa)),
        ),
        (
            PasswordReset::key(tenant, &TokenHash::from_bytes(hash_bytes(5, 0xaa))),
            format!("000c 0000000000000007 0024 {}", hash_hex(5, 0xaa)),
        ),
        (
            OutboxMail::key(tenant, Millis(9), MAIL),
            format!("000d 0000000000000007 0008 0000000000000009 0010 {}", "66".repeat(16)),
        ),
        (DeadMail::key(tenant, MAIL), format!("000e 0000000000000007 0010 {}", "66".repeat(16))),
    ];
    for (key, expected) in &keys {
        assert_eq!(hex(key.as_bytes()), expected.replace(' ', ""));
        assert_eq!(Key::decode(key.as_bytes()).as_ref(), Some(key));
    }
}

/// A live session takes less than 400 bytes of keys and values, its share of the list and its refresh tokens apart.
#[test]
fn a_live_session_takes_less_than_400_bytes() {
    let with_family = Session { family: Some(FAMILY), ..session() };
    let row = Session::key(Tenant(7), SESSION).as_bytes().len() + with_family.encode().len();
    assert!(row + 16 <= 400, "{row}");
}

fn never_panics<T: Stored + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = T::decode(bytes) {
        // No two strings of bytes are one value.
        prop_assert_eq!(value.encode(), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_or_are_the_one_form_of_a_value(
        kind in 0usize..7, place in 0usize..300, byte: u8, noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut changed = [
            session().encode(),
            family().encode(),
            entry().encode(),
            UserSessions { sessions: vec![SESSION] }.encode(),
            EmailVerification { user: USER, address: ADDRESS, ends_at: Millis(9) }.encode(),
            UserEmails { sealed: vec![7; 40] }.encode(),
            noise,
        ][kind].clone();
        if let Some(at) = changed.get_mut(place) {
            *at = byte;
        }
        never_panics::<User>(&changed)?;
        never_panics::<UserSessions>(&changed)?;
        never_panics::<Session>(&changed)?;
        never_panics::<RefreshFamily>(&changed)?;
        never_panics::<AuditEntry>(&changed)?;
        never_panics::<AuditHead>(&changed)?;
        never_panics::<AddressClaim>(&changed)?;
        never_panics::<UserKey>(&changed)?;
        never_panics::<UserEmails>(&changed)?;
        never_panics::<StoredPassword>(&changed)?;
        never_panics::<EmailVerification>(&changed)?;
        never_panics::<PasswordReset>(&changed)?;
        never_panics::<OutboxMail>(&changed)?;
        never_panics::<DeadMail>(&changed)?;
        if let Ok(list) = EmailList::decode(&changed) {
            prop_assert_eq!(list.encode(), changed);
        }
    }
}
