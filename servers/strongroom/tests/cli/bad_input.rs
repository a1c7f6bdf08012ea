//! Bad input to every command: a clear error, nothing changed.

use crate::harness::{Home, dev_with_vault};

/// Commands about records that are wrong whatever the ledger holds.
const BAD_RECORD_COMMANDS: &[&[&str]] = &[
    &["ledger", "put", "acme/prod"],
    &["ledger", "put", "acme/prod", "k"],
    &["ledger", "put", "acme", "k", "v"],
    &["ledger", "put", "acme/prod/x", "k", "v"],
    &["ledger", "put", "ACME/prod", "k", "v"],
    &["ledger", "put", "acme/prod", "", "v"],
    &["ledger", "put", "acme/prod", "a\nb", "v"],
    &["ledger", "put", "acme/prod", "k", "v", "--ttl", "soon"],
    &["ledger", "put", "acme/prod", "k", "v", "--ttl", "0s"],
    &["ledger", "put", "acme/prod", "k", "v", "--if-absent", "--if-exists"],
    &["ledger", "put", "acme/prod", "k", "v", "--if-version", "minus"],
    &["ledger", "put", "acme/prod", "k", "v", "--idempotency-key", "zz"],
    &["ledger", "put", "acme/prod", "k", "v", "--idempotency-key", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
    &["ledger", "put", "acme/prod", "k", "v", "--timeout", "0s"],
    &["ledger", "put", "acme/prod", "k", "v", "--url", "localhost:50051"],
    &["ledger", "put", "acme/prod", "k", "v", "--url", "https://localhost:50051"],
    &["ledger", "put", "acme/prod", "k", "v", "--typo"],
    &["ledger", "get", "acme/prod"],
    &["ledger", "get", "acme/prod", "k", "--verify", "--eventual"],
    &["ledger", "get", "acme/prod", "k", "--vkey", "nonsense"],
    &["ledger", "delete", "acme/prod", ""],
    &["ledger", "relate", "acme/prod", "doc", "viewer", "user:a"],
    &["ledger", "relate", "acme/prod", "doc:a", "view er", "user:a"],
    &["ledger", "relate", "acme/prod", "doc:a", "viewer"],
    &["ledger", "unrelate", "acme/prod", "doc:a", "viewer", "user:"],
    &["ledger", "check", "acme/prod", "doc:a", "viewer", "user:a b"],
    &["ledger", "list", "acme/prod", "--resource", "doc:a", "--subject", "user:a"],
    &["ledger", "list", "acme/prod", "--relation", "viewer"],
    &["ledger", "list", "acme/prod", "--prefix", "a", "--relation", "viewer"],
    &["ledger", "list", "acme/prod", "--limit", "3", "--all"],
    &["ledger", "list", "acme/prod", "--limit", "-1"],
];

/// The other commands.
const BAD_COMMANDS: &[&[&str]] = &[
    &[],
    &["nonsense"],
    &["verify", "file"],
    &["verify", "file", "--vkey", "nonsense"],
    &["health", "127.0.0.1:1"],
    &["health", "https://127.0.0.1:1"],
    &["completions", "tcsh"],
    &["demo", "tamper", "--key", "acme/prod", "k"],
    &["ledger"],
    &["ledger", "import", "acme/prod"],
    &["ledger", "proof", "acme/prod"],
    &["ledger", "proof", "acme/prod", "--check", "doc:a", "viewer"],
    &["ledger", "proof", "acme/prod", "k", "--check", "doc:a", "viewer", "user:a"],
    &["ledger", "proof", "acme/prod", "--check", "doc", "viewer", "user:a"],
    &["ledger", "namespace", "create", "Up"],
    &["ledger", "vault", "create", "acme"],
    &["ledger", "vault", "delete", "acme/"],
    &["ledger", "token", "create", "--role", "god", "--scope", "*"],
    &["ledger", "token", "create", "--role", "reader"],
    &["ledger", "token", "create", "--role", "reader", "--scope", "a/b/c"],
    &["ledger", "token", "create", "--role", "reader", "--scope", "*", "--actor", "system:me"],
    &["ledger", "token", "create", "--role", "reader", "--scope", "*", "--actor", "nobody"],
    &["ledger", "token", "revoke", "xyz"],
    &["ledger", "key", "show"],
    &["ledger", "key", "export", "--data", "x"],
    &["ledger", "doctor"],
    &["ledger", "serve", "--typo"],
    &["ledger", "serve", "--listen"],
    &["bench", "ledger", "--clients", "0"],
    &["bench", "ledger", "--op", "think"],
    &["verify", "file", "--vkey", "nonsense", "--expect-vault", "acme/prod"],
    &["health", "https://127.0.0.1:1", "--grpc"],
    &["health", "ftp://127.0.0.1:1", "--grpc"],
];

#[test]
fn every_command_refuses_bad_arguments_with_exit_2() {
    let (home, _server) = dev_with_vault();
    let long_key = "k".repeat(1_025);
    let long_name = "n".repeat(64);
    let big = home.write("big", vec![b'v'; 1_048_577]);
    let not_json = home.write("not.json", "{");
    let no_operations = home.write("none.json", r#"{"operations":[]}"#);
    let unasserted = home.write("assert.json", r#"{"operations":[{"op":"assert","key":"k"}]}"#);
    let many = format!("{{\"operations\":[{}]}}", vec![r#"{"op":"delete","key":"k"}"#; 1_001].join(","));
    let many = home.write("many.json", many);
    let from_files: &[&[&str]] = &[
        &["ledger", "put", "acme/prod", &long_key, "v"],
        &["ledger", "put", "acme/prod", "k", "--file", &big],
        &["ledger", "put", "acme/prod", "k", "v", "--file", &big],
        &["ledger", "txn", "acme/prod", &not_json],
        &["ledger", "txn", "acme/prod", &no_operations],
        &["ledger", "txn", "acme/prod", &unasserted],
        &["ledger", "txn", "acme/prod", &many],
        &["ledger", "import", "acme/prod", &not_json],
        &["ledger", "namespace", "create", &long_name],
    ];
    let before = home.json(&["ledger", "vault", "show", "acme/prod"]);
    let tokens = home.json(&["ledger", "token", "list"]);
    for arguments in BAD_RECORD_COMMANDS.iter().chain(BAD_COMMANDS).chain(from_files) {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let said = home.run(&with_json);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        said.refusal();
        assert_eq!(said.stdout, "", "{arguments:?}");
        // For people it is text, and no panic.
        let said = home.run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(!said.stderr.is_empty() && !said.stderr.contains("panicked"), "{arguments:?}: {said:?}");
    }
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"]), before);
    assert_eq!(home.json(&["ledger", "token", "list"]), tokens);
}

#[test]
fn missing_files_are_exit_1_and_missing_ledgers_exit_3() {
    let (home, _server) = dev_with_vault();
    let key = home.run(&["ledger", "vkey"]).stdout;
    for arguments in [
        vec!["ledger", "put", "acme/prod", "k", "--file", "missing.file"],
        vec!["ledger", "txn", "acme/prod", "missing.file"],
        vec!["ledger", "import", "acme/prod", "missing.file"],
        vec!["verify", "missing.file", "--vkey", key.trim_end()],
        vec!["ledger", "key", "import", "missing.file", "--data", "new"],
        vec!["ledger", "vkey", "--tls-ca", "missing.file"],
        vec!["health", "https://127.0.0.1:1", "--grpc", "--tls-ca", "missing.file"],
    ] {
        let refusal = home.refusal(1, &arguments);
        assert_eq!(refusal["code"], "FILE");
        let message = refusal["message"].as_str().expect("a message");
        assert!(message.contains("missing.file") && message.contains("does not exist"), "{refusal}");
    }
    for arguments in [
        vec!["ledger", "doctor", "--data", "missing.directory"],
        vec!["ledger", "key", "show", "--data", "missing.directory"],
        vec!["demo", "tamper", "--data", "missing.directory"],
    ] {
        let refusal = home.refusal(3, &arguments);
        assert!(
            refusal["message"].as_str().is_some_and(|text| text.contains("missing.directory")),
            "{refusal}"
        );
        assert!(!home.path("missing.directory").exists(), "a command that reads makes no directory");
    }
}

#[test]
fn what_is_too_large_is_refused_with_its_size_or_the_ledgers_own_code() {
    let (home, _server) = dev_with_vault();
    let big = home.write("big", vec![b'v'; 1_048_576 + 4_711]);
    let refusal = home.refusal(2, &["ledger", "put", "acme/prod", "k", "--file", &big]);
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("1053287")), "{refusal}");
    let value = "v".repeat(1_000_000);
    let operations: Vec<String> =
        (0..5).map(|n| format!("{{\"op\":\"put\",\"key\":\"{n}\",\"value\":\"{value}\"}}")).collect();
    let large = home.write("large.json", format!("{{\"operations\":[{}]}}", operations.join(",")));
    let key = "01900000-0000-7000-8000-000000000000";
    for extra in [[].as_slice(), &["--idempotency-key", key]] {
        let arguments = [&["ledger", "txn", "acme/prod", &large], extra].concat();
        assert_eq!(home.refusal(2, &arguments)["code"], "TRANSACTION_TOO_LARGE");
    }
}

#[test]
fn nobody_there_is_exit_7() {
    let home = Home::new();
    let refusal = home.refusal(7, &["ledger", "get", "acme/prod", "k"]);
    assert_eq!(refusal["code"], "NO_SERVER");
    assert!(refusal["hint"].as_str().is_some_and(|hint| hint.contains("strongroom dev")));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    assert_eq!(home.refusal(7, &["ledger", "get", "acme/prod", "k", "--url", &url])["code"], "UNAVAILABLE");
    home.refusal(7, &["health", &url]);
    home.refusal(7, &["health", &url, "--grpc"]);
}

#[test]
fn a_document_that_is_no_proof_is_exit_5() {
    let home = Home::new();
    let _server = crate::harness::Server::dev(&home);
    let key = home.run(&["ledger", "vkey"]).stdout.trim_end().to_owned();
    for content in ["", "{}", "null", "{\"format\":\"strongroom.proof.v2\"}", "\u{0}"] {
        let file = home.write("document", content);
        assert_eq!(
            home.refusal(5, &["verify", &file, "--vkey", &key])["code"],
            "VERIFICATION_FAILED",
            "{content:?}"
        );
    }
}
