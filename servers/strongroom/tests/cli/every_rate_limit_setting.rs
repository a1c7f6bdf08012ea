//! Every documented setting of a rate limit server exists as a flag and changes what the real process does.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::every_setting::{certificates, outside_address, settings};
use crate::harness::{DEADLINE, Home, Said, Server, eventually, free_port, runtime};
use crate::judges::address;
use crate::rate_limit_ports::{EMPTY_MESSAGE, INVALID_ARGUMENT, call_worked_on, held, rls, rls_call, whole};
use crate::rate_limits::{RULES, asks, exchange, resp, status, url};

const PORTS: [&str; 4] = ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"];

#[test]
fn every_documented_setting_of_rate_limits_is_tested_here_and_has_a_flag() {
    let mut documented: Vec<&str> = ratelimit_server::settings::table().map(|setting| setting.key).collect();
    let mut tested = TESTED.to_vec();
    documented.sort_unstable();
    tested.sort_unstable();
    assert_eq!(documented, tested);
    let home = Home::new();
    for command in [["ratelimit", "serve"].as_slice(), &["config", "check", "ratelimit"]] {
        let help = home.run(&[command, &["--help"]].concat()).stdout;
        for setting in ratelimit_server::settings::table() {
            let flag = format!("--{}", setting.flag());
            assert!(help.contains(&flag), "{command:?} lacks {flag}");
        }
    }
}

/// `ratelimit serve` with these flags, on free ports where they name none.
fn serve(home: &Home, flags: &[&str]) -> Result<Server, Said> {
    let mut arguments = vec!["ratelimit", "serve", "--json"];
    for flag in PORTS {
        if !flags.contains(&flag) {
            arguments.extend([flag, "127.0.0.1:0"]);
        }
    }
    arguments.extend(flags);
    Server::spawn(&mut home.command(&arguments))
}

fn started(home: &Home, flags: &[&str]) -> Server {
    serve(home, flags).unwrap_or_else(|said| panic!("{flags:?}: {said:?}"))
}

/// The same with [`RULES`].
fn limited(home: &Home, flags: &[&str]) -> Server {
    let rules = home.write("rules.yaml", RULES);
    started(home, &[&["--rules", &rules], flags].concat())
}

/// The reason why a start with these flags fails.
fn refused(home: &Home, flags: &[&str]) -> String {
    match serve(home, flags) {
        Ok(server) => panic!("{flags:?} started: {}", server.stop()),
        Err(said) => {
            let line: serde_json::Value =
                serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
            line["error"].as_str().expect("a reason").to_owned()
        }
    }
}

/// The head of the answer to a check that is denied or not.
fn head(server: &Server, headers: &str) -> String {
    let place = address(server, "ratelimit_url").to_string();
    let path = "/v1/check?domain=shop&client_ip";
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}connection: close\r\n\r\n");
    let answer = exchange(&place, &request, |_| false);
    answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase()
}

/// How many of four checks that name their client in this header pass.
fn passed(server: &Server, header: impl Fn(u32) -> String) -> usize {
    (0..4).filter(|number| head(server, &header(*number)).starts_with("http/1.1 200")).count()
}

/// A call of Envoy's protocol that no message comes for.
fn never_asked(server: &Server) -> String {
    let (_kept, body) = held();
    runtime().block_on(rls_call(rls(server), None, body)).expect("a status")
}

fn check_by_command(home: &Home, server: &Server, place: &str, flags: &[&str]) -> Said {
    let url = if place.is_empty() { url(server).to_owned() } else { place.to_owned() };
    let check =
        ["ratelimit", "check", "shop", "client_ip=192.0.2.1", "--timeout", "20s", "--json", "--url", &url];
    home.run(&[check.as_slice(), flags].concat())
}

fn answers(home: &Home, server: &Server) -> bool {
    check_by_command(home, server, "", &[]).code == 0
}

