//! Rate limits, served and asked.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Home, Server, eventually};

/// Three for each client in a time that no test reaches, and what else a test wants.
pub const RULES: &str =
    "domain: shop\ndescriptors:\n  - key: client_ip\n    name: per-client\n    limit: 3/week\n";

/// `ratelimit serve` on free ports.
pub fn serve(home: &Home, flags: &[&str]) -> Server {
    let ports = ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"];
    let mut arguments = vec!["ratelimit", "serve"];
    arguments.extend(ports.into_iter().flat_map(|flag| [flag, "127.0.0.1:0"]));
    arguments.extend(flags);
    Server::start(home, &arguments)
}

pub fn url(server: &Server) -> &str {
    server.ready["ratelimit_url"].as_str().expect("a URL")
}

/// Sends bytes and reads what comes back until `ends` or the end.
pub fn exchange(address: &str, bytes: &str, ends: impl Fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(bytes.as_bytes()).expect("sent");
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !ends(&answer) {
        match stream.read(&mut buffer).expect("in time") {
            0 => break,
            count => answer.push_str(std::str::from_utf8(&buffer[..count]).expect("text")),
        }
    }
    answer
}

/// The status of a GET.
pub fn status(server: &Server, path: &str, headers: &str) -> u16 {
    let address = url(server).strip_prefix("http://").expect("plain");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}connection: close\r\n\r\n");
    let answer = exchange(address, &request, |_| false);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// What is answered to commands of Redis' protocol, one a line.
pub fn resp(server: &Server, commands: &str, lines: usize) -> Vec<String> {
    let address = server.ready["resp_addr"].as_str().expect("an address");
    let answer = exchange(address, commands, |answer| answer.matches("\r\n").count() >= lines);
    answer.lines().map(str::to_owned).collect()
}

pub fn asks(server: &Server, client: &str) -> u16 {
    status(server, &format!("/v1/check?domain=shop&client_ip={client}"), "")
}

/// Waits until files were put in force, or refused, so many times.
pub fn reloaded(server: &Server, result: &str, times: f64) {
    let name = format!("rate_limit_reloads_total{{result=\"{result}\"}}");
    eventually("the rules are read anew", || server.metric(&name).filter(|count| *count >= times));
}

#[test]
fn dev_lets_three_requests_a_minute_go_and_denies_the_fourth() {
    let home = Home::new();
    let server = Server::dev(&home);
    let ask = || status(&server, "/v1/check?domain=demo", "");
    assert_eq!([ask(), ask(), ask(), ask()], [200, 200, 200, 429]);
    assert!(server.ready["rls_url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")));
    // limited, limit, remaining, retry after, reset after
    let allowed = resp(&server, "CL.THROTTLE user:1 0 1 3600 1\r\n", 6);
    assert_eq!(allowed[..4], ["*5", ":0", ":1", ":0"], "{allowed:?}");
    let denied = resp(&server, "CL.THROTTLE user:1 0 1 3600 1\r\n", 6);
    assert_eq!(denied[..4], ["*5", ":1", ":1", ":0"], "{denied:?}");
    server.stop();
}

#[test]
fn commands_find_dev_and_a_denied_check_is_exit_code_4_until_its_key_is_reset() {
    let home = Home::new();
    let server = Server::dev(&home);
    let check = ["ratelimit", "check", "demo", "client_ip=192.0.2.1"];
    for remaining in [2, 1, 0] {
        let answer = home.json(&check);
        assert_eq!((&answer["allowed"], &answer["remaining"]), (&true.into(), &remaining.into()), "{answer}");
        assert_eq!((&answer["rule"], &answer["limit"]), (&"demo".into(), &3.into()));
    }
    let denied = home.run(&[&check[..], &["--json"]].concat());
    assert_eq!((denied.code, denied.stderr.as_str()), (4, ""), "{denied:?}");
    let answer: serde_json::Value = serde_json::from_str(&denied.stdout).expect("JSON");
    assert_eq!(answer["allowed"], false);
    assert!(answer["retry_after_ms"].as_u64().is_some_and(|ms| (1..=20_000).contains(&ms)), "{answer}");
    let shown = home.run(&check);
    assert_eq!(shown.code, 4);
    assert!(shown.stdout.contains("denied") && shown.stdout.contains("retry after"), "{shown:?}");
    let looked = home.run(&[&check[..], &["--hits", "0"]].concat());
    assert_eq!(looked.code, 4, "nothing is left, so another hit would not fit: {looked:?}");

    let top = home.json(&["ratelimit", "top"]);
    assert_eq!(top["top"][0]["entries"][0]["value"], "192.0.2.1", "{top}");
    assert!(home.run(&["ratelimit", "top"]).stdout.contains("client_ip=192.0.2.1"));
    assert_eq!(home.json(&["ratelimit", "reset", "demo", "client_ip=192.0.2.1"])["reset"], 1);
    assert_eq!(home.json(&check)["remaining"], 2);
    home.refusal(3, &["ratelimit", "reset", "nowhere", "client_ip=192.0.2.1"]);
    let unknown = home.json(&["ratelimit", "check", "nowhere", "client_ip=192.0.2.1"]);
    assert_eq!((&unknown["allowed"], &unknown["rule"]), (&true.into(), &serde_json::Value::Null));
    server.stop();
}

