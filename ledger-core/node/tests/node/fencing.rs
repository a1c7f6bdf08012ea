//! Damage to one vault's rows on disk: through the adapter, as someone with access to the files would do it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ledger_state::{IntegrityDepth, RecoveryRefusal};
use ledger_core::names::VaultRef;
use ledger_core::ports::{RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_node::{Consistency, Ledger, MaintenanceError, Options, ReadFailure, WriteError};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::format_fixture::open;
use super::setting::{Home, actor, chain, create_vault, key, put, set_until, transaction, vault, write};

const BLOCKS: u64 = 20;

fn other() -> VaultRef {
    "acme/other".parse().unwrap()
}

/// A stopped ledger with two vaults of [`BLOCKS`] blocks; returns the chain of the first.
async fn written(home: &Home) -> Vec<Vec<u8>> {
    let ledger = open(home, home.folder.path(), home.options()).await;
    create_vault(&ledger).await;
    ledger.create_vault(other()).await.unwrap();
    for number in 0..BLOCKS {
        write(&ledger, put(&format!("k{}", number % 7), &number.to_string())).await;
        ledger.write(&other(), &actor(), put("same", &number.to_string())).await.unwrap();
    }
    ledger.checkpoint(&vault(), 0).await.unwrap();
    let written = chain(&ledger);
    ledger.shutdown().await.unwrap();
    written
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Changes the last byte of the first row of a table that belongs to the first vault and contains `text`.
fn damage(path: &Path, table: Table, text: &str) {
    let stores = EmbeddedStores::open(path, RedbOptions::default()).unwrap();
    let mut found = None;
    let range = ScanRange { prefix: 1_u64.to_be_bytes().to_vec(), start: Vec::new() };
    let mut visit = |row_key: &[u8], value: &[u8]| {
        let contains = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        if found.is_none() && (contains(row_key) || contains(value)) {
            found = Some((row_key.to_vec(), value.to_vec()));
        }
        true
    };
    stores.state.scan(table, &range, &mut visit).unwrap();
    let (key, mut value) = found.expect("there is such a row");
    *value.last_mut().unwrap() ^= 1;
    let applied = stores.state.applied().unwrap().unwrap();
    let rows = vec![RowChange { table, key, value: Some(Bytes::from(value)) }];
    stores.state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
}

async fn value(ledger: &Ledger, vault: &VaultRef, name: &str) -> Result<Vec<u8>, ReadFailure> {
    let read = ledger.get(vault, &key(name), Consistency::Linearizable).await?;
    Ok(read.value.unwrap().value.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_with_a_changed_row_is_fenced_others_serve_and_recovery_restores_the_exact_chain() {
    let home = Home::new();
    let before = written(&home).await;
    damage(home.folder.path(), Table::Entities, "k3");
    let ledger = open(&home, home.folder.path(), home.options()).await;

    assert!(matches!(value(&ledger, &vault(), "k1").await, Err(ReadFailure::VaultDiverged { .. })));
    let refused = ledger.write(&vault(), &actor(), put("k1", "new")).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(_)) && refused.to_string().contains("fenced"), "{refused}");
    assert!(ledger.checkpoint(&vault(), 0).await.is_err());
    assert_eq!(value(&ledger, &other(), "same").await.unwrap(), (BLOCKS - 1).to_string().into_bytes());
    ledger.write(&other(), &actor(), put("same", "still written")).await.unwrap();
    let info = ledger.vault(&vault()).unwrap();
    assert!(info.fence.is_some_and(|fence| fence.height == BLOCKS && fence.computed_root.is_some()));
    assert_eq!(ledger.node_info().fenced_vault_count, 1);

    let report = ledger.check_integrity(&vault(), IntegrityDepth::Full).await.unwrap();
    assert!(report.issues.iter().any(|issue| issue.what.contains("k3")), "{report:?}");
    let recovered = ledger.recover_vault(&vault()).await.unwrap();
    assert_eq!((recovered.height, recovered.rows_repaired), (BLOCKS, 1));
    assert_eq!(chain(&ledger), before);
    assert_eq!(ledger.node_info().fenced_vault_count, 0);
    write(&ledger, put("k3", "after")).await;
    let again = ledger.recover_vault(&vault()).await.unwrap_err();
    assert!(
        matches!(again, MaintenanceError::NotRecovered { refusal: RecoveryRefusal::NotFenced, .. }),
        "{again}"
    );
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = open(&home, home.folder.path(), home.options()).await;
    assert_eq!(value(&ledger, &vault(), "k3").await.unwrap(), b"after");
    assert_eq!(ledger.check_integrity(&vault(), IntegrityDepth::Full).await.unwrap().issues, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_whose_block_is_damaged_too_stays_fenced_and_says_which_block() {
    let home = Home::new();
    written(&home).await;
    damage(home.folder.path(), Table::Entities, "k3");
    damage(home.folder.path(), Table::Blocks, "SRTX");
    let ledger = open(&home, home.folder.path(), home.options()).await;
    let refused = ledger.recover_vault(&vault()).await.unwrap_err();
    assert!(refused.to_string().contains("block 1 cannot be replayed"), "{refused}");
    assert_eq!(ledger.node_info().fenced_vault_count, 1);
    assert!(value(&ledger, &other(), "same").await.is_ok());
    // What is left is to give it up.
    ledger.delete_vault(vault()).await.unwrap();
    assert_eq!(ledger.node_info().fenced_vault_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_that_only_the_log_holds_survive_the_fence() {
    let home = Home::new();
    written(&home).await;
    let (expected, crashed) = {
        let ledger = open(&home, home.folder.path(), home.options()).await;
        for number in 0..5 {
            write(&ledger, put(&format!("late-{number}"), "in the log only")).await;
        }
        ledger.checkpoint(&vault(), 0).await.unwrap();
        let crashed = tempfile::tempdir().unwrap();
        copy(home.folder.path(), crashed.path());
        (chain(&ledger), crashed)
    };
    damage(crashed.path(), Table::Entities, "k3");
    let ledger = open(&home, crashed.path(), home.options()).await;
    let recovered = ledger.recover_vault(&vault()).await.unwrap();
    assert_eq!((recovered.height, recovered.entries_resumed), (BLOCKS + 5, 5));
    assert_eq!(chain(&ledger), expected);
    assert_eq!(value(&ledger, &vault(), "late-4").await.unwrap(), b"in the log only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_an_open_vault_that_finds_its_state_wrong_fences_it() {
    let home = Home::new();
    written(&home).await;
    let directory = ledger_node::DataDirectory::open(home.folder.path()).unwrap();
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default()).unwrap();
    let parts = ledger_node::Stores { log: stores.log.clone(), state: stores.state.clone() };
    let ledger = Ledger::open(directory, parts, home.options()).await.unwrap();
    for depth in [IntegrityDepth::Quick, IntegrityDepth::Full] {
        assert_eq!(ledger.check_integrity(&vault(), depth).await.unwrap().issues, []);
    }
    let row_key = [1_u64.to_be_bytes().as_slice(), b"k3"].concat();
    let mut row = stores.state.get(Table::Entities, &row_key).unwrap().unwrap().to_vec();
    *row.last_mut().unwrap() ^= 1;
    let rows = vec![RowChange { table: Table::Entities, key: row_key, value: Some(Bytes::from(row)) }];
    let applied = stores.state.applied().unwrap().unwrap();
    stores.state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    let report = ledger.check_integrity(&vault(), IntegrityDepth::Full).await.unwrap();
    assert!(report.state_is_wrong && report.fence.is_none(), "{report:?}");
    assert!(matches!(value(&ledger, &vault(), "k3").await, Err(ReadFailure::VaultDiverged { .. })));
    ledger.recover_vault(&vault()).await.unwrap();
    assert!(value(&ledger, &vault(), "k3").await.is_ok());
    let unknown = ledger.check_integrity(&"acme/nothing".parse().unwrap(), IntegrityDepth::Quick).await;
    assert!(matches!(unknown, Err(MaintenanceError::VaultNotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_right_after_the_start_has_a_fenced_vault_as_it_is() {
    let home = Home::new();
    written(&home).await;
    damage(home.folder.path(), Table::Entities, "k3");
    // Nobody writes, and nothing is flushed by itself.
    let options = Options { flush_interval: Duration::from_secs(3_600), ..home.options() };
    let ledger = open(&home, home.folder.path(), options).await;
    assert_eq!(ledger.node_info().fenced_vault_count, 1);
    let snapshot = ledger.create_snapshot().await.unwrap().summary.unwrap();
    let vaults: Vec<_> = snapshot.header.vaults.iter().map(|entry| (entry.label(), entry.fenced)).collect();
    assert_eq!(vaults, [("acme/orders".to_owned(), true), ("acme/other".to_owned(), false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_collected_on_demand() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let soon = super::setting::START_MS + 1_000;
    write(&ledger, transaction(vec![set_until("a", "1", soon, None), set_until("b", "2", soon, None)])).await;
    assert_eq!(ledger.collect_garbage().await, 0);
    home.clock.advance_ms(2_000);
    assert_eq!(ledger.collect_garbage().await, 2);
    assert_eq!(ledger.vault(&vault()).unwrap().key_count, 0);
    assert_eq!(ledger.collect_garbage().await, 0);
}
