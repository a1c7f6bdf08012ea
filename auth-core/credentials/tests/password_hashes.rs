//! Password hashes: those of other programs are verified, new ones are what other programs verify, hostile ones are refused.

use auth_credentials::password::{
    Argon2Cost, HashError, HashMemory, Password, PasswordHash, PasswordHasher, Pepper, PepperError, Peppers,
    PhcError, StoredAlgorithm, Verdict, limits,
};
use proptest::prelude::*;

const STAPLE: &str = "correct horse battery staple";
const SALT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn password(text: &str) -> Password {
    Password::new(text).expect("within the limit")
}

fn cheap() -> Argon2Cost {
    Argon2Cost::new(64, 1, 1).expect("within the limits")
}

fn hasher(peppers: Peppers) -> PasswordHasher {
    PasswordHasher::new(cheap(), peppers)
}

fn verify(text: &str, stored: &str) -> Verdict {
    let stored = PasswordHash::parse(stored).expect("a supported hash");
    let hasher = hasher(Peppers::none());
    hasher.verify(&password(text), &stored, &mut HashMemory::for_cost(cheap())).expect("computed")
}

/// Hashes that other programs made: argon2-cffi 25, the bcrypt package of Python, hashlib.
const OF_OTHERS: [(&str, &str, StoredAlgorithm); 11] = [
    (
        STAPLE,
        "$argon2id$v=19$m=1024,t=2,p=2$AAECAwQFBgcICQoLDA0ODw$inca95dk3lixpHKZueOfBEc9pA2zj7+JHojFXLYQCAU",
        StoredAlgorithm::Argon2id,
    ),
    (
        STAPLE,
        "$argon2i$v=19$m=1024,t=2,p=2$AAECAwQFBgcICQoLDA0ODw$qTVYM3CSKckQZjwdPv2onIjGuud005R0tNAnnC1ImHw",
        StoredAlgorithm::Argon2i,
    ),
    (
        STAPLE,
        "$argon2d$v=19$m=1024,t=2,p=2$AAECAwQFBgcICQoLDA0ODw$e/Ldf8aASXhVuTEdB1gCzfAArL878YPsLGp+59DogMI",
        StoredAlgorithm::Argon2d,
    ),
    (
        "pässword 密码",
        "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$2xjaSkX7xwt7IjcFC+UqIkkLXCf15az+GwHfWuzGclQ",
        StoredAlgorithm::Argon2id,
    ),
    (
        "password",
        "$argon2i$m=256,t=2,p=1$c29tZXNhbHQ$gmpZvgPDlIhI62NF38WiW67NTqgIx4Cb",
        StoredAlgorithm::Argon2i,
    ),
    (STAPLE, "$2b$05$CCCCCCCCCCCCCCCCCCCCC.poIKaw08HWUz4zkVKLs8VPIydUmXBPC", StoredAlgorithm::Bcrypt),
    // The vector of the original: "U*U" at cost 5.
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", StoredAlgorithm::Bcrypt),
    (
        STAPLE,
        "$scrypt$ln=10,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$mp90zEQd5XGhjEv4WArVH4Z0XRSzkGWtJK2S/AXJlRU",
        StoredAlgorithm::Scrypt,
    ),
    (
        STAPLE,
        "$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$11kKyiyYAc8G7rp3KmncMc44YlkdllIqxOa7pq0fMaU",
        StoredAlgorithm::Scrypt,
    ),
    (
        STAPLE,
        "$pbkdf2-sha256$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4",
        StoredAlgorithm::Pbkdf2,
    ),
    (
        STAPLE,
        "$pbkdf2-sha512$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$A6AmFIti7CKlYdoPiV9jf1d9llp37o27Wms8Zx8fwMI",
        StoredAlgorithm::Pbkdf2,
    ),
];

