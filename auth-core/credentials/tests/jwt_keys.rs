//! Keys of signed tokens: the vectors of RFC 8037 and Wycheproof, weak keys, and rotation.

use auth_credentials::jwt::{
    KEYSET_BYTES_MAX, KeyError, KeyState, Keyset, KeysetError, PublicKey, RotationPolicy,
    RotationPolicyError, RotationStep, SigningKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

fn base64url<const N: usize>(text: &str) -> [u8; N] {
    URL_SAFE_NO_PAD.decode(text).expect("base64url").try_into().expect("its length")
}

fn public(seed: u8) -> PublicKey {
    SigningKey::from_seed(&[seed; 32]).expect("any seed is a key").public().clone()
}

#[test]
fn rfc_8037_appendix_a_holds() {
    // A.1, A.2: the key pair.
    let key =
        SigningKey::from_seed(&base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")).expect("a key");
    assert_eq!(key.public().to_bytes(), base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
    // A.3: the thumbprint.
    assert_eq!(key.public().kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    // A.4: signing, A.5: validation.
    let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature: [u8; 64] =
        base64url("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
    assert_eq!(key.sign(input), Some(signature));
    assert!(key.public().verifies(input, &signature));
    assert!(!key.public().verifies(&input[1..], &signature));
    assert_eq!(
        key.public().to_jwk(),
        r#"{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
    );
    assert!(!format!("{key:?}").contains("nWGx"));
}

#[test]
fn the_verdicts_are_those_of_wycheproof() {
    use wycheproof::TestResult;
    use wycheproof::eddsa::{TestName, TestSet};
    let mut cases = 0;
    for group in TestSet::load(TestName::Ed25519).expect("vectors").test_groups {
        let key = PublicKey::new(group.key.pk.as_ref().try_into().expect("32 bytes")).expect("a strong key");
        for case in group.tests {
            let valid = key.verifies(&case.msg, &case.sig);
            assert_eq!(valid, case.result == TestResult::Valid, "{} {}", case.tc_id, case.comment);
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn points_of_small_order_and_other_encodings_are_no_keys() {
    // The eight points of small order, in canonical encoding.
    for point in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        let bytes: [u8; 32] = hex::decode(point).expect("hex").try_into().expect("32 bytes");
        assert_eq!(PublicKey::new(bytes).err(), Some(KeyError::Weak), "{point}");
    }
    // Not canonical: a coordinate of 2^255 - 19 + 3, and one that is no point.
    for point in [
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ] {
        let bytes: [u8; 32] = hex::decode(point).expect("hex").try_into().expect("32 bytes");
        assert_eq!(PublicKey::new(bytes).err(), Some(KeyError::Malformed), "{point}");
    }
}

fn policy() -> RotationPolicy {
    RotationPolicy::default()
}

const BEGIN_MS: u64 = 1_700_000_000_000;

/// Takes whatever step is due, as the job of a server does; `seed` is the next key to be made.
fn step(keyset: Keyset, now_ms: u64, seed: &mut u8) -> Keyset {
    match keyset.due(&policy(), now_ms) {
        RotationStep::WaitUntil { at_ms } => {
            assert!(at_ms > now_ms);
            keyset
        }
        RotationStep::AddNext => {
            *seed += 1;
            keyset.add_next(public(*seed), vec![*seed], now_ms).expect("room")
        }
        RotationStep::Promote => keyset.promote(&policy(), now_ms).expect("due"),
        RotationStep::RemoveRetired => keyset.remove_retired(now_ms),
    }
}

#[test]
fn every_token_verifies_for_all_of_its_life_with_a_jwks_of_an_hour_ago() {
    let mut seed = 1;
    let mut keyset = Keyset::first(public(seed), vec![1], BEGIN_MS).expect("a key");
    let minute = 60_000;
    let mut signers = Vec::new(); // per minute
    let mut documents = Vec::new();
    for at in 0..(100 * 24 * 60_u64) {
        let now_ms = BEGIN_MS + at * minute;
        keyset = step(keyset, now_ms, &mut seed);
        signers.push(keyset.active().public.kid().to_owned());
        documents.push(keyset.verifying(now_ms).map(|key| key.kid().to_owned()).collect::<Vec<_>>());
        // A verifier with a fresh document and one whose document is an hour old, for tokens of now and of 15 minutes ago.
        for document in [documents.len() - 1, documents.len().saturating_sub(61)] {
            let ages = if document == documents.len() - 1 { &[0, 15][..] } else { &[0][..] };
            for age in ages {
                let signer = &signers[signers.len().saturating_sub(1 + age)];
                assert!(documents[document].contains(signer), "minute {at}, a token of {age} minutes");
            }
        }
    }
    assert!(seed >= 4, "the key changed {seed} times in 100 days");
    assert!(documents.iter().all(|document| document.len() <= 3));
}

#[test]
fn a_key_does_not_sign_before_it_was_published_long_enough() {
    let keyset = Keyset::first(public(1), vec![], BEGIN_MS).expect("a key");
    assert_eq!(keyset.clone().promote(&policy(), BEGIN_MS).err(), Some(KeysetError::HasNoNext));
    let keyset = keyset.add_next(public(2), vec![], BEGIN_MS).expect("room");
    let ready_at_ms = BEGIN_MS + policy().published_before_ms;
    let early = keyset.clone().promote(&policy(), ready_at_ms - 1);
    assert_eq!(early.err(), Some(KeysetError::TooEarly { ready_at_ms }));
    assert_eq!(keyset.clone().add_next(public(3), vec![], BEGIN_MS).err(), Some(KeysetError::HasNext));
    let keyset = keyset.promote(&policy(), ready_at_ms).expect("ready");
    assert_eq!(keyset.active().public, public(2));
    let until_ms = ready_at_ms + policy().verifies_after_ms;
    assert!(keyset.entries().any(|e| e.public == public(1) && e.state == KeyState::Retiring { until_ms }));
    assert_eq!(keyset.verifying(until_ms - 1).count(), 2);
    assert_eq!(keyset.verifying(until_ms).count(), 1);
    assert_eq!(keyset.clone().add_next(public(1), vec![], BEGIN_MS).err(), Some(KeysetError::Repeated));
    assert_eq!(keyset.remove_retired(until_ms).entries().count(), 1);
}

#[test]
fn policies_that_would_lose_tokens_are_refused() {
    assert_eq!(policy().validate(), Ok(()));
    let shortly = RotationPolicy { verifies_after_ms: 929_999, ..policy() };
    assert_eq!(shortly.validate(), Err(RotationPolicyError::VerifiesTooShortly));
    let hasty = RotationPolicy { active_ms: policy().published_before_ms, ..policy() };
    assert_eq!(hasty.validate(), Err(RotationPolicyError::ActiveTooShortly));
}

fn three_keys() -> Keyset {
    let keyset = Keyset::first(public(1), vec![1; 3], 5).expect("a key");
    let keyset = keyset.add_next(public(2), vec![2; 2], 6).expect("room");
    let keyset = keyset.promote(&policy(), 6 + policy().published_before_ms).expect("ready");
    keyset.add_next(public(3), vec![3], 9).expect("room")
}

#[test]
fn the_row_is_these_bytes() {
    assert_eq!(hex::encode(three_keys().encode()), GOLDEN_ROW);
    assert_eq!(Keyset::decode(&hex::decode(GOLDEN_ROW).expect("hex")), Ok(three_keys()));
    let jwks = three_keys().to_jwks(0);
    let members: Vec<String> = [2, 1, 3].map(|seed| public(seed).to_jwk()).to_vec();
    assert_eq!(jwks, format!(r#"{{"keys":[{}]}}"#, members.join(",")));
}

const GOLDEN_ROW: &str = "53524b530001038139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3940100000000006ddd06000202028a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0200000000008a3ea60003010101ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1000000000000000009000103";

#[test]
fn rows_that_break_a_rule_are_refused() {
    let row = three_keys().encode();
    for length in 0..row.len() {
        assert!(Keyset::decode(&row[..length]).is_err(), "{length}");
    }
    assert!(Keyset::decode(&[row.as_slice(), &[0]].concat()).is_err());
    let state_of = |entry: usize| 7 + 32 + [0, 43 + 2, 43 + 2 + 43 + 3][entry];
    // Two active keys, no active one first, two next ones, a state that is none.
    for (entry, state) in [(1, 1), (0, 2), (0, 0), (1, 0), (2, 3)] {
        let mut row = row.clone();
        row[state_of(entry)] = state;
        assert!(Keyset::decode(&row).is_err(), "{entry} {state}");
    }
    let mut twice = row.clone();
    twice.copy_within(7..39, 7 + 45);
    assert!(Keyset::decode(&twice).is_err(), "one key twice");
    let mut none = row[..7].to_vec();
    none[6] = 0;
    assert!(Keyset::decode(&none).is_err(), "no key");
    assert!(row.len() < KEYSET_BYTES_MAX);
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_as_the_same_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(), whole: bool,
    ) {
        let mut row = three_keys().encode();
        for (at, value) in changes {
            let at = at.index(row.len());
            row[at] = value;
        }
        if !whole {
            row.truncate(cut.index(row.len()));
        }
        if let Ok(read) = Keyset::decode(&row) {
            prop_assert_eq!(read.encode(), row);
        }
    }

    #[test]
    fn any_steps_at_any_times_keep_one_active_key(times in prop::collection::vec(0_u64..u64::MAX, 1..20)) {
        let mut keyset = Keyset::first(public(1), vec![], 0).expect("a key");
        let mut seed = 1;
        for now_ms in times {
            keyset = match keyset.due(&policy(), now_ms) {
                RotationStep::WaitUntil { .. } => keyset,
                RotationStep::AddNext => { seed += 1; keyset.add_next(public(seed), vec![], now_ms).expect("room") }
                RotationStep::Promote => keyset.promote(&policy(), now_ms).expect("due"),
                RotationStep::RemoveRetired => keyset.remove_retired(now_ms),
            };
            let active = keyset.entries().filter(|e| matches!(e.state, KeyState::Active { .. })).count();
            prop_assert_eq!(active, 1);
            prop_assert_eq!(Keyset::decode(&keyset.encode()), Ok(keyset.clone()));
        }
    }
}
