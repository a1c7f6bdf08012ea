//! Bad input to every call: the right code, reason and field, and nothing has changed.

use std::collections::BTreeSet;

use bytes::Bytes;
use ledger_proto::v1;
use ledger_proto::v1::condition::Kind;
use ledger_proto::v1::list_relationships_request::By;
use ledger_proto::v1::operation::Action;
use ledger_proto::v1::verified_read_request::Subject;
use prost::Message;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::support::{
    TestServer, ledger_methods, new_key, on_condition, raw_call, reason, relate, set, tuple, vault_ref,
};

const INVALID: &str = "INVALID_ARGUMENT";

/// Collects the answers to bad requests.
#[derive(Default)]
struct Cases {
    paths: BTreeSet<String>,
    count: usize,
}

impl Cases {
    /// `INVALID_ARGUMENT` that names the field in `ErrorInfo` and `BadRequest`.
    fn field<T: std::fmt::Debug>(&mut self, path: &str, answer: Result<Response<T>, Status>, field: &str) {
        self.field_because(path, answer, field, INVALID);
    }

    fn field_because<T: std::fmt::Debug>(
        &mut self,
        path: &str,
        answer: Result<Response<T>, Status>,
        field: &str,
        wanted: &str,
    ) {
        let status = self.refused(path, answer, Code::InvalidArgument, wanted);
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, [field], "{path}: {status}");
        assert_eq!(details.error_info().unwrap().metadata["field"], field, "{path}: {status}");
        assert!(!violations[0].description.is_empty() && status.message().contains(field), "{path}");
    }

    fn refused<T: std::fmt::Debug>(
        &mut self,
        path: &str,
        answer: Result<Response<T>, Status>,
        code: Code,
        wanted: &str,
    ) -> Status {
        let status = answer.expect_err(path);
        assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{path}: {status}");
        self.paths.insert(path.to_owned());
        self.count += 1;
        status
    }
}

fn main_vault() -> Option<v1::VaultRef> {
    Some(vault_ref("acme", "main"))
}

/// References that no call accepts, with the field that is wrong.
fn bad_vaults() -> Vec<(Option<v1::VaultRef>, &'static str)> {
    vec![
        (None, "vault"),
        (Some(vault_ref("", "main")), "vault.namespace"),
        (Some(vault_ref("acme", "")), "vault.vault"),
        (Some(vault_ref("Acme", "main")), "vault.namespace"),
        (Some(vault_ref("acme", "a/b")), "vault.vault"),
        (Some(vault_ref("acme", &"v".repeat(64))), "vault.vault"),
        (Some(vault_ref("-acme", "main")), "vault.namespace"),
        (Some(vault_ref("acmé", "main")), "vault.namespace"),
    ]
}

fn bad_keys() -> Vec<String> {
    vec![String::new(), "k".repeat(1_025), "a\nb".to_owned(), "\u{7f}".to_owned()]
}

/// Tuples that no call accepts, with the part that is wrong.
fn bad_tuples() -> Vec<(v1::Relationship, &'static str)> {
    let long = format!("t:{}", "x".repeat(511));
    vec![
        (tuple("doc", "viewer", "user:a"), "resource"),
        (tuple("", "viewer", "user:a"), "resource"),
        (tuple("doc:a#b", "viewer", "user:a"), "resource"),
        (tuple(&long, "viewer", "user:a"), "resource"),
        (tuple("doc:1", "", "user:a"), "relation"),
        (tuple("doc:1", "vie wer", "user:a"), "relation"),
        (tuple("doc:1", &"r".repeat(65), "user:a"), "relation"),
        (tuple("doc:1", "viewer", "user"), "subject"),
        (tuple("doc:1", "viewer", "group:a#"), "subject"),
        (tuple("doc:1", "viewer", &long), "subject"),
    ]
}

