//! The cluster as operators see it, here of one node.

use crate::harness::dev_with_vault;

#[test]
fn the_status_of_a_ledger_alone_names_its_one_member() {
    let (home, server) = dev_with_vault();
    let status = home.json(&["ledger", "cluster", "status"]);
    let members = status["members"].as_array().expect("a list");
    assert_eq!(members.len(), 1);
    let (member, node) = (&members[0], &server.ready["nodes"][0]);
    assert_eq!(member["id"], node["id"]);
    assert_eq!((&member["role"], &status["leader_id"]), (&"leader".into(), &node["id"]));
    assert_eq!(status["answered_by"], node["id"]);
    for name in ["name", "url", "peer_address", "matched_index", "last_heard_ms", "pid", "answers"] {
        assert!(member.get(name).is_some(), "{name}: {member}");
    }
    assert_eq!((&member["answers"], &member["pid"]), (&true.into(), &node["pid"]), "it has just answered");
    let text = home.run(&["ledger", "cluster", "status"]).stdout;
    assert!(text.contains("this node") && !text.contains("does not answer"), "{text}");
    assert!(text.contains("LEADER") || text.contains("leader"), "{text}");
    assert!(text.contains(&node["id"].to_string()), "{text}");
}

#[test]
fn what_a_ledger_alone_cannot_do_is_refused_by_its_reason() {
    let (home, server) = dev_with_vault();
    let whole =
        [["--id", "77"], ["--name", "node-77"], ["--incarnation", "00112233445566778899aabbccddeeff"]]
            .concat();
    let join = [["ledger", "cluster", "join", "127.0.0.1:1"].as_slice(), &whole].concat();
    assert_eq!(home.refusal(1, &join)["code"], "NOT_IN_CLUSTER");
    assert_eq!(home.refusal(1, &["ledger", "cluster", "join", "127.0.0.1:1"])["code"], "NODE_UNREACHABLE");
    let half = ["ledger", "cluster", "join", "127.0.0.1:1", "--id", "77"];
    assert_eq!(home.run(&half).code, 2, "a number alone is not an identity");
    assert_eq!(home.refusal(3, &["ledger", "cluster", "remove", "nobody"])["code"], "UNKNOWN_NODE");
    assert_eq!(home.refusal(3, &["ledger", "cluster", "transfer", "nobody"])["code"], "UNKNOWN_NODE");
    assert_eq!(home.refusal(1, &["ledger", "cluster", "leave"])["code"], "NOT_IN_CLUSTER");
    let two = format!("{0},{0}", server.url());
    assert_eq!(home.refusal(2, &["ledger", "cluster", "leave", "--url", &two])["code"], "USAGE");
}

#[test]
fn a_list_of_urls_works_while_one_of_them_answers() {
    let (home, server) = dev_with_vault();
    let token = server.ready["token_file"].as_str().expect("a token file");
    let urls = format!("http://127.0.0.1:1,{},http://127.0.0.1:2", server.url());
    let at = |arguments: &[&str]| home.run(&[arguments, &["--url", &urls, "--token-file", token]].concat());
    let said = at(&["ledger", "put", "acme/prod", "door", "open"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(at(&["ledger", "get", "acme/prod", "door"]).stdout, "open");
    assert_eq!(at(&["ledger", "cluster", "status"]).code, 0);
    let dead = home.run(&["ledger", "vkey", "--url", "http://127.0.0.1:1,http://127.0.0.1:2"]);
    assert_eq!(dead.code, 7, "{dead:?}");
}
