//! Kills of the real process under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger_client::{Consistency, Trust};
use ledger_core::entity::EntityKey;

use crate::harness::{Home, Server, client, eventually, put, runtime, vault};

const KILLS: u32 = 20;
const WRITERS: u32 = 8;

#[test]
fn twenty_kills_under_load_lose_no_acknowledged_write_and_no_checkpoint() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    // Short intervals: kills fall into flushes and into the time between them.
    let serve = [
        "ledger",
        "serve",
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--flush-interval",
        "40ms",
    ];
    let runtime = runtime();
    let pins = home.path("pins");
    // Writes that were acknowledged, by writer; each writer counts its keys up.
    let acknowledged: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let total = || acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).sum::<u64>();
    let mut kills_with_writes = 0;
    for round in 0..KILLS {
        let mut server = Server::start(&home, &serve);
        let load = client(&runtime, &server, &pins);
        runtime.block_on(async {
            if round == 0 {
                load.create_namespace(&vault().namespace).await.expect("made");
                load.create_vault(&vault()).await.expect("made");
            }
            check(&load, &acknowledged, round).await;
        });
        let before = total();
        let writers = start_writers(&runtime, &load, &acknowledged);
        // A published checkpoint must survive as well: the pin of this read is checked in the next round.
        let wanted = before + 20 + u64::from(round) * 7;
        eventually("writes are acknowledged", || (total() >= wanted).then_some(()));
        let door = EntityKey::new("0:0").expect("a key");
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_secs(10), load.verified_get(&vault(), &door)).await;
        });
        server.child.kill().expect("killed");
        server.child.wait().expect("it ends");
        for writer in writers {
            runtime.block_on(writer).expect("no panic");
        }
        kills_with_writes += u32::from(total() > before);
    }
    assert_eq!(kills_with_writes, KILLS, "every kill must fall into a round with writes");
    let server = Server::start(&home, &serve);
    let load = client(&runtime, &server, &pins);
    runtime.block_on(check(&load, &acknowledged, KILLS));
    server.stop();
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!(report["sound"], true, "{report}");
    println!("{KILLS} kills, {} acknowledged writes, 0 lost", total());
}

/// Starts writers that write until the server is gone.
fn start_writers(
    runtime: &tokio::runtime::Runtime,
    load: &ledger_client::LedgerClient,
    acknowledged: &[Arc<AtomicU64>],
) -> Vec<tokio::task::JoinHandle<()>> {
    acknowledged
        .iter()
        .enumerate()
        .map(|(writer, count)| {
            let (load, count) = (load.clone(), Arc::clone(count));
            runtime.spawn(async move {
                loop {
                    let number = count.load(Ordering::SeqCst);
                    let written =
                        load.write(&vault(), put(&format!("{writer}:{number}"), format!("{number}"))).await;
                    match written {
                        Ok(_) => count.store(number + 1, Ordering::SeqCst),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect()
}

/// Everything acknowledged is there, and the history extends the checkpoint that was seen before the kill.
async fn check(load: &ledger_client::LedgerClient, acknowledged: &[Arc<AtomicU64>], round: u32) {
    for (writer, count) in acknowledged.iter().enumerate() {
        let count = count.load(Ordering::SeqCst);
        let keys: Vec<EntityKey> =
            (0..count).map(|number| EntityKey::new(&format!("{writer}:{number}")).expect("a key")).collect();
        for keys in keys.chunks(1_000) {
            let read =
                load.batch_get(&vault(), keys, Consistency::Linearizable).await.expect("an answer").value;
            assert!(read.unread.is_empty());
            assert_eq!(
                read.entities.len(),
                keys.len(),
                "writer {writer} lost acknowledged writes before round {round}"
            );
            for (key, entity) in read.entities {
                let number = key.as_str().split_once(':').map(|(_, number)| number.as_bytes().to_vec());
                assert_eq!(Some(entity.value.to_vec()), number, "{}", key.as_str());
            }
        }
    }
    if round > 0 {
        let door = EntityKey::new("0:0").expect("a key");
        let verified = load.verified_get(&vault(), &door).await.expect("the history extends the pin");
        assert_eq!(verified.trust, Trust::Pinned);
    }
}
