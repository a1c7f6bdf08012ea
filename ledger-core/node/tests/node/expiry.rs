use std::time::Duration;

use ledger_core::command::WriteRefusal;
use ledger_core::transaction::Transaction;
use ledger_node::{Consistency, Options, VerifiedSubject, WriteError};
use ledger_verify::proof::{self, Subject};
use ledger_verify::transaction::{self as canonical, ActionRef};

use super::setting::{
    Home, START_MS, actor, create_vault, eventually, fresh_key, key, put, set_until, transaction, vault,
    write,
};

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_entity_is_hidden_at_once_and_collected_in_the_ledgers_own_name() {
    let home = Home::new();
    let options = Options { gc_interval: Duration::from_millis(1), ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    let expires_at_ms = START_MS + HOUR_MS;
    write(&ledger, transaction(vec![set_until("session", "s", expires_at_ms, None)])).await;
    write(&ledger, put("kept", "k")).await;
    home.clock.set_ms(expires_at_ms);
    let visible = ledger.get(&vault(), &key("session"), Consistency::Linearizable).await.unwrap();
    assert!(visible.value.is_some());
    home.clock.set_ms(expires_at_ms + 1);
    let hidden = ledger.get(&vault(), &key("session"), Consistency::Linearizable).await.unwrap();
    assert_eq!(hidden.value, None);
    eventually("it is collected", || ledger.counters().entities_expired == 1).await;
    let tip = ledger.tip(&vault(), Consistency::Linearizable).await.unwrap().value;
    let block = ledger.block(&vault(), tip.header.height).unwrap().unwrap();
    let expired = canonical::decode(&block.transactions[0]).unwrap();
    assert_eq!(expired.header.actor, "system:gc");
    assert!(matches!(expired.operations[0].action, ActionRef::ExpireEntity { key: "session" }));
    let read = ledger.verified_read(&vault(), VerifiedSubject::Entity(key("session")), 0).await.unwrap();
    let subject = Subject::Entity { key: "session".to_owned() };
    assert!(!proof::verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap().present);
    let kept = ledger.get(&vault(), &key("kept"), Consistency::Linearizable).await.unwrap();
    assert!(kept.value.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_expired_entities_than_fit_one_transaction_are_all_collected() {
    let home = Home::new();
    let options = Options { gc_interval: Duration::from_millis(1), ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    for chunk in 0..5 {
        let set = |n| set_until(&format!("k{}", chunk * 500 + n), "v", START_MS + 10, None);
        write(&ledger, transaction((0..500).map(set).collect())).await;
    }
    home.clock.set_ms(START_MS + 11);
    eventually("all are collected", || ledger.vault(&vault()).unwrap().key_count == 0).await;
    eventually("all are counted", || ledger.counters().entities_expired == 2_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_older_than_what_is_remembered_is_refused_and_never_applied_again() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let old = put("counter", "1");
    write(&ledger, old.clone()).await;
    home.clock.advance_ms(25 * HOUR_MS);
    let operations = old.operations().to_vec();
    let newer = Transaction::new(fresh_key(START_MS + 25 * HOUR_MS), operations).unwrap();
    write(&ledger, newer).await;
    let refused = ledger.write(&vault(), &actor(), old).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(WriteRefusal::IdempotencyKeyExpired { .. })), "{refused}");
    assert_eq!(ledger.tip(&vault(), Consistency::Linearizable).await.unwrap().height, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_time_never_goes_back_with_the_clock() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let first = write(&ledger, put("k", "1")).await;
    home.clock.set_ms(START_MS - HOUR_MS);
    let second = write(&ledger, put("k", "2")).await;
    assert_eq!((first.time_ms, second.time_ms), (START_MS, START_MS));
    assert_eq!(ledger.log_time_ms(), START_MS);
}
