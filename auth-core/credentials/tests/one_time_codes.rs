//! Codes of authenticator programs and recovery codes.

use auth_credentials::opaque_token::{TokenHash, TokenHasher, TokenKey};
use auth_credentials::recovery_codes::{RECOVERY_CODES, RecoveryCode, RecoveryCodeRefused};
use auth_credentials::totp::{TotpDigits, TotpHash, TotpRefusal, TotpSecret, TotpSecretError, TotpStep};
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;
const STEP: u64 = 1_700_000_000 / 30;

fn secret() -> TotpSecret {
    TotpSecret::from_random(core::array::from_fn(|i| i as u8))
}

fn code(step: u64) -> String {
    secret().code(TotpStep(step)).to_string()
}

#[test]
fn codes_are_those_of_rfc_6238_appendix_b() {
    let digits = b"1234567890".repeat(7);
    for (seconds, sha1, sha256, sha512) in [
        (59_u64, "94287082", "46119246", "90693936"),
        (1_111_111_109, "07081804", "68084774", "25091201"),
        (1_111_111_111, "14050471", "67062674", "99943326"),
        (1_234_567_890, "89005924", "91819424", "93441116"),
        (2_000_000_000, "69279037", "90698825", "38618901"),
        (20_000_000_000, "65353130", "77737706", "47863826"),
    ] {
        for (hash, length, expected) in
            [(TotpHash::Sha1, 20, sha1), (TotpHash::Sha256, 32, sha256), (TotpHash::Sha512, 64, sha512)]
        {
            let secret = TotpSecret::new(&digits[..length], hash, TotpDigits::Eight).expect("long enough");
            assert_eq!(secret.code(TotpStep(seconds / 30)).as_str(), expected, "{seconds} {hash:?}");
            assert_eq!(secret.check(expected, seconds * 1_000, None), Ok(TotpStep(seconds / 30)));
            let six = TotpSecret::new(&digits[..length], hash, TotpDigits::Six).expect("long enough");
            assert_eq!(six.code(TotpStep(seconds / 30)).as_str(), &expected[2..]);
        }
    }
}

#[test]
fn codes_and_base_32_are_those_of_pyotp() {
    assert_eq!(code(STEP), "367345");
    assert_eq!(secret().to_base32().as_str(), "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT");
    let longer: Vec<u8> = (0..32).collect();
    let longer = TotpSecret::new(&longer, TotpHash::Sha256, TotpDigits::Six).expect("long enough");
    assert_eq!(longer.to_base32().as_str(), "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ");
}

#[test]
fn one_step_before_and_one_behind_are_accepted_and_no_more() {
    for (offset, accepted) in [(-2_i64, false), (-1, true), (0, true), (1, true), (2, false)] {
        let step = STEP.checked_add_signed(offset).expect("small");
        let expected = if accepted { Ok(TotpStep(step)) } else { Err(TotpRefusal::Wrong) };
        assert_eq!(secret().check(&code(step), NOW_MS, None), expected, "{offset}");
    }
}

#[test]
fn the_window_moves_at_the_edge_of_a_step_to_the_millisecond() {
    let edge_ms = STEP * 30_000;
    assert_eq!(secret().check(&code(STEP - 2), edge_ms - 1, None), Ok(TotpStep(STEP - 2)));
    assert_eq!(secret().check(&code(STEP - 2), edge_ms, None), Err(TotpRefusal::Wrong));
}

#[test]
fn a_code_works_once_and_no_earlier_one_works_afterwards() {
    let last = secret().check(&code(STEP), NOW_MS, None).expect("the right code");
    assert_eq!(secret().check(&code(STEP), NOW_MS, Some(last)), Err(TotpRefusal::Replayed));
    assert_eq!(secret().check(&code(STEP - 1), NOW_MS, Some(last)), Err(TotpRefusal::Replayed));
    assert_eq!(secret().check(&code(STEP + 1), NOW_MS, Some(last)), Ok(TotpStep(STEP + 1)));
    assert_eq!(secret().check("000000", NOW_MS, Some(last)), Err(TotpRefusal::Wrong));
}

#[test]
fn only_six_ascii_digits_are_a_code() {
    for text in ["", "36734", "3673450", "36734a", "+67345", "-67345", " 67345", "36 345", "٣٦٧", "367345\n"]
    {
        assert_eq!(secret().check(text, NOW_MS, None), Err(TotpRefusal::Malformed), "{text:?}");
    }
}

#[test]
fn a_secret_has_160_bits_at_least() {
    assert_eq!(
        TotpSecret::new(&[0; 19], TotpHash::Sha1, TotpDigits::Six).err(),
        Some(TotpSecretError { bytes: 19 })
    );
    assert_eq!(
        TotpSecret::new(&[0; 65], TotpHash::Sha1, TotpDigits::Six).err(),
        Some(TotpSecretError { bytes: 65 })
    );
}

