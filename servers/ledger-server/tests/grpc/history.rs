use ledger_proto::v1;
use ledger_proto::v1::historical_read_request::Subject as AtSubject;
use ledger_proto::v1::history_request::Subject as OfSubject;
use ledger_verify::header::BlockHeader;
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::{Evidence, Subject, verify};
use ledger_verify::state::StateProof;
use prost::Message;
use tonic::Code;

use super::support::{Clients, TestServer, metadata, refused, relate, set, tuple, vault_ref};

fn vault() -> v1::VaultRef {
    vault_ref("acme", "main")
}

fn delete(key: &str) -> v1::Operation {
    let delete = v1::DeleteEntity { key: key.to_owned() };
    v1::Operation { action: Some(v1::operation::Action::DeleteEntity(delete)), condition: None }
}

async fn server_with_vault() -> (TestServer, Clients) {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    (server, clients)
}

fn at(key: &str, at_height: u64) -> v1::HistoricalReadRequest {
    let subject = Some(AtSubject::Key(key.to_owned()));
    v1::HistoricalReadRequest { vault: Some(vault()), subject, at_height, ..Default::default() }
}

fn of(key: &str, page_size: u32, page_token: &str) -> v1::HistoryRequest {
    v1::HistoryRequest {
        vault: Some(vault()),
        subject: Some(OfSubject::Key(key.to_owned())),
        page_size,
        page_token: page_token.to_owned(),
        consistency: 0,
    }
}

fn range(start_height: u64, limit: u32, content: v1::BlockContent) -> v1::GetBlockRangeRequest {
    v1::GetBlockRangeRequest { vault: Some(vault()), start_height, limit, content: content.into() }
}

/// Verifies a proof as it came over the wire.
fn verified(proof: v1::VerifiedReadResponse, key: &str, vkey: &VerifierKey) -> ledger_verify::proof::Claim {
    let hash = |bytes: &bytes::Bytes| <[u8; 32]>::try_from(bytes.as_ref()).unwrap();
    let evidence = Evidence {
        leaf: proof.leaf.map(|leaf| leaf.to_vec()),
        state_proof: StateProof {
            siblings: proof.siblings.iter().map(hash).collect(),
            other_leaf: proof.other_leaf.map(|leaf| (hash(&leaf.key_hash), hash(&leaf.value_hash))),
        },
        header: proof.header.to_vec(),
        inclusion_path: proof.inclusion.iter().map(hash).collect(),
        checkpoint: proof.checkpoint,
    };
    verify(&Subject::Entity { key: key.to_owned() }, &evidence, std::slice::from_ref(vkey)).unwrap()
}

