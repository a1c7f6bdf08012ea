//! Imports: checked first, resumed, never twice.

use crate::harness::{Home, Server, dev_with_vault, eventually};

fn lines(count: u32) -> String {
    let line = |n: u32| match n % 2 {
        0 => format!(
            "{{\"op\":\"relate\",\"resource\":\"pkg:lib{}\",\"relation\":\"required_by\",\"subject\":\"pkg:p{n}\"}}\n",
            n % 10
        ),
        _ => format!("{{\"op\":\"put\",\"key\":\"k{n}\",\"value\":\"{n}\",\"ttl\":\"30d\"}}\n"),
    };
    (0..count).map(line).collect()
}

#[test]
fn an_import_counts_its_results_and_changes_nothing_twice() {
    let (home, _server) = dev_with_vault();
    let file = home.write("records.jsonl", lines(1_300));
    let import = ["ledger", "import", "acme/prod", &file];
    let first = home.json(&import);
    assert_eq!(
        (&first["operations"], &first["chunks"], &first["replayed_chunks"]),
        (&1_300.into(), &3.into(), &0.into())
    );
    assert_eq!(first["results"], serde_json::json!({ "CREATED": 1_300 }));
    let version = || home.json(&["ledger", "vault", "show", "acme/prod"])["version"].as_u64();
    let before = version();
    let second = home.json(&import);
    assert_eq!((&second["replayed_chunks"], &second["results"]), (&3.into(), &first["results"]));
    assert_eq!(version(), before, "the same file changes nothing");
    let again = home.json(&[import.as_slice(), &["--again"]].concat());
    assert_eq!(again["results"], serde_json::json!({ "ALREADY_EXISTS": 650, "UPDATED": 650 }));
    assert_eq!(home.json(&["ledger", "list", "acme/prod", "--resource", "pkg:lib4", "--all"])["count"], 130);
}

#[test]
fn later_lines_win_over_earlier_ones() {
    let (home, _server) = dev_with_vault();
    let mut text = String::new();
    for round in 0..40 {
        // One key in every chunk of 500 lines.
        text.push_str(&format!("{{\"op\":\"put\",\"key\":\"same\",\"value\":\"{round}\"}}\n"));
        (0..499).for_each(|n| {
            text.push_str(&format!("{{\"op\":\"put\",\"key\":\"k{round}-{n}\",\"value\":\"\"}}\n"))
        });
    }
    home.json(&["ledger", "import", "acme/prod", &home.write("same.jsonl", text)]);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "same"]).stdout, "39");
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    let (home, _server) = dev_with_vault();
    for (bad, reason) in [
        ("{\"op\":\"put\",\"key\":\"k\"}", "needs a value"),
        ("{\"op\":\"put\",\"key\":\"\",\"value\":\"\"}", "must not be empty"),
        ("{\"op\":\"relate\",\"resource\":\"nocolon\",\"relation\":\"r\",\"subject\":\"a:b\"}", "type:id"),
        ("{\"op\":\"delete\",\"key\":\"k\"}", "put and relate"),
        ("{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"if_absent\":true}", "without conditions"),
        ("not json", "expected"),
        ("{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"typo\":1}", "unknown field"),
    ] {
        let file = home.write("bad.jsonl", format!("{}\n{bad}\n{}", lines(700), lines(10)));
        let refusal = home.refusal(2, &["ledger", "import", "acme/prod", &file]);
        let message = refusal["message"].as_str().expect("a message");
        assert!(message.contains("bad.jsonl:702: ") && message.contains(reason), "{message}");
    }
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"])["version"], 0);
    assert_eq!(home.refusal(1, &["ledger", "import", "acme/prod", "missing.jsonl"])["code"], "FILE");
    let empty = home.json(&["ledger", "import", "acme/prod", &home.write("empty.jsonl", "\n\n")]);
    assert_eq!((&empty["operations"], &empty["chunks"]), (&0.into(), &0.into()));
}

#[test]
fn a_killed_import_goes_on_where_it_stopped() {
    let home = Home::new();
    // Slow batches keep the import under way long enough to be killed.
    let slow = ["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--batch-delay", "400ms"];
    let _server = Server::start(&home, &slow);
    crate::harness::make_vault(&home);
    let file = home.write("records.jsonl", lines(40_000));
    let import = ["ledger", "import", "acme/prod", &file];
    let mut child = home.command(&import).spawn().expect("the import starts");
    let journal = || {
        let entry = std::fs::read_dir(home.path("state/strongroom/imports")).ok()?.next()?.ok()?;
        let text = std::fs::read(entry.path()).ok()?;
        let journal: serde_json::Value = serde_json::from_slice(&text).ok()?;
        journal["acknowledged_chunks"].as_u64().filter(|chunks| *chunks > 0)
    };
    let at_kill = eventually("some chunks are acknowledged", || {
        assert!(child.try_wait().expect("a child").is_none(), "the import ended before it could be killed");
        journal()
    });
    child.kill().expect("killed");
    child.wait().expect("it ends");
    assert!(at_kill < 80);
    let resumed = home.json(&import);
    assert!(resumed["resumed_after_chunk"].as_u64().is_some_and(|chunk| chunk >= at_kill), "{resumed}");
    assert_eq!(resumed["results"], serde_json::json!({ "CREATED": 40_000 }), "every line exactly once");
    let shown = home.json(&["ledger", "vault", "show", "acme/prod"]);
    assert_eq!(
        (&shown["key_count"], &shown["version"]),
        (&40_000.into(), &80.into()),
        "80 transactions, none twice"
    );
}

#[test]
fn progress_goes_to_standard_error_as_lines() {
    let (home, _server) = dev_with_vault();
    let said = home.run(&["ledger", "import", "acme/prod", &home.write("records.jsonl", lines(10))]);
    assert_eq!(said.code, 0);
    assert!(said.stderr.contains("10 of 10 (100 %)"), "{said:?}");
    assert!(said.stdout.starts_with("imported  10 operations in 1 chunks"), "{said:?}");
}
