use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ledger_core::backup::{BackupError, Witness};
use ledger_core::command::Retention;
use ledger_core::names::NamespaceName;
use ledger_node::backup::{
    BackupFailure, BackupFile, BackupFolder, BackupReport, BackupWriter, FileKind, OfflineSource,
    RestorePlan, RestorePoint, RestoredBackup, Staged, restore_backup, verify_backup,
};
use ledger_node::{Consistency, DataDirectory, Ledger, Options, RestoreTarget, Stores};
use ledger_verify::note::{SigningKey, VerifierKey};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::setting::{Home, START_MS, chain, create_vault, put, vault, write};

const GO_ON: fn(u64) -> ControlFlow<()> = |_| ControlFlow::Continue(());

/// What the command does: everything at first, then what is new.
async fn back_up(ledger: &Ledger, folder: &Path) -> Result<Option<BackupFile>, BackupFailure> {
    let mut writer = BackupWriter::open(folder)?;
    let after = writer.manifest().and_then(|manifest| manifest.newest()).map(|file| file.through);
    if let Some(after) = after {
        match increment(ledger, &writer, after).await {
            Ok(staged) => return writer.accept_increment(&staged, &mut { GO_ON }),
            Err(BackupFailure::Backup(BackupError::NeedsBase { .. })) => {}
            Err(other) => return Err(other),
        }
    }
    let staged = base(ledger, &writer).await?;
    writer.accept_base(&staged, &mut { GO_ON }).map(Some)
}

async fn base(ledger: &Ledger, writer: &BackupWriter) -> Result<Staged, BackupFailure> {
    let made = ledger.create_snapshot().await?;
    let mut chunks = ledger.stream_snapshot(made.index).await?;
    let mut staged = writer.stage()?;
    while let Some(chunk) = chunks.next().await {
        staged.write_all(&chunk?).unwrap();
    }
    staged.finish()
}

async fn increment(ledger: &Ledger, writer: &BackupWriter, after: u64) -> Result<Staged, BackupFailure> {
    let mut chunks = ledger.stream_increment(after).await?;
    let mut staged = writer.stage()?;
    while let Some(chunk) = chunks.next().await {
        staged.write_all(&chunk?).unwrap();
    }
    staged.finish()
}

fn verify(folder: &Path, keys: &[VerifierKey], witnesses: &[Witness]) -> Result<BackupReport, BackupFailure> {
    let folder = BackupFolder::at(folder);
    verify_backup(&folder, &folder.manifest()?, keys, witnesses, &mut { GO_ON })
}

fn signing_key(home: &Home) -> SigningKey {
    let text = std::fs::read_to_string(home.folder.path().join("log.key")).unwrap();
    SigningKey::parse(text.trim_end()).unwrap()
}

fn restore(
    folder: &Path,
    to: &Path,
    key: &SigningKey,
    point: &RestorePoint,
) -> Result<RestoredBackup, BackupFailure> {
    let folder = BackupFolder::at(folder);
    let plan = RestorePlan::find(&folder, &folder.manifest()?, point)?;
    let target = RestoreTarget::begin(to).unwrap();
    let stores = EmbeddedStores::open(target.path(), RedbOptions::default()).unwrap();
    let parts = Stores { log: stores.log, state: stores.state };
    let restored = restore_backup(&target, &parts, &folder, &plan, &[], &mut { GO_ON })?;
    drop(parts);
    target.finish(restored.ledger_id, Some(key)).unwrap();
    Ok(restored)
}

async fn open_redb(path: &Path, options: Options) -> Ledger {
    let directory = DataDirectory::open(path).unwrap();
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default()).unwrap();
    Ledger::open(directory, Stores { log: stores.log, state: stores.state }, options).await.unwrap()
}

