//! Snapshots that come too late, or from another history (openraft issues 1892 and 1808): they replace nothing that is
//! applied, and what they say about the members counts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger_node::peers::{PeerMethod, PeerRequest};
use ledger_node::{Bootstrap, Options};

use super::cluster_setting::{Node, TestCluster, answered, until};
use super::peer_network::Fate;
use super::setting::{chain, put, vault};

/// Everything that is durable leaves the log at once.
fn purge_all(options: &mut Options) {
    options.flush_interval = Duration::from_millis(20);
    options.cluster.as_mut().unwrap().log_keep_bytes = 0;
}

fn is_of_a_snapshot(method: PeerMethod) -> bool {
    matches!(method, PeerMethod::SnapshotOffer | PeerMethod::SnapshotChunk | PeerMethod::SnapshotInstall)
}

/// The messages that bring a snapshot to a node from now on; they are delivered.
fn recorded(cluster: &TestCluster, to: u64) -> Arc<Mutex<Vec<PeerRequest>>> {
    let messages: Arc<Mutex<Vec<PeerRequest>>> = Arc::default();
    let kept = Arc::clone(&messages);
    cluster.network.intercept(move |request| {
        if request.to == Some(to) && is_of_a_snapshot(request.method) {
            kept.lock().unwrap().push(request.clone());
        }
        Fate::Delivered
    });
    messages
}

/// The newest snapshot among these messages: its index, and the messages that bring it.
fn newest(messages: &Mutex<Vec<PeerRequest>>) -> (u64, Vec<PeerRequest>) {
    /// As on the wire: a vote, the SHA-256, the length, and (term, index) of the last entry.
    type Offer = ((u64, u64, bool), [u8; 32], u64, (u64, u64));
    let messages = messages.lock().unwrap();
    let begin = messages.iter().rposition(|request| request.method == PeerMethod::SnapshotOffer).unwrap();
    let offer: Offer = postcard::from_bytes(&messages[begin].body[1..]).unwrap();
    // What was offered more than once has one offer too many before its chunks.
    let same = messages.iter().filter(|request| {
        request.method != PeerMethod::SnapshotOffer || request.body == messages[begin].body
    });
    (offer.3.1, same.cloned().collect())
}

fn installed(cluster: &TestCluster, node: usize) -> u64 {
    cluster.nodes[node].ledger().counters().snapshots_installed
}

