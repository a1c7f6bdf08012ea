//! Proofs that others check offline.

use crate::harness::{Home, Server, dev_with_vault};

fn vkey(home: &Home) -> String {
    home.run(&["ledger", "vkey"]).stdout.trim_end().to_owned()
}

#[test]
fn a_proof_is_checked_without_the_server() {
    let (home, server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ada"]);
    let file = |name: &str| home.path(name).display().to_string();
    let (door, gone, ada) = (file("door.json"), file("gone.json"), file("ada.json"));
    let key = vkey(&home);
    let written = home.json(&["ledger", "proof", "acme/prod", "door", "-o", &door]);
    assert_eq!(
        (&written["verified"], &written["trust"], &written["vkey"]),
        (&true.into(), &"first-use".into(), &key.as_str().into())
    );
    home.json(&["ledger", "proof", "acme/prod", "nothing", "-o", &gone]);
    home.json(&["ledger", "proof", "acme/prod", "--check", "doc:plan", "viewer", "user:ada", "-o", &ada]);
    let id = home.json(&["ledger", "vault", "show", "acme/prod"])["id"].as_str().expect("an id").to_owned();
    server.stop();

    let claim = home.json(&[
        "verify",
        &door,
        "--vkey",
        &key,
        "--expect-vault",
        &id,
        "--expect-key",
        "door",
        "--expect-value",
        "locked",
    ]);
    assert_eq!(
        (&claim["present"], &claim["value"], &claim["version"]),
        (&true.into(), &"locked".into(), &1.into())
    );
    let claim = home.json(&["verify", &gone, "--vkey", &key, "--expect-absent"]);
    assert_eq!((&claim["present"], &claim["key"]), (&false.into(), &"nothing".into()));
    let expected = ["--expect-relationship", "doc:plan", "viewer", "user:ada", "--expect-present"];
    home.json(&[&["verify", &ada, "--vkey", &key], expected.as_slice()].concat());

    let named = home.refusal(2, &["verify", &door, "--vkey", &key, "--expect-vault", "acme/prod"]);
    assert!(
        named["message"].as_str().is_some_and(|text| text.contains("names are not in proofs")),
        "{named}"
    );
    for unexpected in [
        vec!["--expect-key", "window"],
        vec!["--expect-value", "open"],
        vec!["--expect-absent"],
        vec!["--expect-vault", "00000000-0000-7000-8000-000000000000"],
        vec!["--expect-relationship", "doc:plan", "viewer", "user:ada"],
    ] {
        let arguments = [&["verify", &door, "--vkey", &key], unexpected.as_slice()].concat();
        assert_eq!(home.refusal(5, &arguments)["code"], "VERIFICATION_FAILED");
    }
}

#[test]
fn an_expired_record_is_not_the_expected_presence() {
    let (home, server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "session", "on", "--ttl", "4s"]);
    let file = home.path("session.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "session", "-o", &file]);
    let key = vkey(&home);
    server.stop();
    let verify = ["verify", &file, "--vkey", &key];
    crate::harness::eventually("the record expires", || {
        (home.json(&verify)["expired"] == true).then_some(())
    });
    for expected in [["--expect-present"].as_slice(), &["--expect-value", "on"]] {
        let refusal = home.refusal(5, &[verify.as_slice(), expected].concat());
        assert_eq!(refusal["code"], "VERIFICATION_FAILED");
        assert!(refusal["message"].as_str().is_some_and(|text| text.contains("expired at")), "{refusal}");
    }
}

#[test]
fn a_vault_that_was_made_anew_under_its_name_is_told() {
    let (home, _server) = dev_with_vault();
    let get = ["ledger", "check", "acme/prod", "doc:a", "viewer", "user:b", "--verify", "--json"];
    let answer =
        || -> serde_json::Value { serde_json::from_str(&home.run(&get).stdout).expect("one JSON object") };
    let first = answer();
    assert_eq!((&first["trust"], first.get("warning")), (&"first-use".into(), None));
    home.json(&["ledger", "vault", "delete", "acme/prod"]);
    home.json(&["ledger", "vault", "create", "acme/prod"]);
    let second = answer();
    assert_eq!(second["trust"], "first-use");
    let warning = second["warning"].as_str().expect("a warning");
    let id = first["vault_id"].as_str().expect("an id");
    assert!(
        warning.starts_with("acme/prod was pinned before as vault ") && warning.contains(id),
        "{warning}"
    );
    assert_eq!((&answer()["trust"], answer().get("warning")), (&"pinned".into(), None), "told once");
    // For people it is a line.
    home.json(&["ledger", "vault", "delete", "acme/prod"]);
    home.json(&["ledger", "vault", "create", "acme/prod"]);
    let said = home.run(&["ledger", "checkpoint", "acme/prod"]);
    assert!(said.stderr.starts_with("warning: acme/prod was pinned before"), "{said:?}");
}

#[test]
fn no_byte_of_a_proof_can_be_changed() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    home.json(&["ledger", "put", "acme/prod", "window", "open"]);
    let file = home.path("door.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "door", "-o", &file]);
    let good = std::fs::read(&file).expect("readable");
    let key: ledger_verify::note::VerifierKey = vkey(&home).parse().expect("a key");
    let keys = std::slice::from_ref(&key);
    let believed = |document: &[u8]| {
        let (subject, evidence) = ledger_verify::proof::from_json(document).ok()?;
        ledger_verify::proof::verify(&subject, &evidence, keys).ok()
    };
    assert!(believed(&good).is_some());
    // Every byte through the library, which the program calls; a few through the program itself.
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x01;
        assert_eq!(believed(&bad), None, "byte {position}");
    }
    for position in [0, good.len() / 3, good.len() / 2, good.len() - 2] {
        let mut bad = good.clone();
        bad[position] ^= 0x01;
        let bad = home.write("bad.json", bad);
        assert_eq!(
            home.refusal(5, &["verify", &bad, "--vkey", &key.to_string()])["code"],
            "VERIFICATION_FAILED"
        );
    }
    let cut = home.write("cut.json", &good[..good.len() - 1]);
    home.refusal(5, &["verify", &cut, "--vkey", &key.to_string()]);
}

