//! Signed checkpoints and the text forms of keys.

use ledger_verify::Hash;
use ledger_verify::note::{Checkpoint, NOTE_BYTES_MAX, NoteError, SignedCheckpoint, SigningKey, VerifierKey};
use proptest::prelude::*;

use crate::fixture::{SEED, Vault, log_key};

// From the documentation of golang.org/x/mod/sumdb/note.
const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fn sample() -> (Checkpoint, String) {
    let checkpoint = Vault::five_blocks().checkpoint();
    let text = SignedCheckpoint::sign(&checkpoint, &log_key());
    (checkpoint, text)
}

#[test]
fn a_signed_checkpoint_opens_with_its_key_and_says_what_was_signed() {
    let (checkpoint, text) = sample();
    assert_eq!(SignedCheckpoint::open(&text, &[log_key().verifier_key()]), Ok(checkpoint.clone()));
    assert_eq!(Checkpoint::parse(&checkpoint.encode()), Ok(checkpoint));
    let signed = SignedCheckpoint::parse(&text).unwrap();
    assert_eq!((signed.key_name(), signed.key_id()), (log_key().name(), log_key().verifier_key().key_id()));
}

#[test]
fn the_published_go_keys_are_read_and_written() {
    let private = SigningKey::parse(GO_PRIVATE).unwrap();
    assert_eq!(private.verifier_key().to_string(), GO_PUBLIC);
    assert_eq!(private.to_secret_text().as_str(), GO_PRIVATE);
    let public: VerifierKey = GO_PUBLIC.parse().unwrap();
    assert_eq!((public.name(), public.key_id()), ("PeterNeumann", 0xc74f_20a3));
}

#[test]
fn an_unknown_key_and_a_wrong_key_of_the_same_name_are_refused() {
    let (_, text) = sample();
    let other = SigningKey::from_seed(log_key().name(), &[9; 32]).unwrap().verifier_key();
    let renamed = SigningKey::from_seed("another", &SEED).unwrap().verifier_key();
    for keys in [vec![], vec![other.clone()], vec![renamed, other.clone()]] {
        assert!(matches!(SignedCheckpoint::open(&text, &keys), Err(NoteError::UnknownKey { .. })));
    }
    // During a rotation several keys are trusted; one of them suffices.
    assert!(SignedCheckpoint::open(&text, &[other, log_key().verifier_key()]).is_ok());
}

#[test]
fn no_flipped_bit_of_a_signed_checkpoint_is_accepted() {
    let (_, text) = sample();
    let keys = [log_key().verifier_key()];
    let mut parsed = 0;
    for bit in 0..8 * text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = String::from_utf8(bytes) {
            parsed += 1;
            assert!(SignedCheckpoint::open(&changed, &keys).is_err(), "bit {bit}");
        }
    }
    assert!(parsed > 1_000);
}

#[test]
fn a_second_signature_line_or_anything_after_the_first_is_refused() {
    let (checkpoint, text) = sample();
    let keys = [log_key().verifier_key(), SigningKey::parse(GO_PRIVATE).unwrap().verifier_key()];
    let line = text.split_once("\n\n").unwrap().1;
    let second = SignedCheckpoint::sign(&checkpoint, &SigningKey::parse(GO_PRIVATE).unwrap());
    let second = second.split_once("\n\n").unwrap().1;
    for tail in [line, second, "\n", "x", "\u{2014} a b\n", " "] {
        let given = SignedCheckpoint::open(&format!("{text}{tail}"), &keys);
        assert!(matches!(given, Err(NoteError::Structure { .. })), "{tail:?}: {given:?}");
    }
    for cut in 0..text.len() {
        if let Some(start) = text.get(..cut) {
            assert!(SignedCheckpoint::open(start, &keys).is_err(), "cut at {cut}");
        }
    }
    let large = SignedCheckpoint::open(&"x".repeat(NOTE_BYTES_MAX + 1), &keys);
    assert_eq!(large, Err(NoteError::TooLarge { given: NOTE_BYTES_MAX + 1 }));
}

