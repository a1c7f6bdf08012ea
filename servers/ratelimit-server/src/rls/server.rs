//! The gRPC server: the service, its health and its description.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use ratelimit_rules::REQUEST_BYTES_MAX;
use service_kit::admission::{AdmissionLayer, AdmissionLimits};
use service_kit::{Listener, ListenerLimits, Phase, Readiness, serve_grpc};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use super::proto::FILE_DESCRIPTOR_SET;
use super::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use super::service::RlsService;
use super::status::over_limit;

/// Bytes of a message: what is asked; the rest is structure, and fields that are not read.
pub const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + (64 << 10);

type Limits = RateLimitServiceServer<RlsService>;

/// The services behind the reflection cannot be described.
#[derive(Debug, thiserror::Error)]
#[error("the services cannot be described: {0}")]
pub struct RlsServerError(#[from] tonic_reflection::server::Error);

/// Serves [`RlsService`], `grpc.health.v1` and, on loopback, reflection.
pub struct RlsServer {
    service: RlsService,
    limits: ListenerLimits,
    admission: AdmissionLimits,
}

impl RlsServer {
    /// A server with these limits.
    pub fn new(service: RlsService, limits: ListenerLimits, admission: AdmissionLimits) -> Self {
        Self { service, limits, admission }
    }

    /// Serves until `stop` completes, then finishes the calls under way. The health follows `readiness`.
    ///
    /// # Errors
    /// [`RlsServerError`], at once.
    pub async fn serve(
        self,
        listener: Listener,
        readiness: Readiness,
        stop: impl Future<Output = ()>,
    ) -> Result<(), RlsServerError> {
        let reporter = HealthReporter::new();
        let health = HealthService::from_health_reporter(reporter.clone());
        let mut others = Routes::new(tonic_health::pb::health_server::HealthServer::new(health));
        if listener.local_address().ip().to_canonical().is_loopback() {
            let described = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            others = others.add_service(described().build_v1()?).add_service(described().build_v1alpha()?);
        }
        let limits = Limits::new(self.service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let dispatch = Dispatch { limits, others: others.prepare() };
        let admission = AdmissionLayer::new(&self.admission);
        let serving = serve_grpc(listener.accept(), &self.limits, admission, dispatch, stop);
        tokio::select! {
            () = serving => Ok(()),
            never = follow(reporter, readiness) => match never {},
        }
    }
}

/// Keeps `grpc.health.v1` in step with the phases.
async fn follow(mut reporter: HealthReporter, readiness: Readiness) -> Infallible {
    const NAMES: [&str; 2] = ["", <Limits as NamedService>::NAME];
    for phase in [Phase::Starting, Phase::Ready, Phase::Draining] {
        readiness.reached(phase).await;
        let serving = readiness.phase() == Phase::Ready;
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in NAMES {
            reporter.set_service_status(name, status).await;
        }
    }
    readiness.reached(Phase::ShuttingDown).await;
    // Ends the streams of those who watch: they would hold up the end of the server.
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
    std::future::pending().await
}

/// The one service behind one call, the others behind a router, which costs more than a decision.
#[derive(Clone)]
struct Dispatch {
    limits: Limits,
    others: Routes,
}

impl<B> Service<Request<B>> for Dispatch
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match service {
            Some((<Limits as NamedService>::NAME, _)) => {
                let answer = self.limits.call(request);
                Box::pin(async move { Ok(denied_if_unread(answer.await?)) })
            }
            _ => Box::pin(self.others.call(request)),
        }
    }
}

/// Whether a message can be read must not be up to the client whose text is in it: an error lets it pass wherever the proxy
/// lets pass what was not decided. So one that is too long, or whose text is no UTF-8, is over the limit.
fn denied_if_unread(response: Response<Body>) -> Response<Body> {
    let status = response.extensions().get::<Status>();
    let is_unread = status.is_some_and(|status| match status.code() {
        Code::OutOfRange => true,
        Code::Internal => status.message().contains("UTF-8"),
        _ => false,
    });
    if !is_unread {
        return response;
    }
    tracing::debug!("a message could not be read: it is over the limit");
    let message = over_limit(0).encode_to_vec();
    // gRPC over HTTP/2: a byte that says that it is not compressed, and the length.
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let frame = Bytes::from([&[0], &length[..], &message].concat());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut denied = Response::new(Body::new(body));
    denied.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    denied
}
