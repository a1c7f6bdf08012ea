//! Who sends a request: the address that a limit is counted for.
//!
//! A proxy in front hides the client's address behind its own and tells it in a header, which everybody else can write
//! too. So only what trusted proxies appended is believed:
//!
//! 1. The connection's peer, unless it is trusted. Then no header is read.
//! 2. Otherwise the elements of **one** configured header, all its lines, from the right: each was appended by the hop
//!    before it. Trusted hops are passed, the first hop that is not trusted is the client.
//! 3. If all are trusted, the leftmost one is the client.
//! 4. An element that is no address (`unknown`, `_obfuscated`, garbage, nothing) ends the walk: the last trusted hop is the
//!    client. That is coarse, and nobody can forge it.
//!
//! At most [`HOPS_MAX`] elements and [`HEADER_BYTES_MAX`] bytes are looked at, also from the right: what a client sends to
//! the left of them has no effect.
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use tower_layers::client_ip::{ClientIpPolicy, ForwardingHeader, TrustedNetworks};
//!
//! let proxies: TrustedNetworks = "10.1.0.0/24, 2001:db8:1::/48".parse()?;
//! let policy = ClientIpPolicy::behind(ForwardingHeader::XForwardedFor, proxies);
//! let mut headers = HeaderMap::new();
//! headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1, 203.0.113.9"));
//! headers.append("x-forwarded-for", HeaderValue::from_static("10.1.0.7"));
//! let client = policy.resolve("10.1.0.8".parse()?, &headers);
//! assert_eq!(client.address().to_string(), "203.0.113.9");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`ClientIpLayer`] does that for every request and leaves a [`ClientIp`] in its extensions. [`Grouping`] says which
//! addresses share one limit.

mod elements;
mod forwarded;
mod group;
mod layer;
mod node;
mod trusted_networks;
mod walk;
mod warning;
mod x_forwarded_for;

pub use group::{AddressGroup, EmbeddedAddresses, Grouping, Ipv6Prefix};
pub use layer::{ClientIpLayer, ClientIpService, PeerAddress, PeerSource};
pub use trusted_networks::{NETWORKS_MAX, TrustedNetworks, TrustedNetworksError};
pub use walk::{
    ClientIp, ClientIpPolicy, Evidence, ForwardingHeader, HEADER_BYTES_MAX, HOPS_MAX, HopCount,
    HopCountError, StopReason, Trust,
};
pub use warning::{PeerWarning, TrustWarning};
