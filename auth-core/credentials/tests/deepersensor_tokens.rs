//! The profile `deepersensor`: two uses that never pass for one another, and a secret that changes without ending sessions.

use auth_credentials::jwt::TokenRefusal;
use auth_credentials::jwt::deepersensor::{
    ACCESS_SECONDS, EarlierKey, Lifetimes, Profile, ProfileError, REFRESH_SECONDS, SharedKey, TokenUse,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

const ISSUER: &str = "deepersensor-production";
const IAT: u64 = 1_700_000_000;
const NOW_MS: u64 = IAT * 1_000;

/// Made by Python's json, base64 and hmac, verified by PyJWT.
const GOLDEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjcifQ.eyJpc3MiOiJkZWVwZXJzZW5zb3ItcHJvZHVjdGlvbiIsInN1YiI6InVzZXItNyIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAwOTAwLCJqdGkiOiJBQUVDIiwidHlwIjoiYWNjZXNzIn0.VSm1lFwxIY5wW29BgiaN8x-YMfnGkDf8Er5yNTwvZaE";

fn key(id: u32, byte: u8) -> SharedKey {
    SharedKey::new(id, &[byte; 64]).expect("long enough")
}

fn profile(current: SharedKey, earlier: Vec<EarlierKey>) -> Profile {
    Profile::new(ISSUER, Lifetimes::default(), 0, current, earlier).expect("a profile")
}

fn signed(header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[9; 64]);
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, input.as_bytes())))
}

#[test]
fn the_token_is_the_one_of_another_implementation_with_the_seeds_lifetimes() {
    let profile = profile(key(7, 9), vec![]);
    assert_eq!(profile.issue("user-7", "AAEC", TokenUse::Access, NOW_MS).as_deref(), Some(GOLDEN));
    let claims = profile.verify(GOLDEN, TokenUse::Access, NOW_MS).expect("valid");
    assert_eq!((claims.subject.as_str(), claims.expires_at_s - claims.issued_at_s), ("user-7", 900));
    let refresh = profile.issue("user-7", "AAED", TokenUse::Refresh, NOW_MS).expect("short");
    let claims = profile.verify(&refresh, TokenUse::Refresh, NOW_MS).expect("valid");
    assert_eq!(claims.expires_at_s - claims.issued_at_s, 1_209_600);
    assert_eq!((ACCESS_SECONDS, REFRESH_SECONDS), (900, 1_209_600));
}

#[test]
fn a_refresh_token_opens_nothing_and_an_access_token_refreshes_nothing() {
    // The original never looked at `typ`.
    let profile = profile(key(7, 9), vec![]);
    let refresh = profile.issue("user-7", "AAED", TokenUse::Refresh, NOW_MS).expect("short");
    assert_eq!(profile.verify(&refresh, TokenUse::Access, NOW_MS), Err(TokenRefusal::WrongType));
    assert_eq!(profile.verify(GOLDEN, TokenUse::Refresh, NOW_MS), Err(TokenRefusal::WrongType));
}

#[test]
fn a_new_secret_ends_no_token_and_the_earlier_one_ends_at_its_time() {
    // Replacing the original's secret ended every session.
    let old = profile(key(7, 9), vec![]);
    let refresh = old.issue("user-7", "AAED", TokenUse::Refresh, NOW_MS).expect("short");
    let until_ms = NOW_MS + REFRESH_SECONDS * 1_000;
    let new = profile(key(8, 10), vec![EarlierKey { key: key(7, 9), until_ms }]);
    assert!(new.verify(&refresh, TokenUse::Refresh, until_ms - 1).is_ok());
    assert!(new.verify(GOLDEN, TokenUse::Access, NOW_MS).is_ok());
    let soon = profile(key(8, 10), vec![EarlierKey { key: key(7, 9), until_ms: NOW_MS + 1 }]);
    assert_eq!(soon.verify(&refresh, TokenUse::Refresh, NOW_MS + 1), Err(TokenRefusal::UnknownKey));
    let fresh = new.issue("user-7", "AAEE", TokenUse::Access, NOW_MS).expect("short");
    assert!(new.verify(&fresh, TokenUse::Access, NOW_MS).is_ok());
    assert_eq!(old.verify(&fresh, TokenUse::Access, NOW_MS), Err(TokenRefusal::UnknownKey));
    let same_id = profile(key(7, 10), vec![]);
    assert_eq!(same_id.verify(GOLDEN, TokenUse::Access, NOW_MS), Err(TokenRefusal::WrongSignature));
}

