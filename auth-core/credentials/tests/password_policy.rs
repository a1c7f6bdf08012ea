//! What may become a password: length in code points, common passwords, context words; and nothing about composition.

use auth_credentials::password::{
    BreachedFilter, COMMON_PASSWORDS, ContextWords, Factors, PASSWORD_BYTES_MAX, Password, PasswordError,
    PasswordPolicy, PasswordRefusal, PolicyError, is_common,
};
use proptest::prelude::*;

fn check(text: &str, factors: Factors, context: &ContextWords) -> Result<(), PasswordRefusal> {
    let password = Password::new(text).expect("within the limit");
    PasswordPolicy::default().check::<Vec<u8>>(&password, factors, context, None)
}

fn alone(text: &str) -> Result<(), PasswordRefusal> {
    check(text, Factors::PasswordOnly, &ContextWords::none())
}

fn with_second_factor(text: &str) -> Result<(), PasswordRefusal> {
    check(text, Factors::WithSecondFactor, &ContextWords::none())
}

#[test]
fn fifteen_code_points_are_needed_alone_and_eight_with_a_second_factor() {
    let short =
        |code_points, code_points_min| Err(PasswordRefusal::TooShort { code_points, code_points_min });
    assert_eq!(alone("mauve tractor!"), short(14, 15));
    assert_eq!(alone("mauve tractors!"), Ok(()));
    assert_eq!(with_second_factor("tract7!"), short(7, 8));
    assert_eq!(with_second_factor("tract7!x"), Ok(()));
    assert_eq!(alone(""), short(0, 15));
}

#[test]
fn length_is_counted_in_code_points_not_in_bytes() {
    // 14 code points in 42 bytes, then 15.
    let fourteen = "密码安全存储系统测试用例甲乙";
    assert_eq!((fourteen.chars().count(), fourteen.len()), (14, 42));
    assert!(matches!(alone(fourteen), Err(PasswordRefusal::TooShort { code_points: 14, .. })));
    assert_eq!(alone(&format!("{fourteen}丙")), Ok(()));
}

#[test]
fn long_passwords_are_accepted_up_to_4096_bytes() {
    for length in [64, 128, 1_024, PASSWORD_BYTES_MAX] {
        let text: String = (0..length).map(|i| char::from(b'!' + (i * i % 89) as u8)).collect();
        assert_eq!(alone(&text), Ok(()), "{length} bytes");
    }
    let beyond = "a".repeat(PASSWORD_BYTES_MAX + 1);
    assert_eq!(Password::new(&beyond).err(), Some(PasswordError::TooLong { bytes: PASSWORD_BYTES_MAX + 1 }));
}

#[test]
fn no_composition_is_asked_for() {
    for text in [
        "mauve tractor hums",
        "MAUVE TRACTOR HUMS",
        "8301746529173640",
        "— – — ‑ ‐ ⁃ − ‒ ⸺",
        "               \t\n x",
    ] {
        assert_eq!(alone(text), Ok(()), "{text:?}");
    }
}

