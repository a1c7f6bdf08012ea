//! Claims about members that the log does not reach any more: they get a snapshot, and go on from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::entity::EntityValue;
use ledger_core::ledger_state::IntegrityDepth;
use ledger_core::memory::MemoryLogStore;
use ledger_core::ports::{LogChange, LogStore};
use ledger_core::transaction::{Action, Operation, Transaction};
use ledger_node::peers::PeerMethod;
use ledger_node::{Bootstrap, Consistency, MembershipChange, OpenError, Options, WatchContent, WatchRequest};

use super::cluster_setting::{TestCluster, steady, until};
use super::peer_network::Fate;
use super::setting::{chain, key, put, set, transaction, vault};

/// Everything that is durable leaves the log at once, and the lead stays where it is.
fn purge_all(options: &mut Options) {
    steady(options);
    purge_all_and_elect(options);
}

/// Everything that is durable leaves the log at once.
fn purge_all_and_elect(options: &mut Options) {
    options.flush_interval = Duration::from_millis(20);
    options.cluster.as_mut().unwrap().log_keep_bytes = 0;
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn large(name: &str, seed: u64) -> Transaction {
    let value = EntityValue::new(noise(seed, 700_000)).unwrap();
    transaction(vec![Operation {
        action: Action::SetEntity { key: key(name), value, expires_at_ms: 0 },
        condition: None,
    }])
}

async fn voters_that_purge(tune: fn(&mut Options)) -> (TestCluster, usize) {
    let cluster = TestCluster::of_voters_tuned(3, tune).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    (cluster, leader)
}

/// Waits until the log of a node begins after an entry.
async fn purged_past(cluster: &TestCluster, node: usize, index: u64) {
    let ledger = cluster.nodes[node].ledger();
    until("the log is purged", || ledger.node_info().purged > Some(index)).await;
}

/// A voter that misses entries and cannot get them from the log: its number.
async fn left_behind(
    cluster: &TestCluster,
    leader: usize,
    writes: u64,
    write: fn(&str, u64) -> Transaction,
) -> usize {
    let behind = (leader + 1) % cluster.nodes.len();
    cluster.converge().await;
    // Nothing is held any more for a member that was behind before.
    let last = cluster.nodes[leader].ledger().node_info().last_log_index;
    until("all is purged", || cluster.nodes[leader].ledger().node_info().purged >= Some(last)).await;
    let applied = cluster.nodes[behind].ledger().node_info().last_applied;
    cluster.network.isolate(cluster.nodes[behind].address());
    for number in 0..writes {
        cluster.write(leader, write(&format!("missed:{number}"), number)).await;
    }
    // Whoever leads later has to send a snapshot.
    for other in (0..cluster.nodes.len()).filter(|index| *index != behind) {
        purged_past(cluster, other, applied).await;
    }
    behind
}

fn small(name: &str, seed: u64) -> Transaction {
    put(name, &format!("value {seed}"))
}

fn installed(cluster: &TestCluster, node: usize) -> u64 {
    cluster.nodes[node].ledger().counters().snapshots_installed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_of_a_leader_that_purges_at_once_converges_through_snapshots() {
    let (cluster, leader) = voters_that_purge(purge_all).await;
    for round in 0..3 {
        let behind = left_behind(&cluster, leader, 20, small).await;
        cluster.network.heal();
        for number in 0..20 {
            cluster.write(leader, small(&format!("during:{round}:{number}"), number)).await;
        }
        cluster.converge().await;
        assert!(installed(&cluster, behind) > round, "the log did not have it, so a snapshot came");
    }
    let (first, other) = (cluster.nodes[leader].ledger(), cluster.nodes[(leader + 1) % 3].ledger());
    assert_eq!(chain(first), chain(other), "no block is missing");
    assert!(first.counters().snapshots_sent >= 3);
    let report = other.check_integrity(&vault(), IntegrityDepth::Full).await.unwrap();
    assert_eq!(report.issue_count, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_of_an_idle_cluster_whose_log_is_purged_catches_up_and_votes() {
    let (mut cluster, leader) = voters_that_purge(purge_all).await;
    cluster.write(leader, put("colour", "green")).await;
    let last = cluster.nodes[leader].ledger().node_info().last_log_index;
    until("all is purged", || cluster.nodes[leader].ledger().node_info().purged >= Some(last)).await;
    let index = cluster.add_home();
    cluster.start(index, Bootstrap::Joined).await;
    let member = cluster.nodes[index].member.clone();
    let change = cluster.nodes[leader].ledger().cluster().add(member).await.unwrap();
    assert!(matches!(change, MembershipChange::Voter { .. }), "{change:?}");
    cluster.converge().await;
    assert!(installed(&cluster, index) >= 1);
    // What came with the snapshot is kept, also over a restart, as is the membership.
    cluster.stop(index).await;
    cluster.start(index, Bootstrap::Joined).await;
    cluster.write(leader, put("colour", "blue")).await;
    cluster.leader().await;
    cluster.converge().await;
    let read =
        cluster.nodes[index].ledger().get(&vault(), &key("colour"), Consistency::Eventual).await.unwrap();
    assert_eq!(read.value.map(|entity| entity.value.to_vec()), Some(b"blue".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_absence_is_served_from_the_log() {
    let cluster = TestCluster::of_voters_tuned(3, |options| {
        steady(options);
        options.flush_interval = Duration::from_millis(20);
    });
    let cluster = cluster.await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let behind = (leader + 1) % 3;
    cluster.network.isolate(cluster.nodes[behind].address());
    for number in 0..50 {
        cluster.write(leader, small(&format!("key:{number}"), number)).await;
    }
    let last = cluster.nodes[leader].ledger().node_info().last_applied;
    until("all is durable", || cluster.nodes[leader].ledger().node_info().durable_applied >= last).await;
    cluster.network.heal();
    cluster.converge().await;
    assert_eq!(
        (installed(&cluster, behind), cluster.nodes[leader].ledger().counters().snapshots_sent),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_repeated_and_damaged_chunks_delay_a_snapshot_and_never_spoil_it() {
    let (cluster, leader) = voters_that_purge(purge_all).await;
    let behind = left_behind(&cluster, leader, 6, large).await;
    let chunks = Arc::new(AtomicU64::new(0));
    cluster.network.intercept(move |request| match request.method {
        PeerMethod::SnapshotChunk => match chunks.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => Fate::Lost,
            1 => Fate::AnswerLost,
            2 => {
                let mut body = request.body.to_vec();
                let middle = body.len() / 2;
                body[middle] ^= 1;
                request.body = Bytes::from(body);
                Fate::Delivered
            }
            _ => Fate::Delivered,
        },
        _ => Fate::Delivered,
    });
    // After the hook: a quick sender would be done before it.
    cluster.network.reconnect(cluster.nodes[behind].address());
    cluster.converge().await;
    until("it is installed", || installed(&cluster, behind) > 0).await;
    let counters = cluster.nodes[behind].ledger().counters();
    assert!(counters.snapshot_chunks_damaged > 0, "{counters:?}");
    assert!(cluster.nodes[leader].ledger().counters().snapshot_retries > 0);
    assert_eq!(chain(cluster.nodes[leader].ledger()), chain(cluster.nodes[behind].ledger()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_around_the_end_of_a_snapshot_do_not_stall_it() {
    let (cluster, leader) = voters_that_purge(purge_all).await;
    let behind = left_behind(&cluster, leader, 3, small).await;
    let installs = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&installs);
    cluster.network.intercept(move |request| match request.method {
        PeerMethod::SnapshotInstall if seen.fetch_add(1, Ordering::SeqCst) < 5 => Fate::AnswerLost,
        _ => Fate::Delivered,
    });
    cluster.network.reconnect(cluster.nodes[behind].address());
    cluster.converge().await;
    until("an answer was lost", || installs.load(Ordering::SeqCst) > 0).await;
    until("it is installed once", || installed(&cluster, behind) == 1).await;
}

/// Stops a node while the chunk of this number is on its way, starts it again, and waits until all agree.
async fn stopped_at_chunk(number: u64, stop_the_leader: bool) {
    let (mut cluster, leader) = voters_that_purge(purge_all_and_elect).await;
    let behind = left_behind(&cluster, leader, 5, large).await;
    let (reached, chunks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&reached);
    cluster.network.intercept(move |request| {
        if request.method == PeerMethod::SnapshotChunk && chunks.fetch_add(1, Ordering::SeqCst) >= number {
            seen.store(true, Ordering::SeqCst);
        }
        // Nothing more arrives until the node is gone.
        let stands = seen.load(Ordering::SeqCst) && request.method == PeerMethod::SnapshotChunk;
        if stands { Fate::Lost } else { Fate::Delivered }
    });
    // After the hook: a quick sender would be done before it.
    cluster.network.reconnect(cluster.nodes[behind].address());
    until("the chunk is reached", || reached.load(Ordering::SeqCst)).await;
    let stopped = if stop_the_leader { leader } else { behind };
    cluster.stop(stopped).await;
    cluster.network.heal();
    cluster.start(stopped, Bootstrap::Joined).await;
    let leader = cluster.leader().await;
    cluster.write(leader, put("after", "the stop")).await;
    cluster.converge().await;
    assert_eq!(chain(cluster.nodes[leader].ledger()), chain(cluster.nodes[behind].ledger()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_stopped_at_any_chunk_goes_on() {
    for chunk in 0..4 {
        stopped_at_chunk(chunk, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_stopped_at_any_chunk_leaves_a_follower_that_another_leader_helps() {
    for chunk in 0..4 {
        stopped_at_chunk(chunk, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_follower_skips_no_height_when_a_snapshot_replaces_its_state() {
    let (cluster, leader) = voters_that_purge(purge_all).await;
    let behind = (leader + 1) % 3;
    cluster.write(leader, put("before", "it")).await;
    cluster.converge().await;
    let request = WatchRequest { from: 0, content: WatchContent::Transactions, ..WatchRequest::default() };
    let mut watch = cluster.nodes[behind].ledger().watch(&vault(), request).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    let watcher = tokio::spawn(async move {
        let mut heights = Vec::new();
        while heights.last() != Some(&61) {
            let block = watch.next().await.unwrap();
            heights.push(block.header.height);
            counted.fetch_add(1, Ordering::SeqCst);
        }
        heights
    });
    until("the watch reads", || seen.load(Ordering::SeqCst) >= 2).await;
    left_behind(&cluster, leader, 60, small).await;
    cluster.network.heal();
    cluster.converge().await;
    assert_eq!(watcher.await.unwrap(), (0..=61).collect::<Vec<u64>>());
    assert!(installed(&cluster, behind) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_keys_are_installed_while_a_reader_reads() {
    const TRANSACTIONS: u64 = 100;
    let (cluster, leader) = voters_that_purge(purge_all).await;
    let fill = |round: u64, number: u64| {
        let name = |key: u64| format!("key:{:06}", number * 1_000 + key);
        transaction((0..1_000).map(|key| set(&name(key), &format!("round {round}"), None)).collect())
    };
    for number in 0..TRANSACTIONS {
        cluster.write(leader, fill(1, number)).await;
    }
    cluster.converge().await;
    let behind = (leader + 1) % 3;
    let applied = cluster.nodes[behind].ledger().node_info().last_applied;
    cluster.network.isolate(cluster.nodes[behind].address());
    // Among them those that are read.
    for number in (0..TRANSACTIONS).step_by(10).chain([TRANSACTIONS - 1]) {
        cluster.write(leader, fill(2, number)).await;
    }
    purged_past(&cluster, leader, applied).await;
    let ledger = cluster.nodes[behind].ledger().clone();
    let done = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&done);
    let reader = tokio::spawn(async move {
        let (mut reads, mut newer) = (0_u64, [false; 3]);
        loop {
            // All is read once more when all is there.
            let is_last = ends.load(Ordering::SeqCst);
            for (name, newer) in ["key:000000", "key:050000", "key:099999"].into_iter().zip(&mut newer) {
                let read = ledger.get(&vault(), &key(name), Consistency::Eventual).await.unwrap();
                let value = read.value.map(|entity| entity.value.to_vec()).expect("every key is there");
                // Once the new value was seen the old one never is. The snapshot may be older than the last values.
                assert!(value == b"round 2" || (value == b"round 1" && !*newer), "{value:?} after {newer}");
                *newer |= value == b"round 2";
                reads += 1;
            }
            if is_last {
                return (reads, newer);
            }
            tokio::task::yield_now().await;
        }
    });
    cluster.network.heal();
    cluster.converge().await;
    done.store(true, Ordering::SeqCst);
    let (reads, newer) = reader.await.unwrap();
    assert!(reads > 100 && newer == [true; 3], "{reads} reads");
    assert!(installed(&cluster, behind) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_state_is_taken_only_when_it_knows_why() {
    let (mut cluster, leader) = voters_that_purge(purge_all).await;
    let behind = left_behind(&cluster, leader, 10, small).await;
    cluster.network.heal();
    cluster.converge().await;
    // It is counted a little after it can be read.
    until("the snapshot is counted", || installed(&cluster, behind) == 1).await;
    cluster.stop(behind).await;
    // As a crash leaves it between the two: the state is the snapshot's, the log is as it was before.
    let (stored, vote) = {
        let log = MemoryLogStore::open(&cluster.nodes[behind].home.log).snapshot().unwrap();
        (log.committed.unwrap(), log.vote.unwrap())
    };
    let crashed = |knows: bool| {
        let home = cluster.nodes[behind].home.copy();
        let log = ledger_core::memory::MemoryLogDisk::default();
        let store = MemoryLogStore::open(&log);
        let first = ledger_core::ports::LogId { term: 1, node: 0, index: 2 };
        store.commit(&[LogChange::SaveVote(vote), LogChange::PurgeThrough(first)]).unwrap();
        let committed = if knows { stored } else { first };
        store.commit(&[LogChange::SaveCommitted(committed)]).unwrap();
        drop(store);
        super::setting::Home { log, ..home }
    };
    let (sound, older) = (crashed(true), crashed(false));
    let node = &cluster.nodes[behind];
    let transport = cluster.network.transport(node.address());
    let member =
        ledger_node::ClusterOptions::new(transport, super::cluster_setting::CLUSTER, node.member.clone());
    let options = Options { bootstrap: Bootstrap::Joined, cluster: Some(member), ..older.options() };
    let refused = ledger_node::Ledger::open(older.directory(), older.stores(), options).await.unwrap_err();
    assert!(matches!(refused, OpenError::LogOlderThanState { .. }), "{refused}");
    cluster.nodes[behind].home = sound;
    cluster.start(behind, Bootstrap::Joined).await;
    let leader = cluster.leader().await;
    cluster.write(leader, put("after", "the crash")).await;
    cluster.converge().await;
    assert_eq!(chain(cluster.nodes[leader].ledger()), chain(cluster.nodes[behind].ledger()));
}