async fn bad_reads(server: &TestServer, cases: &mut Cases) {
    let mut reads = server.admin().await.reads;
    for (vault, field) in bad_vaults() {
        let get = v1::GetRequest { vault: vault.clone(), key: "k".into(), consistency: 0 };
        cases.field("Get", reads.get(get).await, field);
        let batch = v1::BatchGetRequest { vault: vault.clone(), keys: vec!["k".into()], consistency: 0 };
        cases.field("BatchGet", reads.batch_get(batch).await, field);
        let relationship = Some(tuple("doc:1", "viewer", "user:a"));
        let check = v1::CheckRequest { vault: vault.clone(), relationship, consistency: 0 };
        cases.field("Check", reads.check(check).await, field);
        let list = v1::ListEntitiesRequest { vault: vault.clone(), ..Default::default() };
        cases.field("ListEntities", reads.list_entities(list).await, field);
        let by = Some(By::Resource("doc:1".into()));
        let list = v1::ListRelationshipsRequest { vault: vault.clone(), by, ..Default::default() };
        cases.field("ListRelationships", reads.list_relationships(list).await, field);
        let tip = v1::GetTipRequest { vault: vault.clone(), consistency: 0 };
        cases.field("GetTip", reads.get_tip(tip).await, field);
        let block = v1::GetBlockRequest { vault: vault.clone(), ..Default::default() };
        cases.field("GetBlock", reads.get_block(block).await, field);
        let subject = Some(Subject::Key("k".into()));
        let read = v1::VerifiedReadRequest { vault: vault.clone(), subject, trusted_size: 0 };
        cases.field("VerifiedRead", reads.verified_read(read).await, field);
        let checkpoint = v1::GetCheckpointRequest { vault: vault.clone(), trusted_size: 0 };
        cases.field("GetCheckpoint", reads.get_checkpoint(checkpoint).await, field);
        let resource = "doc:1".to_owned();
        let list = v1::VerifiedListRequest { vault: vault.clone(), resource, ..Default::default() };
        cases.field("VerifiedList", reads.verified_list(list).await, field);
        let watch = v1::WatchBlocksRequest { vault: vault.clone(), ..Default::default() };
        cases.field("WatchBlocks", reads.watch_blocks(watch).await, field);
        let range = v1::GetBlockRangeRequest { vault: vault.clone(), ..Default::default() };
        cases.field("GetBlockRange", reads.get_block_range(range).await, field);
        let read = v1::HistoricalReadRequest { vault: vault.clone(), ..Default::default() };
        cases.field("HistoricalRead", reads.historical_read(read).await, field);
        let history = v1::HistoryRequest { vault: vault.clone(), ..Default::default() };
        cases.field("History", reads.history(history).await, field);
        let state = v1::GetClientStateRequest { vault };
        cases.field("GetClientState", reads.get_client_state(state).await, field);
    }
}

