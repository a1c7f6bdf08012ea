//! The kit through its public face: real sockets on loopback, real certificates, a real collector stub.

mod bind_policy;
mod configuration;
mod drain;
mod grpc;
mod listener;
mod loopback;
mod probes;
mod ready_line;
mod telemetry;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
