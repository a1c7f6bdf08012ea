use std::time::Duration;

use service_kit::listener::LimitError;
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits};
use tokio::net::TcpStream;

use crate::loopback::{METRICS, any_port, eventually, in_time, read_until_closed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_total_are_closed_at_once_until_one_ends() {
    std::sync::LazyLock::force(&METRICS);
    let limits = ListenerLimits { connections_max: 2, ..ListenerLimits::default() };
    let listener =
        Listener::bind("total", any_port(), Protocol::Http2, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let mut connections = listener.accept();
    let _clients = [TcpStream::connect(address).await, TcpStream::connect(address).await];
    let first = in_time("the first", connections.next()).await.expect("accepting");
    let second = in_time("the second", connections.next()).await.expect("accepting");
    let mut third = TcpStream::connect(address).await.expect("the kernel accepts");
    assert_eq!(read_until_closed(&mut third).await, b"");
    let page = METRICS.render();
    assert!(
        page.contains("strongroom_connections_refused_total{listener=\"total\",reason=\"total\"} 1"),
        "{page}"
    );
    assert!(page.contains("strongroom_connections_open{listener=\"total\"} 2"), "{page}");

    drop(first);
    let _fourth = TcpStream::connect(address).await.expect("the kernel accepts");
    let fourth = in_time("the fourth", connections.next()).await;
    assert!(fourth.is_some());
    drop((second, fourth));
    let gone = || METRICS.render().contains("strongroom_connections_open{listener=\"total\"} 0");
    eventually("all are gone", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_may_open_more_than_the_share_of_one_address() {
    let limits = ListenerLimits { connections_per_address_max: 1, ..ListenerLimits::default() };
    let listener =
        Listener::bind("share", any_port(), Protocol::Http2, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let mut connections = listener.accept();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(address).await.expect("a connection"));
        assert!(in_time("accepting", connections.next()).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_connections_closes_the_door() {
    let limits = ListenerLimits::default();
    let listener =
        Listener::bind("door", any_port(), Protocol::Http2, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let connections = listener.accept();
    assert!(TcpStream::connect(address).await.is_ok());
    drop(connections);
    in_time("the door closes", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let limits = ListenerLimits::default();
    let first =
        Listener::bind("first", any_port(), Protocol::Http2, None, &limits).await.expect("a free port");
    let taken = first.local_address();
    let error =
        Listener::bind("second", taken, Protocol::Http2, None, &limits).await.expect_err("taken").to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
    assert_eq!(first.url(), format!("http://{taken}"));
}

#[test]
fn the_default_limits_work_and_impossible_ones_are_named() {
    for limits in [ListenerLimits::default(), ListenerLimits::peers(), ListenerLimits::probes()] {
        assert_eq!(limits.validate(), Ok(()));
    }
    let zero = ListenerLimits { connections_max: 0, ..ListenerLimits::default() };
    assert_eq!(zero.validate(), Err(LimitError::Zero { limit: "connections_max" }));
    let zero = ListenerLimits { tls_handshake_timeout: Duration::ZERO, ..ListenerLimits::default() };
    assert_eq!(zero.validate(), Err(LimitError::Zero { limit: "tls_handshake_timeout" }));
    for (name, limits) in [
        ("frame_bytes_max", ListenerLimits { frame_bytes_max: 1_000, ..ListenerLimits::default() }),
        ("stream_window_bytes", ListenerLimits { stream_window_bytes: 1 << 31, ..ListenerLimits::default() }),
        (
            "connection_window_bytes",
            ListenerLimits { connection_window_bytes: 65_535, ..ListenerLimits::default() },
        ),
        ("header_list_bytes_max", ListenerLimits { header_list_bytes_max: 1, ..ListenerLimits::default() }),
        ("connections_max", ListenerLimits { connections_max: usize::MAX, ..ListenerLimits::default() }),
    ] {
        let error = limits.validate().expect_err(name);
        assert!(matches!(error, LimitError::OutOfRange { limit, .. } if limit == name), "{error}");
    }
}