async fn bad_keys_and_tuples(server: &TestServer, cases: &mut Cases) {
    let mut reads = server.admin().await.reads;
    let vault = main_vault();
    for key in bad_keys() {
        let get = v1::GetRequest { vault: vault.clone(), key: key.clone(), consistency: 0 };
        cases.field("Get", reads.get(get).await, "key");
        let keys = vec!["fine".into(), key.clone()];
        let batch = v1::BatchGetRequest { vault: vault.clone(), keys, consistency: 0 };
        cases.field("BatchGet", reads.batch_get(batch).await, "keys[1]");
        let subject = Some(Subject::Key(key.clone()));
        let read = v1::VerifiedReadRequest { vault: vault.clone(), subject, trusted_size: 0 };
        cases.field("VerifiedRead", reads.verified_read(read).await, "key");
        let subject = Some(v1::historical_read_request::Subject::Key(key.clone()));
        let read = v1::HistoricalReadRequest { vault: vault.clone(), subject, ..Default::default() };
        cases.field("HistoricalRead", reads.historical_read(read).await, "key");
        let subject = Some(v1::history_request::Subject::Key(key.clone()));
        let history = v1::HistoryRequest { vault: vault.clone(), subject, ..Default::default() };
        cases.field("History", reads.history(history).await, "key");
        if !key.is_empty() {
            let entities = v1::EntityChanges { prefix: key.clone() };
            let filter = Some(v1::watch_blocks_request::Filter::Entities(entities));
            let watch = v1::WatchBlocksRequest { vault: vault.clone(), filter, ..Default::default() };
            cases.field("WatchBlocks", reads.watch_blocks(watch).await, "entities.prefix");
            let list = v1::ListEntitiesRequest { vault: vault.clone(), prefix: key, ..Default::default() };
            cases.field("ListEntities", reads.list_entities(list).await, "prefix");
        }
    }
    for keys in [vec![], vec!["k".to_owned(); 1_001]] {
        let batch = v1::BatchGetRequest { vault: vault.clone(), keys, consistency: 0 };
        cases.field("BatchGet", reads.batch_get(batch).await, "keys");
    }
    for (tuple, part) in bad_tuples() {
        let field = format!("relationship.{part}");
        let relationship = Some(tuple.clone());
        let check = v1::CheckRequest { vault: vault.clone(), relationship, consistency: 0 };
        cases.field("Check", reads.check(check).await, &field);
        let subject = Some(v1::historical_read_request::Subject::Relationship(tuple.clone()));
        let read = v1::HistoricalReadRequest { vault: vault.clone(), subject, ..Default::default() };
        cases.field("HistoricalRead", reads.historical_read(read).await, &field);
        let subject = Some(v1::history_request::Subject::Relationship(tuple.clone()));
        let history = v1::HistoryRequest { vault: vault.clone(), subject, ..Default::default() };
        cases.field("History", reads.history(history).await, &field);
        let subject = Some(Subject::Relationship(tuple));
        let read = v1::VerifiedReadRequest { vault: vault.clone(), subject, trusted_size: 0 };
        cases.field("VerifiedRead", reads.verified_read(read).await, &field);
    }
    let check = v1::CheckRequest { vault: vault.clone(), relationship: None, consistency: 0 };
    cases.field("Check", reads.check(check).await, "relationship");
    let read = v1::VerifiedReadRequest { vault, subject: None, trusted_size: 0 };
    cases.field("VerifiedRead", reads.verified_read(read).await, "key or relationship");
}

