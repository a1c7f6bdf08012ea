//! nginx's real-ip module on the same chains.
//!
//! It agrees on every chain that both read. It reads two things more generously than we do, each a test of its own: it
//! passes over empty elements, and takes a space for a comma.

use std::cell::RefCell;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tower_layers::client_ip::{ClientIpPolicy, ForwardingHeader};

use crate::chain::{Forms, TRUSTED, chain, headers, lines, trusted};
use crate::nginx_process::{Nginx, program};

const HEADER: ForwardingHeader = ForwardingHeader::XForwardedFor;
/// nginx is reached from here, which is trusted.
const PEER: &str = "127.0.0.1";

fn ours(lines: &[String]) -> IpAddr {
    let policy = ClientIpPolicy::behind(HEADER, trusted());
    policy.resolve(PEER.parse().expect("an address"), &headers(HEADER, lines)).address()
}

#[test]
fn nginx_names_the_same_clients() {
    let Some(program) = program() else { return };
    let nginx = Nginx::start(program, TRUSTED);
    let judge = RefCell::new(nginx.connect());
    let passed_a_proxy = RefCell::new(0);
    let cases = ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    let all_forms = Forms { bare_ipv6: true, mapped: true, open_bracket: true };
    TestRunner::new(cases)
        .run(&chain(all_forms), |hops| {
            let lines = lines(HEADER, &hops);
            let client = ours(&lines);
            // nginx keeps the mapped form.
            prop_assert_eq!(client, judge.borrow_mut().client(&lines).to_canonical(), "{:?}", lines);
            *passed_a_proxy.borrow_mut() += u32::from(client.to_string() != PEER);
            Ok(())
        })
        .expect("nginx agrees");
    let passed_a_proxy = passed_a_proxy.into_inner();
    assert!(passed_a_proxy > 1_000, "only {passed_a_proxy} chains led past the peer");
}

#[test]
fn where_nginx_reads_on_we_stop_at_what_was_vouched_for() {
    let Some(program) = program() else { return };
    let nginx = Nginx::start(program, TRUSTED);
    let mut judge = nginx.connect();
    let mut both = |line: &str| {
        let lines = [line.to_owned()];
        (ours(&lines).to_string(), judge.client(&lines).to_string())
    };
    let pair = |ours: &str, theirs: &str| (ours.to_owned(), theirs.to_owned());
    assert_eq!(both("1.1.1.1,,10.1.0.5"), pair("10.1.0.5", "1.1.1.1"));
    assert_eq!(both("1.1.1.1 10.1.0.5"), pair("127.0.0.1", "1.1.1.1"));
}
