//! Who may do what.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::dev_with_vault;

#[test]
fn a_token_is_limited_to_its_role_and_scope_and_ends_when_revoked() {
    let (home, server) = dev_with_vault();
    home.json(&["ledger", "vault", "create", "acme/other"]);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let file = home.path("reader.token").display().to_string();
    let create = ["ledger", "token", "create", "--role", "reader", "--scope", "acme/prod", "-o", &file];
    let made = home.json(&create);
    assert_eq!((&made["role"], &made["scope"]), (&"reader".into(), &"acme/prod".into()));
    assert!(made.get("token").is_none(), "the secret is in the file only");
    assert_eq!(std::fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);
    assert_eq!(home.refusal(1, &create)["code"], "FILE", "an existing file is not overwritten");

    let as_reader = |arguments: &[&str]| {
        home.run(&[arguments, &["--token-file", &file, "--url", server.url(), "--json"]].concat())
    };
    assert_eq!(as_reader(&["ledger", "get", "acme/prod", "door"]).code, 0);
    assert_eq!(as_reader(&["ledger", "get", "acme/prod", "door", "--verify"]).code, 0);
    for forbidden in [
        vec!["ledger", "put", "acme/prod", "door", "open"],
        vec!["ledger", "get", "acme/other", "door"],
        vec!["ledger", "vault", "create", "acme/mine"],
        vec!["ledger", "vault", "delete", "acme/prod"],
        vec!["ledger", "token", "list"],
        vec!["ledger", "token", "create", "--role", "admin", "--scope", "*"],
    ] {
        let said = as_reader(&forbidden);
        assert_eq!(said.code, 6, "{forbidden:?}: {said:?}");
        assert!(said.refusal()["hint"].is_string());
    }
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door"]).stdout, "locked");

    let id = made["id"].as_str().expect("an id");
    let listed = home.json(&["ledger", "token", "list"]);
    assert_eq!(listed["tokens"].as_array().map(Vec::len), Some(2));
    assert!(!listed.to_string().contains("sr_"), "no secret is ever listed");
    home.json(&["ledger", "token", "revoke", id]);
    assert_eq!(as_reader(&["ledger", "get", "acme/prod", "door"]).code, 6);
    assert_eq!(home.refusal(3, &["ledger", "token", "revoke", id])["code"], "TOKEN_NOT_FOUND");
    let last = listed["tokens"].as_array().expect("a list").iter().find(|token| token["role"] == "admin");
    let last = last.and_then(|token| token["id"].as_str()).expect("the first token");
    assert_eq!(home.refusal(1, &["ledger", "token", "revoke", last])["code"], "LAST_ADMIN_TOKEN");
}

#[test]
fn writes_carry_the_tokens_actor() {
    let (home, server) = dev_with_vault();
    let made = home
        .json(&["ledger", "token", "create", "--role", "writer", "--scope", "acme", "--actor", "user:ada"]);
    let file = home.write("ada.token", format!("{}\n", made["token"].as_str().expect("shown once")));
    assert_eq!(made["actor"], "user:ada");
    home.json(&["ledger", "put", "acme/prod", "door", "open", "--url", server.url(), "--token-file", &file]);
    let runtime = crate::harness::runtime();
    let client = crate::harness::client(&runtime, &server, &home.path("pins"));
    runtime.block_on(async {
        let block = client.block(&crate::harness::vault(), 1).await.expect("block 1");
        let transaction =
            ledger_verify::transaction::decode(&block.transactions[0]).expect("canonical bytes");
        assert_eq!(transaction.header.actor, "user:ada");
    });
}

#[test]
fn without_a_token_nothing_is_answered() {
    let (home, server) = dev_with_vault();
    // Another server's token is not sent: the URL is named, the token is not.
    let anonymous = format!("http://localhost:{}", server.url().rsplit(':').next().expect("a port"));
    let said = home.run(&["ledger", "get", "acme/prod", "door", "--url", &anonymous, "--json"]);
    assert_eq!(said.code, 6, "{said:?}");
    let wrong =
        home.write("wrong.token", "sr_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
    assert_eq!(
        home.refusal(6, &["ledger", "get", "acme/prod", "door", "--token-file", &wrong])["code"],
        "CREDENTIAL_REFUSED"
    );
    let no_token = home.write("no.token", "hello\n");
    assert_eq!(home.refusal(2, &["ledger", "vkey", "--token-file", &no_token])["code"], "USAGE");
    assert_eq!(home.refusal(1, &["ledger", "vkey", "--token-file", "missing"])["code"], "FILE");
}

#[test]
fn the_first_token_file_is_private() {
    let (_home, server) = dev_with_vault();
    let file = server.ready["token_file"].as_str().expect("a token file");
    assert_eq!(std::fs::metadata(file).expect("written").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(file).expect("readable");
    assert_eq!(text.lines().count(), 1);
    assert!(text.starts_with("sr_"));
}
