//! The networks whose hosts are our own proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::node::canonical;
use super::warning::{self, TrustWarning};

/// Most networks in a list: cloud providers publish some hundreds.
pub const NETWORKS_MAX: usize = 4_096;

/// Addresses whose word about the hop before them is believed.
///
/// Built from networks (`10.1.0.0/24`, `2001:db8::/48`) or single addresses. An IPv4 network also holds the mapped form
/// (`::ffff:10.1.0.0/120`) of its addresses. Nothing is trusted that the list does not name: no loopback, no private range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedNetworks {
    listed: Vec<IpNet>,
    /// Disjoint and sorted, both ends inclusive.
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

/// Why a list of networks is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustedNetworksError {
    /// Neither an address nor a network.
    #[error("{text:?} is neither an address nor a network; write one like 10.1.0.0/24 or 2001:db8::/48")]
    Unreadable {
        /// What was given.
        text: String,
    },
    /// The address of a host with a prefix length.
    #[error(
        "{given} has bits behind its prefix; write {network} for the network or {address} for the one address"
    )]
    HostBits {
        /// What was given.
        given: IpNet,
        /// Its network.
        network: IpNet,
        /// Its address.
        address: IpAddr,
    },
    /// The networks are all addresses of a family together, so that every client writes its own address.
    #[error("the list trusts every address; if that is meant, use TrustedNetworks::everyone")]
    Everyone,
    /// No network at all.
    #[error("the list is empty; to read no header use ClientIpPolicy::peer_only")]
    Empty,
    /// More than [`NETWORKS_MAX`].
    #[error("{count} networks are more than {NETWORKS_MAX}; name larger ones")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl TrustedNetworks {
    /// The hosts of these networks.
    ///
    /// # Errors
    /// When the list is empty, too long, has bits behind a prefix, or is everybody.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Result<Self, TrustedNetworksError> {
        let listed: Vec<IpNet> = networks.into_iter().take(NETWORKS_MAX + 1).collect();
        if listed.len() > NETWORKS_MAX {
            return Err(TrustedNetworksError::TooMany { count: listed.len() });
        }
        if listed.is_empty() {
            return Err(TrustedNetworksError::Empty);
        }
        if let Some(given) = listed.iter().copied().find(|network| network.addr() != network.network()) {
            let (network, address) = (given.trunc(), given.addr());
            return Err(TrustedNetworksError::HostBits { given, network, address });
        }
        let trusted = Self::of(listed.into_iter().map(unmapped).collect());
        if trusted.holds_a_whole_family() { Err(TrustedNetworksError::Everyone) } else { Ok(trusted) }
    }

    /// Every address of both families: each client then chooses its address. For tests and for networks where a header
    /// cannot come from outside.
    pub fn everyone() -> Self {
        Self::of(vec![Ipv4Net::default().into(), ipnet::Ipv6Net::default().into()])
    }

    /// Whether an address is trusted. A mapped address counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(v4) => in_ranges(&self.v4, v4),
            IpAddr::V6(v6) => in_ranges(&self.v6, v6),
        }
    }

    /// The networks as they were given, mapped ones as IPv4.
    pub fn networks(&self) -> &[IpNet] {
        &self.listed
    }

    /// What to tell an operator about this list.
    pub fn warnings(&self) -> Vec<TrustWarning> {
        self.listed.iter().filter_map(|network| warning::of_network(*network)).collect()
    }

    fn of(listed: Vec<IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in IpNet::aggregate(&listed) {
            match network {
                IpNet::V4(network) => v4.push((network.network(), network.broadcast())),
                IpNet::V6(network) => v6.push((network.network(), network.broadcast())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { listed, v4, v6 }
    }

    /// Two halves are the whole too: aggregation has joined them.
    fn holds_a_whole_family(&self) -> bool {
        self.v4.contains(&(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST))
            || self.v6.contains(&(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from(u128::MAX)))
    }
}

/// Networks and addresses between commas or white space.
impl FromStr for TrustedNetworks {
    type Err = TrustedNetworksError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split([',', ' ', '\t', '\n', '\r']).filter(|entry| !entry.is_empty());
        let networks: Result<Vec<IpNet>, _> = entries.take(NETWORKS_MAX + 1).map(network).collect();
        Self::new(networks?)
    }
}

fn network(text: &str) -> Result<IpNet, TrustedNetworksError> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let parsed = text.parse().or_else(|_| single());
    parsed.map_err(|_| TrustedNetworksError::Unreadable { text: text.chars().take(64).collect() })
}

