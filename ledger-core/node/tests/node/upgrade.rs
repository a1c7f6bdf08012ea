//! Directories of older formats: copied, brought up to date, whole at every step, and refused by name where they
//! cannot be.

use std::path::{Path, PathBuf};

use ledger_node::{DataDirectory, DirectoryError, Ledger, OpenError};
use storage_adapters::redb::{OlderFormat, RedbLogStore, RedbOptions, RedbStores};

use super::format_fixture::{assert_complete, open, unpack};
use super::setting::Home;

/// What an upgrade had done when it was interrupted.
type Interruption = fn(&Path);

fn migrate() -> RedbOptions {
    RedbOptions { older_format: OlderFormat::Migrate, ..RedbOptions::default() }
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_file_name("data.format-1")
}

/// Names and hashes of the files that make a ledger.
fn files(path: &Path) -> Vec<(String, [u8; 32])> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                ledger_verify::hash::sha256(&[&std::fs::read(entry.path()).unwrap()]),
            )
        })
        .filter(|(name, _)| !["LOCK", "ledger.pid", "upgrading"].contains(&name.as_str()))
        .collect();
    files.sort();
    files
}

fn format(path: &Path) -> String {
    std::fs::read_to_string(path.join("format")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_format_1_opens_with_every_value_root_retry_and_page_token() {
    let home = Home::new();
    let (path, expected) = unpack(1, &home);
    let before = files(&path);
    let ledger = open(&home, &path, home.options()).await;
    assert_complete(&ledger, &expected).await;
    ledger.shutdown().await.unwrap();
    assert_eq!(format(&path), "strongroom ledger directory 2\n");
    assert_eq!(files(&copy_of(&path)), before, "the copy is what was there, to the byte");
    assert!(!path.join("upgrading").exists());
    // Opening again neither copies nor migrates.
    std::fs::remove_dir_all(copy_of(&path)).unwrap();
    drop(ledger);
    let ledger = open(&home, &path, home.options()).await;
    assert!(!copy_of(&path).exists());
    ledger.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_was_interrupted_at_any_step_goes_on() {
    let steps: [(&str, Interruption); 6] = [
        ("the marker was written", |path| std::fs::write(path.join("upgrading"), "from layout 1\n").unwrap()),
        ("the copy was begun", |path| {
            std::fs::write(path.join("upgrading"), "from layout 1\n").unwrap();
            let partial = path.with_file_name("data.format-1.partial");
            std::fs::create_dir(&partial).unwrap();
            std::fs::write(partial.join("raft.db"), "half").unwrap();
        }),
        ("the copy was made", |path| {
            drop(DataDirectory::open(path).unwrap().copied_for_upgrade().unwrap());
        }),
        ("the log was migrated", |path| {
            let directory = DataDirectory::open(path).unwrap().copied_for_upgrade().unwrap();
            drop(RedbLogStore::open(directory.path(), migrate()).unwrap());
        }),
        ("every store was migrated", |path| {
            let directory = DataDirectory::open(path).unwrap().copied_for_upgrade().unwrap();
            drop(RedbStores::open(directory.path(), migrate()).unwrap());
        }),
        ("the format file was written", |path| {
            let directory = DataDirectory::open(path).unwrap().copied_for_upgrade().unwrap();
            drop(RedbStores::open(directory.path(), migrate()).unwrap());
            std::fs::write(path.join("format"), "strongroom ledger directory 2\n").unwrap();
        }),
    ];
    for (step, interrupted_after) in steps {
        let home = Home::new();
        let (path, expected) = unpack(1, &home);
        let before = files(&path);
        interrupted_after(&path);
        let ledger = open(&home, &path, home.options()).await;
        assert_complete(&ledger, &expected).await;
        ledger.shutdown().await.unwrap();
        assert_eq!(files(&copy_of(&path)), before, "{step}: the copy is whole");
        assert!(!path.join("upgrading").exists() && format(&path).ends_with("2\n"), "{step}");
        assert!(!path.with_file_name("data.format-1.partial").exists(), "{step}");
    }
}

#[test]
fn nothing_is_touched_where_the_copy_would_go_over_something() {
    let home = Home::new();
    let (path, _) = unpack(1, &home);
    let before = files(&path);
    std::fs::create_dir(copy_of(&path)).unwrap();
    let refused = DataDirectory::open(&path).unwrap().copied_for_upgrade().unwrap_err();
    assert!(matches!(refused, DirectoryError::CopyExists { .. }), "{refused}");
    assert!(
        refused.to_string().contains("data.format-1") && refused.to_string().contains("rm -r"),
        "{refused}"
    );
    assert_eq!(files(&path), before);
}

#[tokio::test]
async fn without_a_copy_an_older_directory_is_neither_migrated_nor_served() {
    let home = Home::new();
    let (path, expected) = unpack(1, &home);
    let before = files(&path);
    let directory = DataDirectory::open(&path).unwrap();
    let refused = Ledger::open(directory, home.stores(), home.options()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Directory(DirectoryError::FormatOlder { found: 1, .. })),
        "{refused}"
    );
    assert_eq!(files(&path), before);
    let refused = RedbStores::open(&path, RedbOptions::default()).unwrap_err();
    let said = format!("{refused:?}");
    assert!(said.contains("raft.db") && said.contains("OlderFormat"), "{said}");
    // The refused file is still of its format.
    let ledger = open(&home, &path, home.options()).await;
    assert_complete(&ledger, &expected).await;
}

#[test]
fn a_newer_store_is_refused_by_name() {
    let home = Home::new();
    let (path, _) = unpack(1, &home);
    std::fs::write(path.join("format"), "strongroom ledger directory 9\n").unwrap();
    let refused = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(refused, DirectoryError::FormatNewer { found: 9, .. }), "{refused}");
}
