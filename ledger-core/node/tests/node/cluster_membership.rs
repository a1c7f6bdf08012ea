//! Claims about taking nodes in, taking them out, and handing the lead over.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger_node::forming::{PeersWord, Returning};
use ledger_node::peers::{Incarnation, MemberRecord, NodeName, PeerIdentity};
use ledger_node::{Bootstrap, Consistency, MemberRole, MembershipChange, MembershipError, Options};
use tokio::time::Instant;

use super::cluster_setting::{CLUSTER, QUICK, STEADY, TestCluster, in_one_thread, until};
use super::setting::{key, put, vault};

fn voters(cluster: &TestCluster, through: usize) -> Vec<u64> {
    let status = cluster.nodes[through].ledger().cluster().status();
    let voters = status.members.iter().filter(|member| member.role != MemberRole::Learner);
    voters.map(|member| member.node_id).collect()
}

async fn grown(count: usize, tune: fn(&mut Options)) -> TestCluster {
    let mut cluster = TestCluster { tune, ..TestCluster::homes(1) };
    cluster.start(0, Bootstrap::Single).await;
    cluster.leader().await;
    cluster.create_vault(0).await;
    for _ in 1..count {
        let index = cluster.add_home();
        cluster.start(index, Bootstrap::Joined).await;
        cluster.add(0, index).await;
    }
    cluster.leader().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_three_and_survives_the_loss_of_the_first() {
    let mut cluster = grown(3, |_| {}).await;
    assert_eq!(voters(&cluster, 0).len(), 3);
    cluster.write(1, put("key", "value")).await;
    cluster.stop(0).await;
    let leader = cluster.leader().await;
    cluster.write(leader, put("other", "value")).await;
    cluster.converge().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn reads_stay_linearizable_while_a_lone_voter_becomes_one_of_several() {
    let mut cluster = TestCluster { tune: in_one_thread, ..TestCluster::homes(1) };
    cluster.start(0, Bootstrap::Single).await;
    cluster.leader().await;
    cluster.create_vault(0).await;
    let rounds = |cluster: &TestCluster| cluster.nodes[0].ledger().counters().barrier_rounds;
    cluster.write(0, put("key", "0")).await;
    let deadline = Instant::now() + QUICK.quorum_loss_silence * 100;
    loop {
        let before = rounds(&cluster);
        cluster.nodes[0].ledger().tip(&vault(), Consistency::Linearizable).await.unwrap();
        // Soon after it began to lead, a lone voter asks nobody.
        if rounds(&cluster) == before {
            break;
        }
        assert!(Instant::now() < deadline, "it asks somebody, and there is nobody");
        tokio::time::sleep(QUICK.heartbeat).await;
    }
    let index = cluster.add_home();
    cluster.start(index, Bootstrap::Joined).await;
    let member = cluster.nodes[index].member.clone();
    cluster.nodes[0].ledger().cluster().add(member).await.unwrap();
    let before = rounds(&cluster);
    cluster.nodes[0].ledger().tip(&vault(), Consistency::Linearizable).await.unwrap();
    assert!(rounds(&cluster) > before, "the other voter is asked");
    // Without the other voter there is no quorum, so there is no linearizable answer.
    cluster.network.isolate(cluster.nodes[1].address());
    let refused = cluster.nodes[0].ledger().get(&vault(), &key("key"), Consistency::Linearizable).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_node_that_was_taken_out_disturbs_nobody_and_is_refused_by_name() {
    let cluster = TestCluster::of_voters_tuned(3, in_one_thread).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let out = (leader + 1) % 3;
    let asked = (leader + 2) % 3;
    let out_id = cluster.nodes[out].id();
    let change = cluster.nodes[asked].ledger().cluster().remove(out_id).await.unwrap();
    assert!(matches!(change, MembershipChange::Removed { node_id, .. } if node_id == out_id), "{change:?}");
    let term = cluster.nodes[leader].ledger().node_info().term;
    // A hundred of the longest election timeouts, with writes.
    let end = Instant::now() + QUICK.election_max * 100;
    while Instant::now() < end {
        cluster.write(leader, put("key", "value")).await;
        tokio::time::sleep(QUICK.heartbeat).await;
    }
    assert_eq!(cluster.nodes[leader].ledger().node_info().term, term);
    let again = cluster.nodes[leader].ledger().cluster().remove(out_id).await.unwrap_err();
    assert_eq!(again, MembershipError::NotMember { node_id: out_id });
    let refused = cluster.nodes[out].ledger().cluster().remove(out_id).await.unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_lets_its_successor_take_it_out() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let id = cluster.nodes[leader].id();
    cluster.nodes[leader].ledger().cluster().remove(id).await.unwrap();
    let next = cluster.leader_among(|index| index != leader).await;
    assert_eq!(voters(&cluster, next).len(), 2);
    cluster.write(next, put("key", "value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_may_be_asked_to_take_the_leader_out() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let (asked, id) = ((leader + 1) % 3, cluster.nodes[leader].id());
    let change = cluster.nodes[asked].ledger().cluster().remove(id).await.unwrap();
    assert!(matches!(change, MembershipChange::Removed { node_id, .. } if node_id == id), "{change:?}");
    let next = cluster.leader_among(|index| index != leader).await;
    assert_eq!(voters(&cluster, next).len(), 2);
    cluster.write(next, put("key", "value")).await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn no_change_leaves_the_cluster_without_a_quorum() {
    let mut cluster = grown(3, in_one_thread).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    cluster.stop(others[0]).await;
    let ledger = cluster.nodes[leader].ledger().cluster();
    let gone = cluster.nodes[others[0]].id();
    until("the leader notices that it is gone", || {
        ledger.status().members.iter().any(|member| {
            member.node_id == gone && member.last_heard_ms.is_some_and(|heard_ms| heard_ms > 1_000)
        })
    })
    .await;
    let refused = ledger.remove(cluster.nodes[others[1]].id()).await.unwrap_err();
    assert_eq!(refused, MembershipError::QuorumLost { alive: 1, voters: 2 });
    // The one that is gone may be taken out: the two others answer.
    ledger.remove(gone).await.unwrap();
    ledger.remove(cluster.nodes[others[1]].id()).await.unwrap();
    let last = ledger.remove(cluster.nodes[leader].id()).await.unwrap_err();
    assert_eq!(last, MembershipError::LastVoter { node_id: cluster.nodes[leader].id() });
    cluster.write(leader, put("key", "value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_a_quorum_is_refused_in_bounded_time_with_what_to_do() {
    // Whoever is asked: one that led, or one that never did.
    for led_last in [true, false] {
        let mut cluster = TestCluster::of_voters(3).await;
        let leader = cluster.leader().await;
        let asked = if led_last { leader } else { (leader + 1) % 3 };
        let gone: Vec<usize> = (0..3).filter(|index| *index != asked).collect();
        for index in &gone {
            cluster.network.isolate(cluster.nodes[*index].address());
        }
        let ledger = cluster.nodes[asked].ledger().cluster();
        let began = Instant::now();
        let refused = ledger.remove(cluster.nodes[gone[0]].id()).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let MembershipError::NoQuorum { voters: named } = &refused else { panic!("{refused}") };
        assert_eq!(named.len(), 3, "{refused}");
        assert!(refused.to_string().contains("--force-new-cluster"), "{refused}");
        cluster.network.heal();
        let leader = cluster.leader().await;
        assert_eq!(voters(&cluster, leader).len(), 3, "nothing was done");
        cluster.stop(asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_voters_the_one_that_is_left_says_that_it_cannot_take_the_other_out() {
    let mut cluster = grown(2, |_| {}).await;
    let leader = cluster.leader().await;
    let gone = 1 - leader;
    let id = cluster.nodes[gone].id();
    cluster.stop(gone).await;
    let ledger = cluster.nodes[leader].ledger().cluster();
    let began = Instant::now();
    let refused = ledger.remove(id).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(&refused, MembershipError::NoQuorum { voters, .. } if voters.len() == 2), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_is_handed_over_at_once_and_no_write_is_lost() {
    let cluster = TestCluster::led_by_one(3).await;
    let first = cluster.leader().await;
    cluster.create_vault(first).await;
    for round in 0..6 {
        let leader = cluster.leader().await;
        let to = (leader + 1) % 3;
        let asked = (leader + 2) % 3;
        let began = Instant::now();
        let next =
            cluster.nodes[asked].ledger().cluster().transfer(Some(cluster.nodes[to].id())).await.unwrap();
        assert_eq!(next, cluster.nodes[to].id());
        assert!(
            began.elapsed() < STEADY.election_min / 4,
            "nobody waits for an election: {:?}",
            began.elapsed()
        );
        cluster.write(leader, put(&format!("key-{round}"), "value")).await;
    }
    cluster.converge().await;
    let info = cluster.nodes[0].ledger().vault(&vault()).unwrap();
    assert_eq!(info.version, 6);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn members_beyond_the_votes_learn_and_one_takes_the_place_of_a_voter_that_falls_silent() {
    let cluster = TestCluster::of_voters_tuned(3, |options| {
        in_one_thread(options);
        let options = options.cluster.as_mut().unwrap();
        options.voters_max = 3;
        options.silent_after = Some(Duration::from_millis(1_500));
    });
    let mut cluster = cluster.await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let spare = cluster.add_home();
    cluster.start(spare, Bootstrap::Joined).await;
    let member = cluster.nodes[spare].member.clone();
    let change = cluster.nodes[leader].ledger().cluster().add(member).await.unwrap();
    assert!(matches!(change, MembershipChange::Learner { .. }), "{change:?}");
    let silent = (leader + 1) % 3;
    cluster.network.isolate(cluster.nodes[silent].address());
    let (silent_id, spare_id) = (cluster.nodes[silent].id(), cluster.nodes[spare].id());
    until("the learner takes its place", || {
        let voters = voters(&cluster, leader);
        voters.len() == 3 && voters.contains(&spare_id) && !voters.contains(&silent_id)
    })
    .await;
    cluster.write(leader, put("key", "value")).await;

    // It ran all the time, and nobody does anything but mend the network.
    cluster.network.reconnect(cluster.nodes[silent].address());
    until("the one that was silent is ready again", || cluster.nodes[silent].ledger().ready()).await;
    assert!(!voters(&cluster, leader).contains(&silent_id), "there is no vote to give");
    cluster.converge().await;
    let third = (0..3).find(|index| *index != silent && *index != leader).unwrap();
    cluster.nodes[leader].ledger().cluster().remove(cluster.nodes[third].id()).await.unwrap();
    until("it votes again when there is a vote to give", || voters(&cluster, leader).contains(&silent_id))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_taken_out_while_it_ran_knows_it_and_stays_out_until_it_is_added_again() {
    let mut cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let (out, asked) = ((leader + 1) % 3, (leader + 2) % 3);
    let member = cluster.nodes[out].member.clone();
    let id = member.identity.node_id;
    cluster.nodes[asked].ledger().cluster().remove(id).await.unwrap();
    let knows = |cluster: &TestCluster| {
        let ledger = cluster.nodes[out].ledger();
        !ledger.ready() && ledger.cluster().status().is_removed
    };
    until("it says that it was taken out", || knows(&cluster)).await;
    cluster.write(leader, put("key", "without it")).await;
    cluster.stop(out).await;
    cluster.start(out, Bootstrap::Joined).await;
    until("it says so again after a restart", || knows(&cluster)).await;
    let is_member = |cluster: &TestCluster| {
        let members = cluster.nodes[leader].ledger().cluster().status().members;
        members.iter().any(|member| member.node_id == id)
    };
    assert!(!is_member(&cluster), "it does not come back by itself");
    assert!(!cluster.nodes[asked].ledger().cluster().status().is_removed);

    cluster.nodes[asked].ledger().cluster().add(member).await.unwrap();
    until("it serves again", || {
        let ledger = cluster.nodes[out].ledger();
        ledger.ready() && !ledger.cluster().status().is_removed
    })
    .await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_tells_nobody_that_it_was_taken_out() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    for index in (0..3).filter(|index| *index != leader) {
        cluster.network.isolate(cluster.nodes[index].address());
    }
    cluster.network.listen("node-99:7000", cluster.nodes[leader].ledger().peer_handler());
    // A node that it does not know, as if it had been taken out by an entry that this leader lacks or alone has.
    let from = PeerIdentity {
        node_id: 99,
        name: NodeName::new("node-99").unwrap(),
        incarnation: Incarnation([99; 16]),
    };
    let asker = MemberRecord {
        identity: from.clone(),
        peer_address: "node-99:7000".to_owned(),
        client_url: String::new(),
    };
    let transport = cluster.network.transport(&asker.peer_address);
    let returning = Returning { transport: &transport, cluster: CLUSTER, me: &asker, last_index: None };
    let addresses: BTreeSet<_> = cluster.nodes.iter().map(|node| node.address().to_owned()).collect();
    let word = returning.ask(addresses.clone(), Duration::from_millis(200)).await;
    assert_eq!(word, PeersWord::Unknown);
    cluster.network.heal();
    assert_eq!(returning.ask(addresses, Duration::from_secs(60)).await, PeersWord::NotMember);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn without_a_learner_a_silent_voter_stays() {
    let cluster = TestCluster::of_voters_tuned(3, |options| {
        in_one_thread(options);
        options.cluster.as_mut().unwrap().silent_after = Some(Duration::from_millis(700));
    });
    let cluster = cluster.await;
    let leader = cluster.leader().await;
    let silent = (leader + 1) % 3;
    cluster.network.isolate(cluster.nodes[silent].address());
    let ledger = cluster.nodes[leader].ledger().cluster();
    let silent_id = cluster.nodes[silent].id();
    until("it has been silent for much longer than allowed", || {
        ledger.status().members.iter().any(|member| {
            member.node_id == silent_id && member.last_heard_ms.is_some_and(|heard_ms| heard_ms > 2_000)
        })
    })
    .await;
    assert_eq!(voters(&cluster, leader).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_voters_a_silent_one_loses_its_vote_to_nobody_and_has_it_again_when_it_is_back() {
    let mut cluster = TestCluster::homes(4);
    cluster.tune = |options| {
        options.cluster.as_mut().unwrap().silent_after = Some(Duration::from_millis(1_500));
    };
    let members: Vec<_> = cluster.nodes.iter().map(|node| node.member.clone()).collect();
    cluster.start(0, Bootstrap::Members(members)).await;
    for index in 1..4 {
        cluster.start(index, Bootstrap::Joined).await;
    }
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let [silent, second] = [(leader + 1) % 4, (leader + 2) % 4];
    let silent_id = cluster.nodes[silent].id();
    cluster.network.isolate(cluster.nodes[silent].address());
    until("it has no vote any more", || {
        let voters = voters(&cluster, leader);
        voters.len() == 3 && !voters.contains(&silent_id)
    })
    .await;
    // That is what it is for: of four with two gone none could decide.
    cluster.network.isolate(cluster.nodes[second].address());
    cluster.write(leader, put("key", "value")).await;
    assert_eq!(voters(&cluster, leader).len(), 3, "three never become two");
    cluster.network.reconnect(cluster.nodes[silent].address());
    cluster.network.reconnect(cluster.nodes[second].address());
    until("it votes again", || voters(&cluster, leader).contains(&silent_id)).await;
    cluster.leader().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_moves_is_found_again_at_its_new_address() {
    let mut cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    let moved = (leader + 1) % 3;
    cluster.stop(moved).await;
    cluster.nodes[moved].member.peer_address = "elsewhere:7000".to_owned();
    cluster.start(moved, Bootstrap::Joined).await;
    // Nobody can reach it where it was: it tells the leader by itself where it is.
    let record = cluster.nodes[moved].member.clone();
    let ledger = cluster.nodes[leader].ledger().cluster();
    until("the leader knows its address", || {
        ledger.status().members.iter().any(|member| member.record.as_ref() == Some(&record))
    })
    .await;
    assert_eq!(voters(&cluster, leader).len(), 3, "it votes as before");
    cluster.write(leader, put("key", "value")).await;
    cluster.leader().await;
    cluster.converge().await;
}
