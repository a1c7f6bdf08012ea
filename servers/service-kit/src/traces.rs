//! Traces over OTLP/gRPC, off unless the standard variables turn them on.
//!
//! On: `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, or `OTEL_TRACES_EXPORTER=otlp`
//! (then to `http://localhost:4317`). Off in any case: `OTEL_TRACES_EXPORTER=none`, `OTEL_SDK_DISABLED=true`.
//! The SDK itself reads from the process' environment: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_EXPORTER_OTLP[_TRACES]_HEADERS`, `…_TIMEOUT`, `…_INSECURE`, `OTEL_TRACES_SAMPLER[_ARG]`, `OTEL_BSP_*`.
//! An `https` endpoint is refused at start: send to a collector on this machine or in this network.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

use crate::BUILD;
use crate::logs::BoxedLayer;

/// Spans of the exporter's own connection would beget spans for ever.
const TARGETS_WITHOUT_SPANS: &[&str] = &[
    "h2",
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry-otlp",
];

/// A running exporter.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Why traces could not be set up or flushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracesError {
    /// An exporter that is not built in.
    #[error("OTEL_TRACES_EXPORTER={value} is not supported: expected otlp or none")]
    Exporter {
        /// The variable's value.
        value: String,
    },
    /// A protocol that is not built in.
    #[error("{variable}={value} is not supported: expected grpc")]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The endpoint or another variable is not usable.
    #[error("cannot set up the OTLP exporter: {0}")]
    Build(#[from] ExporterBuildError),
    /// Spans were left over at the end.
    #[error("cannot flush spans: {0}")]
    Flush(#[from] OTelSdkError),
    /// The flush was cut off with its runtime.
    #[error("the flush of spans was cut off")]
    CutOff,
}

impl Traces {
    /// Starts the exporter if the variables that `lookup` finds ask for one. Call it within a tokio runtime and pass
    /// `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// Values that are not supported or not well-formed.
    pub fn from_environment(
        service_name: &'static str,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TracesError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let endpoint =
            lookup("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| lookup("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if lookup("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match lookup("OTEL_TRACES_EXPORTER").as_deref() {
            None if endpoint.is_none() => return Ok(None),
            Some("none") => return Ok(None),
            None | Some("otlp") => {}
            Some(value) => return Err(TracesError::Exporter { value: value.to_owned() }),
        }
        for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match lookup(variable) {
                Some(value) if value != "grpc" => return Err(TracesError::Protocol { variable, value }),
                _ => {}
            }
        }
        let mut exporter = SpanExporter::builder().with_tonic();
        if let Some(endpoint) = endpoint {
            exporter = exporter.with_endpoint(endpoint);
        }
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", BUILD.version));
        // The builder's own detectors read the name that the environment gives; without one, the server's applies.
        let named = lookup("OTEL_SERVICE_NAME").is_some()
            || lookup("OTEL_RESOURCE_ATTRIBUTES")
                .is_some_and(|attributes| attributes.contains("service.name="));
        if !named {
            resource = resource.with_service_name(service_name);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter.build()?)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// The layer that turns spans into traces, for [`logs::install`](crate::logs::install).
    pub fn layer(&self) -> BoxedLayer {
        let silent = TARGETS_WITHOUT_SPANS.iter().map(|target| (*target, LevelFilter::OFF));
        let filter = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target(crate::request_trace::TARGET, LevelFilter::DEBUG)
            .with_targets(silent);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("strongroom"))
            .with_filter(filter)
            .boxed()
    }

    /// Sends what is left and stops the exporter; for the end of a drain.
    ///
    /// # Errors
    /// The collector did not take the rest within `timeout`.
    pub async fn shutdown(self, timeout: Duration) -> Result<(), TracesError> {
        // The SDK blocks its caller while the exporter needs the runtime.
        let flushed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(timeout)).await;
        flushed.map_err(|_| TracesError::CutOff)?.map_err(TracesError::Flush)
    }
}

/// Makes the span of a `traceparent` header (W3C Trace Context) the parent of `span`. A malformed header is ignored,
/// as the standard asks.
pub(crate) fn join_caller(span: &Span, headers: &HeaderMap) {
    if !headers.contains_key("traceparent") || span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    if context.span().span_context().is_valid() {
        // An error means that traces are off.
        let _ = span.set_parent(context);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
