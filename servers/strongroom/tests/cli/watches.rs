//! Watches through the client library, on a cluster whose lead moves and whose nodes die.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ledger_client::{
    BlockContent, ClientOptions, LedgerClient, MemoryPins, UnlistedNodes, WatchProofs, WatchRequest,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::dev_cluster::{await_all, dev_file, kill, nodes, pids, three};
use crate::harness::{DEADLINE, Home, Server, eventually, make_vault, put, runtime, vault};

/// Blocks that are made before and after each kill.
const BLOCKS: u64 = 20;

/// A client of these nodes and of no others.
fn client(runtime: &Runtime, server: &Server, urls: &str) -> LedgerClient {
    let _entered = runtime.enter();
    let mut options = ClientOptions::new(urls).with_token(server.token());
    options.unlisted_nodes = UnlistedNodes::Ignore;
    options.retry.election_patience = DEADLINE;
    LedgerClient::connect(options, Arc::new(MemoryPins::default())).expect("valid options")
}

/// A watch, and the heights that it was given with the number of transactions in each.
struct Watch {
    what: String,
    seen: Arc<Mutex<Vec<(u64, u64)>>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(runtime: &Runtime, client: LedgerClient, what: &str, proofs: WatchProofs) -> Self {
        let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let writes_down = Arc::clone(&seen);
        let task = runtime.spawn(async move {
            let request =
                WatchRequest { content: BlockContent::Transactions, proofs, ..WatchRequest::default() };
            let mut stream = client.watch(&vault(), request).await.expect("a watch");
            loop {
                let block = stream.next().await.expect("a block");
                let transactions = block.transactions.len() as u64;
                writes_down.lock().expect("no panic").push((block.header.height, transactions));
            }
        });
        Self { what: what.to_owned(), seen, task }
    }

    /// Waits until it was given a height, ends it, and checks what it was given.
    fn end_at(self, runtime: &Runtime, last: u64, transactions: u64) {
        let Self { what, seen, mut task } = self;
        eventually(&format!("the watch of {what} comes to height {last}"), || {
            if task.is_finished() {
                runtime.block_on(&mut task).unwrap_or_else(|error| panic!("the watch of {what}: {error}"));
            }
            seen.lock().expect("no panic").last().is_some_and(|(height, _)| *height >= last).then_some(())
        });
        task.abort();
        let seen = seen.lock().expect("no panic").clone();
        let heights: Vec<u64> = seen.iter().map(|(height, _)| *height).collect();
        assert_eq!(heights, (0..=last).collect::<Vec<u64>>(), "the watch of {what}");
        let watched: u64 = seen.iter().map(|(_, transactions)| transactions).sum();
        assert_eq!(watched, transactions, "the watch of {what} has every transaction");
    }
}

/// Writes that go on until they are told to end.
struct Writer {
    acknowledged: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(runtime: &Runtime, client: LedgerClient) -> Self {
        let (acknowledged, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&acknowledged), Arc::clone(&over));
        let task = runtime.spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                let written = client.write(&vault(), put(&format!("key:{number}"), "value")).await;
                written.expect("the client finds a node that takes it");
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { acknowledged, over, task }
    }

    fn await_more(&self) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        eventually("writes are acknowledged", || {
            assert!(!self.task.is_finished(), "the writer gave up");
            (self.acknowledged.load(Ordering::SeqCst) >= before + BLOCKS).then_some(())
        });
    }

    fn end(self, runtime: &Runtime) {
        self.over.store(true, Ordering::SeqCst);
        runtime.block_on(self.task).expect("no panic");
    }
}

/// Each node leads once and is killed then, so every watch loses its node, and each follower's watch sees its leader
/// change.
#[test]
fn a_watch_gets_every_height_once_and_in_order_while_the_lead_is_handed_over_and_leaders_are_killed() {
    let home = Home::new();
    let server = three(&home, &["--restart-after", "1s"]);
    make_vault(&home);
    let runtime = runtime();
    let mut watches = Vec::new();
    for (what, proofs) in [("all", WatchProofs::Without), ("all, verified", WatchProofs::Verified)] {
        watches.push(Watch::start(&runtime, client(&runtime, &server, server.url()), what, proofs));
    }
    for node in nodes(&server.ready) {
        let url = node["url"].as_str().expect("a URL");
        watches.push(Watch::start(&runtime, client(&runtime, &server, url), url, WatchProofs::Without));
    }
    // A watch that never stood gives up when its node dies.
    for watch in &watches {
        eventually("the watch stands", || (!watch.seen.lock().expect("no panic").is_empty()).then_some(()));
    }
    let writer = Writer::start(&runtime, client(&runtime, &server, server.url()));
    for (place, node) in nodes(&server.ready).iter().enumerate() {
        let name = node["name"].as_str().expect("a name");
        eventually("the node leads", || {
            home.persists(&["ledger", "cluster", "transfer", name], "-");
            (await_all(&home) == node["id"]).then_some(())
        });
        writer.await_more();
        let killed = pids(&dev_file(&home))[place];
        kill(killed);
        writer.await_more();
        eventually("it is started again", || (!pids(&dev_file(&home)).contains(&killed)).then_some(()));
        await_all(&home);
    }
    writer.end(&runtime);
    let info = runtime.block_on(client(&runtime, &server, server.url()).vault(&vault())).expect("an answer");
    assert!(info.height >= 6 * BLOCKS, "{info:?}");
    for watch in watches {
        watch.end_at(&runtime, info.height, info.version);
    }
    server.stop();
}
