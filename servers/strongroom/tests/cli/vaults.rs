//! Namespaces and vaults.

use crate::harness::{Home, Server};

#[test]
fn namespaces_and_vaults_are_made_listed_shown_and_deleted() {
    let home = Home::new();
    let _server = Server::dev(&home);
    assert_eq!(home.json(&["ledger", "namespace", "list"])["namespaces"], serde_json::json!([]));
    home.json(&["ledger", "namespace", "create", "acme"]);
    assert_eq!(home.refusal(1, &["ledger", "namespace", "create", "acme"])["code"], "NAMESPACE_EXISTS");
    assert_eq!(home.refusal(3, &["ledger", "vault", "create", "nobody/prod"])["code"], "NAMESPACE_NOT_FOUND");
    let vault = home.json(&["ledger", "vault", "create", "acme/prod"]);
    assert_eq!((&vault["height"], &vault["version"], &vault["key_count"]), (&0.into(), &0.into(), &0.into()));
    assert_eq!(home.refusal(1, &["ledger", "vault", "create", "acme/prod"])["code"], "VAULT_EXISTS");
    home.json(&["ledger", "vault", "create", "acme/test"]);
    home.json(&["ledger", "namespace", "create", "zeta"]);
    home.json(&["ledger", "vault", "create", "zeta/one"]);
    let names = |arguments: &[&str]| -> Vec<String> {
        let listed = home.json(&[&["ledger", "vault", "list"], arguments].concat());
        let vaults = listed["vaults"].as_array().expect("a list").iter();
        vaults.map(|vault| vault["vault"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&[]), ["acme/prod", "acme/test", "zeta/one"]);
    assert_eq!(names(&["acme"]), ["acme/prod", "acme/test"]);
    assert_eq!(home.json(&["ledger", "namespace", "show", "acme"])["vault_count"], 2);
    assert_eq!(home.refusal(1, &["ledger", "namespace", "delete", "acme"])["code"], "NAMESPACE_NOT_EMPTY");

    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let shown = home.json(&["ledger", "vault", "show", "acme/prod"]);
    assert_eq!((&shown["height"], &shown["version"], &shown["key_count"]), (&1.into(), &1.into(), &1.into()));
    assert!(
        shown["origin"].as_str().zip(shown["id"].as_str()).is_some_and(|(origin, id)| origin.ends_with(id))
    );
    assert_eq!(home.json(&["ledger", "vault", "delete", "acme/prod"])["id"], vault["id"]);
    assert_eq!(home.refusal(3, &["ledger", "vault", "show", "acme/prod"])["code"], "VAULT_NOT_FOUND");
    assert_eq!(home.refusal(3, &["ledger", "get", "acme/prod", "door"])["code"], "VAULT_NOT_FOUND");
    // A new vault of the same name is another one.
    assert_ne!(home.json(&["ledger", "vault", "create", "acme/prod"])["id"], vault["id"]);
    assert_eq!(home.run(&["ledger", "get", "acme/prod", "door"]).code, 3);
    home.json(&["ledger", "vault", "delete", "acme/prod"]);
    home.json(&["ledger", "vault", "delete", "acme/test"]);
    home.json(&["ledger", "namespace", "delete", "acme"]);
    assert_eq!(home.refusal(3, &["ledger", "namespace", "show", "acme"])["code"], "NAMESPACE_NOT_FOUND");
}

#[test]
fn tables_for_people_are_aligned() {
    let home = Home::new();
    let _server = Server::dev(&home);
    assert_eq!(home.run(&["ledger", "vault", "list"]).stdout, "(none)\n");
    home.run(&["ledger", "namespace", "create", "acme"]);
    home.run(&["ledger", "vault", "create", "acme/production-of-keys"]);
    let table = home.run(&["ledger", "vault", "list"]).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(lines[0].find("KEYS"), lines[1].find('0'), "{table}");
}
