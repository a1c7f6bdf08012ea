//! Claims about several nodes of one ledger.

use ledger_node::{Bootstrap, Consistency};

use super::cluster_setting::TestCluster;
use super::setting::{chain, key, put, vault};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_elect_a_leader_and_make_the_same_blocks() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    for n in 0..20 {
        cluster.write(leader, put(&format!("key-{n}"), "value")).await;
    }
    cluster.converge().await;
    let chains: Vec<_> = cluster.running().map(|(_, ledger)| chain(ledger)).collect();
    assert_eq!(chains[0], chains[1]);
    assert_eq!(chains[0], chains[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_goes_on_where_the_old_one_was_and_a_restarted_node_catches_up() {
    let mut cluster = TestCluster::of_voters(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    cluster.write(first, put("before", "1")).await;
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.write(second, put("after", "2")).await;
    cluster.start(first, Bootstrap::Joined).await;
    cluster.leader().await;
    cluster.converge().await;
    for (_, ledger) in cluster.running() {
        for name in ["before", "after"] {
            let read = ledger.get(&vault(), &key(name), Consistency::Eventual).await.unwrap();
            assert!(read.value.is_some(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_commands_and_linearizable_reads() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.create_vault(follower).await;
    for n in 0..20 {
        let (writer, reader) = (n % 3, (n + 1) % 3);
        let receipt = cluster.write(writer, put("counter", &n.to_string())).await;
        let ledger = cluster.nodes[reader].ledger();
        let read = ledger.get(&vault(), &key("counter"), Consistency::Linearizable).await.unwrap();
        let entity = read.value.expect("it was written");
        assert_eq!((entity.value.as_ref(), entity.version), (n.to_string().as_bytes(), receipt.version));
    }
    assert!(cluster.nodes[follower].ledger().counters().writes_forwarded > 0);
    cluster.converge().await;
}
