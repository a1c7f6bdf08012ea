use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Request};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use service_kit::ListenerLimits;
use service_kit::admission::AdmissionLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::loopback::{METRICS, call, connect, grpc_status, in_time, read_until_closed, start_slow};

fn header(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().expect("a header value"));
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_sheds_with_a_retry_hint_and_keeps_streams_apart() {
    let limits = ListenerLimits::default();
    let admission = AdmissionLimits {
        requests_max: 1,
        streams_max: 1,
        streaming_paths: vec!["/test.Slow/Stream".to_owned()],
        ..AdmissionLimits::default()
    };
    std::sync::LazyLock::force(&METRICS);
    let (slow, address) = start_slow(&limits, &admission).await;
    let (first, other) = (connect(address).await, connect(address).await);
    let waiting = tokio::spawn(async move { call(&first, "/test.Slow/Wait", HeaderMap::new()).await });
    slow.one_entered().await;

    // The limit counts over all connections.
    let shed = call(&other, "/test.Slow/Quick", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&shed), "8", "RESOURCE_EXHAUSTED");
    assert_eq!(shed.get("grpc-retry-pushback-ms").expect("a hint"), "200");
    assert!(shed.contains_key("grpc-status-details-bin"));
    assert!(METRICS.render().contains("strongroom_requests_shed_total{kind=\"request\"}"));

    let channel = other.clone();
    let streaming = tokio::spawn(async move { call(&channel, "/test.Slow/Stream", HeaderMap::new()).await });
    slow.one_entered().await;
    let shed = call(&other, "/test.Slow/Stream", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&shed), "8", "streams have a limit of their own");
    let health = call(&other, "/grpc.health.v1.Health/Check", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&health), "12", "health has places of its own (and is not implemented here)");

    slow.state.release.add_permits(2);
    for answer in [waiting, streaming] {
        assert_eq!(grpc_status(&answer.await.expect("no panic").expect("an answer")), "0");
    }
    let answer = call(&other, "/test.Slow/Quick", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&answer), "0", "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_at_the_servers_timeout_or_the_clients_shorter_one() {
    let short = Duration::from_millis(60);
    let admission = AdmissionLimits {
        request_timeout: short,
        streaming_paths: vec!["/test.Slow/Stream".to_owned()],
        ..AdmissionLimits::default()
    };
    let (slow, address) = start_slow(&ListenerLimits::default(), &admission).await;
    let channel = connect(address).await;
    let started = std::time::Instant::now();
    let stream_channel = channel.clone();
    let stream =
        tokio::spawn(async move { call(&stream_channel, "/test.Slow/Stream", HeaderMap::new()).await });
    slow.one_entered().await;
    let late = call(&channel, "/test.Slow/Wait", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&late), "4", "DEADLINE_EXCEEDED");
    assert!(started.elapsed() >= short);
    assert!(!stream.is_finished(), "a stream has no timeout");
    slow.state.release.add_permits(1);
    assert_eq!(grpc_status(&stream.await.expect("no panic").expect("an answer")), "0");

    let (_slow, address) = start_slow(&ListenerLimits::default(), &AdmissionLimits::default()).await;
    // tonic's client would end the call by its own clock: this one only sends the header.
    let stream = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), stream).await.expect("an HTTP/2 connection");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/test.Slow/Wait")).header("grpc-timeout", "50m");
    let request = request.body(Body::empty()).expect("a request");
    let late = in_time("an answer", client.send_request(request)).await.expect("an answer");
    assert_eq!(grpc_status(late.headers()), "4", "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_a_connections_limit_wait_for_their_turn() {
    let limits = ListenerLimits { requests_per_connection_max: 2, ..ListenerLimits::default() };
    let (slow, address) = start_slow(&limits, &AdmissionLimits::default()).await;
    let channel = connect(address).await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { call(&channel, "/test.Slow/Wait", HeaderMap::new()).await })
        })
        .collect();
    for _ in 0..6 {
        slow.one_entered().await;
        slow.state.release.add_permits(1);
    }
    for answer in calls {
        assert_eq!(grpc_status(&answer.await.expect("no panic").expect("an answer")), "0");
    }
    assert!(slow.state.running_max.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_keeps_its_id_or_gets_one() {
    let (_slow, address) = start_slow(&ListenerLimits::default(), &AdmissionLimits::default()).await;
    let channel = connect(address).await;
    let given =
        call(&channel, "/test.Slow/Quick", header("x-request-id", "order-7/a")).await.expect("an answer");
    assert_eq!(given.get("x-request-id").expect("an id"), "order-7/a");
    assert_eq!(given.get("seen-request-id").expect("an id"), "order-7/a");
    let mut made = Vec::new();
    for unusable in ["", "two words", &"x".repeat(129)] {
        let answer =
            call(&channel, "/test.Slow/Quick", header("x-request-id", unusable)).await.expect("an answer");
        let id = answer.get("x-request-id").expect("an id").to_str().expect("ASCII").to_owned();
        assert_ne!(id, unusable);
        assert_eq!(answer.get("seen-request-id").expect("an id"), id.as_str());
        made.push(id);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 3, "ids are unique");
    assert!(given.get("seen-peer").is_some_and(|peer| peer.as_bytes().starts_with(b"127.0.0.1:")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_the_limit_are_refused_and_the_server_lives_on() {
    let (_slow, address) = start_slow(&ListenerLimits::default(), &AdmissionLimits::default()).await;
    let channel = connect(address).await;
    let answer = call(&channel, "/test.Slow/Quick", header("x-large", &"x".repeat(20 << 10))).await;
    assert!(answer.is_err() || answer.is_ok_and(|headers| grpc_status(&headers) != "0"));
    let answer =
        call(&connect(address).await, "/test.Slow/Quick", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&answer), "0");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rapid_reset_flood_loses_its_connection() {
    let (slow, address) = start_slow(&ListenerLimits::default(), &AdmissionLimits::default()).await;
    let mut attacker = TcpStream::connect(address).await.expect("a connection");
    let mut flood = [PREFACE, EMPTY_SETTINGS].concat();
    for stream in (1_u32..4_000).step_by(2) {
        // HEADERS with END_HEADERS and END_STREAM: POST, http, / from HPACK's static table; then RST_STREAM, CANCEL.
        flood.extend([0, 0, 3, 1, 5]);
        flood.extend(stream.to_be_bytes());
        flood.extend([0x83, 0x86, 0x84]);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(stream.to_be_bytes());
        flood.extend([0, 0, 0, 8]);
    }
    // The server may close before all is written.
    let _ = attacker.write_all(&flood).await;
    read_until_closed(&mut attacker).await;
    assert!(slow.state.entered.available_permits() < 2_000, "not every request of the flood was worked on");
    let answer =
        call(&connect(address).await, "/test.Slow/Quick", HeaderMap::new()).await.expect("an answer");
    assert_eq!(grpc_status(&answer), "0", "others are served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_of_http2_are_announced_to_the_client() {
    let (_slow, address) = start_slow(&ListenerLimits::default(), &AdmissionLimits::default()).await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.expect("written");
    let head: [u8; 9] = read_exactly(&mut client).await;
    assert_eq!((head[3], head[4]), (4, 0), "the first frame is SETTINGS");
    let mut settings = BTreeMap::new();
    for _ in 0..usize::from(head[2]) / 6 {
        let [id_high, id_low, value @ ..]: [u8; 6] = read_exactly(&mut client).await;
        settings.insert(u16::from_be_bytes([id_high, id_low]), u32::from_be_bytes(value));
    }
    // RFC 9113, section 6.5.2.
    assert_eq!(settings.get(&3), Some(&100), "MAX_CONCURRENT_STREAMS");
    assert_eq!(settings.get(&4), Some(&(1 << 20)), "INITIAL_WINDOW_SIZE");
    assert_eq!(settings.get(&5), Some(&(64 << 10)), "MAX_FRAME_SIZE");
    assert_eq!(settings.get(&6), Some(&(16 << 10)), "MAX_HEADER_LIST_SIZE");
}

async fn read_exactly<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    in_time("the bytes arrive", stream.read_exact(&mut bytes)).await.expect("not closed");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_trickles_its_preface_is_closed_at_the_timeout() {
    let limits =
        ListenerLimits { first_bytes_timeout: Duration::from_millis(500), ..ListenerLimits::default() };
    let (slow, address) = start_slow(&limits, &AdmissionLimits::default()).await;
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    let mut trickling = TcpStream::connect(address).await.expect("a connection");
    let started = std::time::Instant::now();
    let trickle = async {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let mut sent = 0;
        for byte in PREFACE {
            interval.tick().await;
            if trickling.write_all(&[*byte]).await.is_err() {
                break;
            }
            sent += 1;
        }
        read_until_closed(&mut trickling).await;
        sent
    };
    let (sent, said) =
        in_time("both end", futures::future::join(trickle, read_until_closed(&mut silent))).await;
    assert!(started.elapsed() >= limits.first_bytes_timeout);
    assert!(sent < PREFACE.len(), "closed before the preface was whole");
    // The server announces its settings unasked; that is all it says.
    assert_eq!(said.get(3), Some(&4));
    assert_eq!(said.len(), 9 + usize::from(said[2]), "one SETTINGS frame");

    // A well-behaved connection outlives the timeout.
    let channel = connect(address).await;
    let started = std::time::Instant::now();
    while started.elapsed() < limits.first_bytes_timeout * 2 {
        let answer = call(&channel, "/test.Slow/Quick", HeaderMap::new()).await.expect("still connected");
        assert_eq!(grpc_status(&answer), "0");
    }
    assert!(slow.state.entered.available_permits() > 0);
}
