//! The log key on disk.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Home, Server};

#[test]
fn a_key_is_shown_exported_and_begins_a_new_directory() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = ["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data"];
    let server = Server::start(&home, &[serve.as_slice(), &[&data]].concat());
    let vkey = server.ready["vkey"].as_str().expect("a key").to_owned();
    assert_eq!(home.run(&["ledger", "vkey"]).stdout.trim_end(), vkey);
    let refusal = home.refusal(1, &["ledger", "key", "show", "--data", &data]);
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("in use by process")), "{refusal}");
    server.stop();

    assert_eq!(home.json(&["ledger", "key", "show", "--data", &data])["vkey"], vkey.as_str());
    let file = home.path("log.key").display().to_string();
    let export = ["ledger", "key", "export", "--data", &data, "-o", &file];
    let said = home.run(&export);
    assert_eq!(said.code, 0);
    assert!(!said.stdout.contains("PRIVATE"), "the secret is in the file only");
    assert_eq!(std::fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);
    assert_eq!(home.refusal(1, &export)["code"], "FILE", "an existing file is not overwritten");

    let new = home.path("new").display().to_string();
    let import = ["ledger", "key", "import", &file, "--data", &new];
    assert_eq!(home.json(&import)["vkey"], vkey.as_str());
    assert_eq!(home.refusal(2, &import)["code"], "USAGE", "a directory with content is left alone");
    assert_eq!(home.refusal(2, &["ledger", "key", "import", &file, "--data", &data])["code"], "USAGE");
    let server = Server::start(&home, &[serve.as_slice(), &[&new]].concat());
    assert_eq!(server.ready["vkey"], vkey.as_str());

    let other = home.write("other.key", "PRIVATE+KEY+nonsense\n");
    let fresh = home.path("fresh").display().to_string();
    assert_eq!(home.refusal(2, &["ledger", "key", "import", &other, "--data", &fresh])["code"], "USAGE");
    assert!(!home.path("fresh").exists());
}

#[test]
fn a_rotated_key_is_believed_by_those_who_name_it_and_then_pinned() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = ["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data", &data];
    let server = Server::start(&home, &serve);
    let old = server.ready["vkey"].as_str().expect("a key").to_owned();
    home.json(&["ledger", "namespace", "create", "acme"]);
    home.json(&["ledger", "vault", "create", "acme/prod"]);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let get = ["ledger", "get", "acme/prod", "door", "--verify"];
    assert_eq!(home.json(&get)["trust"], "first-use");
    let proof = home.path("door.proof.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "door", "-o", &proof]);
    let rotate = ["ledger", "key", "rotate", "--data", &data];
    let refusal = home.refusal(1, &rotate);
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("in use by process")), "{refusal}");
    server.stop();

    let rotated = home.json(&rotate);
    let new = rotated["vkey"].as_str().expect("a key").to_owned();
    assert_eq!(rotated["retired_vkey"], old.as_str());
    assert_ne!(new, old);
    assert_eq!(new.split('+').next(), old.split('+').next(), "the name stays");
    let shown = home.json(&["ledger", "key", "show", "--data", &data]);
    assert_eq!((&shown["vkey"], &shown["retired_vkeys"]), (&new.as_str().into(), &serde_json::json!([old])));
    let mode = std::fs::metadata(home.path("data/log.key")).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let server = Server::start(&home, &serve);
    assert_eq!(server.ready["vkey"], new.as_str());
    let refused = home.refusal(5, &get);
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("--vkey")), "{refused}");
    let with = |keys: &[&str]| home.json(&[get.as_slice(), keys].concat())["trust"].clone();
    assert_eq!(with(&["--vkey", &old, "--vkey", &new]), "vkey");
    assert_eq!(home.json(&get)["trust"], "pinned", "the new key is pinned now");
    assert_eq!(home.run(&["verify", &proof, "--vkey", &old]).code, 0, "what was signed stays signed");
    assert_eq!(home.run(&["verify", &proof, "--vkey", &new]).code, 5);
    server.stop();
}
