//! Certificates that the program makes, and that it reads again while it serves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Home, Server, eventually, runtime};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("written").permissions().mode() & 0o777
}

#[test]
fn an_authority_and_its_nodes_are_made_and_shown() {
    let home = Home::new();
    let ca = home.json(&["certs", "ca", "--out", "certs", "--name", "Our cluster", "--days", "10"]);
    assert_eq!(ca["certificate"], "certs/ca.pem");
    assert_eq!((mode(&home.path("certs/ca.key")), mode(&home.path("certs/ca.pem"))), (0o600, 0o644));
    let addresses = ["--address", "192.0.2.7", "--address", "2001:db8::7", "--address", "a.example.com"];
    let node =
        [&["certs", "node", "node-a", "--ca", "certs", "--out", "nodes"], addresses.as_slice()].concat();
    let made = home.json(&node);
    assert_eq!((&made["name"], &made["key"]), (&json!("node-a"), &json!("nodes/node-a.key")));
    assert_eq!(mode(&home.path("nodes/node-a.key")), 0o600);

    let shown = home.json(&["certs", "show", "nodes/node-a.pem"]);
    let shown = &shown["certificates"][0];
    assert_eq!(shown["subject"], "CN=node-a");
    assert_eq!(shown["issuer"], "CN=Our cluster");
    assert_eq!(shown["dns_names"], json!(["node-a", "a.example.com"]));
    assert_eq!(shown["addresses"], json!(["192.0.2.7", "2001:db8::7"]));
    assert_eq!((&shown["valid"], &shown["authority"]), (&json!(true), &json!(false)));
    assert_eq!(shown["not_after_s"], made["not_after_s"]);
    let days = (made["not_after_s"].as_u64().unwrap_or(0) - ca["not_after_s"].as_u64().unwrap_or(0)) / 86_400;
    assert_eq!(days, 355, "365 for a node unless told, 10 for this authority");

    let text = home.run(&["certs", "show", "certs/ca.pem"]);
    assert_eq!(text.code, 0);
    for words in ["CN=Our cluster", "authority  yes", "(valid)"] {
        assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
    }
    let said = home.run(&["certs", "node", "node-b", "--ca", "certs", "--out", "nodes"]);
    let flags = "--peer-tls-cert nodes/node-b.pem --peer-tls-key nodes/node-b.key --peer-ca certs/ca.pem";
    assert!(
        said.stdout.contains("--tls-cert nodes/node-b.pem --tls-key nodes/node-b.key"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains(flags) && !said.stdout.contains("PRIVATE"), "{}", said.stdout);
    assert!(said.stderr.contains("the authority ends before"), "{}", said.stderr);
}

#[test]
fn nothing_is_overwritten_and_what_cannot_work_is_refused() {
    let home = Home::new();
    home.json(&["certs", "ca", "--out", "certs"]);
    home.json(&["certs", "ca", "--out", "others"]);
    let issuer = |ca: &str| home.json(&["certs", "show", ca])["certificates"][0]["subject"].clone();
    let (ours, theirs) = (issuer("certs/ca.pem"), issuer("others/ca.pem"));
    assert_ne!(ours, theirs, "a certificate of another authority must not look like a damaged one");
    assert!(ours.as_str().is_some_and(|name| name.starts_with("CN=Strongroom development ")), "{ours}");
    let node = ["certs", "node", "node-a", "--ca", "certs", "--out", "certs"];
    home.json(&node);
    let before = ["ca.pem", "ca.key", "node-a.pem", "node-a.key"]
        .map(|name| std::fs::read(home.path("certs").join(name)).expect("written"));
    assert_eq!(home.refusal(1, &["certs", "ca", "--out", "certs"])["code"], "FILE");
    assert_eq!(home.refusal(1, &node)["code"], "FILE");
    std::fs::remove_file(home.path("certs/node-a.pem")).expect("removed");
    assert_eq!(home.refusal(1, &node)["code"], "FILE", "the key is there still");
    assert!(!home.path("certs/node-a.pem").exists());
    std::fs::write(home.path("certs/node-a.pem"), &before[2]).expect("written");
    let after = ["ca.pem", "ca.key", "node-a.pem", "node-a.key"]
        .map(|name| std::fs::read(home.path("certs").join(name)).expect("written"));
    assert!(before == after);

    for name in ["Node A", "localhost", "123", "-a", ""] {
        let arguments = ["certs", "node", "--ca", "certs", "--out", "certs", "--", name];
        assert_eq!(home.run(&arguments).code, 2, "{name:?}");
    }
    for address in ["node-b", "*.example.com", "not a name", "300.1.1.1"] {
        let arguments = ["certs", "node", "node-c", "--ca", "certs", "--out", "certs", "--address", address];
        assert_eq!(home.refusal(2, &arguments)["code"], "USAGE", "{address:?}");
    }
    for days in ["0", "-1", "100000"] {
        assert_eq!(home.run(&["certs", "ca", "--out", "x", &format!("--days={days}")]).code, 2, "{days}");
    }
    assert!(!home.path("certs/node-c.pem").exists() && !home.path("x").exists());

    // An authority that is none, another one's key, no files.
    let from = |ca: &str| home.run(&["certs", "node", "node-d", "--ca", ca, "--out", "d"]);
    std::fs::create_dir(home.path("mixed")).expect("a directory");
    std::fs::copy(home.path("certs/ca.pem"), home.path("mixed/ca.pem")).expect("copied");
    std::fs::copy(home.path("others/ca.key"), home.path("mixed/ca.key")).expect("copied");
    let said = from("mixed");
    assert!(said.code == 2 && said.stderr.contains("belongs to another key"), "{said:?}");
    std::fs::copy(home.path("certs/node-a.pem"), home.path("mixed/ca.pem")).expect("copied");
    std::fs::copy(home.path("certs/node-a.key"), home.path("mixed/ca.key")).expect("copied");
    let said = from("mixed");
    assert!(said.code == 2 && said.stderr.contains("not the certificate of an authority"), "{said:?}");
    assert_eq!(from("nowhere").code, 1);
    assert!(!home.path("d").exists());

    let text = home.write("text.pem", "no PEM\n");
    assert_eq!(home.refusal(2, &["certs", "show", &text])["code"], "USAGE");
    let broken = home.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(home.refusal(2, &["certs", "show", &broken])["code"], "USAGE");
    assert_eq!(home.refusal(2, &["certs", "show", "certs/ca.key"])["code"], "USAGE");
    assert_eq!(home.refusal(1, &["certs", "show", "nowhere.pem"])["code"], "FILE");
}

/// Whether the server shows a certificate of this authority, for localhost.
async fn is_served(url: &str, authority: &str) -> bool {
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tls_config(tls).expect("usable");
    let Ok(channel) = endpoint.connect().await else { return false };
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
}

#[test]
fn a_servers_certificate_is_exchanged_while_it_serves() {
    let home = Home::new();
    let authority = |name: &str| {
        home.json(&["certs", "ca", "--out", name]);
        let node = ["certs", "node", "node-a", "--address", "localhost", "--ca", name, "--out", name];
        home.json(&node);
        std::fs::read_to_string(home.path(name).join("ca.pem")).expect("written")
    };
    let (old, new) = (authority("old"), authority("new"));
    let files = ["--tls-cert", "old/node-a.pem", "--tls-key", "old/node-a.key"];
    let serve = ["ledger", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let server = Server::start(&home, &[serve.as_slice(), &files].concat());
    let runtime = runtime();
    assert!(runtime.block_on(is_served(server.url(), &old)));
    assert!(!runtime.block_on(is_served(server.url(), &new)));

    // First the key: for a moment the pair does not fit, and the old one stays.
    for file in ["node-a.key", "node-a.pem"] {
        std::fs::rename(home.path("new").join(file), home.path("old").join(file)).expect("moved");
    }
    eventually("the new certificate is shown", || {
        runtime.block_on(is_served(server.url(), &new)).then_some(())
    });
    assert!(!runtime.block_on(is_served(server.url(), &old)));
    let log = server.stop();
    assert!(log.contains("certificates read anew"), "{log}");
}
