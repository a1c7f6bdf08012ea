//! Envoy, over its own protocol.

use std::net::SocketAddr;
use std::path::Path;

use super::documented::Documented;
use super::program::Running;
use super::web::{Answer, Backend, get};
use super::{LIMITED, address, limits, program};
use crate::harness::{Home, Server, eventually, free_port};

const HEADING: &str = "Behind Envoy";
/// On a machine that does much at once an answer may take its time, and then a request would not be decided.
const PATIENT: (&str, &str) = ("timeout: 0.05s", "timeout: 20s");
/// What a rate limit of a route is written in, where Envoy reads all of it.
const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";

/// The documented rules, with limits that no time refills.
fn rules() -> String {
    let limits = [
        ("60/minute burst 20", LIMITED),
        (
            "{ algorithm: strict_window, count: 10, per: hour }",
            "{ algorithm: strict_window, count: 1, per: week }",
        ),
    ];
    Documented::block(HEADING, "yml").with(&limits).text().to_owned()
}

/// Envoy with the documented configuration and these changes to it.
fn start(
    home: &Home,
    program: &Path,
    rls: SocketAddr,
    backend: &Backend,
    changes: &[(&str, &str)],
) -> Running {
    let listen = free_port();
    let port = |number: u16| format!("port_value: {number}");
    let configuration = Documented::block(HEADING, "yaml").with(changes).with(&[
        ("address: 0.0.0.0, port_value: 8000", &format!("address: 127.0.0.1, {}", port(listen.port()))),
        ("port_value: 8081", &port(rls.port())),
        ("port_value: 9000", &port(backend.address.port())),
    ]);
    let file = home.write("envoy.yaml", configuration.text());
    let quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"];
    Running::start(home, program, &[&["-c", file.as_str()], quiet.as_slice()].concat(), listen)
}

/// `ratelimit serve` with the documented rules.
fn documented_limits(home: &Home) -> (Server, SocketAddr) {
    let server = limits(home, &rules(), &[]);
    let rls = address(&server, "rls_url");
    (server, rls)
}

#[test]
fn f1_envoy_lets_three_go_and_denies_the_fourth_and_says_so_in_headers() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let (server, rls) = documented_limits(&home);
    let backend = Backend::start();
    let envoy = start(&home, &program, rls, &backend, &[PATIENT]);
    for left in ["2", "1", "0"] {
        let answer = get(envoy.address, "/", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let limit = answer.header("x-ratelimit-limit").unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(limit, "3, 3;w=604800;name=\"per-client\"");
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
        let quota = answer.header("ratelimit").unwrap_or_else(|| panic!("{answer:?}"));
        assert!(quota.starts_with(&format!("\"per-client\";r={left};t=")), "{quota}");
    }
    for headers in ["", "x-forwarded-for: 203.0.113.9\r\n"] {
        let denied = get(envoy.address, "/", headers);
        assert_eq!(denied.status, 429, "{denied:?}");
        assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
        assert!(denied.has_a_wait(), "{denied:?}");
    }
    assert_eq!(backend.served(), 3);
    server.stop();
    // `failure_mode_deny: false`: while nobody decides, everybody passes.
    assert_eq!(get(envoy.address, "/", "").status, 200);
    assert_eq!(backend.served(), 4);
}

/// The documented filter sent `:path`, which has the query, and `/login?1` met no rule with the value `/login`.
#[test]
fn a_query_does_not_help_past_the_limit_of_a_path() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let (server, rls) = documented_limits(&home);
    let backend = Backend::start();
    let envoy = start(&home, &program, rls, &backend, &[PATIENT]);
    let ask = |path: &str| get(envoy.address, path, "").status;
    assert_eq!([1, 2, 3].map(|number| ask(&format!("/login?{number}"))), [200, 429, 429]);
    assert_eq!(ask("/login"), 429);
    assert_eq!(ask("/"), 200);
    server.stop();
}

/// A URL of more than 4 KiB was an error of the protocol, and `failure_mode_deny: false` let it pass.
#[test]
fn a_long_url_has_the_limits_of_any_other() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let (server, rls) = documented_limits(&home);
    let backend = Backend::start();
    let place = "- actions: [{ remote_address: {} }]";
    let path = format!(
        "{place}\n                              - actions: \
         [{{ request_headers: {{ header_name: \":path\", descriptor_key: url }} }}]"
    );
    let envoy = start(&home, &program, rls, &backend, &[PATIENT, (place, &path)]);
    let long = format!("/?{}", "x".repeat(20_000));
    assert_eq!([0; 5].map(|_| get(envoy.address, &long, "").status), [200, 200, 200, 429, 429]);
    server.stop();
}

