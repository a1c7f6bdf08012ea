//! Where a peer is reached: host and port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Longest host: a DNS name.
const HOST_BYTES_MAX: usize = 253;

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no address: give HOST:PORT, such as 192.0.2.1:50052, [2001:db8::1]:50052 or node-a.example.com:50052"
)]
pub struct AddressError {
    /// What was given.
    pub given: String,
}

/// Host and port of a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// An IP address without brackets, or a DNS name.
    host: String,
    port: u16,
}

impl PeerAddress {
    /// Reads an address; an IP address may come without a port.
    ///
    /// # Errors
    /// Neither of both.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self { host: ip.to_string(), port: default_port }),
            Err(_) => text.parse(),
        }
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let refused = || AddressError { given: text.chars().take(80).collect() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(refused)?;
        if is_name(host) { Ok(Self { host: host.to_owned(), port }) } else { Err(refused()) }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A DNS name: labels of letters, digits, hyphens and underscores.
pub(super) fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= HOST_BYTES_MAX && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for (given, shown) in [
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("[::1]:7", "[::1]:7"),
            ("node-a:7", "node-a:7"),
            ("ledger.default.svc.cluster.local:50052", "ledger.default.svc.cluster.local:50052"),
            ("10.0.0.1", "10.0.0.1:50052"),
            ("::1", "[::1]:50052"),
        ] {
            assert_eq!(
                PeerAddress::parse(given, 50_052).map(|address| address.to_string()),
                Ok(shown.to_owned())
            );
        }
        for path in [
            "peers.cache",
            "/var/lib/ledger/peers.cache",
            "./10.0.0.1:7",
            "a:b",
            "a:0",
            "a:65536",
            ":7",
            "a b:7",
            "",
        ] {
            assert!(PeerAddress::parse(path, 50_052).is_err(), "{path}");
        }
    }
}
