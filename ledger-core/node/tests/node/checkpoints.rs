use std::sync::atomic::Ordering;

use futures::future::join_all;
use ledger_core::memory::MemoryLogStore;
use ledger_core::ports::{LogChange, LogStore, SignedMark};
use ledger_core::transaction::{Action, Operation};
use ledger_node::{Ledger, OpenError, ReadFailure, VerifiedSubject};
use ledger_verify::log;
use ledger_verify::note::SignedCheckpoint;
use ledger_verify::proof::{self, Claim, Subject};

use super::setting::{Home, Observed, create_vault, key, put, transaction, tuple, vault, write};

async fn read_and_verify(ledger: &Ledger, name: &str) -> Claim {
    let read = ledger.verified_read(&vault(), VerifiedSubject::Entity(key(name)), 0).await.unwrap();
    let subject = Subject::Entity { key: name.to_owned() };
    proof::verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_read_proves_presence_and_absence_offline() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let viewer = tuple("doc:plan", "viewer", "user:ann");
    let relate = Operation { action: Action::CreateRelationship(viewer.clone()), condition: None };
    write(&ledger, put("colour", "green")).await;
    let related = write(&ledger, transaction(vec![relate])).await;
    let claim = read_and_verify(&ledger, "colour").await;
    assert_eq!(claim.value.as_deref(), Some(b"green".as_slice()));
    assert_eq!((claim.present, claim.version, claim.height), (true, 1, related.height));
    assert_eq!(claim.ledger_id, ledger.ledger_id().0);
    assert_eq!(claim.vault_id, ledger.vault(&vault()).unwrap().id.0);
    let absent = read_and_verify(&ledger, "shape").await;
    assert!(!absent.present);
    let read =
        ledger.verified_read(&vault(), VerifiedSubject::Relationship(viewer.clone()), 0).await.unwrap();
    let subject = Subject::Relationship {
        resource: viewer.resource.to_string(),
        relation: viewer.relation.to_string(),
        subject: viewer.subject.to_string(),
    };
    let claim = proof::verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap();
    assert_eq!((claim.present, claim.version), (true, related.version));
    let other = Subject::Entity { key: "shape".to_owned() };
    assert!(proof::verify(&other, &read.evidence, &[ledger.verifier_key()]).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_read_covers_every_write_that_was_acknowledged_before_it() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for number in 0..20 {
        let receipt = write(&ledger, put("key", &number.to_string())).await;
        let claim = read_and_verify(&ledger, "key").await;
        assert_eq!(claim.version, receipt.version);
        assert!(claim.height >= receipt.height);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_prove_that_nothing_was_rewritten_between_two_checkpoints() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let keys = [ledger.verifier_key()];
    let open = |note: &str| SignedCheckpoint::open(note, &keys).unwrap();
    write(&ledger, put("key", "0")).await;
    let first = open(&ledger.checkpoint(&vault(), 0).await.unwrap().note);
    for number in 1..10 {
        write(&ledger, put("key", &number.to_string())).await;
    }
    let answer = ledger.checkpoint(&vault(), first.size).await.unwrap();
    let second = open(&answer.note);
    log::verify_consistency(first.size, second.size, &answer.consistency, &first.root, &second.root).unwrap();
    assert_eq!(second.origin, ledger.origin(ledger.vault(&vault()).unwrap().id));
    let ahead = ledger.checkpoint(&vault(), second.size + 1).await.unwrap_err();
    assert!(matches!(ahead, ReadFailure::TrustedSizeAhead { .. }), "{ahead}");
    let subject = VerifiedSubject::Entity(key("key"));
    let ahead = ledger.verified_read(&vault(), subject, second.size + 1).await.unwrap_err();
    assert!(matches!(ahead, ReadFailure::TrustedSizeAhead { .. }), "{ahead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_share_a_checkpoint() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "value")).await;
    let before = ledger.counters().checkpoints_signed;
    join_all((0..200).map(|_| read_and_verify(&ledger, "key"))).await;
    assert_eq!(ledger.counters().checkpoints_signed - before, 1, "nothing changed meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn size_and_root_are_durable_before_a_checkpoint_leaves_the_node() {
    let home = Home::new();
    let Observed { ledger, log, .. } = home.open_observed(home.options()).await;
    for number in 0..5 {
        write(&ledger, put("key", &number.to_string())).await;
        let note = ledger.checkpoint(&vault(), 0).await.unwrap().note;
        let signed = SignedCheckpoint::open(&note, &[ledger.verifier_key()]).unwrap();
        let id = ledger.vault(&vault()).unwrap().id;
        let mark = SignedMark { vault: id, size: signed.size, root: signed.root };
        assert_eq!(log.snapshot().unwrap().signed, [mark]);
    }
    // A mark that cannot be written: no checkpoint.
    write(&ledger, put("key", "last")).await;
    log.fails.store(true, Ordering::SeqCst);
    let refused = ledger.checkpoint(&vault(), 0).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::Stopped), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_behind_a_signed_checkpoint_is_refused_and_the_vault_is_named() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "old")).await;
    let older = home.copy();
    write(&ledger, put("key", "published")).await;
    ledger.checkpoint(&vault(), 0).await.unwrap();
    let marks = MemoryLogStore::open(&home.log).snapshot().unwrap().signed;
    assert_eq!(marks.len(), 1);
    MemoryLogStore::open(&older.log).commit(&[LogChange::SaveSigned(marks[0])]).unwrap();
    let refused = Ledger::open(older.directory(), older.stores(), older.options()).await.unwrap_err();
    match &refused {
        OpenError::SignedCheckpointLost { vault, signed_size, recovered_size, .. } => {
            assert_eq!((vault.as_str(), *signed_size, *recovered_size), ("acme/orders", 3, 2));
        }
        other => panic!("{other}"),
    }
    assert!(refused.to_string().contains("older copy"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tree_at_a_signed_size_is_refused() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let fork = home.copy();
    write(&ledger, put("key", "published")).await;
    ledger.checkpoint(&vault(), 0).await.unwrap();
    let marks = MemoryLogStore::open(&home.log).snapshot().unwrap().signed;
    let forked = fork.open().await;
    write(&forked, put("key", "forged")).await;
    forked.shutdown().await.unwrap();
    MemoryLogStore::open(&fork.log).commit(&[LogChange::SaveSigned(marks[0])]).unwrap();
    let refused = Ledger::open(fork.directory(), fork.stores(), fork.options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::SignedCheckpointLost { .. }), "{refused}");
    assert!(refused.to_string().contains("other content"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_signs_on_where_it_was() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "value")).await;
    let before = ledger.checkpoint(&vault(), 0).await.unwrap().note;
    ledger.shutdown().await.unwrap();
    let ledger = home.open().await;
    assert_eq!(ledger.checkpoint(&vault(), 0).await.unwrap().note, before);
}
