//! The settings that every server has, and what they become.
//!
//! A server chains [`SERVICE_SETTINGS`] with its own table and declares `listen`, `metrics`, `concurrent` and
//! `timeout` there, since their defaults and aliases are its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::admission::AdmissionLimits;
use crate::bind_policy::{AuthState, TlsState};
use crate::configuration::{ConfigurationError, Kind, Resolved, Setting, TimeUnit};
use crate::drain::DrainSettings;
use crate::listener::ListenerLimits;
use crate::logs::{self, LogFormat, LogSettings, LogTarget};
use crate::tls::{TlsError, TlsFiles};

/// Shortest time for the end of a server: requests and the last flush share it.
pub const DRAIN_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Rows that every server's table contains.
pub static SERVICE_SETTINGS: &[Setting] = &[
    Setting::new("log_level", Kind::Text, "Level of log lines: off, error, warn, info, debug or trace, and exceptions such as info,ledger_server=debug; openraft is silent unless it is named.").or("info"),
    Setting::new("log_format", Kind::Choice(&["json", "text"]), "Form of log lines.").or("json"),
    Setting::new("log_to", Kind::Choice(&["stderr", "stdout"]), "Stream of log lines; stdout is refused together with --json.").or("stderr"),
    Setting::new("tls_cert", Kind::Path, "PEM file with the server's certificate chain; with --tls-key the listener speaks TLS."),
    Setting::new("tls_key", Kind::Path, "PEM file with the private key of --tls-cert."),
    Setting::new("client_ca", Kind::Path, "PEM file with authorities of client certificates; clients without one of theirs are refused."),
    Setting::new("insecure_no_tls", Kind::Switch, "Allow plaintext on an address that others can reach.").or("false"),
    Setting::new("insecure_no_auth", Kind::Switch, "Allow calls without credentials on an address that others can reach.").or("false"),
    Setting::new("connections", Kind::Count { min: 1, max: 1_000_000 }, "Connections open at once on a listener.").or("4096"),
    Setting::new("connections_per_address", Kind::Count { min: 1, max: 1_000_000 }, "Connections open at once from one address (IPv6: one /64 network); loopback is spared.").or("64"),
    Setting::new("header_bytes", Kind::Bytes, "Size of a request's headers, decoded.").or("16KiB"),
    Setting::new("drain_delay", Kind::Duration { bare: TimeUnit::Seconds }, "Time between a failing readiness probe and the end of accepting; unset: none on loopback, else 5s."),
    Setting::new("drain_timeout", Kind::Duration { bare: TimeUnit::Seconds }, "Time from the first signal to the exit, everything included; at least 1s.").or("30s"),
];

/// The settings of log lines.
///
/// # Errors
/// A filter that cannot be read, or the table lacks a row of [`SERVICE_SETTINGS`].
pub fn log_settings(resolved: &Resolved) -> Result<LogSettings, ConfigurationError> {
    let format = if resolved.text("log_format")? == "text" { LogFormat::Text } else { LogFormat::Json };
    let target = if resolved.text("log_to")? == "stdout" { LogTarget::Stdout } else { LogTarget::Stderr };
    let filter = resolved.text("log_level")?.to_owned();
    logs::check_filter(&filter).map_err(|_| resolved.refusal("log_level", logs::FILTER_EXPECTED))?;
    Ok(LogSettings { filter, format, target })
}

/// Why the TLS settings do not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSettingsError {
    /// The settings themselves.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// Their combination.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The TLS files, when there are some.
///
/// # Errors
/// One file without the other.
pub fn tls_files(resolved: &Resolved) -> Result<Option<TlsFiles>, TlsSettingsError> {
    let certificate = resolved.optional_path("tls_cert")?;
    let key = resolved.optional_path("tls_key")?;
    Ok(TlsFiles::from_flags(certificate, key, resolved.optional_path("client_ca")?)?)
}

/// Whether the listener has TLS, for [`check_bind`](crate::check_bind).
///
/// # Errors
/// The table lacks a row of [`SERVICE_SETTINGS`].
pub fn tls_state(resolved: &Resolved) -> Result<TlsState, ConfigurationError> {
    Ok(if resolved.optional_path("tls_cert")?.is_some() {
        TlsState::Enabled
    } else if resolved.switch("insecure_no_tls")? {
        TlsState::WaivedByFlag
    } else {
        TlsState::Disabled
    })
}

/// Whether calls need credentials, given that the server can ask for them unless `insecure_no_auth` says otherwise.
///
/// # Errors
/// The table lacks a row of [`SERVICE_SETTINGS`].
pub fn auth_state(resolved: &Resolved) -> Result<AuthState, ConfigurationError> {
    Ok(if resolved.switch("insecure_no_auth")? { AuthState::WaivedByFlag } else { AuthState::Enabled })
}

/// The limits of the public listener.
///
/// # Errors
/// The table lacks a row of [`SERVICE_SETTINGS`].
pub fn listener_limits(resolved: &Resolved) -> Result<ListenerLimits, ConfigurationError> {
    Ok(ListenerLimits {
        connections_max: usize::try_from(resolved.count("connections")?).unwrap_or(usize::MAX),
        connections_per_address_max: usize::try_from(resolved.count("connections_per_address")?)
            .unwrap_or(usize::MAX),
        header_list_bytes_max: u32::try_from(resolved.bytes("header_bytes")?).unwrap_or(u32::MAX),
        ..ListenerLimits::default()
    })
}

/// The limits of the server's work, from the rows `concurrent` (a count) and `timeout` (a duration) of its own table.
///
/// # Errors
/// A time of zero, or the table lacks one of these rows.
pub fn admission_limits(resolved: &Resolved) -> Result<AdmissionLimits, ConfigurationError> {
    let request_timeout = resolved.duration("timeout")?;
    if request_timeout.is_zero() {
        return Err(resolved
            .refusal("timeout", "more than 0s: every request has a limit, and none fits into no time"));
    }
    Ok(AdmissionLimits {
        requests_max: usize::try_from(resolved.count("concurrent")?).unwrap_or(usize::MAX),
        request_timeout,
        ..AdmissionLimits::default()
    })
}

/// The times of the drain for a server on `address`.
///
/// # Errors
/// A time below [`DRAIN_TIMEOUT_MIN`], or the table lacks a row of [`SERVICE_SETTINGS`].
pub fn drain_settings(resolved: &Resolved, address: SocketAddr) -> Result<DrainSettings, ConfigurationError> {
    let defaults = DrainSettings::for_address(address);
    let total = resolved.duration("drain_timeout")?;
    if total < DRAIN_TIMEOUT_MIN {
        return Err(
            resolved.refusal("drain_timeout", "at least 1s: half of a short time is kept for the last flush")
        );
    }
    let delay = resolved.optional_duration("drain_delay")?.unwrap_or(defaults.delay);
    // A short total leaves half of itself for callbacks.
    Ok(DrainSettings { delay, total, callbacks: defaults.callbacks.min(total / 2) })
}
