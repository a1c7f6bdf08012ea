//! Whole proofs and their JSON documents.

use ledger_verify::ProofError;
use ledger_verify::header::BlockHeader;
use ledger_verify::log::{inclusion_path, root_of};
use ledger_verify::note::{Checkpoint, NoteError, SignedCheckpoint, SigningKey, VerifierKey};
use ledger_verify::proof::{
    Claim, DOCUMENT_BYTES_MAX, Evidence, Subject, from_json, log_key_name, log_origin, to_json, verify,
};

use crate::fixture::{
    GENESIS_TIME_MS, LEDGER_ID, SEED, VAULT_ID, VIEWER, Vault, entity, log_key, relationship,
};

fn keys() -> Vec<VerifierKey> {
    vec![log_key().verifier_key()]
}

fn check(document: &[u8]) -> Result<Claim, ProofError> {
    let (subject, evidence) = from_json(document)?;
    verify(&subject, &evidence, &keys())
}

fn document(subject: &Subject) -> String {
    to_json(subject, &Vault::five_blocks().evidence(subject))
}

#[test]
fn an_entity_is_proved_with_its_value_version_and_heights() {
    let vault = Vault::five_blocks();
    let subject = entity("config/limit");
    let claim = check(document(&subject).as_bytes()).unwrap();
    let expected = Claim {
        ledger_id: LEDGER_ID,
        vault_id: VAULT_ID,
        subject,
        present: true,
        value: Some(b"250".to_vec()),
        version: 4,
        modified_height: 3,
        expires_at_ms: 0,
        height: 4,
        block_hash: vault.headers[4].leaf_hash(),
        state_root: vault.headers[4].state_root,
        time_ms: GENESIS_TIME_MS + 4_000,
        checkpoint_size: 5,
        checkpoint_root: root_of(&vault.log()),
        origin: "strongroom/01931f2e4a0070018a5b102030405060/01931f2e-4b11-7234-9c6d-a1b2c3d4e5f6".to_owned(),
        key_name: "strongroom/01931f2e4a0070018a5b102030405060".to_owned(),
    };
    assert_eq!(claim, expected);
}

#[test]
fn a_relationship_is_proved_present_and_has_no_value() {
    let claim = check(document(&relationship(&VIEWER)).as_bytes()).unwrap();
    assert_eq!((claim.present, claim.value, claim.version, claim.modified_height), (true, None, 2, 2));
}

#[test]
fn absence_is_proved_through_an_empty_place_and_through_another_leaf() {
    let vault = Vault::five_blocks();
    for ends_at_leaf in [false, true] {
        let subject = vault.absent(ends_at_leaf);
        let evidence = vault.evidence(&subject);
        assert_eq!(evidence.state_proof.other_leaf.is_some(), ends_at_leaf);
        let claim = check(to_json(&subject, &evidence).as_bytes()).unwrap();
        assert!(!claim.expired_at(u64::MAX));
        assert_eq!((claim.present, claim.value, claim.version, claim.expires_at_ms), (false, None, 0, 0));
    }
    // What was expired and what was deleted is absent, too.
    assert!(!check(document(&entity("session/9")).as_bytes()).unwrap().present);
}

#[test]
fn a_record_is_expired_once_its_time_lies_before_now() {
    let claim = check(document(&entity("config/region")).as_bytes()).unwrap();
    let expires_at_ms = GENESIS_TIME_MS + 86_400_000;
    assert_eq!(claim.expires_at_ms, expires_at_ms);
    assert!(!claim.expired_at(expires_at_ms) && claim.expired_at(expires_at_ms + 1));
    let lasting = check(document(&entity("config/limit")).as_bytes()).unwrap();
    assert!(!lasting.expired_at(u64::MAX));
}

#[test]
fn every_flipped_bit_of_a_presence_document_is_refused() {
    let vault = Vault::five_blocks();
    for (subject, height) in [(entity("config/limit"), 3), (relationship(&VIEWER), 4)] {
        let document = to_json(&subject, &vault.evidence_at(&subject, height)).into_bytes();
        assert!(check(&document).is_ok());
        for bit in 0..8 * document.len() {
            let mut changed = document.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&changed).is_err(), "bit {bit} of {}", String::from_utf8_lossy(&changed));
        }
    }
}

#[test]
fn a_flipped_bit_of_an_absence_document_is_refused_or_says_another_true_thing() {
    let vault = Vault::five_blocks();
    for ends_at_leaf in [false, true] {
        let subject = vault.absent(ends_at_leaf);
        let document = document(&subject).into_bytes();
        let mut other_subjects = 0;
        for bit in 0..8 * document.len() {
            let mut changed = document.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // One empty place stands for many keys, so only the key in the document may change, to another absent one.
            if let Ok(claim) = check(&changed) {
                assert!(!claim.present && claim.subject != subject);
                assert!(!vault.leaves.contains_key(&claim.subject.state_key().encode()));
                other_subjects += 1;
            }
        }
        assert!(other_subjects < 80, "{other_subjects}");
    }
}

