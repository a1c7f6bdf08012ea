//! What clients and proxies say about addresses.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use tower_layers::client_ip::{
    ClientIp, ClientIpPolicy, Evidence, ForwardingHeader, HopCount, TrustedNetworks,
};

const PROXIES: &str = "10.1.0.0/24, 2001:db8:1::/48, ::ffff:192.0.2.7";

/// The first byte chooses the header, `f` = Forwarded; the second who is trusted, `1` to `9` = so many hops, otherwise networks;
/// each further line is a line of the header. Accepted: an untrusted hop was found.
///
/// Whatever a client sends, one that is not trusted itself keeps its address, and the hop that a trusted proxy appends wins.
pub fn forwarding_header(bytes: &[u8]) -> bool {
    let [header, trust, lines @ ..] = bytes else { return false };
    let (header, name, client) = match header {
        b'f' => (ForwardingHeader::Forwarded, "forwarded", "for=\"[2001:db8:2::9]:80\""),
        _ => (ForwardingHeader::XForwardedFor, "x-forwarded-for", "[2001:db8:2::9]:80"),
    };
    let networks: TrustedNetworks = PROXIES.parse().expect("a list");
    let count = trust
        .checked_sub(b'0')
        .and_then(|count| HopCount::new(count).ok())
        .filter(|_| trust.is_ascii_digit());
    let policy = match count {
        Some(count) => ClientIpPolicy::behind_count(header, count),
        None => ClientIpPolicy::behind(header, networks.clone()),
    };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return false };
        headers.append(name, value);
    }
    let (proxy, outsider) = (ip("10.1.0.1"), ip("2001:db8:2::9"));
    let found = policy.resolve(proxy, &headers);
    check(found, &networks, count.is_some());
    assert_eq!(policy.resolve(proxy, &headers), found);
    assert_eq!(ClientIpPolicy::behind(header, networks).resolve(outsider, &headers).address(), outsider);

    // The nearest proxy appends to the last line.
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let appended = [last, b", ", client.as_bytes()].concat();
    headers.append(name, HeaderValue::from_bytes(&appended).expect("printable stays printable"));
    let once = ClientIpPolicy::behind_count(header, HopCount::new(1).expect("a count"));
    assert_eq!(once.resolve(proxy, &headers).address(), outsider);
    matches!(found.evidence(), Evidence::UntrustedHop { .. })
}

fn check(found: ClientIp, networks: &TrustedNetworks, counted: bool) {
    assert_eq!(found.address(), found.address().to_canonical(), "a mapped address is the IPv4 address it is");
    if !counted {
        let untrusted = matches!(found.evidence(), Evidence::UntrustedHop { .. });
        assert_eq!(networks.contains(found.address()), !untrusted);
    }
}

/// A list of trusted networks: written back, it is the same list.
pub fn trusted_networks(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(networks) = text.parse::<TrustedNetworks>() else { return false };
    let listed = networks.networks();
    let written: Vec<String> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(written.join(",").parse(), Ok(networks.clone()));
    for network in listed {
        assert!(networks.contains(network.network()) && networks.contains(network.broadcast()));
    }
    true
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
