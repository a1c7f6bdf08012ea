//! Sizes at their limits.

use ledger_core::transaction::TRANSACTION_BYTES_MAX;
use ledger_proto::v1;
use ledger_server::wire::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use prost::Message;
use tonic::Code;

use crate::support::{TestServer, metadata, new_key, refused, set, vault_ref};

const MIB: usize = 1_048_576;
/// What the canonical encoding is taken to add at most, for a transaction and for each operation.
const FRAME_BYTES: usize = 80 + 128;
const OPERATION_BYTES: usize = 40;

/// Four entities that fill a transaction to exactly this bound.
fn filling(bytes: usize) -> Vec<v1::Operation> {
    let room = bytes - FRAME_BYTES - 4 * (OPERATION_BYTES + 1);
    let sizes = [room / 4, room / 4, room / 4, room - 3 * (room / 4)];
    sizes.iter().zip(["a", "b", "c", "d"]).map(|(size, key)| set(key, vec![7; *size])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_4_mib_is_accepted_and_one_byte_more_refused() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    let too_large = clients.write(&vault, filling(TRANSACTION_BYTES_MAX + 1)).await;
    refused(too_large, Code::InvalidArgument, "TRANSACTION_TOO_LARGE");
    assert_eq!(server.ledger.vaults(None, None, 1)[0].height, 0);
    clients.write(&vault, filling(TRANSACTION_BYTES_MAX)).await.unwrap();
    let block = v1::GetBlockRequest { vault: Some(vault), height: 1, first_transaction: 0 };
    let block = clients.reads.get_block(block).await.unwrap().into_inner();
    assert!(block.encoded_len() > 4 * MIB - 1_024 && block.encoded_len() <= ANSWER_BYTES_MAX);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_decoding_limit_is_refused_without_being_read() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let write = v1::WriteRequest {
        vault: Some(vault_ref("acme", "main")),
        idempotency_key: new_key().into(),
        operations: vec![set("k", vec![0; REQUEST_BYTES_MAX])],
    };
    let status = refused(clients.writes.write(write).await, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(metadata(&status, "limit_bytes"), Some(REQUEST_BYTES_MAX.to_string()));
    assert_eq!(server.ledger.vaults(None, None, 1)[0].height, 0);
    clients.write(&vault_ref("acme", "main"), vec![set("k", vec![0; MIB])]).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_paged_at_4_mib_and_complete() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    for key in &keys {
        // Not whole fractions of the limit, so that a page ends in the middle of a row.
        clients.write(&vault, vec![set(key, vec![7; MIB - 1_000])]).await.unwrap();
    }
    let (mut listed, mut pages) = (Vec::new(), Vec::new());
    let mut page_token = String::new();
    loop {
        let list = v1::ListEntitiesRequest {
            vault: Some(vault.clone()),
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = clients.reads.list_entities(list).await.unwrap().into_inner();
        assert!(page.encoded_len() <= ANSWER_BYTES_MAX, "{} bytes", page.encoded_len());
        pages.push(page.entities.len());
        listed.extend(page.entities.into_iter().map(|entity| entity.key));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, pages), (keys.clone(), vec![4, 4, 2]));
    // Keys at their longest, most of them without an entity: what is left unread takes room in the answer too.
    let mut unread = keys.clone();
    unread.extend((0..990).map(|number| format!("{number:0>1024}")));
    let mut read = Vec::new();
    while !unread.is_empty() {
        let batch = v1::BatchGetRequest { vault: Some(vault.clone()), keys: unread, consistency: 0 };
        let batch = clients.reads.batch_get(batch).await.unwrap().into_inner();
        assert!(batch.encoded_len() <= ANSWER_BYTES_MAX && !batch.entities.is_empty());
        read.extend(batch.entities.into_iter().map(|entity| entity.key));
        unread = batch.unread;
    }
    assert_eq!(read, keys);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_operations_and_a_thousand_keys_fit_one_call() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    let keys: Vec<String> = (0..1_000).map(|number| format!("{number:0>1024}")).collect();
    let written = clients.write(&vault, keys.iter().map(|key| set(key, "v")).collect()).await.unwrap();
    assert_eq!(written.results.len(), 1_000);
    let batch = v1::BatchGetRequest { vault: Some(vault), keys: keys.clone(), consistency: 0 };
    let batch = clients.reads.batch_get(batch).await.unwrap().into_inner();
    assert_eq!((batch.entities.len(), batch.unread.len()), (1_000, 0));
    server.stop().await;
}