#[test]
fn hashes_of_other_programs_are_verified_and_wanted_anew() {
    for (text, stored, algorithm) in OF_OTHERS {
        assert_eq!(PasswordHash::parse(stored).expect(stored).algorithm(), algorithm, "{stored}");
        assert_eq!(verify(text, stored), Verdict::Match { needs_rehash: true }, "{stored}");
        for wrong in
            [format!("{text} "), format!(" {text}"), format!("x{text}"), text[1..].to_owned(), String::new()]
        {
            assert_eq!(verify(&wrong, stored), Verdict::Mismatch, "{wrong:?} {stored}");
        }
    }
}

#[test]
fn new_hashes_are_the_bytes_that_other_programs_make() {
    for (text, cost, expected) in
        [(STAPLE, (1_024, 2, 2), OF_OTHERS[0].1), ("pässword 密码", (19_456, 2, 1), OF_OTHERS[3].1)]
    {
        let cost = Argon2Cost::new(cost.0, cost.1, cost.2).expect("within the limits");
        let hasher = PasswordHasher::new(cost, Peppers::none());
        let stored = hasher.hash(&password(text), SALT, &mut HashMemory::for_cost(cost)).expect("hashed");
        assert_eq!(stored.as_str(), expected);
    }
}

#[test]
fn the_default_cost_is_the_floor_and_the_floors_are_those_of_the_list() {
    assert_eq!(Argon2Cost::default(), Argon2Cost::new(19_456, 2, 1).expect("within the limits"));
    assert_eq!(Argon2Cost::HARDENED, Argon2Cost::new(65_536, 3, 4).expect("within the limits"));
    for (kib, passes, enough) in [
        (47_104, 1, true),
        (47_103, 1, false),
        (19_456, 2, true),
        (19_455, 2, false),
        (12_288, 3, true),
        (9_216, 4, true),
        (7_168, 5, true),
        (7_167, 5, false),
        (64, 1, false),
    ] {
        let cost = Argon2Cost::new(kib, passes, 1).expect("within the limits");
        assert_eq!(cost.is_at_least_the_floor(), enough, "{kib}/{passes}");
    }
}

fn pepper(id: u32, byte: u8) -> Pepper {
    Pepper::new(id, &[byte; 32]).expect("32 bytes")
}

#[test]
fn a_pepper_is_an_hmac_below_the_hash_and_its_id_is_in_the_text() {
    let cost = Argon2Cost::new(1_024, 2, 1).expect("within the limits");
    let hasher = PasswordHasher::new(cost, Peppers::new(pepper(1, 7), vec![]).expect("one"));
    let mut memory = HashMemory::for_cost(cost);
    let stored = hasher.hash(&password(STAPLE), SALT, &mut memory).expect("hashed");
    // The tag is argon2-cffi's over HMAC-SHA256(07…07, password) of Python's hmac.
    assert_eq!(
        stored.as_str(),
        "$argon2id$v=19$m=1024,t=2,p=1,keyid=AAAAAQ$AAECAwQFBgcICQoLDA0ODw$6/2iLacnzrrQCVMYwlP1nYpCtEb9F3tUE5r+XQq5LIU"
    );
    let read = PasswordHash::parse(stored.as_str()).expect("what was written is read");
    assert_eq!((read.pepper(), read.as_str()), (Some(1), stored.as_str()));
    let verdict = hasher.verify(&password(STAPLE), &read, &mut memory);
    assert_eq!(verdict, Ok(Verdict::Match { needs_rehash: false }));
}

