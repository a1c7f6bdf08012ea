//! Writing and reading one record.

use std::io::Write as _;
use std::process::Stdio;

use crate::harness::{Said, dev_with_vault, eventually};

#[test]
fn a_record_is_written_read_changed_and_deleted() {
    let (home, _server) = dev_with_vault();
    let created = home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    assert_eq!((&created["results"][0], &created["version"]), (&"CREATED".into(), &1.into()));
    assert_eq!(created["block_hash"].as_str().map(str::len), Some(64));
    let read = home.json(&["ledger", "get", "acme/prod", "door"]);
    assert_eq!((&read["value"], &read["value_base64"]), (&"locked".into(), &"bG9ja2Vk".into()));
    assert_eq!(
        (&read["version"], &read["expires_at_ms"], &read["verified"]),
        (&1.into(), &0.into(), &false.into())
    );
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--eventual"]).stdout, "locked");
    assert_eq!(home.json(&["ledger", "put", "acme/prod", "door", "open"])["results"][0], "UPDATED");
    assert_eq!(home.json(&["ledger", "delete", "acme/prod", "door"])["results"][0], "DELETED");
    assert_eq!(home.json(&["ledger", "delete", "acme/prod", "door"])["results"][0], "NOT_FOUND");
    assert_eq!(home.refusal(3, &["ledger", "get", "acme/prod", "door"])["code"], "NOT_FOUND");
}

#[test]
fn values_come_from_arguments_files_and_standard_input() {
    let (home, _server) = dev_with_vault();
    let bytes: Vec<u8> = (0..=255).collect();
    let file = home.write("bytes", &bytes);
    home.json(&["ledger", "put", "acme/prod", "file", "--file", &file]);
    let read = home.command(&["ledger", "get", "acme/prod", "file"]).output().expect("the program runs");
    assert_eq!(read.stdout, bytes);
    assert!(home.json(&["ledger", "get", "acme/prod", "file"]).get("value").is_none(), "bytes are no text");

    let mut piped = home.command(&["ledger", "put", "acme/prod", "pipe", "-", "--json"]);
    let mut child = piped.stdin(Stdio::piped()).spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(b"from a pipe").expect("written");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "pipe"]).stdout, "from a pipe");

    home.json(&["ledger", "put", "acme/prod", "number", "-42"]);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "number"]).stdout, "-42");
}

#[test]
fn a_failed_condition_is_exit_4_and_changes_nothing() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door", "locked", "--if-absent"]);
    for (reason, condition) in [
        ("KEY_EXISTS", vec!["--if-absent"]),
        ("VERSION_MISMATCH", vec!["--if-version", "9"]),
        ("VALUE_MISMATCH", vec!["--if-value", "open"]),
    ] {
        let mut arguments = vec!["ledger", "put", "acme/prod", "door", "broken"];
        arguments.extend(&condition);
        let refusal = home.refusal(4, &arguments);
        assert_eq!(refusal["code"], reason);
        assert_eq!(
            (&refusal["op_index"], &refusal["current_version"]),
            (&0.into(), &1.into()),
            "a program needs no second read: {refusal}"
        );
        assert_eq!(refusal["current_value_base64"], "bG9ja2Vk", "{refusal}");
        let mut arguments = vec!["ledger", "delete", "acme/prod", "door"];
        arguments.extend(condition);
        assert_eq!(home.refusal(4, &arguments)["code"], reason);
    }
    assert_eq!(
        home.refusal(4, &["ledger", "put", "acme/prod", "new", "x", "--if-exists"])["code"],
        "KEY_NOT_FOUND"
    );
    let read = home.json(&["ledger", "get", "acme/prod", "door"]);
    assert_eq!((&read["value"], &read["version"]), (&"locked".into(), &1.into()));
    home.json(&["ledger", "put", "acme/prod", "door", "open", "--if-version", "1"]);
    home.json(&["ledger", "put", "acme/prod", "door", "shut", "--if-value", "open"]);
    home.json(&["ledger", "delete", "acme/prod", "door", "--if-exists"]);
}

#[test]
fn a_record_with_a_time_to_live_disappears() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "session", "on", "--ttl", "6s"]);
    let read = home.json(&["ledger", "get", "acme/prod", "session"]);
    assert!(read["expires_at_ms"].as_u64().is_some_and(|at| at > 0));
    eventually("the record expires", || {
        (home.run(&["ledger", "get", "acme/prod", "session"]).code == 3).then_some(())
    });
    let said = home.run(&["ledger", "get", "acme/prod", "session", "--verify", "--json"]);
    assert_eq!((said.code, &said.refusal()["code"]), (3, &"NOT_FOUND".into()), "{said:?}");
}

