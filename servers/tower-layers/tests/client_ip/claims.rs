//! What holds for every chain, and what no client can forge.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tower_layers::client_ip::{
    ClientIpPolicy, Evidence, ForwardingHeader, HEADER_BYTES_MAX, HOPS_MAX, HopCount, StopReason,
    TrustedNetworks,
};

use crate::chain::{Forms, Hop, address, chain, headers, lines, name, trusted};

const BOTH: [ForwardingHeader; 2] = [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded];
const ALL_FORMS: Forms = Forms { bare_ipv6: true, mapped: true, open_bracket: true };

fn behind(header: ForwardingHeader) -> ClientIpPolicy {
    ClientIpPolicy::behind(header, trusted())
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The rule in its plainest words, on what the hops mean.
fn model(trusts: impl Fn(u8, IpAddr) -> bool, peer: IpAddr, hops: &[Hop]) -> (IpAddr, Evidence) {
    if !trusts(0, peer) {
        return (peer, Evidence::Peer);
    }
    let mut last = peer;
    for (hops, hop) in (1..).zip(hops.iter().rev()) {
        match hop.address {
            None => {
                let hidden = hop.x_forwarded_for == "unknown" || hop.x_forwarded_for == "_hidden";
                let reason = if hidden { StopReason::Hidden } else { StopReason::Unreadable };
                return (last, Evidence::Stopped { hops: hops - 1, reason });
            }
            Some(address) if trusts(hops, address) => last = address,
            Some(address) => return (address, Evidence::UntrustedHop { hops }),
        }
    }
    (last, Evidence::AllTrusted { hops: u8::try_from(hops.len()).expect("few hops") })
}

proptest! {
    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted(peer in address(), hops in chain(ALL_FORMS)) {
        let networks = trusted();
        for header in BOTH {
            let client = behind(header).resolve(peer, &headers(header, &lines(header, &hops)));
            let expected = model(|_, address| networks.contains(address), peer, &hops);
            prop_assert_eq!((client.address(), client.evidence()), expected);
        }
    }

    #[test]
    fn with_a_count_the_client_is_as_many_hops_away(peer in address(), hops in chain(ALL_FORMS), count in 1_u8..=8) {
        for header in BOTH {
            let policy = ClientIpPolicy::behind_count(header, HopCount::new(count).expect("a count"));
            let client = policy.resolve(peer, &headers(header, &lines(header, &hops)));
            prop_assert_eq!((client.address(), client.evidence()), model(|hop, _| hop < count, peer, &hops));
        }
    }

    /// A client writes what it likes; then proxies of ours append the hop before them.
    #[test]
    fn nothing_that_a_client_sends_changes_its_address(
        forged in prop::collection::vec(prop::collection::vec(prop_oneof![
            3 => prop::sample::select(b"\",\\;=:[]%. 0123456789abcdef".to_vec()), 1 => 0x80_u8..=0xff
        ], 0..200), 0..4),
        client in address().prop_filter("not a proxy", |address| !trusted().contains(*address)),
        proxies in 0_usize..5,
        same_line in any::<bool>(),
    ) {
        for header in BOTH {
            let element = |address: IpAddr| match (header, address) {
                (ForwardingHeader::XForwardedFor, _) => address.to_string(),
                (ForwardingHeader::Forwarded, IpAddr::V4(v4)) => format!("for={v4}"),
                (ForwardingHeader::Forwarded, IpAddr::V6(v6)) => format!("for=\"[{v6}]\""),
            };
            let mut sent = forged.clone();
            let appended = std::iter::once(client).chain((0..proxies).map(|_| ip("10.1.0.9"))).map(element);
            for element in appended {
                match sent.last_mut() {
                    Some(line) if same_line => line.extend(format!(", {element}").bytes()),
                    _ => sent.push(element.into_bytes()),
                }
            }
            let mut headers = HeaderMap::new();
            for line in &sent {
                headers.append(name(header), HeaderValue::from_bytes(line).expect("a value"));
            }
            let resolved = behind(header).resolve(ip("10.1.0.1"), &headers);
            prop_assert_eq!(resolved.address(), client, "{:?}", headers);
            // Nor when it reaches us itself.
            prop_assert_eq!(behind(header).resolve(client, &headers).address(), client);
            prop_assert_eq!(ClientIpPolicy::peer_only().resolve(client, &headers).address(), client);
        }
    }

    #[test]
    fn whatever_bytes_a_header_holds_there_is_an_answer_and_without_a_hop_it_is_the_peer(
        raw in prop::collection::vec(prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..60), 0..5)
    ) {
        for header in BOTH {
            let mut headers = HeaderMap::new();
            for line in &raw {
                headers.append(name(header), HeaderValue::from_bytes(line).expect("a value"));
            }
            let client = ClientIpPolicy::behind(header, TrustedNetworks::everyone()).resolve(ip("192.0.2.1"), &headers);
            match client.evidence() {
                Evidence::AllTrusted { hops: 0 } | Evidence::Stopped { hops: 0, .. } => {
                    prop_assert_eq!(client.address(), ip("192.0.2.1"));
                }
                _ => prop_assert!(!raw.iter().all(Vec::is_empty)),
            }
        }
    }
}

