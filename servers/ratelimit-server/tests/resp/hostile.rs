//! F4: whatever is sent, the server goes on, and what was not a decision leaves nothing behind.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ratelimit_server::resp::REQUEST_BYTES_MAX;

use crate::server::{TestServer, throttle};

#[tokio::test(flavor = "multi_thread")]
async fn f4_requests_that_are_refused_leave_no_key_and_the_connection_goes_on() {
    let server = TestServer::open().await;
    let mut client = server.client().await;
    for numbers in [
        "5 10 60 -100",
        "-1 10 60",
        "5 0 60",
        "5 10 0",
        "5 10 -1",
        "200000 1 86400",
        "5 10",
        "x 1 1",
        "5 10 60 1 1",
    ] {
        let reply = client.call(&throttle("k", numbers)).await;
        assert!(reply.starts_with("-Cell error: ") && reply.ends_with("\r\n"), "{numbers}: {reply}");
    }
    let long = "x".repeat(4_097);
    assert!(client.call(&throttle(&long, "5 10 60")).await.starts_with("-Cell error: a key has at most"));
    let never = client.call(&throttle("k", "5 10 60 9223372036854775807")).await;
    assert_eq!(never, "*5\r\n:1\r\n:6\r\n:6\r\n:-1\r\n:0\r\n");
    assert_eq!(server.live_keys(), 0);
    // A key may have any bytes, and an error repeats no line end of a request.
    let unknown = client.call(b"*1\r\n$6\r\na\r\n+OK\r\n").await;
    assert_eq!(unknown.matches("\r\n").count(), 1, "{unknown}");
    assert!(client.call(&throttle("a\r\n*1\r\n", "5 10 60")).await.starts_with("*5\r\n:0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_protocol_is_told_and_ends_the_connection() {
    let server = TestServer::open().await;
    for bytes in [&b"*1000000\r\n"[..], b"*1\r\n:1\r\n", b"*2\r\n$4\r\nPING\r\n$99999999999\r\n", b"*x\r\n"] {
        let mut client = server.client().await;
        client.send(bytes).await;
        let answer = String::from_utf8_lossy(&client.expect_end().await).into_owned();
        assert!(answer.starts_with("-ERR Protocol error"), "{answer:?}");
    }
    let mut client = server.client().await;
    client.send(&vec![b'x'; REQUEST_BYTES_MAX * 4]).await;
    client.expect_end().await;
    let mut client = server.client().await;
    // What came before the error is answered.
    client.send(b"PING\r\n*x\r\n").await;
    assert!(client.expect_end().await.starts_with(b"+PONG\r\n-ERR Protocol"));
    assert_eq!(server.live_keys(), 0);
}

#[test]
fn f4_arbitrary_bytes_neither_stop_the_server_nor_leave_a_key() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(TestServer::open());
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[*$:+0-9A-Z\r\n -]{0,200}".prop_map(String::into_bytes),
        (any::<i64>(), any::<i64>()).prop_map(|(a, b)| throttle("k", &format!("{a} 0 {b}"))),
        Just(b"*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n".to_vec()),
        Just(b"CLIENT\r\nCOMMAND INFO\r\nSELECT\r\nAUTH\r\nHELLO 3 AUTH\r\n".to_vec()),
    ];
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let run = runner.run(&prop::collection::vec(piece, 1..6), |pieces| {
        runtime.block_on(async {
            let mut client = server.client().await;
            for piece in &pieces {
                client.send_if_open(piece).await;
            }
            client.finish().await;
        });
        Ok(())
    });
    run.expect("every case");
    runtime.block_on(async {
        assert_eq!(server.client().await.call(b"PING\r\n").await, "+PONG\r\n");
        assert_eq!(server.live_keys(), 0);
    });
}
