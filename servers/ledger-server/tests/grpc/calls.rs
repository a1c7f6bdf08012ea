//! Every call does what it says.

use bytes::Bytes;
use ledger_proto::v1;
use ledger_proto::v1::condition::Kind;
use ledger_proto::v1::list_relationships_request::By;
use ledger_proto::v1::verified_read_request::Subject as WireSubject;
use ledger_server::access::Role;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::log::verify_consistency;
use ledger_verify::note::{SignedCheckpoint, VerifierKey};
use ledger_verify::proof::{self, Evidence, Subject};
use ledger_verify::state::StateProof;
use tonic::Code;

use crate::support::{
    Clients, TestServer, metadata, new_key, on_condition, refused, relate, set, tuple, vault_ref,
};

fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap()
}

fn evidence(answer: &v1::VerifiedReadResponse) -> Evidence {
    Evidence {
        leaf: answer.leaf.as_ref().map(|leaf| leaf.to_vec()),
        state_proof: StateProof {
            siblings: answer.siblings.iter().map(|sibling| hash(sibling)).collect(),
            other_leaf: answer.other_leaf.as_ref().map(|leaf| (hash(&leaf.key_hash), hash(&leaf.value_hash))),
        },
        header: answer.header.to_vec(),
        inclusion_path: answer.inclusion.iter().map(|node| hash(node)).collect(),
        checkpoint: answer.checkpoint.clone(),
    }
}

