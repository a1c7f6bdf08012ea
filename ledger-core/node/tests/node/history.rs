use std::collections::BTreeMap;

use ledger_core::ledger_state::KeyChange;
use ledger_core::transaction::{Action, Operation};
use ledger_node::{Consistency, Ledger, ListRequest, ReadFailure, VerifiedSubject};
use ledger_verify::log::verify_consistency;
use ledger_verify::note::SignedCheckpoint;
use ledger_verify::proof::{Claim, Subject, verify};

use super::setting::{
    Home, START_MS, create_vault, key, put, set, set_until, transaction, tuple, vault, write,
};

fn entity(name: &str) -> VerifiedSubject {
    VerifiedSubject::Entity(key(name))
}

fn delete(name: &str) -> Operation {
    Operation { action: Action::DeleteEntity { key: key(name) }, condition: None }
}

fn page(size: u32, token: &str) -> ListRequest {
    ListRequest { page_size: size, page_token: token.to_owned() }
}

/// What the ledger proves about an entity at a height, verified as a stranger would.
async fn proved(ledger: &Ledger, name: &str, height: u64) -> Claim {
    let read = ledger.verified_read_at(&vault(), &entity(name), height, 0).await.unwrap();
    let subject = Subject::Entity { key: name.to_owned() };
    let claim = verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap();
    assert_eq!(claim.height, height);
    claim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_and_proofs_at_every_height_are_what_was_written() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let mut states: Vec<BTreeMap<String, String>> = vec![BTreeMap::new()];
    for number in 0..30_u64 {
        let mut state = states.last().unwrap().clone();
        let name = format!("k{}", number % 7);
        if number % 5 == 4 {
            write(&ledger, transaction(vec![delete(&name)])).await;
            state.remove(&name);
        } else {
            write(&ledger, put(&name, &number.to_string())).await;
            state.insert(name, number.to_string());
        }
        states.push(state);
    }
    for (height, state) in (0..).zip(&states) {
        for name in (0..7).map(|number| format!("k{number}")) {
            let expected = state.get(&name).map(|value| value.clone().into_bytes());
            let read = ledger.get_at(&vault(), &entity(&name), height).await.unwrap();
            assert_eq!(read.header.height, height);
            assert_eq!(read.record.map(|record| record.value.to_vec()), expected, "{name} at {height}");
            let claim = proved(&ledger, &name, height).await;
            assert_eq!((claim.present, claim.value), (expected.is_some(), expected), "{name} at {height}");
        }
    }
    let ahead = ledger.verified_read_at(&vault(), &entity("k0"), 31, 0).await.unwrap_err();
    assert!(matches!(ahead, ReadFailure::HeightUnavailable { asked: 31, height: 30 }), "{ahead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_heights_are_proved_from_a_copy_of_the_tree() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    // 7,000 keys changed since height 1: more than are undone in place.
    for block in 0..14 {
        let sets = (0..500).map(|n| set(&format!("k{}", block % 7 * 500 + n), &block.to_string(), None));
        write(&ledger, transaction(sets.collect())).await;
        write(&ledger, put(&format!("own-{block}"), "x")).await;
    }
    for height in [28, 20, 10, 3, 1, 0, 2, 28] {
        for (name, first, again) in [("k0", 1, 15), ("k3499", 13, 27)] {
            let claim = proved(&ledger, name, height).await;
            let expected = if height >= again {
                again
            } else if height >= first {
                first
            } else {
                0
            };
            assert_eq!(claim.modified_height, expected, "{name} at {height}");
            assert_eq!(claim.present, expected > 0);
        }
    }
    // Meanwhile the vault goes on.
    write(&ledger, put("k0", "new")).await;
    assert_eq!(proved(&ledger, "k0", 1).await.value.unwrap(), b"0");
    ledger.delete_vault(vault()).await.unwrap();
    let gone = ledger.verified_read_at(&vault(), &entity("k0"), 1, 0).await.unwrap_err();
    assert!(matches!(gone, ReadFailure::VaultNotFound { .. }), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_historical_proof_extends_the_checkpoint_that_the_caller_trusts() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("k", "1")).await;
    let trusted = ledger.checkpoint(&vault(), 0).await.unwrap().note;
    let trusted = SignedCheckpoint::open(&trusted, &[ledger.verifier_key()]).unwrap();
    for number in 2..8 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    let read = ledger.verified_read_at(&vault(), &entity("k"), 1, trusted.size).await.unwrap();
    let signed = SignedCheckpoint::open(&read.evidence.checkpoint, &[ledger.verifier_key()]).unwrap();
    assert!(signed.size > trusted.size);
    verify_consistency(trusted.size, signed.size, &read.consistency, &trusted.root, &signed.root).unwrap();
    let ahead = ledger.verified_read_at(&vault(), &entity("k"), 1, 1_000).await.unwrap_err();
    assert!(matches!(ahead, ReadFailure::TrustedSizeAhead { trusted_size: 1_000, .. }), "{ahead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_entity_is_hidden_at_heights_after_its_time() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, transaction(vec![set_until("k", "v", START_MS + 1_000, None)])).await;
    home.clock.set_ms(START_MS + 5_000);
    write(&ledger, put("other", "v")).await;
    let at = async |height| ledger.get_at(&vault(), &entity("k"), height).await.unwrap().record;
    assert_eq!(at(1).await.unwrap().expires_at_ms, START_MS + 1_000);
    assert_eq!(at(2).await, None);
    assert!(proved(&ledger, "k", 1).await.present);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_versions_of_a_key_are_paged_newest_first() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for number in 0..100_u64 {
        match number % 4 {
            3 => write(&ledger, transaction(vec![delete("k")])).await,
            _ => write(&ledger, put("k", &number.to_string())).await,
        };
        write(&ledger, put("noise", "x")).await;
    }
    let relate = Action::CreateRelationship(tuple("doc:1", "viewer", "user:1"));
    write(&ledger, transaction(vec![Operation { action: relate, condition: None }])).await;
    let (mut versions, mut token) = (Vec::new(), String::new());
    loop {
        let request = page(7, &token);
        let found = ledger.history(&vault(), &entity("k"), request, Consistency::Linearizable).await.unwrap();
        assert!(found.value.versions.len() <= 7);
        versions.extend(found.value.versions);
        token = found.value.next_page_token;
        if token.is_empty() {
            assert_eq!(found.value.cut_at, None);
            break;
        }
        let other = ledger.history(&vault(), &entity("l"), page(7, &token), Consistency::Eventual).await;
        assert!(matches!(other, Err(ReadFailure::PageToken(_))), "a token belongs to its key");
    }
    assert_eq!(versions.len(), 100);
    for (number, version) in (0..100_u64).rev().zip(&versions) {
        assert_eq!((version.height, version.actor.as_str()), (number * 2 + 1, "client:test"));
        match &version.change {
            KeyChange::Set { value, .. } => assert_eq!(value, number.to_string().as_bytes()),
            change => assert_eq!((change, number % 4), (&KeyChange::Deleted, 3)),
        }
    }
    let tuple = VerifiedSubject::Relationship(tuple("doc:1", "viewer", "user:1"));
    let found = ledger.history(&vault(), &tuple, page(0, ""), Consistency::Eventual).await.unwrap().value;
    assert_eq!(found.versions.iter().map(|v| v.change.clone()).collect::<Vec<_>>(), [KeyChange::Related]);
    let none = ledger.history(&vault(), &entity("none"), page(0, ""), Consistency::Eventual).await.unwrap();
    assert!(none.value.versions.is_empty() && none.value.next_page_token.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_page_ends_before_it_is_larger_than_an_answer() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let large = "x".repeat(1_000_000);
    for _ in 0..6 {
        write(&ledger, put("k", &large)).await;
    }
    let first =
        ledger.history(&vault(), &entity("k"), page(0, ""), Consistency::Eventual).await.unwrap().value;
    assert_eq!(first.versions.len(), 5, "the fifth version passes 4 MiB");
    let rest = page(0, &first.next_page_token);
    let rest = ledger.history(&vault(), &entity("k"), rest, Consistency::Eventual).await.unwrap().value;
    assert_eq!(rest.versions.iter().map(|version| version.height).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lowered_retention_drops_blocks_and_the_history_says_where_it_begins() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for number in 0..50 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    let info = ledger.set_retention(vault(), "compacted:10".parse().unwrap()).await.unwrap();
    assert_eq!((info.retention.to_string().as_str(), info.first_height), ("compacted:10", 41));
    let found =
        ledger.history(&vault(), &entity("k"), page(0, ""), Consistency::Eventual).await.unwrap().value;
    assert_eq!((found.versions.len(), found.cut_at), (10, Some(41)));
    let gone = ledger.get_at(&vault(), &entity("k"), 40).await.unwrap_err();
    assert!(matches!(gone, ReadFailure::Compacted { asked: 40, first: 41 }), "{gone}");
    assert!(matches!(ledger.block(&vault(), 40), Err(ReadFailure::Compacted { asked: 40, first: 41 })));
    assert_eq!(ledger.header(&vault(), 40).unwrap().unwrap().height, 40);
    assert_eq!(proved(&ledger, "k", 41).await.value.unwrap(), b"40");
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = home.open().await;
    assert_eq!(ledger.vault(&vault()).unwrap().first_height, 41);
    assert_eq!(proved(&ledger, "k", 45).await.value.unwrap(), b"44");
}
