//! Addresses as this machine reaches them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use service_kit::Listener;

/// The listener's URL as this machine reaches it.
pub fn reachable_url(listener: &Listener) -> String {
    let address = listener.local_address();
    listener.url().replacen(&address.to_string(), &reachable_address(address).to_string(), 1)
}

/// An unspecified address listens everywhere and is none to connect to: this machine's own stands for it.
pub fn reachable_address(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let host = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(host, address.port())
}
