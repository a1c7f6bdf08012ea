use std::time::Duration;

use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_request::Filter;
use ledger_proto::v1::watch_blocks_response::Event;
use ledger_verify::header::BlockHeader;
use prost::Message;
use tonic::{Code, Streaming};

use super::support::{Clients, Setup, TestServer, metadata, refused, set, vault_ref};

const PATIENCE: Duration = Duration::from_secs(60);

fn vault() -> v1::VaultRef {
    vault_ref("acme", "main")
}

fn from(start_height: u64) -> v1::WatchBlocksRequest {
    v1::WatchBlocksRequest { vault: Some(vault()), start_height, ..Default::default() }
}

fn bodies_from(start_height: u64) -> v1::WatchBlocksRequest {
    v1::WatchBlocksRequest { content: v1::BlockContent::Transactions.into(), ..from(start_height) }
}

async fn server_with_vault(setup: Setup) -> (TestServer, Clients) {
    let server = TestServer::start_with(setup).await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    (server, clients)
}

type Stream = Streaming<v1::WatchBlocksResponse>;

async fn watch(clients: &mut Clients, request: v1::WatchBlocksRequest) -> Stream {
    let mut stream = clients.reads.watch_blocks(request.clone()).await.unwrap().into_inner();
    match event(&mut stream).await {
        Event::Progress(progress) => assert_eq!(progress.next_height, request.start_height),
        other => panic!("the first message says where the watch stands: {other:?}"),
    }
    stream
}

async fn event(stream: &mut Stream) -> Event {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("a message comes");
    message.unwrap().expect("the stream goes on").event.expect("with an event")
}

async fn block(stream: &mut Stream) -> v1::WatchedBlock {
    match event(stream).await {
        Event::Block(block) => block,
        other => panic!("a block was due: {other:?}"),
    }
}

fn height(block: &v1::WatchedBlock) -> u64 {
    BlockHeader::decode(&block.header).unwrap().height
}

