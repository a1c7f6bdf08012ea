//! ForwardAuth of Traefik.

use super::documented::Documented;
use super::program::Running;
use super::web::{Backend, get};
use super::{address, limits, per_client, program};
use crate::harness::{Home, eventually, free_port};

#[test]
fn traefik_hands_a_denial_to_the_client_as_it_is() {
    let Some(program) = program("traefik") else { return };
    let home = Home::new();
    let server = limits(&home, &per_client(), &["--trusted-proxies", "127.0.0.1/32"]);
    let backend = Backend::start();
    let listen = free_port();
    let routes = Documented::block("Behind Traefik", "yaml").with(&[
        ("127.0.0.1:8080", &address(&server, "ratelimit_url").to_string()),
        ("127.0.0.1:9000", &backend.address.to_string()),
    ]);
    let file = home.write("routes.yaml", routes.text());
    let arguments = [
        &format!("--entrypoints.web.address={listen}"),
        &format!("--providers.file.filename={file}"),
        "--providers.file.watch=false",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ];
    let traefik = Running::start(&home, &program, &arguments, listen);
    // It listens before it has read its routes.
    let first = eventually("the routes are read", || {
        let answer = get(traefik.address, "/", "");
        (answer.status != 404).then_some(answer)
    });
    assert_eq!(first.status, 200, "{first:?}");
    for status in [200, 200] {
        assert_eq!(get(traefik.address, "/", "").status, status);
    }
    for headers in ["", "x-forwarded-for: 203.0.113.9\r\n"] {
        let denied = get(traefik.address, "/", headers);
        assert_eq!(denied.status, 429, "{denied:?}");
        assert!(denied.has_a_wait() && denied.header("ratelimit").is_some(), "{denied:?}");
        assert!(denied.body.contains("per-client"), "{denied:?}");
    }
    assert_eq!(backend.served(), 3);
    server.stop();
}
