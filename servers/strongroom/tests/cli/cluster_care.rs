//! What an operator does to a cluster: rolls it, and restores it when it is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger_client::{ClientOptions, Consistency, LedgerClient, MemoryPins};
use ledger_core::entity::EntityKey;

use crate::cluster_settings::{assert_one_cluster, at, node, together, token, two};
use crate::forming::Operator;
use crate::harness::{Home, Server, free_port, put, runtime, vault};

#[test]
fn a_cluster_that_is_gone_is_restored_to_a_height_into_a_new_one() {
    let home = Home::new();
    let ports = [free_port(), free_port()];
    let join = format!("{},{}", ports[0], ports[1]);
    let servers = two(&home, ports, &["--peer-insecure", "--join", &join]);
    let folder = home.path("backup").display().to_string();
    Operator::of(&home, &servers).makes_vault();
    at(&home, &servers[0], &["ledger", "put", "acme/prod", "door", "locked"]);
    at(&home, &servers[0], &["ledger", "backup", "create", "--to", &folder]);
    // What one node acknowledged is in the backup that another one gives.
    for number in 0..4_usize {
        at(&home, &servers[number % 2], &["ledger", "put", "acme/prod", "door", "a mistake"]);
        let other = &servers[(number + 1) % 2];
        let made = at(&home, other, &["ledger", "backup", "create", "--to", &folder]);
        assert_eq!(made["added"]["blocks"], 1, "{made}");
    }
    servers.into_iter().for_each(|server| drop(server.stop()));
    let (old, key) =
        (home.path("node-1").display().to_string(), home.path("ledger.key").display().to_string());
    home.json(&["ledger", "key", "export", "--data", &old, "-o", &key]);
    for name in ["node-1", "node-2"] {
        std::fs::remove_dir_all(home.path(name)).expect("destroyed");
    }

    let point = ["--data", &old, "--key", &key, "--height", "acme/prod=1"];
    let restored = home.json(&[["ledger", "backup", "restore", &folder].as_slice(), &point].concat());
    assert_eq!(restored["vaults"][0]["blocks_left_out"], 4, "{restored}");
    let mut servers = together(vec![node(&home, "node-1", ports[0], &["--peer-insecure"])]);
    let member = ports[0].to_string();
    let joins = ["--peer-insecure", "--bootstrap", "0", "--join", &member];
    servers.extend(together(vec![node(&home, "node-2", ports[1], &joins)]));
    assert_one_cluster(&home, &servers);
    let read = at(&home, &servers[1], &["ledger", "get", "acme/prod", "door"]);
    assert_eq!(read["value"], "locked", "{read}");
    at(&home, &servers[1], &["ledger", "put", "acme/prod", "door", "open"]);
}

#[test]
fn a_cluster_that_is_rolled_node_by_node_loses_no_acknowledged_write() {
    let home = Home::new();
    let ports: Vec<SocketAddr> = (0..3).map(|_| free_port()).collect();
    let listens: Vec<String> = (0..3).map(|_| free_port().to_string()).collect();
    let join = ports.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let start = |n: usize| {
        let flags = ["--peer-insecure", "--bootstrap", "3", "--join", &join, "--listen", &listens[n]];
        node(&home, &format!("node-{}", n + 1), ports[n], &flags)
    };
    let servers = together((0..3).map(start).collect());
    Operator::of(&home, &servers).makes_vault();
    let mut servers: Vec<Option<Server>> = servers.into_iter().map(Some).collect();
    let urls = listens.iter().map(|listen| format!("http://{listen}")).collect::<Vec<_>>().join(",");
    let secret = std::fs::read_to_string(token(&home)).expect("readable").trim_end().to_owned();
    let runtime = runtime();
    let client = {
        let _entered = runtime.enter();
        let options = ClientOptions::new(urls).with_token(secret);
        LedgerClient::connect(options, Arc::new(MemoryPins::default())).expect("valid options")
    };
    let ends = Arc::new(AtomicBool::new(false));
    let (writer, stop) = (client.clone(), Arc::clone(&ends));
    let writing = runtime.spawn(async move {
        let mut acknowledged = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            let written = writer.write(&vault(), put(&format!("k{acknowledged}"), "v")).await;
            written.expect("the client finds a node that takes it");
            acknowledged += 1;
        }
        acknowledged
    });
    for (n, server) in servers.iter_mut().enumerate() {
        // It ends in order, and hands over first when it leads.
        server.take().expect("it runs").stop();
        let rolled = server.insert(together(vec![start(n)]).remove(0));
        at(&home, rolled, &["ledger", "put", "acme/prod", "rolled", &n.to_string()]);
    }
    ends.store(true, Ordering::SeqCst);
    let acknowledged = runtime.block_on(writing).expect("no panic");
    assert!(acknowledged > 10, "{acknowledged} writes");
    for number in 0..acknowledged {
        let key = EntityKey::new(&format!("k{number}")).expect("a key");
        let read =
            runtime.block_on(client.get(&vault(), &key, Consistency::Linearizable)).expect("an answer");
        assert!(read.value.is_some(), "write {number} of {acknowledged} is lost");
    }
}
