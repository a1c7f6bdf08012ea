//! Access tokens: the bytes, the claims, and the confusions that ASVS 9.1 and 9.2 and RFC 8725 list.

use auth_credentials::jwt::{
    AccessClaims, AccessTokenIssuer, AccessTokenVerifier, IssueError, PublicKey, SigningKey, TOKEN_BYTES_MAX,
    TokenRefusal, VerifierError,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://api.example";
const IAT: u64 = 1_700_000_000;
const NOW_MS: u64 = IAT * 1_000 + 10_000;

/// Made by Python's json, base64 and cryptography, verified by PyJWT.
const GOLDEN: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImtQcktfcW14VldhWVZBOXd3QkY2SXVvM3ZWeno3VHhIQ1R3WEJ5Z3JTNGsifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJ1c2VyLTciLCJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlIiwiY2xpZW50X2lkIjoid2ViIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAwMDAzMDAsImp0aSI6IkFBRUNBd1FGQmdjSUNRb0xEQTBPRHciLCJzaWQiOiJzLTEiLCJ1ZXAiOjQsImF1dGhfdGltZSI6MTY5OTk5OTk5MCwiYWNyIjoiMiIsImFtciI6WyJwd2QiLCJvdHAiXSwic2NvcGUiOiJyZWFkIHdyaXRlIn0.vplJuuW1ZgdjQ5i_Jxku9pfllG84mCEelSbTAT5hZLdLzmjCc0eLN3Fpb46_QvU0I-JcEJmrXXzLnIbL8bPEDA";

/// The key of RFC 8037, appendix A.1.
fn key() -> SigningKey {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64url");
    SigningKey::from_seed(&seed.try_into().expect("32 bytes")).expect("a key")
}

fn claims() -> AccessClaims {
    AccessClaims {
        subject: "user-7".into(),
        audience: AUDIENCE.into(),
        client_id: "web".into(),
        token_id: "AAECAwQFBgcICQoLDA0ODw".into(),
        session_id: "s-1".into(),
        user_epoch: 4,
        authenticated_at_s: IAT - 10,
        assurance: "2".into(),
        methods: vec!["pwd".into(), "otp".into()],
        scope: "read write".into(),
        issued_at_s: IAT,
        expires_at_s: IAT + 300,
    }
}

fn verifier_with(leeway_s: u64, keys: Vec<PublicKey>) -> AccessTokenVerifier {
    AccessTokenVerifier::new(ISSUER, AUDIENCE, leeway_s, keys).expect("a verifier")
}

fn verify(token: &str) -> Result<AccessClaims, TokenRefusal> {
    verifier_with(0, vec![key().public().clone()]).verify(token, NOW_MS)
}

fn signed(header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key().sign(input.as_bytes()).expect("signed");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header() -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key().public().kid())
}

fn payload() -> String {
    let encoded = GOLDEN.split('.').nth(1).expect("three parts");
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).expect("base64url")).expect("JSON")
}

/// A rightly signed token with one piece of its payload replaced.
fn with(from: &str, to: &str) -> Result<AccessClaims, TokenRefusal> {
    assert!(payload().contains(from), "{from}");
    verify(&signed(&header(), &payload().replacen(from, to, 1)))
}

#[test]
fn the_token_is_the_one_of_another_implementation() {
    let issuer = AccessTokenIssuer::new(ISSUER, key());
    assert_eq!(issuer.issue(&claims()).expect("issued"), GOLDEN);
    assert_eq!(verify(GOLDEN), Ok(claims()));
}

#[test]
fn every_changed_character_of_a_token_is_refused() {
    for at in 0..GOLDEN.len() {
        for other in ['A', 'B', '-', '.', '=', ' ', '\n'] {
            let changed = format!("{}{other}{}", &GOLDEN[..at], &GOLDEN[at + 1..]);
            assert!(changed == GOLDEN || verify(&changed).is_err(), "{other:?} at {at}");
        }
        assert!(verify(&GOLDEN[..at]).is_err(), "cut to {at}");
    }
    for near in [
        format!("{GOLDEN}="),
        format!("{GOLDEN}."),
        format!(" {GOLDEN}"),
        format!("{GOLDEN}\n"),
        String::new(),
        "..".into(),
    ] {
        assert!(verify(&near).is_err(), "{near:?}");
    }
    let long = format!("{}.{}", "A".repeat(TOKEN_BYTES_MAX), GOLDEN);
    assert_eq!(verify(&long), Err(TokenRefusal::Malformed));
}

