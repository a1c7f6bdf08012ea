//! Counters in a file: what was admitted stays admitted, whatever ends the process.

use crate::harness::{Home, Server};
use crate::rate_limits::{asks, reloaded, serve};

/// A tenth of the limit is written ahead: three cells that a process which is killed may waste.
const LIMIT: u64 = 30;
const AHEAD: u64 = 3;
const RULES: &str =
    "domain: shop\ndescriptors:\n  - key: client_ip\n    name: per-client\n    limit: 30/week\n";

fn durable(home: &Home, rules: &str) -> Server {
    let engine = format!("redb:{}", home.path("counters.db").display());
    serve(home, &["--rules", rules, "--engine", &engine])
}

fn admitted(server: &Server, most: u64) -> u64 {
    (0..most).filter(|_| asks(server, "192.0.2.1") == 200).count() as u64
}

#[test]
fn however_often_the_server_is_killed_a_client_gets_its_limit_once() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let (mut total, mut kills) = (0, 0);
    for spend in [5, 1, 8, 2, 4] {
        let server = durable(&home, &rules);
        total += admitted(&server, spend);
        assert_eq!(asks(&server, &format!("192.0.2.{}", 100 + kills)), 200, "others have their own");
        server.signal("KILL");
        server.wait();
        kills += 1;
    }
    let server = durable(&home, &rules);
    total += admitted(&server, LIMIT + 1);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    assert!(total <= LIMIT, "{total} admitted of {LIMIT}");
    assert!(total + kills * AHEAD >= LIMIT, "{total} admitted of {LIMIT} with {kills} kills");
    server.signal("KILL");
    server.wait();
    let server = durable(&home, &rules);
    assert_eq!(asks(&server, "192.0.2.1"), 429, "a week has not passed");
    server.stop();
}

#[test]
fn a_server_that_is_stopped_in_order_wastes_nothing() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let mut total = 0;
    for spend in [1, 4, 9] {
        let server = durable(&home, &rules);
        total += admitted(&server, spend);
        server.stop();
    }
    let server = durable(&home, &rules);
    assert_eq!(total + admitted(&server, LIMIT), LIMIT);
    server.stop();
}

#[test]
fn rules_are_read_anew_while_the_counters_are_in_a_file_and_keep_what_was_left() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let server = durable(&home, &rules);
    assert_eq!(admitted(&server, 25), 25);
    home.write("rules.yaml", format!("{RULES}  - key: banned\n    limit: deny_all\n").replace("30/", "100/"));
    reloaded(&server, "done", 1.0);
    assert_eq!(admitted(&server, 9), 5, "a larger limit is no second helping");
    server.signal("HUP");
    reloaded(&server, "done", 2.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    // A log is none of a file's: the rules of before stay.
    home.write("rules.yaml", RULES.replace("30/week", "{ algorithm: sliding_log, count: 5, per: week }"));
    reloaded(&server, "refused", 1.0);
    assert_eq!(asks(&server, "192.0.2.1"), 429);
    assert_eq!(server.metric("rate_limit_store_degraded"), Some(0.0));
    assert_eq!(server.metric("rate_limit_store_errors_total{reason=\"error\"}"), Some(0.0));
    server.signal("KILL");
    server.wait();
    home.write("rules.yaml", RULES.replace("30/week", "50/week"));
    let server = durable(&home, &rules);
    assert_eq!(asks(&server, "192.0.2.1"), 429, "restarted with other rules");
    server.stop();
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_the_server_does_not_start() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let server = durable(&home, &rules);
    let engine = format!("redb:{}", home.path("counters.db").display());
    let ports = ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"];
    let ports = ports.map(|flag| format!("{flag}=127.0.0.1:0"));
    let refused = |code: i32, engine: &str, rules: &str| {
        let mut arguments = vec!["ratelimit", "serve", "--rules", rules, "--engine", engine];
        arguments.extend(ports.iter().map(String::as_str));
        home.refusal(code, &arguments)["message"].as_str().expect("a message").to_owned()
    };
    assert!(refused(1, &engine, &rules).contains("in use"));
    server.stop();
    assert!(refused(2, "redb:", &rules).contains("engine"));
    let log = RULES.replace("30/week", "{ algorithm: sliding_log, count: 5, per: week }");
    let log = home.write("log.yaml", log);
    assert!(refused(2, &engine, &log).contains("shop.client_ip"));
    let foreign = format!("redb:{}", home.write("foreign.db", "something else entirely"));
    assert!(refused(1, &foreign, &rules).contains("foreign.db"));
}
