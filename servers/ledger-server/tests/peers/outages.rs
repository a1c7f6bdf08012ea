//! Peers that are gone, hang, and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger_node::peers::{PeerError, PeerMethod};
use ledger_server::peer_transport::{PeerLimits, PeerSecurity};
use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::node::{Node, PATIENCE, any_port, in_time, limits, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_listens_is_unreachable_at_once() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let address = {
        let socket = TcpListener::bind(any_port()).await.unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let started = Instant::now();
    for _ in 0..20 {
        let request = a.request(PeerMethod::Vote, "");
        let error = a.transport.call(&address, None, request, PATIENCE).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    }
    assert!(started.elapsed() < PATIENCE / 2, "errors come at once, whatever the time allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_hangs_times_out_alone() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    // It takes connections and says nothing, as a stopped process does.
    let hung = TcpListener::bind(any_port()).await.unwrap();
    let address = hung.local_addr().unwrap().to_string();
    let short = Duration::from_millis(300);
    let asked = Instant::now();
    let hanging = {
        let (transport, request) = (Arc::clone(&a.transport), a.request(PeerMethod::Vote, ""));
        let address = address.clone();
        tokio::spawn(async move { transport.call(&address, None, request, short).await })
    };
    while !hanging.is_finished() {
        assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello", "the other peer is answered meanwhile");
    }
    assert_eq!(hanging.await.unwrap(), Err(PeerError::Timeout { address: address.clone(), timeout: short }));
    assert!(asked.elapsed() >= short);
    // With more time than a connection may take, the connection is what fails.
    let request = a.request(PeerMethod::Vote, "");
    let error = in_time("an error", a.transport.call(&address, None, request, PATIENCE)).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable { reason, .. } if reason.contains("within 2s")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_killed_fails_its_calls_and_is_found_again() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    let (listen, address, name) = (b.socket_address(), b.address.clone(), b.name.clone());
    let waiting = {
        let (transport, request) = (Arc::clone(&a.transport), a.request(PeerMethod::Propose, ""));
        let (address, name) = (address.clone(), name.clone());
        tokio::spawn(async move { transport.call(&address, Some(&name), request, PATIENCE).await })
    };
    b.handler.one_entered().await;
    b.kill().await;
    let error = in_time("the call fails", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "long before its time is up: {error}");
    let request = || a.request(PeerMethod::NodeInfo, "hello");
    let call = || a.transport.call(&address, Some(&name), request(), PATIENCE);
    until("a call notices", call, |outcome| outcome.is_err().then_some(())).await;

    let security = PeerSecurity::MutualTls(authority.node("node-b"));
    let _again = Node::start_at("node-b", security, listen, limits()).await;
    let back = Instant::now();
    let answer = until("the peer answers again", call, Result::ok).await;
    assert_eq!(answer, "node-b: hello");
    assert!(back.elapsed() < PATIENCE / 2, "the wait before another try is bounded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_drains_finishes_its_calls_and_a_new_one_takes_over() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    let (listen, address, name) = (b.socket_address(), b.address.clone(), b.name.clone());
    let waiting = {
        let (transport, request) = (Arc::clone(&a.transport), a.request(PeerMethod::Propose, "kept"));
        let (address, name) = (address.clone(), name.clone());
        tokio::spawn(async move { transport.call(&address, Some(&name), request, PATIENCE).await })
    };
    b.handler.one_entered().await;
    let handler = Arc::clone(&b.handler);
    let stopping = tokio::spawn(b.stop());
    handler.release.add_permits(1);
    assert_eq!(in_time("an answer", waiting).await.unwrap().unwrap(), "kept");
    in_time("the end", stopping).await.unwrap();

    let security = PeerSecurity::MutualTls(authority.node("node-b"));
    let _again = Node::start_at("node-b", security, listen, limits()).await;
    let call = || a.transport.call(&address, Some(&name), a.request(PeerMethod::NodeInfo, "hello"), PATIENCE);
    assert_eq!(until("the peer answers again", call, Result::ok).await, "node-b: hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_asked_to_end_cost_no_call() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let mut short_lived = limits();
    short_lived.listener.connection_age_max = Duration::from_millis(50);
    let security = PeerSecurity::MutualTls(authority.node("node-b"));
    let b = Node::start_at("node-b", security, any_port(), short_lived).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up() {
    let authority = Authority::new("cluster");
    let quick = PeerLimits {
        keepalive_interval: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..limits()
    };
    let security = PeerSecurity::MutualTls(authority.node("node-a"));
    let a = Node::start_at("node-a", security, any_port(), quick).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    // Between them stands what forwards until it is told to fall silent, without closing anything.
    let middle = TcpListener::bind(any_port()).await.unwrap();
    let address = middle.local_addr().unwrap().to_string();
    let (silence, silent) = tokio::sync::watch::channel(false);
    let beyond = b.address.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = middle.accept().await {
            let (beyond, mut silent) = (beyond.clone(), silent.clone());
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(&beyond).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    () = async { drop(silent.wait_for(|silent| *silent).await) } => std::future::pending().await,
                }
            });
        }
    });
    let request = || a.request(PeerMethod::NodeInfo, "hello");
    let call = || a.transport.call(&address, Some(&b.name), request(), PATIENCE);
    assert_eq!(in_time("an answer", call()).await.unwrap(), "node-b: hello");
    silence.send_replace(true);
    let started = Instant::now();
    let error = in_time("an error", call()).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    assert!(started.elapsed() < PATIENCE / 2, "long before the call's own time is up");
    silence.send_replace(false);
    assert_eq!(until("a new connection works", call, Result::ok).await, "node-b: hello");
}