async fn bad_lists(server: &TestServer, cases: &mut Cases) {
    let mut clients = server.admin().await;
    let vault = main_vault();
    for page_size in [1_001, u32::MAX] {
        let list = v1::ListEntitiesRequest { vault: vault.clone(), page_size, ..Default::default() };
        cases.field("ListEntities", clients.reads.list_entities(list).await, "page_size");
        let by = Some(By::Subject("user:a".into()));
        let list = v1::ListRelationshipsRequest { vault: vault.clone(), by, page_size, ..Default::default() };
        cases.field("ListRelationships", clients.reads.list_relationships(list).await, "page_size");
        let subject = Some(v1::history_request::Subject::Key("k".into()));
        let history = v1::HistoryRequest { vault: vault.clone(), subject, page_size, ..Default::default() };
        cases.field("History", clients.reads.history(history).await, "page_size");
        let range = v1::GetBlockRangeRequest { vault: vault.clone(), limit: page_size, ..Default::default() };
        cases.field("GetBlockRange", clients.reads.get_block_range(range).await, "limit");
        let list = v1::ListNamespacesRequest { page_size, ..Default::default() };
        cases.field("ListNamespaces", clients.admin.list_namespaces(list).await, "page_size");
        let list = v1::ListVaultsRequest { page_size, ..Default::default() };
        cases.field("ListVaults", clients.admin.list_vaults(list).await, "page_size");
    }
    for token in ["garbage", "%%%", "AAAA", "é", &"A".repeat(10_000)] {
        let (page_token, malformed) = (token.to_owned(), "PAGE_TOKEN_MALFORMED");
        let list = v1::ListEntitiesRequest {
            vault: vault.clone(),
            page_token: page_token.clone(),
            ..Default::default()
        };
        let answer = clients.reads.list_entities(list).await;
        cases.field_because("ListEntities", answer, "page_token", malformed);
        let list = v1::ListRelationshipsRequest {
            vault: vault.clone(),
            by: Some(By::Subject("user:a".into())),
            page_token: page_token.clone(),
            ..Default::default()
        };
        let answer = clients.reads.list_relationships(list).await;
        cases.field_because("ListRelationships", answer, "page_token", malformed);
        let subject = Some(v1::history_request::Subject::Key("k".into()));
        let token = page_token.clone();
        let history =
            v1::HistoryRequest { vault: vault.clone(), subject, page_token: token, ..Default::default() };
        let answer = clients.reads.history(history).await;
        cases.field_because("History", answer, "page_token", malformed);
        let list = v1::ListNamespacesRequest { page_token: page_token.clone(), ..Default::default() };
        let answer = clients.admin.list_namespaces(list).await;
        cases.field_because("ListNamespaces", answer, "page_token", malformed);
        let list = v1::ListVaultsRequest { page_token, ..Default::default() };
        cases.field_because("ListVaults", clients.admin.list_vaults(list).await, "page_token", malformed);
    }
    let list = v1::ListRelationshipsRequest { vault: vault.clone(), by: None, ..Default::default() };
    cases.field("ListRelationships", clients.reads.list_relationships(list).await, "resource or subject");
    for (tuple, part) in bad_tuples() {
        if part == "relation" && tuple.relation.is_empty() {
            continue;
        }
        let by = if part == "subject" { By::Subject(tuple.subject) } else { By::Resource(tuple.resource) };
        let list = v1::ListRelationshipsRequest {
            vault: vault.clone(),
            by: Some(by),
            relation: tuple.relation,
            ..Default::default()
        };
        cases.field("ListRelationships", clients.reads.list_relationships(list).await, part);
    }
    for (tuple, part) in bad_tuples() {
        if part == "subject" || (part == "relation" && tuple.relation.is_empty()) {
            continue;
        }
        let v1::Relationship { resource, relation, .. } = tuple;
        let list = v1::VerifiedListRequest { vault: vault.clone(), resource, relation, ..Default::default() };
        cases.field("VerifiedList", clients.reads.verified_list(list).await, part);
    }
    let list = v1::ListVaultsRequest { namespace: "No".into(), ..Default::default() };
    cases.field("ListVaults", clients.admin.list_vaults(list).await, "namespace");
}

async fn bad_numbers(server: &TestServer, cases: &mut Cases) {
    let mut reads = server.admin().await.reads;
    let vault = main_vault();
    for consistency in [3, -1, i32::MAX] {
        let get = v1::GetRequest { vault: vault.clone(), key: "k".into(), consistency };
        cases.field("Get", reads.get(get).await, "consistency");
        let tip = v1::GetTipRequest { vault: vault.clone(), consistency };
        cases.field("GetTip", reads.get_tip(tip).await, "consistency");
        let relationship = Some(tuple("doc:1", "viewer", "user:a"));
        let check = v1::CheckRequest { vault: vault.clone(), relationship, consistency };
        cases.field("Check", reads.check(check).await, "consistency");
    }
    for height in [2, u64::MAX] {
        let block = v1::GetBlockRequest { vault: vault.clone(), height, first_transaction: 0 };
        let unavailable = "HEIGHT_UNAVAILABLE";
        let status = cases.refused("GetBlock", reads.get_block(block).await, Code::OutOfRange, unavailable);
        assert_eq!(status.get_error_details().error_info().unwrap().metadata["tip_height"], "1");
    }
    for (height, first_transaction) in [(0, 1), (1, 1), (1, u32::MAX)] {
        let block = v1::GetBlockRequest { vault: vault.clone(), height, first_transaction };
        cases.field("GetBlock", reads.get_block(block).await, "first_transaction");
    }
    for trusted_size in [3, u64::MAX] {
        let ahead = "TRUSTED_SIZE_AHEAD";
        let checkpoint = v1::GetCheckpointRequest { vault: vault.clone(), trusted_size };
        cases.refused("GetCheckpoint", reads.get_checkpoint(checkpoint).await, Code::OutOfRange, ahead);
        let subject = Some(Subject::Key("k".into()));
        let read = v1::VerifiedReadRequest { vault: vault.clone(), subject, trusted_size };
        cases.refused("VerifiedRead", reads.verified_read(read).await, Code::OutOfRange, ahead);
    }
}