settings! {
    rules {
        let home = Home::new();
        let without = started(&home, &[]);
        assert_eq!([0; 4].map(|_| asks(&without, "192.0.2.1")), [200; 4]);
        let first = home.write("rules.yaml", RULES);
        let second = home.write("partners.toml", "domain = \"partners\"\n[[descriptors]]\nkey = \"client_ip\"\nlimit = \"1/week\"\n");
        let with = started(&home, &["--rules", &first, "--rules", &second]);
        assert_eq!([0; 4].map(|_| asks(&with, "192.0.2.1")), [200, 200, 200, 429]);
        let partner = || status(&with, "/v1/check?domain=partners&client_ip=192.0.2.1", "");
        assert_eq!([0; 2].map(|_| partner()), [200, 429]);
        assert!(refused(&home, &["--rules", "missing.yaml"]).contains("missing.yaml"));
    }

    rls_listen {
        let place = free_port().to_string();
        let server = started(&Home::new(), &["--rls-listen", &place]);
        assert_eq!(server.ready["rls_url"], format!("http://{place}"));
        let called = runtime().block_on(rls_call(place, None, whole(EMPTY_MESSAGE)));
        assert_eq!(called.as_deref(), Ok(INVALID_ARGUMENT));
    }

    http_listen {
        let place = free_port().to_string();
        let server = started(&Home::new(), &["--http-listen", &place]);
        assert_eq!(url(&server), format!("http://{place}"));
        assert_eq!(asks(&server, "192.0.2.1"), 200);
    }

    resp_listen {
        let place = free_port().to_string();
        let server = started(&Home::new(), &["--resp-listen", &place]);
        assert_eq!(server.ready["resp_addr"], place.as_str());
        assert_eq!(resp(&server, "PING\r\n", 1), ["+PONG"]);
    }

    metrics {
        let place = free_port().to_string();
        let home = Home::new();
        let server = started(&home, &["--metrics", &place]);
        assert_eq!(server.metrics_url(), format!("http://{place}"));
        assert_eq!(home.json(&["health", &format!("http://{place}/metrics")])["ready"], true);
    }

    insecure_metrics {
        let home = Home::new();
        assert!(refused(&home, &["--metrics", "0.0.0.0:0"]).contains("--insecure-metrics"));
        started(&home, &["--metrics", "0.0.0.0:0", "--insecure-metrics"]).stop();
    }

    token {
        let home = Home::new();
        let token = home.write("check.token", "of-checks\n");
        assert_eq!(asks(&started(&home, &[]), "192.0.2.1"), 200);
        let server = started(&home, &["--token-file", &token]);
        assert_eq!(asks(&server, "192.0.2.1"), 401);
        assert_eq!(check_by_command(&home, &server, "", &["--token-file", &token]).code, 0);
        let empty = home.write("empty.token", "\n");
        assert!(refused(&home, &["--token-file", &empty]).contains("token"));
    }

    admin_token {
        let home = Home::new();
        let token = home.write("admin.token", "of-admins\n");
        let list = |server: &Server| home.run(&["ratelimit", "rules", "list", "--url", url(server), "--token-file", &token]).code;
        assert_eq!(list(&started(&home, &[])), 6);
        assert_eq!(list(&started(&home, &["--admin-token-file", &token])), 0);
    }

    engine {
        let home = Home::new();
        let memory = limited(&home, &["--engine", "memory"]);
        assert_eq!([0; 4].map(|_| asks(&memory, "192.0.2.1")), [200, 200, 200, 429]);
        assert!(refused(&home, &["--engine", "elsewhere"]).contains("engine"));
    }

    keys {
        const KEYS: usize = 4_000;
        let home = Home::new();
        let overflowed = |flags: &[&str]| {
            let server = limited(&home, flags);
            let commands: String = (0..KEYS).map(|key| format!("CL.THROTTLE key{key} 0 1 3600\r\n")).collect();
            let told = resp(&server, &commands, 6 * KEYS);
            let denied = told.chunks(6).filter(|reply| reply[1] == ":1").count();
            let name = "rate_limit_overflowed_charges_total{table=\"ad_hoc\"}";
            // Counted together is counted all the same: published a moment later.
            let room = eventually("the size is told", || server.metric("rate_limit_room_keys"));
            if room < KEYS as f64 {
                eventually("keys without room are counted", || server.metric(name).filter(|count| *count > 0.0));
            }
            (room, denied)
        };
        let (small, _) = overflowed(&["--keys", "64"]);
        assert!((64.0..4_000.0).contains(&small), "{small}");
        let (ample, denied) = overflowed(&[]);
        assert!(ample >= 100_000.0, "{ample}");
        assert_eq!(denied, 0, "every key has room for its first request");
        assert!(refused(&home, &["--keys", "0"]).contains("keys"));
    }

    trusted_proxies {
        let home = Home::new();
        let named = |number: u32| format!("x-forwarded-for: 203.0.113.{number}\r\n");
        assert_eq!(passed(&limited(&home, &[]), named), 3, "one client, whatever it writes");
        assert_eq!(passed(&limited(&home, &["--trusted-proxies", "127.0.0.0/8,::1/128"]), named), 4);
        assert_eq!(passed(&limited(&home, &["--trusted-proxies", "192.0.2.0/24"]), named), 3, "nobody whom it trusts");
        assert!(refused(&home, &["--trusted-proxies", "somewhere"]).contains("trusted_proxies"));
    }

    forwarded_header {
        let home = Home::new();
        let trusting = ["--trusted-proxies", "127.0.0.0/8", "--forwarded-header", "forwarded"];
        assert_eq!(passed(&limited(&home, &trusting), |number| format!("forwarded: for=203.0.113.{number}\r\n")), 4);
        assert_eq!(passed(&limited(&home, &trusting), |number| format!("x-forwarded-for: 203.0.113.{number}\r\n")), 3);
        assert!(refused(&home, &["--forwarded-header", "x-real-ip"]).contains("forwarded_header"));
    }

    headers {
        let home = Home::new();
        for (style, own, foreign) in [("none", false, false), ("draft10", true, false), ("github", false, true), ("draft10+github", true, true)] {
            let answer = head(&limited(&home, &["--headers", style]), "");
            assert_eq!(answer.contains("\nratelimit-policy:"), own, "{style}: {answer}");
            assert_eq!(answer.contains("\nx-ratelimit-limit:"), foreign, "{style}: {answer}");
        }
    }

    concurrent {
        let home = Home::new();
        let shed_within = |longest: Duration, flags: &[&str]| {
            let server = started(&home, flags);
            call_worked_on(&runtime(), &server, longest).is_some()
        };
        assert!(shed_within(DEADLINE, &["--concurrent", "1", "--timeout", "50s"]), "one call is worked on");
        assert!(!shed_within(Duration::from_secs(1), &[]));
    }

    timeout {
        const DEADLINE_EXCEEDED: &str = "4";
        let hasty = started(&Home::new(), &["--timeout", "100ms"]);
        let asked = Instant::now();
        assert_eq!(never_asked(&hasty), DEADLINE_EXCEEDED);
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        let patient = started(&Home::new(), &["--timeout", "1s"]);
        let asked = Instant::now();
        assert_eq!(never_asked(&patient), DEADLINE_EXCEEDED);
        assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(refused(&Home::new(), &["--timeout", "0s"]).contains("timeout"));
    }

    log_level {
        let home = Home::new();
        let log = |level: &str| started(&home, &["--log-level", level]).stop();
        assert_eq!((log("off"), log("warn")), (String::new(), String::new()));
        assert!(log("info").contains("asked to end"));
        assert!(refused(&home, &["--log-level", "loud"]).contains("log_level"));
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
            let mut arguments = vec!["ratelimit", "serve", "--log-to", target];
            arguments.extend(PORTS.into_iter().flat_map(|flag| [flag, "127.0.0.1:0"]));
            let mut child = home.command(&arguments).spawn().expect("it starts");
            let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
            let mut said = String::new();
            while !said.contains("metrics ") && stdout.read_line(&mut said).expect("text") > 0 {}
            let pid = child.id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
            let mut log = String::new();
            stdout.read_to_string(&mut said).expect("text");
            child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
            assert!(child.wait().expect("it ends").success(), "{said}{log}");
            (said.contains("asked to end"), log.contains("asked to end"))
        };
        assert_eq!(both("stdout"), (true, false));
        assert_eq!(both("stderr"), (false, true));
    }

    tls_cert {
        let home = Home::new();
        let files = certificates();
        let (certificate, key, ca) =
            (home.write("cert.pem", files.certificate), home.write("key.pem", files.key), home.write("ca.pem", files.ca));
        let server = limited(&home, &["--tls-cert", &certificate, "--tls-key", &key]);
        assert!(url(&server).starts_with("https://"));
        assert!(server.ready["rls_url"].as_str().is_some_and(|url| url.starts_with("https://")));
        assert_eq!(check_by_command(&home, &server, "", &["--tls-ca", &ca]).code, 0);
        let plain = url(&server).replace("https://", "http://");
        assert_eq!(check_by_command(&home, &server, &plain, &[]).code, 7);
        assert_ne!(resp_in_plain(&server), "+PONG\r\n");
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
        let files = [
            ("cert.pem", ours.certificate), ("key.pem", ours.key), ("ca.pem", ours.ca),
            ("client.pem", theirs.certificate), ("client.key", theirs.key), ("client-ca.pem", theirs.ca),
        ];
        let [certificate, key, ca, client, client_key, client_ca] = files.map(|(name, pem)| home.write(name, pem));
        let server = limited(&home, &["--tls-cert", &certificate, "--tls-key", &key, "--client-ca", &client_ca]);
        let code = |flags: &[&str]| check_by_command(&home, &server, "", &[&["--tls-ca", &ca], flags].concat()).code;
        assert_eq!(code(&[]), 7, "a client without a certificate is refused");
        assert_eq!(code(&["--tls-cert", &client, "--tls-key", &client_key]), 0);
        assert_eq!(code(&["--tls-cert", &certificate, "--tls-key", &key]), 7, "one of another authority too");
    }

    insecure_no_tls {
        let home = Home::new();
        let everywhere = ["--http-listen", "0.0.0.0:0", "--insecure-no-auth"];
        assert!(refused(&home, &everywhere).contains("--insecure-no-tls"));
        let server = limited(&home, &[everywhere.as_slice(), &["--insecure-no-tls"]].concat());
        assert!(url(&server).starts_with("http://127.0.0.1:"), "an address to connect to: {}", url(&server));
        assert!(answers(&home, &server));
    }

    insecure_no_auth {
        let home = Home::new();
        let everywhere = ["--http-listen", "0.0.0.0:0", "--insecure-no-tls", "--drain-delay", "0s"];
        assert!(refused(&home, &everywhere).contains("--token-file"));
        assert!(answers(&home, &limited(&home, &[everywhere.as_slice(), &["--insecure-no-auth"]].concat())));
        let token = home.write("check.token", "of-checks\n");
        started(&home, &[everywhere.as_slice(), &["--token-file", &token]].concat()).stop();
    }

    connections {
        let home = Home::new();
        let one = limited(&home, &["--connections", "1"]);
        let held = TcpStream::connect(address(&one, "ratelimit_url")).expect("accepted");
        assert!(!answers(&home, &one), "the one connection is taken");
        drop(held);
        eventually("the connection is free again", || answers(&home, &one).then_some(()));
        let many = limited(&home, &[]);
        let _held = TcpStream::connect(address(&many, "ratelimit_url")).expect("accepted");
        assert!(answers(&home, &many));
    }

    connections_per_address {
        let Some(outside) = outside_address() else {
            println!("skipped: needs an address of this machine that is not loopback, which is spared");
            return;
        };
        let home = Home::new();
        let everywhere = ["--http-listen", "0.0.0.0:0", "--insecure-no-tls", "--insecure-no-auth"];
        let server = started(&home, &[everywhere.as_slice(), &["--connections-per-address", "1"]].concat());
        let port = address(&server, "ratelimit_url").port();
        let answered = |ip: IpAddr| {
            let url = format!("http://{}", SocketAddr::new(ip, port));
            check_by_command(&home, &server, &url, &[]).code == 0
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
        let long = "x".repeat(6_000);
        let rls_status = |server: &Server| runtime().block_on(rls_call(rls(server), Some(long.clone()), whole(EMPTY_MESSAGE)));
        let http_status = |server: &Server| status(server, "/v1/check?domain=shop", &format!("x-long: {long}\r\n"));
        let ample = started(&home, &[]);
        assert_eq!((rls_status(&ample).as_deref(), http_status(&ample)), (Ok(INVALID_ARGUMENT), 200));
        let tight = started(&home, &["--header-bytes", "4KiB"]);
        assert_ne!(rls_status(&tight).as_deref(), Ok(INVALID_ARGUMENT));
        assert_eq!(http_status(&tight), 431);
    }

    drain_delay {
        let home = Home::new();
        let server = limited(&home, &["--drain-delay", "5s"]);
        let asked = Instant::now();
        server.signal("TERM");
        let metrics = server.metrics_url().to_owned();
        eventually("the probe fails first", || (home.run(&["health", &metrics]).code == 7).then_some(()));
        assert_eq!(asks(&server, "192.0.2.1"), 200, "until then it decides");
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(asked.elapsed() >= Duration::from_secs(5));
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

/// What a PING without TLS is answered with, until the connection ends.
fn resp_in_plain(server: &Server) -> String {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(address(server, "resp_addr")).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.write_all(b"PING\r\n").expect("sent");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
