//! Which addresses a server may listen on.

use std::net::SocketAddr;

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsState {
    /// A certificate is configured.
    Enabled,
    /// No certificate.
    Disabled,
    /// No certificate, and `--insecure-no-tls` says that this is meant.
    WaivedByFlag,
}

/// Whether a listener asks for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthState {
    /// Every call needs credentials.
    Enabled,
    /// Calls need none.
    Disabled,
    /// Calls need none, and `--insecure-no-auth` says that this is meant.
    WaivedByFlag,
}

/// A listener that others than this machine could reach lacks protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsafeBind {
    /// Traffic would be readable and forgeable.
    #[error(
        "refusing to listen on {address} without TLS: give --tls-cert and --tls-key, listen on a loopback address, \
         or accept plaintext with --insecure-no-tls"
    )]
    WithoutTls {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anyone could call.
    #[error(
        "refusing to listen on {address} without credentials: turn them on, listen on a loopback address, \
         or accept anonymous calls with --insecure-no-auth"
    )]
    WithoutCredentials {
        /// The address asked for.
        address: SocketAddr,
    },
}

/// Refuses an address beyond loopback unless TLS and credentials are on or waived, each by its own flag.
///
/// # Errors
/// What is missing, and the flags that would help.
pub fn check_bind(address: SocketAddr, tls: TlsState, auth: AuthState) -> Result<(), UnsafeBind> {
    // `to_canonical` unwraps ::ffff:127.0.0.1, which is loopback although `Ipv6Addr::is_loopback` denies it.
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if tls == TlsState::Disabled {
        return Err(UnsafeBind::WithoutTls { address });
    }
    if auth == AuthState::Disabled {
        return Err(UnsafeBind::WithoutCredentials { address });
    }
    Ok(())
}