#[test]
fn another_ledgers_key_does_not_verify() {
    let (home, server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let file = home.path("door.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "door", "-o", &file]);
    let first = vkey(&home);
    server.stop();
    let other = Home::new();
    let _server = Server::dev(&other);
    let second = vkey(&other);
    home.refusal(5, &["verify", &file, "--vkey", &second]);
    home.json(&["verify", &file, "--vkey", &second, "--vkey", &first]);
    // A strict key is also asked for online.
    crate::harness::make_vault(&other);
    let refusal = other.refusal(5, &["ledger", "get", "acme/prod", "door", "--verify", "--vkey", &first]);
    assert_eq!(refusal["code"], "VERIFICATION_FAILED");
}

#[test]
fn trust_is_said_and_grows_from_first_use_to_pinned() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let get = ["ledger", "get", "acme/prod", "door", "--verify"];
    assert_eq!(home.json(&get)["trust"], "first-use");
    assert_eq!(home.json(&get)["trust"], "pinned");
    let key = vkey(&home);
    assert_eq!(home.json(&[get.as_slice(), &["--vkey", &key]].concat())["trust"], "vkey");
    let checkpoint = home.json(&["ledger", "checkpoint", "acme/prod"]);
    assert_eq!((&checkpoint["trust"], &checkpoint["size"]), (&"pinned".into(), &2.into()));
    let note = home.run(&["ledger", "checkpoint", "acme/prod"]).stdout;
    let parsed = ledger_verify::note::SignedCheckpoint::open(&note, &[key.parse().expect("a key")])
        .expect("a signed note");
    assert_eq!(parsed.size, 2);
}

#[test]
fn a_ledger_that_forgot_acknowledged_blocks_is_found_out_by_its_pin() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = ["dev", "--data", &data, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let server = Server::start(&home, &serve);
    crate::harness::make_vault(&home);
    server.stop();
    let copied = std::process::Command::new("cp").args(["-r", &data, &format!("{data}.old")]).status();
    assert!(copied.expect("cp runs").success());
    let server = Server::start(&home, &serve);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "door", "--verify"])["trust"], "first-use");
    server.stop();
    // An operator restores an old backup and says nothing.
    std::fs::remove_dir_all(&data).expect("removed");
    std::fs::rename(format!("{data}.old"), &data).expect("renamed");
    let _server = Server::start(&home, &serve);
    let refusal = home.refusal(5, &["ledger", "get", "acme/prod", "door", "--verify"]);
    assert_eq!(refusal["code"], "FORK");
    let pins: Vec<String> = std::fs::read_dir(home.path("state/strongroom/pins"))
        .expect("pins")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(pins.iter().any(|name| name.contains(".fork-1.json")), "{pins:?}");
}
