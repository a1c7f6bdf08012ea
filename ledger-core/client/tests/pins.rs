//! A client believes what a trusted key signed, and notices when history changes.

mod scripted;

use std::sync::Arc;

use ledger_client::{
    ClientError, DirectoryPins, ErrorCode, FORKS_MAX, ForkEvidence, LedgerClient, MemoryPins, Pin, PinId,
    PinOutcome, PinStore, Trust,
};
use ledger_core::entity::EntityKey;
use ledger_core::names::{LedgerId, VaultId, VaultRef};
use ledger_verify::note::SigningKey;
use scripted::{KEY, LEDGER, Script, VAULT, client, client_with_pins, lock};

const ID: PinId = PinId { ledger: LedgerId(LEDGER), vault: VaultId(VAULT) };

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn key() -> EntityKey {
    EntityKey::new(KEY).expect("a valid key")
}

#[tokio::test]
async fn the_first_answer_is_first_use_and_later_ones_are_pinned() {
    let script = Script::new();
    let client = client(&script).await;
    let first = client.verified_get(&vault(), &key()).await.expect("a good proof");
    assert_eq!((first.trust, first.claim.value.as_deref()), (Trust::FirstUse, Some(b"closed".as_slice())));
    for value in [b"open".as_slice(), b"ajar", b"closed", b"gone"] {
        lock(&script.chain).grow(value);
        let later = client.verified_get(&vault(), &key()).await.expect("a good proof that extends the pin");
        assert_eq!((later.trust, later.claim.value.as_deref()), (Trust::Pinned, Some(value)));
    }
    assert_eq!(*lock(&script.trusted_sizes_seen), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_rewritten_history_is_a_fork_and_both_notes_are_kept() {
    let script = Script::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pins = Arc::new(DirectoryPins::new(directory.path()));
    let client = client_with_pins(&script, pins.clone()).await;
    lock(&script.chain).grow(b"open");
    client.verified_get(&vault(), &key()).await.expect("first use");
    let pinned = pins.load(ID).expect("readable").expect("a pin");

    // Another block 1, as an operator who edits the past would have to make; signed by the true key.
    {
        let mut chain = lock(&script.chain);
        chain.headers.truncate(1);
        chain.values.truncate(1);
        chain.grow(b"never opened");
        chain.grow(b"closed");
    }
    let error = client.verified_get(&vault(), &key()).await.expect_err("the history was rewritten");
    assert_eq!((error.code(), error.reason()), (ErrorCode::VerificationFailed, "FORK"));
    let ClientError::Fork(fork) = error else { panic!("not a fork: {error}") };
    assert_eq!((fork.pinned_size, fork.received_size), (2, 3));
    let evidence: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&fork.evidence).expect("the named file")).expect("JSON");
    assert_eq!(evidence["pinned"], pinned.checkpoint.as_str());
    assert_eq!(evidence["received"], lock(&script.chain).checkpoint().as_str());
    assert_eq!(pins.load(ID).expect("readable"), Some(pinned), "the pin must not move to the fork");
}

#[tokio::test]
async fn a_ledger_that_lost_its_tail_is_a_fork_too() {
    let script = Script::new();
    let pins = Arc::new(MemoryPins::default());
    let client = client_with_pins(&script, pins.clone()).await;
    lock(&script.chain).grow(b"open");
    client.verified_get(&vault(), &key()).await.expect("first use");
    lock(&script.chain).headers.truncate(1);
    let error = client.verified_get(&vault(), &key()).await.expect_err("a block is gone");
    assert!(matches!(&error, ClientError::Fork(fork) if fork.received_size == 1), "{error}");
    let error = client.verified_checkpoint(&vault()).await.expect_err("a block is gone");
    assert!(matches!(error, ClientError::Fork(_)));
    assert_eq!(pins.forks().len(), 2);
}

#[tokio::test]
async fn a_changed_value_is_refused() {
    let script = Script::new();
    let client = client(&script).await;
    lock(&script.chain).values[0] = b"Closed".to_vec();
    let error = client.verified_get(&vault(), &key()).await.expect_err("the value is not the committed one");
    assert_eq!(error.code(), ErrorCode::VerificationFailed);
}

#[tokio::test]
async fn a_new_key_is_refused_when_another_is_pinned_or_named() {
    let script = Script::new();
    let pins = Arc::new(MemoryPins::default());
    let client = client_with_pins(&script, pins.clone()).await;
    client.verified_get(&vault(), &key()).await.expect("first use");
    let true_key = lock(&script.chain).signer.clone();
    let other = SigningKey::from_seed(true_key.name(), &[4; 32]).expect("a valid name");
    lock(&script.chain).signer = other.clone();
    let error = client.verified_get(&vault(), &key()).await.expect_err("another key signs now");
    assert_eq!(error.code(), ErrorCode::VerificationFailed);

    // Named keys are strict, and may repeat while a key is rotated.
    let mut options = scripted::options(&script.serve().await);
    options.verifier_keys = vec![true_key.verifier_key()];
    let strict =
        LedgerClient::connect(options.clone(), Arc::new(MemoryPins::default())).expect("valid options");
    strict.verified_get(&vault(), &key()).await.expect_err("not the named key");
    options.verifier_keys.push(other.verifier_key());
    let rotating = LedgerClient::connect(options, pins.clone()).expect("valid options");
    let answer = rotating.verified_get(&vault(), &key()).await.expect("one of the named keys");
    assert_eq!(answer.trust, Trust::VerifierKey);
    assert_eq!(answer.verifier_key, other.verifier_key());
    // The pin follows the named key.
    assert_eq!(client.verified_get(&vault(), &key()).await.expect("the new pin").trust, Trust::Pinned);
}

