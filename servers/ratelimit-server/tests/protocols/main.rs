//! HTTP and Envoy's protocol over real sockets, on one engine.

mod client_networks;
mod documentation;
mod forward_auth;
mod http_calls;
mod presets;
mod rls_bytes;
mod rls_calls;
mod rls_overrides;
mod rule_metrics;
mod server;
