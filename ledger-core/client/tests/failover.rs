//! Several nodes: calls find the leader, go elsewhere when a node fails, and never do anything twice.

mod killable;
#[expect(dead_code, reason = "clients here know several nodes")]
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use killable::Killable;
use ledger_client::{Consistency, ErrorCode, LedgerClient, MemoryPins, WatchRequest};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::transaction::{Action, Operation};
use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_response::Event;
use scripted::{Chain, lock, options};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn put() -> Vec<Operation> {
    let action = Action::SetEntity {
        key: EntityKey::new("door").expect("a valid key"),
        value: EntityValue::new(b"open".to_vec()).expect("a small value"),
        expires_at_ms: 0,
    };
    vec![Operation { action, condition: None }]
}

fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: std::collections::HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let details = ErrorDetails::with_error_info(reason, ledger_proto::ERROR_DOMAIN, metadata);
    Status::with_error_details(code, "scripted", details)
}

fn not_leader(term: u64, leader: &Killable) -> Status {
    let term = term.to_string();
    let metadata = [("leader_term", term.as_str()), ("leader_id", "5"), ("leader_url", &leader.url)];
    refusal(Code::Unavailable, "NOT_LEADER", &metadata)
}

fn no_leader() -> Status {
    refusal(Code::Unavailable, "NO_LEADER", &[])
}

fn keys_seen(node: &Killable) -> Vec<Vec<u8>> {
    lock(&node.script.writes_seen).iter().map(|(_, request)| request.idempotency_key.to_vec()).collect()
}

fn client(nodes: &[&Killable]) -> LedgerClient {
    let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
    LedgerClient::connect(options(&urls.join(",")), Arc::new(MemoryPins::default())).expect("valid options")
}

/// A client that was told by every node that this one leads.
async fn client_led_by(nodes: &[&Killable], leader: &Killable, term: u64) -> LedgerClient {
    for node in nodes.iter().filter(|node| node.url != leader.url) {
        *lock(&node.script.leader_header) = Some(format!("{term} 5 {}", leader.url));
    }
    let client = client(nodes);
    for _ in nodes {
        client.tip(&vault(), Consistency::Eventual).await.expect("a tip");
    }
    assert!(client.nodes().iter().all(|node| node.leads == (node.url == leader.url)), "{:?}", client.nodes());
    client
}

#[tokio::test]
async fn writes_and_fresh_reads_go_to_the_leader_that_answers_name_and_other_reads_to_all() {
    let (a, b, c) = (Killable::start().await, Killable::start().await, Killable::start().await);
    let nodes = [&a, &b, &c];
    let client = client_led_by(&nodes, &b, 3).await;
    let before: Vec<u32> = nodes.iter().map(|node| *lock(&node.script.tips_seen)).collect();
    for _ in 0..6 {
        client.write(&vault(), put()).await.expect("a write");
        client.tip(&vault(), Consistency::Linearizable).await.expect("a tip");
    }
    assert_eq!(nodes.map(|node| keys_seen(node).len()), [0, 6, 0]);
    assert_eq!(*lock(&b.script.tips_seen) - before[1], 6);
    for _ in 0..6 {
        client.tip(&vault(), Consistency::Eventual).await.expect("a tip");
    }
    let after: Vec<u32> = nodes.iter().map(|node| *lock(&node.script.tips_seen)).collect();
    assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [2, 8, 2]);
}

