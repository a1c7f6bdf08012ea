//! Lists that prove themselves, over the protocol.

use ledger_proto::v1;
use ledger_verify::Hash;
use ledger_verify::list::{self, ListClaim, ListEvidence, ListPage, ListSubject};
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::Evidence;
use ledger_verify::state::StateProof;
use tonic::Code;

use crate::support::{Clients, Setup, TestServer, metadata, refused, relate, set, tuple, vault_ref};

const MEMBERS: usize = 120;

fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap()
}

fn request(relation: &str, page_size: u32, page_token: &str) -> v1::VerifiedListRequest {
    v1::VerifiedListRequest {
        vault: Some(vault_ref("acme", "main")),
        resource: "pkg:libc6".to_owned(),
        relation: relation.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        trusted_size: 0,
    }
}

async fn filled() -> (TestServer, Clients) {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let mut operations: Vec<_> = (0..MEMBERS)
        .map(|number| relate(tuple("pkg:libc6", "required_by", &format!("pkg:{number}"))))
        .collect();
    operations.push(relate(tuple("pkg:libc6", "provides", "pkg:libc6-2.41")));
    operations.push(set("pkg:libc6", "2.41"));
    clients.write(&vault_ref("acme", "main"), operations).await.unwrap();
    (server, clients)
}

async fn pages(clients: &mut Clients, relation: &str, page_size: u32) -> Vec<v1::VerifiedListResponse> {
    let mut answers = Vec::new();
    let mut token = String::new();
    loop {
        let answer = clients.reads.verified_list(request(relation, page_size, &token)).await.unwrap();
        answers.push(answer.into_inner());
        token.clone_from(&answers[answers.len() - 1].next_page_token);
        if token.is_empty() {
            return answers;
        }
    }
}

async fn verified(clients: &mut Clients, relation: &str, answers: &[v1::VerifiedListResponse]) -> ListClaim {
    let node = clients.admin.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner();
    let head = answers[0].head.as_ref().expect("the first page has the proof");
    let head = Evidence {
        leaf: head.leaf.as_ref().map(|leaf| leaf.to_vec()),
        state_proof: StateProof {
            siblings: head.siblings.iter().map(|sibling| hash(sibling)).collect(),
            other_leaf: head.other_leaf.as_ref().map(|leaf| (hash(&leaf.key_hash), hash(&leaf.value_hash))),
        },
        header: head.header.to_vec(),
        inclusion_path: head.inclusion.iter().map(|node| hash(node)).collect(),
        checkpoint: head.checkpoint.clone(),
    };
    let pages = answers.iter().filter_map(|answer| answer.page.as_ref());
    let pages =
        pages.map(|page| ListPage { last_key: hash(&page.last_key), nodes: page.nodes.to_vec() }).collect();
    let relation = Some(relation.to_owned()).filter(|relation| !relation.is_empty());
    let subject = ListSubject { resource: "pkg:libc6".to_owned(), relation };
    let keys = [VerifierKey::parse(&node.verifier_key).unwrap()];
    list::verify(&subject, &ListEvidence { head, pages }, &keys).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_proved_whole_in_pages_of_one_height_also_on_a_restarted_server() {
    let (server, mut clients) = filled().await;
    for (relation, count) in [("", MEMBERS + 1), ("required_by", MEMBERS), ("none", 0)] {
        for page_size in [0, 1_000, 50] {
            let answers = pages(&mut clients, relation, page_size).await;
            let claim = verified(&mut clients, relation, &answers).await;
            assert_eq!((claim.members.len(), claim.resource_count, claim.height), (count, 121, 1));
            assert!(answers.iter().skip(1).all(|answer| answer.head.is_none() && answer.height == 1));
        }
    }
    let mut answers = vec![clients.reads.verified_list(request("", 50, "")).await.unwrap().into_inner()];
    let change = vec![relate(tuple("pkg:libc6", "required_by", "pkg:new"))];
    clients.write(&vault_ref("acme", "main"), change).await.unwrap();
    let server = TestServer::start_in(server.stop().await, Setup::default()).await;
    let mut clients = server.admin().await;
    while let token = answers[answers.len() - 1].next_page_token.clone()
        && !token.is_empty()
    {
        // Another page size goes on just as well.
        answers.push(clients.reads.verified_list(request("", 40, &token)).await.unwrap().into_inner());
    }
    assert_eq!(answers.len(), 3);
    assert_eq!(verified(&mut clients, "", &answers).await.members.len(), MEMBERS + 1);
    let now = pages(&mut clients, "", 0).await;
    assert_eq!(verified(&mut clients, "", &now).await.members.len(), MEMBERS + 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_call_with_bad_fields_or_a_foreign_token_is_refused() {
    let (server, mut clients) = filled().await;
    let first = clients.reads.verified_list(request("", 50, "")).await.unwrap().into_inner();
    let token = first.next_page_token;
    let other = clients.reads.verified_list(request("required_by", 50, &token)).await;
    refused(other, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    // A token of the same resource's plain list is none of a proved one.
    let plain = v1::ListRelationshipsRequest {
        vault: Some(vault_ref("acme", "main")),
        by: Some(v1::list_relationships_request::By::Resource("pkg:libc6".to_owned())),
        page_size: 50,
        ..Default::default()
    };
    let plain = clients.reads.list_relationships(plain).await.unwrap().into_inner().next_page_token;
    let foreign = clients.reads.verified_list(request("", 50, &plain)).await;
    refused(foreign, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let malformed = clients.reads.verified_list(request("", 50, "%%%")).await;
    refused(malformed, Code::InvalidArgument, "PAGE_TOKEN_MALFORMED");
    let too_many = clients.reads.verified_list(request("", 1_001, "")).await;
    let status = refused(too_many, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(metadata(&status, "field").as_deref(), Some("page_size"));
    let ahead = v1::VerifiedListRequest { trusted_size: 99, ..request("", 0, "") };
    refused(clients.reads.verified_list(ahead).await, Code::OutOfRange, "TRUSTED_SIZE_AHEAD");
    let nowhere = v1::VerifiedListRequest { vault: Some(vault_ref("acme", "none")), ..request("", 0, "") };
    refused(clients.reads.verified_list(nowhere).await, Code::NotFound, "VAULT_NOT_FOUND");
    server.stop().await;
}
