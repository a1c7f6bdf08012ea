//! Copies of the directory of a cluster's member: they may lack what the member acknowledged, so they never vote as it.

use ledger_node::NodeDirectory;

use crate::backups::copy_tree;
use crate::forming::{Node, Operator, addresses, members, start_together};
use crate::harness::{Home, Said, Server};

/// A copy of a node's directory as it is now, put away.
fn copy(home: &Home, node: &Node) {
    copy_tree(&home.path(node.name), &home.path(&format!("{}.copy", node.name)));
}

/// Puts that copy in the place of the directory, which is lost.
fn put_back(home: &Home, node: &Node) {
    let (data, copy) = (home.path(node.name), home.path(&format!("{}.copy", node.name)));
    std::fs::remove_dir_all(&data).expect("lost");
    std::fs::rename(copy, data).expect("in its place");
}

fn node_id(home: &Home, node: &Node) -> u64 {
    let text = std::fs::read_to_string(home.path(node.name).join("node_id")).expect("an id");
    text.trim_end().parse().expect("a number")
}

/// The administrator's token, where no lost directory takes it along.
fn keep_token(home: &Home, operator: &Operator<'_>) -> String {
    home.write("kept.token", std::fs::read_to_string(&operator.token_file).expect("readable"))
}

/// A cluster of these nodes with a value, and its token.
fn founded(home: &Home, nodes: &[Node; 3], flags: &[&str], value: &str) -> ([Server; 3], String) {
    let servers = start_together(home, nodes, flags);
    let all = Operator::of(home, &servers);
    all.makes_vault();
    all.puts(value);
    let token = keep_token(home, &all);
    (servers, token)
}

fn operator<'a>(home: &'a Home, servers: &[&Server], token_file: &str) -> Operator<'a> {
    let urls: Vec<_> = servers.iter().map(|server| server.url()).collect();
    Operator { home, urls: urls.join(","), token_file: token_file.to_owned() }
}

/// The start of a copy under an id that peers trust.
fn assert_refused(home: &Home, node: &Node, started: Result<Server, Said>) {
    let said = started.err().unwrap_or_else(|| panic!("{} took part", node.name));
    assert_eq!(said.code, 1, "{said:?}");
    for part in ["is a copy of that of node", &node_id(home, node).to_string(), "--force-new-cluster"] {
        assert!(said.stdout.contains(part), "{part}: {said:?}");
    }
}

fn has_member(operator: &Operator<'_>, id: u64) -> bool {
    members(&operator.status()).iter().any(|member| member["id"] == id)
}

#[test]
fn an_old_copy_of_a_member_elects_nobody_who_lacks_what_it_acknowledged() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let flags = ["--bootstrap", "3", "--join", &known];
    let ([first, second, third], token) = founded(&home, &nodes, &flags, "old");
    second.stop();
    copy(&home, &nodes[1]);
    let second = nodes[1].start(&home, &flags);
    let two = operator(&home, &[&first, &second], &token);
    two.awaits_voters(&["node-1", "node-2", "node-3"]);
    third.stop();
    two.puts("acknowledged");
    first.stop();
    second.stop();
    put_back(&home, &nodes[1]);
    let old_id = node_id(&home, &nodes[1]);

    // The third node missed the write: with the vote of the copy it would lead without it.
    let (first, third) = std::thread::scope(|scope| {
        let third = scope.spawn(|| nodes[2].start(&home, &flags));
        let longer_than_patience = [flags.as_slice(), &["--bootstrap-timeout", "5s"]].concat();
        assert_refused(&home, &nodes[1], nodes[1].try_start(&home, &longer_than_patience));
        assert!(!third.is_finished(), "it is alone");
        (nodes[0].start(&home, &flags), third.join().expect("it starts"))
    });
    assert_eq!(operator(&home, &[&first, &third], &token).gets(), "acknowledged");
    assert_eq!(node_id(&home, &nodes[1]), old_id, "nobody told it anything");
    let second = nodes[1].start(&home, &flags);
    assert_eq!(operator(&home, &[&second], &token).gets(), "acknowledged");
    assert_ne!(node_id(&home, &nodes[1]), old_id);
}

#[test]
fn the_old_copy_of_a_node_that_was_alone_does_not_lead_beside_the_cluster_that_grew() {
    let home = Home::new();
    let nodes = Node::three();
    let first = nodes[0].start(&home, &["--bootstrap", "1"]);
    let alone = Operator::of(&home, std::slice::from_ref(&first));
    alone.makes_vault();
    alone.puts("old");
    let token = keep_token(&home, &alone);
    first.stop();
    copy(&home, &nodes[0]);
    let first = nodes[0].start(&home, &[]);
    let joining = ["--bootstrap", "0", "--join", &nodes[0].peer_address.to_string()];
    let [second, third] = [&nodes[1], &nodes[2]].map(|node| node.start(&home, &joining));
    operator(&home, &[&first, &second, &third], &token).awaits_voters(&["node-1", "node-2", "node-3"]);
    first.stop();
    let two = operator(&home, &[&second, &third], &token);
    two.puts("new");
    put_back(&home, &nodes[0]);
    let old_id = node_id(&home, &nodes[0]);

    // It knows nobody that it could ask.
    for more in [&["--bootstrap-timeout", "1s"][..], &["--bootstrap-timeout", "1s", "--bootstrap", "1"]] {
        assert_refused(&home, &nodes[0], nodes[0].try_start(&home, more));
    }
    let data = home.path("node-1").display().to_string();
    let without_peers = [Home::serve(&data).as_slice(), &["--json"]].concat();
    assert_refused(&home, &nodes[0], Server::spawn(&mut home.command(&without_peers)));
    let first = nodes[0].start(&home, &["--join", &nodes[1].peer_address.to_string()]);
    assert_ne!(node_id(&home, &nodes[0]), old_id);
    assert!(has_member(&two, node_id(&home, &nodes[0])));
    assert_eq!(operator(&home, &[&first], &token).gets(), "new");
}