async fn witness(ledger: &Ledger) -> Witness {
    let tip = ledger.tip(&vault(), Consistency::Linearizable).await.unwrap().value;
    let id = ledger.vault(&vault()).unwrap().id;
    Witness { name: "kept".to_owned(), vault: id, size: tip.size, root: tip.log_root }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_grows_by_what_is_new_and_every_point_of_it_is_restored_as_it_was() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("colour", "green")).await;
    let folder = beside.path().join("backup");
    let first = back_up(&ledger, &folder).await.unwrap().unwrap();
    assert_eq!(first.kind, FileKind::Base);
    assert_eq!(back_up(&ledger, &folder).await.unwrap(), None, "nothing has happened");

    // Log index, log time and chain after each step.
    let mut steps = vec![(first.through, START_MS, chain(&ledger))];
    for step in 1..=12_u64 {
        home.clock.advance_ms(1_000);
        match step {
            4 => drop(ledger.create_namespace(NamespaceName::new("other").unwrap()).await.unwrap()),
            5 => drop(ledger.create_vault("other/box".parse().unwrap()).await.unwrap()),
            _ => drop(write(&ledger, put("colour", &format!("shade {step}"))).await),
        }
        steps.push((ledger.node_info().last_applied, START_MS + step * 1_000, chain(&ledger)));
        if step % 5 == 0 {
            let added = back_up(&ledger, &folder).await.unwrap().unwrap();
            assert_eq!(added.kind, FileKind::Increment);
        }
    }
    back_up(&ledger, &folder).await.unwrap().unwrap();
    let report = verify(&folder, &[ledger.verifier_key()], &[witness(&ledger).await]).unwrap();
    assert_eq!((report.files, report.through), (4, ledger.node_info().last_applied));
    let key = signing_key(&home);
    let heights: Vec<u64> = steps.iter().map(|(.., chain)| chain.len() as u64).collect();
    ledger.shutdown().await.unwrap();

    for (number, (index, time_ms, expected)) in steps.iter().enumerate() {
        let mut points = vec![RestorePoint::Index(*index), RestorePoint::TimeMs(*time_ms)];
        // A state that later steps did not change is the last of its height.
        if heights.get(number + 1).is_none_or(|next| next > &heights[number]) {
            let height = write_height(expected);
            points.push(RestorePoint::Height { vault: vault(), height });
        }
        for point in points {
            let to = tempfile::tempdir().unwrap();
            let restored = restore(&folder, &to.path().join("data"), &key, &point).unwrap();
            let options = Options { clock: home.clock.clone(), ..Options::default() };
            let ledger = open_redb(&to.path().join("data"), options).await;
            assert_eq!(chain(&ledger), *expected, "{point:?}");
            let has_box = ledger.vault(&"other/box".parse().unwrap()).is_some();
            assert_eq!(has_box, number >= 5, "{point:?}");
            assert!(restored.applied.index <= *index, "{point:?}");
            write(&ledger, put("after", "the restore")).await;
            assert!(chain(&ledger).len() > expected.len(), "it goes on");
            ledger.shutdown().await.unwrap();
        }
    }
}

/// The newest height of a chain of headers and transactions, one transaction a block.
fn write_height(chain: &[Vec<u8>]) -> u64 {
    (chain.len() as u64 - 1) / 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backup_does_not_cover_is_refused_and_the_covered_points_are_named() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("a", "1")).await;
    let folder = beside.path().join("backup");
    let base = back_up(&ledger, &folder).await.unwrap().unwrap();
    home.clock.advance_ms(5_000);
    write(&ledger, put("a", "2")).await;
    let last = back_up(&ledger, &folder).await.unwrap().unwrap();
    let key = signing_key(&home);
    for point in [
        RestorePoint::Index(base.through - 1),
        RestorePoint::Index(last.through + 1),
        RestorePoint::TimeMs(START_MS - 1),
        RestorePoint::TimeMs(START_MS + 5_001),
        RestorePoint::Height { vault: vault(), height: 3 },
        RestorePoint::Height { vault: vault(), height: 0 },
    ] {
        let to = tempfile::tempdir().unwrap();
        let refused = restore(&folder, to.path(), &key, &point);
        let Err(BackupFailure::NotCovered { covered, .. }) = refused else {
            panic!("{point:?}: {refused:?}")
        };
        let ranges: Vec<_> = covered.iter().map(|range| (range.from_index, range.through_index)).collect();
        assert_eq!(ranges, [(base.through, last.through)]);
        assert_eq!(files(to.path()), Vec::<PathBuf>::new(), "nothing was begun");
    }
    let unknown = RestorePoint::Height { vault: "acme/nothing".parse().unwrap(), height: 0 };
    let refused = restore(&folder, &home.folder.path().join("x"), &key, &unknown);
    assert!(matches!(refused, Err(BackupFailure::UnknownVault { .. })), "{refused:?}");
}