#[test]
fn a_body_that_is_not_three_canonical_lines_is_refused_even_when_signed() {
    let root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(Checkpoint::parse(&format!("origin\n5\n{root}\n")).is_ok());
    let bodies = [
        format!("origin\n5\n{root}"),
        format!("origin\n5\n{root}\nextension\n"),
        format!("origin\n5\n{root}\n\n"),
        "origin\n5\n".to_owned(),
        String::new(),
        "\n".to_owned(),
        format!("\n5\n{root}\n"),
        format!("ori\tgin\n5\n{root}\n"),
        format!("origin\r\n5\n{root}\n"),
        format!("origin\n05\n{root}\n"),
        format!("origin\n+5\n{root}\n"),
        format!("origin\n-5\n{root}\n"),
        format!("origin\n\n{root}\n"),
        format!("origin\n 5\n{root}\n"),
        format!("origin\n18446744073709551616\n{root}\n"),
        format!("origin\n\u{0665}\n{root}\n"),
        format!("origin\n5\n{}\n", &root[..43]),
        format!("origin\n5\n{}B=\n", &root[..42]),
        format!("origin\n5\n{root} \n"),
        "origin\n5\nAAAA\n".to_owned(),
        format!("origin\n5\n{}\n", root.replacen("AA", "_-", 1)),
    ];
    for body in bodies {
        assert!(matches!(Checkpoint::parse(&body), Err(NoteError::Body { .. })), "{body:?}");
    }
    let zero = format!("origin\n0\n{root}\n");
    assert_eq!(Checkpoint::parse(&zero).unwrap().size, 0);
    let largest = format!("origin\n18446744073709551615\n{root}\n");
    assert_eq!(Checkpoint::parse(&largest).unwrap().size, u64::MAX);
}

#[test]
fn damaged_key_texts_are_refused() {
    for bad in [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+0c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX",
        "PeterNeumann+c74f20a3+AhpcK2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW ",
        GO_PRIVATE,
    ] {
        assert!(VerifierKey::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["", GO_PUBLIC, &GO_PRIVATE[..GO_PRIVATE.len() - 1], &GO_PRIVATE.replace("c74f", "c74e")] {
        assert!(SigningKey::parse(bad).is_err(), "{bad:?}");
    }
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", &"n".repeat(257)] {
        assert!(matches!(SigningKey::from_seed(name, &SEED), Err(NoteError::KeyName { .. })), "{name:?}");
    }
}

#[test]
fn a_public_key_of_small_order_or_in_another_encoding_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    // The field's prime plus 3: the same point as y = 3, written a second way.
    let mut second_form = [0xff; 32];
    (second_form[0], second_form[31]) = (0xf0, 0x7f);
    let mut first_form = [0; 32];
    first_form[0] = 3;
    assert!(VerifierKey::from_public_key("name", &first_form).is_ok());
    for (bytes, expected) in [(identity, "small order"), (second_form, "canonical encoding")] {
        let error = VerifierKey::from_public_key("name", &bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_seed_is_never_shown() {
    let shown = format!("{:?}", SigningKey::parse(GO_PRIVATE).unwrap());
    assert_eq!(shown, "SigningKey(PeterNeumann, id c74f20a3, seed redacted)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_checkpoint_round_trips(origin in "[^\\p{C}]{1,60}", size in any::<u64>(), root in any::<Hash>(), seed in any::<[u8; 32]>()) {
        let key = SigningKey::from_seed("strongroom/test", &seed).unwrap();
        let checkpoint = Checkpoint { origin, size, root };
        let text = SignedCheckpoint::sign(&checkpoint, &key);
        let read_back = VerifierKey::parse(&key.verifier_key().to_string()).unwrap();
        prop_assert_eq!(SignedCheckpoint::open(&text, &[read_back]), Ok(checkpoint));
        let private = SigningKey::parse(&key.to_secret_text()).unwrap();
        prop_assert_eq!(private.verifier_key(), key.verifier_key());
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic(text in any::<String>()) {
        let keys = [log_key().verifier_key()];
        prop_assert!(SignedCheckpoint::open(&text, &keys).is_err());
        prop_assert!(Checkpoint::parse(&text).is_err());
        prop_assert!(VerifierKey::parse(&text).is_err() && SigningKey::parse(&text).is_err());
    }
}
