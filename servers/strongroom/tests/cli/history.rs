//! The past: versions, blocks, values at a height, watches, retention.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;

use serde_json::Value;

use crate::harness::{Home, Server, dev_with_vault, make_vault};

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} in {value}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("{field} in {value}"))
}

#[test]
fn a_key_shows_its_versions_and_what_it_held_at_each_block() {
    let (home, _server) = dev_with_vault();
    for value in ["locked", "open", "locked again"] {
        home.json(&["ledger", "put", "acme/prod", "door", value]);
    }
    home.json(&["ledger", "delete", "acme/prod", "door"]);
    let history = home.json(&["ledger", "history", "acme/prod", "door"]);
    let changes: Vec<_> = list(&history, "versions")
        .iter()
        .map(|version| (number(version, "height"), version["change"].as_str(), version["value"].as_str()))
        .collect();
    assert_eq!(
        changes,
        [
            (4, Some("DELETED"), None),
            (3, Some("SET"), Some("locked again")),
            (2, Some("SET"), Some("open")),
            (1, Some("SET"), Some("locked")),
        ]
    );
    assert_eq!((&history["more"], &history["cut_at"]), (&false.into(), &Value::Null));
    let newest = home.json(&["ledger", "history", "acme/prod", "door", "--limit", "1"]);
    assert_eq!((list(&newest, "versions").len(), &newest["more"]), (1, &true.into()));
    let table = home.run(&["ledger", "history", "acme/prod", "door"]).stdout;
    assert!(table.contains("locked again") && table.lines().count() == 5, "{table}");

    for (height, value) in [("1", "locked"), ("2", "open"), ("3", "locked again")] {
        let plain = home.run(&["ledger", "get", "acme/prod", "door", "--at", height]);
        assert_eq!((plain.code, plain.stdout.as_str()), (0, value));
        let proved = home.json(&["ledger", "get", "acme/prod", "door", "--at", height, "--verified"]);
        assert_eq!((proved["value"].as_str(), &proved["verified"]), (Some(value), &true.into()));
        assert_eq!(number(&proved, "height").to_string(), height);
    }
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--at", "4"]).code, 3);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--at", "0", "--verify"]).code, 3);
    let ahead = home.refusal(3, &["ledger", "get", "acme/prod", "door", "--at", "5"]);
    assert_eq!(ahead["code"], "HEIGHT_UNAVAILABLE");
    assert_eq!(home.run(&["ledger", "history", "acme/prod", "window"]).code, 3);

    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ada"]);
    let check = ["ledger", "history", "acme/prod", "--check", "doc:plan", "viewer", "user:ada"];
    assert_eq!(list(&home.json(&check), "versions")[0]["change"], "RELATED");
}

