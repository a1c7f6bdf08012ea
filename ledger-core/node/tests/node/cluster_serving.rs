//! Claims about what each node of a cluster answers: checkpoints, comparisons, faults of clocks and disks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger_core::names::{VaultId, VaultRef};
use ledger_node::peers::{PeerMethod, PeerRefusal, PeerRequest};
use ledger_node::{
    AdminError, Consistency, LeaseReads, MaintenanceError, ReadFailure, VerifiedSubject, WriteError,
    WriteState,
};
use ledger_verify::proof::{self, Subject};
use tokio::time::Instant;

use super::cluster_setting::{TestCluster, until};
use super::peer_network::Fate;
use super::setting::{actor, key, put, vault};

#[tokio::test(flavor = "multi_thread")]
async fn followers_serve_verified_reads_and_only_the_leader_signs() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    for n in 0..10 {
        let receipt = cluster.write(leader, put("key", &n.to_string())).await;
        for (_, ledger) in cluster.running() {
            let subject = VerifiedSubject::Entity(key("key"));
            let read = ledger.verified_read(&vault(), subject, 0).await.unwrap();
            let subject = Subject::Entity { key: "key".to_owned() };
            let claim = proof::verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap();
            assert_eq!(claim.version, receipt.version);
        }
    }
    for (index, ledger) in cluster.running() {
        assert_eq!(ledger.counters().checkpoints_signed > 0, index == leader, "node {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followers_snapshot_carries_the_leaders_checkpoints() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "value")).await;
    cluster.converge().await;
    let follower = cluster.nodes[(leader + 1) % 3].ledger();
    let stored = follower.create_snapshot().await.unwrap();
    let header = stored.summary.unwrap().header;
    assert!(header.vaults.iter().all(|entry| entry.checkpoint.is_some()));
    assert_eq!(follower.counters().checkpoints_signed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_nobody_vouches_for_is_fenced_and_recovers_once_they_do() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "value")).await;
    cluster.converge().await;
    let node = &cluster.nodes[(leader + 1) % 3];
    let follower = node.ledger();
    until("the replicas are compared", || follower.counters().tips_compared > 0).await;
    assert_eq!(follower.counters().vaults_diverged, 0);
    // The leader's answers differ, and what the other voter says is unusable.
    cluster.network.forge_answers(PeerMethod::Tips, node.address());
    cluster.network.forge_answers(PeerMethod::Compare, node.address());
    cluster.write(leader, put("key", "other")).await;
    until("the follower fences the vault", || follower.counters().vaults_diverged == 1).await;
    let refused = follower.get(&vault(), &key("key"), Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::VaultDiverged { .. }), "{refused}");
    // Its own blocks are not the leader's, as far as it can tell: they are no base for a recovery.
    let refused = follower.recover_vault(&vault()).await.unwrap_err();
    assert!(matches!(refused, MaintenanceError::NotFromPeer { .. }), "{refused}");
    cluster.network.isolate(node.address());
    let refused = follower.recover_vault(&vault()).await.unwrap_err();
    assert!(matches!(refused, MaintenanceError::NotFromPeer { .. }), "{refused}");
    assert_eq!(follower.node_info().fenced_vault_count, 1);
    // The others do not notice.
    cluster.network.heal();
    cluster.leader().await;
    cluster.write(leader, put("key", "third")).await;
    until("the vault is not fenced any more", || follower.node_info().fenced_vault_count == 0).await;
    cluster.converge().await;
    let read = follower.get(&vault(), &key("key"), Consistency::Linearizable).await.unwrap();
    assert_eq!(read.value.unwrap().value.as_ref(), b"third");
}

