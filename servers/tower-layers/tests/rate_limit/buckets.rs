//! Services and limits for these tests.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ratelimit_core::{HashSecret, Limit, Rate};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_layers::headers::PolicyName;
use tower_layers::keys::HeaderValueKey;
use tower_layers::rate_limit::{LimitedBody, RateLimitLayer, RateLimitRule};

pub type Limited = BoxCloneSyncService<Request<Full<Bytes>>, Response<LimitedBody<Full<Bytes>>>, Infallible>;

pub fn name(text: &str) -> PolicyName {
    text.parse().expect("a name")
}

/// `burst` at once and one per second, for each value of the header `client`.
pub fn bucket(text: &str, burst: u64) -> RateLimitRule {
    rule(text, Limit::gcra(Rate::per_second(1), burst).expect("a limit"))
}

/// For each value of the header `client`.
pub fn rule(text: &str, limit: Limit) -> RateLimitRule {
    RateLimitRule::new(name(text), limit, HeaderValueKey::new("client".try_into().expect("a name")))
}

pub fn layer(rules: Vec<RateLimitRule>) -> RateLimitLayer {
    RateLimitLayer::with_secret(rules, HashSecret([7; 16])).expect("a layer")
}

/// Counts how often a service is called.
#[derive(Clone, Default)]
pub struct Calls(Arc<AtomicUsize>);

impl Calls {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A service that answers with what the header `answer` says, and counts.
    pub fn service(
        &self,
    ) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        let calls = Arc::clone(&self.0);
        service_fn(move |request: Request<Full<Bytes>>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut response = Response::new(Full::from("served"));
                if let Some(cost) = request.headers().get("costs") {
                    response.headers_mut().insert("cost", cost.clone());
                }
                Ok(response)
            }
        })
    }

    pub fn behind(&self, layer: &RateLimitLayer) -> Limited {
        BoxCloneSyncService::new(layer.layer(self.service()))
    }
}

pub fn from(client: &str) -> Request<Full<Bytes>> {
    Request::builder().header("client", client).body(Full::default()).expect("a request")
}

pub fn with(client: &str, header: &str, value: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .header("client", client)
        .header(header, value)
        .body(Full::default())
        .expect("a request")
}

pub async fn send(service: &Limited, request: Request<Full<Bytes>>) -> Response<LimitedBody<Full<Bytes>>> {
    service.clone().oneshot(request).await.expect("answered")
}

pub async fn status(service: &Limited, request: Request<Full<Bytes>>) -> u16 {
    send(service, request).await.status().as_u16()
}

pub async fn text(response: Response<LimitedBody<Full<Bytes>>>) -> String {
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}
