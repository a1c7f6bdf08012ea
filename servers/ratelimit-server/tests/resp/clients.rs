//! Clients that nobody here wrote. Those that are not installed are skipped, and said so.

use std::process::{Command, Output};

use crate::server::TestServer;

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: needs {program} (scripts/setup installs it)");
    }
    found
}

fn cli(server: &TestServer, arguments: &[&str]) -> String {
    let port = server.address.port().to_string();
    let mut command = Command::new("timeout");
    command.args(["20", "redis-cli", "-h", "127.0.0.1", "-p", &port]).args(arguments);
    let Output { stdout, stderr, .. } = command.output().expect("redis-cli runs");
    format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_is_answered_under_both_versions_of_the_protocol() {
    if !installed("redis-cli") {
        return;
    }
    let server = TestServer::open().await;
    for (round, version) in ["-2", "-3"].into_iter().enumerate() {
        let key = format!("user{round}");
        for (remaining, reset) in [(2, 60), (1, 120), (0, 180)] {
            let reply = cli(&server, &[version, "CL.THROTTLE", &key, "2", "1", "60"]);
            assert_eq!(reply, format!("0\n3\n{remaining}\n-1\n{reset}\n"));
        }
        let denied = cli(&server, &[version, "CL.THROTTLE", &key, "2", "1", "60"]);
        assert!(denied.starts_with("1\n3\n0\n"), "{denied}");
    }
    assert_eq!(cli(&server, &["PING"]).trim(), "PONG");
    assert!(cli(&server, &["CL.THROTTLE", "k", "1"]).contains("Cell error: Usage"));
    assert!(cli(&server, &["SET", "k", "hello"]).contains("unknown command"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_shows_its_token() {
    if !installed("redis-cli") {
        return;
    }
    let server = TestServer::with_token("right").await;
    assert!(cli(&server, &["PING"]).contains("NOAUTH"));
    assert!(cli(&server, &["--no-auth-warning", "-a", "right", "PING"]).contains("PONG"));
    assert!(cli(&server, &["--no-auth-warning", "-a", "wrong", "PING"]).contains("WRONGPASS"));
}
