//! Changes on disk are found and named.

use crate::harness::{Home, Server};

#[test]
fn the_demonstration_catches_one_changed_byte() {
    let home = Home::new();
    let shown = home.json(&["demo", "tamper"]);
    assert_eq!((&shown["before"], &shown["after"]), (&"verified".into(), &"rejected".into()));
    assert_eq!((&shown["original_intact"], &shown["record"]), (&true.into(), &"demo/doors door:back".into()));
    assert!(
        shown["doctor"][0].as_str().is_some_and(|text| text.starts_with("demo/doors: door:back was changed")),
        "{shown}"
    );
    assert!(shown["server_refuses"].is_string(), "{shown}");
    let left: Vec<_> = std::fs::read_dir(home.path("tmp")).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demonstration_works_on_a_copy_of_real_data() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = Home::dev(&data);
    let server = Server::start(&home, &serve);
    crate::harness::make_vault(&home);
    for key in ["door", "window"] {
        home.json(&["ledger", "put", "acme/prod", key, "locked"]);
    }
    let tamper = ["demo", "tamper", "--data", &data];
    assert!(home.refusal(1, &tamper)["message"].as_str().is_some_and(|text| text.contains("in use")));
    server.stop();
    assert_eq!(home.json(&tamper)["record"], "acme/prod door");
    let shown = home.json(&[tamper.as_slice(), &["--key", "acme/prod", "window"]].concat());
    assert_eq!((&shown["record"], &shown["original_intact"]), (&"acme/prod window".into(), &true.into()));
    assert_eq!(
        home.refusal(3, &[tamper.as_slice(), &["--key", "acme/prod", "roof"]].concat())["code"],
        "NOT_FOUND"
    );
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!((&report["sound"], &report["vaults"][0]["keys"]), (&true.into(), &2.into()));
    // The original still serves what it served.
    let _server = Server::start(&home, &serve);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--verify"]).stdout, "locked");
}

#[test]
fn the_doctor_names_vault_and_key_and_exits_5() {
    use ledger_core::ports::{RowChange, ScanRange, StateBatch, StateStore as _, Table};
    use storage_adapters::redb::{RedbOptions, RedbStateStore};

    let home = Home::new();
    let data = home.path("data").display().to_string();
    let server = Server::start(&home, &Home::dev(&data));
    crate::harness::make_vault(&home);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ada"]);
    server.stop();
    {
        // Someone with access to the disk removes a relationship.
        let state = RedbStateStore::open(std::path::Path::new(&data), RedbOptions::default())
            .expect("the state opens");
        let mut keys = Vec::new();
        let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key.to_vec());
            true
        };
        state.scan(Table::Relationships, &everything, &mut visit).expect("readable");
        let rows =
            keys.into_iter().map(|key| RowChange { table: Table::Relationships, key, value: None }).collect();
        let applied = state.applied().expect("readable").expect("not empty");
        state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).expect("written");
    }
    let said = home.run(&["ledger", "doctor", "--data", &data, "--json"]);
    assert_eq!((said.code, said.stderr.as_str()), (5, ""));
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let problem = &report["vaults"][0]["problems"][0];
    assert_eq!((&report["sound"], &report["vaults"][0]["vault"]), (&false.into(), &"acme/prod".into()));
    assert_eq!(
        (&problem["kind"], &problem["key"]),
        (&"ROW_MISSING".into(), &"doc:plan viewer user:ada".into())
    );
    let shown = home.run(&["ledger", "doctor", "--data", &data]);
    assert!(shown.stdout.contains("BAD  acme/prod") && shown.code == 5, "{shown:?}");
}