#[tokio::test]
async fn many_clients_of_one_pin_agree() {
    let script = Script::new();
    let client = client(&script).await;
    let reads = (0..32).map(|number| {
        let (client, script) = (client.clone(), Arc::clone(&script));
        tokio::spawn(async move {
            lock(&script.chain).grow(format!("{number}").as_bytes());
            client.verified_get(&vault(), &key()).await
        })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.expect("no panic").expect("a good proof");
    }
}

#[test]
fn a_directory_replaces_whole_pins_only_over_the_expected_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pins = DirectoryPins::new(directory.path().join("deep/pins"));
    let pin = |text: &str| Pin { verifier_key: text.to_owned(), checkpoint: format!("{text}\n") };
    assert_eq!(pins.load(ID).expect("no pin is no error"), None);
    assert_eq!(pins.replace(ID, None, &pin("a")).expect("written"), PinOutcome::Stored);
    assert_eq!(pins.replace(ID, None, &pin("b")).expect("compared"), PinOutcome::Moved);
    assert_eq!(pins.replace(ID, Some(&pin("x")), &pin("b")).expect("compared"), PinOutcome::Moved);
    assert_eq!(pins.load(ID).expect("readable"), Some(pin("a")));
    assert_eq!(pins.replace(ID, Some(&pin("a")), &pin("b")).expect("written"), PinOutcome::Stored);
    assert_eq!(pins.load(ID).expect("readable"), Some(pin("b")));
    let other = PinId { vault: VaultId([1; 16]), ..ID };
    assert_eq!(pins.load(other).expect("no pin is no error"), None);
}

#[test]
fn evidence_of_forks_is_kept_up_to_a_bound_and_the_oldest_stays() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pins = DirectoryPins::new(directory.path());
    let evidence = |number: usize| ForkEvidence {
        pinned: "p".to_owned(),
        received: format!("r{number}"),
        reason: "another root".to_owned(),
    };
    let memory = MemoryPins::default();
    for number in 0..FORKS_MAX + 4 {
        let place = pins.record_fork(ID, &evidence(number)).expect("a full store is no error");
        assert!(place.contains(".fork-"), "{place}");
        memory.record_fork(ID, &evidence(number)).expect("a full store is no error");
    }
    let files = std::fs::read_dir(directory.path()).expect("a directory");
    let kept: Vec<String> = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.display().to_string().contains(".fork-"))
        .map(|path| std::fs::read_to_string(path).expect("readable"))
        .collect();
    assert_eq!(kept.len(), FORKS_MAX);
    assert!(kept.iter().any(|text| text.contains("\"r0\"")), "the oldest is kept");
    assert!(!kept.iter().any(|text| text.contains(&format!("\"r{FORKS_MAX}\""))));
    assert_eq!(memory.forks().len(), FORKS_MAX);
    let other = PinId { vault: VaultId([1; 16]), ..ID };
    pins.record_fork(other, &evidence(0)).expect("the bound is per vault");
}

#[test]
fn a_name_that_another_vault_had_is_told_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let other = PinId { vault: VaultId([1; 16]), ..ID };
    let stores: [&dyn PinStore; 2] = [&DirectoryPins::new(directory.path()), &MemoryPins::default()];
    for pins in stores {
        let mut told = Vec::new();
        for id in [ID, ID, other, other, ID] {
            told.push(pins.name_vault(&vault(), id).expect("kept"));
        }
        assert_eq!(told, [None, None, Some(ID), None, Some(other)]);
        let sibling: VaultRef = "acme/test".parse().expect("a valid name");
        assert_eq!(pins.name_vault(&sibling, other).expect("kept"), None, "names are separate");
    }
}

#[test]
fn a_damaged_pin_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pins = DirectoryPins::new(directory.path());
    let pin = Pin { verifier_key: "a".to_owned(), checkpoint: "b".to_owned() };
    pins.replace(ID, None, &pin).expect("written");
    let file = std::fs::read_dir(directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
        .expect("the pin");
    for bytes in
        [b"".as_slice(), b"{", br#"{"format":"strongroom.pin.v9","verifier_key":"","checkpoint":""}"#]
    {
        std::fs::write(&file, bytes).expect("written");
        let error = pins.load(ID).expect_err("damaged").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_pin_that_nobody_signed_is_not_trusted() {
    let script = Script::new();
    let pins = Arc::new(MemoryPins::default());
    let client = client_with_pins(&script, pins.clone()).await;
    client.verified_get(&vault(), &key()).await.expect("first use");
    let good = pins.load(ID).expect("readable").expect("a pin");
    let forged = Pin { checkpoint: good.checkpoint.replacen("\n1\n", "\n2\n", 1), ..good.clone() };
    assert_ne!(forged, good);
    pins.replace(ID, Some(&good), &forged).expect("written");
    let error = client.verified_get(&vault(), &key()).await.expect_err("the pin's signature is broken");
    assert!(matches!(error, ClientError::Pin(_)), "{error}");
}
