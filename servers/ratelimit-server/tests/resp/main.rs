//! The protocol of Redis over real sockets.

mod clients;
mod hostile;
mod model;
mod server;

use std::time::Duration;

use server::{TestServer, throttle};

#[tokio::test(flavor = "multi_thread")]
async fn four_of_a_burst_of_three_are_answered_as_redis_cell_does() {
    let server = TestServer::open().await;
    let mut client = server.client().await;
    for remaining in [2, 1, 0] {
        let reply = client.call(&throttle("k", "2 1 60")).await;
        assert_eq!(reply, format!("*5\r\n:0\r\n:3\r\n:{remaining}\r\n:-1\r\n:{}\r\n", (3 - remaining) * 60));
    }
    let denied = client.call(&throttle("k", "2 1 60")).await;
    assert!(denied.starts_with("*5\r\n:1\r\n:3\r\n:0\r\n:"), "{denied}");
    let seconds: Vec<i64> = denied.lines().skip(4).map(|line| line[1..].parse().expect("a number")).collect();
    assert!((59..=60).contains(&seconds[0]) && (179..=180).contains(&seconds[1]), "{denied}");
    // A look takes nothing; another key has a bucket of its own.
    assert!(client.call(&throttle("k", "2 1 60 0")).await.starts_with("*5\r\n:0\r\n:3\r\n:0\r\n:-1"));
    assert!(client.call(&throttle("other", "2 1 60")).await.starts_with("*5\r\n:0\r\n:3\r\n:2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let server = TestServer::open().await;
    let requests: String =
        (0..40).map(|number| format!("*2\r\n$4\r\nPING\r\n$2\r\n{number:02}\r\n")).collect();
    let expected: String = (0..40).map(|number| format!("$2\r\n{number:02}\r\n")).collect();
    for cut in [1, 7, 100, requests.len()] {
        let mut client = server.client().await;
        for part in requests.as_bytes().chunks(cut) {
            client.send(part).await;
        }
        assert_eq!(client.receive(expected.len()).await, expected, "parts of {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_what_they_ask_before_they_begin() {
    let server = TestServer::open().await;
    let mut client = server.client().await;
    for (request, begin) in [
        ("PING\r\n", "+PONG\r\n"),
        ("SELECT 0\r\n", "+OK\r\n"),
        ("SELECT 1\r\n", "-ERR DB index"),
        ("CLIENT SETINFO LIB-NAME x\r\n", "+OK\r\n"),
        ("CLIENT SETNAME me\r\n", "+OK\r\n"),
        ("CLIENT KILL x\r\n", "-ERR unknown subcommand"),
        ("COMMAND COUNT\r\n", ":9\r\n"),
        ("COMMAND DOCS\r\n", "*0\r\n"),
        ("INFO\r\n", "$"),
        ("HELLO\r\n", "*14\r\n$6\r\nserver\r\n"),
        ("HELLO 3\r\n", "%7\r\n$6\r\nserver\r\n"),
        ("COMMAND INFO x\r\n", "*1\r\n_\r\n"),
        ("HELLO 4\r\n", "-NOPROTO"),
        ("HELLO 2\r\n", "*14\r\n"),
        ("COMMAND INFO x cl.throttle\r\n", "*2\r\n$-1\r\n*6\r\n$11\r\ncl.throttle\r\n:-5\r\n"),
        ("EVAL x 0\r\n", "-ERR unknown command 'EVAL'"),
        ("AUTH secret\r\n", "-ERR AUTH called without any token"),
    ] {
        let reply = client.call(request.as_bytes()).await;
        assert!(reply.starts_with(begin), "{request:?} -> {reply:?}");
    }
    assert_eq!(client.call(b"QUIT\r\n").await, "+OK\r\n");
    client.expect_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_decided_and_guessing_ends() {
    let server = TestServer::with_token("right").await;
    let mut client = server.client().await;
    for request in [&b"PING\r\n"[..], b"INFO\r\n", b"HELLO 3\r\n", &throttle("k", "2 1 60")] {
        assert!(client.call(request).await.starts_with("-NOAUTH"));
    }
    assert_eq!(server.live_keys(), 0);
    assert!(client.call(b"AUTH wrong\r\n").await.starts_with("-WRONGPASS"));
    assert!(client.call(b"AUTH somebody right\r\n").await.starts_with("-WRONGPASS"));
    assert_eq!(client.call(b"AUTH right\r\n").await, "+OK\r\n");
    assert!(client.call(&throttle("k", "2 1 60")).await.starts_with("*5\r\n:0"));

    let mut client = server.client().await;
    assert!(client.call(b"HELLO 3 AUTH default right SETNAME me\r\n").await.starts_with("%7\r\n"));

    let mut client = server.client().await;
    for _ in 0..ratelimit_server::resp::AUTH_FAILURES_MAX {
        assert!(client.call(b"AUTH wrong\r\n").await.starts_with("-WRONGPASS"));
    }
    client.expect_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_share_one_bucket_exactly() {
    let server = TestServer::open().await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut client = server.client().await;
        callers.push(tokio::spawn(async move {
            let request = throttle("hot", "49 1 86400").repeat(10);
            client.send(&request).await;
            let mut allowed = 0;
            for _ in 0..10 {
                allowed += usize::from(client.reply_of_five().await[0] == 0);
            }
            allowed
        }));
    }
    let mut allowed = 0;
    for caller in callers {
        allowed += caller.await.expect("a caller");
    }
    assert_eq!(allowed, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_has_come_and_closes_every_connection() {
    let server = TestServer::open().await;
    let mut idle = server.client().await;
    assert_eq!(idle.call(b"PING\r\n").await, "+PONG\r\n");
    server.stop().await;
    idle.expect_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_idle_or_sends_half_a_request_is_closed_in_time() {
    let mut limits = ratelimit_server::resp::RespLimits::default();
    (limits.idle, limits.request) = (Duration::from_millis(200), Duration::from_millis(200));
    let server = TestServer::with_limits(limits).await;
    let (mut idle, mut half) = (server.client().await, server.client().await);
    assert_eq!(idle.call(b"PING\r\n").await, "+PONG\r\n");
    half.send(b"*1\r\n$4\r\nPI").await;
    idle.expect_end().await;
    half.expect_end().await;
}
