//! Claims about nodes that run inside one thread, on its clock.

use std::time::{Duration, Instant};

use ledger_node::{Bootstrap, Threads};

use super::cluster_setting::TestCluster;
use super::setting::put;

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn three_nodes_in_one_thread_elect_and_replace_their_leader_in_no_time() {
    let began = Instant::now();
    let mut cluster = TestCluster::homes(3);
    cluster.tune = |options| options.threads = Threads::Inline { seed: 7 };
    let members: Vec<_> = cluster.nodes.iter().map(|node| node.member.clone()).collect();
    cluster.start(0, Bootstrap::Members(members)).await;
    for index in 1..3 {
        cluster.start(index, Bootstrap::Joined).await;
    }
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    cluster.write(first, put("before", "1")).await;
    let virtual_start = tokio::time::Instant::now();
    cluster.network.isolate(cluster.nodes[first].address());
    let second = cluster.leader_among(|index| index != first).await;
    cluster.write(second, put("after", "2")).await;
    cluster.network.heal();
    cluster.leader().await;
    cluster.converge().await;
    assert!(virtual_start.elapsed() > Duration::from_millis(400), "an election takes its time on the clock");
    assert!(began.elapsed() < Duration::from_secs(20));
    for index in 0..3 {
        cluster.stop(index).await;
    }
}