#[test]
fn validate_prints_the_rules_and_names_the_line_of_a_mistake() {
    let home = Home::new();
    let good = home.write("good.yaml", RULES);
    let document = home.json(&["ratelimit", "rules", "validate", &good]);
    let rule = &document["rules"][0];
    assert_eq!(document["valid"], true);
    assert_eq!((&rule["name"], &rule["limit"]), (&"per-client".into(), &"3 per week, burst 3".into()));
    let table = home.run(&["ratelimit", "rules", "validate", &good]);
    assert!(table.code == 0 && table.stdout.contains("3 per week, burst 3"), "{table:?}");

    let bad = home.write("bad.yaml", RULES.replace("3/week", "3/fortnight"));
    let refusal = home.refusal(2, &["ratelimit", "rules", "validate", &good, &bad]);
    assert_eq!((&refusal["line"], &refusal["file"]), (&5.into(), &bad.as_str().into()), "{refusal}");
    let said = home.run(&["ratelimit", "rules", "validate", &bad]);
    assert!(said.code == 2 && said.stderr.contains(&format!("{bad}:5: ")), "{said:?}");
    // A server does not start with it either, and says the same.
    let ports = ["--rls-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--resp-listen=127.0.0.1:0"];
    let serve = [&["ratelimit", "serve", "--metrics=127.0.0.1:0", "--rules", &bad], &ports[..]].concat();
    let refused = home.refusal(2, &serve);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("bad.yaml:5: ")), "{refused}");
}

/// What a server with a file of counters refuses, `validate` called valid.
#[test]
fn validate_refuses_what_a_server_with_that_engine_would_and_names_the_line() {
    let home = Home::new();
    let rules =
        format!("{RULES}  - key: login\n    limit: {{algorithm: sliding_log, count: 3, per: hour}}\n");
    let file = home.write("rules.yaml", &rules);
    let validate = ["ratelimit", "rules", "validate", &file];
    assert_eq!(home.json(&validate)["rules"].as_array().map(Vec::len), Some(2));
    let counters = home.path("counters.db");
    let engine = format!("--engine=redb:{}", counters.display());
    let refusal = home.refusal(2, &[&validate[..], &[&engine]].concat());
    assert_eq!((&refusal["line"], &refusal["file"]), (&7.into(), &file.as_str().into()), "{refusal}");
    assert!(!counters.exists(), "it looks at rules only");
    let ports = ["--rls-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--resp-listen=127.0.0.1:0"];
    let serve =
        [&["ratelimit", "serve", "--metrics=127.0.0.1:0", "--rules", &file, &engine], &ports[..]].concat();
    let refused = home.refusal(2, &serve);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("rules.yaml:7: ")), "{refused}");

    assert_eq!(home.run(&[&validate[..], &["--engine", "postgres"]].concat()).code, 2);
    assert_eq!(home.run(&[&validate[..], &["--keys", "0"]].concat()).code, 2);
    let room = |keys: &str| {
        home.json(&[&validate[..], &["--keys", keys]].concat())["room_bytes"].as_u64().expect("bytes")
    };
    let (bucket, log) = (1_450_000 * 16, 1_450_000 * (2 + 3) * 8);
    // A table has some kilobytes more than its slots.
    assert_eq!(room("1000000") / 1_000_000, (bucket + log + 2 * (4 << 20)) / 1_000_000);
    let large = home.write("large.yaml", rules.replace("count: 3", "count: 64"));
    let refusal = home.refusal(2, &["ratelimit", "rules", "validate", &large, "--keys", "30000000"]);
    assert_eq!((&refusal["line"], &refusal["file"]), (&7.into(), &large.as_str().into()), "{refusal}");

    let idle = home.write("idle.yaml", "domain: a\ndescriptors:\n  - key: b\n    shadow_mode: true\n");
    let document = home.json(&["ratelimit", "rules", "validate", &idle]);
    assert!(
        document["warnings"][0].as_str().is_some_and(|text| text.contains("idle.yaml:4: shadow_mode")),
        "{document}"
    );
    let said = home.run(&["ratelimit", "rules", "validate", &idle]);
    assert!(said.stderr.contains("warning: ") && said.code == 0, "{said:?}");
}