#[test]
fn a_damaged_vault_is_fenced_shown_and_recovered_from_the_command_line() {
    use ledger_core::ports::{RowChange, StateBatch, StateStore as _, Table};
    use storage_adapters::redb::{RedbOptions, RedbStateStore};

    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = ["dev", "--data", &data, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let server = Server::start(&home, &serve);
    crate::harness::make_vault(&home);
    home.json(&["ledger", "vault", "create", "acme/other"]);
    for vault in ["acme/prod", "acme/other"] {
        home.json(&["ledger", "put", vault, "door", "locked"]);
    }
    let sound = home.json(&["ledger", "integrity", "--all", "--full"]);
    assert_eq!((&sound["sound"], sound["vaults"].as_array().map(Vec::len)), (&true.into(), Some(2)));
    assert!(home.run(&["ledger", "integrity", "acme/prod"]).stdout.starts_with("ok   acme/prod  2 blocks"));
    let not_fenced = home.refusal(1, &["ledger", "recover", "acme/prod"]);
    assert_eq!(not_fenced["code"], "VAULT_NOT_DIVERGED");
    server.stop();
    {
        let state = RedbStateStore::open(std::path::Path::new(&data), RedbOptions::default()).expect("open");
        let key = [1_u64.to_be_bytes().as_slice(), b"door"].concat();
        let mut row = state.get(Table::Entities, &key).expect("readable").expect("a row").to_vec();
        *row.last_mut().expect("a byte") ^= 1;
        let rows = vec![RowChange { table: Table::Entities, key, value: Some(row.into()) }];
        let applied = state.applied().expect("readable").expect("not empty");
        state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).expect("written");
    }
    let server = Server::start(&home, &serve);
    let refused = home.refusal(7, &["ledger", "get", "acme/prod", "door"]);
    assert_eq!(refused["code"], "VAULT_DIVERGED");
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("ledger recover")), "{refused}");
    assert_eq!(home.run(&["ledger", "get", "acme/other", "door"]).stdout, "locked");
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"])["fence"]["height"], 1);
    assert!(home.run(&["ledger", "vault", "show", "acme/prod"]).stdout.contains("FENCED"));
    let checked = home.run(&["ledger", "integrity", "acme/prod", "--full"]);
    assert_eq!(checked.code, 5, "{checked:?}");
    assert!(checked.stdout.contains("FENCED") && checked.stdout.contains("entity door"), "{checked:?}");
    let recovered = home.json(&["ledger", "recover", "acme/prod"]);
    assert_eq!((&recovered["height"], &recovered["rows_repaired"]), (&1.into(), &1.into()));
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--verify"]).stdout, "locked");
    assert_eq!(home.json(&["ledger", "vault", "show", "acme/prod"])["fence"], serde_json::Value::Null);
    assert_eq!(home.json(&["ledger", "gc"])["entities_expired"], 0);
    server.stop();
    assert_eq!(home.json(&["ledger", "doctor", "--data", &data])["sound"], true);
}

/// Changes every copy of `value` in a file by one bit.
fn damage(file: &std::path::Path, value: &[u8]) {
    let mut bytes = std::fs::read(file).expect("readable");
    let found: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(value)).collect();
    assert!(!found.is_empty(), "the value is not in {}", file.display());
    found.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn a_vault_with_a_damaged_row_is_named_wherever_an_operator_looks() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = Home::dev(&data);
    let server = Server::start(&home, &serve);
    crate::harness::make_vault(&home);
    home.json(&["ledger", "put", "acme/prod", "door", "a value like no other"]);
    server.stop();
    damage(&home.path("data/state.db"), b"a value like no other");
    let files =
        || ["data/state.db", "data/blocks.db"].map(|name| std::fs::read(home.path(name)).expect("readable"));
    let before = files();
    assert_eq!(home.run(&["ledger", "doctor", "--data", &data]).code, 5);
    assert!(files() == before, "the doctor only reads");

    let server = Server::start(&home, &serve);
    let health = crate::harness::eventually("the probe names the vault", || {
        let said = home.run(&["health", server.metrics_url()]).stdout;
        said.contains("acme/prod").then_some(said)
    });
    assert!(health.starts_with("ready  ") && health.contains("not served: acme/prod"), "{health}");
    let shown = home.run(&["ledger", "vault", "show", "acme/prod"]).stdout;
    assert!(shown.contains("entity door is corrupt") && shown.contains("unknown"), "{shown}");
    let read = home.refusal(7, &["ledger", "get", "acme/prod", "door"]);
    let message = read["message"].as_str().expect("a message");
    assert!(message.contains("entity door is corrupt") && !message.contains("backup"), "{message}");
    let write = home.refusal(7, &["ledger", "put", "acme/prod", "door", "open"]);
    let hint = write["hint"].as_str().expect("a hint");
    assert!(hint.contains("ledger recover") && !hint.contains("may or may not"), "{hint}");
    let folder = home.path("backup").display().to_string();
    let backup = ["ledger", "backup", "create", "--to", folder.as_str()];
    for command in [["ledger", "snapshot", "create"].as_slice(), &backup] {
        let refused = home.refusal(1, command);
        assert_eq!(refused["code"], "VAULT_DIVERGED", "{refused}");
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("vault acme/prod is fenced: recover it"), "{message}");
    }
    let log = server.stop();
    let named = log.lines().any(|line| line.contains("the vault is fenced") && line.contains("acme/prod"));
    assert!(named, "{log}");
    let refused = home.refusal(1, &[backup.as_slice(), &["--data", &data]].concat());
    assert_eq!(refused["code"], "VAULT_DIVERGED", "{refused}");
}

#[test]
fn the_doctor_leaves_a_directory_of_an_older_layout_alone_and_exits_with_1() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    Server::start(&home, &Home::dev(&data)).stop();
    home.write("data/format", "strongroom ledger directory 1\n");
    let files = || {
        ["state.db", "blocks.db", "format"]
            .map(|name| std::fs::read(home.path("data").join(name)).expect("read"))
    };
    let before = files();
    let refused = home.refusal(1, &["ledger", "doctor", "--data", &data]);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("layout 1")), "{refused}");
    assert!(files() == before);
}
