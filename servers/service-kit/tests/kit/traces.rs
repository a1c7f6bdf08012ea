use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use service_kit::admission::AdmissionLimits;
use service_kit::request_id::RequestIdLayer;
use service_kit::request_trace::RequestTraceLayer;
use service_kit::tls::Protocol;
use service_kit::traces::Traces;
use service_kit::{Listener, ListenerLimits};
use tonic::service::Routes;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tracing_subscriber::layer::SubscriberExt;

use crate::loopback::{any_port, in_time, spawn_server};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";
const PATH: &str = "/strongroom.ledger.v1.ReadService/Get";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<Received>>>,
}

struct Received {
    request: ExportTraceServiceRequest,
    headers: HashMap<String, String>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        self.received.lock().expect("no panic").push(Received { request: request.into_inner(), headers });
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let limits = ListenerLimits::default();
        let listener =
            Listener::bind("collector", any_port(), Protocol::Http2, None, &limits).await.expect("a port");
        let address = listener.local_address();
        let service = TraceServiceServer::new(collector.clone());
        spawn_server(listener, &limits, &AdmissionLimits::default(), Routes::new(service));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().expect("no panic");
        let resources = received.iter().flat_map(|received| &received.request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    fn service_names(&self) -> Vec<String> {
        let received = self.received.lock().expect("no panic");
        let resources = received.iter().flat_map(|received| &received.request.resource_spans);
        let attributes =
            resources.filter_map(|resource| resource.resource.as_ref()).flat_map(|r| &r.attributes);
        attributes
            .filter(|attribute| attribute.key == "service.name")
            .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
                any_value::Value::StringValue(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }
}

/// One request through the layers that every server has, with the exporter listening on this thread.
async fn one_request(traces: Traces) {
    let registry = tracing_subscriber::registry().with(vec![traces.layer()]);
    let guard = tracing::subscriber::set_default(registry);
    let handler = service_fn(|_request: Request<()>| async {
        tracing::info_span!("apply").in_scope(|| {});
        Ok::<_, Infallible>(Response::new(()))
    });
    let service = ServiceBuilder::new().layer(RequestIdLayer).layer(RequestTraceLayer).service(handler);
    let request = Request::post(PATH)
        .header("traceparent", format!("00-{TRACE_ID}-{PARENT_ID}-01"))
        .header("x-request-id", "r-9")
        .body(())
        .expect("a request");
    service.oneshot(request).await.expect("infallible");
    drop(guard);
    in_time("the flush", traces.shutdown(Duration::from_secs(10))).await.expect("flushed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_becomes_a_span_of_its_callers_trace_at_the_collector() {
    let (collector, address) = Collector::start().await;
    let lookup = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| format!("http://{address}"));
    let traces = Traces::from_environment("strongroom-ledger", lookup).expect("usable").expect("on");
    one_request(traces).await;

    let spans = collector.spans();
    let request = spans.iter().find(|span| span.name == PATH).expect("the request's span");
    assert_eq!(hex(&request.trace_id), TRACE_ID);
    assert_eq!(hex(&request.parent_span_id), PARENT_ID);
    assert!(request.attributes.iter().any(|attribute| attribute.key == "request_id"));
    let apply = spans.iter().find(|span| span.name == "apply").expect("the inner span");
    assert_eq!(apply.parent_span_id, request.span_id);
    assert_eq!(hex(&apply.trace_id), TRACE_ID);
    assert!(
        spans.iter().all(|span| span.name == PATH || span.name == "apply"),
        "nothing of the exporter itself"
    );
}

#[tokio::test]
async fn traces_are_off_unless_a_standard_variable_asks_for_them() {
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let start = |variables: &[(&str, &str)]| {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Traces::from_environment("strongroom-ledger", value)
    };
    for off in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
    ] {
        assert!(start(off).is_ok_and(|traces| traces.is_none()), "{off:?}");
    }
    for on in [
        &[ENDPOINT][..],
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")],
        &[("OTEL_TRACES_EXPORTER", "otlp")],
    ] {
        assert!(start(on).is_ok_and(|traces| traces.is_some()), "{on:?}");
    }
    for (refused, said) in [
        (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")][..], "OTEL_TRACES_EXPORTER=zipkin"),
        (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")], "HTTPS"),
    ] {
        let error = start(refused).expect_err("refused").to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// The SDK reads the process' own environment, which a test cannot set for itself: it starts this test binary once
/// more, for [`traces_follow_the_process_environment`], with the variables set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_variables_of_the_sdk_are_honoured() {
    let (collector, address) = Collector::start().await;
    let run = |sampler: &'static str| {
        let program = std::env::current_exe().expect("this program");
        tokio::process::Command::new(program)
            .args(["traces::traces_follow_the_process_environment", "--exact"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
            .env("OTEL_SERVICE_NAME", "renamed")
            .env("OTEL_TRACES_SAMPLER", sampler)
            .output()
    };
    let output = in_time("the child", run("always_on")).await.expect("started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(collector.spans().iter().any(|span| span.name == PATH));
    assert_eq!(collector.service_names(), ["renamed"]);
    let headers =
        collector.received.lock().expect("no panic").first().map(|received| received.headers.clone());
    assert_eq!(headers.expect("a request").get("x-tenant").map(String::as_str), Some("blue"));

    let before = collector.spans().len();
    let output = in_time("the child", run("always_off")).await.expect("started");
    assert!(output.status.success());
    assert_eq!(collector.spans().len(), before, "the sampler dropped them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_follow_the_process_environment() {
    let asked = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some();
    let traces =
        Traces::from_environment("strongroom-ledger", |name| std::env::var(name).ok()).expect("usable");
    assert_eq!(traces.is_some(), asked);
    if let Some(traces) = traces {
        one_request(traces).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
