//! Which addresses share one limit.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::node::canonical;

/// How much of an IPv6 address names a client. A host chooses the last 64 bits as it likes, and changes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ipv6Prefix {
    /// One network: the smallest that a subscriber is given.
    #[default]
    Bits64,
    /// What homes are given (RIPE-690).
    Bits56,
    /// What companies are given (RIPE-690).
    Bits48,
}

impl Ipv6Prefix {
    /// The length of the prefix.
    pub fn bits(self) -> u8 {
        match self {
            Self::Bits64 => 64,
            Self::Bits56 => 56,
            Self::Bits48 => 48,
        }
    }
}

/// What happens to an IPv6 address that carries the IPv4 address of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbeddedAddresses {
    /// It is grouped like any other: behind NAT64 all IPv4 hosts are one client.
    #[default]
    Keep,
    /// It is the IPv4 address.
    Unwrap,
}

/// Which addresses share one limit: an IPv4 address stands for itself, IPv6 addresses for their network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// The network of an IPv6 address.
    pub ipv6: Ipv6Prefix,
    /// `64:ff9b::/96` (RFC 6052): IPv4 hosts behind a translator.
    pub nat64: EmbeddedAddresses,
    /// `2002::/16` (RFC 3056): IPv6 networks behind an IPv4 host.
    pub six_to_four: EmbeddedAddresses,
}

/// The addresses that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressGroup {
    /// One IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 network.
    Ipv6 {
        /// Its first address: every bit behind the prefix is 0.
        network: Ipv6Addr,
        /// The length of its prefix: 64, 56 or 48.
        prefix_bits: u8,
    },
}

impl Grouping {
    /// The group of an address.
    pub fn group(&self, address: IpAddr) -> AddressGroup {
        self.group_with(address, self.ipv6)
    }

    /// The group, then the wider ones around it, narrow first: for limits that are checked together, each wider one with
    /// a larger limit. An IPv4 address has one.
    pub fn tiers(&self, address: IpAddr) -> impl Iterator<Item = AddressGroup> + use<> {
        let grouping = *self;
        let prefixes = [Ipv6Prefix::Bits64, Ipv6Prefix::Bits56, Ipv6Prefix::Bits48];
        let wanted = prefixes.into_iter().filter(move |prefix| prefix.bits() <= grouping.ipv6.bits());
        let mut last = None;
        wanted.filter_map(move |prefix| {
            let group = grouping.group_with(address, prefix);
            (last.replace(group) != Some(group)).then_some(group)
        })
    }

    fn group_with(&self, address: IpAddr, prefix: Ipv6Prefix) -> AddressGroup {
        match self.unwrapped(canonical(address)) {
            IpAddr::V4(v4) => AddressGroup::Ipv4(v4),
            IpAddr::V6(v6) => {
                let prefix_bits = prefix.bits();
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
                AddressGroup::Ipv6 { network: Ipv6Addr::from(u128::from(v6) & mask), prefix_bits }
            }
        }
    }

    fn unwrapped(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(v6) = address else { return address };
        match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] if self.nat64 == EmbeddedAddresses::Unwrap => {
                embedded(high, low)
            }
            [0x2002, high, low, ..] if self.six_to_four == EmbeddedAddresses::Unwrap => embedded(high, low),
            _ => address,
        }
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into()
}

impl fmt::Display for AddressGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(formatter),
            Self::Ipv6 { network, prefix_bits } => write!(formatter, "{network}/{prefix_bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(grouping: Grouping, address: &str) -> String {
        grouping.group(address.parse().expect("an address")).to_string()
    }

    /// CVE-2026-30827: a limiter that cut mapped addresses to 56 bits gave all IPv4 clients one bucket.
    #[test]
    fn mapped_addresses_are_grouped_as_the_ipv4_addresses_they_are() {
        for ipv6 in [Ipv6Prefix::Bits64, Ipv6Prefix::Bits56, Ipv6Prefix::Bits48] {
            let grouping = Grouping { ipv6, ..Grouping::default() };
            assert_eq!(group(grouping, "::ffff:192.0.2.1"), "192.0.2.1");
            assert_eq!(group(grouping, "::ffff:192.0.2.2"), "192.0.2.2");
        }
    }

    #[test]
    fn ipv6_addresses_are_grouped_by_their_network() {
        let address = "2001:db8:1234:5678:9abc:def0:1:2";
        let of = |ipv6| group(Grouping { ipv6, ..Grouping::default() }, address);
        assert_eq!(of(Ipv6Prefix::Bits64), "2001:db8:1234:5678::/64");
        assert_eq!(of(Ipv6Prefix::Bits56), "2001:db8:1234:5600::/56");
        assert_eq!(of(Ipv6Prefix::Bits48), "2001:db8:1234::/48");
        let tiers: Vec<String> = Grouping::default()
            .tiers(address.parse().expect("an address"))
            .map(|tier| tier.to_string())
            .collect();
        assert_eq!(tiers, ["2001:db8:1234:5678::/64", "2001:db8:1234:5600::/56", "2001:db8:1234::/48"]);
        assert_eq!(Grouping::default().tiers("192.0.2.1".parse().expect("an address")).count(), 1);
    }

    #[test]
    fn embedded_ipv4_addresses_are_unwrapped_only_when_asked() {
        let unwrap = EmbeddedAddresses::Unwrap;
        let (plain, nat64) = (Grouping::default(), Grouping { nat64: unwrap, ..Grouping::default() });
        let six_to_four = Grouping { six_to_four: unwrap, ..Grouping::default() };
        assert_eq!(group(plain, "64:ff9b::c000:201"), "64:ff9b::/64");
        assert_eq!(group(nat64, "64:ff9b::c000:201"), "192.0.2.1");
        assert_eq!(group(nat64, "64:ff9b:1::c000:201"), "64:ff9b:1::/64");
        assert_eq!(group(nat64, "2002:c000:201::1"), "2002:c000:201::/64");
        assert_eq!(group(plain, "2002:c000:201::1"), "2002:c000:201::/64");
        assert_eq!(group(six_to_four, "2002:c000:201:7::1"), "192.0.2.1");
    }

    proptest! {
        #[test]
        fn two_addresses_share_a_group_exactly_when_their_prefixes_are_equal(a in any::<u128>(), b in any::<u128>(), shared in 0_u32..=128) {
            let mask = u128::MAX.checked_shl(128 - shared).unwrap_or(0);
            let b = (a & mask) | (b & !mask);
            let (left, right) = (Ipv6Addr::from(a), Ipv6Addr::from(b));
            prop_assume!(left.to_ipv4_mapped().is_none() && right.to_ipv4_mapped().is_none());
            for (ipv6, bits) in [(Ipv6Prefix::Bits64, 64), (Ipv6Prefix::Bits56, 56), (Ipv6Prefix::Bits48, 48)] {
                let grouping = Grouping { ipv6, ..Grouping::default() };
                let same = grouping.group(left.into()) == grouping.group(right.into());
                prop_assert_eq!(same, a >> (128 - bits) == b >> (128 - bits));
            }
        }
    }
}