#[test]
fn confusions_and_changes_are_refused() {
    let profile = profile(key(7, 9), vec![]);
    let verify = |token: &str| profile.verify(token, TokenUse::Access, NOW_MS);
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"7"}"#;
    let payload = r#"{"iss":"deepersensor-production","sub":"user-7","iat":1700000000,"exp":1700000900,"jti":"AAEC","typ":"access"}"#;
    assert_eq!(signed(header, payload), GOLDEN);
    for (from, to, refusal) in [
        ("HS256", "none", TokenRefusal::WrongAlgorithm),
        ("HS256", "HS512", TokenRefusal::WrongAlgorithm),
        ("HS256", "EdDSA", TokenRefusal::WrongAlgorithm),
        ("JWT", "at+jwt", TokenRefusal::WrongType),
        ("\"7\"", "\"07\"", TokenRefusal::UnknownKey),
        ("\"7\"", "7", TokenRefusal::Malformed),
        ("\"7\"", "\"7\",\"crit\":[]", TokenRefusal::Malformed),
    ] {
        assert_eq!(verify(&signed(&header.replace(from, to), payload)), Err(refusal), "{to}");
    }
    for (from, to, refusal) in [
        ("deepersensor-production", "deepersensor", TokenRefusal::WrongIssuer),
        ("1700000900", "\"1700000900\"", TokenRefusal::MalformedClaims),
        ("1700000900", "1700000900,\"exp\":1", TokenRefusal::MalformedClaims),
        ("1700000900", "1700000000", TokenRefusal::Expired),
        ("1700000900", "9999999999", TokenRefusal::LifetimeTooLong),
        ("1700000000", "1700000001", TokenRefusal::NotYetValid),
        ("\"access\"", "\"admin\"", TokenRefusal::MalformedClaims),
        (",\"typ\":\"access\"", "", TokenRefusal::MalformedClaims),
    ] {
        assert_eq!(verify(&signed(header, &payload.replace(from, to))), Err(refusal), "{to}");
    }
    for at in 0..GOLDEN.len() {
        let other = if GOLDEN[at..].starts_with('A') { 'B' } else { 'A' };
        assert!(verify(&format!("{}{other}{}", &GOLDEN[..at], &GOLDEN[at + 1..])).is_err(), "{at}");
    }
}

#[test]
fn profiles_that_are_unsafe_are_refused() {
    assert_eq!(SharedKey::new(1, &[0; 31]).err(), Some(ProfileError::SecretLength { bytes: 31 }));
    let new = |lifetimes, leeway, earlier| Profile::new(ISSUER, lifetimes, leeway, key(1, 1), earlier).err();
    let usual = Lifetimes::default();
    assert_eq!(new(usual, 31, vec![]), Some(ProfileError::Leeway));
    assert_eq!(new(Lifetimes { access_s: 0, ..usual }, 0, vec![]), Some(ProfileError::Lifetime));
    assert_eq!(new(Lifetimes { refresh_s: 7_776_001, ..usual }, 0, vec![]), Some(ProfileError::Lifetime));
    let again = vec![EarlierKey { key: key(1, 2), until_ms: 0 }];
    assert_eq!(new(usual, 0, again), Some(ProfileError::RepeatedId { id: 1 }));
    let many = (2..11).map(|id| EarlierKey { key: key(id, 2), until_ms: 0 }).collect();
    assert_eq!(new(usual, 0, many), Some(ProfileError::TooMany));
    assert_eq!(format!("{:?}", key(1, 1)), "SharedKey(1, ..)");
}

proptest! {
    #[test]
    fn no_text_makes_verifying_panic(text in "\\PC{0,200}", rest in "[A-Za-z0-9_.-]{0,300}", json in "[\\[\\]{}\",:0-9a-z-]{0,120}", now: u64) {
        let profile = profile(key(7, 9), vec![]);
        let header = GOLDEN.split('.').next().expect("three parts");
        prop_assert!(profile.verify(&text, TokenUse::Access, now).is_err());
        let unsigned = format!("{header}.{rest}");
        prop_assert!(profile.verify(&unsigned, TokenUse::Access, now).is_err());
        let token = signed(r#"{"alg":"HS256","typ":"JWT","kid":"7"}"#, &json);
        prop_assert!(profile.verify(&token, TokenUse::Access, now).is_err());
    }
}
