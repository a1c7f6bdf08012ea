//! Nodes that leave their cluster for one of their own, and clusters whose key is rotated.

use std::path::Path;

use ledger_node::forming::force_new_cluster;
use ledger_node::{NodeDirectory, Stores};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use crate::forming::{Node, Operator, addresses, members, start_together};
use crate::harness::{Home, Server, eventually};
use crate::name_server::NameServer;

fn kept_token(home: &Home, operator: &Operator<'_>) -> String {
    home.write("kept.token", std::fs::read_to_string(&operator.token_file).expect("readable"))
}

fn kill(mut server: Server) {
    server.child.kill().expect("killed");
    server.child.wait().expect("it ends");
}

#[test]
fn a_node_is_forced_only_when_no_other_member_answers_and_only_once() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let flags = ["--bootstrap", "3", "--join", &known];
    let servers = start_together(&home, &nodes, &flags);
    let all = Operator::of(&home, &servers);
    let token_file = kept_token(&home, &all);
    all.makes_vault();
    all.puts("locked");
    assert_eq!(all.at(&servers[1]).gets(), "locked");
    let [first, second, third] = servers;
    let two = Operator { home: &home, urls: format!("{},{}", first.url(), third.url()), token_file };
    let cluster_id = two.status()["cluster_id"].clone();
    second.stop();

    let force = ["--force-new-cluster"];
    let said = nodes[1].try_start(&home, &force).err().expect("the others are alive");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("node-1 at") || said.stdout.contains("node-3 at"), "{said:?}");
    // Nothing was done: it comes back as the member that it was.
    let second = nodes[1].start(&home, &flags);
    assert_eq!(two.at(&second).status()["cluster_id"], cluster_id);
    two.awaits_voters(&["node-1", "node-2", "node-3"]);

    kill(first);
    kill(third);
    // Nobody leads, and the node says so instead of naming who did.
    let last = two.at(&second);
    let status =
        eventually("it notices", || Some(last.status()).filter(|status| status["leader_id"].is_null()));
    assert!(members(&status).iter().all(|member| member["role"] == "voter"), "{status}");
    let shown = home.run(&last.arguments(&["cluster", "status"])).stdout;
    assert!(shown.contains("nobody leads"), "{shown}");
    second.stop();

    let forced = nodes[1].start(&home, &force);
    let last = last.at(&forced);
    let forced_id = last.awaits_voters(&["node-2"])["cluster_id"].clone();
    assert_ne!(forced_id, cluster_id);
    assert_eq!(last.gets(), "locked");
    forced.stop();
    let said = nodes[1].try_start(&home, &force).err().expect("it is done");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("only member") && said.stdout.contains("Remove the flag"), "{said:?}");
    let back = nodes[1].start(&home, &[]);
    assert_eq!(last.at(&back).awaits_voters(&["node-2"])["cluster_id"], forced_id);
}

/// How far a forced start came before the machine went.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Came {
    ToTheLog,
    ToTheState,
}

/// Forces a stopped node as its start does, and takes back what comes after the interruption.
fn force_interrupted(data: &Path, came: Came) {
    let lost = match came {
        Came::ToTheLog => ["cluster", "state.db", "blocks.db"].as_slice(),
        Came::ToTheState => &["cluster"],
    };
    let read = |name: &&str| (data.join(name), std::fs::read(data.join(name)).expect("readable"));
    let before: Vec<_> = lost.iter().map(read).collect();
    {
        let mut directory = NodeDirectory::open(data, None).expect("it is free");
        let stores = EmbeddedStores::open(data, RedbOptions::default()).expect("they open");
        let stores = Stores { log: stores.log, state: stores.state };
        force_new_cluster(&mut directory, &stores).expect("it is a member of three");
    }
    before.into_iter().for_each(|(path, content)| std::fs::write(path, content).expect("written"));
}