#[test]
fn asvs_9_1_1_a_signature_that_is_missing_short_or_padded_is_refused() {
    let (input, signature) = GOLDEN.rsplit_once('.').expect("three parts");
    for signature in
        [String::new(), signature[..84].into(), format!("{signature}AA"), format!("{signature}==")]
    {
        assert_eq!(verify(&format!("{input}.{signature}")), Err(TokenRefusal::WrongSignature), "{signature}");
    }
    assert!(verify(input).is_err());
}

#[test]
fn asvs_9_1_2_the_algorithm_is_the_keys_and_no_header_changes_it() {
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "RS256", "ES256", "eddsa", "Ed25519", "EdDSA "]
    {
        let header = header().replace("EdDSA", alg);
        let good = signed(&header, &payload());
        assert_eq!(verify(&good), Err(TokenRefusal::WrongAlgorithm), "{alg}");
        let stripped = good.rsplit_once('.').expect("three parts").0.to_owned() + ".";
        assert_eq!(verify(&stripped), Err(TokenRefusal::WrongAlgorithm), "{alg}");
    }
    // HS256 with the public key as its secret.
    let header = header().replace("EdDSA", "HS256");
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload()));
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key().public().to_bytes());
    let tag = aws_lc_rs::hmac::sign(&secret, input.as_bytes());
    let confused = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(verify(&confused), Err(TokenRefusal::WrongAlgorithm));
}