#[test]
fn peppers_rotate_while_hashes_under_the_earlier_ones_still_match() {
    let mut memory = HashMemory::for_cost(cheap());
    let mut hash_under =
        |peppers| hasher(peppers).hash(&password(STAPLE), SALT, &mut memory).expect("hashed");
    let none = hash_under(Peppers::none());
    let first = hash_under(Peppers::new(pepper(1, 1), vec![]).expect("one"));

    let rotated = hasher(Peppers::new(pepper(2, 2), vec![pepper(1, 1)]).expect("two"));
    for stored in [&none, &first] {
        let verdict = rotated.verify(&password(STAPLE), stored, &mut memory);
        assert_eq!(verdict, Ok(Verdict::Match { needs_rehash: true }));
        assert_eq!(rotated.verify(&password("wrong"), stored, &mut memory), Ok(Verdict::Mismatch));
    }
    let second = rotated.hash(&password(STAPLE), SALT, &mut memory).expect("hashed");
    assert_eq!(second.pepper(), Some(2));
    assert!(!rotated.needs_rehash(&second));
    assert_eq!(
        hasher(Peppers::none()).verify(&password(STAPLE), &second, &mut memory),
        Err(HashError::UnknownPepper { id: 2 })
    );
    // The wrong key under the right id is a wrong password, not a right one.
    let other_key = hasher(Peppers::new(pepper(2, 3), vec![]).expect("one"));
    assert_eq!(other_key.verify(&password(STAPLE), &second, &mut memory), Ok(Verdict::Mismatch));
    let retired = hasher(Peppers::retired(vec![pepper(2, 2)]).expect("one"));
    assert_eq!(
        retired.verify(&password(STAPLE), &second, &mut memory),
        Ok(Verdict::Match { needs_rehash: true })
    );
}

#[test]
fn peppers_that_are_short_or_share_an_id_are_refused() {
    assert_eq!(Pepper::new(1, &[0; 31]).err(), Some(PepperError::KeyLength { bytes: 31 }));
    let shared = Peppers::new(pepper(1, 1), vec![pepper(2, 2), pepper(1, 3)]);
    assert_eq!(shared.err(), Some(PepperError::RepeatedId { id: 1 }));
    let many = (1..=64).map(|id| pepper(id, 1)).collect();
    assert_eq!(Peppers::new(pepper(0, 1), many).err(), Some(PepperError::TooMany));
    assert_eq!(format!("{:?}", pepper(9, 1)), "Pepper(9, ..)");
}

#[test]
fn a_hash_of_another_cost_wants_to_be_made_anew_and_an_equal_one_does_not() {
    let mut memory = HashMemory::for_cost(cheap());
    let stored = hasher(Peppers::none()).hash(&password(STAPLE), SALT, &mut memory).expect("hashed");
    assert!(!hasher(Peppers::none()).needs_rehash(&stored));
    for (kib, passes, lanes) in [(65, 1, 1), (64, 2, 1), (64, 1, 2)] {
        let other = Argon2Cost::new(kib, passes, lanes).expect("within the limits");
        assert!(PasswordHasher::new(other, Peppers::none()).needs_rehash(&stored));
    }
}

#[test]
fn passwords_are_hashed_exactly_as_received() {
    let hasher = hasher(Peppers::none());
    let mut memory = HashMemory::for_cost(cheap());
    // One letter as one code point and as two: the same to a reader, two passwords here. Case, spaces and the 73rd byte count.
    let long = "x".repeat(100);
    let variants =
        ["é", "e\u{301}", "pass", "pass ", " pass", "Pass", "pass\0", "", &long, &long[1..], &long[..72]];
    for chosen in variants {
        let stored = hasher.hash(&password(chosen), SALT, &mut memory).expect("hashed");
        for typed in variants {
            let verdict = hasher.verify(&password(typed), &stored, &mut memory).expect("computed");
            assert_eq!(verdict.is_match(), typed == chosen, "{typed:?} for {chosen:?}");
        }
    }
}

#[test]
fn bcrypt_reads_72_bytes_as_it_always_did_and_a_zero_never_matches() {
    let stored = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.D7RDOYXakZhsFmh/LdqQNx0kQ424AFS";
    let long = "x".repeat(90);
    for length in [72, 73, 90] {
        assert!(verify(&long[..length], stored).is_match(), "{length}");
    }
    assert_eq!(verify(&long[..71], stored), Verdict::Mismatch);
    // bcrypt repeats its key: these three are one password to it.
    let of_u = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    assert!(verify("U*U", of_u).is_match());
    assert_eq!(verify("U*U\0U*U", of_u), Verdict::Mismatch);
}

