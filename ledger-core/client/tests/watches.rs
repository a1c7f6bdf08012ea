//! A watch mends its connection, leaves nothing out, and believes nothing that does not fit.

mod scripted;

use std::sync::Arc;

use ledger_client::{ClientError, ErrorCode, WatchFilter, WatchProofs, WatchRequest};
use ledger_core::names::VaultRef;
use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_response::Event;
use ledger_verify::log;
use scripted::{Chain, Script, client, lock};
use tonic::Status;

type Message = Result<v1::WatchBlocksResponse, Status>;

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn chain(length: usize) -> Chain {
    let mut chain = Chain::new();
    for _ in 1..length {
        chain.grow(b"open");
    }
    chain
}

fn wire_block(chain: &Chain, height: usize) -> v1::WatchedBlock {
    let header = chain.headers[height];
    v1::WatchedBlock {
        header: header.encode().to_vec().into(),
        block_hash: header.leaf_hash().to_vec().into(),
        ..v1::WatchedBlock::default()
    }
}

fn block(chain: &Chain, height: usize) -> Message {
    Ok(v1::WatchBlocksResponse { event: Some(Event::Block(wire_block(chain, height))) })
}

/// A block with its proof under the chain's checkpoint.
fn proved(chain: &Chain, height: usize) -> v1::WatchedBlock {
    let leaves: Vec<_> = chain.headers.iter().map(|header| header.leaf_hash()).collect();
    let path = log::inclusion_path(&leaves, height).expect("the height exists");
    v1::WatchedBlock {
        checkpoint: chain.checkpoint(),
        inclusion: path.iter().map(|hash| bytes::Bytes::copy_from_slice(hash)).collect(),
        ..wire_block(chain, height)
    }
}

fn message(block: v1::WatchedBlock) -> Message {
    Ok(v1::WatchBlocksResponse { event: Some(Event::Block(block)) })
}

fn progress(next_height: u64) -> Message {
    let progress = v1::WatchProgress { next_height, tip_height: 100, log_time_ms: 1 };
    Ok(v1::WatchBlocksResponse { event: Some(Event::Progress(progress)) })
}

fn script(chain: Chain, watches: Vec<Vec<Message>>) -> Arc<Script> {
    let script = Script::new();
    *lock(&script.chain) = chain;
    *lock(&script.watches) = watches.into();
    script
}

fn starts(script: &Script) -> Vec<u64> {
    lock(&script.watches_seen).iter().map(|request| request.start_height).collect()
}

/// The error that ends a watch over these messages.
async fn refusal(request: WatchRequest, chain: Chain, messages: Vec<Message>) -> ClientError {
    let script = script(chain, vec![messages]);
    let mut stream = client(&script).await.watch(&vault(), request).await.expect("a watch");
    loop {
        if let Err(error) = stream.next().await {
            return error;
        }
    }
}

#[tokio::test]
async fn a_broken_watch_goes_on_from_the_next_height() {
    let blocks = chain(8);
    let mut torn = wire_block(&blocks, 3);
    torn.more = true;
    let script = script(
        blocks.clone(),
        vec![
            vec![progress(0), block(&blocks, 0), block(&blocks, 1), Err(Status::unavailable("it restarts"))],
            // The stream ends without a word.
            vec![progress(2), block(&blocks, 2)],
            // The connection breaks inside a block: that block comes again.
            vec![progress(3), message(torn), Err(Status::unavailable("the server is stopping"))],
            vec![progress(3), block(&blocks, 3), progress(4), block(&blocks, 4)],
        ],
    );
    let mut stream = client(&script).await.watch(&vault(), WatchRequest::default()).await.expect("a watch");
    for height in 0..5 {
        assert_eq!(stream.next().await.expect("a block").header.height, height);
    }
    assert_eq!(starts(&script), [0, 2, 3, 3]);
    assert_eq!(stream.position(), 5);
}

