//! Envelopes: they open for their row under their key, and after any change for nobody.

use auth_credentials::envelope::{
    CONTENT_BYTES_MAX, DataKey, ENVELOPE_OVERHEAD_BYTES, KeyEncryptionKey, KeyEncryptionKeyError,
    KeyEncryptionKeys, OpenError, Row, SealError, key_encryption_key_id,
};
use auth_credentials::opaque_token::{OpaqueToken, Refresh, Session};
use proptest::prelude::*;

const ROW: Row<'_> = Row { tenant: b"tenant-1", kind: "totp_secret", id: b"user-7" };
const CONTENT: &[u8] = b"a secret at rest";

/// Made by Python's blake3 and PyNaCl.
const UNDER_KEY_ENCRYPTION_KEY: &str = "0101000000036465666768696a6b6c6d6e6f707172737475767778797a7bff48723d2bde748459773e09acda2316b66af87781880cc9640bc614453d036c";
const UNDER_DATA_KEY: &str = "0102000000006465666768696a6b6c6d6e6f707172737475767778797a7b608d415ce9a64caec4c7a67d9e982d717c0d50b112bcd028122b049531ad8c18";
const UNDER_REFRESH_TOKEN: &str = "0103000000006465666768696a6b6c6d6e6f707172737475767778797a7ba6144ec888c96fa68fe153ecafa73c284035a2208473e7cd9162c4f38acda689";

/// Whether an envelope opens and holds the content.
type Opens<'a> = &'a dyn Fn(&[u8]) -> bool;

fn nonce() -> [u8; 24] {
    core::array::from_fn(|i| 100 + i as u8)
}

fn key(id: u32, byte: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::new(id, &[byte; 32]).expect("32 bytes")
}

fn keys() -> KeyEncryptionKeys {
    KeyEncryptionKeys::new(key(3, 8), vec![]).expect("one key")
}

fn refresh_token() -> OpaqueToken<Refresh> {
    OpaqueToken::from_random(core::array::from_fn(|i| i as u8))
}