/// Operations that no transaction accepts, with the field inside of the operation.
fn bad_operations() -> Vec<(v1::Operation, String)> {
    let bare = |action| v1::Operation { action: Some(action), condition: None };
    let mut bad = vec![
        (v1::Operation { action: None, condition: None }, "action".to_owned()),
        (set("k", vec![0; 1_048_577]), "set_entity.value".to_owned()),
        (bare(Action::Assert(v1::Assert { target: None })), "assert.target".to_owned()),
        (
            v1::Operation { condition: Some(v1::Condition { kind: None }), ..set("k", "v") },
            "condition.kind".to_owned(),
        ),
        (
            on_condition(set("k", "v"), Kind::ValueEquals(Bytes::from(vec![0; 1_048_577]))),
            "condition.value_equals".to_owned(),
        ),
        (on_condition(set("k", "v"), Kind::MustNotExist(false)), "condition.must_not_exist".to_owned()),
        (on_condition(set("k", "v"), Kind::MustExist(false)), "condition.must_exist".to_owned()),
    ];
    for expires_at_ms in [i64::MAX as u64 + 1, u64::MAX] {
        let set = v1::SetEntity { key: "k".into(), value: Bytes::new(), expires_at_ms };
        bad.push((bare(Action::SetEntity(set)), "set_entity.expires_at_ms".to_owned()));
    }
    for key in bad_keys() {
        bad.push((set(&key, "v"), "set_entity.key".to_owned()));
        let delete = v1::DeleteEntity { key: key.clone() };
        bad.push((bare(Action::DeleteEntity(delete)), "delete_entity.key".to_owned()));
        let assert = v1::Assert { target: Some(v1::assert::Target::Key(key)) };
        bad.push((bare(Action::Assert(assert)), "assert.key".to_owned()));
    }
    for (tuple, part) in bad_tuples() {
        bad.push((relate(tuple.clone()), format!("create_relationship.{part}")));
        bad.push((bare(Action::DeleteRelationship(tuple.clone())), format!("delete_relationship.{part}")));
        let assert = v1::Assert { target: Some(v1::assert::Target::Relationship(tuple)) };
        bad.push((bare(Action::Assert(assert)), format!("assert.relationship.{part}")));
    }
    bad
}

async fn bad_writes(server: &TestServer, cases: &mut Cases) {
    let mut writes = server.admin().await.writes;
    let request = |idempotency_key: Vec<u8>, operations| v1::WriteRequest {
        vault: main_vault(),
        idempotency_key: idempotency_key.into(),
        operations,
    };
    for (vault, field) in bad_vaults() {
        let write = v1::WriteRequest { vault, ..request(new_key(), vec![set("k", "v")]) };
        cases.field("Write", writes.write(write).await, field);
    }
    let version_4 = {
        let mut key = new_key();
        key[6] = 0x40 | (key[6] & 0x0f);
        key
    };
    for key in [vec![], vec![1; 15], vec![1; 17], vec![0; 16], vec![0xff; 16], version_4] {
        let write = request(key, vec![set("k", "v")]);
        cases.field("Write", writes.write(write).await, "idempotency_key");
    }
    for operations in [vec![], vec![set("k", "v"); 1_001]] {
        cases.field("Write", writes.write(request(new_key(), operations)).await, "operations");
    }
    for (operation, inner) in bad_operations() {
        let write = request(new_key(), vec![set("fine", "v"), operation]);
        cases.field("Write", writes.write(write).await, &format!("operations[1].{inner}"));
    }
    let target = Some(v1::assert::Target::Key("k".into()));
    let assert = v1::Operation { action: Some(Action::Assert(v1::Assert { target })), condition: None };
    cases.field("Write", writes.write(request(new_key(), vec![assert])).await, "operations");
}

