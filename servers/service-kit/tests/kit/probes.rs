use std::time::Duration;

use service_kit::metrics::MetricsHandle;
use service_kit::probes::Probes;
use service_kit::tls::Protocol;
use service_kit::{BUILD, Listener, ListenerLimits, Phase, Readiness};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::loopback::{any_port, in_time, read_until_closed};

struct Running {
    address: std::net::SocketAddr,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn start(limits: ListenerLimits) -> Running {
    let listener =
        Listener::bind("probes", any_port(), Protocol::Http1, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let readiness = Readiness::starting();
    let metrics = MetricsHandle::new().expect("a recorder");
    let probes = Probes { readiness: readiness.clone(), metrics };
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        probes.serve(listener.accept(), &limits, stop).await;
    });
    Running { address, readiness, stop, served }
}

impl Running {
    /// Status line and body of one raw request.
    async fn send(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("written");
        let answer = String::from_utf8(read_until_closed(&mut stream).await).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (status, body) = self.send(&request).await;
        (status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default(), body)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_follow_the_phases() {
    let running = start(ListenerLimits::probes()).await;
    let expectations = [
        (Phase::Starting, 503, "starting\n", 503),
        (Phase::Ready, 200, "ready\n", 200),
        (Phase::Draining, 503, "draining\n", 200),
        (Phase::ShuttingDown, 503, "shutting down\n", 200),
    ];
    for (phase, ready, body, started) in expectations {
        running.readiness.advance(phase);
        assert_eq!(running.get("/livez").await, (200, "alive\n".to_owned()));
        assert_eq!(running.get("/readyz").await, (ready, body.to_owned()));
        assert_eq!(running.get("/startupz").await.0, started);
        let (status, health) = running.get("/healthz").await;
        assert_eq!(status, ready);
        assert!(health.starts_with(body) && health.contains(BUILD.version), "{health}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_obstacle_makes_a_ready_server_unready_until_it_is_cleared() {
    let running = start(ListenerLimits::probes()).await;
    running.readiness.advance(Phase::Ready);
    running.readiness.report_obstacle("disk", "97 % used");
    assert_eq!(running.get("/readyz").await, (503, "ready\ndisk: 97 % used\n".to_owned()));
    running.readiness.clear_obstacle("disk");
    assert_eq!(running.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_shown_by_a_server_that_stays_ready() {
    let running = start(ListenerLimits::probes()).await;
    running.readiness.advance(Phase::Ready);
    running.readiness.report_notice("read-only", "the disk is nearly full");
    assert_eq!(running.get("/readyz").await, (200, "ready\nread-only: the disk is nearly full\n".to_owned()));
    running.readiness.clear_notice("read-only");
    assert_eq!(running.get("/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_page_is_served() {
    let running = start(ListenerLimits::probes()).await;
    let (status, page) = running.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("process_uptime_seconds "), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_paths_methods_bodies_and_large_heads_are_refused() {
    let running = start(ListenerLimits::probes()).await;
    assert_eq!(running.get("/nothing").await.0, 404);
    let (status, _) = running.send("POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(status.contains("405"), "{status}");
    let (status, _) = running.send("GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await;
    assert!(status.contains("413"), "{status}");
    let large = "x".repeat(64 << 10);
    let (status, body) =
        running.send(&format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n")).await;
    assert!(!status.contains("200") && !body.contains("alive"), "{status}");
    assert_eq!(running.get("/livez").await.0, 200, "the server lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_is_cut_at_the_timeout() {
    let limits =
        ListenerLimits { header_read_timeout: Duration::from_millis(150), ..ListenerLimits::probes() };
    let running = start(limits.clone()).await;
    let mut slow = TcpStream::connect(running.address).await.expect("a connection");
    let started = std::time::Instant::now();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await.expect("written");
    let trickle = async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        while slow.write_all(b"a: b\r\n").await.is_ok() && started.elapsed() < limits.header_read_timeout * 20
        {
            interval.tick().await;
        }
        started.elapsed()
    };
    let open = in_time("the attack ends", trickle).await;
    assert!(open >= limits.header_read_timeout && open < limits.header_read_timeout * 20, "{open:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_the_server_in_spite_of_idle_clients() {
    let running = start(ListenerLimits::probes()).await;
    let mut idle = TcpStream::connect(running.address).await.expect("a connection");
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    running.get("/livez").await;
    running.stop.send(()).expect("the server listens");
    in_time("the end", running.served).await.expect("no panic");
    // Its port may be another's already; the connection says that the server is gone.
    read_until_closed(&mut idle).await;
}
