//! What every Strongroom server shares around its services: configuration, telemetry, TLS, listeners with limits,
//! probes and an orderly end.
//!
//! ```
//! use service_kit::{AuthState, TlsState, check_bind};
//!
//! // A server that everyone can reach needs TLS and credentials, or an explicit word that it does not.
//! let refused = check_bind("0.0.0.0:50051".parse()?, TlsState::Disabled, AuthState::Enabled);
//! assert!(refused.is_err_and(|error| error.to_string().contains("--insecure-no-tls")));
//! assert!(check_bind("127.0.0.1:50051".parse()?, TlsState::Disabled, AuthState::Disabled).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concepts
//! - A **setting** is one row of a server's table; flags, variables, file and documentation come from that row.
//! - A **listener** owns the accept loop and every limit that a hostile client could test; nothing else in the
//!   workspace builds a server.
//! - **Readiness** and **drain** are one state machine that only moves forward: starting, ready, draining, shutting down.
//!
//! # It is not
//! A web framework: it knows no routes besides the probes, and no business rule.
//!
//! # Map
//! [`configuration`] · [`service_settings`] · [`logs`], [`metrics`], [`series`], `traces` · [`tls`], [`bind_policy`],
//! [`listener`], [`serving_threads`] · [`admission`], [`request_id`], [`request_trace`], [`grpc`] · [`readiness`], [`probes`], [`drain`] ·
//! [`disk`], [`build`], [`ready_line`], [`secret`]

pub mod admission;
pub mod bind_policy;
pub mod build;
pub mod configuration;
pub mod disk;
pub mod drain;
pub mod grpc;
pub mod listener;
pub mod logs;
pub mod metrics;
pub mod probes;
pub mod readiness;
pub mod ready_line;
pub mod request_id;
pub mod request_trace;
pub mod secret;
pub mod series;
pub mod service_settings;
pub mod serving_threads;
pub mod tls;
#[cfg(feature = "otlp")]
pub mod traces;

pub use bind_policy::{AuthState, TlsState, UnsafeBind, check_bind};
pub use build::{BUILD, BuildInformation, VERSION_WITH_COMMIT};
pub use drain::{Drain, DrainOutcome, DrainSettings};
pub use grpc::serve_grpc;
pub use listener::{Connection, Connections, Listener, ListenerLimits, PeerInfo};

pub use readiness::{Phase, Readiness};
pub use ready_line::ReadyLine;
pub use secret::Secret;
pub use serving_threads::ServingThreads;
