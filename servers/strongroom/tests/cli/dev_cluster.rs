//! `dev --nodes 3`: a cluster in front of one's eyes.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Home, Server, eventually, free_ports, make_vault};

const THREE: [&str; 7] = ["dev", "--nodes", "3", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];

pub fn three(home: &Home, more: &[&str]) -> Server {
    Server::start(home, &[&THREE, more].concat())
}

pub fn nodes(line: &Value) -> &[Value] {
    line["nodes"].as_array().expect("a list")
}

pub fn pids(line: &Value) -> Vec<u64> {
    nodes(line).iter().map(|node| node["pid"].as_u64().expect("a number")).collect()
}

/// Who leads now; the line says at most who did.
fn leader<'a>(home: &Home, line: &'a Value) -> &'a Value {
    assert!(nodes(line).iter().filter(|node| node["role"] == "leader").count() <= 1, "two lead: {line}");
    eventually("somebody leads", || {
        let leader_id = home.json(&["ledger", "cluster", "status"])["leader_id"].clone();
        nodes(line).iter().find(|node| node["id"] == leader_id)
    })
}

/// What nobody has waited for yet is not running either.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

pub fn kill(pid: u64) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

pub fn dev_file(home: &Home) -> Value {
    let content = std::fs::read(home.path("run/strongroom/dev.json")).expect("the file");
    serde_json::from_slice(&content).expect("JSON")
}

/// Waits until all answer and whoever is asked knows who leads; answers who.
pub fn await_all(home: &Home) -> Value {
    // One that is back answers before it has heard of a leader.
    eventually("all nodes answer, and whoever is asked knows the leader", || {
        let status = home.json(&["ledger", "cluster", "status"]);
        let members = status["members"].as_array().expect("a list");
        let all_answer = members.iter().all(|member| member["answers"] == true);
        Some(status["leader_id"].clone()).filter(|leader| all_answer && !leader.is_null())
    })
}

fn put(home: &Home, value: &str) {
    home.json(&["ledger", "put", "acme/prod", "door", value]);
}

