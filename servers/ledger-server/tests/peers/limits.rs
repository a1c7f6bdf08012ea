//! What one peer cannot do to a node.

use std::time::Duration;

use ledger_node::peers::{PEER_BODY_BYTES_MAX, PeerError, PeerMethod, PeerRefusal};
use ledger_proto::peer::v1::peer_service_client::PeerServiceClient;
use ledger_proto::peer::v1::{CallRequest, call_response};
use ledger_server::peer_transport::{PeerLimits, PeerSecurity};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::node::{Node, PATIENCE, any_port, in_time, limits};

async fn plaintext(name: &str, limits: PeerLimits) -> Node {
    Node::start_at(name, PeerSecurity::InsecureLoopback, any_port(), limits).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_refused_by_the_node_that_gets_it() {
    let b = plaintext("node-b", limits()).await;
    let channel = Endpoint::from_shared(format!("http://{}", b.address)).unwrap().connect().await.unwrap();
    let mut client = PeerServiceClient::new(channel).max_encoding_message_size(usize::MAX);
    let body = vec![0; PEER_BODY_BYTES_MAX + (1 << 20)];
    let large = CallRequest { body: body.into(), ..CallRequest::default() };
    let status = in_time("an answer", client.call(large)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    // Within the room that a message has beside the largest body.
    let body = vec![0; PEER_BODY_BYTES_MAX + 1];
    let answer = client.call(CallRequest { body: body.into(), ..CallRequest::default() }).await.unwrap();
    let Some(call_response::Outcome::Refusal(refusal)) = answer.into_inner().outcome else {
        panic!("accepted")
    };
    assert!(refusal.reason.contains("`from` is missing"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_nodes_limit_are_refused_as_busy() {
    let mut narrow = limits();
    narrow.admission.requests_max = 1;
    let a = plaintext("node-a", limits()).await;
    let b = plaintext("node-b", narrow).await;
    let request = a.request(PeerMethod::Propose, "");
    let mut waiting = a.transport.call(&b.address, None, request, PATIENCE);
    tokio::select! {
        _ = &mut waiting => panic!("nobody let it go"),
        () = b.handler.one_entered() => {}
    }
    let refusal = PeerRefusal::Busy;
    assert_eq!(a.ask(&b).await, Err(PeerError::Refused { address: b.address.clone(), refusal }));
    b.handler.release.add_permits(1);
    assert!(in_time("an answer", waiting).await.is_ok());
    assert!(a.ask(&b).await.is_ok(), "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_nodes_limit_are_closed_and_the_caller_is_told() {
    let mut narrow = limits();
    narrow.listener.connections_max = 1;
    let (a, c) = (plaintext("node-a", limits()).await, plaintext("node-c", limits()).await);
    let b = plaintext("node-b", narrow).await;
    assert!(a.ask(&b).await.is_ok());
    let error = c.ask(&b).await.unwrap_err();
    assert!(matches!(&error, PeerError::Unreachable { .. }), "{error}");
    assert!(a.ask(&b).await.is_ok(), "the one that is there stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_may_wait_for_one_peer_are_refused_as_busy() {
    const CALLS: usize = 1_100;
    let (a, b) = (plaintext("node-a", limits()).await, plaintext("node-b", limits()).await);
    let short = Duration::from_secs(3);
    let calls = (0..CALLS).map(|_| {
        let request = a.request(PeerMethod::Propose, "");
        a.transport.call(&b.address, None, request, short)
    });
    let outcomes = in_time("all outcomes", futures::future::join_all(calls)).await;
    let busy = |outcome: &&Result<_, PeerError>| {
        matches!(outcome, Err(PeerError::Refused { refusal: PeerRefusal::Busy, .. }))
    };
    let late = |outcome: &&Result<_, PeerError>| matches!(outcome, Err(PeerError::Timeout { .. }));
    assert_eq!(outcomes.iter().filter(busy).count(), CALLS - 1_024);
    let others: Vec<_> = outcomes.iter().filter(|outcome| !busy(outcome) && !late(outcome)).collect();
    assert!(others.is_empty(), "{} others, such as {:?}", others.len(), others.first());
    assert!(a.ask(&b).await.is_ok(), "and the connection works on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_beyond_what_the_node_may_hold_are_refused_as_busy_and_small_requests_pass() {
    let mut narrow = limits();
    narrow.request_bytes_max = 1 << 20;
    let a = plaintext("node-a", limits()).await;
    let b = plaintext("node-b", narrow).await;
    let large = || vec![7; 700 << 10];
    let mut waiting = a.transport.call(&b.address, None, a.request(PeerMethod::Propose, large()), PATIENCE);
    tokio::select! {
        _ = &mut waiting => panic!("nobody let it go"),
        () = b.handler.one_entered() => {}
    }
    let second = || a.transport.call(&b.address, None, a.request(PeerMethod::NodeInfo, large()), PATIENCE);
    let refusal = PeerRefusal::Busy;
    let outcome = in_time("an answer", second()).await;
    assert_eq!(outcome, Err(PeerError::Refused { address: b.address.clone(), refusal }));
    assert!(a.ask(&b).await.is_ok(), "a heartbeat is small");
    b.handler.release.add_permits(1);
    assert_eq!(in_time("an answer", waiting).await.unwrap(), large());
    // Its bytes were free before its answer was sent.
    assert!(in_time("an answer", second()).await.is_ok(), "there is room again");
}