async fn bad_administration(server: &TestServer, cases: &mut Cases) {
    let mut admin = server.admin().await.admin;
    for name in ["", "Acme", "a/b", "-a", &"n".repeat(64), "a b", "é"] {
        let name = name.to_owned();
        let create = v1::CreateNamespaceRequest { name: name.clone() };
        cases.field("CreateNamespace", admin.create_namespace(create).await, "name");
        let get = v1::GetNamespaceRequest { name: name.clone() };
        cases.field("GetNamespace", admin.get_namespace(get).await, "name");
        let delete = v1::DeleteNamespaceRequest { name };
        cases.field("DeleteNamespace", admin.delete_namespace(delete).await, "name");
    }
    for (vault, field) in bad_vaults() {
        let create = v1::CreateVaultRequest { vault: vault.clone(), retained_blocks: 0 };
        cases.field("CreateVault", admin.create_vault(create).await, field);
        let get = v1::GetVaultRequest { vault: vault.clone() };
        cases.field("GetVault", admin.get_vault(get).await, field);
        let retain = v1::SetRetentionRequest { vault: vault.clone(), retained_blocks: 1 };
        cases.field("SetRetention", admin.set_retention(retain).await, field);
        let check = v1::CheckIntegrityRequest { vault: vault.clone(), full: false };
        cases.field("CheckIntegrity", admin.check_integrity(check).await, field);
        let recover = v1::RecoverVaultRequest { vault: vault.clone() };
        cases.field("RecoverVault", admin.recover_vault(recover).await, field);
        let delete = v1::DeleteVaultRequest { vault };
        cases.field("DeleteVault", admin.delete_vault(delete).await, field);
    }
    let token = |role: i32, scope: &str, actor: &str| v1::CreateTokenRequest {
        role,
        scope: scope.to_owned(),
        actor: actor.to_owned(),
    };
    for role in [0, 4, -1] {
        cases.field("CreateToken", admin.create_token(token(role, "*", "")).await, "role");
    }
    for scope in ["", "**", "acme/*", "a/b/c", "Acme"] {
        cases.field("CreateToken", admin.create_token(token(1, scope, "")).await, "scope");
    }
    for actor in
        ["ann", "user:", "root:x", "user:a b", "user:é", "system:gc", &format!("user:{}", "x".repeat(124))]
    {
        cases.field("CreateToken", admin.create_token(token(1, "*", actor)).await, "actor");
    }
    let node = |name: &str, incarnation: usize| v1::ClusterNode {
        node_id: 7,
        name: name.to_owned(),
        incarnation: vec![1; incarnation].into(),
        peer_address: "127.0.0.1:1".to_owned(),
        client_url: String::new(),
    };
    for (node, field) in [
        (None, "node"),
        (Some(node("Node", 16)), "node.name"),
        (Some(node("node-7", 15)), "node.incarnation"),
        (Some(v1::ClusterNode { peer_address: String::new(), ..node("node-7", 16) }), "node.peer_address"),
    ] {
        cases.field("JoinCluster", admin.join_cluster(v1::JoinClusterRequest { node }).await, field);
    }
    let nobody = v1::RemoveNodeRequest { node_id: 0 };
    cases.field("RemoveNode", admin.remove_node(nobody).await, "node_id");
    let nothing = v1::StreamBackupRequest { part: None };
    cases.field("StreamBackup", admin.stream_backup(nothing).await, "part");
    for id in ["", "zz", "0123456789ABCDEF", "0123456789abcde", "sr_0123456789abcdef"] {
        let revoke = v1::RevokeTokenRequest { id: id.to_owned() };
        cases.field("RevokeToken", admin.revoke_token(revoke).await, "id");
    }
}

