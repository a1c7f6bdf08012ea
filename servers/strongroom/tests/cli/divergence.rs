//! A member whose disk says something else than its cluster: what an operator sees of it, and that it comes back.

use std::sync::Arc;

use ledger_core::command::{Command, Outcome, Proposal, Submission};
use ledger_core::ledger_state::LedgerState;
use ledger_core::names::VaultId;
use ledger_core::ports::{LogId, StateBatch, StateStore as _};
use ledger_core::transaction::{Actor, IdempotencyKey, Transaction};
use ledger_verify::Hash;
use serde_json::Value;
use storage_adapters::redb::{RedbOptions, RedbStateStore};

use crate::cluster_settings::two;
use crate::forming::{Node, Operator, addresses, members, start_together};
use crate::harness::{Home, Server, eventually, free_port, put, vault};

const EVERY_NODE: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The stopped node's disk gets one more block, of a write that nobody made. All of it fits together.
fn plant_block(home: &Home, node: &str) {
    let options = RedbOptions::default();
    let store = Arc::new(RedbStateStore::open(&home.path(node), options).expect("the state opens"));
    let mut state = LedgerState::load(store.clone()).expect("it is sound");
    let applied = store.applied().expect("readable").expect("not empty");
    let at = LogId { index: applied.last_applied.index + 1, ..applied.last_applied };
    let time_ms = state.log_time_ms();
    let transaction = Transaction::new(IdempotencyKey::from_parts(time_ms, [7; 10]), put("door", "forged"));
    let submission = Submission {
        vault: state.vault_id(&vault()).expect("a vault"),
        actor: Actor::new("client:nobody").expect("an actor"),
        transaction: transaction.expect("valid"),
    };
    let proposal = Proposal { time_ms, command: Command::Write { submissions: vec![submission] } };
    let Outcome::Writes(answers) = state.apply(at, &proposal).expect("applied") else { panic!("a write") };
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let planted = state.start_flush().expect("something to write").batch();
    // As far as the log is concerned nothing has happened.
    store.commit(&StateBatch { applied, ..planted }).expect("written");
}

/// Every vault of a stopped node with its height, newest block and state root, from trees that are built anew.
fn tips(home: &Home, node: &str) -> Vec<(VaultId, u64, Hash, Hash)> {
    let store = RedbStateStore::open(&home.path(node), RedbOptions::default()).expect("the state opens");
    LedgerState::load(Arc::new(store)).expect("it is sound").tips().collect()
}

/// The page shows what was so a moment ago.
fn await_metrics(server: &Server, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        eventually(&format!("{name} is {value}"), || (server.metric(name)? == *value).then_some(()));
    }
}

fn id(server: &Server) -> u64 {
    server.ready["nodes"][0]["id"].as_u64().expect("an id")
}

/// Where the leader is among these.
fn leader(operator: &Operator<'_>, servers: &[Server]) -> usize {
    eventually("somebody leads", || {
        let leads = operator.status()["leader_id"].as_u64();
        servers.iter().position(|server| Some(id(server)) == leads)
    })
}

/// What the status says of one member's differences.
fn divergences(status: &Value, node: &str) -> Vec<Value> {
    let member = members(status).iter().find(|member| member["name"] == node).expect("a member");
    member["divergences"].as_array().expect("a list").clone()
}

/// Each of these nodes serves the same newest block and root of the vault.
fn await_same_block(operator: &Operator<'_>, servers: &[&Server]) -> Value {
    eventually("all have the same newest block", || {
        let mut seen = servers.iter().map(|server| {
            let said = operator.home.run(
                &[operator.at(server).arguments(&["vault", "show", "acme/prod"]), vec!["--json"]].concat(),
            );
            let shown: Value = serde_json::from_str(&said.stdout).ok()?;
            Some(["height", "block_hash", "state_root"].map(|field| shown[field].clone()))
        });
        let first = seen.next().flatten()?;
        assert!(first.iter().all(|field| !field.is_null()), "{first:?}");
        seen.all(|other| other.as_ref() == Some(&first)).then(|| Value::from(first.to_vec()))
    })
}