#[test]
fn an_unknown_user_costs_a_hash_and_matches_nothing() {
    let hasher = hasher(Peppers::new(pepper(1, 1), vec![]).expect("one"));
    let mut memory = HashMemory::for_cost(cheap());
    assert_eq!(memory.bytes(), 0);
    assert_eq!(hasher.verify_unknown(&password(""), &mut memory), Ok(Verdict::Mismatch));
    assert_eq!(memory.bytes(), 64 * 1_024, "the work of the target cost was done");
}

#[test]
fn memory_is_kept_for_the_target_cost_and_given_back_beyond_it() {
    let hasher = hasher(Peppers::none());
    let mut memory = HashMemory::for_cost(cheap());
    let small = hasher.hash(&password("a"), SALT, &mut memory).expect("hashed");
    assert_eq!(memory.bytes(), 64 * 1_024);
    let large = PasswordHash::parse(OF_OTHERS[0].1).expect("supported");
    assert!(hasher.verify(&password(STAPLE), &large, &mut memory).expect("computed").is_match());
    assert!(memory.bytes() <= 64 * 1_024, "{}", memory.bytes());
    assert!(hasher.verify(&password("a"), &small, &mut memory).expect("computed").is_match());
}

const TAIL: &str = "$AAECAwQFBgcICQoLDA0ODw$inca95dk3lixpHKZueOfBEc9pA2zj7+JHojFXLYQCAU";

#[test]
fn parameters_beyond_the_limits_are_refused_when_read_before_anything_is_computed() {
    let out = |parameter| Some(PhcError::OutOfBounds { parameter });
    for (text, error) in [
        ("$argon2id$v=19$m=262145,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=262144,t=5,p=1", out("m")),
        ("$argon2id$v=19$m=4294967295,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=4294967296,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=99999999999999999999,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=7,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=15,t=1,p=2", out("m")),
        ("$argon2id$v=19$m=0,t=1,p=1", out("m")),
        ("$argon2id$v=19$m=64,t=65,p=1", out("t")),
        ("$argon2id$v=19$m=64,t=0,p=1", out("t")),
        ("$argon2id$v=19$m=64,t=4294967295,p=1", out("t")),
        ("$argon2id$v=19$m=262144,t=1,p=17", out("p")),
        ("$argon2id$v=19$m=64,t=1,p=0", out("p")),
        ("$scrypt$ln=0,r=8,p=1", out("ln")),
        ("$scrypt$ln=25,r=1,p=1", out("ln")),
        ("$scrypt$ln=63,r=8,p=1", out("ln")),
        ("$scrypt$ln=18,r=9,p=1", out("r")),
        ("$scrypt$ln=18,r=0,p=1", out("r")),
        ("$scrypt$ln=1,r=4294967295,p=1", out("r")),
        ("$scrypt$ln=18,r=8,p=5", out("p")),
        ("$scrypt$ln=14,r=8,p=0", out("p")),
        ("$scrypt$ln=1,r=1,p=4294967295", out("p")),
        ("$pbkdf2-sha256$i=2000001,l=32", out("i")),
        ("$pbkdf2-sha256$i=0,l=32", out("i")),
    ] {
        assert_eq!(PasswordHash::parse(&format!("{text}{TAIL}")).err(), error, "{text}");
    }
    for cost in ["15", "31", "03", "99"] {
        let text = format!("$2b${cost}$CCCCCCCCCCCCCCCCCCCCC.poIKaw08HWUz4zkVKLs8VPIydUmXBPC");
        assert_eq!(PasswordHash::parse(&text).err(), out("cost"), "{cost}");
    }
    let long = format!("$argon2id$v=19$m=64,t=1,p=1${}$AAAA", "A".repeat(limits::TEXT_BYTES_MAX));
    assert_eq!(PasswordHash::parse(&long).err(), Some(PhcError::TooLong));
}

#[test]
fn the_largest_parameters_within_the_limits_are_read() {
    for text in [
        "$argon2id$v=19$m=262144,t=4,p=16",
        "$argon2id$v=19$m=16384,t=64,p=1",
        "$scrypt$ln=17,r=8,p=1",
        "$scrypt$ln=18,r=8,p=4",
        "$scrypt$ln=21,r=1,p=4",
        "$pbkdf2-sha512$i=2000000,l=32",
    ] {
        assert!(PasswordHash::parse(&format!("{text}{TAIL}")).is_ok(), "{text}");
    }
}

