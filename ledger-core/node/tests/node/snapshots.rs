use std::fs::File;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger_core::command::Receipt;
use ledger_core::snapshot::{self, SnapshotError, Verified};
use ledger_core::transaction::{Action, Operation};
use ledger_node::{
    Consistency, DataDirectory, DirectoryError, Ledger, ListRequest, Options, RestoreError, RestoreTarget,
    SnapshotFailure, SnapshotFolder, Stores, VerifiedSubject, restore_snapshot,
};
use ledger_verify::note::{SigningKey, VerifierKey};
use ledger_verify::proof::{self, Subject};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::setting::{
    Home, chain, create_vault, eventually, key, put, set, transaction, tuple, vault, write,
};

fn verify(path: &Path, keys: &[VerifierKey]) -> Result<Verified, SnapshotError> {
    snapshot::verify(File::open(path).unwrap(), keys, &mut |_| ControlFlow::Continue(()))
}

fn signing_key(home: &Home) -> SigningKey {
    let text = std::fs::read_to_string(home.folder.path().join("log.key")).unwrap();
    SigningKey::parse(text.trim_end()).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Restores into the redb stores of a new directory.
fn restore(from: &Path, to: &Path, key: Option<&SigningKey>) -> Result<Verified, RestoreError> {
    let target = RestoreTarget::begin(to).unwrap();
    let stores = EmbeddedStores::open(target.path(), RedbOptions::default()).unwrap();
    let parts = Stores { log: stores.log, state: stores.state };
    let file = File::open(from).unwrap();
    let verified = restore_snapshot(&target, &parts, file, &[], &mut |_| ControlFlow::Continue(()))?;
    drop(parts);
    target.finish(verified.header.ledger_id, key).unwrap();
    Ok(verified)
}

async fn open_redb(path: &Path, options: Options) -> Ledger {
    let directory = DataDirectory::open(path).unwrap();
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default()).unwrap();
    Ledger::open(directory, Stores { log: stores.log, state: stores.state }, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_all_that_was_acknowledged_signed_and_is_listed() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let receipt = write(&ledger, put("colour", "green")).await;
    let made = ledger.create_snapshot().await.unwrap();
    let verified = verify(&made.path, &[ledger.verifier_key()]).unwrap();
    let tip = ledger.tip(&vault(), Consistency::Linearizable).await.unwrap().value;
    let [found] = verified.vaults.as_slice() else { panic!("{verified:?}") };
    assert_eq!((found.height, found.block_hash), (receipt.height, tip.block_hash));
    assert_eq!((found.state_root, found.log_root), (tip.header.state_root, tip.log_root));
    assert_eq!(found.signed_by, Some(ledger.verifier_key()));

    let again = ledger.create_snapshot().await.unwrap();
    assert_eq!(again.path, made.path, "nothing changed: it is the same snapshot");
    write(&ledger, put("colour", "blue")).await;
    let newer = ledger.create_snapshot().await.unwrap();
    let listed = ledger.snapshots().list().unwrap();
    let paths: Vec<_> = listed.iter().map(|stored| stored.path.clone()).collect();
    assert_eq!(paths, [made.path, newer.path]);
    let counters = ledger.counters();
    assert_eq!((counters.snapshots_written, counters.snapshots_failed), (2, 0));
    let bytes: u64 = listed.iter().map(|stored| stored.summary.as_ref().unwrap().file_bytes).sum();
    assert_eq!(counters.snapshot_bytes, bytes);
    assert_eq!(ledger.node_info().snapshot_index, Some(newer.index));
    ledger.shutdown().await.unwrap();
    assert_eq!(home.open().await.node_info().snapshot_index, Some(newer.index), "known after a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_snapshots_are_kept_and_other_files_are_left_alone() {
    let home = Home::new();
    let options = Options { snapshot_keep: 2, ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    let mut made = Vec::new();
    for number in 0..4 {
        write(&ledger, put("key", &number.to_string())).await;
        made.push(ledger.create_snapshot().await.unwrap().path);
        if number == 0 {
            std::fs::write(made[0].with_file_name("notes.txt"), "mine").unwrap();
        }
    }
    let folder = home.folder.path().join("snapshots");
    assert_eq!(files(&folder), [made[2].clone(), made[3].clone(), folder.join("notes.txt")]);
    assert_eq!(ledger.counters().snapshots_pruned, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_another_history_under_the_same_index_is_replaced_and_the_new_one_is_kept() {
    let home = Home::new();
    let options = || Options { snapshot_keep: 1, ..home.options() };
    let ledger = home.open_with(home.stores(), options()).await;
    create_vault(&ledger).await;
    let earlier = home.copy();
    write(&ledger, put("key", "one history")).await;
    let one = ledger.create_snapshot().await.unwrap();
    let other = earlier.open_with(earlier.stores(), options()).await;
    let folder = earlier.folder.path().join("snapshots");
    std::fs::create_dir(&folder).unwrap();
    write(&other, put("key", "another history")).await;
    let index = other.node_info().last_applied;
    let same_index = folder.join(format!("{index:020}.snap"));
    for name in [same_index.clone(), folder.join("00000000000000999999.snap")] {
        std::fs::copy(&one.path, name).unwrap();
    }
    let made = other.create_snapshot().await.unwrap();
    assert_eq!(files(&folder), [same_index], "the one just written is kept, the other history's is not");
    let verified = verify(&made.path, &[other.verifier_key()]).unwrap();
    let tip = other.tip(&vault(), Consistency::Eventual).await.unwrap().value;
    assert_eq!(verified.vaults[0].block_hash, tip.block_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_written_at_the_interval_when_anything_changed() {
    let home = Home::new();
    let options = Options { snapshot_every: Duration::from_millis(10), ..home.options() };
    let ledger = home.open_with(home.stores(), options).await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "1")).await;
    let applied = ledger.node_info().last_applied;
    eventually("a snapshot with the write", || ledger.node_info().snapshot_index >= Some(applied)).await;
    write(&ledger, put("key", "2")).await;
    let applied = ledger.node_info().last_applied;
    eventually("another snapshot", || ledger.node_info().snapshot_index >= Some(applied)).await;
    let stored = ledger.snapshots().list().unwrap().pop().unwrap();
    verify(&stored.path, &[ledger.verifier_key()]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_ledger_serves_the_same_and_goes_on() {
    let home = Home::new();
    let ledger = open_redb(home.folder.path(), home.options()).await;
    create_vault(&ledger).await;
    let mut writes = Vec::new();
    for number in 0..300 {
        let relate = tuple("doc:plan", "viewer", &format!("user:{number}"));
        let operations = vec![
            set(&format!("key-{}", number % 7), &number.to_string(), None),
            Operation { action: Action::CreateRelationship(relate), condition: None },
        ];
        let transaction = transaction(operations);
        writes.push((transaction.clone(), write(&ledger, transaction).await));
    }
    let page = |token: &str| ListRequest { page_size: 3, page_token: token.to_owned() };
    let first = ledger.list_entities(&vault(), "key-", page(""), Consistency::Linearizable).await.unwrap();
    let token = first.value.next_page_token;
    let rest = ledger.list_entities(&vault(), "key-", page(&token), Consistency::Eventual).await.unwrap();
    let snapshot = ledger.create_snapshot().await.unwrap();
    let (before, vkey, node) = (chain(&ledger), ledger.verifier_key(), ledger.node_info());
    let (vault_id, ledger_id) = (ledger.vault(&vault()).unwrap().id, ledger.ledger_id());
    ledger.shutdown().await.unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let verified = restore(&snapshot.path, elsewhere.path(), Some(&signing_key(&home))).unwrap();
    assert_eq!(verified.vaults[0].id, vault_id);
    for round in 0..2 {
        let restored = open_redb(elsewhere.path(), home.options()).await;
        assert_eq!((restored.ledger_id(), restored.verifier_key()), (ledger_id, vkey.clone()));
        assert_ne!(restored.node_info().node_id, node.node_id, "it is another node");
        assert_eq!(chain(&restored)[..before.len()], before);
        for (transaction, receipt) in [&writes[0], &writes[299]] {
            let retried = write(&restored, transaction.clone()).await;
            assert_eq!(Receipt { replayed: false, ..retried }, *receipt, "a retry has its first receipt");
        }
        let page = restored.list_entities(&vault(), "key-", page(&token), Consistency::Linearizable).await;
        assert_eq!(page.unwrap().value.items[0].0, rest.value.items[0].0, "a page token works");
        let read = restored.verified_read(&vault(), VerifiedSubject::Entity(key("key-3")), 0).await.unwrap();
        let subject = Subject::Entity { key: "key-3".to_owned() };
        let claim = proof::verify(&subject, &read.evidence, std::slice::from_ref(&vkey)).unwrap();
        assert_eq!(claim.value.as_deref(), Some(b"297".as_slice()));
        let receipt = write(&restored, put("after", &round.to_string())).await;
        assert_eq!(receipt.height, 301 + round, "it goes on where the snapshot ended");
        let next = restored.block(&vault(), receipt.height).unwrap().unwrap().header;
        let previous = restored.block(&vault(), receipt.height - 1).unwrap().unwrap().header;
        assert_eq!(next.previous, previous.leaf_hash());
        assert!(
            next.term > restored.block(&vault(), 300).unwrap().unwrap().header.term,
            "in a term of its own"
        );
        restored.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_key_a_restored_directory_is_not_served_and_another_ledgers_key_is_refused() {
    let (home, stranger) = (Home::new(), Home::new());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    stranger.directory();
    let snapshot = ledger.create_snapshot().await.unwrap().path;
    let elsewhere = tempfile::tempdir().unwrap();
    restore(&snapshot, elsewhere.path(), None).unwrap();
    let refused = DataDirectory::open(elsewhere.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::KeyMissing { .. }), "{refused}");
    assert!(refused.to_string().contains("ledger key import"), "{refused}");
    std::fs::copy(home.folder.path().join("log.key"), elsewhere.path().join("log.key")).unwrap();
    let restored = open_redb(elsewhere.path(), home.options()).await;
    assert_eq!(chain(&restored), chain(&ledger));

    let third = tempfile::tempdir().unwrap();
    let target = RestoreTarget::begin(third.path()).unwrap();
    let refused = target.finish(ledger.ledger_id(), Some(&signing_key(&stranger))).unwrap_err();
    assert!(refused.to_string().contains("not to ledger"), "{refused}");
    assert!(matches!(DataDirectory::open(third.path()), Err(DirectoryError::RestoreUnfinished { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_needs_an_empty_directory_and_one_that_was_broken_off_is_begun_anew() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "value")).await;
    let snapshot = ledger.create_snapshot().await.unwrap().path;
    let full = tempfile::tempdir().unwrap();
    std::fs::write(full.path().join("letter.txt"), "mine").unwrap();
    let refused = RestoreTarget::begin(full.path()).unwrap_err();
    assert!(refused.to_string().contains("letter.txt"), "{refused}");
    assert_eq!(files(full.path()), [full.path().join("letter.txt")], "nothing was written");
    let refused = RestoreTarget::begin(home.folder.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::NotEmpty { .. }), "{refused}");

    let elsewhere = tempfile::tempdir().unwrap();
    let damaged = tempfile::tempdir().unwrap();
    let damaged = damaged.path().join("damaged.snap");
    std::fs::create_dir_all(damaged.parent().unwrap()).unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let refused = restore(&damaged, elsewhere.path(), None).unwrap_err();
    assert!(matches!(refused, RestoreError::Snapshot(SnapshotError::Checksum)), "{refused}");
    let unopened = DataDirectory::open(elsewhere.path()).unwrap_err();
    assert!(matches!(unopened, DirectoryError::RestoreUnfinished { .. }), "{unopened}");
    restore(&snapshot, elsewhere.path(), Some(&signing_key(&home))).unwrap();
    let restored = open_redb(elsewhere.path(), home.options()).await;
    assert_eq!(chain(&restored), chain(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_ends_at_any_byte_leaves_the_snapshot_before_it_valid() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "1")).await;
    let earlier = ledger.create_snapshot().await.unwrap();
    write(&ledger, put("key", "2")).await;
    let later = ledger.create_snapshot().await.unwrap();
    let bytes = std::fs::read(&later.path).unwrap();
    std::fs::remove_file(&later.path).unwrap();
    let folder = SnapshotFolder::of(home.folder.path());
    let only_the_earlier_one = |at: usize| {
        let listed = folder.list().unwrap();
        assert!(matches!(listed.as_slice(), [only] if only.path == earlier.path), "byte {at}");
        assert_eq!(files(earlier.path.parent().unwrap()), std::slice::from_ref(&earlier.path), "byte {at}");
        verify(&earlier.path, &[]).unwrap();
    };
    for at in 0..=bytes.len() {
        // The disk is full after these bytes.
        let failed = folder.write(later.index, |sink| {
            sink.write_all(&bytes[..at])?;
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        only_the_earlier_one(at);
        // The process is killed after these bytes: what stands under the other name goes at the next start.
        let mut unfinished = later.path.clone().into_os_string();
        unfinished.push(".unfinished");
        std::fs::write(unfinished, &bytes[..at]).unwrap();
        assert_eq!(folder.list().unwrap().len(), 1, "what is unfinished is not listed");
        assert_eq!(folder.clean().unwrap(), 1);
        only_the_earlier_one(at);
    }
    ledger.shutdown().await.unwrap();
    std::fs::write(earlier.path.with_file_name("00000000000000000099.snap.unfinished"), b"cut").unwrap();
    let reopened = home.open().await;
    only_the_earlier_one(0);
    reopened.create_snapshot().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_a_ledger_that_is_written_to_are_consistent() {
    let home = Home::new();
    let options = Options { flush_bytes: 16 * 1_024, snapshot_keep: 100, ..home.options() };
    let ledger = Arc::new(open_redb(home.folder.path(), options).await);
    create_vault(&ledger).await;
    let writers = (0..8).map(|writer| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for number in 0..60 {
                write(&ledger, put(&format!("w{writer}-{}", number % 10), &"v".repeat(200))).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut made = Vec::new();
    for _ in 0..10 {
        made.push(ledger.create_snapshot().await.unwrap());
    }
    join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    made.push(ledger.create_snapshot().await.unwrap());
    for snapshot in &made {
        // A copy that is made while the node runs is the snapshot.
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(&snapshot.path, copy.path()).unwrap();
        let verified = verify(copy.path(), &[ledger.verifier_key()]).unwrap();
        let block = ledger.block(&vault(), verified.vaults[0].height).unwrap().unwrap();
        assert_eq!(verified.vaults[0].block_hash, block.header.leaf_hash());
    }
    let last = verify(&made[10].path, &[]).unwrap();
    let tip = ledger.tip(&vault(), Consistency::Linearizable).await.unwrap();
    assert_eq!(last.vaults[0].height, tip.height);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_is_written_at_a_time_and_a_shutdown_waits_for_none() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    // More than a frame of bytes that do not compress, so that writing takes several steps.
    let mut noise = 1_u64;
    for number in 0..24 {
        let value: String = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + (noise >> 58) as u8)
        })
        .take(500_000)
        .collect();
        write(&ledger, put(&format!("key-{number}"), &value)).await;
    }
    let mut first = Box::pin(ledger.create_snapshot());
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(matches!(ledger.create_snapshot().await, Err(SnapshotFailure::InProgress)));
    ledger.shutdown().await.unwrap();
    assert!(matches!(first.await, Err(SnapshotFailure::Stopped)));
    assert!(matches!(
        ledger.create_snapshot().await,
        Err(SnapshotFailure::Stopped | SnapshotFailure::InProgress)
    ));
    assert!(ledger.snapshots().list().unwrap().is_empty());
    let reopened = home.open().await;
    reopened.create_snapshot().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_fails_the_snapshot_and_nothing_else() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    File::create(home.folder.path().join("snapshots")).unwrap().write_all(b"in the way").unwrap();
    assert!(matches!(ledger.create_snapshot().await, Err(SnapshotFailure::Folder(_))));
    assert_eq!(ledger.counters().snapshots_failed, 1);
    write(&ledger, put("key", "value")).await;
    std::fs::remove_file(home.folder.path().join("snapshots")).unwrap();
    ledger.create_snapshot().await.unwrap();
}