#[test]
fn a_forced_start_that_was_interrupted_is_repeated_and_nothing_else_goes_on_before() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &known]);
    let all = Operator::of(&home, &servers);
    let token_file = kept_token(&home, &all);
    all.makes_vault();
    all.puts("locked");
    let cluster_id = all.status()["cluster_id"].clone();
    for server in &servers {
        assert_eq!(all.at(server).gets(), "locked");
    }
    servers.into_iter().for_each(kill);
    // Each of two is the last one in a disaster of its own.
    for (node, came) in [(&nodes[0], Came::ToTheLog), (&nodes[1], Came::ToTheState)] {
        let data = home.path(node.name);
        // An attempt that is repeated may be interrupted as well.
        for _ in 0..2 {
            force_interrupted(&data, came);
            let said =
                node.try_start(&home, &[]).err().unwrap_or_else(|| panic!("{came:?}: half of two clusters"));
            assert_eq!(said.code, 1, "{came:?}: {said:?}");
            let says = "with --force-new-cluster was interrupted";
            assert!(said.stdout.contains(says), "{came:?}: {said:?}");
        }
        let forced = node.start(&home, &["--force-new-cluster"]);
        let alone = Operator { home: &home, urls: forced.url().to_owned(), token_file: token_file.clone() };
        let forced_id = alone.awaits_voters(&[node.name])["cluster_id"].clone();
        assert_ne!(forced_id, cluster_id);
        assert_eq!(alone.gets(), "locked");
        if came == Came::ToTheState {
            // After both: a client that has seen this would tell the other one's history apart.
            alone.puts("locked");
        }
        forced.stop();
        let said = node.try_start(&home, &["--force-new-cluster"]).err().expect("it is done");
        assert!(said.stdout.contains("only member"), "{said:?}");
        let back = node.start(&home, &[]);
        assert_eq!(alone.at(&back).awaits_voters(&[node.name])["cluster_id"], forced_id);
        assert_eq!(alone.at(&back).gets(), "locked");
        back.stop();
        let report = home.json(&["ledger", "doctor", "--data", &data.display().to_string()]);
        assert_eq!(report["sound"], true, "{report}");
    }
}

#[test]
fn a_cluster_of_one_rotates_its_key_and_whoever_comes_back_takes_the_new_one() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &known]);
    let all = Operator::of(&home, &servers);
    let token_file = kept_token(&home, &all);
    all.makes_vault();
    let old = servers[0].ready["vkey"].as_str().expect("a key").to_owned();
    let [first, second, third] = servers;
    let one = Operator { home: &home, urls: first.url().to_owned(), token_file };
    for (name, server) in [("node-2", second), ("node-3", third)] {
        let removed = one.does(&["cluster", "remove", name]);
        assert_eq!((&removed["change"], &removed["name"]), (&"removed".into(), &name.into()));
        server.stop();
    }
    one.awaits_voters(&["node-1"]);
    // Nothing was written after the changes of the membership.
    first.stop();
    let rotate = |node: &Node| {
        let data = home.path(node.name).display().to_string();
        home.run(&["ledger", "key", "rotate", "--data", &data, "--json"])
    };
    let refused = rotate(&nodes[1]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let rotated = rotate(&nodes[0]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let first = nodes[0].start(&home, &[]);
    let new = first.ready["vkey"].as_str().expect("a key").to_owned();
    assert_ne!(new, old);
    let one = one.at(&first);

    // On the directory that it had, with the old key.
    let second = nodes[1].start(&home, &["--rejoin"]);
    assert_eq!(second.ready["vkey"], new.as_str());
    one.awaits_voters(&["node-1", "node-2"]);
    assert_eq!(one.at(&second).does(&["vkey"])["vkey"], new.as_str());

    // Taken in while it runs with the old key: it stops rather than sign with that, and starts with the new one.
    let ended = std::thread::scope(|scope| {
        let waits = scope.spawn(|| nodes[2].try_start(&home, &[]));
        let address = nodes[2].peer_address.to_string();
        eventually("it is taken in", || {
            let said = home.run(&one.arguments(&["cluster", "join", &address]));
            (said.code == 0).then_some(())
        });
        waits.join().expect("it ends").err().expect("it has the old key")
    });
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("the key was rotated"), "{ended:?}");
    let third = nodes[2].start(&home, &[]);
    assert_eq!(third.ready["vkey"], new.as_str());
    one.awaits_voters(&["node-1", "node-2", "node-3"]);
    one.puts("locked");
    assert_eq!(one.at(&third).gets(), "locked");
}

#[test]
fn a_name_that_does_not_exist_and_no_address_at_all_are_told_apart() {
    let home = Home::new();
    let nodes = Node::three();
    let resolver = NameServer::knowing("ledger.example.com", Vec::new());
    let address = resolver.address.to_string();
    let wait = ["--bootstrap", "3", "--bootstrap-timeout", "1s"];
    for (found, says) in [
        (
            &["--discovery", "nosuch.invalid", "--discovery-resolver", &address][..],
            "nosuch.invalid does not exist",
        ),
        (
            &["--discovery", "ledger.example.com", "--discovery-resolver", &address],
            "ledger.example.com has no addresses",
        ),
        (&[], "was given no address of another"),
    ] {
        let said = nodes[0].try_start(&home, &[&wait, found].concat()).err().expect("it is alone");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stdout.contains(says), "{says}: {said:?}");
    }
}
