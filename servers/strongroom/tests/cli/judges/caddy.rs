//! `forward_auth` of Caddy.

use super::documented::Documented;
use super::program::Running;
use super::web::{Backend, get};
use super::{address, limits, per_client, program};
use crate::harness::{Home, free_port};

/// Caddy with the documented site, and these global options.
fn start(home: &Home, program: &std::path::Path, options: &str, limits: &str, backend: &Backend) -> Running {
    let listen = free_port();
    let site = Documented::block("Behind Caddy", "caddyfile").with(&[
        (":8000", &format!("http://:{}", listen.port())),
        ("127.0.0.1:8080", limits),
        ("127.0.0.1:9000", &backend.address.to_string()),
    ]);
    let file = home.write("Caddyfile", format!("{{\n\tadmin off\n{options}}}\n{}", site.text()));
    Running::start(home, program, &["run", "--config", &file, "--adapter", "caddyfile"], listen)
}

#[test]
fn caddy_hands_a_denial_to_the_client_as_it_is() {
    let Some(program) = program("caddy") else { return };
    let home = Home::new();
    let server = limits(&home, &per_client(), &["--trusted-proxies", "127.0.0.1/32"]);
    let backend = Backend::start();
    let caddy = start(&home, &program, "", &address(&server, "ratelimit_url").to_string(), &backend);
    for _ in 0..3 {
        let answer = get(caddy.address, "/", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "served"), "{answer:?}");
    }
    // Caddy believes no client about its address.
    for headers in ["", "x-forwarded-for: 203.0.113.9\r\n"] {
        let denied = get(caddy.address, "/", headers);
        assert_eq!(denied.status, 429, "{denied:?}");
        assert!(denied.has_a_wait(), "{denied:?}");
        assert!(denied.header("ratelimit").is_some_and(|quota| quota.contains("r=0;")), "{denied:?}");
        assert_eq!(denied.header("content-type"), Some("application/problem+json"));
        assert!(denied.body.contains("per-client"), "{denied:?}");
    }
    assert_eq!(backend.served(), 3);
    server.stop();
    assert_eq!(get(caddy.address, "/", "").status, 502, "nobody decides, so nobody passes");
}

#[test]
fn caddy_behind_another_proxy_names_the_client_that_this_one_saw() {
    let Some(program) = program("caddy") else { return };
    let home = Home::new();
    let server = limits(&home, &per_client(), &["--trusted-proxies", "127.0.0.1/32"]);
    let backend = Backend::start();
    let trusting = "\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}\n";
    let caddy = start(&home, &program, trusting, &address(&server, "ratelimit_url").to_string(), &backend);
    let ask = |client: &str| get(caddy.address, "/", &format!("x-forwarded-for: {client}\r\n")).status;
    assert_eq!([0; 4].map(|_| ask("203.0.113.9")), [200, 200, 200, 429]);
    assert_eq!(ask("203.0.113.10"), 200, "another client has its own");
    // What stands further left, the client wrote itself.
    assert_eq!(ask("198.51.100.7, 203.0.113.9"), 429);
    server.stop();
}
