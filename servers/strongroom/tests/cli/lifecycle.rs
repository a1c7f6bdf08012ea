//! How servers start, say so, and end.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::harness::{DEADLINE, Home, Server, make_vault, vault};
use crate::load::{Check, Load};

#[test]
fn the_ready_line_says_everything_and_is_the_only_one() {
    let home = Home::new();
    let server = Server::dev(&home);
    let ready = &server.ready;
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["pid"], server.child.id());
    for name in ["version", "data_dir", "ledger_url", "token_file", "vkey", "metrics_url"] {
        assert!(ready[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {ready}");
    }
    assert_eq!((&ready["nodes"][0]["url"], &ready["nodes"][0]["pid"]), (&ready["ledger_url"], &ready["pid"]));
    assert!(ready.get("auth_url").is_none(), "only what runs");
    // `wait` checks that standard output has nothing more.
    let log = server.stop();
    assert_eq!(log.matches("the data directory is temporary").count(), 1, "{log}");
}

#[test]
fn dev_leaves_a_private_file_while_it_runs_and_nothing_afterwards() {
    let home = Home::new();
    let server = Server::dev(&home);
    let file = home.path("run/strongroom/dev.json");
    let content: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the file")).expect("JSON");
    assert_eq!(content, server.ready);
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    let data = server.ready["data_dir"].as_str().expect("a directory").to_owned();
    assert!(std::path::Path::new(&data).exists());
    server.stop();
    assert!(!file.exists(), "the file is removed");
    assert!(!std::path::Path::new(&data).exists(), "data without --data is gone");
    assert_eq!(home.refusal(7, &["ledger", "vkey"])["code"], "NO_SERVER");
}

#[test]
fn the_file_of_a_killed_dev_is_not_believed() {
    let home = Home::new();
    let mut server = Server::dev(&home);
    server.child.kill().expect("killed");
    server.child.wait().expect("it ends");
    assert!(home.path("run/strongroom/dev.json").exists());
    assert_eq!(home.refusal(7, &["ledger", "vkey"])["code"], "NO_SERVER");
}

#[test]
fn dev_works_without_a_runtime_directory() {
    let home = Home::new();
    let without = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env_remove("XDG_RUNTIME_DIR");
        command
    };
    let mut dev = without(&["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json"]);
    let server = Server::spawn(&mut dev).expect("it starts");
    let said = without(&["ledger", "vkey"]).output().expect("the program runs");
    assert!(said.status.success(), "{said:?}");
    server.stop();
}

#[test]
fn dev_takes_a_free_port_when_one_is_busy_and_serve_names_the_flag() {
    let home = Home::new();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = busy.local_addr().expect("an address").to_string();
    let server = Server::start(&home, &["dev", "--listen", &address, "--metrics", &address]);
    assert!(!server.url().ends_with(&address) && !server.metrics_url().ends_with(&address));
    server.stop();
    for (flag, other) in [("--listen", "--metrics"), ("--metrics", "--listen")] {
        let said = home.run(&["ledger", "serve", flag, &address, other, "127.0.0.1:0", "--json"]);
        assert_eq!(said.code, 1, "{said:?}");
        let line: serde_json::Value = serde_json::from_str(&said.stdout).expect("one line of JSON");
        assert_eq!(line["ready"], false);
        assert!(
            line["error"].as_str().is_some_and(|error| error.contains(flag) && error.contains(&address)),
            "{line}"
        );
        said.refusal();
    }
}

#[test]
fn a_failed_start_says_why_and_exits_1() {
    let home = Home::new();
    let file = home.write("a-file", "");
    for (arguments, reason) in [
        (Home::serve(&file), "not a directory"),
        (vec!["ledger", "serve", "--bootstrap", "3"], "--peer-insecure"),
        (vec!["ledger", "serve", "--tls-cert", "missing.pem", "--tls-key", "missing.key"], "missing.pem"),
        (vec!["ledger", "serve", "--tls-cert", "missing.pem"], "--tls-key"),
        (vec!["ledger", "serve", "--listen", "0.0.0.0:0"], "--insecure-no-tls"),
        (vec!["ledger", "serve", "--listen", "nowhere"], "address"),
        (vec!["dev", "--listen", "0.0.0.0:0", "--insecure-no-tls"], "loopback"),
        (vec!["dev", "--metrics", "0.0.0.0:0", "--insecure-metrics"], "loopback"),
        (vec!["dev", "--log-to", "stdout"], "--log-to"),
    ] {
        let mut with_free_ports = [arguments.as_slice(), &["--json"]].concat();
        // Another test's server, or somebody else's, may have the usual ports: that would be another reason.
        for flag in ["--listen", "--metrics"] {
            if !arguments.contains(&flag) {
                with_free_ports.extend([flag, "127.0.0.1:0"]);
            }
        }
        let said = home.run(&with_free_ports);
        assert!(matches!(said.code, 1 | 2), "{arguments:?}: {said:?}");
        let line: serde_json::Value = serde_json::from_str(&said.stdout).expect("one line of JSON");
        assert_eq!(line["ready"], false, "{arguments:?}");
        assert!(line["error"].as_str().is_some_and(|error| error.contains(reason)), "{arguments:?}: {line}");
    }
}

