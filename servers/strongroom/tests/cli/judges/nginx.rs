//! `auth_request` of nginx.

use super::documented::Documented;
use super::program::Running;
use super::web::{Backend, get};
use super::{address, limits, per_client, program};
use crate::harness::{Home, free_port};

/// What stands around the documented locations: everything in folders of its own.
fn configuration(listen: &str, locations: &str) -> String {
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders = folders.map(|name| format!("{name}_temp_path {name};\n")).concat();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;\nevents {{ }}\n\
         http {{\naccess_log off;\n{folders}server {{\nlisten {listen};\n{locations}\n}}\n}}\n"
    )
}

fn start(home: &Home, program: &std::path::Path, limits: &str, backend: &Backend) -> Running {
    let listen = free_port();
    let backend = backend.address.to_string();
    let locations = Documented::block("Behind nginx", "nginx")
        .with(&[("127.0.0.1:8080", limits), ("127.0.0.1:9000", &backend)]);
    let file = home.write("nginx.conf", configuration(&listen.to_string(), locations.text()));
    let folder = home.path("tmp").display().to_string();
    Running::start(home, program, &["-p", &folder, "-c", &file, "-e", "stderr"], listen)
}

#[test]
fn nginx_asks_before_it_forwards_and_answers_429_with_our_headers() {
    let Some(program) = program("nginx") else { return };
    let home = Home::new();
    let server = limits(&home, &per_client(), &[]);
    let backend = Backend::start();
    let nginx = start(&home, &program, &address(&server, "ratelimit_url").to_string(), &backend);
    for left in [2, 1, 0] {
        let answer = get(nginx.address, "/", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "served"), "{answer:?}");
        let quota = answer.header("ratelimit").expect("a header");
        assert!(quota.contains(&format!(r#""per-client";r={left};"#)), "{quota}");
    }
    // A client cannot name itself another: nginx hands on the address of the connection.
    for headers in ["", "x-forwarded-for: 203.0.113.9\r\n"] {
        let denied = get(nginx.address, "/", headers);
        assert_eq!(denied.status, 429, "{denied:?}");
        assert!(denied.has_a_wait() && denied.header("ratelimit").is_some(), "{denied:?}");
    }
    assert_eq!(backend.served(), 3);
    server.stop();
    assert_eq!(get(nginx.address, "/", "").status, 500, "nobody decides, so nobody passes");
    assert_eq!(backend.served(), 3);
}
