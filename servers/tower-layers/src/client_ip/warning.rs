//! What an operator should hear about a configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A trusted network that clients may be in as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustWarning {
    /// A wide range of private addresses: whoever is inside writes the address that is counted.
    WidePrivateRange {
        /// The range.
        network: IpNet,
    },
    /// A whole address family is trusted.
    Everyone {
        /// The range.
        network: IpNet,
    },
}

impl fmt::Display for TrustWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WidePrivateRange { network } => write!(
                formatter,
                "{network} is trusted to name clients, and every client inside it can name another one; \
                 name the addresses of your proxies alone"
            ),
            Self::Everyone { network } => {
                write!(formatter, "{network} is trusted: every client chooses the address that is counted")
            }
        }
    }
}

/// A peer that looks like a proxy whose word is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerWarning {
    /// No proxy is trusted, the peer's address is private, and it sent a forwarding header: probably all clients share
    /// the proxy's limit.
    UnreadHeader {
        /// The peer.
        peer: IpAddr,
    },
    /// No proxy is trusted and the peer's address is private: perhaps a proxy.
    PrivatePeer {
        /// The peer.
        peer: IpAddr,
    },
}

impl fmt::Display for PeerWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnreadHeader { peer } => write!(
                formatter,
                "{peer} sends a forwarding header and no proxy is trusted: if it is your proxy, all clients behind it \
                 share one limit until you name it as trusted"
            ),
            Self::PrivatePeer { peer } => write!(
                formatter,
                "{peer} is a private address and no proxy is trusted: if it is your proxy, all clients behind it share \
                 one limit until you name it as trusted"
            ),
        }
    }
}

/// Widest private network that passes without a warning.
const PRIVATE_V4_PREFIX_MIN: u8 = 24;
const PRIVATE_V6_PREFIX_MIN: u8 = 64;

/// RFC 1918, RFC 6598, link-local.
const PRIVATE_V4: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
];
/// Unique local (RFC 4193), link-local.
const PRIVATE_V6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

pub(super) fn of_network(network: IpNet) -> Option<TrustWarning> {
    if network.prefix_len() == 0 {
        return Some(TrustWarning::Everyone { network });
    }
    let (narrow, private) = match network {
        IpNet::V4(v4) => {
            let overlaps = PRIVATE_V4.iter().any(|range| range.contains(&v4) || v4.contains(range));
            (v4.prefix_len() >= PRIVATE_V4_PREFIX_MIN, overlaps)
        }
        IpNet::V6(v6) => {
            let overlaps = PRIVATE_V6.iter().any(|range| range.contains(&v6) || v6.contains(range));
            (v6.prefix_len() >= PRIVATE_V6_PREFIX_MIN, overlaps)
        }
    };
    (private && !narrow).then_some(TrustWarning::WidePrivateRange { network })
}

/// Whether nobody reaches us from there over the Internet: a proxy, a container network, or development.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || PRIVATE_V4.iter().any(|range| range.contains(&v4)),
        IpAddr::V6(v6) => v6.is_loopback() || PRIVATE_V6.iter().any(|range| range.contains(&v6)),
    }
}

#[cfg(test)]
mod tests {
    use crate::client_ip::TrustedNetworks;

    #[test]
    fn wide_private_ranges_are_warned_of_and_the_addresses_of_proxies_are_not() {
        let warned = |text: &str| text.parse::<TrustedNetworks>().expect("a list").warnings().len();
        assert_eq!(warned("10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,::ffff:10.0.0.0/104"), 5);
        assert_eq!(warned("8.0.0.0/6, 10.1.0.0/16, 100.64.0.0/10"), 3);
        assert_eq!(
            warned("10.1.2.0/24, 192.168.1.1, fd00::1, fd00:1:2:3::/64, 127.0.0.0/8, ::1, 173.245.48.0/20"),
            0
        );
        assert_eq!(TrustedNetworks::everyone().warnings().len(), 2);
    }
}