#[test]
fn a_document_cut_or_extended_at_any_byte_is_refused() {
    let document = document(&entity("config/limit"));
    for length in 0..document.len() {
        assert!(from_json(&document.as_bytes()[..length]).is_err(), "{length}");
    }
    for tail in ["\n", " ", "\0", "{}"] {
        assert!(from_json(format!("{document}{tail}").as_bytes()).is_err());
    }
    let large = vec![b' '; DOCUMENT_BYTES_MAX + 1];
    assert!(matches!(from_json(&large), Err(ProofError::TooLarge { .. })));
}

#[test]
fn unknown_missing_and_repeated_fields_are_refused() {
    let document = document(&entity("config/limit"));
    for (from, to) in [
        ("{\n  \"format\"", "{\n  \"extra\": 1,\n  \"format\""),
        ("\"entity\": {\n", "\"entity\": {\n      \"extra\": 1,\n"),
        ("\"state_proof\": {\n", "\"state_proof\": {\n    \"extra\": 1,\n"),
        ("\"subject\": {\n", "\"subject\": {\n    \"extra\": {},\n"),
        ("    \"other_leaf\": null", "    \"other_leaf\": null,\n    \"other_leaf\": null"),
        ("  \"format\": \"strongroom.proof.v1\",\n", ""),
        (",\n    \"other_leaf\": null", ""),
        ("\"entity\"", "\"Entity\""),
    ] {
        let changed = document.replacen(from, to, 1);
        assert_ne!(changed, document, "{from}");
        assert!(from_json(changed.as_bytes()).is_err(), "{changed}");
    }
    let other_format = document.replacen("proof.v1", "proof.v2", 1);
    assert!(matches!(from_json(other_format.as_bytes()), Err(ProofError::Format { .. })));
}

#[test]
fn the_same_content_in_other_bytes_is_refused() {
    let subject = entity("config/limit");
    let evidence = Vault::five_blocks().evidence(&subject);
    let document = to_json(&subject, &evidence);
    let compact = document.replace("\n  ", "\n");
    let escaped = document.replacen("config/limit", "config\\/limit", 1);
    let unicode = document.replacen("config", "\\u0063onfig", 1);
    let windows = document.replace('\n', "\r\n");
    let spaced = document.replacen(": null", " : null", 1);
    let unended = document.trim_end().to_owned();
    for changed in [compact, escaped, unicode, windows, spaced, unended] {
        assert_ne!(changed, document);
        let given = from_json(changed.as_bytes());
        assert!(matches!(given, Err(ProofError::NotCanonical { .. })), "{changed}");
    }
    let first_sibling = crate::fixture::hex(&evidence.state_proof.siblings[0]);
    let upper = document.replacen(&first_sibling, &first_sibling.to_uppercase(), 1);
    let longer = document.replacen(&first_sibling, &format!("{first_sibling}00"), 1);
    let header = document.split("\"header_base64\": \"").nth(1).unwrap().split('"').next().unwrap();
    let unpadded = document.replacen(header, header.trim_end_matches('='), 1);
    for changed in [upper, longer, unpadded] {
        assert!(matches!(from_json(changed.as_bytes()), Err(ProofError::Encoding { .. })), "{changed}");
    }
}

#[test]
fn keys_with_quotes_newlines_and_other_scripts_have_one_document_form() {
    for key in ["\"quoted\"", "back\\slash", "tab\tbell\u{7}", "日本語", "\u{7f}\u{2028}", "/"] {
        let subject = entity(key);
        let evidence = Vault::five_blocks().evidence(&subject);
        let document = to_json(&subject, &evidence);
        assert_eq!(from_json(document.as_bytes()), Ok((subject, evidence)));
    }
}

fn verdict(subject: &Subject, evidence: &Evidence) -> Result<Claim, ProofError> {
    verify(subject, evidence, &keys())
}

/// A checkpoint over other leaves or for another origin, signed with the true key or another.
fn resigned(evidence: &Evidence, checkpoint: &Checkpoint, key: &SigningKey) -> Evidence {
    Evidence { checkpoint: SignedCheckpoint::sign(checkpoint, key), ..evidence.clone() }
}

