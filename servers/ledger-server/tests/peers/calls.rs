//! What a call carries, and what comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ledger_node::peers::{
    NodeName, PEER_BODY_BYTES_MAX, PeerError, PeerFuture, PeerHandler, PeerMethod, PeerRefusal, PeerRequest,
};
use ledger_server::peer_transport::{PeerSecurity, PeerTransportSettings, open};

use crate::authority::Authority;
use crate::node::{CLUSTER, Node, PATIENCE, any_port, in_time, limits, until};

/// Remembers the request it was given.
#[derive(Debug, Default)]
struct Remembering(std::sync::Mutex<Option<PeerRequest>>);

impl PeerHandler for Remembering {
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        *self.0.lock().unwrap() = Some(request);
        Box::pin(async { Ok(Bytes::from_static(b"noted")) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_arrives_as_it_was_sent_and_is_answered() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    assert_eq!(b.ask(&a).await.unwrap(), "node-a: hello");
    assert_eq!(a.ask_as(&b, None).await.unwrap(), "node-b: hello", "without a name, every node is good");

    let remembering = Arc::new(Remembering::default());
    b.slot.set(Arc::clone(&remembering) as Arc<dyn PeerHandler>);
    let sent = PeerRequest { to: Some(u64::MAX), ..a.request(PeerMethod::Append, vec![0, 1, 2]) };
    let answer =
        in_time("an answer", a.transport.call(&b.address, Some(&b.name), sent.clone(), PATIENCE)).await;
    assert_eq!(answer.unwrap(), "noted", "the new handler answers");
    let got = remembering.0.lock().unwrap().take().unwrap();
    assert_eq!((got.cluster, &got.from, got.to), (Some(CLUSTER), &sent.from, sent.to));
    assert_eq!((got.method, &got.body), (sent.method, &sent.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_works_on_loopback_and_nowhere_else() {
    let insecure = || PeerSecurity::InsecureLoopback;
    let a = Node::start_at("node-a", insecure(), any_port(), limits()).await;
    let b = Node::start_at("node-b", insecure(), any_port(), limits()).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");

    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = open(PeerTransportSettings { listen, security: insecure(), limits: limits() }).await;
    assert!(refused.unwrap_err().to_string().contains("--peer-tls-cert"));
    // 192.0.2.0/24 is for documentation: nobody is there, and nobody is asked.
    let request = a.request(PeerMethod::NodeInfo, "");
    let error = a.transport.call("192.0.2.1:50052", None, request, PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable { reason, .. } if reason.contains("loopback")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_back_with_its_facts() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let call = || a.transport.call(&b.address, Some(&b.name), a.request(PeerMethod::Tips, ""), PATIENCE);
    let refusal = PeerRefusal::NotLeader { leader: Some(1) };
    assert_eq!(call().await, Err(PeerError::Refused { address: b.address.clone(), refusal }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_a_handler_is_there_a_node_says_that_it_is_not_ready() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let security = PeerSecurity::MutualTls(authority.node("node-b"));
    let settings = PeerTransportSettings { listen: any_port(), security, limits: limits() };
    let (_transport, server) = open(settings).await.unwrap();
    let address = server.local_address().to_string();
    let serving = tokio::spawn(server.serve(std::future::pending()));
    let request = a.request(PeerMethod::NodeInfo, "");
    let error = in_time("an answer", a.transport.call(&address, None, request, PATIENCE)).await.unwrap_err();
    let PeerError::Refused { refusal: PeerRefusal::NotReady { .. }, .. } = error else { panic!("{error}") };
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_16_mib_goes_both_ways_and_a_larger_one_nowhere() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let largest = Bytes::from((0..PEER_BODY_BYTES_MAX).map(|index| (index % 251) as u8).collect::<Vec<_>>());
    for method in [PeerMethod::SnapshotChunk, PeerMethod::Append] {
        let request = a.request(method, largest.clone());
        let call = a.transport.call(&b.address, Some(&b.name), request, PATIENCE);
        assert!(in_time("an answer", call).await.unwrap() == largest, "{method:?}");
    }
    let larger = vec![0; PEER_BODY_BYTES_MAX + 1];
    let request = a.request(PeerMethod::SnapshotChunk, larger);
    let error = a.transport.call(&b.address, Some(&b.name), request, PATIENCE).await.unwrap_err();
    let PeerError::Refused { refusal: PeerRefusal::Malformed { reason }, .. } = error else {
        panic!("{error}")
    };
    assert!(reason.contains("16777217"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_refused_by_the_node_that_would_give_it() {
    #[derive(Debug)]
    struct Verbose;
    impl PeerHandler for Verbose {
        fn handle(&self, _: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
            Box::pin(async { Ok(vec![0; PEER_BODY_BYTES_MAX + 1].into()) })
        }
    }
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    b.slot.set(Arc::new(Verbose));
    let error = a.ask(&b).await.unwrap_err();
    assert!(matches!(error, PeerError::Refused { refusal: PeerRefusal::Malformed { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_each_answered_with_their_own_answer() {
    const CALLS: usize = 1_000;
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let calls = (0..CALLS).map(|number| {
        // Some of them long.
        let body = vec![(number % 256) as u8; if number % 50 == 0 { 300_000 } else { number }];
        let request = a.request(PeerMethod::Append, body.clone());
        let call = a.transport.call(&b.address, Some(&b.name), request, PATIENCE);
        async move { (call.await, body) }
    });
    for (answer, body) in in_time("all answers", futures::future::join_all(calls)).await {
        assert!(answer.unwrap() == body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_do_not_hold_up_others() {
    const WAITING: usize = 200;
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let (transport, request) = (Arc::clone(&a.transport), a.request(PeerMethod::Propose, "wait"));
        let (address, name) = (b.address.clone(), b.name.clone());
        waiting.push(tokio::spawn(
            async move { transport.call(&address, Some(&name), request, PATIENCE).await },
        ));
    }
    for _ in 0..WAITING {
        b.handler.one_entered().await;
    }
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    b.handler.release.add_permits(WAITING);
    for answer in waiting {
        assert_eq!(in_time("an answer", answer).await.unwrap().unwrap(), "wait");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_waits_for_is_given_up_by_the_peer_too() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let dropped = || b.handler.dropped.load(Ordering::SeqCst);
    {
        let request = a.request(PeerMethod::Propose, "");
        let call = a.transport.call(&b.address, Some(&b.name), request, PATIENCE);
        tokio::select! {
            _ = call => panic!("nobody let it go"),
            () = b.handler.one_entered() => {}
        }
    }
    until("the dropped call ends", || async { dropped() }, |count| (count == 1).then_some(())).await;

    // On a busy machine a call may be late before it arrives: then another one shows it.
    let late = || async {
        let short = Duration::from_millis(100);
        let request = a.request(PeerMethod::Propose, "");
        let error = a.transport.call(&b.address, Some(&b.name), request, short).await.unwrap_err();
        assert_eq!(error, PeerError::Timeout { address: b.address.clone(), timeout: short });
        dropped()
    };
    until("a late call ends", late, |count| (count >= 2).then_some(())).await;
}

/// Waits without any runtime.
fn block_on_this_thread<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        let mut context = std::task::Context::from_waker(&waker);
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park_timeout(PATIENCE);
    }
}

#[test]
fn calls_work_from_any_runtime_and_from_none() {
    let authority = Authority::new("cluster");
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (a, b) = servers.block_on(async {
        let a = Node::start("node-a", authority.node("node-a")).await;
        (a, Node::start("node-b", authority.node("node-b")).await)
    });
    let call = || {
        let request = a.request(PeerMethod::NodeInfo, "hello");
        a.transport.call(&b.address, Some(&b.name), request, PATIENCE)
    };
    // A runtime without timers and sockets, as an engine may have.
    let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(bare.block_on(call()).unwrap(), "node-b: hello");
    assert_eq!(block_on_this_thread(call()).unwrap(), "node-b: hello");

    // When the transport's runtime is gone, a call says so.
    servers.shutdown_background();
    let error = bare.block_on(call()).unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_name_is_an_address_too() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let address = format!("localhost:{}", b.socket_address().port());
    let request = a.request(PeerMethod::NodeInfo, "hello");
    let name = NodeName::new("node-b").unwrap();
    let answer = in_time("an answer", a.transport.call(&address, Some(&name), request, PATIENCE)).await;
    assert_eq!(answer.unwrap(), "node-b: hello");
}
