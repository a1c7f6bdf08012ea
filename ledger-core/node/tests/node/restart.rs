use ledger_core::command::Receipt;
use ledger_core::ledger_state::RelationshipFilter;
use ledger_core::page_token::PageTokenError;
use ledger_core::relationship::Resource;
use ledger_core::transaction::{Action, Operation};
use ledger_node::{Consistency, Ledger, ListRequest, OpenError, ReadFailure};

use super::setting::{
    Home, chain, create_vault, eventually, key, put, set, transaction, tuple, vault, write,
};

async fn write_history(ledger: &Ledger) -> Vec<Receipt> {
    create_vault(ledger).await;
    let mut receipts = Vec::new();
    for number in 0..30 {
        let relate = tuple("doc:plan", "viewer", &format!("user:{number}"));
        let operations = vec![
            set(&format!("key-{}", number % 7), &number.to_string(), None),
            Operation { action: Action::CreateRelationship(relate), condition: None },
        ];
        receipts.push(write(ledger, transaction(operations)).await);
    }
    receipts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_every_root_and_one_write_after_it_continues_the_chain() {
    let home = Home::new();
    let ledger = home.open().await;
    write_history(&ledger).await;
    let before = chain(&ledger);
    let id = ledger.ledger_id();
    ledger.shutdown().await.unwrap();
    let ledger = home.open().await;
    assert_eq!(ledger.ledger_id(), id);
    assert_eq!(chain(&ledger), before);
    let tip = ledger.tip(&vault(), Consistency::Linearizable).await.unwrap().value;
    let receipt = write(&ledger, put("after", "restart")).await;
    let next = ledger.block(&vault(), receipt.height).unwrap().unwrap();
    assert_eq!(next.header.previous, tip.block_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_log_restores_what_was_never_flushed() {
    let home = Home::new();
    let ledger = home.open().await;
    write_history(&ledger).await;
    assert_eq!(ledger.counters().flushes, 0, "the state store is still empty");
    let crashed = home.copy();
    let restored = crashed.open().await;
    assert_eq!(chain(&restored), chain(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_between_flushes_the_rest_of_the_log_is_applied_once() {
    let home = Home::new();
    let options = ledger_node::Options { flush_bytes: 20_000, ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    write_history(&ledger).await;
    eventually("a flush happened", || ledger.counters().flushes > 0).await;
    write(&ledger, put("unflushed", "tail")).await;
    let crashed = home.copy();
    let restored = crashed.open().await;
    assert_eq!(chain(&restored), chain(&ledger));
    let (kept, original) = (restored.node_info(), ledger.node_info());
    assert!(kept.last_applied >= original.last_applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_a_restart_is_answered_with_its_own_first_receipt() {
    for crash in [false, true] {
        let home = Home::new();
        let ledger = home.open().await;
        create_vault(&ledger).await;
        let (earlier, last) = (put("key", "n-1"), put("key", "n"));
        let first = write(&ledger, earlier.clone()).await;
        let second = write(&ledger, last.clone()).await;
        let copy = home.copy();
        ledger.shutdown().await.unwrap();
        let reopened = if crash { copy.open().await } else { home.open().await };
        let retried = write(&reopened, earlier).await;
        assert_eq!(Receipt { replayed: false, ..retried }, first, "the retry of n-1 has the result of n-1");
        let retried = write(&reopened, last).await;
        assert_eq!(Receipt { replayed: false, ..retried }, second);
        assert_eq!(
            reopened.tip(&vault(), Consistency::Linearizable).await.unwrap().height,
            2,
            "no new block"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_one_log_twice_gives_the_same_roots() {
    let home = Home::new();
    let ledger = home.open().await;
    write_history(&ledger).await;
    let (one, two) = (home.copy(), home.copy());
    let (one, two) = (one.open().await, two.open().await);
    assert_eq!(chain(&one), chain(&ledger));
    assert_eq!(chain(&one), chain(&two));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_works_after_a_restart_and_on_another_node_of_the_ledger() {
    let home = Home::new();
    let ledger = home.open().await;
    write_history(&ledger).await;
    let page = |token: &str| ListRequest { page_size: 3, page_token: token.to_owned() };
    let first =
        ledger.list_entities(&vault(), "key-", page(""), Consistency::Linearizable).await.unwrap().value;
    let token = first.next_page_token;
    assert_eq!(first.items.len(), 3);
    let rest = ledger.list_entities(&vault(), "key-", page(&token), Consistency::Linearizable).await.unwrap();
    let other_node = home.copy();
    ledger.shutdown().await.unwrap();
    for reopened in [home.open().await, other_node.open().await] {
        let same =
            reopened.list_entities(&vault(), "key-", page(&token), Consistency::Eventual).await.unwrap();
        assert_eq!(same.value, rest.value);
        assert_eq!(same.value.items[0].0, key("key-3"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_is_refused_with_another_filter_or_by_another_ledger() {
    let home = Home::new();
    let ledger = home.open().await;
    write_history(&ledger).await;
    let page = |token: &str| ListRequest { page_size: 3, page_token: token.to_owned() };
    let listing = ledger.list_entities(&vault(), "key-", page(""), Consistency::Eventual).await.unwrap();
    let token = listing.value.next_page_token;
    let refused =
        ledger.list_entities(&vault(), "key", page(&token), Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::PageToken(PageTokenError::WrongQuery)), "{refused}");
    let filter =
        RelationshipFilter::ByResource { resource: Resource::new("doc:plan").unwrap(), relation: None };
    let refused =
        ledger.list_relationships(&vault(), filter, page(&token), Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::PageToken(PageTokenError::WrongQuery)), "{refused}");
    let foreign_home = Home::new();
    let foreign = foreign_home.open().await;
    write_history(&foreign).await;
    let refused =
        foreign.list_entities(&vault(), "key-", page(&token), Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::PageToken(PageTokenError::WrongQuery)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_the_writes_that_wait_and_flushes() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let writes: Vec<_> = (0..50).map(|n| write(&ledger, put(&format!("k{n}"), "v"))).collect();
    let mut all = std::pin::pin!(futures::future::join_all(writes));
    assert!(futures::poll!(all.as_mut()).is_pending());
    let (receipts, stopped) = futures::future::join(all, ledger.shutdown()).await;
    stopped.unwrap();
    assert_eq!(receipts.len(), 50);
    let refused = ledger.write(&vault(), &super::setting::actor(), put("late", "v")).await.unwrap_err();
    assert!(matches!(refused, ledger_node::WriteError::Stopped), "{refused}");
    let state = home.stores().state;
    assert!(state.applied().unwrap().is_some(), "the state store was flushed");
    let reopened = home.open().await;
    for number in 0..50 {
        let read = reopened.get(&vault(), &key(&format!("k{number}")), Consistency::Eventual).await.unwrap();
        assert!(read.value.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_stops_the_node_in_order() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "value")).await;
    drop(ledger);
    // The lock is the last thing that a node releases.
    let mut directory = None;
    eventually("the directory is free again", || {
        directory = ledger_node::DataDirectory::open(home.folder.path()).ok();
        directory.is_some()
    })
    .await;
    drop(directory);
    assert!(home.stores().state.applied().unwrap().is_some());
}

/// The log of one home with the state of another, in a copy of the first one's directory.
fn mixed(log: Home, state: Home) -> Home {
    Home { state: state.state, ..log }
}

async fn refused(home: &Home) -> OpenError {
    let opened = Ledger::open(home.directory(), home.stores(), home.options()).await;
    opened.expect_err("files of different times were opened")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_older_than_the_state_is_refused_with_both_indexes() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("early", "v")).await;
    let early = home.copy();
    let log_end = ledger.node_info().last_log_index;
    write(&ledger, put("late", "v")).await;
    ledger.shutdown().await.unwrap();
    let applied = home.stores().state.applied().unwrap().unwrap().last_applied.index;
    let mixed = mixed(early, home.copy());
    let error = refused(&mixed).await;
    let (last, state) = match &error {
        OpenError::LogOlderThanState { log_last: Some(last), applied } => (*last, *applied),
        other => panic!("{other}"),
    };
    assert_eq!((last, state), (log_end, applied));
    let text = error.to_string();
    assert!(text.contains(&last.to_string()) && text.contains(&state.to_string()), "{text}");
    assert!(text.contains("different times") && text.contains("same copy"), "{text}");
    // Whole copies open, whatever their age.
    let whole = home.copy().open().await;
    assert_eq!(whole.block(&vault(), 2).unwrap().unwrap().header.height, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_purged_beyond_the_state_is_refused_with_advice() {
    let home = Home::new();
    let ledger =
        home.open_with(home.stores(), ledger_node::Options { flush_bytes: 1, ..home.options() }).await;
    create_vault(&ledger).await;
    let early = home.copy();
    let early_end = ledger.node_info().last_log_index;
    let mut number = 0;
    while ledger.node_info().purged <= Some(early_end) {
        number += 1;
        assert!(number < 10_000, "the log is not purged");
        write(&ledger, put(&format!("k{number}"), "v")).await;
    }
    ledger.shutdown().await.unwrap();
    for state in [early, Home::new()] {
        let error = refused(&mixed(home.copy(), state)).await;
        assert!(matches!(error, OpenError::StateOlderThanLog { .. }), "{error}");
        assert!(error.to_string().contains("same copy"), "{error}");
    }
    home.copy().open().await;
}