#[tokio::test]
async fn a_value_is_read_and_proved_at_every_height() {
    let (server, mut clients) = server_with_vault().await;
    for value in ["one", "two"] {
        clients.write(&vault(), vec![set("k", value)]).await.unwrap();
    }
    clients.write(&vault(), vec![delete("k")]).await.unwrap();
    let vkey = server.ledger.verifier_key();
    for (height, expected) in [(0, None), (1, Some("one")), (2, Some("two")), (3, None)] {
        let plain = clients.reads.historical_read(at("k", height)).await.unwrap().into_inner();
        assert_eq!(BlockHeader::decode(&plain.header).unwrap().height, height);
        assert_eq!(plain.record.map(|record| record.value), expected.map(bytes::Bytes::from));
        assert!(plain.proof.is_none());
        let request = v1::HistoricalReadRequest { include_proof: true, ..at("k", height) };
        let proved = clients.reads.historical_read(request).await.unwrap().into_inner();
        assert!(proved.record.is_none(), "the proof has it");
        let claim = verified(proved.proof.unwrap(), "k", &vkey);
        assert_eq!((claim.height, claim.value), (height, expected.map(|value| value.as_bytes().to_vec())));
    }
    let ahead = clients.reads.historical_read(at("k", 4)).await;
    let status = refused(ahead, Code::OutOfRange, "HEIGHT_UNAVAILABLE");
    assert_eq!(metadata(&status, "tip_height").as_deref(), Some("3"));
    let nobody = v1::HistoricalReadRequest { subject: None, ..at("k", 1) };
    refused(clients.reads.historical_read(nobody).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    server.stop().await;
}

#[tokio::test]
async fn the_versions_of_a_key_are_paged() {
    let (server, mut clients) = server_with_vault().await;
    for number in 0..25 {
        clients.write(&vault(), vec![set("k", number.to_string())]).await.unwrap();
    }
    clients.write(&vault(), vec![delete("k"), relate(tuple("doc:1", "viewer", "user:1"))]).await.unwrap();
    let (mut versions, mut token) = (Vec::new(), String::new());
    loop {
        let page = clients.reads.history(of("k", 10, &token)).await.unwrap().into_inner();
        assert!(page.versions.len() <= 10);
        assert_eq!(page.position.unwrap().height, 26);
        versions.extend(page.versions);
        token = page.next_page_token;
        if token.is_empty() {
            assert_eq!(page.cut_at, None);
            break;
        }
        let other = clients.reads.history(of("other", 10, &token)).await;
        refused(other, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    }
    assert_eq!(versions.len(), 26);
    assert_eq!(versions[0].change(), v1::KeyChange::Deleted);
    for (version, number) in versions[1..].iter().zip((0..25).rev()) {
        assert_eq!(
            (version.change(), version.value.as_ref()),
            (v1::KeyChange::Set, number.to_string().as_bytes())
        );
        assert_eq!((version.height, version.version), (number + 1, number + 1));
        assert!(version.actor.starts_with("client:"));
    }
    let related = OfSubject::Relationship(tuple("doc:1", "viewer", "user:1"));
    let request = v1::HistoryRequest { subject: Some(related), ..of("", 0, "") };
    let page = clients.reads.history(request).await.unwrap().into_inner();
    assert_eq!(
        page.versions.iter().map(|version| version.change()).collect::<Vec<_>>(),
        [v1::KeyChange::Related]
    );
    server.stop().await;
}

#[tokio::test]
async fn large_versions_and_blocks_stay_below_the_limit_of_an_answer() {
    let (server, mut clients) = server_with_vault().await;
    let large = "x".repeat(1_000_000);
    for _ in 0..6 {
        clients.write(&vault(), vec![set("k", large.clone())]).await.unwrap();
    }
    // One block that alone is as large as an answer.
    let operations = (0..4).map(|number| set(&format!("k{number}"), "y".repeat(1_048_000))).collect();
    clients.write(&vault(), operations).await.unwrap();
    let (mut seen, mut token) = (0, String::new());
    loop {
        let page = clients.reads.history(of("k", 0, &token)).await.unwrap().into_inner();
        assert!(page.encoded_len() <= 4 * 1_048_576, "{}", page.encoded_len());
        seen += page.versions.len();
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 6);
    let (mut heights, mut start) = (Vec::new(), 0);
    loop {
        let request = range(start, 1_000, v1::BlockContent::Transactions);
        let answer = clients.reads.get_block_range(request).await.unwrap().into_inner();
        assert!(answer.encoded_len() <= 4 * 1_048_576 + 65_536, "{}", answer.encoded_len());
        for block in &answer.blocks {
            let header = BlockHeader::decode(&block.header).unwrap();
            assert_eq!(header.leaf_hash().as_slice(), block.block_hash.as_ref());
            let left_out = header.tx_count as usize != block.transactions.len();
            assert_eq!(left_out, block.transactions_left_out);
            heights.push(header.height);
        }
        start = answer.next_height;
        if start == 0 {
            break;
        }
    }
    assert_eq!(heights, [0, 1, 2, 3, 4, 5, 6, 7]);
    server.stop().await;
}

#[tokio::test]
async fn ranges_are_bounded_and_say_where_to_go_on() {
    let (server, mut clients) = server_with_vault().await;
    for number in 0..12 {
        clients.write(&vault(), vec![set("k", number.to_string())]).await.unwrap();
    }
    let mut ask =
        async |request| clients.reads.get_block_range(request).await.map(tonic::Response::into_inner);
    let headers = ask(range(0, 5, v1::BlockContent::Unspecified)).await.unwrap();
    assert_eq!((headers.blocks.len(), headers.next_height), (5, 5));
    assert!(headers.blocks.iter().all(|block| block.transactions.is_empty() && !block.transactions_left_out));
    let rest = ask(range(5, 0, v1::BlockContent::Transactions)).await.unwrap();
    assert_eq!((rest.blocks.len(), rest.next_height), (8, 0));
    assert!(rest.blocks.iter().all(|block| block.transactions.len() == 1));
    let status =
        refused(ask(range(13, 1, v1::BlockContent::Header)).await, Code::OutOfRange, "HEIGHT_UNAVAILABLE");
    assert_eq!(metadata(&status, "tip_height").as_deref(), Some("12"));
    refused(ask(range(0, 1_001, v1::BlockContent::Header)).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    let strange = v1::GetBlockRangeRequest { content: 99, ..range(0, 1, v1::BlockContent::Header) };
    refused(ask(strange).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    server.stop().await;
}

#[tokio::test]
async fn retention_is_set_shown_and_kept_over_a_restart() {
    let (server, mut clients) = server_with_vault().await;
    for number in 0..20 {
        clients.write(&vault(), vec![set("k", number.to_string())]).await.unwrap();
    }
    let set_retention = v1::SetRetentionRequest { vault: Some(vault()), retained_blocks: 5 };
    let changed = clients.admin.set_retention(set_retention).await.unwrap().into_inner();
    assert_eq!((changed.retained_blocks, changed.first_height), (5, 16));
    let newer = v1::CreateVaultRequest { vault: Some(vault_ref("acme", "short")), retained_blocks: 3 };
    let created = clients.admin.create_vault(newer).await.unwrap().into_inner();
    assert_eq!((created.retained_blocks, created.first_height), (3, 0));

    let status =
        refused(clients.reads.historical_read(at("k", 15)).await, Code::OutOfRange, "HEIGHT_UNAVAILABLE");
    assert_eq!(metadata(&status, "first_height").as_deref(), Some("16"));
    let block = |height| v1::GetBlockRequest { vault: Some(vault()), height, first_transaction: 0 };
    let status = refused(clients.reads.get_block(block(15)).await, Code::OutOfRange, "HEIGHT_UNAVAILABLE");
    assert_eq!(metadata(&status, "first_height").as_deref(), Some("16"));
    clients.reads.get_block(block(16)).await.unwrap();
    let headers = clients.reads.get_block_range(range(0, 0, v1::BlockContent::Header)).await.unwrap();
    assert_eq!(headers.into_inner().blocks.len(), 21, "headers stay");
    let history = clients.reads.history(of("k", 0, "")).await.unwrap().into_inner();
    assert_eq!((history.versions.len(), history.cut_at), (5, Some(16)));

    let (_, reader) = server.token(ledger_server::access::Role::Writer, "*").await;
    let mut writer = server.clients(Some(&reader)).await;
    refused(
        writer.admin.set_retention(set_retention_to(1)).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    let unknown = v1::SetRetentionRequest { vault: Some(vault_ref("acme", "none")), retained_blocks: 1 };
    refused(clients.admin.set_retention(unknown).await, Code::NotFound, "VAULT_NOT_FOUND");
    server.gate.follow_disk(service_kit::disk::DiskState::ReadOnly);
    refused(clients.admin.set_retention(set_retention_to(1)).await, Code::ResourceExhausted, "DISK_FULL");

    let directory = server.stop().await;
    let server = TestServer::start_in(directory, Default::default()).await;
    let mut clients = server.admin().await;
    let shown =
        clients.admin.get_vault(v1::GetVaultRequest { vault: Some(vault()) }).await.unwrap().into_inner();
    assert_eq!((shown.retained_blocks, shown.first_height), (5, 16));
    let request = v1::HistoricalReadRequest { include_proof: true, ..at("k", 17) };
    let proved = clients.reads.historical_read(request).await.unwrap().into_inner();
    let claim = verified(proved.proof.unwrap(), "k", &server.ledger.verifier_key());
    assert_eq!(claim.value.unwrap(), b"16");
    server.stop().await;
}

fn set_retention_to(retained_blocks: u64) -> v1::SetRetentionRequest {
    v1::SetRetentionRequest { vault: Some(vault()), retained_blocks }
}