/// Every state that the folder may be left in when the writer ends between two backups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_at_any_byte_leaves_the_one_before_and_the_next_goes_on() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("a", "1")).await;
    let before = beside.path().join("before");
    back_up(&ledger, &before).await.unwrap().unwrap();
    for number in 0..5 {
        write(&ledger, put("a", &format!("{number}"))).await;
    }
    let after = beside.path().join("after");
    copy_folder(&before, &after);
    let added = back_up(&ledger, &after).await.unwrap().unwrap();
    let part = std::fs::read(after.join(&added.file)).unwrap();
    let manifest = std::fs::read(after.join("manifest")).unwrap();
    let was = BackupFolder::at(&before).manifest().unwrap();
    let is = BackupFolder::at(&after).manifest().unwrap();

    let mut states = Vec::new();
    for end in 0..=part.len() {
        states.push(vec![("incoming.unfinished".to_owned(), part[..end].to_vec())]);
    }
    for end in 0..=manifest.len() {
        states.push(vec![
            (added.file.clone(), part.clone()),
            ("manifest.unfinished".to_owned(), manifest[..end].to_vec()),
        ]);
    }
    let mut looked = 0;
    for (number, state) in states.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&before, folder.path());
        for (name, content) in state {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        assert_eq!(BackupFolder::at(folder.path()).manifest().unwrap(), was, "state {number}");
        // Verifying and going on takes longer than looking: at some of them.
        if number % 97 == 0 || number + 1 == states.len() {
            verify(folder.path(), &[], &[]).unwrap();
            back_up(&ledger, folder.path()).await.unwrap().unwrap();
            let files = BackupFolder::at(folder.path()).manifest().unwrap().files;
            assert_eq!(files.len(), is.files.len(), "state {number}");
            verify(folder.path(), &[ledger.verifier_key()], &[]).unwrap();
            looked += 1;
        }
    }
    assert!(states.len() > 1_000 && looked > 10, "{} states, {looked} looked at", states.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_of_any_file_is_noticed() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("a", "1")).await;
    let folder = beside.path().join("backup");
    back_up(&ledger, &folder).await.unwrap();
    write(&ledger, put("a", "2")).await;
    back_up(&ledger, &folder).await.unwrap();
    verify(&folder, &[], &[]).unwrap();
    let mut changed = 0;
    for file in files(&folder) {
        if file.ends_with("LOCK") {
            continue;
        }
        let content = std::fs::read(&file).unwrap();
        for at in (0..content.len()).step_by(content.len() / 40 + 1) {
            let mut other = content.clone();
            other[at] ^= 4;
            std::fs::write(&file, &other).unwrap();
            assert!(verify(&folder, &[], &[]).is_err(), "{} byte {at}", file.display());
            changed += 1;
        }
        std::fs::write(&file, &content).unwrap();
    }
    verify(&folder, &[], &[]).unwrap();
    assert!(changed > 90, "{changed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_went_back_and_on_is_a_fork_of_its_backup() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("a", "1")).await;
    let earlier = home.copy();
    let folder = beside.path().join("backup");
    back_up(&ledger, &folder).await.unwrap();
    for number in 0..3 {
        write(&ledger, put("a", &format!("{number}"))).await;
    }
    back_up(&ledger, &folder).await.unwrap();
    let kept = witness(&ledger).await;

    let other = earlier.open().await;
    let behind = back_up(&other, &folder).await;
    assert!(matches!(behind, Err(BackupFailure::Backup(BackupError::Behind { .. }))), "{behind:?}");
    for number in 0..4 {
        write(&other, put("a", &format!("other {number}"))).await;
        // Also where the other history is exactly as long, it is not taken for the same.
        let refused = back_up(&other, &folder).await;
        assert!(matches!(refused, Err(BackupFailure::Backup(_))), "{refused:?}");
    }
    let was = BackupFolder::at(&folder).manifest().unwrap();
    let forked = back_up(&other, &folder).await;
    assert!(matches!(forked, Err(BackupFailure::Backup(BackupError::Fork { .. }))), "{forked:?}");
    assert_eq!(BackupFolder::at(&folder).manifest().unwrap(), was, "the backup is as it was");
    verify(&folder, &[ledger.verifier_key()], std::slice::from_ref(&kept)).unwrap();

    let others = beside.path().join("others");
    back_up(&other, &others).await.unwrap();
    let refused = verify(&others, &[], &[kept]);
    let Err(BackupFailure::File { source: BackupError::Fork { vault, .. }, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(vault, "acme/orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_transactions_make_a_new_chain_that_must_go_on_with_the_one_before() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let retention = Retention::Compacted { blocks: 2.try_into().unwrap() };
    ledger.set_retention(vault(), retention).await.unwrap();
    write(&ledger, put("a", "0")).await;
    let folder = beside.path().join("backup");
    back_up(&ledger, &folder).await.unwrap();
    for number in 0..8 {
        write(&ledger, put("a", &format!("{number}"))).await;
    }
    let added = back_up(&ledger, &folder).await.unwrap().unwrap();
    assert_eq!(added.kind, FileKind::Base, "the bodies in between are gone");
    let kept = witness(&ledger).await;
    let manifest = BackupFolder::at(&folder).manifest().unwrap();
    assert_eq!(manifest.chains().len(), 2);
    let report = verify(&folder, &[ledger.verifier_key()], &[kept]).unwrap();
    assert_eq!(report.files, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_another_ledger_or_a_folder_with_other_files_is_left_alone() {
    let (home, beside) = (Home::new(), tempfile::tempdir().unwrap());
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let folder = beside.path().join("backup");
    back_up(&ledger, &folder).await.unwrap();
    let stranger = Home::new();
    let other = stranger.open().await;
    create_vault(&other).await;
    for number in 0..9 {
        write(&other, put("a", &format!("{number}"))).await;
    }
    assert!(back_up(&other, &folder).await.is_err());
    let held = BackupWriter::open(&folder).unwrap();
    let busy = BackupWriter::open(&folder);
    assert!(matches!(busy, Err(BackupFailure::Busy { .. })), "{busy:?}");
    drop(held);
    let mine = beside.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("letter.txt"), "mine").unwrap();
    let refused = BackupWriter::open(&mine);
    assert!(matches!(refused, Err(BackupFailure::NotEmpty { .. })), "{refused:?}");
    assert_eq!(files(&mine), [mine.join("letter.txt")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_directory_is_backed_up_as_a_running_one_and_the_chain_goes_on_with_either() {
    let from = tempfile::tempdir().unwrap();
    let data = from.path().join("data");
    let folder = from.path().join("backup");
    let ledger = open_redb(&data, Options::default()).await;
    create_vault(&ledger).await;
    let receipt = ledger.write(&vault(), &super::setting::actor(), fresh_put("a", "1")).await.unwrap();
    assert_eq!(receipt.height, 1);
    back_up(&ledger, &folder).await.unwrap();
    ledger.write(&vault(), &super::setting::actor(), fresh_put("a", "2")).await.unwrap();
    let kept = witness(&ledger).await;
    let vkey = ledger.verifier_key();
    ledger.shutdown().await.unwrap();
    drop(ledger);

    {
        let directory = DataDirectory::open(&data).unwrap();
        let stores = EmbeddedStores::open(&data, RedbOptions::default()).unwrap();
        let stores = Stores { log: stores.log, state: stores.state };
        let source = OfflineSource::open(&directory, &stores, START_MS).unwrap();
        let mut writer = BackupWriter::open(&folder).unwrap();
        let after = writer.manifest().unwrap().newest().unwrap().through;
        let mut staged = writer.stage().unwrap();
        source.write_increment(after, &mut staged, &mut { GO_ON }).unwrap();
        writer.accept_increment(&staged.finish().unwrap(), &mut { GO_ON }).unwrap().unwrap();
    }
    verify(&folder, std::slice::from_ref(&vkey), std::slice::from_ref(&kept)).unwrap();
    let ledger = open_redb(&data, Options::default()).await;
    ledger.write(&vault(), &super::setting::actor(), fresh_put("a", "3")).await.unwrap();
    back_up(&ledger, &folder).await.unwrap().unwrap();
    let report = verify(&folder, &[vkey], &[kept, witness(&ledger).await]).unwrap();
    assert_eq!(report.files, 3);
}

/// Stamped with the system's time, for ledgers that have its clock.
fn fresh_put(key: &str, value: &str) -> ledger_core::transaction::Transaction {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let operations = vec![super::setting::set(key, value, None)];
    ledger_core::transaction::Transaction::new(super::setting::fresh_key(now), operations).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_frees_its_place() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let made = ledger.create_snapshot().await.unwrap();
    for _ in 0..5 {
        let chunks = ledger.stream_snapshot(made.index).await;
        if let Ok(chunks) = chunks {
            drop(chunks);
        }
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut chunks = loop {
        match ledger.stream_snapshot(made.index).await {
            Ok(chunks) => break chunks,
            Err(BackupFailure::InProgress) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Err(other) => panic!("{other:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "no place gets free");
    };
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.unwrap().len() as u64;
    }
    assert_eq!(bytes, made.summary.as_ref().unwrap().file_bytes);
    let missing = ledger.stream_snapshot(made.index + 1).await;
    assert!(
        matches!(missing, Err(BackupFailure::NoSnapshot { .. } | BackupFailure::InProgress)),
        "{missing:?}"
    );
}