fn verified(home: &Home) -> String {
    let said = home.run(&["ledger", "get", "acme/prod", "door", "--verify"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

#[test]
fn three_nodes_go_on_when_the_leader_is_killed_and_it_comes_back() {
    let home = Home::new();
    let server = three(&home, &["--restart-after", "2s"]);
    let ready = server.ready.clone();
    assert_eq!(dev_file(&home), ready);
    assert_eq!(ready["pid"], server.child.id());
    assert_eq!((nodes(&ready).len(), server.url().split(',').count()), (3, 3));
    for (place, node) in nodes(&ready).iter().enumerate() {
        assert_eq!(node["name"], format!("node-{}", place + 1));
        assert_ne!(node["pid"], ready["pid"], "a process of its own");
        assert!(Path::new(node["data_dir"].as_str().expect("a path")).is_dir(), "{node}");
        assert!(server.url().contains(node["url"].as_str().expect("a URL")), "{node}");
        // Ready it was; whether it is depends on whether it hears of a leader just now.
        let probe = node["metrics_url"].as_str().expect("a URL");
        eventually("it is ready", || (home.run(&["health", probe]).code == 0).then_some(()));
    }
    make_vault(&home);
    put(&home, "locked");
    let killed = leader(&home, &ready)["pid"].as_u64().expect("a number");
    kill(killed);
    put(&home, "open");
    assert_eq!(verified(&home), "open");
    await_all(&home);
    let now = eventually("dev.json has the new process", || {
        Some(dev_file(&home)).filter(|now| !pids(now).contains(&killed))
    });
    let data = ready["data_dir"].as_str().expect("a path").to_owned();
    let log = server.stop();
    assert!(log.contains(&format!("(pid {killed}) ended: signal: 9")), "{log}");
    assert!(log.contains("is back"), "{log}");
    for pid in [pids(&ready), pids(&now)].concat() {
        assert!(!runs(pid), "{pid} was left behind");
    }
    assert!(!Path::new(&data).exists(), "data without --data is gone");
    assert!(!home.path("run/strongroom/dev.json").exists());
}

#[test]
fn the_data_of_three_nodes_survives_a_restart_and_belongs_to_three() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let server = three(&home, &["--data", &data]);
    let ready = server.ready.clone();
    make_vault(&home);
    put(&home, "locked");
    let before = home.json(&["ledger", "vault", "show", "acme/prod"]);
    assert_eq!(before["version"], 1, "whoever answers has caught up");
    server.stop();
    for other in [["--nodes", "1"], ["--nodes", "5"]] {
        let refusal = home.refusal(2, &[&["dev", "--data", &data], other.as_slice()].concat());
        assert!(refusal["hint"].as_str().is_some_and(|hint| hint.contains("--nodes 3")), "{refusal}");
    }
    let server = three(&home, &["--data", &data]);
    for name in ["ledger_url", "vkey", "token_file"] {
        assert_eq!(server.ready[name], ready[name], "{name}");
    }
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"]), before, "the same roots");
    assert_eq!(verified(&home), "locked");
    put(&home, "open");
    assert_eq!(verified(&home), "open");
    server.stop();
}

#[test]
fn no_node_outlives_the_dev_that_started_it() {
    let home = Home::new();
    let mut server = three(&home, &[]);
    let pids = pids(&server.ready);
    assert!(pids.iter().all(|pid| runs(*pid)));
    server.child.kill().expect("killed");
    server.child.wait().expect("it ends");
    for pid in pids {
        eventually("the node ends", || (!runs(pid)).then_some(()));
    }
}

#[test]
fn a_node_that_is_to_stay_away_stays_away_and_the_others_go_on() {
    let home = Home::new();
    let server = three(&home, &["--restart-after", "never"]);
    make_vault(&home);
    let killed = pids(&server.ready)[0];
    kill(killed);
    put(&home, "open");
    assert_eq!(verified(&home), "open");
    assert_eq!(dev_file(&home), server.ready);
    let log = server.stop();
    assert!(log.contains("stays away: --restart-after never"), "{log}");
}

/// `[ratelimit]` of the file and variables were read by nobody, without a word.
#[test]
fn a_cluster_says_which_settings_of_rate_limits_it_ignores() {
    let home = Home::new();
    let file = home.write("strongroom.toml", "[ratelimit]\nkeys = 500\n[ledger]\npoll = \"300ms\"\n");
    // It ends before a node starts: the warning comes first.
    let ends = [&THREE[..], &["--name", "mine"]].concat();
    let said = home.run(&[&ends[..], &["--config", &file]].concat());
    assert!(said.stderr.contains("ignored: keys (file "), "{said:?}");
    assert!(!home.run(&ends).stderr.contains("ignored"), "nothing is set");
    let file = home.write("wrong.toml", "[ratelimit]\nkees = 500\n");
    let said = home.run(&[&ends[..], &["--config", &file]].concat());
    assert!(said.stderr.contains("ignored: ") && said.stderr.contains("ratelimit.kees"), "{said:?}");
}

#[test]
fn a_cluster_that_cannot_start_says_which_node_and_why() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("an address").to_string();
    let [a, b, c] = free_ports();
    std::fs::create_dir(home.path("data")).expect("a directory");
    home.write(
        "data/addresses",
        format!(
            "node-1 127.0.0.1:0 127.0.0.1:{a} 127.0.0.1:0\nnode-2 {busy} 127.0.0.1:{b} 127.0.0.1:0\n\
             node-3 127.0.0.1:0 127.0.0.1:{c} 127.0.0.1:0\n"
        ),
    );
    let data = home.path("data").display().to_string();
    for (arguments, reasons) in [
        (vec!["--data", &data], ["node-2", "--listen"]),
        (vec!["--name", "mine"], ["dev --nodes", "--name"]),
        (vec!["--bootstrap", "3"], ["dev --nodes", "--bootstrap"]),
        (vec!["--log-to", "stdout"], ["several nodes", "--log-to"]),
    ] {
        let said = home.run(&[&THREE, arguments.as_slice(), &["--json"]].concat());
        assert!(matches!(said.code, 1 | 2), "{arguments:?}: {said:?}");
        let line: Value = serde_json::from_str(&said.stdout).expect("one line of JSON");
        assert_eq!(line["ready"], false, "{arguments:?}");
        let error = line["error"].as_str().expect("a reason");
        assert!(reasons.iter().all(|reason| error.contains(reason)), "{arguments:?}: {error}");
    }
    assert_eq!(home.run(&["dev", "--nodes", "2"]).code, 2);
}