#[test]
fn asvs_9_1_3_keys_come_from_the_keyset_and_never_from_the_token() {
    let mut with_parameter = Vec::new();
    for parameter in [
        r#""jku":"https://evil.example/jwks.json""#,
        r#""x5u":"https://evil.example/cert""#,
        r#""jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        r#""x5c":["AAAA"]"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""cty":"JWT""#,
    ] {
        with_parameter.push(header().replace('}', &format!(",{parameter}}}")));
    }
    let kid = key().public().kid().to_owned();
    // Twice the same parameter, none, an array of them, another JSON type, something behind.
    with_parameter.push(header().replace('}', &format!(r#","kid":"{kid}"}}"#)));
    with_parameter.push(header().replace('}', r#","alg":"EdDSA"}"#));
    with_parameter.push(r#"{"alg":"EdDSA","typ":"at+jwt"}"#.into());
    with_parameter.push(format!(r#"["EdDSA","at+jwt","{kid}"]"#));
    with_parameter.push(header().replace(&format!("\"{kid}\""), "7"));
    with_parameter.push(header() + "{}");
    with_parameter.push("null".into());
    with_parameter.push("{".repeat(3_000));
    for header in with_parameter {
        assert_eq!(verify(&signed(&header, &payload())), Err(TokenRefusal::Malformed), "{header}");
    }
    let other = header().replace(&kid, "AAAA");
    assert_eq!(verify(&signed(&other, &payload())), Err(TokenRefusal::UnknownKey));
    let stranger = SigningKey::from_seed(&[9; 32]).expect("a key");
    let forged = AccessTokenIssuer::new(ISSUER, stranger).issue(&claims()).expect("issued");
    assert_eq!(verify(&forged), Err(TokenRefusal::UnknownKey));
    // Its signature under the name of ours.
    let (input, _) = GOLDEN.rsplit_once('.').expect("three parts");
    let (_, signature) = forged.rsplit_once('.').expect("three parts");
    assert_eq!(verify(&format!("{input}.{signature}")), Err(TokenRefusal::WrongSignature));
}

#[test]
fn a_header_in_another_order_with_white_space_is_as_good() {
    let kid = key().public().kid().to_owned();
    let header = format!("{{ \"kid\":\"{kid}\",\n \"typ\":\"at+jwt\", \"alg\":\"EdDSA\" }}");
    assert_eq!(verify(&signed(&header, &payload())), Ok(claims()));
}

#[test]
fn asvs_9_2_1_a_token_lives_from_iat_and_nbf_to_exp_with_at_most_the_leeway_on_both_sides() {
    for leeway in [0, 30] {
        let verifier = verifier_with(leeway, vec![key().public().clone()]);
        let ends = (IAT + 300 + leeway) * 1_000;
        assert_eq!(verifier.verify(GOLDEN, ends - 1), Ok(claims()));
        assert_eq!(verifier.verify(GOLDEN, ends), Err(TokenRefusal::Expired));
        let begins = (IAT - leeway) * 1_000;
        assert_eq!(verifier.verify(GOLDEN, begins), Ok(claims()));
        assert_eq!(verifier.verify(GOLDEN, begins - 1), Err(TokenRefusal::NotYetValid));
    }
    assert_eq!(with(r#""jti""#, r#""nbf":1700000010,"jti""#), Ok(claims()));
    assert_eq!(with(r#""jti""#, r#""nbf":1700000011,"jti""#), Err(TokenRefusal::NotYetValid));
    let none = AccessTokenVerifier::new(ISSUER, AUDIENCE, 31, vec![key().public().clone()]);
    assert_eq!(none.err(), Some(VerifierError::Leeway));
}

#[test]
fn times_that_are_text_or_no_whole_numbers_are_refused() {
    // CVE-2026-25537: a library took `"exp":"…"` for no expiry at all.
    for value in [
        "\"1700000300\"",
        "1700000300.0",
        "1.7000003e9",
        "-1",
        "null",
        "true",
        "[1700000300]",
        "18446744073709551616",
        "\"\"",
    ] {
        for (claim, stands) in
            [("exp", "1700000300"), ("iat", "1700000000"), ("auth_time", "1699999990"), ("uep", "4")]
        {
            let refused = with(&format!("\"{claim}\":{stands}"), &format!("\"{claim}\":{value}"));
            assert_eq!(refused, Err(TokenRefusal::MalformedClaims), "{claim} {value}");
        }
        let refused = with(r#""jti""#, &format!(r#""nbf":{value},"jti""#));
        assert_eq!(refused, Err(TokenRefusal::MalformedClaims), "nbf {value}");
    }
    for exp in ["1700000901", "18446744073709551615", "1699999999"] {
        assert_eq!(with("1700000300", exp), Err(TokenRefusal::LifetimeTooLong), "{exp}");
    }
}

#[test]
fn a_claim_that_is_missing_or_twice_there_is_refused() {
    let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&payload()).expect("JSON");
    assert_eq!(claims.len(), 13);
    for name in claims.keys() {
        let mut fewer = claims.clone();
        fewer.remove(name);
        let json = serde_json::to_string(&fewer).expect("JSON");
        assert_eq!(verify(&signed(&header(), &json)), Err(TokenRefusal::MalformedClaims), "{name} missing");
        let again = payload().replacen('{', &format!("{{\"{name}\":{},", claims[name]), 1);
        assert_eq!(verify(&signed(&header(), &again)), Err(TokenRefusal::MalformedClaims), "{name} twice");
    }
    for json in ["[]", "null", "7", "\"x\"", "", "{}{}", &(payload() + " x"), &"[".repeat(5_000)] {
        assert_eq!(verify(&signed(&header(), json)), Err(TokenRefusal::MalformedClaims), "{json}");
    }
}

#[test]
fn asvs_9_2_2_only_an_access_token_is_one() {
    for typ in ["JWT", "id_token", "jwt", "AT+JWT", "logout+jwt", "dpop+jwt", "client-authentication+jwt", ""]
    {
        let header = header().replace("at+jwt", typ);
        assert_eq!(verify(&signed(&header, &payload())), Err(TokenRefusal::WrongType), "{typ}");
    }
    let untyped = header().replace(r#""typ":"at+jwt","#, "");
    assert_eq!(verify(&signed(&untyped, &payload())), Err(TokenRefusal::Malformed));
    // Bound to a key: not for whoever bears it.
    assert_eq!(with(r#""jti""#, r#""cnf":{"jkt":"AAAA"},"jti""#), Err(TokenRefusal::WrongType));
    // Claims of later versions are ignored.
    assert_eq!(with(r#""jti""#, r#""later":{"a":[1]},"jti""#), Ok(claims()));
}

#[test]
fn asvs_9_2_3_issuer_and_audience_are_exact() {
    for issuer in
        ["https://id.example/", "https://ID.example", "http://id.example", "", "https://id.example.evil"]
    {
        assert_eq!(with(ISSUER, issuer), Err(TokenRefusal::WrongIssuer), "{issuer}");
    }
    for audience in ["https://api.example/", "https://api", "", "https://api.example.evil"] {
        assert_eq!(with(AUDIENCE, audience), Err(TokenRefusal::WrongAudience), "{audience}");
    }
    let quoted = format!("\"{AUDIENCE}\"");
    assert_eq!(with(&quoted, "[]"), Err(TokenRefusal::WrongAudience));
    assert_eq!(with(&quoted, r#"["https://other.example"]"#), Err(TokenRefusal::WrongAudience));
    assert_eq!(with(&quoted, &format!(r#"["https://other.example",{quoted}]"#)), Ok(claims()));
    for value in ["7", "null", "{}", "[7]"] {
        assert_eq!(with(&quoted, value), Err(TokenRefusal::MalformedClaims), "{value}");
    }
}

#[test]
fn no_token_is_issued_that_would_live_too_long_or_be_too_long() {
    let issuer = AccessTokenIssuer::new(ISSUER, key());
    for (life, allowed) in [(29, false), (30, true), (900, true), (901, false)] {
        let issued = issuer.issue(&AccessClaims { expires_at_s: IAT + life, ..claims() });
        assert_eq!(issued.is_ok(), allowed, "{life}");
    }
    let backwards = issuer.issue(&AccessClaims { expires_at_s: IAT - 1, ..claims() });
    assert_eq!(backwards, Err(IssueError::Lifetime));
    let long = issuer.issue(&AccessClaims { scope: "s".repeat(TOKEN_BYTES_MAX), ..claims() });
    assert_eq!(long, Err(IssueError::TooLong));
}

#[test]
fn tokens_of_both_keys_verify_while_one_retires() {
    let new = SigningKey::from_seed(&[9; 32]).expect("a key");
    let verifier = verifier_with(0, vec![new.public().clone(), key().public().clone()]);
    let token = AccessTokenIssuer::new(ISSUER, new).issue(&claims()).expect("issued");
    assert_eq!(verifier.verify(&token, NOW_MS), Ok(claims()));
    assert_eq!(verifier.verify(GOLDEN, NOW_MS), Ok(claims()));
    assert_eq!(AccessTokenVerifier::new(ISSUER, AUDIENCE, 0, vec![]).err(), Some(VerifierError::Keys));
}

proptest! {
    #[test]
    fn whatever_is_issued_verifies_as_it_was(subject in "\\PC{0,40}", scope in "\\PC{0,40}", epoch: u64, life in 30_u64..=900) {
        let claims = AccessClaims {
            subject, scope, user_epoch: epoch, expires_at_s: IAT + life, ..claims()
        };
        let token = AccessTokenIssuer::new(ISSUER, key()).issue(&claims).expect("issued");
        prop_assert_eq!(verify(&token), Ok(claims));
    }

    #[test]
    fn no_text_makes_verifying_panic(text in "\\PC{0,200}", head in "[A-Za-z0-9_-]{0,80}", rest in "[A-Za-z0-9_.-]{0,300}", now: u64) {
        let verifier = verifier_with(30, vec![key().public().clone()]);
        prop_assert!(verifier.verify(&text, now).is_err());
        let malformed = format!("{head}.{rest}");
        prop_assert!(verifier.verify(&malformed, now).is_err());
        let good_header = GOLDEN.split('.').next().expect("three parts");
        let unsigned = format!("{good_header}.{rest}");
        prop_assert!(verifier.verify(&unsigned, now).is_err());
        let _ = verifier.verify(GOLDEN, now);
    }

    #[test]
    fn no_signed_payload_makes_verifying_panic(json in "[\\[\\]{}\",:0-9a-z.e-]{0,120}", header in "[\\[\\]{}\",:a-z+]{0,60}") {
        prop_assert!(verify(&signed(&self::header(), &json)).is_err());
        prop_assert!(verify(&signed(&header, &payload())).is_err());
    }
}
