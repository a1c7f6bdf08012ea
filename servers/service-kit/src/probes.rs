//! The port for orchestrators and Prometheus: `/livez`, `/readyz`, `/startupz`, `/healthz`, `/metrics`.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;

use crate::BUILD;
use crate::listener::{Connection, Connections, ListenerLimits};
use crate::metrics::MetricsHandle;
use crate::readiness::{Phase, Readiness};

/// What the probes answer from.
#[derive(Clone)]
pub struct Probes {
    /// Where the server stands.
    pub readiness: Readiness,
    /// The metrics page.
    pub metrics: MetricsHandle,
}

impl Probes {
    /// Answers probes until `stop` completes; answers under way are finished. Stop it last: during a drain the
    /// readiness probe is what tells others to look elsewhere.
    pub async fn serve(
        self,
        mut connections: Connections,
        limits: &ListenerLimits,
        stop: impl Future<Output = ()>,
    ) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout)
            .max_buf_size(limits.header_list_bytes_max as usize);
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let connection: Connection = tokio::select! {
                connection = connections.next() => match connection {
                    Some(connection) => connection,
                    None => break,
                },
                () = &mut stop => break,
            };
            let probes = self.clone();
            let service = service_fn(move |request| {
                let probes = probes.clone();
                async move { Ok::<_, Infallible>(probes.answer(request).await) }
            });
            let served = graceful.watch(http.serve_connection(TokioIo::new(connection), service));
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::debug!(%error, "probe connection ended");
                }
            });
        }
        drop(connections);
        // Requests of this port are short; a slow reader must not delay the exit.
        let _ = tokio::time::timeout(limits.header_read_timeout, graceful.shutdown()).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return closing(response);
        }
        if !request.body().is_end_stream() {
            return closing(text(StatusCode::PAYLOAD_TOO_LARGE, "requests here have no body\n"));
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready(""),
            "/healthz" => self.ready(&format!("version {} commit {}\n", BUILD.version, BUILD.commit)),
            "/startupz" => match self.readiness.phase() {
                Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
                _ => text(StatusCode::OK, "started\n"),
            },
            "/metrics" => self.metrics_page().await,
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz, /startupz, /healthz or /metrics\n"),
        }
    }

    fn ready(&self, footer: &str) -> Response<Full<Bytes>> {
        match self.readiness.check() {
            Ok(()) => {
                let notices = self.readiness.notices();
                let notices: String =
                    notices.iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect();
                text(StatusCode::OK, format!("ready\n{notices}{footer}"))
            }
            Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n{footer}")),
        }
    }

    async fn metrics_page(&self) -> Response<Full<Bytes>> {
        let metrics = self.metrics.clone();
        let Ok(page) = tokio::task::spawn_blocking(move || metrics.render()).await else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot render metrics\n");
        };
        let mut response = text(StatusCode::OK, page);
        let exposition_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, exposition_format);
        response
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body was not read, so the connection cannot carry another request.
fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
