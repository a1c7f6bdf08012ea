//! The one way to serve gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tower::{Layer, Service};

use crate::admission::AdmissionLayer;
use crate::listener::{Connection, Connections, ListenerLimits, PeerInfo};
use crate::request_id::RequestIdLayer;
use crate::request_trace::RequestTraceLayer;

/// Serves `service` on the connections of a [`Listener`](crate::Listener), with every limit set, until `stop`
/// completes; then no connection is taken any more, and the requests under way are finished. Dropping the future
/// closes the connections at once.
///
/// The layers, from the outermost: the request's id, its span, `admission`. Every request carries its
/// [`PeerInfo`]. Requests beyond a connection's limit wait; beyond the server's limit they are shed by `admission`.
///
/// This speaks to hyper directly. tonic's own server would box and move every request through a dozen layers and a
/// router, which costs as much again as everything else that a small read needs.
pub async fn serve_grpc<S, R>(
    mut connections: Connections,
    limits: &ListenerLimits,
    admission: AdmissionLayer,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Default + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = RequestIdLayer.layer(RequestTraceLayer.layer(admission.layer(service)));
    let http = http2_builder(limits);
    let (closing, closed) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let connection = tokio::select! {
            biased;
            () = &mut stop => break,
            connection = connections.next() => connection,
        };
        let Some(connection) = connection else { break };
        let service = ConnectionService {
            inner: service.clone(),
            peer: connection.peer().clone(),
            places: Arc::new(Semaphore::new(limits.requests_per_connection_max)),
        };
        let runtime = connection.runtime().clone();
        runtime.spawn(serve_connection(connection, http.clone(), service, limits.clone(), closed.clone()));
    }
    drop(connections);
    drop(closed);
    // Nobody listens any more when all connections have ended.
    let _ = closing.send(true);
    closing.closed().await;
}

fn http2_builder(limits: &ListenerLimits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection_max)
        .max_pending_accept_reset_streams(limits.pending_accept_resets_max)
        .max_local_error_reset_streams(limits.local_error_resets_max)
        .max_header_list_size(limits.header_list_bytes_max)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .adaptive_window(false)
        .max_frame_size(limits.frame_bytes_max);
    http
}

async fn serve_connection<S, R>(
    connection: Connection,
    http: http2::Builder<TokioExecutor>,
    service: ConnectionService<S>,
    limits: ListenerLimits,
    mut closing: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let remote = service.peer.remote;
    let mut serving = pin!(http.serve_connection(TokioIo::new(connection), service));
    let is_old = tokio::select! {
        ended = serving.as_mut() => return tell(remote, ended),
        asked = closing.wait_for(|closing| *closing) => match asked {
            Ok(_) => false,
            // The server is gone without a goodbye.
            Err(_) => return,
        },
        () = tokio::time::sleep(limits.connection_age_max) => true,
    };
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = serving.as_mut() => tell(remote, ended),
        () = tokio::time::sleep(limits.connection_age_grace), if is_old => {}
        () = gone(&mut closing) => {}
    }
}

/// Completes when the server is gone.
async fn gone(closing: &mut watch::Receiver<bool>) {
    while closing.changed().await.is_ok() {}
}

fn tell(remote: std::net::SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%remote, %error, "a connection failed");
    }
}

/// The service of one connection: every request knows its peer and waits for one of the connection's places.
struct ConnectionService<S> {
    inner: S,
    peer: PeerInfo,
    places: Arc<Semaphore>,
}

impl<S, R> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response<R>, Error = Infallible> + Clone,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = PlacedFuture<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let mut inner = self.inner.clone();
        let state = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Placed::Running { inner: inner.call(request), _place: place },
            Err(_) => Placed::Waiting {
                place: Box::pin(Arc::clone(&self.places).acquire_owned()),
                request: Some((inner, request)),
            },
        };
        PlacedFuture { state }
    }
}

pin_project! {
    /// A request that waits for its place, then runs in it.
    struct PlacedFuture<S>
    where
        S: Service<Request<Incoming>>,
    {
        #[pin]
        state: Placed<S>,
    }
}

pin_project! {
    #[project = PlacedProjection]
    enum Placed<S>
    where
        S: Service<Request<Incoming>>,
    {
        Waiting {
            place: BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>,
            request: Option<(S, Request<Incoming>)>,
        },
        Running {
            #[pin]
            inner: S::Future,
            _place: OwnedSemaphorePermit,
        },
    }
}

impl<S> Future for PlacedFuture<S>
where
    S: Service<Request<Incoming>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                PlacedProjection::Running { inner, .. } => return inner.poll(context),
                PlacedProjection::Waiting { place, request } => {
                    // The semaphore is never closed, and the request is taken once: then the state changes.
                    let (Ok(place), Some((mut service, request))) =
                        (ready!(place.as_mut().poll(context)), request.take())
                    else {
                        return Poll::Pending;
                    };
                    Placed::Running { inner: service.call(request), _place: place }
                }
            };
            state.set(next);
        }
    }
}
