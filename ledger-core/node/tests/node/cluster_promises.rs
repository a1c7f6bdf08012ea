//! Promises of a cluster that other systems broke: what an acknowledgement needs, what a checkpoint binds every later leader
//! to, and that changes of members and of the lead lose nothing under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ledger_node::{Bootstrap, Consistency, MemberRole};
use ledger_verify::log;
use ledger_verify::note::{Checkpoint, SignedCheckpoint};

use super::cluster_setting::{TestCluster, answered, until};
use super::setting::{actor, key, put, vault};

/// How long is looked whether something happens that must not.
const LOOK: Duration = Duration::from_millis(1_200);

/// openraft counted acknowledgements of earlier requests for later ones when they came in another order, and committed
/// without a quorum (openraft issue 1802). Here followers receive everything and answer heartbeats; what they lack is a
/// durable copy.
#[tokio::test(flavor = "multi_thread")]
async fn of_five_voters_three_durable_copies_acknowledge_a_write_and_two_do_not() {
    let cluster = TestCluster::led_by_one(5).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "old")).await;
    let followers: Vec<usize> = (0..5).filter(|index| *index != leader).collect();
    let log = |index: usize| cluster.nodes[index].log.clone().unwrap();
    for index in &followers[1..] {
        log(*index).close_gate();
    }
    let transaction = put("key", "new");
    let ledger = cluster.nodes[leader].ledger();
    let (vault, actor) = (vault(), actor());
    let mut write = Box::pin(ledger.write(&vault, &actor, transaction.clone()));
    let early = tokio::time::timeout(LOOK, &mut write).await;
    assert!(early.is_err(), "two of five have it: {early:?}");
    let read = ledger.get(&vault, &key("key"), Consistency::Eventual).await.unwrap();
    assert_eq!(read.value.unwrap().value.as_ref(), b"old", "nothing is applied before it is committed");
    log(followers[1]).open_gate();
    // Whether by this leader or by the next one: with three copies it is acknowledged, once.
    drop(write);
    let receipt = cluster.write(leader, transaction).await;
    assert_eq!(receipt.version, 2);
    for index in &followers {
        log(*index).open_gate();
    }
    cluster.leader().await;
    cluster.converge().await;
}

/// A checkpoint that was handed out and then lost with its leader would let the next one sign another history.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_successive_leaders_extend_each_other() {
    let mut cluster = TestCluster::of_voters(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    let mut seen: Vec<Checkpoint> = Vec::new();
    for round in 0..6 {
        let leader = cluster.leader().await;
        let through = (leader + round) % 3;
        cluster.write(through, put("key", &round.to_string())).await;
        for before in seen.clone().iter().map(|checkpoint| checkpoint.size).chain([0]) {
            let ledger = cluster.nodes[through].ledger();
            let answer = answered("a checkpoint", async || ledger.checkpoint(&vault(), before).await).await;
            let newest = SignedCheckpoint::open(&answer.note, &[ledger.verifier_key()]).unwrap();
            if let Some(known) = seen.iter().find(|checkpoint| checkpoint.size == before) {
                let (old, new) = ((known.size, known.root), (newest.size, newest.root));
                log::verify_consistency(old.0, new.0, &answer.consistency, &old.1, &new.1).unwrap();
            } else {
                seen.push(newest);
            }
        }
        if round % 2 == 0 {
            // It is gone at once: what it signed last may be known to nobody else but the client.
            cluster.stop(leader).await;
            cluster.leader().await;
            cluster.start(leader, Bootstrap::Joined).await;
        } else {
            cluster.transfer((leader + 1) % 3).await;
        }
    }
    cluster.leader().await;
    cluster.converge().await;
    assert_eq!(seen.len(), 6);
}