#[tokio::test]
async fn a_watch_returns_history_then_what_comes() {
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    for number in 0..30 {
        clients.write(&vault(), vec![set("k", number.to_string())]).await.unwrap();
    }
    let mut stream = watch(&mut clients, bodies_from(0)).await;
    for expected in 0..=30 {
        let block = block(&mut stream).await;
        assert_eq!(height(&block), expected);
        assert_eq!(block.transactions.len(), usize::from(expected > 0));
        assert!(block.checkpoint.is_empty() && !block.more);
    }
    for number in 31..40 {
        clients.write(&vault(), vec![set("k", number.to_string())]).await.unwrap();
        assert_eq!(height(&block(&mut stream).await), number);
    }
    let request = v1::WatchBlocksRequest { inclusion_proofs: true, ..from(39) };
    let proved = block(&mut watch(&mut clients, request).await).await;
    assert!(proved.checkpoint.starts_with("strongroom/") && proved.transactions.is_empty());
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    const BLOCKS: u64 = 120;
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    let mut stream = watch(&mut clients, bodies_from(0)).await;
    // Far more than the windows of the connection hold, while nobody reads.
    let value = "x".repeat(100_000);
    for _ in 0..BLOCKS {
        clients.write(&vault(), vec![set("k", value.clone())]).await.unwrap();
    }
    let sent = server.ledger.counters().blocks_watched;
    assert!(sent < BLOCKS, "the server waits for its reader: {sent}");
    for expected in 0..=BLOCKS {
        assert_eq!(height(&block(&mut stream).await), expected);
    }
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_block_larger_than_a_message_comes_in_several() {
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    let vault_id = server.ledger.vault(&"acme/main".parse().unwrap()).unwrap().id;
    // Concurrent large writes share blocks.
    let writes = (0..24).map(|number| {
        let mut clients = clients.clone();
        tokio::spawn(async move {
            clients.write(&vault(), vec![set(&format!("k{number}"), "x".repeat(900_000))]).await.unwrap();
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let tip = server.ledger.vault(&"acme/main".parse().unwrap()).unwrap().height;
    let mut stream = watch(&mut clients, bodies_from(1)).await;
    let (mut transactions, mut parts, mut expected) = (0, 0, 1);
    while expected <= tip {
        let block = block(&mut stream).await;
        assert!(block.encoded_len() <= 4 * 1_048_576 + 65_536, "{}", block.encoded_len());
        let header = BlockHeader::decode(&block.header).unwrap();
        assert_eq!((header.height, header.vault_id), (expected, vault_id.0));
        transactions += block.transactions.len();
        parts += u32::from(block.more);
        expected += u64::from(!block.more);
    }
    assert_eq!(transactions, 24);
    assert!(parts > 0, "a block of several was made: {tip} blocks");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn filters_choose_blocks() {
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    for key in ["a/1", "b/1", "a/2"] {
        clients.write(&vault(), vec![set(key, "v")]).await.unwrap();
    }
    let entities = Filter::Entities(v1::EntityChanges { prefix: "a/".to_owned() });
    let request = v1::WatchBlocksRequest { filter: Some(entities), ..bodies_from(0) };
    let mut stream = watch(&mut clients, request).await;
    assert_eq!((height(&block(&mut stream).await), height(&block(&mut stream).await)), (1, 3));
    let bad = Filter::Relationships(v1::RelationshipChanges { resource: "no type".to_owned() });
    let request = v1::WatchBlocksRequest { filter: Some(bad), ..from(0) };
    refused(clients.reads.watch_blocks(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_why() {
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    let ahead = refused(clients.reads.watch_blocks(from(2)).await, Code::OutOfRange, "HEIGHT_UNAVAILABLE");
    assert_eq!(metadata(&ahead, "tip_height").as_deref(), Some("0"));
    let unknown = v1::WatchBlocksRequest { vault: Some(vault_ref("acme", "none")), ..from(0) };
    refused(clients.reads.watch_blocks(unknown).await, Code::NotFound, "VAULT_NOT_FOUND");
    let mut anonymous = server.clients(None).await;
    refused(anonymous.reads.watch_blocks(from(0)).await, Code::Unauthenticated, "CREDENTIAL_MISSING");
    let (_, elsewhere) = server.token(ledger_server::access::Role::Reader, "other").await;
    let mut elsewhere = server.clients(Some(&elsewhere)).await;
    refused(elsewhere.reads.watch_blocks(from(0)).await, Code::PermissionDenied, "PERMISSION_DENIED");
    server.stop().await;
}

#[tokio::test]
async fn streams_have_a_limit_of_their_own() {
    let (server, mut clients) = server_with_vault(Setup { streams_max: Some(2), ..Setup::default() }).await;
    let first = watch(&mut clients, from(0)).await;
    let second = watch(&mut clients, from(0)).await;
    let shed = clients.reads.watch_blocks(from(0)).await.unwrap_err();
    assert_eq!(shed.code(), Code::ResourceExhausted, "{shed}");
    clients.write(&vault(), vec![set("k", "v")]).await.unwrap();
    drop(first);
    // The place is free once the server has noticed.
    let deadline = std::time::Instant::now() + PATIENCE;
    let third = loop {
        match clients.reads.watch_blocks(from(0)).await {
            Ok(stream) => break stream,
            Err(_) => assert!(std::time::Instant::now() < deadline, "the place did not become free"),
        }
        tokio::task::yield_now().await;
    };
    drop((second, third));
    server.stop().await;
}

#[tokio::test]
async fn open_watches_end_when_the_server_stops() {
    let (server, mut clients) = server_with_vault(Setup::default()).await;
    let mut stream = watch(&mut clients, from(1)).await;
    let stopping = tokio::spawn(server.stop());
    let ended = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream ends");
    refused(ended, Code::Unavailable, "STOPPING");
    tokio::time::timeout(PATIENCE, stopping).await.expect("the watch does not hold up the end").unwrap();
}
