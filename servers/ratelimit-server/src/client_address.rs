//! Values that are addresses of clients: an IPv6 address counts as its network, however the question came.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use tower_layers::client_ip::{ClientIpPolicy, Grouping, PeerWarning, Trust};

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
fn group(address: IpAddr) -> String {
    Grouping::default().group(address).to_string()
}

/// Finds clients behind proxies, and says what looks wrong about who is trusted.
pub(crate) struct Clients {
    policy: ClientIpPolicy,
    warned: AtomicBool,
}

impl Clients {
    /// Those that this policy tells. Logs what is wrong with it.
    pub(crate) fn new(policy: ClientIpPolicy) -> Self {
        if let Some(Trust::Networks(networks)) = policy.trust() {
            for warning in networks.warnings() {
                tracing::warn!("{warning}");
            }
        }
        Self { policy, warned: AtomicBool::new(false) }
    }

    /// The client of a request.
    pub(crate) fn of(&self, peer: IpAddr, headers: &HeaderMap) -> String {
        if let Some(warning) = self.first_warning(peer, headers) {
            tracing::warn!("{warning}");
        }
        group(self.policy.resolve(peer, headers).address())
    }

    /// Whether the peer looks like a proxy whose word is not taken; told once.
    fn first_warning(&self, peer: IpAddr, headers: &HeaderMap) -> Option<PeerWarning> {
        if self.warned.load(Ordering::Relaxed) {
            return None;
        }
        let warning = self.policy.peer_warning(peer, headers)?;
        (!self.warned.swap(true, Ordering::Relaxed)).then_some(warning)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The layers warned of it, and the server, which has none, did not: all clients of a proxy had one limit without a word.
    #[test]
    fn a_proxy_whose_word_is_not_taken_is_told_once() {
        let clients = Clients::new(ClientIpPolicy::peer_only());
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        assert_eq!(clients.first_warning([203, 0, 113, 1].into(), &headers), None);
        let peer = [10, 0, 0, 1].into();
        assert_eq!(clients.of(peer, &headers), "10.0.0.1");
        assert_eq!(clients.first_warning(peer, &headers), None);
        let others = Clients::new(ClientIpPolicy::peer_only());
        assert_eq!(others.first_warning(peer, &headers), Some(PeerWarning::UnreadHeader { peer }));
    }

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