/// What is wrong with the message; what is wrong with one call is that call's own refusal.
async fn bad_streams(server: &TestServer, cases: &mut Cases) {
    let token = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    let authorization = format!("Bearer {}", token.trim_end());
    let channel = server.endpoint().connect().await.unwrap();
    let get = v1::GetRequest { vault: main_vault(), key: "k".to_owned(), consistency: 0 };
    let call = |id| v1::Call { id, call: Some(v1::call::Call::Get(get.clone())) };
    let batches = [
        (vec![call(1), v1::Call { id: 2, call: None }], "calls[1].call"),
        (vec![call(1), call(2), call(1)], "calls[2].id"),
        ((0..1_025).map(call).collect(), "calls"),
    ];
    for (calls, field) in batches {
        let body = v1::CallBatch { calls }.encode_to_vec().into();
        let path = "/strongroom.ledger.v1.CallService/Call";
        let answer = raw_call(channel.clone(), path, Some(&authorization), body).await;
        cases.field("Call", answer.map(Response::new), field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_of_every_call_is_refused_by_name_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    clients.write(&vault_ref("acme", "main"), vec![set("k", "v")]).await.unwrap();
    let before = server.fingerprint();
    let mut cases = Cases::default();
    bad_reads(&server, &mut cases).await;
    bad_keys_and_tuples(&server, &mut cases).await;
    bad_lists(&server, &mut cases).await;
    bad_numbers(&server, &mut cases).await;
    bad_writes(&server, &mut cases).await;
    bad_administration(&server, &mut cases).await;
    bad_streams(&server, &mut cases).await;
    assert_eq!(server.fingerprint(), before);
    let without_fields = [
        "GetNodeInfo",
        "ListTokens",
        "CreateSnapshot",
        "ListSnapshots",
        "ForceGc",
        "LeaveCluster",
        "GetClusterInfo",
        // Any number may be a node's, and none is a node of its own choice.
        "TransferLeadership",
    ];
    for path in ledger_methods() {
        let method = path.rsplit('/').next().unwrap();
        assert!(cases.paths.contains(method) || without_fields.contains(&method), "{path} has no bad case");
    }
    assert!(cases.count > 250, "{} cases", cases.count);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_refused_by_every_call_and_change_nothing() {
    let server = TestServer::start().await;
    server.admin().await.create("acme", "main").await;
    let before = server.fingerprint();
    let token = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    let authorization = format!("Bearer {}", token.trim_end());
    let channel = server.endpoint().connect().await.unwrap();
    // A field of length 100 that ends after 1, a wire type that does not exist, a string that is no UTF-8.
    let garbage: [&'static [u8]; 3] = [&[0x0a, 100, 1], &[0x0f, 1], &[0x0a, 0x02, 0x0a, 0xff]];
    for path in ledger_methods() {
        for bytes in garbage {
            let body = Bytes::from_static(bytes);
            let answer = raw_call(channel.clone(), &path, Some(&authorization), body).await;
            // Calls without fields may skip what they do not know, but a message that ends early is none.
            if bytes == garbage[0] {
                assert!(answer.is_err(), "{path}");
            }
            if let Err(status) = answer {
                // They skip what they do not know, and then there is no cluster.
                if reason(&status) == "NOT_IN_CLUSTER" {
                    assert!(bytes != garbage[0], "{path}: {status}");
                    continue;
                }
                let malformed = reason(&status) == "MALFORMED_MESSAGE";
                assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status}");
                assert!(malformed || bytes != garbage[0], "{path}: {status}");
                assert!(malformed || reason(&status) == INVALID, "{path}: {status}");
            }
        }
    }
    assert_eq!(server.fingerprint(), before);
    server.stop().await;
}