#[test]
fn a_proved_absence_is_exit_3_with_all_that_was_proved() {
    let (home, _server) = dev_with_vault();
    let said = home.run(&["ledger", "get", "acme/prod", "nope", "--verify", "--json"]);
    assert_eq!(said.code, 3, "{said:?}");
    let refusal = said.refusal();
    assert_eq!((&refusal["code"], &refusal["verified"]), (&"NOT_FOUND".into(), &true.into()));
    assert_eq!((&refusal["trust"], &refusal["checkpoint_size"]), (&"first-use".into(), &1.into()));
    assert_eq!((&refusal["height"], &refusal["expired"]), (&0.into(), &false.into()));
    let document: serde_json::Value = serde_json::from_str(&said.stdout).expect("one JSON object");
    assert_eq!((&document["present"], &document["key"]), (&false.into(), &"nope".into()));
    assert_eq!((&document["verified"], &document["trust"]), (&true.into(), &"first-use".into()));
}

#[test]
fn a_repeated_write_with_a_time_to_live_happens_once() {
    let (home, _server) = dev_with_vault();
    let key = new_key();
    let file = home.write(
        "ttl.json",
        r#"{"operations":[{"op":"put","key":"b","value":"1","ttl":"60s"},{"op":"put","key":"c","value":"2"}]}"#,
    );
    let put = ["ledger", "put", "acme/prod", "a", "v", "--ttl", "60s", "--idempotency-key", &key];
    let other = new_key();
    let txn = ["ledger", "txn", "acme/prod", &file, "--idempotency-key", &other];
    for write in [put.as_slice(), &txn] {
        let (first, second) = (home.json(write), home.json(write));
        assert_eq!((&first["replayed"], &second["replayed"]), (&false.into(), &true.into()), "{write:?}");
        assert_eq!(first["height"], second["height"]);
    }
    let stamped = |key: &str| {
        let digits: String = key.chars().filter(|character| *character != '-').take(12).collect();
        u64::from_str_radix(&digits, 16).expect("the time of the key")
    };
    for (entity, key) in [("a", &key), ("b", &other)] {
        let read = home.json(&["ledger", "get", "acme/prod", entity]);
        assert_eq!(read["expires_at_ms"], stamped(key) + 60_000, "it counts from the key's own time");
    }
}

/// A key with the time of now, unlike any before.
fn new_key() -> String {
    static COUNT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    ledger_core::transaction::IdempotencyKey::from_parts(now_ms as u64, [count; 10]).to_string()
}

#[test]
fn the_same_idempotency_key_writes_once() {
    let (home, _server) = dev_with_vault();
    let key = new_key();
    let write = ["ledger", "put", "acme/prod", "door", "locked", "--idempotency-key", &key];
    let first = home.json(&write);
    let second = home.json(&write);
    assert_eq!((&first["replayed"], &second["replayed"]), (&false.into(), &true.into()));
    assert_eq!((&first["version"], &first["height"]), (&second["version"], &second["height"]));
    let other = ["ledger", "put", "acme/prod", "door", "open", "--idempotency-key", &key];
    assert_eq!(home.refusal(1, &other)["code"], "IDEMPOTENCY_MISMATCH");
    let old = [
        "ledger",
        "put",
        "acme/prod",
        "door",
        "open",
        "--idempotency-key",
        "00000000-0001-7000-8000-000000000000",
    ];
    assert_eq!(home.refusal(1, &old)["code"], "IDEMPOTENCY_KEY_EXPIRED");
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door"]).stdout, "locked");
}

#[test]
fn relationships_are_made_checked_listed_and_removed() {
    let (home, _server) = dev_with_vault();
    let tuple = ["acme/prod", "doc:plan", "viewer", "user:ada"];
    let with = |command: &'static str| [&["ledger", command], tuple.as_slice()].concat();
    let denied = home.run(&[with("check").as_slice(), &["--json"]].concat());
    assert_eq!((denied.code, denied.stderr.as_str()), (4, ""));
    assert!(denied.stdout.contains("\"exists\":false"), "{denied:?}");
    assert_eq!(home.json(&with("relate"))["results"][0], "CREATED");
    assert_eq!(home.json(&with("relate"))["results"][0], "ALREADY_EXISTS");
    let held = home.json(&with("check"));
    assert_eq!((&held["exists"], &held["version"]), (&true.into(), &1.into()));
    let proved = home.json(&[with("check").as_slice(), &["--verify"]].concat());
    assert_eq!(
        (&proved["exists"], &proved["verified"], &proved["trust"]),
        (&true.into(), &true.into(), &"first-use".into())
    );
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "owner", "user:bob"]);
    home.json(&["ledger", "relate", "acme/prod", "doc:note", "viewer", "user:ada"]);
    let count = |arguments: &[&str]| {
        let listed = home.json(&[&["ledger", "list", "acme/prod"], arguments].concat());
        (listed["count"].as_u64(), listed["more"].as_bool())
    };
    assert_eq!(count(&["--resource", "doc:plan"]), (Some(2), Some(false)));
    assert_eq!(count(&["--resource", "doc:plan", "--relation", "owner"]), (Some(1), Some(false)));
    assert_eq!(count(&["--subject", "user:ada"]), (Some(2), Some(false)));
    assert_eq!(
        count(&["--subject", "user:ada", "--relation", "viewer", "--limit", "1"]),
        (Some(1), Some(true))
    );
    assert_eq!(home.json(&with("unrelate"))["results"][0], "DELETED");
    assert_eq!(home.json(&with("unrelate"))["results"][0], "NOT_FOUND");
    assert_eq!(home.run(&with("check")).code, 4);
    assert_eq!(home.run(&[with("check").as_slice(), &["--verify"]].concat()).code, 4);
}