#[test]
fn near_misses_of_the_form_are_refused() {
    let good = OF_OTHERS[0].1;
    let replace = |from: &str, to: &str| good.replacen(from, to, 1);
    for text in [
        String::new(),
        "$".into(),
        "$argon2id".into(),
        "password".into(),
        good[1..].to_owned(),
        format!("{good}$"),
        format!("{good}="),
        format!("{good} "),
        format!("{good}\n"),
        format!(" {good}"),
        replace("m=1024", "m=+1024"),
        replace("m=1024", "m=01024"),
        replace("m=1024", "m=0x400"),
        replace("m=1024", "m="),
        replace("m=1024,t=2", "t=2,m=1024"),
        replace(",p=2", ""),
        replace(",p=2", ",p=2,"),
        replace(",p=2", ",p=2,data=AAAA"),
        replace(",p=2", ",p=2,keyid="),
        replace(",p=2", ",p=2,keyid=AAAAAAE"),
        replace(",p=2", ",p=2,keyid=AAAAAR"),
        replace(",p=2", ",p=2,keyid=AAAAAQ,keyid=AAAAAQ"),
        replace("v=19", "v=18"),
        replace("v=19", "v=019"),
        replace("argon2id", "argon2"),
        replace("argon2id", "ARGON2ID"),
        replace("$AAECAwQFBgcICQoLDA0ODw", "$AAECAwQFBg"),
        replace("$AAECAwQFBgcICQoLDA0ODw", "$AAECAwQFBgcICQoLDA0ODx"),
        replace("$AAECAwQFBgcICQoLDA0ODw", "$AAECAwQFBgcICQoLDA0ODw=="),
        replace("inca95dk3lixpHKZueOfBEc9pA2zj7+JHojFXLYQCAU", "inca"),
        replace("inca95dk", "inca-5dk"),
        "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".into(),
        "$2b$5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".into(),
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe".into(),
        "$2b$+5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".into(),
        "$pbkdf2-sha256$i=1000,l=31$AAECAwQFBgcICQoLDA0ODw$ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4"
            .into(),
        "$pbkdf2-sha1$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4".into(),
        "$6$rounds=5000$salt$hash".into(),
    ] {
        assert!(PasswordHash::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn neither_salt_nor_tag_is_in_the_debug_text() {
    let stored = PasswordHash::parse(OF_OTHERS[0].1).expect("supported");
    assert_eq!(format!("{stored:?}"), "PasswordHash(Argon2id, ..)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_text_makes_reading_panic_and_what_is_read_is_within_the_limits(
        which in 0_usize..OF_OTHERS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[$,=a-z0-9A-Z/+. é]{0,12}"), 0..4),
    ) {
        let mut text = OF_OTHERS[which].1.to_owned();
        for (at, with) in edits {
            let at = at.index(text.len() + 1);
            if text.is_char_boundary(at) {
                text.insert_str(at, &with);
            }
        }
        if let Ok(read) = PasswordHash::parse(&text) {
            prop_assert_eq!(read.as_str(), text.as_str());
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,600}") {
        let _ = PasswordHash::parse(&text);
        let _ = PasswordHash::parse(&format!("$argon2id${text}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_password_verifies_and_no_other_does(text in "\\PC{0,80}", other in "\\PC{0,80}", salt: [u8; 16]) {
        let hasher = hasher(Peppers::none());
        let mut memory = HashMemory::for_cost(cheap());
        let stored = hasher.hash(&password(&text), salt, &mut memory).expect("hashed");
        let read = PasswordHash::parse(stored.as_str()).expect("what was written is read");
        let right = hasher.verify(&password(&text), &read, &mut memory);
        prop_assert_eq!(right, Ok(Verdict::Match { needs_rehash: false }));
        let wrong = hasher.verify(&password(&other), &read, &mut memory).expect("computed");
        prop_assert_eq!(wrong.is_match(), other == text);
    }
}
