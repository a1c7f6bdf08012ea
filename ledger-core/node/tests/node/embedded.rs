use std::sync::Arc;

use ledger_node::{Consistency, DataDirectory, Ledger, Options, Stores, VerifiedSubject};
use ledger_verify::proof::{self, Subject};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::setting::{Home, chain, create_vault, key, put, vault, write};

async fn open(home: &Home, options: Options) -> (Ledger, EmbeddedStores) {
    let directory = DataDirectory::open(home.folder.path()).unwrap();
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default()).unwrap();
    let parts = Stores { log: stores.log.clone(), state: stores.state.clone() };
    (Ledger::open(directory, parts, options).await.unwrap(), stores)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_a_write_costs_one_sync_and_survives_a_restart() {
    const WRITES: u64 = 20;
    let home = Home::new();
    let (ledger, stores) = open(&home, home.options()).await;
    create_vault(&ledger).await;
    let before = stores.log.syncs();
    for number in 0..WRITES {
        write(&ledger, put(&format!("k{}", number % 3), &number.to_string())).await;
    }
    assert_eq!(stores.log.syncs() - before, WRITES);
    let read = ledger.verified_read(&vault(), VerifiedSubject::Entity(key("k1")), 0).await.unwrap();
    let subject = Subject::Entity { key: "k1".to_owned() };
    let claim = proof::verify(&subject, &read.evidence, &[ledger.verifier_key()]).unwrap();
    assert_eq!(claim.value.as_deref(), Some(b"19".as_slice()));
    let written = chain(&ledger);
    ledger.shutdown().await.unwrap();
    drop((ledger, stores));
    let (ledger, _stores) = open(&home, home.options()).await;
    assert_eq!(chain(&ledger), written);
    let read = ledger.get(&vault(), &key("k1"), Consistency::Linearizable).await.unwrap();
    assert_eq!(read.value.unwrap().value.as_ref(), b"19");
    write(&ledger, put("k1", "after")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_flushes_and_purges_happen_under_load_and_a_restart_finds_everything() {
    let home = Home::new();
    let options = Options {
        flush_bytes: 64 * 1_024,
        flush_interval: std::time::Duration::from_millis(5),
        ..home.options()
    };
    let (ledger, stores) = open(&home, options).await;
    create_vault(&ledger).await;
    let ledger = Arc::new(ledger);
    let writers = (0..16).map(|writer| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for number in 0..50 {
                write(&ledger, put(&format!("w{writer}-{number}"), &"v".repeat(256))).await;
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    let counters = ledger.counters();
    assert_eq!(counters.writes, 800);
    assert!(counters.flushes > 0 && counters.write_entries < 800, "{counters:?}");
    assert!(ledger.node_info().purged.is_some());
    let written = chain(&ledger);
    ledger.shutdown().await.unwrap();
    drop((ledger, stores));
    let (ledger, _stores) = open(&home, home.options()).await;
    assert_eq!(chain(&ledger), written);
}
