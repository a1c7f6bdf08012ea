//! What an operator finds in the directory of a node that did not end in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::{Home, Server, make_vault};
use crate::load::Load;

/// Every file below a directory with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let read = |path: PathBuf| {
        let content = std::fs::read(&path).expect("readable");
        (path, content)
    };
    files.into_iter().map(read).chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

/// Files that hold what the ledger holds; those beside them are of whoever has the directory open.
fn content(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_content = |path: &PathBuf| {
        let path = path.strip_prefix(data).expect("below it");
        ["state.db", "blocks.db", "raft.wal"].iter().any(|name| path.starts_with(name))
    };
    files(data).into_iter().filter(|(path, _)| is_content(path)).collect()
}

#[test]
fn the_doctor_reads_what_a_killed_node_left_and_changes_none_of_it() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = [Home::serve(&data).as_slice(), &["--flush-interval", "20ms"]].concat();
    let load = Load::new(&home, 4, 0);
    for round in 0..4 {
        let mut server = Server::start(&home, &serve);
        let client = load.client(&server);
        if round == 0 {
            load.make_vault(&client);
        }
        let before = load.total();
        let writers = load.start(&client);
        load.wait_until_acknowledged(before + 100);
        server.child.kill().expect("killed");
        server.child.wait().expect("it ends");
        load.join(writers);

        let before = content(&home.path("data"));
        assert!(before.len() > 2, "{:?}", before.keys());
        let report = home.json(&["ledger", "doctor", "--data", &data]);
        assert_eq!(report["sound"], true, "{report}");
        assert!(report["vaults"][0]["blocks"].as_u64() > Some(1), "{report}");
        assert!(content(&home.path("data")) == before, "the doctor only reads");
    }
    Server::start(&home, &serve).stop();
}

/// A stopped node whose `blocks.db` is two writes older than its other files; its path, and what belongs there.
fn with_old_blocks(home: &Home, serve: &[&str]) -> (PathBuf, Vec<u8>) {
    let server = Server::start(home, serve);
    make_vault(home);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    server.stop();
    let blocks = home.path("data/blocks.db");
    let old = std::fs::read(&blocks).expect("readable");
    let server = Server::start(home, serve);
    for value in ["open", "ajar"] {
        home.json(&["ledger", "put", "acme/prod", "door", value]);
    }
    server.stop();
    let newer = std::fs::read(&blocks).expect("readable");
    std::fs::write(&blocks, old).expect("written");
    (blocks, newer)
}

#[test]
fn an_old_blocks_file_beside_a_newer_state_is_told_and_the_vault_fenced() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = Home::dev(&data);
    with_old_blocks(&home, &serve);
    let said = home.run(&["ledger", "doctor", "--data", &data, "--json"]);
    assert_eq!(said.code, 5, "{said:?}");
    for height in [2, 3] {
        assert!(said.stdout.contains(&format!("block {height} cannot be read")), "{said:?}");
    }
    let server = Server::start(&home, &serve);
    for command in [vec!["get", "acme/prod", "door"], vec!["put", "acme/prod", "door", "x"]] {
        let refused = home.refusal(7, &[&["ledger"], command.as_slice()].concat());
        assert_eq!(refused["code"], "VAULT_DIVERGED", "{refused}");
    }
    let shown = home.run(&["ledger", "vault", "show", "acme/prod"]).stdout;
    assert!(shown.contains("FENCED") && shown.contains("vault acme/prod has no block 2"), "{shown}");
    let checked = home.run(&["ledger", "integrity", "acme/prod", "--full"]);
    assert!(checked.code == 5 && checked.stdout.contains("block 2: its header is missing"), "{checked:?}");
    // The rows cannot be made anew from blocks that are gone, and nothing is made of them.
    let refused = home.refusal(1, &["ledger", "recover", "acme/prod"]);
    let message = refused["message"].as_str().expect("a message");
    assert!(
        message.contains("block 2 cannot be replayed") && message.contains("restore the node"),
        "{message}"
    );
    // Other vaults go on, and what is there can be put away.
    home.json(&["ledger", "vault", "create", "acme/other"]);
    home.json(&["ledger", "put", "acme/other", "door", "locked"]);
    home.json(&["ledger", "snapshot", "create"]);
    server.stop();
}

/// The same, when the right file is found before anything was written beside the old one.
#[test]
fn the_right_blocks_file_put_back_heals_what_an_old_one_had_fenced() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = Home::dev(&data);
    let (blocks, newer) = with_old_blocks(&home, &serve);
    assert_eq!(home.run(&["ledger", "doctor", "--data", &data]).code, 5);
    std::fs::write(&blocks, newer).expect("written");
    assert_eq!(home.json(&["ledger", "doctor", "--data", &data])["sound"], true);
    let _server = Server::start(&home, &serve);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door", "--verify"]).stdout, "ajar");
}
