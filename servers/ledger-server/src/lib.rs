//! The ledger's gRPC services, mountable in any tonic server.
//!
//! ```
//! use std::sync::Arc;
//! use ledger_node::{DataDirectory, Ledger, Options, Stores};
//! use ledger_server::{LedgerServer, ServerSettings, access::Authentication, tokens::TokenRegistry};
//! use service_kit::{ListenerLimits, admission::AdmissionLimits};
//! use storage_adapters::embedded::EmbeddedStores;
//! use storage_adapters::redb::RedbOptions;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let directory = DataDirectory::ephemeral()?;
//! let path = directory.path().to_owned();
//! let stores = EmbeddedStores::open(&path, RedbOptions::default())?;
//! let ledger = Ledger::open(directory, Stores { log: stores.log, state: stores.state }, Options::default()).await?;
//! let tokens = Arc::new(TokenRegistry::new(ledger.clone(), &path));
//! tokens.ensure_first(0).await?; // minted into `admin.token`
//! let authentication = Authentication::Tokens(Arc::clone(&tokens));
//! let settings = ServerSettings { authentication, limits: ListenerLimits::default(), admission: AdmissionLimits::default() };
//! let services = LedgerServer::new(ledger.clone(), tokens, settings).services(); // mount them beside your own
//! # drop(services);
//! # ledger.shutdown().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concepts
//! - A **service** converts a request, asks the engine, converts the answer; nothing else happens there.
//! - The **access layer** stands before all of them: default deny, one table, tokens and scopes.
//! - **Settings** are one table: flags, variables, file keys and documentation come from it.
//!
//! # It is not
//! A process: the program that serves binds addresses, installs telemetry and handles signals.
//!
//! # Map
//! [`server`], [`dispatch`] · [`access`], [`tokens`] · [`read_service`], [`write_service`], [`call_stream`], [`admin_service`],
//! [`cluster_calls`], [`leader_hint`] ·
//! [`write_gate`] · [`waiting_node`] · [`transport_errors`] · [`wire`],
//! [`peer_transport`], [`discovery`] · [`reason`] · [`settings`], [`peer_settings`],
//! [`settings_reference`] · [`call_metrics`], [`engine_metrics`]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod access;
pub mod admin_service;
mod backup_stream;
pub mod call_metrics;
pub mod call_stream;
pub mod cluster_calls;
pub mod discovery;
pub mod dispatch;
pub mod engine_metrics;
mod errors;
mod history_calls;
pub mod leader_hint;
pub mod peer_settings;
pub mod peer_transport;
pub mod read_service;
pub mod reason;
pub mod server;
pub mod settings;
pub mod settings_reference;
pub mod tokens;
pub mod transport_errors;
pub mod waiting_node;
mod watch_stream;
pub mod wire;
pub mod write_gate;
pub mod write_service;

pub use server::{LedgerServer, ServerError, ServerSettings};
