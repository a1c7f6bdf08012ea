//! Lists that others check offline: nothing left out, nothing added.

use crate::harness::dev_with_vault;

const VIEWERS: usize = 40;

#[test]
fn a_list_is_proved_complete_and_checked_without_the_server() {
    let (home, server) = dev_with_vault();
    for number in 0..VIEWERS {
        home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", &format!("user:{number:02}")]);
    }
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "owner", "team:core#member"]);
    home.json(&["ledger", "relate", "acme/prod", "doc:other", "viewer", "user:eve"]);
    let key = home.run(&["ledger", "vkey"]).stdout.trim_end().to_owned();
    let id = home.json(&["ledger", "vault", "show", "acme/prod"])["id"].as_str().expect("an id").to_owned();
    let file = |name: &str| home.path(name).display().to_string();
    let (all, viewers, nobody) = (file("all.json"), file("viewers.json"), file("nobody.json"));
    let proof = ["ledger", "proof", "acme/prod", "--list", "doc:plan"];
    let written = home.json(&[proof.as_slice(), &["-o", &all]].concat());
    assert_eq!(
        (&written["count"], &written["resource_count"], &written["trust"], &written["vkey"]),
        (&41.into(), &41.into(), &"first-use".into(), &key.as_str().into())
    );
    home.json(&[proof.as_slice(), &["viewer", "-o", &viewers]].concat());
    home.json(&["ledger", "proof", "acme/prod", "--list", "doc:nothing", "-o", &nobody]);
    let online = home.json(&["ledger", "list", "acme/prod", "--resource", "doc:plan", "--verified"]);
    server.stop();

    let claim =
        home.json(&["verify", &all, "--vkey", &key, "--expect-vault", &id, "--expect-list", "doc:plan"]);
    assert_eq!(
        (&claim["complete"], &claim["count"], &claim["height"]),
        (&true.into(), &41.into(), &42.into())
    );
    assert_eq!(claim["members"], online["relationships"]);
    assert_eq!((&online["verified"], &online["trust"]), (&true.into(), &"pinned".into()));
    let members = claim["members"].as_array().expect("members");
    assert_eq!(members[0]["subject"], "team:core#member", "ordered by relation, then subject");
    assert_eq!(members[40]["subject"], "user:39");

    let claim = home.json(&["verify", &viewers, "--vkey", &key, "--expect-list", "doc:plan", "viewer"]);
    assert_eq!((&claim["count"], &claim["resource_count"]), (&VIEWERS.into(), &41.into()));
    let claim = home.json(&["verify", &nobody, "--vkey", &key, "--expect-list", "doc:nothing"]);
    assert_eq!((&claim["count"], &claim["members"]), (&0.into(), &serde_json::json!([])));
    let said = home.run(&["verify", &viewers, "--vkey", &key]);
    assert!(said.stdout.contains("complete list") && said.stdout.contains("user:39"), "{said:?}");

    for unexpected in [
        vec!["--expect-list", "doc:plan"],
        vec!["--expect-list", "doc:other", "viewer"],
        vec!["--expect-key", "doc:plan"],
        vec!["--expect-present"],
        vec!["--expect-vault", "00000000-0000-7000-8000-000000000000"],
    ] {
        let arguments = [&["verify", &viewers, "--vkey", &key], unexpected.as_slice()].concat();
        assert_eq!(home.refusal(5, &arguments)["code"], "VERIFICATION_FAILED");
    }
}

#[test]
fn no_byte_of_a_list_can_be_changed_and_no_member_left_out() {
    let (home, _server) = dev_with_vault();
    for subject in ["user:ada", "user:bob", "user:eve"] {
        home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", subject]);
    }
    let file = home.path("list.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "--list", "doc:plan", "-o", &file]);
    let good = std::fs::read(&file).expect("readable");
    let key = home.run(&["ledger", "vkey"]).stdout.trim_end().to_owned();
    let keys: [ledger_verify::note::VerifierKey; 1] = [key.parse().expect("a key")];
    let believed = |document: &[u8]| {
        let Ok((subject, evidence)) = ledger_verify::list::from_json(document) else { return false };
        // Whoever changes the question asks another one.
        subject.resource == "doc:plan" && ledger_verify::list::verify(&subject, &evidence, &keys).is_ok()
    };
    assert!(believed(&good));
    for offset in 0..good.len() {
        for bit in [0x01, 0x10] {
            let mut changed = good.clone();
            changed[offset] ^= bit;
            assert!(!believed(&changed), "byte {offset}");
        }
    }
    // The list from before a member came is another list, although its proof is as good.
    let (subject, old) = ledger_verify::list::from_json(&good).expect("a document");
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:zoe"]);
    home.json(&["ledger", "proof", "acme/prod", "--list", "doc:plan", "-o", &file]);
    let (_, new) =
        ledger_verify::list::from_json(&std::fs::read(&file).expect("readable")).expect("a document");
    let mixed = ledger_verify::list::ListEvidence { head: new.head, pages: old.pages };
    assert!(ledger_verify::list::verify(&subject, &mixed, &keys).is_err());
}

#[test]
fn the_verified_list_takes_a_resource_and_says_on_what_it_rests() {
    let (home, _server) = dev_with_vault();
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ada"]);
    for wrong in [
        ["--prefix", "doc:"].as_slice(),
        &["--subject", "user:ada"],
        &["--resource", "doc:plan", "--limit", "1"],
        &["--resource", "doc:plan", "--eventual"],
        &[],
    ] {
        let arguments = [&["ledger", "list", "acme/prod", "--verified"], wrong].concat();
        assert_eq!(home.run(&arguments).code, 2, "{wrong:?}");
    }
    let said = home.run(&["ledger", "list", "acme/prod", "--resource", "doc:plan", "--verified"]);
    assert!(said.stdout.contains("user:ada"), "{said:?}");
    assert!(said.stderr.contains("none left out"), "{said:?}");
    let plain = home.json(&["ledger", "list", "acme/prod", "--resource", "doc:plan"]);
    assert_eq!(plain.get("verified"), None, "a plain list claims nothing");
    home.refusal(2, &["ledger", "proof", "acme/prod", "--list", "no-colon"]);
    let both = ["ledger", "proof", "acme/prod", "key", "--list", "doc:plan"];
    assert_eq!(home.run(&both).code, 2);
}