async fn verifier_key(clients: &mut Clients) -> VerifierKey {
    let node = clients.admin.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner();
    VerifierKey::parse(&node.verifier_key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_vaults_are_created_listed_shown_and_deleted() {
    let server = TestServer::start().await;
    let Clients { mut admin, .. } = server.admin().await;
    let name = |name: &str| v1::CreateNamespaceRequest { name: name.to_owned() };
    let created = admin.create_namespace(name("acme")).await.unwrap().into_inner();
    assert_eq!((created.name.as_str(), created.vault_count), ("acme", 0));
    assert!(created.created_at_ms > 0);
    refused(admin.create_namespace(name("acme")).await, Code::AlreadyExists, "NAMESPACE_EXISTS");
    let vault = Some(vault_ref("acme", "main"));
    let created = admin
        .create_vault(v1::CreateVaultRequest { vault: vault.clone(), retained_blocks: 0 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((created.height, created.version, created.key_count, created.id.len()), (0, 0, 0, 16));
    assert!(created.origin.starts_with("strongroom/"), "{}", created.origin);
    let again = admin.create_vault(v1::CreateVaultRequest { vault: vault.clone(), retained_blocks: 0 }).await;
    refused(again, Code::AlreadyExists, "VAULT_EXISTS");
    let elsewhere = v1::CreateVaultRequest { vault: Some(vault_ref("nowhere", "main")), retained_blocks: 0 };
    refused(admin.create_vault(elsewhere).await, Code::NotFound, "NAMESPACE_NOT_FOUND");
    let shown = admin.get_vault(v1::GetVaultRequest { vault: vault.clone() }).await.unwrap().into_inner();
    assert_eq!(shown, created);
    let shown =
        admin.get_namespace(v1::GetNamespaceRequest { name: "acme".into() }).await.unwrap().into_inner();
    assert_eq!(shown.vault_count, 1);
    let delete = v1::DeleteNamespaceRequest { name: "acme".into() };
    refused(admin.delete_namespace(delete.clone()).await, Code::FailedPrecondition, "NAMESPACE_NOT_EMPTY");
    let deleted =
        admin.delete_vault(v1::DeleteVaultRequest { vault: vault.clone() }).await.unwrap().into_inner();
    assert_eq!(deleted.id, created.id);
    refused(admin.get_vault(v1::GetVaultRequest { vault }).await, Code::NotFound, "VAULT_NOT_FOUND");
    admin.delete_namespace(delete.clone()).await.unwrap();
    refused(admin.delete_namespace(delete).await, Code::NotFound, "NAMESPACE_NOT_FOUND");
    let gone = admin.get_namespace(v1::GetNamespaceRequest { name: "acme".into() }).await;
    refused(gone, Code::NotFound, "NAMESPACE_NOT_FOUND");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_back_in_every_way() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    let operations = vec![set("a", "1"), set("b", "2"), relate(tuple("doc:1", "viewer", "user:ann"))];
    let written = clients.write(&vault, operations).await.unwrap();
    let receipt = written.receipt.unwrap();
    assert_eq!((receipt.height, receipt.version, receipt.index_in_block), (1, 1, 0));
    assert_eq!(written.results, vec![i32::from(v1::OperationResult::Created); 3]);
    assert!(!written.replayed);
    let vault = Some(vault);
    for consistency in
        [v1::Consistency::Unspecified, v1::Consistency::Linearizable, v1::Consistency::Eventual]
    {
        let consistency = consistency.into();
        let get = v1::GetRequest { vault: vault.clone(), key: "a".into(), consistency };
        let got = clients.reads.get(get).await.unwrap().into_inner();
        let entity = got.entity.unwrap();
        assert_eq!((entity.key.as_str(), &entity.value[..], entity.version), ("a", &b"1"[..], 1));
        assert_eq!((entity.modified_height, entity.expires_at_ms), (1, 0));
        assert_eq!(got.position.unwrap().height, 1);
    }
    let get = v1::GetRequest { vault: vault.clone(), key: "none".into(), consistency: 0 };
    assert_eq!(clients.reads.get(get).await.unwrap().into_inner().entity, None);
    let keys = vec!["b".to_owned(), "none".to_owned(), "a".to_owned()];
    let batch = v1::BatchGetRequest { vault: vault.clone(), keys, consistency: 0 };
    let batch = clients.reads.batch_get(batch).await.unwrap().into_inner();
    let found: Vec<_> = batch.entities.iter().map(|entity| entity.key.as_str()).collect();
    assert_eq!((found, batch.unread.len()), (vec!["b", "a"], 0));
    for (subject, version) in [("user:ann", 1), ("user:bob", 0)] {
        let relationship = Some(tuple("doc:1", "viewer", subject));
        let check = v1::CheckRequest { vault: vault.clone(), relationship, consistency: 0 };
        let check = clients.reads.check(check).await.unwrap().into_inner();
        assert_eq!((check.exists, check.version), (version > 0, version), "{subject}");
    }
    for (by, relation) in [
        (By::Resource("doc:1".into()), ""),
        (By::Resource("doc:1".into()), "viewer"),
        (By::Subject("user:ann".into()), ""),
        (By::Subject("user:ann".into()), "viewer"),
    ] {
        let list = v1::ListRelationshipsRequest {
            vault: vault.clone(),
            by: Some(by),
            relation: relation.into(),
            ..Default::default()
        };
        let list = clients.reads.list_relationships(list).await.unwrap().into_inner();
        assert_eq!(list.relationships, vec![tuple("doc:1", "viewer", "user:ann")]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_condition_names_operation_version_and_value() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    clients.write(&vault, vec![set("k", "old"), set("big", vec![7; 2_000])]).await.unwrap();
    let before = server.fingerprint();
    let cases = [
        ("k", Kind::MustNotExist(true), "KEY_EXISTS", Some("1"), Some("b2xk")),
        ("none", Kind::MustExist(true), "KEY_NOT_FOUND", None, None),
        ("none", Kind::VersionEquals(4), "KEY_NOT_FOUND", None, None),
        ("k", Kind::VersionEquals(4), "VERSION_MISMATCH", Some("1"), Some("b2xk")),
        ("k", Kind::ValueEquals(Bytes::from_static(b"new")), "VALUE_MISMATCH", Some("1"), Some("b2xk")),
        ("big", Kind::VersionEquals(4), "VERSION_MISMATCH", Some("1"), None),
    ];
    for (key, kind, reason, version, value) in cases {
        let operations = vec![set("other", "x"), on_condition(set(key, "new"), kind)];
        let status = refused(clients.write(&vault, operations).await, Code::FailedPrecondition, reason);
        assert_eq!(metadata(&status, "op_index").as_deref(), Some("1"));
        assert_eq!(metadata(&status, "current_version").as_deref(), version);
        assert_eq!(metadata(&status, "current_value_base64").as_deref(), value);
    }
    assert_eq!(server.fingerprint(), before);
    let held = vec![on_condition(set("k", "new"), Kind::VersionEquals(1))];
    assert_eq!(clients.write(&vault, held).await.unwrap().receipt.unwrap().version, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_idempotency_key_answers_with_the_first_receipt() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let request = |key: Vec<u8>, value: &'static str| v1::WriteRequest {
        vault: Some(vault_ref("acme", "main")),
        idempotency_key: key.into(),
        operations: vec![set("k", value)],
    };
    let key = new_key();
    let first = clients.writes.write(request(key.clone(), "1")).await.unwrap().into_inner();
    let again = clients.writes.write(request(key.clone(), "1")).await.unwrap().into_inner();
    assert!(!first.replayed && again.replayed);
    assert_eq!((&again.receipt, &again.results), (&first.receipt, &first.results));
    let other = clients.writes.write(request(key.clone(), "2")).await;
    refused(other, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
    let at = |unix_ms: u64| {
        ledger_core::transaction::IdempotencyKey::from_parts(unix_ms, [1; 10]).as_bytes().to_vec()
    };
    let old = clients.writes.write(request(at(1), "3")).await;
    refused(old, Code::FailedPrecondition, "IDEMPOTENCY_KEY_EXPIRED");
    let future = clients.writes.write(request(at((1 << 48) - 1), "3")).await;
    refused(future, Code::FailedPrecondition, "IDEMPOTENCY_KEY_IN_FUTURE");
    let state = v1::GetClientStateRequest { vault: Some(vault_ref("acme", "main")) };
    let state = clients.reads.get_client_state(state).await.unwrap().into_inner();
    assert_eq!((state.last, &state.idempotency_key[..]), (first.receipt, &key[..]));
    let (_, stranger) = server.token(Role::Writer, "acme").await;
    let mut stranger = server.clients(Some(&stranger)).await;
    let state = v1::GetClientStateRequest { vault: Some(vault_ref("acme", "main")) };
    let state = stranger.reads.get_client_state(state).await.unwrap().into_inner();
    assert_eq!((state.last, state.idempotency_key.len()), (None, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_tips_are_what_the_chain_says() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    for value in ["1", "2"] {
        clients.write(&vault, vec![set("k", value)]).await.unwrap();
    }
    let tip = v1::GetTipRequest { vault: Some(vault.clone()), consistency: 0 };
    let tip = clients.reads.get_tip(tip).await.unwrap().into_inner();
    let mut leaves = Vec::new();
    let mut previous = [0; 32];
    for height in 0..=2 {
        let block = v1::GetBlockRequest { vault: Some(vault.clone()), height, first_transaction: 0 };
        let block = clients.reads.get_block(block).await.unwrap().into_inner();
        let header = BlockHeader::decode(&block.header).unwrap();
        assert_eq!((header.height, header.previous), (height, previous));
        assert_eq!(hash(&block.block_hash), header.leaf_hash());
        let transactions: Vec<Hash> =
            block.transactions.iter().map(|bytes| ledger_verify::hash::log_leaf(bytes)).collect();
        assert_eq!(ledger_verify::log::root_of(&transactions), header.tx_root);
        assert_eq!((transactions.len(), block.next_transaction), (usize::from(height > 0), 0));
        previous = header.leaf_hash();
        leaves.push(previous);
    }
    assert_eq!(hash(&tip.block_hash), previous);
    assert_eq!(hash(&tip.log_root), ledger_verify::log::root_of(&leaves));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_reads_verify_and_checkpoints_extend_each_other() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    clients.write(&vault, vec![set("k", "v"), relate(tuple("doc:1", "viewer", "user:ann"))]).await.unwrap();
    let keys = [verifier_key(&mut clients).await];
    let entity = |key: &str| (WireSubject::Key(key.into()), Subject::Entity { key: key.into() });
    let viewer = |subject: &str| {
        let wire = tuple("doc:1", "viewer", subject);
        let (resource, relation) = (wire.resource.clone(), wire.relation.clone());
        let subject = Subject::Relationship { resource, relation, subject: subject.to_owned() };
        (WireSubject::Relationship(wire), subject)
    };
    let cases = [
        (entity("k"), true),
        (entity("none"), false),
        (viewer("user:ann"), true),
        (viewer("user:bob"), false),
    ];
    for ((wire, subject), present) in cases {
        let read =
            v1::VerifiedReadRequest { vault: Some(vault.clone()), subject: Some(wire), trusted_size: 0 };
        let read = clients.reads.verified_read(read).await.unwrap().into_inner();
        let claim = proof::verify(&subject, &evidence(&read), &keys).unwrap();
        assert_eq!((claim.present, claim.height, read.consistency.len()), (present, 1, 0), "{subject:?}");
        assert!(read.log_time_ms > 0);
    }
    let ask =
        |trusted_size| v1::GetCheckpointRequest { vault: Some(vault_ref("acme", "main")), trusted_size };
    let old = clients.reads.get_checkpoint(ask(0)).await.unwrap().into_inner();
    let old = SignedCheckpoint::open(&old.checkpoint, &keys).unwrap();
    for value in ["1", "2", "3"] {
        clients.write(&vault, vec![set("k", value)]).await.unwrap();
    }
    let new = clients.reads.get_checkpoint(ask(old.size)).await.unwrap().into_inner();
    let path: Vec<Hash> = new.consistency.iter().map(|node| hash(node)).collect();
    let new = SignedCheckpoint::open(&new.checkpoint, &keys).unwrap();
    assert_eq!((old.size, new.size), (2, 5));
    verify_consistency(old.size, new.size, &path, &old.root, &new.root).unwrap();
    let read = v1::VerifiedReadRequest {
        vault: Some(vault),
        subject: Some(WireSubject::Key("k".into())),
        trusted_size: old.size,
    };
    let read = clients.reads.verified_read(read).await.unwrap().into_inner();
    let path: Vec<Hash> = read.consistency.iter().map(|node| hash(node)).collect();
    verify_consistency(old.size, new.size, &path, &old.root, &new.root).unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_used_and_revoked() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let request = v1::CreateTokenRequest {
        role: v1::Role::Writer.into(),
        scope: "acme/main".into(),
        actor: "client:ci".into(),
    };
    let made = clients.admin.create_token(request).await.unwrap().into_inner();
    let token = made.token.unwrap();
    assert!(made.secret.starts_with(&format!("sr_{}_", token.id)));
    assert_eq!((token.scope.as_str(), token.actor.as_str()), ("acme/main", "client:ci"));
    let listed = clients.admin.list_tokens(v1::ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&token));
    let mut writer = server.clients(Some(&made.secret)).await;
    let vault = vault_ref("acme", "main");
    let height = writer.write(&vault, vec![set("k", "v")]).await.unwrap().receipt.unwrap().height;
    let block = v1::GetBlockRequest { vault: Some(vault.clone()), height, first_transaction: 0 };
    let block = writer.reads.get_block(block).await.unwrap().into_inner();
    let transaction = ledger_verify::transaction::decode(&block.transactions[0]).unwrap();
    assert_eq!(transaction.header.actor, "client:ci", "the author is the authenticated caller");
    let revoke = v1::RevokeTokenRequest { id: token.id.clone() };
    assert_eq!(clients.admin.revoke_token(revoke.clone()).await.unwrap().into_inner(), token);
    refused(writer.write(&vault, vec![set("k", "w")]).await, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    refused(clients.admin.revoke_token(revoke).await, Code::NotFound, "TOKEN_NOT_FOUND");
    let last = listed.iter().find(|other| other.id != token.id).unwrap().id.clone();
    let last = clients.admin.revoke_token(v1::RevokeTokenRequest { id: last }).await;
    refused(last, Code::FailedPrecondition, "LAST_ADMIN_TOKEN");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_info_is_the_nodes_own() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let node = clients.admin.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(&node.ledger_id[..], &server.ledger.ledger_id().0[..]);
    assert_eq!(node.verifier_key, server.ledger.verifier_key().to_string());
    assert_eq!((node.namespace_count, node.vault_count, node.is_leader), (1, 1, true));
    assert!(node.node_id > 0 && node.term > 0 && node.last_applied > 0 && node.log_time_ms > 0);
    assert_eq!(node.version, service_kit::VERSION_WITH_COMMIT);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_vault_that_is_not_there_say_so() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = Some(vault_ref("acme", "gone"));
    let get = v1::GetRequest { vault: vault.clone(), key: "k".into(), consistency: 0 };
    refused(clients.reads.get(get).await, Code::NotFound, "VAULT_NOT_FOUND");
    let block = v1::GetBlockRequest { vault: vault.clone(), ..Default::default() };
    refused(clients.reads.get_block(block).await, Code::NotFound, "VAULT_NOT_FOUND");
    let checkpoint = v1::GetCheckpointRequest { vault: vault.clone(), trusted_size: 0 };
    refused(clients.reads.get_checkpoint(checkpoint).await, Code::NotFound, "VAULT_NOT_FOUND");
    let state = v1::GetClientStateRequest { vault: vault.clone() };
    refused(clients.reads.get_client_state(state).await, Code::NotFound, "VAULT_NOT_FOUND");
    let written = clients.write(&vault_ref("acme", "gone"), vec![set("k", "v")]).await;
    refused(written, Code::NotFound, "VAULT_NOT_FOUND");
    let delete = v1::DeleteVaultRequest { vault };
    refused(clients.admin.delete_vault(delete).await, Code::NotFound, "VAULT_NOT_FOUND");
    server.stop().await;
}