#[tokio::test]
async fn a_watch_that_never_stood_gives_up_as_a_call_does() {
    let script =
        script(chain(1), (0..10).map(|_| vec![Err(Status::unavailable("nobody is here"))]).collect());
    let mut stream = client(&script).await.watch(&vault(), WatchRequest::default()).await.expect("a watch");
    let error = stream.next().await.expect_err("nobody answers");
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert_eq!(starts(&script), [0; 3]);
}

#[tokio::test]
async fn blocks_that_do_not_fit_end_the_watch() {
    let good = chain(5);
    let mut forked = chain(2);
    forked.grow(b"another value");
    forked.grow(b"and so on");
    let all = WatchRequest::default;
    let code = async |messages: Vec<Message>| refusal(all(), good.clone(), messages).await.code();
    assert_eq!(
        code(vec![block(&good, 0), block(&good, 2)]).await,
        ErrorCode::MalformedAnswer,
        "one is missing"
    );
    assert_eq!(
        code(vec![block(&good, 0), block(&good, 0)]).await,
        ErrorCode::MalformedAnswer,
        "one comes twice"
    );
    assert_eq!(code(vec![progress(3)]).await, ErrorCode::MalformedAnswer, "some are passed over");
    let other = vec![block(&good, 0), block(&good, 1), block(&good, 2), block(&forked, 3)];
    assert_eq!(code(other).await, ErrorCode::VerificationFailed, "another history");
    let mut lie = wire_block(&good, 0);
    lie.block_hash = vec![1; 32].into();
    assert_eq!(code(vec![message(lie)]).await, ErrorCode::MalformedAnswer, "another hash");
    let mut stray = wire_block(&good, 0);
    stray.transactions = vec![v1::IndexedTransaction { index: 0, transaction: vec![1].into() }];
    let bodies = WatchRequest { content: ledger_client::BlockContent::Transactions, ..all() };
    let error = refusal(bodies, good.clone(), vec![message(stray)]).await;
    assert_eq!(error.code(), ErrorCode::MalformedAnswer, "transactions that the header does not commit to");
    // With a filter, heights may be passed over, but not backwards.
    let filtered = WatchRequest { filter: WatchFilter::Entities { prefix: String::new() }, ..all() };
    let messages = vec![block(&good, 0), block(&good, 3), progress(2)];
    assert_eq!(refusal(filtered, good, messages).await.code(), ErrorCode::MalformedAnswer);
}

#[tokio::test]
async fn a_verified_watch_believes_only_what_is_proved() {
    let verified = || WatchRequest { proofs: WatchProofs::Verified, ..WatchRequest::default() };
    let good = chain(5);
    let script = script(good.clone(), vec![(0..5).map(|height| message(proved(&good, height))).collect()]);
    let mut stream = client(&script).await.watch(&vault(), verified()).await.expect("a watch");
    for height in 0..5 {
        let block = stream.next().await.expect("a block");
        assert_eq!((block.header.height, block.proved_under), (height, Some(5)));
    }
    assert_eq!(lock(&script.watches_seen)[0].trusted_size, 5, "the pinned checkpoint");

    let ends = async |block: v1::WatchedBlock| refusal(verified(), good.clone(), vec![message(block)]).await;
    let unproved = ends(wire_block(&good, 0)).await;
    assert_eq!(unproved.code(), ErrorCode::VerificationFailed, "no proof: {unproved}");
    let mut other_path = proved(&good, 0);
    other_path.inclusion = proved(&good, 1).inclusion;
    let error = ends(other_path).await;
    assert_eq!(error.code(), ErrorCode::VerificationFailed, "the path of another block: {error}");
    let mut forged = proved(&good, 0);
    forged.checkpoint = forged.checkpoint.replace("\n5\n", "\n6\n");
    let error = ends(forged).await;
    assert_eq!(error.code(), ErrorCode::VerificationFailed, "an altered checkpoint: {error}");
    // Signed by the right key, but an older log than the pinned one: history was cut.
    let error = ends(proved(&chain(3), 0)).await;
    assert!(matches!(&error, ClientError::Fork(fork) if fork.received_size == 3), "{error}");
}