/// A node whose history went another way may be higher than the leader: then the leader has no block at its height.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_ahead_of_the_leaders_and_differs_below_is_fenced() {
    type Tip = (VaultId, u64, [u8; 32], [u8; 32]);
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.converge().await;
    let node = &cluster.nodes[(leader + 1) % 3];
    let follower = node.ledger();
    // To the leader every tip looks as if it were ahead.
    cluster.network.intercept(|request| {
        if request.method == PeerMethod::Tips {
            let mut tips: Vec<Tip> = postcard::from_bytes(&request.body[1..]).unwrap();
            tips.iter_mut().for_each(|tip| tip.1 += 1_000);
            request.body = postcard::to_extend(&tips, vec![1]).unwrap().into();
        }
        Fate::Delivered
    });
    let compared = follower.counters().tips_compared;
    cluster.write(leader, put("key", "value")).await;
    until("the replicas are compared", || follower.counters().tips_compared > compared + 1).await;
    assert_eq!(follower.counters().vaults_diverged, 0, "below, both have the same blocks");
    cluster.network.forge_answers(PeerMethod::Tips, node.address());
    cluster.network.forge_answers(PeerMethod::Compare, node.address());
    until("the follower fences the vault", || follower.counters().vaults_diverged == 1).await;
    let refused = follower.get(&vault(), &key("key"), Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::VaultDiverged { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_far_ahead_of_a_quorum_does_not_set_the_ledgers_time() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let node = &cluster.nodes[leader];
    node.home.clock.advance_ms(60_000);
    // The next answers of the followers tell.
    until("the leader knows its followers' clocks", || {
        let status = node.ledger().cluster().status();
        status.members.iter().filter(|member| member.clock_ahead_ms == Some(-60_000)).count() == 2
    })
    .await;
    let refused = node.ledger().write(&vault(), &actor(), put("key", "value")).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Unavailable { reason } if reason.contains("clock")), "{refused}");
    // Another leader's clock is right.
    let next = (leader + 1) % 3;
    node.ledger().cluster().transfer(Some(cluster.nodes[next].id())).await.unwrap();
    cluster.write(next, put("key", "value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_clock_that_jumps_sets_no_time_of_the_ledger_not_even_before_the_next_heartbeat() {
    for count in [2, 3] {
        let cluster = TestCluster::of_voters(count).await;
        let leader = cluster.leader().await;
        cluster.create_vault(leader).await;
        let node = &cluster.nodes[leader];
        cluster.write(leader, put("key", "before")).await;
        let before_ms = node.ledger().log_time_ms();
        // As soon as that: no answer of a follower has told of the difference.
        node.home.clock.advance_ms(60_000);
        let refused = node.ledger().write(&vault(), &actor(), put("key", "after")).await.unwrap_err();
        assert!(
            matches!(&refused, WriteError::Unavailable { reason } if reason.contains("clock")),
            "{count} voters: {refused}"
        );
        assert!(node.ledger().log_time_ms() < before_ms + 10_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_is_gone_does_not_speak_for_the_clock_of_a_leader_that_is_ahead() {
    let mut cluster = TestCluster::of_voters(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    let gone = (first + 1) % 3;
    let ahead = (first + 2) % 3;
    cluster.stop(gone).await;
    cluster.nodes[ahead].home.clock.advance_ms(60_000);
    // It leads anew, and has heard of one other clock only.
    cluster.nodes[first].ledger().cluster().transfer(Some(cluster.nodes[ahead].id())).await.unwrap();
    let node = &cluster.nodes[ahead];
    let refused = node.ledger().write(&vault(), &actor(), put("key", "value")).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Unavailable { reason } if reason.contains("clock")), "{refused}");
    node.ledger().cluster().transfer(Some(cluster.nodes[first].id())).await.unwrap();
    cluster.write(first, put("key", "value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_gives_up_the_lead_within_seconds() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let log = cluster.nodes[leader].log.clone().unwrap();
    log.close_gate();
    let others = |index| index != leader;
    let stuck = cluster.nodes[leader].id();
    let write = cluster.write((leader + 1) % 3, put("key", "value"));
    // Two seconds make a disk that hangs, and one more is for a successor; the rest is for a busy machine.
    tokio::time::timeout(Duration::from_secs(30), write).await.expect("another node leads soon");
    let next = cluster.leader_among(others).await;
    assert_ne!(cluster.nodes[next].id(), stuck);
    log.open_gate();
    cluster.leader().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_happens_once() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let follower = (leader + 1) % 3;
    cluster.network.lose_answers(PeerMethod::Propose);
    let transaction = put("key", "value");
    let undecided =
        cluster.nodes[follower].ledger().write(&vault(), &actor(), transaction.clone()).await.unwrap_err();
    assert!(matches!(undecided, WriteError::Unavailable { .. }), "{undecided}");
    cluster.network.heal();
    let receipt = cluster.write(follower, transaction).await;
    assert!(receipt.replayed, "it had happened");
    assert_eq!(receipt.version, 1);
}

/// A leader was killed right after it had answered `vault create`. The next one had the entry in its log, had not heard
/// yet that it was committed, and refused writes: there is no such vault.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_knows_every_vault_that_was_acknowledged_before_it_led() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    for attempt in 0.. {
        let leader = cluster.leader().await;
        cluster.converge().await;
        let made: VaultRef = format!("acme/vault-{attempt}").parse().unwrap();
        if cluster.nodes[leader].ledger().create_vault(made.clone()).await.is_err() {
            // Nothing was acknowledged, and so nothing is promised.
            continue;
        }
        // From now on nobody learns that anything is committed; elections go on.
        let no_entries = |request: &mut ledger_node::peers::PeerRequest| match request.method {
            PeerMethod::Append => Fate::Lost,
            _ => Fate::Delivered,
        };
        cluster.network.intercept(no_entries);
        cluster.network.isolate(cluster.nodes[leader].address());
        let mut next = leader;
        until("another node leads", || {
            let leads =
                |index: &usize| *index != leader && cluster.nodes[*index].ledger().node_info().is_leader;
            next = (0..3).find(leads).unwrap_or(leader);
            next != leader
        })
        .await;
        let ledger = cluster.nodes[next].ledger();
        let knew = ledger.vault(&made).is_some();
        let (actor, transaction) = (actor(), put("key", "value"));
        let write = ledger.write(&made, &actor, transaction);
        let (written, ()) = tokio::join!(write, async { cluster.network.heal() });
        assert!(!matches!(written, Err(WriteError::Refused(_))), "{written:?}");
        // The news may have been quicker than the cut: then this attempt says nothing.
        if !knew {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_answers_no_linearizable_read_and_loses_no_acknowledged_write() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "old")).await;
    cluster.network.isolate(cluster.nodes[leader].address());
    let next = cluster.leader_among(|index| index != leader).await;
    cluster.write(next, put("key", "new")).await;
    let old = cluster.nodes[leader].ledger();
    let stale = old.get(&vault(), &key("key"), Consistency::Eventual).await.unwrap();
    assert_eq!(stale.value.unwrap().value.as_ref(), b"old", "it says itself that it may be old");
    assert!(old.get(&vault(), &key("key"), Consistency::Linearizable).await.is_err());
    cluster.network.heal();
    cluster.leader().await;
    cluster.converge().await;
    assert_eq!(cluster.value(leader, "key").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_by_lease_end_with_the_lease() {
    let cluster = TestCluster::of_voters_tuned(3, |options| {
        let lease = LeaseReads { clock_drift_max: Duration::from_millis(50) };
        options.cluster.as_mut().unwrap().lease_reads = Some(lease);
    });
    let cluster = cluster.await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "old")).await;
    let ledger = cluster.nodes[leader].ledger();
    assert_eq!(cluster.value(leader, "key").await.as_deref(), Some("old"));
    cluster.network.isolate(cluster.nodes[leader].address());
    let next = cluster.leader_among(|index| index != leader).await;
    cluster.write(next, put("key", "new")).await;
    let refused = ledger.get(&vault(), &key("key"), Consistency::Linearizable).await;
    assert!(refused.is_err(), "another node has been elected: {refused:?}");
}

/// A leader that reads by lease counts on what a voter answered to its last heartbeat. One that was started anew does not
/// remember it: with its vote another node could lead while the lease still runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_started_anew_grants_no_vote_before_a_lease_has_passed() {
    const LEASE: Duration = Duration::from_secs(2);
    let mut cluster = TestCluster::homes(3);
    cluster.tune = |options| {
        let timing = &mut options.cluster.as_mut().unwrap().timing;
        (timing.election_max, timing.quorum_loss_silence) = (LEASE, 3 * LEASE);
    };
    let members: Vec<_> = cluster.nodes.iter().map(|node| node.member.clone()).collect();
    cluster.start(0, ledger_node::Bootstrap::Members(members)).await;
    for index in 1..3 {
        cluster.start(index, ledger_node::Bootstrap::Joined).await;
    }
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.converge().await;
    // The others elect nobody, and what they ask is kept.
    let asked: Arc<Mutex<Vec<PeerRequest>>> = Arc::default();
    let kept = Arc::clone(&asked);
    cluster.network.intercept(move |request| match request.method {
        PeerMethod::Vote => {
            kept.lock().unwrap().push(request.clone());
            Fate::Lost
        }
        _ => Fate::Delivered,
    });
    cluster.network.isolate(cluster.nodes[leader].address());
    until("a candidate asks for votes", || !asked.lock().unwrap().is_empty()).await;
    for index in 0..3 {
        cluster.stop(index).await;
    }
    let request = asked.lock().unwrap()[0].clone();
    let is_voter = |index: &usize| *index != leader && cluster.nodes[*index].id() != request.from.node_id;
    let voter = (0..3).find(is_voter).unwrap();
    let request = PeerRequest { to: Some(cluster.nodes[voter].id()), ..request };

    cluster.start(voter, ledger_node::Bootstrap::Joined).await;
    let began = Instant::now();
    let address = cluster.nodes[voter].address();
    let first = cluster.network.ask(address, request.clone()).await;
    assert!(matches!(&first, Err(PeerRefusal::NotReady { .. })), "{first:?}");
    let deadline = began + Duration::from_secs(60);
    while cluster.network.ask(address, request.clone()).await.is_err() {
        assert!(Instant::now() < deadline, "it never answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The start itself took a little of it.
    assert!(began.elapsed() > LEASE / 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_hands_over_to_a_voter_that_has_room_and_stays_when_there_is_none() {
    let cluster = TestCluster::of_voters(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    let full = (first + 1) % 3;
    let with_room = (first + 2) % 3;
    cluster.nodes[full].ledger().set_write_state(WriteState::DiskFull);
    cluster.nodes[first].ledger().set_write_state(WriteState::DiskFull);
    let id = cluster.nodes[with_room].id();
    until("the one with room leads", || {
        cluster.running().all(|(_, ledger)| ledger.cluster().status().leader == Some(id))
    })
    .await;
    cluster.write(with_room, put("key", "value")).await;

    // None has room: nobody takes over, and the cluster reads.
    let ledger = cluster.nodes[with_room].ledger();
    ledger.set_write_state(WriteState::DiskFull);
    let term = ledger.node_info().term;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        ledger.get(&vault(), &key("key"), Consistency::Linearizable).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(ledger.node_info().term, term);
    assert!(ledger.node_info().is_leader);
    cluster.nodes[first].ledger().set_write_state(WriteState::Open);
    until("the one that has room again leads", || cluster.nodes[first].ledger().node_info().is_leader).await;
    cluster.write(first, put("key", "more")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_over_a_network_that_loses_messages() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.network.lose_every(7);
    for n in 0..30 {
        cluster.write(n % 3, put(&format!("key-{n}"), "value")).await;
    }
    cluster.network.heal();
    cluster.leader().await;
    cluster.converge().await;
    assert_eq!(cluster.nodes[0].ledger().vault(&vault()).unwrap().version, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_takes_nothing_from_its_followers_either() {
    let mut cluster = TestCluster::homes(1);
    // The others do not vote, so that nobody can take over.
    cluster.tune = |options| options.cluster.as_mut().unwrap().voters_max = 1;
    cluster.start(0, ledger_node::Bootstrap::Single).await;
    let leader = cluster.leader().await;
    for _ in 1..3 {
        let index = cluster.add_home();
        cluster.start(index, ledger_node::Bootstrap::Joined).await;
        let member = cluster.nodes[index].member.clone();
        cluster.nodes[leader].ledger().cluster().add(member).await.unwrap();
    }
    cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.write(leader, put("key", "value")).await;
    cluster.converge().await;
    let full = cluster.nodes[leader].ledger();
    full.set_write_state(WriteState::DiskFull);
    let last = full.node_info().last_log_index;
    let other: VaultRef = "acme/other".parse().unwrap();
    for (index, ledger) in cluster.running() {
        let refused = ledger.write(&vault(), &actor(), put("key", "more")).await.unwrap_err();
        assert!(matches!(refused, WriteError::DiskFull), "node {index}: {refused}");
        let refused = ledger.create_vault(other.clone()).await.unwrap_err();
        assert!(matches!(refused, AdminError::DiskFull), "node {index}: {refused}");
        let read = ledger.get(&vault(), &key("key"), Consistency::Linearizable).await.unwrap();
        assert_eq!(read.value.unwrap().value.as_ref(), b"value", "node {index}");
    }
    assert_eq!(full.node_info().last_log_index, last, "the log did not grow");
    full.set_write_state(WriteState::Open);
    let follower = (leader + 1) % 3;
    cluster.nodes[follower].ledger().create_vault(other).await.unwrap();
    cluster.write(follower, put("key", "more")).await;
}