#[test]
fn a_directory_serves_one_process_at_a_time() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let server = Server::start(&home, &Home::dev(&data));
    let said = home.run(&[Home::serve(&data).as_slice(), &["--json"]].concat());
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains(&format!("in use by process {}", server.child.id())), "{said:?}");
    for offline in [vec!["ledger", "doctor", "--data", &data], vec!["ledger", "key", "show", "--data", &data]]
    {
        assert!(home.refusal(1, &offline)["message"].as_str().is_some_and(|text| text.contains("in use")));
    }
}

#[test]
fn data_and_tokens_survive_a_restart() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = Home::dev(&data);
    let server = Server::start(&home, &serve);
    make_vault(&home);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "door", "--verify"])["trust"], "first-use");
    let before = home.json(&["ledger", "vault", "show", "acme/prod"]);
    let (vkey, token) = (server.ready["vkey"].clone(), server.token());
    server.stop();
    let server = Server::start(&home, &serve);
    assert_eq!((&server.ready["vkey"], server.token()), (&vkey, token));
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"]), before, "the same roots");
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "door", "--verify"])["trust"], "pinned");
}

#[test]
fn health_follows_the_server() {
    let home = Home::new();
    let server = Server::dev(&home);
    assert_eq!(home.json(&["health", server.metrics_url()])["ready"], true);
    assert_eq!(home.json(&["health", server.url(), "--grpc"])["answer"], "SERVING");
    assert_eq!(home.json(&["health", &format!("{}/livez", server.metrics_url())])["ready"], true);
    assert_eq!(
        home.refusal(7, &["health", &format!("{}/nothing", server.metrics_url())])["code"],
        "NOT_READY"
    );
    let (metrics, url) = (server.metrics_url().to_owned(), server.url().to_owned());
    server.stop();
    home.refusal(7, &["health", &metrics]);
    home.refusal(7, &["health", &url, "--grpc"]);
}

#[test]
fn sigterm_under_load_loses_no_acknowledged_write() {
    const WRITERS: u64 = 16;
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let server = Server::start(&home, &Home::serve(&data));
    let load = Load::new(&home, WRITERS as usize, 0);
    let writing = load.client(&server);
    load.make_vault(&writing);
    let writers = load.start(&writing);
    load.wait_until_acknowledged(50);
    let asked = Instant::now();
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(asked.elapsed() < DEADLINE / 2, "{:?}", asked.elapsed());
    load.join(writers);
    let total = load.total();

    let server = Server::start(&home, &Home::serve(&data));
    let reading = load.client(&server);
    let info = load.runtime.block_on(reading.vault(&vault())).expect("an answer");
    // A write whose answer was lost may be there as well, one per writer.
    assert!(
        (total..=total + WRITERS).contains(&info.version),
        "{} written, {total} acknowledged",
        info.version
    );
    assert_eq!(load.check(&reading, Check::Everything), total);
    server.stop();
}

#[test]
fn dev_greets_people_with_commands_that_work() {
    use std::io::{BufRead as _, BufReader};

    let home = Home::new();
    let mut child = home
        .command(&["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .spawn()
        .expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut greeting = String::new();
    while !greeting.contains("Stop with Ctrl-C.") {
        assert!(stdout.read_line(&mut greeting).expect("text") > 0, "it ended: {greeting}");
    }
    assert!(greeting.contains("temporary: gone after the end"), "{greeting}");
    let program = env!("CARGO_BIN_EXE_strongroom");
    let pasted: Vec<&str> =
        greeting.lines().filter_map(|line| line.trim_start().strip_prefix(program)).collect();
    assert!(pasted.len() >= 4, "{greeting}");
    for line in pasted {
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = home.run(&words);
        assert_eq!(said.code, 0, "{line}: {said:?}");
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    assert!(child.wait().expect("it ends").success(), "Ctrl-C is a clean end");
}