/// Voters of which one lacks what has left the others' logs.
async fn left_behind(tune: fn(&mut Options)) -> (TestCluster, usize) {
    let cluster = TestCluster::of_voters_tuned(3, tune).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.converge().await;
    let behind = (leader + 1) % 3;
    let applied = cluster.nodes[behind].ledger().node_info().last_applied;
    cluster.network.isolate(cluster.nodes[behind].address());
    for number in 0..10 {
        cluster.write((leader + 2) % 3, put(&format!("missed:{number}"), "value")).await;
    }
    for other in [leader, (leader + 2) % 3] {
        let ledger = cluster.nodes[other].ledger();
        until("the log is purged", || ledger.node_info().purged > Some(applied)).await;
    }
    (cluster, behind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_comes_again_when_its_receiver_has_gone_on_changes_nothing() {
    let (cluster, behind) = left_behind(purge_all).await;
    let messages = recorded(&cluster, cluster.nodes[behind].id());
    cluster.network.reconnect(cluster.nodes[behind].address());
    cluster.converge().await;
    until("it is installed", || installed(&cluster, behind) > 0).await;
    let (_, again) = newest(&messages);
    for further_writes in [0, 20] {
        for number in 0..further_writes {
            cluster.write(behind, put(&format!("further:{number}"), "value")).await;
        }
        cluster.converge().await;
        let node = &cluster.nodes[behind];
        let before =
            (chain(node.ledger()), node.ledger().node_info().last_applied, installed(&cluster, behind));
        for request in &again {
            // Whatever it says: what counts is what it does.
            let _ = cluster.network.ask(node.address(), request.clone()).await;
        }
        let ledger = node.ledger();
        assert_eq!((chain(ledger), installed(&cluster, behind)), (before.0, before.2));
        assert!(ledger.node_info().last_applied >= before.1, "nothing is taken back");
    }
    cluster.write(behind, put("after", "it")).await;
    cluster.converge().await;
}

/// The same directories a second time: they elect a leader of their own, in a later term.
async fn second_history(cluster: &TestCluster, without: usize) -> TestCluster {
    let copy =
        |node: &Node| Node { home: node.home.copy(), member: node.member.clone(), ledger: None, log: None };
    let mut other = TestCluster { tune: purge_all, ..TestCluster::homes(0) };
    other.nodes = cluster.nodes.iter().map(copy).collect();
    for index in (0..3).filter(|index| *index != without) {
        other.start(index, Bootstrap::Joined).await;
    }
    other.leader().await;
    other
}

/// No network does this: it takes a quorum that was put back to an earlier time. Even then nobody who still has what was
/// acknowledged may lose it to a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_another_term_at_or_before_what_is_applied_replaces_nothing() {
    for beyond in [0, 20] {
        let mut cluster = TestCluster::of_voters(3).await;
        let leader = cluster.leader().await;
        cluster.create_vault(leader).await;
        cluster.write(leader, put("both", "have it")).await;
        cluster.converge().await;
        let (behind, other) = ((leader + 1) % 3, (leader + 2) % 3);
        // In the second history this node misses ten writes, and gets a snapshot.
        let mut second = second_history(&cluster, behind).await;
        let applied = cluster.nodes[behind].ledger().node_info().last_applied;
        for number in 0..10 {
            second.write(other, put(&format!("second:{number}"), "value")).await;
        }
        for index in [leader, other] {
            let ledger = second.nodes[index].ledger();
            until("the log is purged", || ledger.node_info().purged > Some(applied)).await;
        }
        let messages = recorded(&second, second.nodes[behind].id());
        second.start(behind, Bootstrap::Joined).await;
        until("it is installed", || installed(&second, behind) > 0).await;
        let (last, messages) = newest(&messages);
        let (install, others): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|request| request.method == PeerMethod::SnapshotInstall);

        // In the first history it receives that snapshot while it is behind, and catches up before it is to install it.
        cluster.network.isolate(cluster.nodes[behind].address());
        let through = cluster.leader_among(|index| index != behind).await;
        while cluster.nodes[through].ledger().node_info().last_log_index < last + beyond {
            cluster.write(through, put("first", "acknowledged")).await;
        }
        let node = &cluster.nodes[behind];
        for request in others {
            cluster.network.ask(node.address(), request).await.unwrap();
        }
        cluster.network.heal();
        cluster.converge().await;
        let before = chain(node.ledger());
        let _ = cluster.network.ask(node.address(), install[0].clone()).await;
        // It refuses, or it stops and says why; then a restart finds what was there.
        let ledger = node.ledger();
        if tokio::time::timeout(Duration::from_secs(1), ledger.failure()).await.is_ok() {
            let failed = cluster.nodes[behind].ledger.take().unwrap();
            cluster.network.silence(cluster.nodes[behind].address());
            assert!(failed.shutdown().await.is_err(), "it failed");
            cluster.start(behind, Bootstrap::Joined).await;
        }
        cluster.leader().await;
        cluster.write(through, put("after", "it")).await;
        cluster.converge().await;
        let after = chain(cluster.nodes[behind].ledger());
        assert_eq!(after[..before.len()], before, "what was acknowledged is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_members_that_came_with_a_snapshot_counts_in_the_next_election() {
    let (mut cluster, behind) = left_behind(purge_all).await;
    let leader = cluster.leader_among(|index| index != behind).await;
    let out = 3 - leader - behind;
    let new = cluster.add_home();
    cluster.start(new, Bootstrap::Joined).await;
    cluster.add(leader, new).await;
    cluster.remove(leader, cluster.nodes[out].id()).await;
    cluster.stop(out).await;
    let changed_at = cluster.nodes[leader].ledger().node_info().last_log_index;
    let ledger = cluster.nodes[leader].ledger();
    let write = async || cluster.write(leader, put("key", "value")).await;
    write().await;
    until("the change has left the log", || ledger.node_info().purged >= Some(changed_at)).await;
    cluster.network.heal();
    cluster.converge().await;
    until("it is installed", || installed(&cluster, behind) > 0).await;
    let members = |index: usize| {
        let status = cluster.nodes[index].ledger().cluster().status();
        status.members.iter().map(|member| member.node_id).collect::<Vec<_>>()
    };
    until("it knows the members", || members(behind) == members(leader)).await;
    assert_eq!(members(behind).len(), 3);
    // With the members that it knew before, it and the one that is out would be asked, and no majority would answer.
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    cluster.write(next, put("key", "other")).await;
    cluster.converge().await;
    let info = answered("the vault", async || cluster.nodes[next].ledger().vault(&vault()).ok_or("no vault"));
    assert_eq!(info.await.version, 12);
}
