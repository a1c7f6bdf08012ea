//! Page tokens: they survive a restart and answer only their own query.

use ledger_proto::v1;
use ledger_proto::v1::list_relationships_request::By;
use tonic::Code;

use crate::support::{Clients, Setup, TestServer, refused, relate, set, tuple, vault_ref};

fn entities(prefix: &str, page_size: u32, page_token: &str) -> v1::ListEntitiesRequest {
    v1::ListEntitiesRequest {
        vault: Some(vault_ref("acme", "main")),
        prefix: prefix.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        consistency: 0,
    }
}

fn relationships(by: By, relation: &str, page_token: &str) -> v1::ListRelationshipsRequest {
    v1::ListRelationshipsRequest {
        vault: Some(vault_ref("acme", "main")),
        by: Some(by),
        relation: relation.to_owned(),
        page_size: 2,
        page_token: page_token.to_owned(),
        consistency: 0,
    }
}

async fn filled() -> (TestServer, Clients) {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    clients.create("acme", "side").await;
    let vault = vault_ref("acme", "main");
    let mut operations: Vec<_> = (0..5).map(|number| set(&format!("key-{number}"), "v")).collect();
    for number in 0..5 {
        operations.push(relate(tuple("doc:1", "viewer", &format!("user:{number}"))));
        operations.push(relate(tuple(&format!("doc:{number}"), "owner", "user:ann")));
    }
    clients.write(&vault, operations.clone()).await.unwrap();
    clients.write(&vault_ref("acme", "side"), operations).await.unwrap();
    (server, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn page_tokens_work_on_a_restarted_server() {
    let (server, mut clients) = filled().await;
    let first = clients.reads.list_entities(entities("key-", 2, "")).await.unwrap().into_inner();
    let viewers = relationships(By::Resource("doc:1".into()), "viewer", "");
    let viewers = clients.reads.list_relationships(viewers).await.unwrap().into_inner();
    let vaults = v1::ListVaultsRequest { page_size: 1, ..Default::default() };
    let vaults = clients.admin.list_vaults(vaults).await.unwrap().into_inner();
    let server = TestServer::start_in(server.stop().await, Setup::default()).await;
    let mut clients = server.admin().await;
    let mut keys: Vec<String> = first.entities.into_iter().map(|entity| entity.key).collect();
    let mut token = first.next_page_token;
    while !token.is_empty() {
        // Another page size goes on just as well.
        let page = clients.reads.list_entities(entities("key-", 3, &token)).await.unwrap().into_inner();
        keys.extend(page.entities.into_iter().map(|entity| entity.key));
        token = page.next_page_token;
    }
    assert_eq!(keys, ["key-0", "key-1", "key-2", "key-3", "key-4"]);
    let next = relationships(By::Resource("doc:1".into()), "viewer", &viewers.next_page_token);
    let next = clients.reads.list_relationships(next).await.unwrap().into_inner().relationships;
    assert_eq!(next, [tuple("doc:1", "viewer", "user:2"), tuple("doc:1", "viewer", "user:3")]);
    let next =
        v1::ListVaultsRequest { page_size: 1, page_token: vaults.next_page_token, ..Default::default() };
    let next = clients.admin.list_vaults(next).await.unwrap().into_inner();
    assert_eq!(next.vaults[0].vault, Some(vault_ref("acme", "side")));
    assert_eq!(next.next_page_token, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_with_a_changed_filter_is_refused() {
    let (server, mut clients) = filled().await;
    let (code, mismatch) = (Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let token =
        clients.reads.list_entities(entities("key-", 2, "")).await.unwrap().into_inner().next_page_token;
    for prefix in ["", "key", "key-1"] {
        refused(clients.reads.list_entities(entities(prefix, 2, &token)).await, code, mismatch);
    }
    let other_vault =
        v1::ListEntitiesRequest { vault: Some(vault_ref("acme", "side")), ..entities("key-", 2, &token) };
    refused(clients.reads.list_entities(other_vault).await, code, mismatch);
    let by_resource = || By::Resource("doc:1".into());
    let other_list = relationships(by_resource(), "", &token);
    refused(clients.reads.list_relationships(other_list).await, code, mismatch);
    let token = relationships(by_resource(), "viewer", "");
    let token = clients.reads.list_relationships(token).await.unwrap().into_inner().next_page_token;
    for (by, relation) in [
        (by_resource(), ""),
        (by_resource(), "owner"),
        (By::Resource("doc:2".into()), "viewer"),
        (By::Subject("doc:1".into()), "viewer"),
    ] {
        let changed = relationships(by, relation, &token);
        refused(clients.reads.list_relationships(changed).await, code, mismatch);
    }
    let vaults = |namespace: &str, page_token: &str| v1::ListVaultsRequest {
        namespace: namespace.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
    };
    let token = clients.admin.list_vaults(vaults("acme", "")).await.unwrap().into_inner().next_page_token;
    refused(clients.admin.list_vaults(vaults("", &token)).await, code, mismatch);
    let namespaces = v1::ListNamespacesRequest { page_size: 1, page_token: token };
    refused(clients.admin.list_namespaces(namespaces).await, code, mismatch);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_complete_and_ordered_page_by_page() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    for name in ["c", "a", "b", "d"] {
        clients.create(name, "main").await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = v1::ListNamespacesRequest { page_size: 3, page_token };
        let page = clients.admin.list_namespaces(page).await.unwrap().into_inner();
        names.extend(page.namespaces.into_iter().map(|namespace| namespace.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d"]);
    let of_b = v1::ListVaultsRequest { namespace: "b".into(), ..Default::default() };
    let of_b = clients.admin.list_vaults(of_b).await.unwrap().into_inner();
    assert_eq!(
        of_b.vaults.iter().map(|vault| vault.vault.clone()).collect::<Vec<_>>(),
        [Some(vault_ref("b", "main"))]
    );
    server.stop().await;
}