#[test]
fn an_answer_for_one_subject_proves_nothing_about_another() {
    let vault = Vault::five_blocks();
    let (limit, region) = (entity("config/limit"), entity("config/region"));
    assert!(verdict(&region, &vault.evidence(&limit)).is_err());
    assert_eq!(
        verdict(&relationship(&VIEWER), &vault.evidence(&limit)).unwrap_err(),
        ProofError::KindMismatch,
        "an entity's leaf is not a relationship's"
    );
    // Withholding the leaf does not turn presence into absence.
    let withheld = Evidence { leaf: None, ..vault.evidence(&limit) };
    assert!(matches!(verdict(&limit, &withheld), Err(ProofError::RootMismatch { tree: "state", .. })));
    // Nor does a leaf turn absence into presence.
    let absent = vault.absent(true);
    let leaf = vault.evidence(&limit).leaf;
    let forged = Evidence { leaf, ..vault.evidence(&absent) };
    assert_eq!(verdict(&absent, &forged), Err(ProofError::NotPresence));
}

#[test]
fn a_checkpoint_of_another_vault_ledger_or_key_is_refused() {
    let vault = Vault::five_blocks();
    let subject = entity("config/limit");
    let evidence = vault.evidence(&subject);
    let other_vault = Checkpoint { origin: log_origin(&LEDGER_ID, &[9; 16]), ..vault.checkpoint() };
    let given = verdict(&subject, &resigned(&evidence, &other_vault, &log_key()));
    assert!(matches!(given, Err(ProofError::Origin { .. })), "{given:?}");

    let stranger = SigningKey::from_seed(&log_key_name(&[9; 16]), &SEED).unwrap();
    let signed = resigned(&evidence, &vault.checkpoint(), &stranger);
    assert!(matches!(verdict(&subject, &signed), Err(ProofError::Note(NoteError::UnknownKey { .. }))));
    // Even a trusted key signs only for its own ledger.
    let given = verify(&subject, &signed, &[stranger.verifier_key()]);
    assert!(matches!(given, Err(ProofError::KeyName { .. })), "{given:?}");

    let impostor = SigningKey::from_seed(log_key().name(), &[9; 32]).unwrap();
    let signed = resigned(&evidence, &vault.checkpoint(), &impostor);
    assert!(matches!(verdict(&subject, &signed), Err(ProofError::Note(NoteError::UnknownKey { .. }))));
    assert!(verify(&subject, &evidence, &[]).is_err());
}

#[test]
fn a_header_that_is_not_at_its_own_height_under_the_checkpoint_is_refused() {
    let vault = Vault::five_blocks();
    let subject = entity("config/limit");
    let evidence = vault.evidence(&subject);
    // A checkpoint from before the block.
    let older = Checkpoint { size: 4, root: root_of(&vault.log()[..4]), ..vault.checkpoint() };
    let given = verdict(&subject, &resigned(&evidence, &older, &log_key()));
    assert_eq!(given, Err(ProofError::IndexOutOfRange { index: 4, size: 4 }));
    // A header whose claim of a height differs from the leaf it is.
    let moved = BlockHeader { height: 3, ..vault.headers[4] };
    let moved = Evidence { header: moved.encode().to_vec(), ..evidence.clone() };
    assert!(verdict(&subject, &moved).is_err());
    // The state of an older block is another state.
    let before = Evidence {
        header: vault.headers[2].encode().to_vec(),
        inclusion_path: inclusion_path(&vault.log(), 2).unwrap(),
        ..evidence
    };
    assert!(matches!(verdict(&subject, &before), Err(ProofError::RootMismatch { tree: "state", .. })));
}

#[test]
fn subjects_and_parts_beyond_the_limits_are_refused() {
    let vault = Vault::five_blocks();
    let subject = entity("config/limit");
    let evidence = vault.evidence(&subject);
    for subject in [
        entity(""),
        entity(&"k".repeat(1_025)),
        Subject::Relationship { resource: "r".repeat(513), relation: "r".into(), subject: "s".into() },
        Subject::Relationship { resource: "r".into(), relation: "r".repeat(65), subject: "s".into() },
        Subject::Relationship { resource: "r".into(), relation: "r".into(), subject: "s".repeat(70_000) },
        Subject::Relationship { resource: "r".into(), relation: String::new(), subject: "s".into() },
    ] {
        let given = verdict(&subject, &evidence);
        assert!(
            matches!(given, Err(ProofError::TooLarge { .. } | ProofError::EmptySubject { .. })),
            "{given:?}"
        );
    }
    let mut siblings = evidence.clone();
    siblings.state_proof.siblings = vec![[1; 32]; 257];
    let path = Evidence { inclusion_path: vec![[1; 32]; 65], ..evidence.clone() };
    let leaf = Evidence { leaf: Some(vec![1; 26 + 1_048_577]), ..evidence };
    for evidence in [siblings, path, leaf] {
        assert!(matches!(verdict(&subject, &evidence), Err(ProofError::TooLarge { .. })));
        assert!(matches!(
            from_json(to_json(&subject, &evidence).as_bytes()),
            Err(ProofError::TooLarge { .. })
        ));
    }
}