/// A network of mapped addresses as the IPv4 network it is.
fn unmapped(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96))
        }
        _ => None,
    };
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

fn in_ranges<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_of_everybody_is_refused_however_it_is_written() {
        let everybody = [
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/1,128.0.0.0/1",
            "::ffff:0:0/96",
            "10.0.0.0/8 0.0.0.0/0",
            "::/1, 8000::/1",
        ];
        for text in everybody {
            assert_eq!(text.parse::<TrustedNetworks>(), Err(TrustedNetworksError::Everyone), "{text}");
        }
        let everyone = TrustedNetworks::everyone();
        assert!(everyone.contains("8.8.8.8".parse().expect("an address")));
        assert!(everyone.contains("2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn a_list_with_a_slip_is_refused_by_name() {
        let refused = |text: &str| text.parse::<TrustedNetworks>().expect_err(text).to_string();
        assert_eq!(
            refused("10.0.0.1/8"),
            "10.0.0.1/8 has bits behind its prefix; write 10.0.0.0/8 for the network or 10.0.0.1 for the one address"
        );
        assert!(refused("10.0.0.0/33").contains("10.0.0.0/33"));
        assert!(refused("proxy.internal").contains("proxy.internal"));
        assert!(refused(" ,").contains("empty"));
        let many =
            TrustedNetworks::new((0..5_000_u32).map(|n| IpNet::from(IpAddr::from(Ipv4Addr::from(n * 2)))));
        assert_eq!(many, Err(TrustedNetworksError::TooMany { count: NETWORKS_MAX + 1 }));
    }

    #[test]
    fn mapped_networks_are_those_of_ipv4_and_addresses_match_in_either_form() {
        let trusted: TrustedNetworks = "::ffff:10.0.0.0/104, 192.0.2.7".parse().expect("a list");
        for inside in ["10.255.0.1", "::ffff:10.1.2.3", "192.0.2.7", "::ffff:192.0.2.7"] {
            assert!(trusted.contains(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["11.0.0.0", "9.255.255.255", "192.0.2.8", "::10.0.0.1", "2002:a00::1"] {
            assert!(!trusted.contains(outside.parse().expect("an address")), "{outside}");
        }
    }

    fn any_network() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 1_u8..=32).prop_map(|(bits, length)| {
            IpNet::from(Ipv4Net::new(Ipv4Addr::from(bits), length).expect("a network")).trunc()
        });
        let v6 = (any::<u128>(), 1_u8..=128).prop_map(|(bits, length)| {
            IpNet::from(ipnet::Ipv6Net::new(Ipv6Addr::from(bits), length).expect("a network")).trunc()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn an_address_is_trusted_exactly_when_one_of_the_networks_holds_it(
            networks in prop::collection::vec(any_network(), 1..12),
            other in any::<u128>(),
            near in any::<prop::sample::Index>(),
        ) {
            let Ok(trusted) = TrustedNetworks::new(networks.clone()) else { return Ok(()) };
            let near = *near.get(&networks);
            let beside = |address: IpAddr| match address {
                IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from(u32::from(v4).wrapping_add(1))),
                IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from(u128::from(v6).wrapping_add(1))),
            };
            let edges = [near.network(), near.broadcast(), beside(near.broadcast())];
            let others = [IpAddr::from(Ipv6Addr::from(other)), IpAddr::from(Ipv4Addr::from(other as u32))];
            for address in edges.into_iter().chain(others).map(canonical) {
                let expected = networks.iter().any(|network| unmapped(*network).contains(&address));
                prop_assert_eq!(trusted.contains(address), expected, "{}", address);
            }
        }
    }
}
