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