#[test]
fn only_the_configured_header_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert("forwarded", HeaderValue::from_static("for=1.1.1.1"));
    headers.insert("x-real-ip", HeaderValue::from_static("2.2.2.2"));
    headers.insert("cf-connecting-ip", HeaderValue::from_static("2.2.2.2"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("3.3.3.3"));
    let client = |header| behind(header).resolve(ip("10.1.0.1"), &headers).address();
    assert_eq!(client(ForwardingHeader::XForwardedFor), ip("3.3.3.3"));
    assert_eq!(client(ForwardingHeader::Forwarded), ip("1.1.1.1"));
}

/// tower_governor takes the leftmost entry that parses, of the first line alone.
#[test]
fn a_second_line_that_a_proxy_appended_counts_and_the_leftmost_entry_does_not() {
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
    headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.5"));
    let client = behind(ForwardingHeader::XForwardedFor).resolve(ip("::ffff:10.1.0.1"), &headers);
    assert_eq!(client.address(), ip("203.0.113.5"));
}

#[test]
fn hops_and_bytes_beyond_the_caps_are_not_read() {
    let hops = usize::from(HOPS_MAX);
    let stopped = |value: String| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_str(&value).expect("a value"));
        let client = behind(ForwardingHeader::XForwardedFor).resolve(ip("10.1.0.1"), &headers);
        (client.address(), client.evidence())
    };
    let proxies = |count: usize| vec!["10.1.0.2"; count].join(", ");
    assert_eq!(
        stopped(format!("9.9.9.9, {}", proxies(hops - 1))),
        (ip("9.9.9.9"), Evidence::UntrustedHop { hops: HOPS_MAX })
    );
    assert_eq!(
        stopped(format!("9.9.9.9, {}", proxies(hops))),
        (ip("10.1.0.2"), Evidence::Stopped { hops: HOPS_MAX, reason: StopReason::HopsMax })
    );
    let padding = " ".repeat(HEADER_BYTES_MAX);
    assert_eq!(
        stopped(format!("9.9.9.9{padding}, 10.1.0.2")),
        (ip("10.1.0.2"), Evidence::Stopped { hops: 1, reason: StopReason::HeaderBytesMax })
    );
    // What stands to the left of the answer is not looked at.
    assert_eq!(stopped(format!("{padding}, 9.9.9.9, 10.1.0.2")).0, ip("9.9.9.9"));
}

#[test]
fn an_empty_element_hides_a_hop_and_is_not_skipped() {
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
    headers.append("x-forwarded-for", HeaderValue::from_static(""));
    let client = behind(ForwardingHeader::XForwardedFor).resolve(ip("10.1.0.1"), &headers);
    assert_eq!(client.address(), ip("10.1.0.1"));
    assert_eq!(client.evidence(), Evidence::Stopped { hops: 0, reason: StopReason::Unreadable });
}

#[test]
fn a_count_of_no_proxies_or_too_many_is_refused() {
    assert!(
        HopCount::new(0).is_err() && HopCount::new(HOPS_MAX + 1).is_err() && HopCount::new(HOPS_MAX).is_ok()
    );
}

#[test]
fn a_private_peer_without_a_list_is_warned_of_and_no_other() {
    let (none, mut forwarded) = (HeaderMap::new(), HeaderMap::new());
    forwarded.insert("forwarded", HeaderValue::from_static("for=1.1.1.1"));
    let policy = ClientIpPolicy::peer_only();
    let warned =
        |peer: &str, headers: &HeaderMap| policy.peer_warning(ip(peer), headers).map(|w| w.to_string());
    for peer in ["10.0.0.1", "::ffff:192.168.0.1", "127.0.0.1", "::1", "fd00::1", "fe80::1", "100.64.0.1"] {
        assert!(warned(peer, &none).expect(peer).contains("private"), "{peer}");
        assert!(warned(peer, &forwarded).expect(peer).contains("forwarding header"), "{peer}");
    }
    assert_eq!(warned("203.0.113.1", &forwarded), None);
    assert_eq!(behind(ForwardingHeader::Forwarded).peer_warning(ip("10.0.0.1"), &forwarded), None);
}