#[test]
fn envoy_asks_for_all_descriptors_and_a_denied_one_charges_none() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let (server, rls) = documented_limits(&home);
    let backend = Backend::start();
    let envoy = start(&home, &program, rls, &backend, &[PATIENT]);
    let ask = |path: &str| get(envoy.address, path, "").status;
    // One login takes one of the three; the denied ones take none.
    assert_eq!([0; 4].map(|_| ask("/login")), [200, 429, 429, 429]);
    assert_eq!([0; 3].map(|_| ask("/")), [200, 200, 429]);
    assert_eq!(backend.served(), 3);
    server.stop();
}

/// The documented filter, whose rate limits stand where Envoy reads `hits_addend` and `apply_on_stream_done`.
fn with_limits_per_route(limits: &str) -> String {
    let route = |path: &str, limit: &str| {
        format!(
            "- match: {{ path: {path} }}\n                          \
             route: {{ cluster: backend }}\n                          \
             typed_per_filter_config:\n                            \
             envoy.filters.http.ratelimit: {{ \"@type\": {PER_ROUTE}, rate_limits: [{{ actions: [{{ remote_address: {{}} }}]{limit} }}] }}\n                        "
        )
    };
    [("/look", ", hits_addend: { number: 0 }"), ("/two", ", hits_addend: { number: 2 }"), ("/done", limits)]
        .map(|(path, limit)| route(path, limit))
        .concat()
}

#[test]
fn f1_envoy_looks_without_taking_takes_two_at_once_and_pays_when_a_stream_is_done() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let (server, rls) = documented_limits(&home);
    let backend = Backend::start();
    let routes = with_limits_per_route(", apply_on_stream_done: true");
    let first = "- match: { path: /login }";
    let changes = [PATIENT, (first, &format!("{routes}{first}"))];
    let envoy = start(&home, &program, rls, &backend, &changes);
    let left = |answer: &Answer| answer.header("x-ratelimit-remaining").map(str::to_owned);
    for _ in 0..5 {
        let looked = get(envoy.address, "/look", "");
        assert_eq!((looked.status, left(&looked).as_deref()), (200, Some("3")), "{looked:?}");
    }
    // It is charged after its answer, so at some time after it.
    assert_eq!(get(envoy.address, "/done", "").status, 200);
    eventually("the stream is paid for", || {
        (left(&get(envoy.address, "/look", "")).as_deref() == Some("2")).then_some(())
    });
    assert_eq!(get(envoy.address, "/two", "").status, 200);
    assert_eq!(get(envoy.address, "/two", "").status, 429);
    assert_eq!(get(envoy.address, "/look", "").status, 429, "nothing is left to look at");
    server.stop();
}

#[test]
fn what_cannot_be_decided_is_what_failure_mode_deny_says() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let token = home.write("token", "of-checks\n");
    let server = limits(&home, &rules(), &["--token-file", &token]);
    let backend = Backend::start();
    let rls = address(&server, "rls_url");
    let strict = ("failure_mode_deny: false", "failure_mode_deny: true");
    // Without the token a call is refused: no answer, which is no permission.
    let envoy = start(&home, &program, rls, &backend, &[PATIENT, strict]);
    assert_eq!(get(envoy.address, "/", "").status, 500);
    assert_eq!(backend.served(), 0);
    drop(envoy);

    let place = "{ cluster_name: rate_limits }";
    let shown = format!("{place}, initial_metadata: [{{ key: authorization, value: Bearer of-checks }}]");
    let envoy = start(&home, &program, rls, &backend, &[PATIENT, strict, (place, &shown)]);
    assert_eq!([0; 4].map(|_| get(envoy.address, "/", "").status), [200, 200, 200, 429]);
    server.stop();
    assert_eq!(get(envoy.address, "/", "").status, 500);
    assert_eq!(backend.served(), 3);
}

#[test]
fn envoy_asks_over_tls() {
    let Some(program) = program("envoy") else { return };
    let home = Home::new();
    let files = crate::every_setting::certificates();
    let (certificate, key) = (home.write("cert.pem", files.certificate), home.write("key.pem", files.key));
    let ca = home.write("ca.pem", files.ca);
    let server = limits(&home, &rules(), &["--tls-cert", &certificate, "--tls-key", &key]);
    let backend = Backend::start();
    let context = format!(
        "- name: rate_limits\n      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n          \
         sni: localhost\n          common_tls_context:\n            alpn_protocols: [h2]\n            \
         validation_context: {{ trusted_ca: {{ filename: \"{ca}\" }} }}"
    );
    let changes =
        [PATIENT, ("failure_mode_deny: false", "failure_mode_deny: true"), ("- name: rate_limits", &context)];
    let envoy = start(&home, &program, address(&server, "rls_url"), &backend, &changes);
    assert_eq!([0; 4].map(|_| get(envoy.address, "/", "").status), [200, 200, 200, 429]);
    server.stop();
}
