//! Every documented setting of a ledger server exists as a flag and changes what the real process does.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use ledger_client::{ClientError, Consistency, ErrorCode, LedgerClient};
use ledger_core::command::Receipt;
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::transaction::{Action, Operation};
use tokio::runtime::Runtime;

use crate::harness::{DEADLINE, Home, Said, Server, client, eventually, free_port, put, runtime, vault};

/// One test per setting, and the list of them.
macro_rules! settings {
    ($($key:ident $body:block)*) => {
        pub const TESTED: &[&str] = &[$(stringify!($key)),*];
        $(#[test] fn $key() $body)*
    };
}
pub(crate) use settings;

#[test]
fn every_documented_setting_is_tested_here_and_has_a_flag() {
    let mut documented: Vec<&str> = ledger_server::settings::table().map(|setting| setting.key).collect();
    let mut tested = [TESTED, crate::cluster_settings::TESTED].concat();
    documented.sort_unstable();
    tested.sort_unstable();
    assert_eq!(documented, tested);
    let home = Home::new();
    for command in [["ledger", "serve"].as_slice(), &["dev"], &["config", "check"]] {
        let help = home.run(&[command, &["--help"]].concat()).stdout;
        for setting in ledger_server::settings::table() {
            assert!(
                help.contains(&format!("--{}", setting.flag())),
                "{command:?} lacks --{}",
                setting.flag()
            );
        }
    }
}

/// `ledger serve` on free ports with these flags.
fn serve(home: &Home, flags: &[&str]) -> Result<Server, Said> {
    let mut arguments = vec!["ledger", "serve", "--json"];
    for (flag, free) in [("--listen", "127.0.0.1:0"), ("--metrics", "127.0.0.1:0")] {
        if !flags.contains(&flag) {
            arguments.extend([flag, free]);
        }
    }
    arguments.extend(flags);
    Server::spawn(&mut home.command(&arguments))
}

pub fn started(home: &Home, flags: &[&str]) -> Server {
    serve(home, flags).unwrap_or_else(|said| panic!("{flags:?}: {said:?}"))
}

/// The reason why a start with these flags fails.
pub fn refused(home: &Home, flags: &[&str]) -> String {
    let said = match serve(home, flags) {
        Ok(server) => {
            let (_, log) = {
                server.signal("TERM");
                server.wait()
            };
            panic!("{flags:?} started: {log}");
        }
        Err(said) => said,
    };
    let line: serde_json::Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    line["error"].as_str().expect("a reason").to_owned()
}

/// A server with the vault, a client of it, and the runtime that the client lives in.
struct Running {
    _home: Home,
    _server: Server,
    runtime: Runtime,
    client: LedgerClient,
}

impl Running {
    fn with(flags: &[&str]) -> Self {
        let home = Home::new();
        let server = started(&home, flags);
        let runtime = runtime();
        let client = client(&runtime, &server, &home.path("pins"));
        runtime.block_on(async {
            client.create_namespace(&vault().namespace).await.expect("made");
            client.create_vault(&vault()).await.expect("made");
            // The client knows the time from here on: a write is one call.
            client.node_info().await.expect("an answer");
        });
        Self { _home: home, _server: server, runtime, client }
    }

    /// Sends these transactions at once.
    fn at_once(&self, transactions: Vec<Vec<Operation>>) -> Vec<Result<Receipt, ClientError>> {
        let writes: Vec<_> = transactions
            .into_iter()
            .map(|operations| {
                let client = self.client.clone();
                self.runtime.spawn(async move { client.write(&vault(), operations).await })
            })
            .collect();
        writes.into_iter().map(|write| self.runtime.block_on(write).expect("no panic")).collect()
    }

    fn puts_at_once(&self, count: u32) -> Vec<Result<Receipt, ClientError>> {
        self.at_once((0..count).map(|number| put(&format!("k{number}"), "v")).collect())
    }

    /// Applied entries that the state store does not hold yet.
    fn unwritten(&self) -> u64 {
        let info = self.runtime.block_on(self.client.node_info()).expect("an answer");
        info.last_applied.saturating_sub(info.durable_applied)
    }
}

fn overloaded(answers: &[Result<Receipt, ClientError>]) -> usize {
    let codes = answers.iter().filter_map(|answer| answer.as_ref().err()).map(ClientError::code);
    codes.filter(|code| *code == ErrorCode::Overloaded).count()
}

fn heights(answers: Vec<Result<Receipt, ClientError>>) -> usize {
    let heights = answers.into_iter().map(|answer| answer.expect("a receipt").height);
    heights.collect::<std::collections::BTreeSet<_>>().len()
}

/// A certificate for localhost with its key, and the authority that signed it.
pub struct Certificates {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

pub fn certificates() -> Certificates {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for its own authority when both have one name.
    ca.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
    let ca_certificate = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("parameters");
    let certificate = certificate.signed_by(&key, &issuer).expect("signed").pem();
    Certificates { ca: ca_certificate, certificate, key: key.serialize_pem() }
}

/// An address of this machine that is not loopback; `None` on a machine without a network.
pub fn outside_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only looks the route up.
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

settings! {
    listen {
        let address = free_port().to_string();
        let server = started(&Home::new(), &["--listen", &address]);
        assert_eq!(server.url(), format!("http://{address}"));
    }

    data {
        let home = Home::new();
        let data = home.path("kept").display().to_string();
        let server = started(&home, &["--data", &data]);
        assert_eq!(server.ready["data_dir"], data.as_str());
        server.stop();
        assert!(home.path("kept/state.db").exists());
    }

    metrics {
        let address = free_port().to_string();
        let home = Home::new();
        let server = started(&home, &["--metrics", &address]);
        assert_eq!(server.metrics_url(), format!("http://{address}"));
        assert_eq!(home.json(&["health", &format!("http://{address}/metrics")])["ready"], true);
    }

    insecure_metrics {
        let home = Home::new();
        assert!(refused(&home, &["--metrics", "0.0.0.0:0"]).contains("--insecure-metrics"));
        started(&home, &["--metrics", "0.0.0.0:0", "--insecure-metrics"]).stop();
    }

    batch_size {
        let alone = Running::with(&["--batch-delay", "300ms", "--batch-size", "1"]);
        assert_eq!(heights(alone.puts_at_once(6)), 6, "every transaction has a block of its own");
        let together = Running::with(&["--batch-delay", "300ms"]);
        assert!(heights(together.puts_at_once(6)) < 6, "transactions share blocks");
    }

    batch_delay {
        let slow = Running::with(&["--batch-delay", "700ms"]);
        let asked = Instant::now();
        slow.puts_at_once(1).remove(0).expect("a receipt");
        assert!(asked.elapsed() >= Duration::from_millis(700), "{:?}", asked.elapsed());
    }

    concurrent {
        let one = Running::with(&["--concurrent", "1", "--batch-delay", "900ms"]);
        assert!(overloaded(&one.puts_at_once(3)) >= 1);
        let many = Running::with(&["--batch-delay", "900ms"]);
        assert_eq!(overloaded(&many.puts_at_once(3)), 0);
    }

    streams {
        use ledger_client::WatchRequest;
        let one = Running::with(&["--streams", "1"]);
        one.runtime.block_on(async {
            let opened = |mut stream: ledger_client::BlockStream| async move { stream.next().await.map(|_| stream) };
            let first = one.client.watch(&vault(), WatchRequest::default()).await.expect("a watch");
            let first = opened(first).await.expect("the genesis block");
            let second = one.client.watch(&vault(), WatchRequest::default()).await.expect("not opened yet");
            let shed = opened(second).await.expect_err("no place is left");
            assert_eq!(shed.code(), ErrorCode::Overloaded, "{shed}");
            drop(first);
        });
    }

    state_cache {
        const RECORDS: u32 = 48;
        const VALUE_BYTES: usize = 1_000_000;
        let home = Home::new();
        let data = home.path("data").display().to_string();
        let runtime = runtime();
        let key = |number: u32| EntityKey::new(&format!("large{number}")).expect("a key");
        let server = started(&home, &["--data", &data]);
        let writer = client(&runtime, &server, &home.path("pins"));
        runtime.block_on(async {
            writer.create_namespace(&vault().namespace).await.expect("made");
            writer.create_vault(&vault()).await.expect("made");
            for number in 0..RECORDS {
                let value = vec![number as u8; VALUE_BYTES];
                writer.write(&vault(), put(key(number).as_str(), value)).await.expect("a receipt");
            }
        });
        server.stop();
        // Memory of the process after every record was read, in KiB.
        let resident = |cache: &str| -> u64 {
            let server = started(&home, &["--data", &data, "--state-cache", cache]);
            let reader = client(&runtime, &server, &home.path("pins"));
            runtime.block_on(async {
                for number in 0..RECORDS {
                    let read = reader.get(&vault(), &key(number), Consistency::Eventual).await.expect("an answer");
                    assert_eq!(read.value.map(|entity| entity.value.len()), Some(VALUE_BYTES));
                }
            });
            let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("a process");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let (large, small) = (resident("256MiB"), resident("1MiB"));
        assert!(large > small + 20_000, "{large} KiB with a large cache, {small} KiB with a small one");
    }

    timeout {
        let hasty = Running::with(&["--timeout", "100ms", "--batch-delay", "900ms"]);
        // Also the commands that make the vault are batched; they succeed because they do not wait for a batch.
        let answer = hasty.puts_at_once(1).remove(0);
        assert_eq!(answer.map_err(|error| error.code()), Err(ErrorCode::DeadlineExceeded));
    }

    queue_transactions {
        let short = Running::with(&["--queue-transactions", "1", "--batch-delay", "900ms"]);
        assert!(overloaded(&short.puts_at_once(4)) >= 1);
    }

    queue_bytes {
        let large = || {
            let put = |number: u32| Operation {
                action: Action::SetEntity {
                    key: EntityKey::new(&format!("large{number}")).expect("a key"),
                    value: EntityValue::new(vec![0; 1_000_000]).expect("below the limit"),
                    expires_at_ms: 0,
                },
                condition: None,
            };
            (0..4).map(|_| (0..3).map(put).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let short = Running::with(&["--queue-bytes", "5MiB", "--batch-delay", "900ms"]);
        assert!(overloaded(&short.at_once(large())) >= 1);
        let ample = Running::with(&["--queue-bytes", "64MiB", "--batch-delay", "900ms"]);
        assert_eq!(overloaded(&ample.at_once(large())), 0);
    }

    flush_interval {
        let often = Running::with(&["--flush-interval", "10ms"]);
        often.puts_at_once(3).into_iter().for_each(|answer| drop(answer.expect("a receipt")));
        eventually("the state is written", || (often.unwritten() == 0).then_some(()));
        let rarely = Running::with(&["--flush-interval", "1h"]);
        rarely.puts_at_once(3).into_iter().for_each(|answer| drop(answer.expect("a receipt")));
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(500) {
            assert!(rarely.unwritten() > 0);
        }
    }

    flush_bytes {
        let early = Running::with(&["--flush-interval", "1h", "--flush-bytes", "1"]);
        early.puts_at_once(3).into_iter().for_each(|answer| drop(answer.expect("a receipt")));
        eventually("the state is written", || (early.unwritten() == 0).then_some(()));
    }

    overlay_bytes {
        let home = Home::new();
        assert!(refused(&home, &["--overlay-bytes", "1KiB", "--flush-bytes", "2KiB"]).contains("overlay_bytes"));
        // Applying waits until what was applied before is written.
        let tight = Running::with(&["--flush-interval", "1h", "--flush-bytes", "1", "--overlay-bytes", "1"]);
        for _ in 0..20 {
            tight.puts_at_once(1).remove(0).expect("a receipt");
            assert!(tight.unwritten() <= 2, "{} entries are not written", tight.unwritten());
        }
    }

    gc_interval {
        let eager = Running::with(&["--gc-interval", "100ms"]);
        let expiring = |now_ms: u64| Operation {
            action: Action::SetEntity {
                key: EntityKey::new("session").expect("a key"),
                value: EntityValue::new("on").expect("small"),
                expires_at_ms: now_ms + 500,
            },
            condition: None,
        };
        let now_ms = eager.runtime.block_on(eager.client.expiry_base_ms()).expect("the time");
        eager.at_once(vec![vec![expiring(now_ms)]]).remove(0).expect("a receipt");
        let asked = Instant::now();
        eventually("the expired entity is removed", || {
            let info = eager.runtime.block_on(eager.client.vault(&vault())).expect("an answer");
            (info.key_count == 0).then_some(())
        });
        assert!(asked.elapsed() < Duration::from_secs(30), "the default interval is a minute");
    }

    snapshot_every {
        let snapshots = |running: &Running| {
            running.runtime.block_on(running.client.snapshots()).expect("an answer").snapshots.len()
        };
        let often = Running::with(&["--snapshot-every", "100ms"]);
        often.puts_at_once(1).remove(0).expect("a receipt");
        eventually("a snapshot is written", || (snapshots(&often) > 0).then_some(()));
        let never = Running::with(&["--snapshot-every", "0s"]);
        never.puts_at_once(1).remove(0).expect("a receipt");
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(500) {
            assert_eq!(snapshots(&never), 0);
        }
        assert!(refused(&Home::new(), &["--snapshot-every", "400d"]).contains("snapshot_every"));
    }

    snapshot_keep {
        let two = Running::with(&["--snapshot-keep", "2"]);
        let mut made = Vec::new();
        for _ in 0..4 {
            two.puts_at_once(1).remove(0).expect("a receipt");
            let snapshot = two.runtime.block_on(two.client.create_snapshot()).expect("an answer");
            made.push(snapshot.expect("it is small"));
        }
        let kept = two.runtime.block_on(two.client.snapshots()).expect("an answer").snapshots;
        assert_eq!(kept, made[2..]);
        assert!(refused(&Home::new(), &["--snapshot-keep", "0"]).contains("snapshot"));
    }

    log_level {
        let home = Home::new();
        assert_eq!(started(&home, &["--log-level", "off"]).stop(), "");
        let info = started(&home, &["--log-level", "info"]).stop();
        assert!(info.contains("asked to end"), "{info}");
        let debug = started(&home, &["--log-level", "debug,openraft=debug"]).stop();
        assert!(debug.lines().count() > info.lines().count());
    }

    log_format {
        let home = Home::new();
        let lines = |format: &str| -> Vec<bool> {
            let log = started(&home, &["--log-format", format]).stop();
            log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect()
        };
        let (json, text) = (lines("json"), lines("text"));
        assert!(!json.is_empty() && json.iter().all(|is_json| *is_json));
        assert!(!text.is_empty() && text.iter().all(|is_json| !is_json));
    }

    log_to {
        let home = Home::new();
        assert!(refused(&home, &["--log-to", "stdout"]).contains("--log-to"));
        let both = |target: &str| {
            let arguments =
                ["ledger", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-to", target, "--data"];
            let data = home.path(target).display().to_string();
            let mut child = home.command(&[arguments.as_slice(), &[&data]].concat()).spawn().expect("it starts");
            // The signal may come before the server is ready: it ends all the same, and logs it.
            eventually("the directory is made", || home.path(target).join("admin.token").exists().then_some(()));
            let pid = child.id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
            let (mut stdout, mut stderr) = (String::new(), String::new());
            child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
            child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
            child.wait().expect("it ends");
            // Whoever ends before it is ready says so in words of its own, which are no log.
            let logged = |text: &str| text.lines().any(|line| line.contains("asked to end") && line.contains("signal"));
            (logged(&stdout), logged(&stderr))
        };
        assert_eq!(both("stdout"), (true, false));
        assert_eq!(both("stderr"), (false, true));
    }

    tls_cert {
        let home = Home::new();
        let files = certificates();
        let (certificate, key, ca) =
            (home.write("cert.pem", files.certificate), home.write("key.pem", files.key), home.write("ca.pem", files.ca));
        let server = started(&home, &["--tls-cert", &certificate, "--tls-key", &key]);
        assert!(server.url().starts_with("https://"));
        let token = server.ready["token_file"].as_str().expect("a token file");
        let vkey = ["ledger", "vkey", "--token-file", token, "--url", server.url(), "--tls-ca", &ca];
        assert_eq!(home.json(&vkey)["vkey"], server.ready["vkey"]);
        let plain = server.url().replace("https://", "http://");
        let other = home.write("other.pem", certificates().ca);
        let hint = |arguments: &[&str]| home.refusal(7, arguments)["hint"].as_str().expect("a hint").to_owned();
        let unencrypted = hint(&["ledger", "vkey", "--token-file", token, "--url", &plain]);
        assert!(unencrypted.contains("https://"), "{unencrypted}");
        let untrusted = ["--tls-ca", other.as_str()];
        let unknown = hint(&[&["ledger", "vkey", "--token-file", token, "--url", server.url()], untrusted.as_slice()].concat());
        assert!(unknown.contains("--tls-ca"), "{unknown}");
        let health = ["health", server.url(), "--grpc"];
        assert_eq!(home.json(&[health.as_slice(), &["--tls-ca", &ca]].concat())["answer"], "SERVING");
        assert!(hint(&[health.as_slice(), &untrusted].concat()).contains("--tls-ca"));
        assert!(hint(&["health", &plain, "--grpc"]).contains("https://"));
    }

    tls_key {
        let home = Home::new();
        let (ours, other) = (certificates(), certificates());
        let (certificate, key) = (home.write("cert.pem", ours.certificate), home.write("key.pem", other.key));
        assert!(refused(&home, &["--tls-cert", &certificate, "--tls-key", &key]).contains("key.pem"));
    }

    client_ca {
        let home = Home::new();
        let (ours, theirs) = (certificates(), certificates());
        let (certificate, key, ca) =
            (home.write("cert.pem", ours.certificate), home.write("key.pem", ours.key), home.write("ca.pem", ours.ca));
        let (client, client_key, client_ca) = (
            home.write("client.pem", theirs.certificate),
            home.write("client.key", theirs.key),
            home.write("client-ca.pem", theirs.ca),
        );
        let server = started(&home, &["--tls-cert", &certificate, "--tls-key", &key, "--client-ca", &client_ca]);
        let token = server.ready["token_file"].as_str().expect("a token file");
        let vkey = ["ledger", "vkey", "--token-file", token, "--url", server.url(), "--tls-ca", &ca];
        let refusal = home.refusal(7, &vkey);
        assert!(refusal["hint"].as_str().is_some_and(|hint| hint.contains("--tls-cert")), "a client without a certificate is refused: {refusal}");
        let health = ["health", server.url(), "--grpc", "--tls-ca", &ca, "--tls-cert", &client, "--tls-key", &client_key];
        assert_eq!(home.json(&health)["ready"], true);
        let known = [vkey.as_slice(), &["--tls-cert", &client, "--tls-key", &client_key]].concat();
        assert_eq!(home.json(&known)["vkey"], server.ready["vkey"]);
        let unknown = [vkey.as_slice(), &["--tls-cert", &certificate, "--tls-key", &key]].concat();
        assert_eq!(home.run(&unknown).code, 7, "a certificate of another authority is refused");
    }

    insecure_no_tls {
        let home = Home::new();
        assert!(refused(&home, &["--listen", "0.0.0.0:0"]).contains("--insecure-no-tls"));
        let everywhere = ["--listen", "0.0.0.0:0", "--insecure-no-tls"];
        let server = started(&home, &everywhere);
        assert!(server.url().starts_with("http://127.0.0.1:"), "an address to connect to: {}", server.url());
        assert_eq!(server.ready["nodes"][0]["url"], server.url());
        assert_eq!(home.json(&["health", server.url(), "--grpc"])["ready"], true);
        let log = server.stop();
        assert!(log.contains("the data directory is temporary"), "{log}");
    }

    insecure_no_auth {
        let home = Home::new();
        let vkey = |server: &Server| home.run(&["ledger", "vkey", "--url", server.url()]).code;
        assert_eq!(vkey(&started(&home, &[])), 6);
        assert_eq!(vkey(&started(&home, &["--insecure-no-auth"])), 0);
        let open = ["--listen", "0.0.0.0:0", "--insecure-no-tls=false", "--insecure-no-auth"];
        assert!(refused(&home, &open).contains("--insecure-no-tls"), "one flag lifts one requirement");
    }

    connections {
        let home = Home::new();
        let answered = |server: &Server| {
            let token = server.ready["token_file"].as_str().expect("a token file");
            home.run(&["ledger", "vkey", "--url", server.url(), "--token-file", token, "--timeout", "5s"]).code == 0
        };
        let address = |server: &Server| server.url().trim_start_matches("http://").parse::<SocketAddr>().expect("an address");
        let one = started(&home, &["--connections", "1"]);
        let held = TcpStream::connect(address(&one)).expect("accepted");
        assert!(!answered(&one), "the one connection is taken");
        drop(held);
        eventually("the connection is free again", || answered(&one).then_some(()));
        let many = started(&home, &[]);
        let _held = TcpStream::connect(address(&many)).expect("accepted");
        assert!(answered(&many));
    }

    connections_per_address {
        let Some(outside) = outside_address() else {
            println!("skipped: needs an address of this machine that is not loopback, which is spared");
            return;
        };
        let home = Home::new();
        let server = started(&home, &["--listen", "0.0.0.0:0", "--insecure-no-tls", "--connections-per-address", "1"]);
        let port = server.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let token = server.ready["token_file"].as_str().expect("a token file");
        let answered = |ip: IpAddr| {
            let url = format!("http://{}", SocketAddr::new(ip, port));
            home.run(&["ledger", "vkey", "--url", &url, "--token-file", token, "--timeout", "5s"]).code == 0
        };
        let held = TcpStream::connect(SocketAddr::new(outside, port)).expect("accepted");
        assert!(!answered(outside), "the address has its one connection");
        let _spared = TcpStream::connect(("127.0.0.1", port)).expect("accepted");
        assert!(answered([127, 0, 0, 1].into()), "loopback is spared");
        drop(held);
        eventually("the connection is free again", || answered(outside).then_some(()));
    }

    header_bytes {
        let home = Home::new();
        let token = home.write("long.token", format!("sr_{}\n", "x".repeat(6_000)));
        let code = |server: &Server| home.run(&["ledger", "vkey", "--url", server.url(), "--token-file", &token]).code;
        assert_eq!(code(&started(&home, &[])), 6, "the header is read and the token refused");
        assert_ne!(code(&started(&home, &["--header-bytes", "4KiB"])), 6, "the header is not read");
    }

    drain_delay {
        let home = Home::new();
        let server = started(&home, &["--drain-delay", "10s"]);
        let asked = Instant::now();
        server.signal("TERM");
        let metrics = server.metrics_url().to_owned();
        eventually("the probe fails first", || (home.run(&["health", &metrics]).code == 7).then_some(()));
        assert!(home.run(&["health", &format!("{metrics}/livez")]).code == 0, "it still lives");
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(asked.elapsed() >= Duration::from_secs(10));
    }

    drain_timeout {
        let home = Home::new();
        let server = started(&home, &["--drain-delay", "50s", "--drain-timeout", "1s"]);
        let asked = Instant::now();
        server.signal("TERM");
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(1), "it did not finish: {log}");
        assert!(asked.elapsed() < DEADLINE / 2);
    }
}