#[test]
fn blocks_are_shown_with_and_without_their_transactions() {
    let (home, _server) = dev_with_vault();
    for value in ["one", "two"] {
        home.json(&["ledger", "put", "acme/prod", "door", value]);
    }
    let headers = home.json(&["ledger", "blocks", "acme/prod"]);
    let headers = list(&headers, "blocks");
    assert_eq!(headers.iter().map(|block| number(block, "height")).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(headers[1]["previous"], headers[0]["block_hash"]);
    let bodies = home.json(&["ledger", "blocks", "acme/prod", "--from", "2", "--limit", "5", "--bodies"]);
    let transaction = &list(&list(&bodies, "blocks")[0], "transactions")[0];
    let operation = &list(transaction, "operations")[0];
    assert_eq!(
        (&operation["op"], &operation["key"], &operation["value"]),
        (&"put".into(), &"door".into(), &"two".into())
    );
    assert_eq!((&operation["result"], number(transaction, "version")), (&"UPDATED".into(), 2));
    assert!(transaction["transaction_base64"].as_str().is_some_and(|text| text.starts_with("U1JUW")), "SRTX");
    let last = home.json(&["ledger", "blocks", "acme/prod", "--limit", "1"]);
    assert_eq!(number(&list(&last, "blocks")[0], "height"), 2, "the newest");
    let table = home.run(&["ledger", "blocks", "acme/prod"]).stdout;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(home.run(&["ledger", "blocks", "acme/prod", "--bodies"]).code, 2, "--bodies needs --json");
    assert_eq!(
        home.refusal(3, &["ledger", "blocks", "acme/prod", "--from", "9"])["code"],
        "HEIGHT_UNAVAILABLE"
    );
}

#[test]
fn retention_is_chosen_at_creation_shown_and_changed() {
    let (home, _server) = dev_with_vault();
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"])["retention"], "full");
    let short = home.json(&["ledger", "vault", "create", "acme/short", "--retention", "compacted:2"]);
    assert_eq!((&short["retention"], number(&short, "first_height")), (&"compacted:2".into(), 0));
    for value in ["1", "2", "3", "4"] {
        home.json(&["ledger", "put", "acme/short", "k", value]);
        home.json(&["ledger", "put", "acme/prod", "k", value]);
    }
    assert_eq!(number(&home.json(&["ledger", "vault", "show", "acme/short"]), "first_height"), 3);
    let gone = home.refusal(3, &["ledger", "get", "acme/short", "k", "--at", "2"]);
    assert!(gone["message"].as_str().is_some_and(|message| message.contains("first that can be read is 3")));
    let history = home.json(&["ledger", "history", "acme/short", "k"]);
    assert_eq!((list(&history, "versions").len(), number(&history, "cut_at")), (2, 3));

    let changed = home.json(&["ledger", "vault", "retention", "acme/prod", "compacted:3"]);
    assert_eq!((&changed["retention"], number(&changed, "first_height")), (&"compacted:3".into(), 2));
    let shown = home.run(&["ledger", "vault", "retention", "acme/prod"]);
    assert_eq!(shown.stdout, "acme/prod  compacted:3  readable from block 2 of 4\n");
    assert_eq!(home.run(&["ledger", "vault", "retention", "acme/prod", "compacted:0"]).code, 2);
}

/// A port that is free now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_watch_goes_on_over_a_restart_of_the_server_and_leaves_no_block_out() {
    const BEFORE: u64 = 10;
    const AFTER: u64 = 10;
    let home = Home::new();
    let (data, address) = (home.path("data").display().to_string(), free_address());
    let serve = ["ledger", "serve", "--data", &data, "--listen", &address, "--metrics", "127.0.0.1:0"];
    let server = Server::start(&home, &serve);
    let token = server.ready["token_file"].as_str().expect("a token file").to_owned();
    let access = ["--url", &format!("http://{address}"), "--token-file", &token];
    let run = |arguments: &[&str]| home.json(&[&["ledger"], arguments, access.as_slice()].concat());
    run(&["namespace", "create", "acme"]);
    run(&["vault", "create", "acme/prod"]);
    let count = (1 + BEFORE + AFTER).to_string();
    let watch = ["watch", "acme/prod", "--from", "0", "--bodies", "--proofs", "--count", &count, "--json"];
    let mut watching =
        home.command(&[&["ledger"], watch.as_slice(), access.as_slice()].concat()).spawn().expect("it runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut previous: Option<Value> = None;
    let mut next = |height: u64| {
        let line = lines.next().expect("a line").expect("text");
        let block: Value = serde_json::from_str(&line).expect("one object a line");
        assert_eq!(number(&block, "height"), height, "{line}");
        if let Some(previous) = &previous {
            assert_eq!(block["previous"], previous["block_hash"]);
        }
        assert_eq!(
            (list(&block, "transactions").len(), &block["verified"]),
            (usize::from(height > 0), &true.into())
        );
        previous = Some(block);
    };
    next(0);
    for number in 0..BEFORE {
        run(&["put", "acme/prod", "k", &number.to_string()]);
        next(number + 1);
    }
    server.stop();
    let server = Server::start(&home, &serve);
    for number in 0..AFTER {
        run(&["put", "acme/prod", "k", &number.to_string()]);
    }
    for number in 0..AFTER {
        next(BEFORE + number + 1);
    }
    assert!(watching.wait().expect("it ends").success(), "the watch ends by itself after --count blocks");
    server.stop();
}

#[test]
fn a_watch_can_be_filtered_and_begins_with_what_comes() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door:1", "locked"]);
    home.json(&["ledger", "put", "acme/prod", "window:1", "open"]);
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ada"]);
    home.json(&["ledger", "put", "acme/prod", "door:2", "locked"]);
    let heights = |flags: &[&str], count: &str| -> Vec<u64> {
        let watch = ["ledger", "watch", "acme/prod", "--from", "0", "--count", count, "--json"];
        let said = home.run(&[watch.as_slice(), flags].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        lines.map(|block| number(&block, "height")).collect()
    };
    assert_eq!(heights(&["--prefix", "door:"], "2"), [1, 4]);
    assert_eq!(heights(&["--entities"], "3"), [1, 2, 4]);
    assert_eq!(heights(&["--relationships"], "1"), [3]);
    assert_eq!(heights(&["--resource", "doc:plan"], "1"), [3]);
    assert_eq!(heights(&[], "5"), [0, 1, 2, 3, 4]);
    assert_eq!(home.run(&["ledger", "watch", "acme/prod", "--prefix", "a", "--entities"]).code, 2);
    assert_eq!(
        home.refusal(3, &["ledger", "watch", "acme/prod", "--from", "9"])["code"],
        "HEIGHT_UNAVAILABLE"
    );
    assert_eq!(home.refusal(3, &["ledger", "watch", "acme/none", "--from", "0"])["code"], "VAULT_NOT_FOUND");
    make_other_vault_and_follow(&home);
}

/// Without --from a watch shows what comes: here, what another process writes while it runs.
fn make_other_vault_and_follow(home: &Home) {
    let mut watching =
        home.command(&["ledger", "watch", "acme/prod", "--count", "1", "--json"]).spawn().expect("it runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let reader = std::thread::spawn(move || lines.next().expect("a line").expect("text"));
    // It may take a moment until the watch stands: whatever it shows is newer than its beginning.
    while !reader.is_finished() {
        home.json(&["ledger", "put", "acme/prod", "door:3", "new"]);
    }
    let block: Value = serde_json::from_str(&reader.join().expect("no panic")).expect("an object");
    assert!(number(&block, "height") > 4, "{block}");
    assert!(watching.wait().expect("it ends").success());
}

#[test]
fn a_ledger_without_the_vault_has_no_history() {
    let home = Home::new();
    let _server = Server::dev(&home);
    make_vault(&home);
    for arguments in [
        &["history", "acme/none", "k"][..],
        &["blocks", "acme/none"],
        &["get", "acme/none", "k", "--at", "0"],
    ] {
        assert_eq!(home.refusal(3, &[&["ledger"], arguments].concat())["code"], "VAULT_NOT_FOUND");
    }
}
