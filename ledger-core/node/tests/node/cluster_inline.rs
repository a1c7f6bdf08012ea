//! Claims about nodes that run inside one thread, on its clock.

use std::time::{Duration, Instant};

use ledger_node::Timing;

use super::cluster_setting::{TestCluster, in_one_thread};
use super::setting::put;

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn three_nodes_in_one_thread_elect_and_replace_their_leader_in_no_time() {
    let began = Instant::now();
    let cluster = TestCluster::of_voters_tuned(3, |options| {
        in_one_thread(options);
        // What would take half a minute shows whose clock it is.
        options.cluster.as_mut().unwrap().timing = Timing {
            heartbeat: Duration::from_secs(1),
            election_min: Duration::from_secs(6),
            election_max: Duration::from_secs(12),
            quorum_loss_silence: Duration::from_secs(40),
        };
    });
    let mut cluster = cluster.await;
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
    let (virtual_time, time) = (virtual_start.elapsed(), began.elapsed());
    assert!(
        virtual_time > Duration::from_secs(15),
        "an election takes its time on the clock: {virtual_time:?}"
    );
    assert!(time < virtual_time, "{time:?} for {virtual_time:?}");
    for index in 0..3 {
        cluster.stop(index).await;
    }
}
