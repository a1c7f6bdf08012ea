//! HTTP and Envoy's protocol over real sockets, on one engine.

mod documentation;
mod forward_auth;
mod http_calls;
mod rls_calls;
mod rule_metrics;
mod server;