#[test]
fn the_preset_is_a_file_that_a_server_takes_and_dev_begins_with_it() {
    let home = Home::new();
    let file = home.path("preset.yaml").display().to_string();
    assert_eq!(home.json(&["ratelimit", "rules", "preset", "-o", &file])["file"], file.as_str());
    assert_eq!(home.run(&["ratelimit", "rules", "preset", "-o", &file]).code, 1, "it is there already");
    let printed = home.run(&["ratelimit", "rules", "preset"]).stdout;
    assert_eq!(std::fs::read_to_string(&file).expect("written"), printed);
    let documented = std::fs::read_to_string("../../docs/ratelimit.md").expect("the documentation");
    let validated = home.json(&["ratelimit", "rules", "validate", &file, "--engine", "redb:counters.db"]);
    for rule in validated["rules"].as_array().expect("rules") {
        let name = rule["name"].as_str().expect("a name");
        assert!(documented.contains(&format!("`{name}`")), "{name} is documented");
    }

    let server = serve(&home, &["--rules", &file]);
    let reset = || status(&server, "/v1/check?domain=accounts&action=password_reset&user=u", "");
    assert_eq!([0; 4].map(|_| reset()), [200, 200, 200, 429]);
    server.stop();

    let server = Server::dev(&home);
    let register =
        || status(&server, "/v1/check?domain=accounts&action=registration&client_ip=192.0.2.9", "");
    assert_eq!([0; 6].map(|_| register()), [200, 200, 200, 200, 200, 429]);
    server.stop();
}

#[test]
fn the_rules_in_the_documentation_are_valid() {
    let home = Home::new();
    for (heading, language, rules) in [("Rules", "yaml", 3), ("Behind Envoy", "yml", 2)] {
        let block = crate::judges::Documented::block(heading, language);
        let file = home.write("rules.yaml", block.text());
        let document = home.json(&["ratelimit", "rules", "validate", &file]);
        let listed = document["rules"].as_array().map(Vec::len);
        assert_eq!(listed, Some(rules), "{heading}: {document}");
    }
}

