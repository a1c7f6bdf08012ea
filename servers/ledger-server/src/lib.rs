//! The ledger's gRPC services, mountable in any tonic server.
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
//! [`server`] · [`access`], [`tokens`] · [`read_service`], [`write_service`], [`admin_service`] · [`wire`],
//! [`reason`] · [`settings`], [`settings_reference`] · [`call_metrics`], [`engine_metrics`]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod access;
pub mod admin_service;
pub mod call_metrics;
pub mod engine_metrics;
mod errors;
pub mod read_service;
pub mod reason;
pub mod server;
pub mod settings;
pub mod settings_reference;
pub mod tokens;
pub mod wire;
pub mod write_service;

pub use server::{LedgerServer, ServerSettings};
