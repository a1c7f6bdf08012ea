use std::time::Duration;

use futures::FutureExt;
use ledger_core::command::Retention;
use ledger_core::names::NamespaceName;
use ledger_core::relationship::Resource;
use ledger_core::transaction::{Action, Operation};
use ledger_node::{
    BlockWatch, Ledger, ReadFailure, WatchContent, WatchFilter, WatchProofs, WatchRequest, WatchedBlock,
};
use ledger_verify::log::{verify_consistency, verify_inclusion};
use ledger_verify::note::{Checkpoint, SignedCheckpoint};

use super::setting::{Home, create_vault, eventually, put, set, transaction, tuple, vault, write};

fn from(height: u64) -> WatchRequest {
    WatchRequest { from: height, ..WatchRequest::default() }
}

fn bodies_from(height: u64) -> WatchRequest {
    WatchRequest { content: WatchContent::Transactions, ..from(height) }
}

async fn next(watch: &mut BlockWatch) -> WatchedBlock {
    tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a block comes").unwrap()
}

/// What the watch has at once.
fn ready(watch: &mut BlockWatch) -> Option<WatchedBlock> {
    watch.next().now_or_never().map(Result::unwrap)
}

async fn create_retaining(ledger: &Ledger, retention: &str) {
    ledger.create_namespace(NamespaceName::new("acme").unwrap()).await.unwrap();
    ledger.create_vault_retaining(vault(), retention.parse::<Retention>().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_slower_than_the_writer_misses_no_height() {
    const READS: u64 = 40;
    const BLOCKS_A_READ: u64 = 20;
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let mut watch = ledger.watch(&vault(), bodies_from(0)).unwrap();
    let mut previous = None;
    let mut check = |block: &WatchedBlock| {
        let height = previous.map_or(0, |(height, _)| height + 1);
        assert_eq!(block.header.height, height, "no height is skipped");
        assert_eq!(block.header.previous, previous.map_or([0; 32], |(_, hash)| hash), "and the chain holds");
        assert_eq!(block.transactions.len() as u32, block.header.tx_count);
        previous = Some((height, block.block_hash));
    };
    for read in 0..READS {
        for number in 0..BLOCKS_A_READ {
            write(&ledger, put("k", &format!("{read}-{number}"))).await;
        }
        check(&next(&mut watch).await);
    }
    assert_eq!(watch.tip().unwrap() + 1 - watch.position(), READS * (BLOCKS_A_READ - 1) + 1, "far behind");
    while let Some(block) = ready(&mut watch) {
        check(&block);
    }
    assert_eq!(watch.position(), READS * BLOCKS_A_READ + 1, "all of history");

    // History runs into the present.
    let live = tokio::spawn(async move { (next(&mut watch).await, watch) });
    write(&ledger, put("k", "live")).await;
    let (block, watch) = live.await.unwrap();
    check(&block);

    // Another watch goes on where this one stood.
    let mut resumed = ledger.watch(&vault(), bodies_from(watch.position())).unwrap();
    drop(watch);
    assert!(ready(&mut resumed).is_none());
    write(&ledger, put("k", "resumed")).await;
    check(&next(&mut resumed).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_interrupted_while_it_waits_loses_nothing() {
    const BLOCKS: u64 = 200;
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let request = WatchRequest { proofs: WatchProofs::Inclusion { trusted_size: 0 }, ..bodies_from(1) };
    let mut watch = ledger.watch(&vault(), request).unwrap();
    let writer = ledger.clone();
    let writing = tokio::spawn(async move {
        for number in 0..BLOCKS {
            write(&writer, put("k", &number.to_string())).await;
        }
    });
    let (mut expected, mut interruptions) = (1, 0_u64);
    while expected <= BLOCKS {
        match tokio::time::timeout(Duration::from_micros(300), watch.next()).await {
            Ok(block) => {
                assert_eq!(block.unwrap().header.height, expected);
                expected += 1;
            }
            Err(_) => interruptions += 1,
        }
    }
    writing.await.unwrap();
    assert!(interruptions > 0, "it was interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watchers_each_get_every_block() {
    const WATCHERS: u64 = 200;
    const BLOCKS: u64 = 50;
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let mut watch = ledger.watch(&vault(), from(0)).unwrap();
            tokio::spawn(async move {
                for height in 0..=BLOCKS {
                    assert_eq!(next(&mut watch).await.header.height, height);
                }
            })
        })
        .collect();
    for number in 0..BLOCKS {
        write(&ledger, put("k", &number.to_string())).await;
    }
    for watcher in watchers {
        watcher.await.unwrap();
    }
    assert_eq!(ledger.counters().blocks_watched, WATCHERS * (BLOCKS + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_blocks_and_their_transactions() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let relate = |resource: &str| {
        let action = Action::CreateRelationship(tuple(resource, "viewer", "user:1"));
        transaction(vec![Operation { action, condition: None }])
    };
    write(&ledger, put("order/1", "a")).await; // 1
    write(&ledger, relate("doc:1")).await; // 2
    write(&ledger, put("user/1", "b")).await; // 3
    write(&ledger, relate("doc:2")).await; // 4
    write(&ledger, relate("doc:1")).await; // 5: changes nothing
    write(&ledger, transaction(vec![set("user/2", "c", None), set("order/2", "d", None)])).await; // 6
    let heights = |filter: WatchFilter| {
        let mut watch = ledger.watch(&vault(), WatchRequest { filter, ..bodies_from(0) }).unwrap();
        let mut heights = Vec::new();
        while let Some(block) = ready(&mut watch) {
            assert!(block.header.height == 0 || block.transactions.len() == 1);
            heights.push(block.header.height);
        }
        assert_eq!(watch.position(), 7, "what is passed over is behind the watch");
        heights
    };
    let entities = |prefix: &str| WatchFilter::Entities { prefix: prefix.to_owned() };
    let doc = Resource::new("doc:1").unwrap();
    assert_eq!(heights(WatchFilter::All), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(heights(entities("")), [1, 3, 6]);
    assert_eq!(heights(entities("order/")), [1, 6]);
    assert_eq!(heights(entities("nothing")), [0; 0]);
    assert_eq!(heights(WatchFilter::Relationships { resource: None }), [2, 4]);
    assert_eq!(heights(WatchFilter::Relationships { resource: Some(doc) }), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watched_block_can_prove_that_it_stands_in_the_log() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for number in 0..20 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    let request = WatchRequest { proofs: WatchProofs::Inclusion { trusted_size: 0 }, ..from(0) };
    let mut watch = ledger.watch(&vault(), request).unwrap();
    let mut before: Option<Checkpoint> = None;
    for height in 0..=22 {
        if height == 21 {
            write(&ledger, put("k", "live")).await;
            write(&ledger, put("k", "and more")).await;
        }
        let block = next(&mut watch).await;
        let proof = block.inclusion.expect("it was asked for");
        let checkpoint = SignedCheckpoint::open(&proof.checkpoint, &[ledger.verifier_key()]).unwrap();
        assert_eq!(checkpoint.origin, ledger.origin(watch.vault_id()));
        assert_eq!(block.header.height, height);
        verify_inclusion(&block.block_hash, height, checkpoint.size, &proof.path, &checkpoint.root).unwrap();
        if let Some(before) = &before
            && before.size < checkpoint.size
        {
            let (old, new) = (before, &checkpoint);
            verify_consistency(old.size, new.size, &proof.consistency, &old.root, &new.root).unwrap();
        }
        before = Some(checkpoint);
    }
    assert!(before.is_some_and(|last| last.size == 23), "the checkpoints grew with the log");
    let proofs = WatchProofs::Inclusion { trusted_size: 1_000 };
    let mut ahead = ledger.watch(&vault(), WatchRequest { proofs, ..from(0) }).unwrap();
    let refused = ahead.next().await.unwrap_err();
    assert!(matches!(refused, ReadFailure::TrustedSizeAhead { trusted_size: 1_000, size: 23 }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_that_overtakes_a_watch_ends_it_by_name_and_headers_go_on() {
    let home = Home::new();
    let ledger = home.open().await;
    create_retaining(&ledger, "compacted:5").await;
    let mut bodies = ledger.watch(&vault(), bodies_from(0)).unwrap();
    let mut headers = ledger.watch(&vault(), from(0)).unwrap();
    for number in 0..3 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    assert_eq!((next(&mut bodies).await.header.height, next(&mut bodies).await.header.height), (0, 1));
    for number in 3..30 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    let refused = bodies.next().await.unwrap_err();
    assert!(matches!(refused, ReadFailure::Compacted { asked: 2, first: 26 }), "{refused}");
    assert_eq!(bodies.position(), 2, "the reader knows what it missed");
    let refused = ledger.watch(&vault(), bodies_from(25)).unwrap_err();
    assert!(matches!(refused, ReadFailure::Compacted { asked: 25, first: 26 }), "{refused}");
    let mut kept = ledger.watch(&vault(), bodies_from(26)).unwrap();
    for height in 26..=30 {
        assert_eq!(next(&mut kept).await.header.height, height);
    }
    for height in 0..=30 {
        assert_eq!(next(&mut headers).await.header.height, height);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_its_vault_and_with_its_node() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let ahead = ledger.watch(&vault(), from(2)).unwrap_err();
    assert!(matches!(ahead, ReadFailure::HeightUnavailable { asked: 2, height: 0 }), "{ahead}");

    let mut watch = ledger.watch(&vault(), from(1)).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    ledger.delete_vault(vault()).await.unwrap();
    let ended = waiting.await.unwrap().unwrap_err();
    assert!(matches!(ended, ReadFailure::VaultNotFound { .. }), "{ended}");

    // The same name, another vault: a watch of the first one does not see its blocks.
    ledger.create_vault(vault()).await.unwrap();
    let mut watch = ledger.watch(&vault(), from(1)).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    ledger.shutdown().await.unwrap();
    let ended = waiting.await.unwrap().unwrap_err();
    assert!(matches!(ended, ReadFailure::Stopped), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_after_a_restart_where_it_stood() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for number in 0..10 {
        write(&ledger, put("k", &number.to_string())).await;
    }
    let mut watch = ledger.watch(&vault(), bodies_from(0)).unwrap();
    let before: Vec<_> = (0..5).map(|_| ready(&mut watch).unwrap()).collect();
    let position = watch.position();
    drop(watch);
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = home.open().await;
    let mut watch = ledger.watch(&vault(), bodies_from(position)).unwrap();
    let first = next(&mut watch).await;
    assert_eq!(first.header.previous, before.last().unwrap().block_hash);
    let mut count = before.len() + 1;
    eventually("the rest of history", || {
        while ready(&mut watch).is_some() {
            count += 1;
        }
        count == 11
    })
    .await;
}