#[test]
fn a_copied_member_joins_as_a_new_node_where_somebody_leads_and_stays_that_node() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let flags = ["--bootstrap", "3", "--join", &known];
    let ([first, second, third], token) = founded(&home, &nodes, &flags, "locked");
    third.stop();
    copy(&home, &nodes[2]);
    put_back(&home, &nodes[2]);
    let (old_id, two) = (node_id(&home, &nodes[2]), operator(&home, &[&first, &second], &token));
    two.puts("open");

    // What the membership in its log says is enough to find the others.
    let third = nodes[2].start(&home, &[]);
    let new_id = node_id(&home, &nodes[2]);
    assert_ne!(new_id, old_id);
    assert_eq!(third.ready["nodes"][0]["id"], new_id);
    assert!(has_member(&two, new_id));
    assert_eq!(operator(&home, &[&third], &token).gets(), "open");
    third.stop();
    let third = nodes[2].start(&home, &flags);
    assert_eq!(third.ready["nodes"][0]["id"], new_id, "this directory is its own");
}

#[test]
fn cold_copies_of_all_nodes_are_refused_until_one_is_forced_which_has_everything() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let flags = ["--bootstrap", "3", "--join", &known];
    let (servers, token) = founded(&home, &nodes, &flags, "locked");
    // A copy can go on with what its node knew to be decided.
    assert_eq!(operator(&home, &[&servers[2]], &token).gets(), "locked");
    for server in servers {
        server.stop();
    }
    for node in &nodes {
        copy(&home, node);
        put_back(&home, node);
    }
    let brief = [flags.as_slice(), &["--bootstrap-timeout", "4s"]].concat();
    std::thread::scope(|scope| {
        let starting = nodes.each_ref().map(|node| scope.spawn(|| node.try_start(&home, &brief)));
        for (node, started) in nodes.iter().zip(starting) {
            assert_refused(&home, node, started.join().expect("it ends"));
        }
    });

    let forced = nodes[2].start(&home, &["--force-new-cluster"]);
    let forced_at = operator(&home, &[&forced], &token);
    forced_at.awaits_voters(&["node-3"]);
    assert_eq!(forced_at.gets(), "locked");
    forced.stop();
    // Forcing is done once.
    let forced = nodes[2].start(&home, &[]);
    operator(&home, &[&forced], &token).puts("open");
    let joining = ["--bootstrap", "0", "--join", &nodes[2].peer_address.to_string()];
    let _joined = [&nodes[0], &nodes[1]].map(|node| {
        std::fs::remove_dir_all(home.path(node.name)).expect("emptied");
        let server = node.start(&home, &joining);
        assert_eq!(operator(&home, &[&server], &token).gets(), "open");
        server
    });
}

#[test]
fn a_directory_that_gave_its_identity_up_founds_no_cluster_of_its_own() {
    let home = Home::new();
    let [one, two, _] = Node::three();
    // The other receives everything and does not vote: without it the first goes on.
    let first = one.start(&home, &["--bootstrap", "1", "--voters-max", "1"]);
    let token = keep_token(&home, &Operator::of(&home, std::slice::from_ref(&first)));
    let join = one.peer_address.to_string();
    two.start(&home, &["--bootstrap", "0", "--join", &join]).stop();
    let old_id = node_id(&home, &two);
    // As after a crash between giving up and joining.
    let mut directory = NodeDirectory::open(home.path(two.name), None).expect("it opens");
    directory.renounce_identity().expect("it gives up");
    drop(directory);
    let new_id = node_id(&home, &two);
    assert_ne!(new_id, old_id);

    let data = home.path(two.name).display().to_string();
    let without_peers = [Home::serve(&data).as_slice(), &["--json"]].concat();
    let starts = [
        Server::spawn(&mut home.command(&without_peers)),
        two.try_start(&home, &[]),
        two.try_start(&home, &["--bootstrap", "1"]),
        two.try_start(&home, &["--bootstrap", "1", "--join", &join]),
    ];
    for started in starts {
        let said = started.err().expect("it belongs into its cluster");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stdout.contains("--join") && said.stdout.contains("empty directory"), "{said:?}");
    }
    let second = two.start(&home, &["--join", &join]);
    assert_eq!(second.ready["nodes"][0]["id"], new_id);
    assert!(has_member(&operator(&home, &[&first], &token), new_id));
}
