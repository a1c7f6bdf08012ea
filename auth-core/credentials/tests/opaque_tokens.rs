//! Bearer tokens: their text, what is stored of them, and that one purpose never passes for another.

use auth_credentials::opaque_token::{
    ApiKey, AuthorizationCode, CliCode, OpaqueToken, Refresh, ResetPassword, Session, TOKEN_TEXT_BYTES,
    TokenHash, TokenHasher, TokenKey, TokenKeyError, TokenPurpose, TokenRefused, VerifyEmail,
};
use proptest::prelude::*;

fn random() -> [u8; 32] {
    core::array::from_fn(|i| i as u8)
}

fn key(id: u32, byte: u8) -> TokenKey {
    TokenKey::new(id, &[byte; 32]).expect("32 bytes")
}

fn hasher() -> TokenHasher {
    TokenHasher::new(key(5, 9), vec![]).expect("one key")
}

/// Text and stored hash, made by Python's base64, crc32c and blake3.
fn is_golden<P: TokenPurpose>(text: &str, stored: &str) {
    let token = OpaqueToken::<P>::from_random(random());
    assert_eq!(token.to_text().as_str(), text);
    assert_eq!(hex::encode(hasher().hash(&token).to_bytes()), stored);
    let read = OpaqueToken::<P>::parse(text).expect("its own text");
    assert!(hasher().matches(&read, &hasher().hash(&token)));
}

#[test]
fn text_and_hash_are_those_of_another_implementation() {
    is_golden::<Session>(
        "as_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_EiZiw",
        "000000059b06de4c96bb8ec4886d5ff9c77f5d7e27f86b88e4fe64ff352cebef102fcd62",
    );
    is_golden::<Refresh>(
        "ar_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-6fRNh",
        "00000005408a07485c114f91161c7b38dc18ae65ee1d7f8b657cb3f1970cc30829175e68",
    );
    is_golden::<VerifyEmail>(
        "av_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9EQ0rU",
        "000000059237760c66cdfde17cc073b7e6740839a09f08d67777adae5b06321c4db1ca81",
    );
    is_golden::<ResetPassword>(
        "ap_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9HlATD",
        "0000000557f898f7ed2b6c83489a6bc04bf1fc8652176d40d923a5098f41597ba27dd87d",
    );
    is_golden::<AuthorizationCode>(
        "ac_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8yRGV3",
        "000000058dbe8a22786d320fbee88b22dfe0d23a146c735a61e252bd18e076e88893f40a",
    );
    is_golden::<CliCode>(
        "al_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-292Uq",
        "00000005f6a382541ed55787ee8ec8a3bb7a0381b207b76a54aeb85652a7443ccb022e42",
    );
    is_golden::<ApiKey>(
        "ak_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_L1KDs",
        "000000057f4723cfc5dbc0927be716ad394b67a43ec7693654888a43823f56d1a71e2557",
    );
}

#[test]
fn a_token_of_one_purpose_is_not_read_as_another() {
    let text = OpaqueToken::<Refresh>::from_random(random()).to_text();
    assert_eq!(OpaqueToken::<Session>::parse(&text).err(), Some(TokenRefused));
    // Not even with the other prefix put before it: the check is over the prefix too.
    let disguised = format!("as_{}", &text[3..]);
    assert_eq!(OpaqueToken::<Session>::parse(&disguised).err(), Some(TokenRefused));
}

#[test]
fn the_hash_of_one_purpose_matches_no_token_of_another() {
    let stored = hasher().hash(&OpaqueToken::<ResetPassword>::from_random(random())).to_bytes();
    let session = OpaqueToken::<Session>::from_random(random());
    assert!(!hasher().matches(&session, &TokenHash::from_bytes(stored)));
}