#[test]
fn envelopes_are_those_of_another_implementation() {
    assert_eq!(hex::encode(keys().seal(&ROW, CONTENT, nonce()).expect("short")), UNDER_KEY_ENCRYPTION_KEY);
    let data_key = DataKey::from_random([6; 32]);
    assert_eq!(hex::encode(data_key.seal(&ROW, CONTENT, nonce()).expect("short")), UNDER_DATA_KEY);
    let of_token = DataKey::of_token(&refresh_token());
    assert_eq!(hex::encode(of_token.seal(&ROW, CONTENT, nonce()).expect("short")), UNDER_REFRESH_TOKEN);
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let envelopes: [(&str, Opens<'_>); 3] = [
        (UNDER_KEY_ENCRYPTION_KEY, &|bytes| keys().open(&ROW, bytes).is_ok_and(|c| **c == *CONTENT)),
        (UNDER_DATA_KEY, &|bytes| {
            DataKey::from_random([6; 32]).open(&ROW, bytes).is_ok_and(|c| **c == *CONTENT)
        }),
        (UNDER_REFRESH_TOKEN, &|bytes| {
            DataKey::of_token(&refresh_token()).open(&ROW, bytes).is_ok_and(|c| **c == *CONTENT)
        }),
    ];
    for (golden, opens) in envelopes {
        let envelope = hex::decode(golden).expect("hex");
        assert!(opens(&envelope));
        for at in 0..envelope.len() {
            for bit in 0..8 {
                let mut changed = envelope.clone();
                changed[at] ^= 1 << bit;
                assert!(!opens(&changed), "byte {at} bit {bit}");
            }
            assert!(!opens(&envelope[..at]), "cut to {at}");
        }
        assert!(!opens(&[envelope.as_slice(), &[0]].concat()));
    }
}

#[test]
fn an_envelope_opens_in_its_own_row_only() {
    let envelope = keys().seal(&ROW, CONTENT, nonce()).expect("short");
    for row in [
        Row { tenant: b"tenant-2", ..ROW },
        Row { kind: "signing_key", ..ROW },
        Row { id: b"user-8", ..ROW },
        // The same bytes one after the other, cut elsewhere.
        Row { tenant: b"tenant-1t", kind: "otp_secret", ..ROW },
        Row { kind: "totp_secretuser", id: b"-7", ..ROW },
        Row { tenant: b"", kind: "tenant-1totp_secret", ..ROW },
    ] {
        assert_eq!(keys().open(&row, &envelope).err(), Some(OpenError::Refused), "{row:?}");
    }
}

#[test]
fn keys_rotate_by_sealing_again_and_the_earlier_one_can_then_go() {
    let old = keys().seal(&ROW, CONTENT, nonce()).expect("short");
    assert_eq!(key_encryption_key_id(&old), Ok(3));
    let both = KeyEncryptionKeys::new(key(4, 7), vec![key(3, 8)]).expect("two keys");
    assert_eq!(both.open(&ROW, &old).expect("known").as_slice(), CONTENT);
    let new = both.rewrap(&ROW, &old, [1; 24]).expect("known").expect("was under the earlier key");
    assert_eq!((key_encryption_key_id(&new), both.current_key_id()), (Ok(4), 4));
    assert_eq!(both.rewrap(&ROW, &new, [2; 24]), Ok(None));
    let only_new = KeyEncryptionKeys::new(key(4, 7), vec![]).expect("one key");
    assert_eq!(only_new.open(&ROW, &new).expect("current").as_slice(), CONTENT);
    assert_eq!(only_new.open(&ROW, &old).err(), Some(OpenError::UnknownKey { key_id: 3 }));
    assert_eq!(only_new.rewrap(&ROW, &old, [3; 24]), Err(OpenError::UnknownKey { key_id: 3 }));
    let other_secret = KeyEncryptionKeys::new(key(4, 6), vec![]).expect("one key");
    assert_eq!(other_secret.open(&ROW, &new).err(), Some(OpenError::Refused));
}

#[test]
fn personal_fields_open_with_their_users_key_and_with_no_other() {
    let key_row = Row { tenant: b"tenant-1", kind: "user_data_key", id: b"user-7" };
    let data_key = DataKey::from_random([6; 32]);
    let wrapped = data_key.wrap(&keys(), &key_row, [1; 24]).expect("short");
    let field = data_key.seal(&ROW, b"ann@example.com", [2; 24]).expect("short");

    let unwrapped = DataKey::unwrap(&keys(), &key_row, &wrapped).expect("its row");
    assert_eq!(unwrapped.open(&ROW, &field).expect("its key").as_slice(), b"ann@example.com");
    // The key's row is gone: the operator's keys open nothing of it, and another user's key neither.
    assert_eq!(keys().open(&ROW, &field).err(), Some(OpenError::Malformed));
    assert_eq!(DataKey::from_random([7; 32]).open(&ROW, &field).err(), Some(OpenError::Refused));
    // A wrapped key is no field, and one user's key row is no other's.
    assert_eq!(data_key.open(&key_row, &wrapped).err(), Some(OpenError::Malformed));
    let others = Row { id: b"user-8", ..key_row };
    assert_eq!(DataKey::unwrap(&keys(), &others, &wrapped).err(), Some(OpenError::Refused));
    // An envelope of this row with something else in it is no key.
    let short = keys().seal(&key_row, &[1; 31], [3; 24]).expect("short");
    assert_eq!(DataKey::unwrap(&keys(), &key_row, &short).err(), Some(OpenError::Malformed));
}

#[test]
fn what_a_token_seals_opens_with_that_token_alone() {
    let envelope = DataKey::of_token(&refresh_token()).seal(&ROW, CONTENT, nonce()).expect("short");
    let other = OpaqueToken::<Refresh>::from_random([1; 32]);
    assert_eq!(DataKey::of_token(&other).open(&ROW, &envelope).err(), Some(OpenError::Refused));
    let same_bytes = OpaqueToken::<Session>::from_random(core::array::from_fn(|i| i as u8));
    assert_eq!(DataKey::of_token(&same_bytes).open(&ROW, &envelope).err(), Some(OpenError::Refused));
}

#[test]
fn limits_of_content_row_and_keys_are_kept() {
    let largest = vec![7; CONTENT_BYTES_MAX];
    let envelope = keys().seal(&ROW, &largest, nonce()).expect("at the limit");
    assert_eq!(envelope.len(), CONTENT_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES);
    assert_eq!(keys().open(&ROW, &envelope).expect("at the limit").as_slice(), largest);
    let beyond = vec![7; CONTENT_BYTES_MAX + 1];
    let refused = SealError::ContentTooLong { bytes: CONTENT_BYTES_MAX + 1 };
    assert_eq!(keys().seal(&ROW, &beyond, nonce()), Err(refused));
    let long = Row { id: &[0; 1_025], ..ROW };
    assert_eq!(keys().seal(&long, CONTENT, nonce()), Err(SealError::RowTooLong));
    assert_eq!(
        KeyEncryptionKey::new(1, &[0; 31]).err(),
        Some(KeyEncryptionKeyError::SecretLength { bytes: 31 })
    );
    let shared = KeyEncryptionKeys::new(key(1, 1), vec![key(1, 2)]);
    assert_eq!(shared.err(), Some(KeyEncryptionKeyError::RepeatedId { id: 1 }));
    let many = KeyEncryptionKeys::new(key(0, 1), (1..=64).map(|id| key(id, 1)).collect());
    assert_eq!(many.err(), Some(KeyEncryptionKeyError::TooMany));
    assert_eq!(
        format!("{:?} {:?}", key(1, 1), DataKey::from_random([1; 32])),
        "KeyEncryptionKey(1, ..) DataKey(..)"
    );
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_as_it_was(
        content in prop::collection::vec(any::<u8>(), 0..300),
        tenant in prop::collection::vec(any::<u8>(), 0..40),
        kind in "\\PC{0,20}",
        id in prop::collection::vec(any::<u8>(), 0..40),
        nonce: [u8; 24],
    ) {
        let row = Row { tenant: &tenant, kind: &kind, id: &id };
        let envelope = keys().seal(&row, &content, nonce).expect("short");
        let opened = keys().open(&row, &envelope).expect("its row");
        prop_assert_eq!(opened.as_slice(), content.as_slice());
    }

    #[test]
    fn no_bytes_make_opening_panic_or_succeed(mut bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
        if header && bytes.len() > 6 {
            bytes[..6].copy_from_slice(&[1, 1, 0, 0, 0, 3]);
        }
        prop_assert!(keys().open(&ROW, &bytes).is_err());
        prop_assert!(DataKey::from_random([6; 32]).open(&ROW, &bytes).is_err());
        let _ = key_encryption_key_id(&bytes);
    }
}
