//! The crate `trusted-proxies` on the same chains.
//!
//! It differs on purpose where a chain has no untrusted hop: it answers with the peer, we with the last trusted hop. It
//! takes a bare IPv6 address for one with a port, does not know mapped ones, and reads `[::1` as an address: these forms
//! are left out.

use http::Request;
use proptest::prelude::*;
use tower_layers::client_ip::{ClientIpPolicy, Evidence, ForwardingHeader};
use trusted_proxies::{Config, Trusted};

use crate::chain::{Forms, TRUSTED, address, chain, headers, lines, trusted};

const FORMS: Forms = Forms { bare_ipv6: false, mapped: false, open_bracket: false };

fn judge(header: ForwardingHeader) -> Config {
    let mut config = Config::new();
    for network in TRUSTED.split(", ") {
        config.add_trusted_ip(network).expect("a network");
    }
    match header {
        ForwardingHeader::XForwardedFor => config.trust_x_forwarded_for(),
        ForwardingHeader::Forwarded => config.trust_forwarded(),
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn the_crate_trusted_proxies_names_the_same_clients(peer in address(), hops in chain(FORMS)) {
        for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
            let ours = ClientIpPolicy::behind(header, trusted());
            let mut request = Request::new(());
            *request.headers_mut() = headers(header, &lines(header, &hops));
            let ours = ours.resolve(peer, request.headers());
            let theirs = Trusted::from(peer, &request, &judge(header)).ip();
            match ours.evidence() {
                Evidence::Peer | Evidence::UntrustedHop { .. } => prop_assert_eq!(ours.address(), theirs),
                _ => prop_assert_eq!(theirs, peer),
            }
        }
    }
}
