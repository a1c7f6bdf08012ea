//! The one way to build a gRPC server.

use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

use crate::admission::AdmissionLayer;
use crate::listener::ListenerLimits;
use crate::request_id::RequestIdLayer;
use crate::request_trace::RequestTraceLayer;

/// The layers of every gRPC server: the request's id outermost, then its span, then admission.
pub type GrpcLayers = Stack<AdmissionLayer, Stack<RequestTraceLayer, Stack<RequestIdLayer, Identity>>>;

/// A router with those layers.
pub type GrpcRouter = Router<GrpcLayers>;

/// A tonic server with every limit set; the connections of a [`Listener`](crate::Listener) bring the rest.
///
/// Requests beyond a connection's limit wait; beyond the server's limit they are shed by `admission`. tonic's own load
/// shedding stays off: it would shed where waiting is right.
pub fn grpc_server(limits: &ListenerLimits, admission: AdmissionLayer) -> Server<GrpcLayers> {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection_max)
        .concurrency_limit_per_connection(limits.requests_per_connection_max)
        .http2_max_pending_accept_reset_streams(Some(limits.pending_accept_resets_max))
        .http2_max_local_error_reset_streams(Some(limits.local_error_resets_max))
        .http2_max_header_list_size(limits.header_list_bytes_max)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .max_connection_age(limits.connection_age_max)
        .max_connection_age_grace(limits.connection_age_grace)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .http2_adaptive_window(Some(false))
        .max_frame_size(limits.frame_bytes_max)
        .accept_http1(false)
        .layer(RequestIdLayer)
        .layer(RequestTraceLayer)
        .layer(admission)
}
