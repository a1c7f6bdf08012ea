//! Servers and clients on loopback that the tests share.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use service_kit::admission::{AdmissionLayer, AdmissionLimits};
use service_kit::metrics::MetricsHandle;
use service_kit::request_id::RequestId;
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits, PeerInfo, serve_grpc};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt};

/// Longer than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The process' metrics: tests tell theirs apart by the listener's name.
pub static METRICS: LazyLock<MetricsHandle> =
    LazyLock::new(|| MetricsHandle::install().expect("first installation"));

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Polls until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    in_time(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Everything the peer sends until it closes; a reset counts as closing.
pub async fn read_until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut received = Vec::new();
    let _ = in_time("the peer closes", stream.read_to_end(&mut received)).await;
    received
}

/// A gRPC service whose calls wait for the test. `/test.Slow/Wait` and `/test.Slow/Stream` wait, others answer.
#[derive(Clone, Default)]
pub struct Slow {
    pub state: Arc<SlowState>,
}

pub struct SlowState {
    /// Grows with every call that arrived.
    pub entered: Semaphore,
    /// Each permit lets one waiting call go.
    pub release: Semaphore,
    running: AtomicUsize,
    /// Most calls that ran at once.
    pub running_max: AtomicUsize,
}

impl Default for SlowState {
    fn default() -> Self {
        let (entered, release) = (Semaphore::new(0), Semaphore::new(0));
        Self { entered, release, running: AtomicUsize::new(0), running_max: AtomicUsize::new(0) }
    }
}

impl Slow {
    /// Waits for the arrival of one more call.
    pub async fn one_entered(&self) {
        in_time("a call arrives", self.state.entered.acquire()).await.expect("never closed").forget();
    }
}

impl NamedService for Slow {
    const NAME: &'static str = "test.Slow";
}

impl<B: Send + 'static> Service<Request<B>> for Slow {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let running = state.running.fetch_add(1, Ordering::SeqCst) + 1;
            state.running_max.fetch_max(running, Ordering::SeqCst);
            state.entered.add_permits(1);
            if matches!(request.uri().path(), "/test.Slow/Wait" | "/test.Slow/Stream") {
                state.release.acquire().await.expect("never closed").forget();
            }
            state.running.fetch_sub(1, Ordering::SeqCst);
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert("content-type", "application/grpc".parse().expect("a value"));
            headers.insert("grpc-status", "0".parse().expect("a value"));
            if let Some(id) = request.extensions().get::<RequestId>() {
                headers.insert("seen-request-id", id.as_str().parse().expect("a value"));
            }
            if let Some(peer) = request.extensions().get::<PeerInfo>() {
                headers.insert("seen-peer", peer.remote.to_string().parse().expect("a value"));
            }
            Ok(response)
        })
    }
}

/// A running gRPC server with [`Slow`] on it.
pub async fn start_slow(limits: &ListenerLimits, admission: &AdmissionLimits) -> (Slow, SocketAddr) {
    let slow = Slow::default();
    let listener =
        Listener::bind("slow", any_port(), Protocol::Http2, None, limits).await.expect("a free port");
    let address = listener.local_address();
    spawn_server(listener, limits, admission, Routes::new(slow.clone()));
    (slow, address)
}

/// Serves until the test's runtime ends.
pub fn spawn_server(
    listener: Listener,
    limits: &ListenerLimits,
    admission: &AdmissionLimits,
    routes: Routes,
) {
    let (limits, admission) = (limits.clone(), AdmissionLayer::new(admission));
    tokio::spawn(async move {
        serve_grpc(listener.accept(), &limits, admission, routes.prepare(), std::future::pending()).await;
    });
}

pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    in_time("connecting", endpoint.connect()).await.expect("a connection")
}

/// One raw call: the response's head, where refused and empty answers have their status.
pub async fn call(
    channel: &Channel,
    path: &str,
    headers: HeaderMap,
) -> Result<HeaderMap, tonic::transport::Error> {
    let mut request = Request::post(format!("http://loopback{path}")).body(Body::empty()).expect("a request");
    *request.headers_mut() = headers;
    request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    let response = in_time("an answer", async { channel.clone().ready().await?.call(request).await }).await?;
    Ok(response.headers().clone())
}

pub fn grpc_status(headers: &HeaderMap) -> &str {
    headers.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or("missing")
}
