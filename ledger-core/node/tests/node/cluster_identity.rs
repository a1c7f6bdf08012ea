//! Claims about who may talk to a node.

use bytes::Bytes;
use ledger_node::DataDirectory;
use ledger_node::peers::{ClusterId, Incarnation, PeerIdentity, PeerMethod, PeerRefusal, PeerRequest};

use super::cluster_setting::{CLUSTER, TestCluster, steady, until};
use super::setting::put;

fn request(from: &PeerIdentity, to: u64, method: PeerMethod) -> PeerRequest {
    PeerRequest { cluster: Some(CLUSTER), from: from.clone(), to: Some(to), method, body: Bytes::new() }
}

/// All methods that only members may use.
const MEMBERS_ONLY: [PeerMethod; 11] = [
    PeerMethod::Vote,
    PeerMethod::PreVote,
    PeerMethod::Append,
    PeerMethod::TransferLeader,
    PeerMethod::ReadIndex,
    PeerMethod::Propose,
    PeerMethod::Checkpoint,
    PeerMethod::Tips,
    PeerMethod::Membership,
    PeerMethod::WriteState,
    PeerMethod::LedgerKey,
];

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_another_cluster_are_refused_whatever_they_ask() {
    let cluster = TestCluster::of_voters(3).await;
    let (from, to) = (cluster.nodes[0].member.identity.clone(), &cluster.nodes[1]);
    for other in [None, Some(ClusterId([8; 16]))] {
        for method in MEMBERS_ONLY {
            let request = PeerRequest { cluster: other, ..request(&from, to.id(), method) };
            let refused = cluster.network.ask(to.address(), request).await.unwrap_err();
            assert_eq!(refused, PeerRefusal::OtherCluster { theirs: CLUSTER, ours: other }, "{method:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_under_its_old_number_is_refused_by_name() {
    let cluster = TestCluster::of_voters(3).await;
    let to = &cluster.nodes[1];
    let known = cluster.nodes[0].member.identity.clone();
    let wiped = PeerIdentity { incarnation: Incarnation([99; 16]), ..known.clone() };
    let renamed = PeerIdentity { name: cluster.nodes[2].member.identity.name.clone(), ..known };
    for (from, says) in [(wiped, "incarnation"), (renamed, "is node-0, not node-2")] {
        for method in MEMBERS_ONLY {
            let refused =
                cluster.network.ask(to.address(), request(&from, to.id(), method)).await.unwrap_err();
            let PeerRefusal::Identity { reason } = &refused else { panic!("{method:?}: {refused}") };
            assert!(reason.contains(says), "{method:?}: {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_node_at_the_same_address_is_refused() {
    let cluster = TestCluster::of_voters(3).await;
    let from = &cluster.nodes[0].member.identity;
    for method in MEMBERS_ONLY {
        let wrong = request(from, cluster.nodes[2].id(), method);
        let refused = cluster.network.ask(cluster.nodes[1].address(), wrong).await.unwrap_err();
        assert!(matches!(refused, PeerRefusal::Identity { .. }), "{method:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_may_neither_write_nor_read_nor_change_members() {
    let mut cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    let stranger = cluster.add_home();
    let from = cluster.nodes[stranger].member.identity.clone();
    let to = &cluster.nodes[leader];
    for method in [
        PeerMethod::ReadIndex,
        PeerMethod::Propose,
        PeerMethod::Checkpoint,
        PeerMethod::Membership,
        PeerMethod::LedgerKey,
    ] {
        let refused = cluster.network.ask(to.address(), request(&from, to.id(), method)).await.unwrap_err();
        let PeerRefusal::Identity { reason } = &refused else { panic!("{method:?}: {refused}") };
        assert!(reason.contains("no member"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_refused_and_the_node_goes_on() {
    let cluster = TestCluster::of_voters(3).await;
    let leader = cluster.leader().await;
    let (from, to) = (&cluster.nodes[(leader + 1) % 3].member.identity, &cluster.nodes[leader]);
    // A question without content is nothing but its format.
    let is_whole = |method, body: &[u8]| method == PeerMethod::WriteState && body == b"\x01";
    for body in [&b""[..], b"\x02", b"\x01", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[1; 4_096]] {
        for method in MEMBERS_ONLY.into_iter().filter(|method| !is_whole(*method, body)) {
            let body = Bytes::copy_from_slice(body);
            let request = PeerRequest { body, ..request(from, to.id(), method) };
            // Some bytes are a message of some method: then there is an answer, or another refusal.
            let _ = cluster.network.ask(to.address(), request).await;
        }
    }
    cluster.leader().await;
    cluster.create_vault(leader).await;
}

/// As on the wire: (term, index).
type LogId = (u64, u64);
/// Term, node, whether a quorum granted it.
type Vote = (u64, u64, bool);
/// Term, index, kind, payload.
type Record = (u64, u64, u8, Vec<u8>);
type Append = (Vote, Option<LogId>, Option<LogId>, Vec<Record>);

fn message(fields: &impl serde::Serialize) -> Bytes {
    postcard::to_extend(fields, vec![1]).unwrap().into()
}

/// A question for the ledger's key: which it is, or the key itself in place of another one.
const PUBLIC: u8 = 0;
const PRIVATE: u8 = 1;

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_key_leaves_the_leader_only_in_place_of_another_one() {
    let mut cluster = TestCluster::homes(3);
    cluster.network.keep_answers(PeerMethod::LedgerKey);
    cluster.tune = steady;
    cluster.found().await;
    let leader = cluster.leader().await;
    let secret = std::fs::read_to_string(cluster.nodes[leader].home.folder.path().join("log.key")).unwrap();
    let secret = secret.trim_end();
    let public = cluster.nodes[leader].ledger().verifier_key().to_string();
    // Both followers make sure that they hold the leader's key.
    until("the followers compare their keys", || cluster.network.kept_answers().len() >= 2).await;
    for answer in cluster.network.kept_answers() {
        assert!(contains(&answer, &public) && !contains(&answer, secret), "{answer:?}");
    }

    let (from, to) = (&cluster.nodes[(leader + 1) % 3].member.identity, &cluster.nodes[leader]);
    let ask = async |body: Bytes| {
        let request = PeerRequest { body, ..request(from, to.id(), PeerMethod::LedgerKey) };
        cluster.network.ask(to.address(), request).await
    };
    let other = DataDirectory::ephemeral().unwrap().signing_key().verifier_key().to_string();
    assert_eq!(ask(message(&PUBLIC)).await.unwrap(), message(&(PUBLIC, &public)));
    assert_eq!(ask(message(&(PRIVATE, &public))).await.unwrap(), message(&(PUBLIC, &public)));
    assert_eq!(ask(message(&(PRIVATE, &other))).await.unwrap(), message(&(PRIVATE, secret)));
    let none = ask(message(&(PRIVATE, "no key"))).await.unwrap_err();
    assert!(matches!(none, PeerRefusal::Malformed { .. }), "{none}");
}

/// A store refuses entries with holes, and a node whose store fails stops.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_do_not_follow_what_is_there_are_refused_and_the_node_goes_on() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    cluster.converge().await;
    let (from, to) = (&cluster.nodes[leader], &cluster.nodes[(leader + 1) % 3]);
    let status = from.ledger().node_info();
    let (term, last) = (status.term, status.last_log_index);
    let vote = (term, from.id(), true);
    let blank = |term: u64, index: u64| (term, index, 0, Vec::new());
    let broken: [Append; 4] = [
        (vote, Some((term, last)), None, vec![blank(term, last + 2)]),
        (vote, Some((term, last)), None, vec![blank(term, last + 1), blank(term, last + 3)]),
        (vote, Some((term, last)), None, vec![blank(term + 1, last + 1)]),
        (vote, Some((term, last)), None, vec![blank(term - 1, last + 1)]),
    ];
    for append in &broken {
        let request = PeerRequest {
            body: message(append),
            ..request(&from.member.identity, to.id(), PeerMethod::Append)
        };
        let refused = cluster.network.ask(to.address(), request).await.unwrap_err();
        assert!(matches!(refused, PeerRefusal::Malformed { .. }), "{append:?}: {refused}");
    }
    cluster.write(leader, put("key", "value")).await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_speaks_in_no_other_members_name_and_claims_no_vote_that_it_only_asks_for() {
    let cluster = TestCluster::led_by_one(3).await;
    let leader = cluster.leader().await;
    let (other, to) = (&cluster.nodes[(leader + 2) % 3], &cluster.nodes[(leader + 1) % 3]);
    let (leader_id, term) = (cluster.nodes[leader].id(), to.ledger().node_info().term);
    let ask = async |method, body| {
        let request = PeerRequest { body, ..request(&other.member.identity, to.id(), method) };
        cluster.network.ask(to.address(), request).await.unwrap_err()
    };
    let append: Append = ((term, leader_id, true), None, None, Vec::new());
    let transfer = ((term, leader_id, true), to.id(), None::<LogId>);
    let asked = |vote: Vote| message(&(vote, None::<LogId>, false));
    let offer = ((term, leader_id, true), [0_u8; 32], 1_u64, (term, 1_u64));
    let install = ((term, leader_id, true), [0_u8; 32]);
    for (method, body) in [
        (PeerMethod::Append, message(&append)),
        (PeerMethod::TransferLeader, message(&transfer)),
        (PeerMethod::Vote, asked((term + 1, leader_id, false))),
        (PeerMethod::PreVote, asked((term + 1, leader_id, false))),
        (PeerMethod::SnapshotOffer, message(&offer)),
        (PeerMethod::SnapshotInstall, message(&install)),
    ] {
        let refused = ask(method, body).await;
        assert!(matches!(refused, PeerRefusal::Identity { .. }), "{method:?}: {refused}");
    }
    for method in [PeerMethod::Vote, PeerMethod::PreVote] {
        let refused = ask(method, asked((term + 1, other.id(), true))).await;
        assert!(matches!(refused, PeerRefusal::Malformed { .. }), "{method:?}: {refused}");
    }
    let unelected: Append = ((term + 1, other.id(), false), None, None, Vec::new());
    let refused = ask(PeerMethod::Append, message(&unelected)).await;
    assert!(matches!(refused, PeerRefusal::Malformed { .. }), "{refused}");
    assert_eq!(to.ledger().node_info().term, term, "nothing of it was believed");
    assert_eq!(cluster.leader().await, leader);
}