#[test]
fn lists_are_complete_ordered_and_limited() {
    let (home, _server) = dev_with_vault();
    let lines: String =
        (0..1_205).map(|n| format!("{{\"op\":\"put\",\"key\":\"k{n:04}\",\"value\":\"{n}\"}}\n")).collect();
    home.json(&["ledger", "import", "acme/prod", &home.write("many.jsonl", lines)]);
    let keys = |arguments: &[&str]| -> (Vec<String>, bool) {
        let listed = home.json(&[&["ledger", "list", "acme/prod"], arguments].concat());
        let rows = listed["entities"].as_array().expect("rows").iter();
        (rows.map(|row| row["key"].as_str().expect("a key").to_owned()).collect(), listed["more"] == true)
    };
    let expected = |range: std::ops::Range<u32>| range.map(|n| format!("k{n:04}")).collect::<Vec<_>>();
    assert_eq!(keys(&[]), (expected(0..100), true));
    assert_eq!(keys(&["--limit", "3"]), (expected(0..3), true));
    assert_eq!(keys(&["--all"]), (expected(0..1_205), false));
    assert_eq!(keys(&["--limit", "1205"]), (expected(0..1_205), false));
    assert_eq!(keys(&["--prefix", "k12"]), (expected(1_200..1_205), false));
    assert_eq!(keys(&["--prefix", "nothing"]), (Vec::new(), false));
    let table = home.run(&["ledger", "list", "acme/prod", "--prefix", "k120", "--limit", "2"]);
    assert_eq!(table.stdout.lines().next(), Some("KEY    VALUE  VERSION  EXPIRES"));
    assert!(table.stderr.contains("there are more"), "{table:?}");
}

#[test]
fn a_transaction_file_is_all_or_nothing() {
    let (home, _server) = dev_with_vault();
    let good = home.write(
        "good.json",
        r#"{"operations":[{"op":"put","key":"a","value":"1","if_absent":true},{"op":"put","key":"b","value_base64":"AP8="},
            {"op":"relate","resource":"doc:a","relation":"viewer","subject":"user:b"},
            {"op":"assert","key":"c","if_absent":true}]}"#,
    );
    let written = home.json(&["ledger", "txn", "acme/prod", &good]);
    assert_eq!(written["results"], serde_json::json!(["CREATED", "CREATED", "CREATED", "HELD"]));
    let bad = home.write(
        "bad.json",
        r#"{"operations":[{"op":"delete","key":"b"},{"op":"put","key":"d","value":"1"},{"op":"put","key":"a","value":"2","if_absent":true}]}"#,
    );
    let refusal = home.refusal(4, &["ledger", "txn", "acme/prod", &bad]);
    assert_eq!(refusal["code"], "KEY_EXISTS");
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("operation 2")), "{refusal}");
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "b"])["value_base64"], "AP8=");
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "d"]).code, 3);
}

#[test]
fn two_puts_of_a_key_in_one_block_have_versions_of_their_own() {
    let (home, _server) = dev_with_vault();
    // Sent together, they may share a block; the first receipt's version must not match afterwards.
    let both: Vec<_> = ["one", "two"]
        .map(|value| {
            home.command(&["ledger", "put", "acme/prod", "door", value, "--json"]).spawn().expect("it starts")
        })
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("it ends");
            serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")["version"]
                .as_u64()
                .expect("a version")
        })
        .collect();
    let (first, last) = (both.iter().min().expect("two"), both.iter().max().expect("two"));
    assert_ne!(first, last);
    let with_version = |version: &u64| {
        Said::of(&mut home.command(&[
            "ledger",
            "put",
            "acme/prod",
            "door",
            "x",
            "--if-version",
            &version.to_string(),
        ]))
        .code
    };
    assert_eq!((with_version(first), with_version(last)), (4, 0));
}