#[tokio::test]
async fn a_refusal_that_names_the_leader_is_followed_under_the_same_key() {
    let (a, b) = (Killable::start().await, Killable::start().await);
    lock(&a.script.write_answers).push_back(Err(not_leader(3, &b)));
    lock(&b.script.write_answers).push_back(Err(not_leader(4, &a)));
    client(&[&a, &b]).write(&vault(), put()).await.expect("the third try succeeds, if need be");
    let mut keys = keys_seen(&a);
    keys.extend(keys_seen(&b));
    assert!((2..=3).contains(&keys.len()), "{keys:?}");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_write_under_way_when_the_leader_is_killed_goes_on_elsewhere_under_the_same_key() {
    let (mut a, b, c) = (Killable::start().await, Killable::start().await, Killable::start().await);
    let client = client_led_by(&[&a, &b, &c], &a, 3).await;
    for node in [&b, &c] {
        *lock(&node.script.leader_header) = None;
        // The election takes its time.
        lock(&node.script.write_answers).extend([Err(no_leader()), Err(no_leader())]);
    }
    a.script.frozen.send_replace(true);
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.write(&vault(), put()).await }
    });
    tokio::time::timeout(Duration::from_secs(10), async {
        while keys_seen(&a).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the write reaches the leader");
    a.kill();
    let receipt = tokio::time::timeout(Duration::from_secs(10), writing).await.expect("in time");
    receipt.expect("it runs to its end").expect("another node takes it");
    let key = keys_seen(&a)[0].clone();
    let later: Vec<_> = [keys_seen(&b), keys_seen(&c)].concat();
    assert!(later.len() >= 3, "{later:?}");
    assert!(later.iter().all(|seen| *seen == key), "one key, whatever happens");
    let health = client.nodes();
    assert!(health[0].avoided && health[0].failures >= 1 && !health[0].leads, "{health:?}");
    assert_eq!((health[1].failures, health[2].failures), (0, 0), "who waits for a leader has not failed");
    // The dead node is not asked again for a while.
    client.write(&vault(), put()).await.expect("a write");
}

#[tokio::test]
async fn what_may_have_happened_is_not_repeated_elsewhere_and_what_cannot_have_happened_is() {
    let (a, b) = (Killable::start().await, Killable::start().await);
    let client = client_led_by(&[&a, &b], &a, 1).await;
    let name = NamespaceName::new("acme").expect("a valid name");
    let unknown = refusal(Code::Unavailable, "UNAVAILABLE", &[]);
    lock(&a.script.namespace_answers).push_back(Err(unknown));
    let error = client.create_namespace(&name).await.expect_err("its outcome is unknown");
    assert_eq!(
        (error.code(), error.refusal().map(|refusal| refusal.tries)),
        (ErrorCode::Unavailable, Some(1))
    );
    assert_eq!(*lock(&b.script.namespace_calls), 0);

    lock(&a.script.namespace_answers).extend([Err(not_leader(9, &b))]);
    let seen = *lock(&a.script.namespace_calls);
    // Whichever is asked first, exactly one call is carried out.
    for _ in 0..2 {
        client.create_namespace(&name).await.expect("nothing had happened");
    }
    assert_eq!(*lock(&a.script.namespace_calls) - seen + *lock(&b.script.namespace_calls), 3);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_has_done_nothing() {
    let (a, mut b) = (Killable::start().await, Killable::start().await);
    let client = client_led_by(&[&a, &b], &b, 1).await;
    b.kill();
    // The connection is found broken by a read first, so that the next call finds nobody.
    client.tip(&vault(), Consistency::Linearizable).await.expect("another node answers");
    let alone =
        LedgerClient::connect(options(&b.url), Arc::new(MemoryPins::default())).expect("valid options");
    let name = NamespaceName::new("acme").expect("a valid name");
    let error = alone.create_namespace(&name).await.expect_err("nobody is there");
    let refusal = error.refusal().expect("a refusal");
    assert!(refusal.nothing_happened, "{refusal:?}");
    assert_eq!(refusal.tries, 3, "it can be tried again without harm");
}

#[tokio::test]
async fn a_key_refused_for_its_time_is_corrected_also_after_a_node_that_did_nothing() {
    let (a, b) = (Killable::start().await, Killable::start().await);
    let client = client_led_by(&[&a, &b], &a, 1).await;
    lock(&a.script.write_answers).push_back(Err(not_leader(2, &b)));
    let future = [("log_time_ms", "1750000000000")];
    let refused = refusal(Code::FailedPrecondition, "IDEMPOTENCY_KEY_IN_FUTURE", &future);
    lock(&b.script.write_answers).push_back(Err(refused));
    client.write(&vault(), put()).await.expect("the corrected key is taken");
    let keys = keys_seen(&b);
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn an_election_that_does_not_end_is_reported_as_such() {
    let (a, b) = (Killable::start().await, Killable::start().await);
    for node in [&a, &b] {
        lock(&node.script.write_answers).extend((0..1_000).map(|_| Err(no_leader())));
    }
    let mut options = options(&format!("{},{}", a.url, b.url));
    options.retry.election_patience = Duration::from_millis(200);
    let client = LedgerClient::connect(options, Arc::new(MemoryPins::default())).expect("valid options");
    let error = client.write(&vault(), put()).await.expect_err("nobody leads");
    assert_eq!((error.code(), error.reason()), (ErrorCode::Unavailable, "NO_LEADER"));
    assert!(error.to_string().contains("http://"), "it says which node: {error}");
    assert!(keys_seen(&a).len() + keys_seen(&b).len() > 6, "it was patient");
}

fn block(chain: &Chain, height: usize) -> Result<v1::WatchBlocksResponse, Status> {
    let header = chain.headers[height];
    let block = v1::WatchedBlock {
        header: header.encode().to_vec().into(),
        block_hash: header.leaf_hash().to_vec().into(),
        ..v1::WatchedBlock::default()
    };
    Ok(v1::WatchBlocksResponse { event: Some(Event::Block(block)) })
}

fn start_heights(node: &Killable) -> Vec<u64> {
    lock(&node.script.watches_seen).iter().map(|request| request.start_height).collect()
}

#[tokio::test]
async fn a_watch_goes_on_at_another_node_without_a_gap_or_a_repeat() {
    let mut chain = Chain::new();
    for _ in 1..8 {
        chain.grow(b"open");
    }
    let (mut a, b) = (Killable::start().await, Killable::start().await);
    // The first node breaks off. The other one has not yet what this reader has seen, and then has.
    let first = vec![block(&chain, 0), block(&chain, 1), Err(refusal(Code::Unavailable, "STOPPING", &[]))];
    let behind = refusal(Code::OutOfRange, "HEIGHT_UNAVAILABLE", &[("height", "2"), ("tip_height", "0")]);
    *lock(&a.script.watches) = vec![first].into();
    *lock(&b.script.watches) = vec![
        vec![Err(behind.clone())],
        vec![Err(behind)],
        (2..8).map(|height| block(&chain, height)).collect(),
    ]
    .into();
    let client = client(&[&a]);
    let mut stream = client.watch(&vault(), WatchRequest::default()).await.expect("a watch");
    assert_eq!(stream.next().await.expect("a block").header.height, 0);
    drop(stream);

    // Again with both, and the first one gone for good after its two blocks.
    let first = vec![block(&chain, 0), block(&chain, 1), Err(refusal(Code::Unavailable, "STOPPING", &[]))];
    *lock(&a.script.watches) = vec![first].into();
    let client = client_led_by(&[&a, &b], &a, 1).await;
    let mut stream = loop {
        let mut stream = client.watch(&vault(), WatchRequest::default()).await.expect("a watch");
        if stream.next().await.is_ok_and(|block| block.header.height == 0) {
            break stream;
        }
    };
    a.kill();
    for height in 1..8 {
        let block = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("in time");
        assert_eq!(block.expect("a block").header.height, height);
    }
    assert_eq!(stream.position(), 8);
    assert!(start_heights(&b).iter().all(|start| [0, 1, 2].contains(start)), "{:?}", start_heights(&b));
}

#[tokio::test]
async fn a_client_that_may_reach_several_nodes_takes_none_of_them_out() {
    let (a, b) = (Killable::start().await, Killable::start().await);
    for client in [client(&[&a, &b]), client(&[&a])] {
        let error = client.leave_cluster().await.expect_err("which one?");
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn an_unlisted_leader_is_found_and_can_be_ignored() {
    let (listed, leader) = (Killable::start().await, Killable::start().await);
    *lock(&listed.script.leader_header) = Some(format!("2 5 {}", leader.url));
    let mut strict = options(&listed.url);
    strict.unlisted_nodes = ledger_client::UnlistedNodes::Ignore;
    let strict = LedgerClient::connect(strict, Arc::new(MemoryPins::default())).expect("valid options");
    let client = client(&[&listed]);
    for client in [&client, &strict] {
        client.tip(&vault(), Consistency::Linearizable).await.expect("a tip");
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        while client.nodes().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the leader is met");
    client.write(&vault(), put()).await.expect("a write");
    assert_eq!((keys_seen(&listed).len(), keys_seen(&leader).len()), (0, 1));
    strict.write(&vault(), put()).await.expect("a write");
    assert_eq!((keys_seen(&listed).len(), strict.nodes().len()), (1, 1));
}
