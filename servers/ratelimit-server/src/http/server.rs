//! HTTP/1.1 with every limit set.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use service_kit::{Connection, Listener, ListenerLimits};
use tower::ServiceExt as _;
use tower_layers::client_ip::ClientIpPolicy;

use super::handlers::{self, Shared};
use crate::access::Access;
use crate::client_address::Clients;
use crate::grants::Grants;
use crate::limit_service::LimitService;
use crate::meter::Meter;

/// Bytes of a body: text that fills a client's headers fits; more is 413, which proxies take for a denial.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// For a request, once its head has come: the rest is its body, and a decision takes microseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers questions over HTTP.
#[derive(Clone)]
pub struct HttpServer {
    router: Router,
    limits: ListenerLimits,
}

impl HttpServer {
    /// A server of these limits; clients are told apart behind proxies as `client_ip` says.
    pub fn new(
        limits: LimitService,
        access: Access,
        client_ip: ClientIpPolicy,
        listener: ListenerLimits,
    ) -> Self {
        let clients = Clients::new(client_ip);
        let shared = Shared { limits, access, clients, grants: Grants::default(), meter: Meter::new() };
        Self { router: router(shared, listener.header_list_bytes_max as usize), limits: listener }
    }

    /// Serves until `stop` completes, then finishes the requests under way.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) {
        let mut connections = listener.accept();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.keepalive_interval)
            .max_buf_size((self.limits.header_list_bytes_max as usize).max(BODY_BYTES_MAX));
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let connection: Connection = tokio::select! {
                biased;
                () = &mut stop => break,
                connection = connections.next() => match connection {
                    Some(connection) => connection,
                    None => break,
                },
            };
            let (peer, runtime) = (connection.peer().clone(), connection.runtime().clone());
            let remote = peer.remote;
            let service = self.router.clone().map_request(move |mut request: http::Request<_>| {
                request.extensions_mut().insert(peer.clone());
                request
            });
            let serving = http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
            let served = graceful.watch(serving);
            runtime.spawn(async move {
                if let Err(error) = served.await {
                    tracing::debug!(%remote, %error, "a connection failed");
                }
            });
        }
        drop(connections);
        graceful.shutdown().await;
    }
}

fn router(shared: Shared, header_bytes_max: usize) -> Router {
    Router::new()
        .route("/v1/check", post(handlers::check).get(handlers::forward_auth))
        .route("/v1/keys/{*key}", get(handlers::peek))
        .route("/v1/refund", post(handlers::refund))
        .route("/v1/reset", post(handlers::reset))
        .route("/v1/rules", get(handlers::rules))
        .route("/v1/top", get(handlers::top))
        .route("/openapi.json", get(handlers::description))
        .fallback(handlers::nowhere)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn_with_state(header_bytes_max, in_bounds))
        .with_state(Arc::new(shared))
}

/// A body that comes too slowly ends the request.
async fn in_time(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => http::StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// hyper bounds the bytes that it reads, of which the body is a part; headers have a bound of their own, below that too.
async fn in_bounds(
    State(header_bytes_max): State<usize>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    // As HTTP/2 counts a list of headers (RFC 9113, section 6.5.2).
    let bytes =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 32;
    if request.headers().iter().map(bytes).sum::<usize>() > header_bytes_max {
        return http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
    }
    next.run(request).await
}
