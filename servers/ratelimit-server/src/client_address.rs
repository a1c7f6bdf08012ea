//! Values that are addresses of clients: an IPv6 address counts as its network, however the question came.

use std::borrow::Cow;
use std::net::IpAddr;

use tower_layers::client_ip::Grouping;

/// The key whose value may be left to us.
pub(crate) const CLIENT_IP: &str = "client_ip";
/// Envoy's word for it.
const REMOTE_ADDRESS: &str = "remote_address";

/// What the value of an entry is counted as. Whoever has a network of IPv6 has 2^64 addresses: they share one counter.
pub(crate) fn counted<'v>(key: &str, value: &'v str) -> Cow<'v, str> {
    match value.parse() {
        Ok(address) if matches!(key, CLIENT_IP | REMOTE_ADDRESS) => Cow::Owned(group(address)),
        _ => Cow::Borrowed(value),
    }
}

/// The client that an address stands for: `203.0.113.9`, `2001:db8::/64`.
pub(crate) fn group(address: IpAddr) -> String {
    Grouping::default().group(address).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_grouped_under_the_keys_of_clients_alone_and_once() {
        for (value, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::/64"),
            ("2001:DB8:0:7::", "2001:db8:0:7::/64"),
            ("2001:db8:0:7::/64", "2001:db8:0:7::/64"),
            ("somebody", "somebody"),
            ("", ""),
        ] {
            for key in [CLIENT_IP, REMOTE_ADDRESS] {
                assert_eq!(counted(key, value), expected, "{value}");
            }
            assert_eq!(counted("host", value), value);
        }
    }
}