#[test]
fn the_list_has_at_least_3000_passwords_that_are_sorted_lower_case_and_long_enough_to_matter() {
    let list: Vec<&str> = COMMON_PASSWORDS.lines().collect();
    assert!(list.len() >= 3_000, "{}", list.len());
    assert!(list.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
    assert!(list.iter().all(|p| p.len() >= 8 && p.len() <= 64 && p.is_ascii() && p.to_lowercase() == **p));
    // And enough that the policy without a second factor would let through by its length.
    assert!(list.iter().filter(|p| p.len() >= 15).count() >= 1_000);
}

#[test]
fn common_passwords_are_refused_in_any_case_of_their_letters() {
    for text in [
        "password1234",
        "PassWord1234",
        "qwertyuiop",
        "Iloveyou2024!",
        "letmein123",
        "P@ssw0rd!",
        "football1",
    ] {
        assert_eq!(with_second_factor(text), Err(PasswordRefusal::Common), "{text}");
    }
    for text in
        ["123456789012345", "qwertyuiopasdfgh", "correct horse battery staple", "abcdefghijklmnopqrstuvwxyz"]
    {
        assert_eq!(alone(text), Err(PasswordRefusal::Common), "{text}");
    }
    for line in COMMON_PASSWORDS.lines() {
        assert!(is_common(line) && is_common(&line.to_uppercase()), "{line}");
    }
}

#[test]
fn repetitions_of_a_short_unit_or_of_a_common_password_are_common() {
    for text in [
        "aaaaaaaaaaaaaaa",
        "abcabcabcabcabcab",
        "12ab12ab12ab12ab",
        "password1234password1234",
        "Baseball1baseball1base",
    ] {
        assert_eq!(alone(text), Err(PasswordRefusal::Common), "{text}");
    }
    for text in ["abcdXabcdYabcdZ1", "mauve mauve tractor"] {
        assert_eq!(alone(text), Ok(()), "{text}");
    }
}

#[test]
fn passwords_made_of_the_account_or_the_service_are_refused() {
    let context =
        || ContextWords::none().with_email("Alice.Smithson@acme-rockets.example").with_word("Strongroom");
    for text in [
        "alice.smithson@acme-rockets.example",
        "AliceSmithson2026",
        "strongroom-2026!",
        "!!smithson.alice!!",
        "acme-rockets.example",
        "StrongroomAlice1",
    ] {
        assert_eq!(check(text, Factors::PasswordOnly, &context()), Err(PasswordRefusal::Context), "{text}");
    }
    for text in ["alice keeps mauve tractors", "strongroom of the lighthouse", "mauve tractors hum"] {
        assert_eq!(check(text, Factors::PasswordOnly, &context()), Ok(()), "{text}");
    }
    assert_eq!(check("alice2026x", Factors::WithSecondFactor, &context()), Err(PasswordRefusal::Context));
}

#[test]
fn a_breached_password_is_refused_as_such() {
    // SHA-1 of "mauve tractors hum", from another implementation.
    let known =
        hex::decode("b0b1cc2509eb41447525b1da1a34cedb1bb0bc81").expect("hex").try_into().expect("20 bytes");
    let file = auth_credentials::password::build_breached_filter([known]).expect("a filter");
    let filter = BreachedFilter::open(file).expect("a file that was just made");
    let password = Password::new("mauve tractors hum").expect("short");
    let policy = PasswordPolicy::default();
    let verdict = policy.check(&password, Factors::PasswordOnly, &ContextWords::none(), Some(&filter));
    assert_eq!(verdict, Err(PasswordRefusal::Breached));
}

#[test]
fn a_policy_below_eight_or_above_64_code_points_is_refused() {
    for code_points in [0, 7, 65] {
        let policy =
            PasswordPolicy { with_second_factor_code_points_min: code_points, ..PasswordPolicy::default() };
        assert_eq!(policy.validate(), Err(PolicyError::Minimum { code_points }));
        let policy =
            PasswordPolicy { single_factor_code_points_min: code_points, ..PasswordPolicy::default() };
        assert_eq!(policy.validate(), Err(PolicyError::Minimum { code_points }));
    }
    assert_eq!(PasswordPolicy::default().validate(), Ok(()));
}

#[test]
fn a_password_is_not_in_its_debug_text() {
    let shown = format!("{:?}", Password::new("mauve tractors hum").expect("short"));
    assert_eq!(shown, "Password(..)");
}

proptest! {
    #[test]
    fn no_text_makes_the_policy_panic(text in "\\PC{0,200}", email in "\\PC{0,80}", word in "\\PC{0,20}") {
        let context = ContextWords::none().with_email(&email).with_word(&word);
        let _ = check(&text, Factors::WithSecondFactor, &context);
    }

    #[test]
    fn any_unit_of_up_to_four_code_points_repeated_is_common(unit in "[a-z0-9é密 ]{1,4}", times in 4_usize..20, cut in 0_usize..4) {
        let mut text = unit.repeat(times);
        text.extend(unit.chars().take(cut));
        prop_assert!(is_common(&text));
    }
}
