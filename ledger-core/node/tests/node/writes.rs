use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger_core::command::{ConditionFailure, Receipt, WriteRefusal};
use ledger_core::transaction::{Actor, Condition, Transaction};
use ledger_node::{Consistency, Ledger, Options, WriteError};

use super::observed_stores::ObservedLog;
use super::setting::{
    Home, actor, chain, create_vault, eventually, key, put, set, transaction, vault, write,
};

/// A ledger whose log commits can be held back.
async fn gated(home: &Home, options: Options) -> (Ledger, Arc<ObservedLog>) {
    let mut stores = home.stores();
    let log = Arc::new(ObservedLog::new(stores.log));
    stores.log = log.clone();
    let ledger = home.open_with(stores, options).await;
    create_vault(&ledger).await;
    (ledger, log)
}

/// Holds back the log while a batch is on its way: what is written after that waits in the queue and becomes one batch.
async fn hold_a_batch(ledger: &Ledger, log: &ObservedLog) -> tokio::task::JoinHandle<Receipt> {
    log.close_gate();
    let before = ledger.counters().write_entries;
    let writer = ledger.clone();
    let held = tokio::spawn(async move { write(&writer, put("first", "held")).await });
    eventually("the batch is on its way", || ledger.counters().write_entries == before + 1).await;
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_can_be_read_at_once() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let receipt = write(&ledger, put("colour", "green")).await;
    assert_eq!((receipt.height, receipt.version, receipt.replayed), (1, 1, false));
    for consistency in [Consistency::Linearizable, Consistency::Eventual] {
        let read = ledger.get(&vault(), &key("colour"), consistency).await.unwrap();
        let entity = read.value.unwrap();
        assert_eq!(entity.value.as_ref(), b"green");
        assert_eq!((entity.version, entity.modified_height, read.height), (1, 1, 1));
    }
    assert_eq!(ledger.client_state(&vault(), &actor()).unwrap().unwrap().0.version, 1);
    ledger.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_is_one_commit_of_the_log() {
    let home = Home::new();
    let (ledger, log) = gated(&home, home.options()).await;
    let before = log.commits();
    for number in 0..25 {
        write(&ledger, put("n", &number.to_string())).await;
    }
    assert_eq!(log.commits() - before, 25);
    let counters = ledger.counters();
    assert_eq!((counters.writes, counters.write_entries), (25, 25));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_log_entries_and_commits() {
    const WRITERS: usize = 64;
    let home = Home::new();
    let (ledger, log) = gated(&home, home.options()).await;
    let held = hold_a_batch(&ledger, &log).await;
    let before = log.commits();
    let writes: Vec<_> = (0..WRITERS).map(|n| write(&ledger, put(&format!("k{n}"), "v"))).collect();
    let mut all = pin!(join_all(writes));
    assert!(futures::poll!(all.as_mut()).is_pending(), "every write waits in the queue now");
    log.open_gate();
    let receipts = all.await;
    held.await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.height == receipts[0].height), "one block for all");
    assert_eq!(receipts.iter().map(|receipt| receipt.version).max(), Some(WRITERS as u64 + 1));
    assert_eq!(ledger.counters().write_entries, 2);
    assert_eq!(log.commits() - before, 2, "one of the held batch, one of theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_puts_of_a_key_in_one_block_then_a_compare_and_set_with_the_first_version_fails() {
    let home = Home::new();
    let (ledger, log) = gated(&home, home.options()).await;
    let held = hold_a_batch(&ledger, &log).await;
    let mut puts = pin!(join_all([write(&ledger, put("key", "one")), write(&ledger, put("key", "two"))]));
    assert!(futures::poll!(puts.as_mut()).is_pending());
    log.open_gate();
    let receipts = puts.await;
    held.await.unwrap();
    let [first, second] = &receipts[..] else { panic!("two receipts") };
    assert_eq!(first.height, second.height);
    assert_ne!(first.version, second.version);
    let stale = transaction(vec![set("key", "three", Some(Condition::VersionEquals(first.version)))]);
    match ledger.write(&vault(), &actor(), stale).await.unwrap_err() {
        WriteError::Refused(WriteRefusal::ConditionFailed {
            op_index: 0, failure, current_version, ..
        }) => {
            assert_eq!(failure, ConditionFailure::VersionDiffers);
            assert_eq!(current_version, Some(second.version));
        }
        other => panic!("{other}"),
    }
    let current = transaction(vec![set("key", "three", Some(Condition::VersionEquals(second.version)))]);
    write(&ledger, current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_is_answered_with_the_first_receipt_and_another_payload_is_refused() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let once = put("key", "value");
    let first = write(&ledger, once.clone()).await;
    let later = write(&ledger, put("key", "later")).await;
    let again = write(&ledger, once.clone()).await;
    assert_eq!(Receipt { replayed: false, ..again.clone() }, first);
    assert!(again.replayed);
    assert_ne!(again.version, later.version);
    let other = Transaction::new(once.idempotency_key(), vec![set("key", "other", None)]).unwrap();
    let refused = ledger.write(&vault(), &actor(), other).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(WriteRefusal::IdempotencyMismatch)), "{refused}");
    assert_eq!(chain(&ledger).len(), 1 + 2 * 2, "genesis, two blocks of one transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_with_a_retry_time_and_loses_nothing_that_it_took() {
    let home = Home::new();
    let (ledger, log) = gated(&home, Options { queue_transactions_max: 4, ..home.options() }).await;
    let held = hold_a_batch(&ledger, &log).await;
    let queued: Vec<_> = (0..4).map(|n| write(&ledger, put(&format!("k{n}"), "v"))).collect();
    let mut queued = pin!(join_all(queued));
    assert!(futures::poll!(queued.as_mut()).is_pending());
    match ledger.write(&vault(), &actor(), put("fifth", "v")).await.unwrap_err() {
        WriteError::Overloaded { retry_after } => assert!(retry_after > Duration::ZERO),
        other => panic!("{other}"),
    }
    assert_eq!(ledger.counters().overloads, 1);
    log.open_gate();
    assert_eq!(queued.await.len(), 4);
    held.await.unwrap();
    let absent = ledger.get(&vault(), &key("fifth"), Consistency::Linearizable).await.unwrap();
    assert_eq!(absent.value, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_for_its_delay_and_no_longer() {
    let home = Home::new();
    let options = Options { batch_delay: Duration::from_millis(200), batch_size: 8, ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    // Eight fill the batch, so none of them waits for the delay; all share one entry.
    let writes: Vec<_> = (0..8).map(|n| write(&ledger, put(&format!("k{n}"), "v"))).collect();
    join_all(writes).await;
    assert_eq!(ledger.counters().write_entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_vault_and_a_reserved_actor_cost_no_log_entry() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let before = ledger.counters().log_entries;
    let unknown = ledger.write(&"acme/nothing".parse().unwrap(), &actor(), put("k", "v")).await.unwrap_err();
    assert!(matches!(unknown, WriteError::Refused(WriteRefusal::VaultNotFound)), "{unknown}");
    let reserved = ledger.write(&vault(), &Actor::garbage_collector(), put("k", "v")).await.unwrap_err();
    assert!(matches!(reserved, WriteError::ReservedActor { .. }), "{reserved}");
    assert_eq!(ledger.counters().log_entries, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_from_any_runtime_are_answered() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let elsewhere = ledger.clone();
    let receipt = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(write(&elsewhere, put("from", "another runtime")))
    });
    assert_eq!(receipt.await.unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_overlay_holds_back_applying_until_it_is_flushed() {
    let home = Home::new();
    let options = Options { flush_bytes: 4_096, overlay_bytes_max: 8_192, ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    let value = "x".repeat(3_000);
    for number in 0..40 {
        write(&ledger, put(&format!("k{number}"), &value)).await;
        assert!(ledger.node_info().overlay_bytes < 8_192 + 8_192, "one entry may go over the limit");
    }
    assert!(ledger.counters().flushes > 0);
    let all = ledger.get(&vault(), &key("k39"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all.height, 40);
}
