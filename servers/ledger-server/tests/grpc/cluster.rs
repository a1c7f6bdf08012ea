//! What administrators see and change of a cluster.

use ledger_proto::v1;
use ledger_server::access::Role;
use ledger_server::tokens::NewToken;
use tonic::Code;

use crate::cluster_setting::{PATIENCE, TestCluster};
use crate::support::{TestServer, refused, set, vault_ref};

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_alone_says_so_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut admin = server.admin().await.admin;
    let info = admin.get_cluster_info(v1::GetClusterInfoRequest {}).await.unwrap().into_inner();
    let node = server.ledger.node_info();
    assert_eq!((info.node_id, info.leader_id, info.term), (node.node_id, node.node_id, node.term));
    assert!(info.cluster_id.is_empty() && info.is_ready && !info.is_changing);
    assert_eq!(info.members.len(), 1);
    assert_eq!(info.members[0].role(), v1::cluster_member::Role::Leader);
    let answer = admin.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap();
    assert!(answer.metadata().get(ledger_proto::LEADER_HEADER).is_none(), "it leads itself");
    let answer = answer.into_inner();
    assert_eq!((answer.pid, answer.leader_id), (std::process::id(), node.node_id));

    let newcomer = v1::ClusterNode {
        node_id: 9,
        name: "node-9".to_owned(),
        incarnation: vec![9; 16].into(),
        peer_address: "10.0.0.9:50052".to_owned(),
        client_url: String::new(),
    };
    let joined = admin.join_cluster(v1::JoinClusterRequest { node: Some(newcomer) }).await;
    refused(joined, Code::FailedPrecondition, "NOT_IN_CLUSTER");
    let bare = v1::ClusterNode { peer_address: "10.0.0.9:50052".to_owned(), ..v1::ClusterNode::default() };
    let joined = admin.join_cluster(v1::JoinClusterRequest { node: Some(bare) }).await;
    refused(joined, Code::FailedPrecondition, "NODE_UNREACHABLE");
    let joined = admin.join_cluster(v1::JoinClusterRequest { node: None }).await;
    refused(joined, Code::InvalidArgument, "INVALID_ARGUMENT");
    let removed = admin.remove_node(v1::RemoveNodeRequest { node_id: 0 }).await;
    refused(removed, Code::InvalidArgument, "INVALID_ARGUMENT");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_the_members_and_tells_who_leads() {
    let cluster = TestCluster::start(3, 0).await;
    let leader = cluster.leader().await;
    let token = cluster.admin_token();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let mut admin = node.clients(&token).await.admin;
        // The hint follows the leader a moment later, and so do the first answers to the leader.
        let answer = tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = admin.get_cluster_info(v1::GetClusterInfoRequest {}).await.unwrap();
                let is_told = answer.metadata().get(ledger_proto::LEADER_HEADER).is_some();
                let members = &answer.get_ref().members;
                let has_heard = members.iter().all(|member| member.matched_index.is_some());
                if is_told == (index != leader) && (index != leader || has_heard) {
                    return answer;
                }
            }
        });
        let answer = answer.await.expect("only followers tell who leads");
        let hint =
            answer.metadata().get(ledger_proto::LEADER_HEADER).map(|hint| hint.to_str().unwrap().to_owned());
        let info = answer.into_inner();
        let lead = &cluster.nodes[leader];
        let expected = format!("{} {} {}", info.term, lead.id(), lead.member.client_url);
        assert_eq!(hint, (index != leader).then_some(expected));
        assert_eq!((info.node_id, info.leader_id), (node.id(), lead.id()));
        assert_eq!(info.cluster_id, vec![7; 16]);
        for member in &info.members {
            let described = member.node.as_ref().unwrap();
            let known = cluster.nodes.iter().find(|node| node.id() == described.node_id).unwrap();
            let record = &known.member;
            assert_eq!(described.name, record.identity.name.as_str());
            assert_eq!(described.incarnation, record.identity.incarnation.0.to_vec());
            assert_eq!(
                (&described.peer_address, &described.client_url),
                (&record.peer_address, &record.client_url)
            );
            // Only the leader knows how far the others are.
            assert_eq!(member.matched_index.is_some(), index == leader, "{member:?}");
        }
        assert_eq!(info.members.len(), 3);
        // Errors carry the hint as well.
        let missing =
            admin.get_namespace(v1::GetNamespaceRequest { name: "none".to_owned() }).await.unwrap_err();
        assert_eq!(missing.metadata().get(ledger_proto::LEADER_HEADER).is_some(), index != leader);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_valid_on_every_node_and_a_revocation_ends_them_everywhere() {
    let cluster = TestCluster::start(3, 0).await;
    let leader = cluster.leader().await;
    let holders = cluster.nodes.iter().filter(|node| node.tokens.admin_token_file().is_some()).count();
    assert_eq!(holders, 1, "one node minted the first token");
    let listed = cluster.nodes[leader].tokens.list();
    assert_eq!(listed.len(), 1);

    // Made on a follower, and valid there at once.
    let follower = &cluster.nodes[(leader + 1) % 3];
    let new = NewToken { role: Role::Admin, scope: "*".parse().unwrap(), actor: None, created_at_ms: 1 };
    let (token, text) = follower.tokens.create(&new).await.unwrap();
    assert!(follower.tokens.authenticate(text.expose()).is_some());
    let holds = async |is_valid: bool| {
        let everywhere = async {
            while cluster
                .nodes
                .iter()
                .any(|node| node.tokens.authenticate(text.expose()).is_some() != is_valid)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, everywhere).await.expect("every node applies it");
    };
    holds(true).await;
    let mut clients = cluster.nodes[(leader + 2) % 3].clients(text.expose()).await;
    clients.create("acme", "main").await;
    clients.write(&vault_ref("acme", "main"), vec![set("door", "open")]).await.unwrap();

    let mut admin = follower.clients(&cluster.admin_token()).await.admin;
    admin.revoke_token(v1::RevokeTokenRequest { id: token.id.to_string() }).await.unwrap();
    assert!(follower.tokens.authenticate(text.expose()).is_none(), "at once where it was revoked");
    holds(false).await;
    let info = clients.admin.get_node_info(v1::GetNodeInfoRequest {}).await;
    refused(info, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_by_its_address_the_lead_moves_and_a_node_leaves() {
    let cluster = TestCluster::start(3, 1).await;
    let leader = cluster.leader().await;
    let token = cluster.admin_token();
    let mut admin = cluster.nodes[(leader + 1) % 3].clients(&token).await.admin;
    let newcomer = &cluster.nodes[3];
    let peer_address = newcomer.member.peer_address.clone();
    let bare = v1::ClusterNode { peer_address, ..v1::ClusterNode::default() };
    let change = admin.join_cluster(v1::JoinClusterRequest { node: Some(bare) }).await.unwrap().into_inner();
    assert_eq!((change.node_id, change.kind()), (newcomer.id(), v1::membership_change::Kind::Voter));
    let nowhere = v1::ClusterNode { peer_address: "nowhere:1".to_owned(), ..v1::ClusterNode::default() };
    let joined = admin.join_cluster(v1::JoinClusterRequest { node: Some(nowhere) }).await;
    refused(joined, Code::FailedPrecondition, "NODE_UNREACHABLE");

    let request = v1::TransferLeadershipRequest { node_id: newcomer.id() };
    let moved = admin.transfer_leadership(request).await.unwrap().into_inner();
    assert_eq!(moved.leader_id, newcomer.id());
    // The node that is asked next may hear of it a moment later.
    let heard = async {
        let asked = v1::GetClusterInfoRequest {};
        while admin.get_cluster_info(asked).await.map(|info| info.into_inner().leader_id).ok()
            != Some(newcomer.id())
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("every node hears who leads");
    let unknown = admin.transfer_leadership(v1::TransferLeadershipRequest { node_id: 4_711 }).await;
    refused(unknown, Code::NotFound, "UNKNOWN_NODE");

    // The leader leaves: it hands over first.
    let mut leaving = newcomer.clients(&token).await.admin;
    let left = leaving.leave_cluster(v1::LeaveClusterRequest {}).await.unwrap().into_inner();
    assert_eq!((left.node_id, left.kind()), (newcomer.id(), v1::membership_change::Kind::Removed));
    let heard = async {
        loop {
            let info = admin.get_cluster_info(v1::GetClusterInfoRequest {}).await.unwrap().into_inner();
            if info.leader_id != newcomer.id() && info.leader_id != 0 && info.members.len() == 3 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("every node hears who is left");
    let gone = admin.remove_node(v1::RemoveNodeRequest { node_id: newcomer.id() }).await;
    refused(gone, Code::NotFound, "UNKNOWN_NODE");
    cluster.stop().await;
}
