use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger_core::memory::{MemoryLogDisk, MemoryStateDisk};
use ledger_core::ports::StateStore;
use ledger_node::{
    Consistency, FailedPart, Ledger, OpenError, Options, ReadFailure, ShutdownError, WriteError,
};

use super::observed_stores::ObservedLog;
use super::setting::{Home, Observed, actor, create_vault, eventually, key, put, vault, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_of_the_log_stops_the_node_and_nothing_more_is_acknowledged() {
    let home = Home::new();
    let Observed { ledger, log, .. } = home.open_observed(home.options()).await;
    write(&ledger, put("before", "acknowledged")).await;
    log.fails.store(true, Ordering::SeqCst);
    let failed = ledger.write(&vault(), &actor(), put("after", "lost")).await.unwrap_err();
    assert!(matches!(failed, WriteError::Stopped), "{failed}");
    let failure = ledger.failure().await;
    assert_eq!(failure.part, FailedPart::LogStore);
    assert!(failure.to_string().contains("the disk is broken"), "{failure}");
    // The disk works again: it makes no difference, what it holds is unknown.
    log.fails.store(false, Ordering::SeqCst);
    let refused = ledger.write(&vault(), &actor(), put("later", "refused")).await.unwrap_err();
    assert!(matches!(refused, WriteError::Stopped), "{refused}");
    let refused = ledger.get(&vault(), &key("before"), Consistency::Linearizable).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::Stopped), "{refused}");
    assert!(matches!(ledger.shutdown().await, Err(ShutdownError::Failed(_))));
    let reopened = home.open().await;
    let kept = reopened.get(&vault(), &key("before"), Consistency::Linearizable).await.unwrap();
    assert!(kept.value.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_of_the_log_fails_every_write_that_waits() {
    let home = Home::new();
    let Observed { ledger, log, .. } = home.open_observed(home.options()).await;
    log.close_gate();
    log.fails.store(true, Ordering::SeqCst);
    let writes: Vec<_> = (0..100)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.write(&vault(), &actor(), put(&format!("k{n}"), "v")).await })
        })
        .collect();
    eventually("a batch is on its way", || ledger.counters().write_entries > 0).await;
    log.open_gate();
    for write in writes {
        assert!(matches!(write.await.unwrap(), Err(WriteError::Stopped)));
    }
    assert_eq!(ledger.counters().writes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_log_thread_or_while_applying_stops_the_node() {
    for in_log in [true, false] {
        let home = Home::new();
        let options = Options { flush_interval: Duration::from_millis(1), ..home.options() };
        let Observed { ledger, log, state } = home.open_observed(options).await;
        write(&ledger, put("key", "value")).await;
        // Once all is flushed, applying the next write reads the key from the store.
        eventually("all is flushed", || {
            let info = ledger.node_info();
            info.durable_applied == info.last_applied && info.overlay_bytes == 0
        })
        .await;
        let flag = if in_log { &log.panics } else { &state.panics_at_reads };
        flag.store(true, Ordering::SeqCst);
        let failed = ledger.write(&vault(), &actor(), put("key", "value")).await.unwrap_err();
        assert!(matches!(failed, WriteError::Stopped), "{failed}");
        assert_eq!(ledger.failure().await.part, FailedPart::Thread);
        let refused = ledger.get(&vault(), &key("key"), Consistency::Eventual).await.unwrap_err();
        assert!(matches!(refused, ReadFailure::Stopped), "{refused}");
        assert!(ledger.shutdown().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_of_the_state_stops_the_node_and_loses_nothing() {
    let home = Home::new();
    let options = Options { flush_bytes: 4_096, ..home.options() };
    let Observed { ledger, state, .. } = home.open_observed(options).await;
    state.fails.store(true, Ordering::SeqCst);
    let mut acknowledged = 0;
    loop {
        match ledger.write(&vault(), &actor(), put(&format!("k{acknowledged}"), &"v".repeat(500))).await {
            Ok(_) => acknowledged += 1,
            Err(WriteError::Stopped) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(acknowledged < 1_000_000, "the node never noticed");
    }
    assert_eq!(ledger.failure().await.part, FailedPart::StateStore);
    assert!(ledger.shutdown().await.is_err());
    let reopened = home.open().await;
    for number in 0..acknowledged {
        let read = reopened.get(&vault(), &key(&format!("k{number}")), Consistency::Eventual).await.unwrap();
        assert!(read.value.is_some(), "k{number} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_purged_but_never_beyond_what_is_durable_in_the_state_store() {
    let home = Home::new();
    let mut stores = home.stores();
    let log = Arc::new(ObservedLog::against(stores.log, Arc::clone(&stores.state)));
    stores.log = log.clone();
    let state: Arc<dyn StateStore> = Arc::clone(&stores.state);
    let options = Options { flush_bytes: 8_192, flush_interval: Duration::from_millis(1), ..home.options() };
    let ledger = home.open_with(stores, options).await;
    create_vault(&ledger).await;
    let mut written = 0;
    while log.purges.load(Ordering::SeqCst) < 10 {
        write(&ledger, put(&format!("k{written}"), "v")).await;
        written += 1;
        assert!(written < 100_000, "the log is never purged");
    }
    assert_eq!(log.purges_too_far.load(Ordering::SeqCst), 0);
    let info = ledger.node_info();
    assert!(info.purged.unwrap() <= state.applied().unwrap().unwrap().last_applied.index);
    // What was purged is in the state store: the ledger opens without it.
    let copy = home.copy();
    let reopened = copy.open().await;
    let last =
        reopened.get(&vault(), &key(&format!("k{}", written - 1)), Consistency::Eventual).await.unwrap();
    assert!(last.value.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_state_is_refused_at_open() {
    let home = Home::new();
    let options = Options { flush_bytes: 4_096, flush_interval: Duration::from_millis(1), ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    let mut written = 0;
    while ledger.node_info().purged.is_none() {
        write(&ledger, put(&format!("k{written}"), "v")).await;
        written += 1;
    }
    // One more write carries the purge to the disk.
    write(&ledger, put("last", "v")).await;
    ledger.shutdown().await.unwrap();
    let mut stores = home.stores();
    stores.state = Arc::new(ledger_core::memory::MemoryStateStore::open(&MemoryStateDisk::default()));
    let refused = Ledger::open(home.directory(), stores, home.options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::StateOlderThanLog { applied: None, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_another_ledger_or_node_are_refused_at_open() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    ledger.shutdown().await.unwrap();
    let other = Home::new();
    let refused = Ledger::open(other.directory(), home.stores(), home.options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::KeyOfAnotherLedger { .. }), "{refused}");
    // The right key under another node id: the log promises things in that node's name.
    let copy = home.copy();
    std::fs::write(copy.folder.path().join("node_id"), "77\n").unwrap();
    let refused = Ledger::open(copy.directory(), copy.stores(), copy.options()).await.unwrap_err();
    assert!(refused.to_string().contains("another node"), "{refused}");
    // A fresh directory with a fresh log is a new ledger.
    let empty = Home { log: MemoryLogDisk::default(), state: MemoryStateDisk::default(), ..other };
    assert_ne!(empty.open().await.ledger_id(), ledger.ledger_id());
}
