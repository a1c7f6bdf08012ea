//! Proxies and clients that nobody here wrote, with the configurations of `docs/ratelimit.md`.
//!
//! One that is not installed is skipped: the test prints `skipped: needs …`, which `scripts/test` lists.

mod caddy;
mod documented;
mod envoy;
mod nginx;
mod program;
mod redis_library;
mod traefik;
mod web;

use std::net::SocketAddr;

pub use self::documented::Documented;
pub use self::program::program;
use crate::harness::{Home, Server};

/// Three for each client in a time that no test reaches; one on a path of its own.
const LIMITED: &str = "3/week";

/// `ratelimit serve` of these rules on free ports.
fn limits(home: &Home, rules: &str, flags: &[&str]) -> Server {
    let file = home.write("rules.yaml", rules);
    let mut arguments = vec!["ratelimit", "serve", "--rules", &file];
    for flag in ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    arguments.extend(flags);
    Server::start(home, &arguments)
}

/// Rules for proxies that name the client by `client_ip`.
fn per_client() -> String {
    format!("domain: shop\ndescriptors:\n  - key: client_ip\n    name: per-client\n    limit: {LIMITED}\n")
}

/// An address of the ready line.
pub fn address(server: &Server, name: &str) -> SocketAddr {
    let text = server.ready[name].as_str().expect("an address");
    let text = text.rsplit('/').next().unwrap_or(text);
    text.parse().unwrap_or_else(|error| panic!("{name} {text}: {error}"))
}