#[test]
fn the_address_for_the_authenticator_names_issuer_and_account_escaped() {
    assert_eq!(
        secret().to_uri("Acme & Co", "ann:a@example.com").as_str(),
        "otpauth://totp/Acme%20%26%20Co:ann%3Aa%40example.com?secret=AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT&issuer=Acme%20%26%20Co&algorithm=SHA1&digits=6&period=30"
    );
    assert_eq!(format!("{:?}", secret()), "TotpSecret(Sha1, Six, ..)");
}

fn hasher() -> TokenHasher {
    TokenHasher::new(TokenKey::new(5, &[9; 32]).expect("32 bytes"), vec![]).expect("one key")
}

fn codes() -> [RecoveryCode; RECOVERY_CODES] {
    RecoveryCode::set(core::array::from_fn(|i| [i as u8; 16]))
}

#[test]
fn a_recovery_code_and_its_hash_are_those_of_another_implementation() {
    let code = RecoveryCode::from_random(core::array::from_fn(|i| i as u8));
    assert_eq!(code.to_text().as_str(), "000G-40R4-0M30-E209-185G-R38E-1ZCW");
    let stored = "000000051c564664b5aca6811bd2001ad233390fd871f51e8aa9eed9a38f0f0071b58b43";
    assert_eq!(hex::encode(code.hash(&hasher()).to_bytes()), stored);
    assert_eq!(format!("{code:?}"), "RecoveryCode(..)");
}

#[test]
fn recovery_codes_are_read_as_people_type_them() {
    let stored = [RecoveryCode::from_random(core::array::from_fn(|i| i as u8)).hash(&hasher())];
    for typed in [
        "000G-40R4-0M30-E209-185G-R38E-1ZCW",
        "000g40r40m30e209185gr38e1zcw",
        "OooG 4oR4 oM3o E2o9 i85G R38E LZCW",
        " 000G--40R4-0M30-E209-185G-R38E-1ZCW ",
    ] {
        let code = RecoveryCode::parse(typed).expect(typed);
        assert_eq!(code.find(&hasher(), &stored), Some(0), "{typed}");
    }
}

#[test]
fn a_recovery_code_is_found_among_ten_and_gone_when_removed() {
    let mut stored: Vec<TokenHash<_>> = codes().iter().map(|code| code.hash(&hasher())).collect();
    for (index, code) in codes().iter().enumerate() {
        assert_eq!(code.find(&hasher(), &stored), Some(index));
    }
    stored.remove(3);
    assert_eq!(codes()[3].find(&hasher(), &stored), None);
    assert_eq!(RecoveryCode::from_random([99; 16]).find(&hasher(), &stored), None);
}

#[test]
fn one_wrong_digit_is_a_typing_error_and_not_another_code() {
    let text = RecoveryCode::from_random(core::array::from_fn(|i| i as u8)).to_text();
    for at in (0..text.len()).filter(|at| &text[*at..=*at] != "-") {
        for digit in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|d| !text[at..].starts_with(*d)) {
            let changed = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            assert_eq!(RecoveryCode::parse(&changed).err(), Some(RecoveryCodeRefused), "{changed}");
        }
    }
    for text in
        ["", "-", &text[1..], &text[..33], &format!("{}0", *text), &text.replace('G', "U"), &"0".repeat(64)]
    {
        assert_eq!(RecoveryCode::parse(text).err(), Some(RecoveryCodeRefused), "{text}");
    }
}

proptest! {
    #[test]
    fn any_recovery_code_is_read_back(bytes: [u8; 16]) {
        let code = RecoveryCode::from_random(bytes);
        let read = RecoveryCode::parse(&code.to_text()).expect("its own text");
        prop_assert_eq!(read.hash(&hasher()), code.hash(&hasher()));
    }

    #[test]
    fn no_text_makes_a_code_panic(text in "\\PC{0,80}", digits in "[0-9a-zA-Z -]{0,70}", now: u64, last: Option<u64>) {
        let _ = RecoveryCode::parse(&text);
        let _ = RecoveryCode::parse(&digits);
        let _ = secret().check(&text, now, last.map(TotpStep));
        let _ = secret().check("123456", now, last.map(TotpStep));
    }

    #[test]
    fn an_accepted_step_is_always_greater_than_the_last(last in STEP - 3..STEP + 3, typed in STEP - 3..STEP + 3) {
        if let Ok(step) = secret().check(&code(typed), NOW_MS, Some(TotpStep(last))) {
            prop_assert!(step.0 > last && step.0.abs_diff(STEP) <= 1);
        }
    }
}