#[test]
fn a_member_with_another_block_on_its_disk_is_reported_everywhere_and_takes_the_leaders_content_over() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let flags = ["--bootstrap", "3", "--join", &known];
    let mut servers = Vec::from(start_together(&home, &nodes, &flags));
    let token_file = {
        let all = Operator::of(&home, &servers);
        all.makes_vault();
        all.puts("locked");
        home.write("kept.token", std::fs::read_to_string(&all.token_file).expect("readable"))
    };
    let of = |servers: &[Server]| Operator { token_file: token_file.clone(), ..Operator::of(&home, servers) };
    let wrong = (leader(&of(&servers), &servers) + 1) % 3;
    let name = nodes[wrong].name;
    await_same_block(&of(&servers), &servers.iter().collect::<Vec<_>>());

    servers.remove(wrong).stop();
    of(&servers).puts("open");
    plant_block(&home, name);
    let forged = tips(&home, name);
    let follower = nodes[wrong].start(&home, &flags);
    eventually("it recovers", || (follower.metric("ledger_peer_recoveries_total")? == 1.0).then_some(()));
    let shown = await_same_block(&of(&servers), &[&servers[0], &servers[1], &follower]);
    assert_ne!(shown[2], hex::encode(forged[0].3), "{shown}");
    let at = of(&servers).at(&follower);
    assert_eq!(at.gets(), "open", "verified, from the node that differed");

    let settled =
        |status: &Value| divergences(status, name).first().is_some_and(|found| found["state"] == "recovered");
    let status = eventually("it is on the list", || Some(at.status()).filter(settled));
    let found = divergences(&status, name);
    assert_eq!(found.len(), 1, "{status}");
    let found = &found[0];
    assert_eq!((&found["kind"], &found["vault"]), (&"block".into(), &"acme/prod".into()), "{found}");
    assert_eq!((&found["position"], &found["attempts"]), (&forged[0].1.into(), &1.into()), "{found}");
    assert_eq!(found["own_state_root"], hex::encode(forged[0].3), "{found}");
    assert_eq!(found["own_digest"], hex::encode(forged[0].2), "{found}");
    assert_ne!(found["leader_state_root"], found["own_state_root"]);
    assert_eq!(found["with_this_node"], serde_json::json!([id(&follower)]), "{found}");
    assert_eq!(found["with_leader"].as_array().map(Vec::len), Some(2), "{found}");
    for other in EVERY_NODE.into_iter().filter(|other| *other != name) {
        assert_eq!(divergences(&status, other), Vec::<Value>::new());
    }
    let text = home.run(&at.arguments(&["cluster", "status"])).stdout;
    let line = format!("{name} differed from its leader: block acme/prod at {}: recovered", forged[0].1);
    assert!(text.contains(&line), "{line}: {text}");
    let settled = [
        ("ledger_vaults_diverged_total", 1.0),
        ("ledger_peer_recoveries_begun_total", 1.0),
        ("ledger_peer_recoveries_total", 1.0),
        ("ledger_peer_recoveries_failed_total", 0.0),
        ("ledger_divergences_open", 0.0),
        ("ledger_vaults_fenced", 0.0),
    ];
    await_metrics(&follower, &settled);
    for server in &servers {
        await_metrics(server, &[("ledger_vaults_diverged_total", 0.0), ("ledger_leader_alone_total", 0.0)]);
    }

    let log = follower.stop();
    let reported = |line: &str| {
        line.contains("this node has something else than the leader")
            && line.contains("acme/prod")
            && line.contains(&hex::encode(forged[0].3))
    };
    assert!(log.lines().any(reported), "{log}");
    servers.into_iter().for_each(|server| drop(server.stop()));
    let same = EVERY_NODE.map(|node| tips(&home, node));
    assert!(same.iter().all(|tips| *tips == same[0] && tips.len() == 1), "{same:?}");
    for node in EVERY_NODE {
        let data = home.path(node).display().to_string();
        let report = home.json(&["ledger", "doctor", "--data", &data]);
        assert_eq!(report["sound"], true, "{report}");
        let listed = report["divergences"].as_array().expect("a list");
        assert_eq!(listed.len(), usize::from(node == name), "{report}");
        assert!(
            listed.iter().all(|found| found["state"] == "recovered" && found["kind"] == "block"),
            "{report}"
        );
    }
    let data = home.path(name).display().to_string();
    let text = home.run(&["ledger", "doctor", "--data", &data]).stdout;
    assert!(text.contains("acme/prod") && text.contains("recovered"), "{text}");
}

#[test]
fn of_two_members_that_differ_an_operator_says_who_is_right() {
    let home = Home::new();
    let ports = [free_port(), free_port()];
    let join = format!("{},{}", ports[0], ports[1]);
    let flags = ["--peer-insecure", "--join", &join];
    let servers = two(&home, ports, &flags);
    let token_file = {
        let all = Operator::of(&home, &servers);
        all.makes_vault();
        all.puts("locked");
        home.write("kept.token", std::fs::read_to_string(&all.token_file).expect("readable"))
    };
    servers.into_iter().for_each(|server| drop(server.stop()));
    plant_block(&home, "node-2");
    let servers = two(&home, ports, &flags);
    let all = Operator { token_file, ..Operator::of(&home, &servers) };
    // Whoever does not lead differs from its leader; nobody can say who is right.
    all.puts("open");
    let fenced = |server: &Server| server.metric("ledger_vaults_fenced") == Some(1.0);
    let wrong = eventually("one is fenced", || servers.iter().position(fenced));
    let (follower, leads) = (&servers[wrong], &servers[1 - wrong]);
    let at = all.at(follower);
    let refused = home.refusal(7, &at.arguments(&["get", "acme/prod", "door", "--eventual"]));
    assert_eq!(refused["code"], "VAULT_DIVERGED", "{refused}");
    await_metrics(follower, &[("ledger_divergences_open", 1.0), ("ledger_peer_recoveries_begun_total", 0.0)]);
    let name = EVERY_NODE[wrong];
    let found = divergences(&at.status(), name);
    assert_eq!((found.len(), &found[0]["state"], &found[0]["attempts"]), (1, &"open".into(), &0.into()));
    let text = home.run(&at.arguments(&["cluster", "status"])).stdout;
    assert!(
        text.contains(&format!("{name} differed from its leader: ")) && text.contains(": open"),
        "{text}"
    );

    let recovered = at.does(&["recover", "acme/prod"]);
    assert_eq!(recovered["from_node_id"], id(leads), "{recovered}");
    let shown = await_same_block(&all, &[leads, follower]);
    assert_eq!(recovered["state_root"], shown[2], "{recovered}");
    let found = divergences(&at.status(), name);
    assert_eq!((found.len(), &found[0]["state"]), (1, &"recovered".into()), "{found:?}");
    await_metrics(
        follower,
        &[
            ("ledger_divergences_open", 0.0),
            ("ledger_vaults_fenced", 0.0),
            ("ledger_peer_recoveries_total", 1.0),
        ],
    );
}