#[test]
fn every_change_of_one_character_is_refused() {
    let text = OpaqueToken::<Session>::from_random(random()).to_text();
    assert_eq!(text.len(), TOKEN_TEXT_BYTES);
    for at in 0..text.len() {
        for other in (0..128_u8).map(char::from) {
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let refused = OpaqueToken::<Session>::parse(&changed).is_err();
            assert_eq!(refused, changed != *text, "{other:?} at {at}");
        }
    }
    for near in
        [&text[1..], &text[..50], &format!("{}=", *text), &format!(" {}", *text), &format!("{}\n", *text), ""]
    {
        assert_eq!(OpaqueToken::<Session>::parse(near).err(), Some(TokenRefused), "{near:?}");
    }
}

#[test]
fn keys_rotate_while_earlier_hashes_still_match() {
    let token = OpaqueToken::<Session>::from_random(random());
    let before = hasher().hash(&token);
    let rotated = TokenHasher::new(key(6, 10), vec![key(5, 9)]).expect("two keys");
    assert!(rotated.matches(&token, &before));
    assert_eq!((before.key_id(), rotated.hash(&token).key_id(), rotated.current_key_id()), (5, 6, 6));
    let candidates: Vec<_> = rotated.hashes(&token).collect();
    assert_eq!(candidates, [rotated.hash(&token), before]);
    // Without the earlier key, and with another secret under its id.
    assert!(!TokenHasher::new(key(6, 10), vec![]).expect("one key").matches(&token, &before));
    assert!(!TokenHasher::new(key(5, 10), vec![]).expect("one key").matches(&token, &before));
}

#[test]
fn one_secret_under_two_ids_makes_two_hashes() {
    let token = OpaqueToken::<Session>::from_random(random());
    let [a, b] =
        [5, 6].map(|id| TokenHasher::new(key(id, 9), vec![]).expect("one key").hash(&token).to_bytes());
    assert_ne!(a[4..], b[4..], "the id is part of the hash, not only beside it");
}

#[test]
fn keys_that_are_short_or_share_an_id_are_refused() {
    assert_eq!(TokenKey::new(1, &[0; 31]).err(), Some(TokenKeyError::SecretLength { bytes: 31 }));
    let shared = TokenHasher::new(key(1, 1), vec![key(2, 2), key(1, 3)]);
    assert_eq!(shared.err(), Some(TokenKeyError::RepeatedId { id: 1 }));
    let many = TokenHasher::new(key(0, 1), (1..=16).map(|id| key(id, 1)).collect());
    assert_eq!(many.err(), Some(TokenKeyError::TooMany));
}

#[test]
fn secrets_are_not_in_debug_texts() {
    let token = OpaqueToken::<Session>::from_random(random());
    assert_eq!(format!("{token:?}"), "OpaqueToken<session>(..)");
    assert_eq!(format!("{:?}", hasher().hash(&token)), "TokenHash<session>(key 5, ..)");
    assert_eq!(format!("{:?}", hasher()), "TokenHasher { current: TokenKey(5, ..), earlier: [] }");
}

proptest! {
    #[test]
    fn any_token_is_read_back_and_stored_bytes_round_trip(bytes: [u8; 32]) {
        let token = OpaqueToken::<Refresh>::from_random(bytes);
        let read = OpaqueToken::<Refresh>::parse(&token.to_text()).expect("its own text");
        let stored = hasher().hash(&token);
        prop_assert!(hasher().matches(&read, &TokenHash::from_bytes(stored.to_bytes())));
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,80}", tail in "[A-Za-z0-9_-]{48}", odd in "\\PC{0,20}") {
        let _ = OpaqueToken::<Session>::parse(&text);
        let _ = OpaqueToken::<Session>::parse(&format!("as_{tail}"));
        let _ = OpaqueToken::<Session>::parse(&format!("as_{odd}{tail}"));
    }

    #[test]
    fn a_change_in_any_bit_of_what_is_stored_no_longer_matches(bit in 0_usize..288) {
        let token = OpaqueToken::<Session>::from_random(random());
        let mut stored = hasher().hash(&token).to_bytes();
        stored[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!hasher().matches(&token, &TokenHash::from_bytes(stored)));
    }
}