#[test]
fn a_changed_file_comes_into_force_and_counters_stay() {
    let home = Home::new();
    let file = home.write("rules.yaml", RULES);
    let server = serve(&home, &["--rules", &file]);
    assert_eq!([0; 4].map(|_| asks(&server, "192.0.2.1")), [200, 200, 200, 429]);
    // Another rule beside it: the counter of this one stays.
    home.write("rules.yaml", format!("{RULES}  - key: banned\n    limit: deny_all\n"));
    reloaded(&server, "done", 1.0);
    assert_eq!(status(&server, "/v1/check?domain=shop&banned=x", ""), 429);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    assert_eq!(asks(&server, "192.0.2.2"), 200);
    // A larger limit gives what it has more, and no second helping.
    home.write("rules.yaml", RULES.replace("3/week", "5/week"));
    reloaded(&server, "done", 2.0);
    let admitted = (0..8).filter(|_| asks(&server, "192.0.2.1") == 200).count();
    assert!(admitted <= 2, "{admitted} of a limit of 5, of which 3 were used");
    server.signal("HUP");
    reloaded(&server, "done", 3.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    server.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_its_line_is_in_the_log() {
    let home = Home::new();
    let file = home.write("rules.yaml", RULES);
    let server = serve(&home, &["--rules", &file]);
    assert_eq!([0; 3].map(|_| asks(&server, "192.0.2.1")), [200; 3]);
    home.write("rules.yaml", RULES.replace("3/week", "300/fortnight"));
    reloaded(&server, "refused", 1.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429, "the old limit and its counter");
    assert_eq!(asks(&server, "192.0.2.2"), 200);
    server.signal("HUP");
    reloaded(&server, "refused", 2.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    home.write("rules.yaml", RULES);
    reloaded(&server, "done", 1.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    let log = server.stop();
    assert!(log.contains("rules.yaml:5: "), "{log}");
}

#[test]
fn tokens_are_asked_for_on_every_port() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let (check, admin) = (home.write("check.token", "of-checks\n"), home.write("admin.token", "of-admins\n"));
    let tokens = ["--rules", &rules, "--token-file", &check, "--admin-token-file", &admin];
    let server = serve(&home, &tokens);
    let with = |token: &str| format!("authorization: Bearer {token}\r\n");
    let path = "/v1/check?domain=shop&client_ip=192.0.2.1";
    assert_eq!(status(&server, path, ""), 401);
    assert_eq!(status(&server, path, &with("of-checks")), 200);
    assert_eq!(status(&server, "/v1/rules", &with("of-checks")), 403);
    assert_eq!(status(&server, "/v1/rules", &with("of-admins")), 200);
    let without = resp(&server, "CL.THROTTLE a 0 1 60\r\n", 1);
    assert!(without[0].starts_with("-NOAUTH"), "{without:?}");
    let shown = resp(&server, "AUTH of-checks\r\nCL.THROTTLE a 0 1 60\r\n", 7);
    assert_eq!(shown[..3], ["+OK", "*5", ":0"], "{shown:?}");

    let at = ["--url", url(&server)];
    let list = [&["ratelimit", "rules", "list"], &at[..]].concat();
    assert_eq!(home.refusal(6, &list)["code"], "NOT_AUTHORIZED");
    let rules = home.json(&[&list[..], &["--token-file", &admin]].concat());
    assert_eq!(rules["rules"][0]["allowed"], 1, "{rules}");
    let log = server.stop();
    assert!(!log.contains("of-checks") && !log.contains("of-admins"), "{log}");
}

#[test]
fn decisions_are_metrics_by_rule_and_outcome() {
    let home = Home::new();
    let file = home.write("rules.yaml", RULES);
    let server = serve(&home, &["--rules", &file]);
    for _ in 0..5 {
        asks(&server, "192.0.2.1");
    }
    resp(&server, "CL.THROTTLE a 0 1 60\r\n", 6);
    let counted = |labels: &str, count: f64| {
        let name = format!("rate_limit_decisions_total{{{labels}}}");
        eventually(labels, || server.metric(&name).filter(|now| *now == count));
    };
    counted("rule=\"per-client\",outcome=\"allowed\"", 3.0);
    counted("rule=\"per-client\",outcome=\"denied\"", 2.0);
    counted("rule=\"ad_hoc\",outcome=\"allowed\"", 1.0);
    assert_eq!(server.metric("rate_limit_rules"), Some(1.0));
    assert_eq!(server.metric("rate_limit_overflowed_charges_total{table=\"rules\"}"), Some(0.0));
    let probe = home.run(&["health", server.metrics_url()]);
    assert_eq!(probe.code, 0, "{probe:?}");
    server.stop();
}

#[test]
fn an_address_that_others_reach_needs_tls_and_a_token() {
    let home = Home::new();
    let refusal = |flags: &[&str]| {
        let flags = [&["ratelimit", "serve", "--http-listen", "0.0.0.0:0"], flags].concat();
        home.refusal(2, &flags)["message"].as_str().expect("a message").to_owned()
    };
    assert!(refusal(&[]).contains("--insecure-no-tls"));
    assert!(refusal(&["--insecure-no-tls"]).contains("--token-file"));
    assert!(refusal(&["--metrics", "0.0.0.0:0"]).contains("TLS"));
}

#[test]
fn commands_say_when_nobody_answers() {
    let home = Home::new();
    let check = ["ratelimit", "check", "demo", "client_ip=192.0.2.1"];
    assert_eq!(home.refusal(7, &check)["code"], "NO_SERVER");
    let nobody = [&check[..], &["--url", "http://127.0.0.1:1"]].concat();
    assert_eq!(home.refusal(7, &nobody)["code"], "UNAVAILABLE");
    assert_eq!(home.run(&["ratelimit", "check", "demo", "no-value"]).code, 2);
}
