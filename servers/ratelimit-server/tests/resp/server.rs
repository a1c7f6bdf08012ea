//! A server on loopback, and a client of raw bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ratelimit_core::{AdHoc, HashSecret, Nanos, TableSize};
use ratelimit_server::access::{Access, AccessToken};
use ratelimit_server::resp::{RespLimits, RespServer};
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_layers::rate_limit::{Clock, SystemClock};

/// No step of a test takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Stands still until it is moved.
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn starting_at(now_ns: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now_ns)))
    }

    pub fn pass(&self, ns: u64) -> u64 {
        self.0.fetch_add(ns, Ordering::SeqCst) + ns
    }
}

impl Clock for TestClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::SeqCst))
    }

    fn unix_seconds(&self) -> u64 {
        0
    }
}

pub struct TestServer {
    pub address: SocketAddr,
    keys: Arc<AdHoc>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl TestServer {
    pub async fn open() -> Self {
        Self::start(Access::default(), RespLimits::default(), Arc::new(SystemClock::new())).await
    }

    /// With a clock that only the test moves.
    pub async fn at(clock: Arc<TestClock>) -> Self {
        Self::start(Access::default(), RespLimits::default(), clock).await
    }

    pub async fn with_token(token: &str) -> Self {
        let check = Some(AccessToken::new(Secret::new(token.to_owned())));
        Self::start(Access { check, admin: None }, RespLimits::default(), Arc::new(SystemClock::new())).await
    }

    pub async fn with_limits(limits: RespLimits) -> Self {
        Self::start(Access::default(), limits, Arc::new(SystemClock::new())).await
    }

    async fn start(access: Access, limits: RespLimits, clock: Arc<dyn Clock>) -> Self {
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let listener =
            Listener::bind("resp", loopback, Protocol::Http1, None, &ListenerLimits::default()).await;
        let listener = listener.expect("a free port");
        let address = listener.local_address();
        let keys = Arc::new(AdHoc::new(TableSize::for_keys(10_000), HashSecret([7; 16])).expect("memory"));
        let server = RespServer::new(Arc::clone(&keys), access, clock, limits);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(server.serve(listener, stopped));
        Self { address, keys, stop, serving }
    }

    pub fn live_keys(&self) -> u64 {
        self.keys.live_keys(Nanos(0))
    }

    pub async fn client(&self) -> Client {
        let stream = timeout(DEADLINE, TcpStream::connect(self.address)).await.expect("in time");
        Client { stream: stream.expect("a connection"), received: Vec::new() }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        timeout(DEADLINE, self.serving).await.expect("in time").expect("an orderly end");
    }
}

pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("in time").expect("sent");
    }

    /// What is sent back to one request, as far as it comes at once.
    pub async fn call(&mut self, request: &[u8]) -> String {
        self.send(request).await;
        let mut bytes = vec![0; 64 << 10];
        let read = timeout(DEADLINE, self.stream.read(&mut bytes)).await.expect("in time").expect("received");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    pub async fn receive(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        timeout(DEADLINE, self.stream.read_exact(&mut bytes)).await.expect("in time").expect("received");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The next reply, which must be five integers.
    pub async fn reply_of_five(&mut self) -> [i64; 5] {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            let lines: Vec<_> = text.split_inclusive("\r\n").take(6).collect();
            if lines.len() == 6 && lines[5].ends_with("\r\n") {
                assert_eq!(lines[0], "*5\r\n");
                let length: usize = lines.iter().map(|line| line.len()).sum();
                self.received.drain(..length);
                let number = |index: usize| lines[index][1..].trim_end().parse().expect("an integer");
                return std::array::from_fn(|index| number(index + 1));
            }
            let mut bytes = [0; 4_096];
            let read =
                timeout(DEADLINE, self.stream.read(&mut bytes)).await.expect("in time").expect("received");
            assert!(read > 0, "the end, after {text:?}");
            self.received.extend(&bytes[..read]);
        }
    }

    /// Reads to the end, which must come.
    pub async fn expect_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too: what was sent after it is lost.
        let _ = timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await.expect("an end in time");
        rest
    }
}

/// `CL.THROTTLE key numbers…` as an array of bulk strings.
pub fn throttle(key: &str, numbers: &str) -> Vec<u8> {
    let words: Vec<_> = ["CL.THROTTLE", key].into_iter().chain(numbers.split(' ')).collect();
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    request.into_bytes()
}

impl Client {
    /// Sends to a server that may have closed the connection.
    pub async fn send_if_open(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("in time");
    }

    /// Says that nothing more comes, and reads to the end.
    pub async fn finish(&mut self) -> Vec<u8> {
        let _ = self.stream.shutdown().await;
        self.expect_end().await
    }
}