/// A read by an old leader while its successor already writes is stale (TiKV issues 1593 and 9239).
#[tokio::test(flavor = "multi_thread")]
async fn no_linearizable_read_is_stale_while_the_lead_is_handed_over_and_over() {
    let cluster = Arc::new(TestCluster::of_voters(3).await);
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    cluster.write(first, put("key", "0")).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let reads: [Arc<AtomicU64>; 3] = std::array::from_fn(|_| Arc::default());
    let mut readers = Vec::new();
    for (through, reads) in reads.clone().into_iter().enumerate() {
        let (cluster, acknowledged, over) =
            (Arc::clone(&cluster), Arc::clone(&acknowledged), Arc::clone(&over));
        readers.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let at_least = acknowledged.load(Ordering::SeqCst);
                let ledger = cluster.nodes[through].ledger();
                // Without a leader there is no answer; that is no stale one.
                if let Ok(read) = ledger.get(&vault(), &key("key"), Consistency::Linearizable).await {
                    let value = String::from_utf8(read.value.unwrap().value.to_vec()).unwrap();
                    let found: u64 = value.parse().unwrap();
                    assert!(
                        found >= at_least,
                        "node {through} answers {found} after {at_least} was acknowledged"
                    );
                    reads.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for round in 1..=60 {
        if round % 5 == 0 {
            let leader = cluster.leader().await;
            cluster.transfer((leader + 1) % 3).await;
        }
        cluster.write(round as usize % 3, put("key", &round.to_string())).await;
        acknowledged.store(round, Ordering::SeqCst);
    }
    until("every node answers reads", || reads.iter().all(|reads| reads.load(Ordering::SeqCst) > 0)).await;
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Members that come and go while leaders die lost writes, or brought removed nodes back, in several systems (etcd issues
/// 13196 and 20967).
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_seven_and_shrinks_to_three_under_load_while_leaders_die() {
    let mut cluster = TestCluster::homes(1);
    cluster.tune = |options| options.cluster.as_mut().unwrap().voters_max = 7;
    cluster.start(0, Bootstrap::Single).await;
    cluster.leader().await;
    cluster.create_vault(0).await;
    let mut writes = 0;
    for count in 2..=7 {
        let index = cluster.add_home();
        cluster.start(index, Bootstrap::Joined).await;
        let leader = cluster.leader_among(|other| other != index).await;
        tokio::join!(cluster.add(leader, index), write_some(&cluster, leader, &mut writes));
        until("it votes", || voters(&cluster, leader).len() == count).await;
        if count >= 3 {
            stop_and_start(&mut cluster, &mut writes).await;
        }
    }
    for count in (3..=6).rev() {
        let leader = cluster.leader().await;
        let (out, _) = cluster.running().find(|(index, _)| *index != leader).expect("others run");
        let out_id = cluster.nodes[out].id();
        tokio::join!(cluster.remove(leader, out_id), write_some(&cluster, leader, &mut writes));
        cluster.stop(out).await;
        let leader = cluster.leader().await;
        until("it votes no more", || voters(&cluster, leader).len() == count).await;
        stop_and_start(&mut cluster, &mut writes).await;
    }
    let leader = cluster.leader().await;
    cluster.converge().await;
    assert_eq!(
        cluster.nodes[leader].ledger().vault(&vault()).unwrap().version,
        writes,
        "each write happened once"
    );
}

/// A read that failed was taken for an empty one (openraft issue 1795): the follower would be told that the log ends there.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_read_its_log_stops_and_says_why_and_the_others_lose_nothing() {
    let mut cluster = TestCluster::of_voters(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    cluster.converge().await;
    let behind = (first + 1) % 3;
    cluster.network.isolate(cluster.nodes[behind].address());
    let through = cluster.leader_among(|index| index != behind).await;
    for number in 0..20 {
        cluster.write(through, put(&format!("missed:{number}"), "value")).await;
    }
    // What the others know of their logs after a restart, they know from their stores.
    let others: Vec<usize> = (0..3).filter(|index| *index != behind).collect();
    for index in &others {
        cluster.stop(*index).await;
    }
    for index in &others {
        cluster.start(*index, Bootstrap::Joined).await;
    }
    let leader = cluster.leader_among(|index| index != behind).await;
    cluster.nodes[leader].log.as_ref().unwrap().fails_reads.store(true, Ordering::SeqCst);
    cluster.network.heal();
    let failing = cluster.nodes[leader].ledger().clone();
    let failure = tokio::time::timeout(Duration::from_secs(60), failing.failure()).await.expect("it stops");
    assert!(failure.to_string().contains("the disk is broken"), "{failure}");
    cluster.network.silence(cluster.nodes[leader].address());
    assert!(cluster.nodes[leader].ledger.take().unwrap().shutdown().await.is_err(), "it failed");
    // The two others go on, and the one that was behind has everything.
    let next = cluster.leader().await;
    cluster.write(next, put("after", "it")).await;
    cluster.converge().await;
    for (_, ledger) in cluster.running() {
        assert_eq!(ledger.vault(&vault()).unwrap().version, 21);
    }
    cluster.start(leader, Bootstrap::Joined).await;
    cluster.leader().await;
    cluster.converge().await;
}

/// The leader is gone for a while, and writes go on.
async fn stop_and_start(cluster: &mut TestCluster, writes: &mut u64) {
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    write_some(cluster, next, writes).await;
    cluster.start(leader, Bootstrap::Joined).await;
    cluster.leader().await;
}

async fn write_some(cluster: &TestCluster, through: usize, writes: &mut u64) {
    for _ in 0..5 {
        *writes += 1;
        cluster.write(through, put(&format!("key-{writes}"), "value")).await;
    }
}

fn voters(cluster: &TestCluster, through: usize) -> Vec<u64> {
    let status = cluster.nodes[through].ledger().cluster().status();
    let voters = status.members.iter().filter(|member| member.role != MemberRole::Learner);
    voters.map(|member| member.node_id).collect()
}
