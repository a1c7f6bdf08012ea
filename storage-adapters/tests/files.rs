//! What stands in the data directory, and what is refused there.
#![cfg(feature = "redb")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ledger_core::ports::{
    AppliedState, LogChange, LogId, LogKind, LogRecord, LogStore, RowChange, StateBatch, StateStore,
    StoreError, StoredVote, Table,
};
use redb::{Database, ReadableDatabase, TableDefinition};
use storage_adapters::redb::{OpenError, RedbLogStore, RedbOptions, RedbStateStore, RedbStores};

const FILES: [&str; 3] = ["raft.db", "blocks.db", "state.db"];

fn open(dir: &Path) -> Result<RedbStores, StoreError> {
    RedbStores::open(dir, RedbOptions::default())
}

/// Why the directory was refused.
#[track_caller]
fn refused(dir: &Path) -> OpenError {
    match open(dir).expect_err("the directory is refused") {
        StoreError::Engine { source, .. } => *source.downcast().expect("it says why the file was not opened"),
        other => panic!("not about opening a file: {other}"),
    }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, node: 1, index }
}

fn append(index: u64) -> LogChange {
    let payload = Bytes::from(format!("payload {index}"));
    LogChange::Append(LogRecord { id: id(index), kind: LogKind::Proposal, payload })
}

fn block(index: u64) -> StateBatch {
    let key = [&1_u64.to_be_bytes()[..], &index.to_be_bytes()].concat();
    let value = Some(Bytes::from(format!("value {index}")));
    let row = |table| RowChange { table, key: key.clone(), value: value.clone() };
    StateBatch {
        dropped_vaults: Vec::new(),
        rows: vec![row(Table::Entities), row(Table::Blocks)],
        applied: AppliedState { last_applied: id(index), membership: Bytes::new() },
    }
}

/// A directory with content in all three files.
fn used_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = open(dir.path()).expect("a new directory opens");
    stores.log.commit(&[append(0), append(1)]).expect("the batch is valid");
    stores.state.commit(&block(1)).expect("the batch is valid");
    dir
}

#[cfg(unix)]
#[test]
fn files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = used_directory();
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    assert_eq!(names, ["blocks.db", "raft.db", "state.db"], "nothing else is left in the directory");
    for file in FILES {
        let mode = fs::metadata(dir.path().join(file)).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = open(dir.path()).expect("a new directory opens");
    assert!(matches!(refused(dir.path()), OpenError::InUse { path } if path.ends_with("raft.db")));
    drop(first);
    open(dir.path()).expect("the lock went with the store");
}

#[test]
fn garbage_is_refused_by_name() {
    for file in FILES {
        for garbage in [&b"x"[..], &[0; 100], &[0xA5; 4096], &[0; 1 << 20], &[0x5A; 1 << 20]] {
            let dir = used_directory();
            fs::write(dir.path().join(file), garbage).expect("the file can be written");
            let error = refused(dir.path());
            assert!(matches!(&error, OpenError::Damaged { path, .. } if path.ends_with(file)), "{error}");
            assert!(error.to_string().contains("Restore this node"), "{error}");
        }
    }
}

#[test]
fn an_empty_file_is_refused_by_name() {
    for file in FILES {
        let dir = used_directory();
        fs::write(dir.path().join(file), b"").expect("the file can be written");
        let error = refused(dir.path());
        assert!(matches!(&error, OpenError::Empty { path } if path.ends_with(file)), "{error}");
    }
}

#[test]
fn a_truncated_file_is_refused_by_name() {
    for file in FILES {
        let whole = used_directory();
        let content = fs::read(whole.path().join(file)).expect("the file is there");
        for length in [1, 64, 320, 4096, content.len() / 2, content.len() - 4096, content.len() - 1] {
            let dir = used_directory();
            fs::write(dir.path().join(file), &content[..length]).expect("the file can be written");
            let error = refused(dir.path());
            assert!(matches!(&error, OpenError::Damaged { path, .. } if path.ends_with(file)), "{error}");
        }
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_is_refused_by_name() {
    for file in FILES {
        let dir = used_directory();
        fs::remove_file(dir.path().join(file)).expect("the file is there");
        fs::create_dir(dir.path().join(file)).expect("the name is free");
        let error = refused(dir.path());
        assert!(matches!(&error, OpenError::NotAFile { path } if path.ends_with(file)), "{error}");
    }
}

#[test]
fn a_missing_file_is_not_replaced_by_a_new_one() {
    for missing in FILES {
        let dir = used_directory();
        fs::remove_file(dir.path().join(missing)).expect("the file is there");
        for _ in 0..2 {
            let error = refused(dir.path());
            assert!(matches!(&error, OpenError::Missing { path, .. } if path.ends_with(missing)), "{error}");
            assert!(!dir.path().join(missing).exists(), "{missing} was made anew");
        }
    }
    let dir = used_directory();
    fs::remove_file(dir.path().join("raft.db")).expect("the file is there");
    fs::remove_file(dir.path().join("state.db")).expect("the file is there");
    assert!(matches!(refused(dir.path()), OpenError::Missing { .. }));
    let alone = RedbStateStore::open(dir.path(), RedbOptions::default());
    assert!(alone.is_err(), "blocks without a state are refused");
}

#[test]
fn a_first_opening_that_was_cut_short_is_finished() {
    for made in [&[][..], &["raft.db"], &["raft.db", "blocks.db"]] {
        let whole = tempfile::tempdir().expect("a temporary directory");
        drop(open(whole.path()).expect("a new directory opens"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        for file in made {
            fs::copy(whole.path().join(file), dir.path().join(file)).expect("the file can be copied");
        }
        let unfinished = dir.path().join(format!("{}.new", FILES[made.len()]));
        fs::write(unfinished, b"cut short").expect("the file can be written");
        let stores = open(dir.path()).expect("the first opening is finished");
        stores.log.commit(&[append(0)]).expect("the batch is valid");
    }
}

#[test]
fn a_file_under_the_name_of_another_is_refused() {
    for (from, to) in [("raft.db", "state.db"), ("blocks.db", "state.db"), ("state.db", "raft.db")] {
        let dir = used_directory();
        fs::copy(dir.path().join(from), dir.path().join(to)).expect("the file can be copied");
        let error = refused(dir.path());
        assert!(matches!(&error, OpenError::Foreign { path, .. } if path.ends_with(to)), "{error}");
    }
    let dir = used_directory();
    fs::remove_file(dir.path().join("raft.db")).expect("the file is there");
    let foreign = Database::create(dir.path().join("raft.db")).expect("a database of someone else");
    let write = foreign.begin_write().expect("it can be written");
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    write.open_table(table).expect("it can be written").insert("format", 1).expect("it can be written");
    write.commit().expect("it can be written");
    drop(foreign);
    assert!(matches!(refused(dir.path()), OpenError::Foreign { .. }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    // Not even root makes files there.
    let error = refused(Path::new("/proc/self"));
    assert!(matches!(&error, OpenError::Io { path, .. } if path.starts_with("/proc/self")), "{error}");
    let error = refused(Path::new("/nonexistent/directory"));
    assert!(matches!(&error, OpenError::Io { .. }), "{error}");
}

/// Rewrites the format row of a file as a program of version `version` would.
fn set_version(path: &Path, version: u32) {
    let meta: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
    let db = Database::open(path).expect("the file is a database");
    let stored = db.begin_read().expect("it can be read").open_table(meta).expect("it has the table");
    let stored =
        stored.get(&b"format"[..]).expect("it can be read").expect("it has the row").value().to_vec();
    let value = [&version.to_be_bytes()[..], &stored[8..]].concat();
    let key = b"format";
    let framing = [&[0xE3][..], &(key.len() as u64).to_be_bytes(), key, &value].concat();
    let row = [&crc32c::crc32c(&framing).to_be_bytes()[..], &value].concat();
    let write = db.begin_write().expect("it can be written");
    write.open_table(meta).expect("it has the table").insert(&key[..], &row[..]).expect("it can be written");
    write.commit().expect("it can be written");
}

#[test]
fn a_file_of_a_newer_format_is_refused_by_name() {
    for file in FILES {
        let dir = used_directory();
        set_version(&dir.path().join(file), 3);
        match open(dir.path()).expect_err("a newer format is refused") {
            StoreError::Format { what, found: 3, known: 2 } => assert!(what.ends_with(file), "{what}"),
            other => panic!("not about the format: {other}"),
        }
        set_version(&dir.path().join(file), 2);
        open(dir.path()).expect("the format it was made with opens");
    }
}

#[test]
fn a_file_of_an_older_format_is_migrated_only_where_that_is_asked_for() {
    use storage_adapters::redb::{OlderFormat, OpenError, RedbOptions};

    for file in FILES {
        let dir = used_directory();
        set_version(&dir.path().join(file), 1);
        let StoreError::Engine { source, .. } = open(dir.path()).expect_err("an older format is refused")
        else {
            panic!("not about a file");
        };
        match source.downcast_ref::<OpenError>() {
            Some(OpenError::OlderFormat { path, found: 1, .. }) => assert!(path.ends_with(file)),
            other => panic!("not about the format: {other:?}"),
        }
        let migrate = RedbOptions { older_format: OlderFormat::Migrate, ..RedbOptions::default() };
        drop(RedbStores::open(dir.path(), migrate).expect("it is migrated"));
        open(dir.path()).expect("it has the present format now");
    }
}

/// All batches are there for readers too, who share the files, keep writers out and change no byte.
fn assert_read_only(dir: &Path, newest: u64) {
    let content = || ["state.db", "blocks.db"].map(|file| fs::read(dir.join(file)).expect("readable"));
    let before = content();
    let read =
        || RedbStateStore::open_read_only(dir, RedbOptions::default()).expect("it is opened to be read");
    let (reader, other) = (read(), read());
    for row in (0..=newest).flat_map(|index| block(index).rows) {
        assert_eq!(reader.get(row.table, &row.key).expect("it is sound"), row.value);
    }
    assert!(matches!(reader.commit(&block(newest + 1)), Err(StoreError::Poisoned)));
    let writer = RedbStateStore::open(dir, RedbOptions::default());
    assert!(writer.is_err(), "somebody reads");
    drop((reader, other));
    assert!(content() == before);
}

#[test]
fn every_batch_is_in_a_copy_that_was_never_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = open(dir.path()).expect("a new directory opens");
    for index in 0..40 {
        let mut changes = vec![append(index)];
        if index % 7 == 3 {
            changes.push(LogChange::SaveVote(StoredVote { term: index, node: Some(1), committed: true }));
        }
        stores.log.commit(&changes).expect("the batch is valid");
        stores.state.commit(&block(index)).expect("the batch is valid");
        // The stores live on: the copy is what a kill at this moment leaves.
        let copy = tempfile::tempdir().expect("a temporary directory");
        for file in FILES {
            fs::copy(dir.path().join(file), copy.path().join(file)).expect("the file can be copied");
        }
        assert_read_only(copy.path(), index);
        for round in 0..2 {
            let reopened = open(copy.path()).expect("the copy opens");
            let records = reopened.log.read(0, u64::MAX, usize::MAX).expect("the copy is sound");
            assert_eq!(records.len() as u64, index + 1, "round {round}: every record is there");
            let voted = reopened.log.snapshot().expect("the copy is sound").vote.map(|vote| vote.term);
            assert_eq!(
                voted,
                (3..=index).rev().find(|vote| vote % 7 == 3),
                "round {round}: the last vote is there"
            );
            let applied = reopened.state.applied().expect("the copy is sound");
            assert_eq!(applied.map(|applied| applied.last_applied), Some(id(index)), "round {round}");
            for row in (0..=index).flat_map(|index| block(index).rows) {
                let stored = reopened.state.get(row.table, &row.key).expect("the copy is sound");
                assert_eq!(stored, row.value, "round {round}: every row is there");
            }
        }
    }
}

#[test]
fn a_store_that_is_never_closed_keeps_every_batch() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let copy = tempfile::tempdir().expect("a temporary directory");
    let store = RedbLogStore::open(dir.path(), RedbOptions::default()).expect("a new directory opens");
    store.commit(&(0..100).map(append).collect::<Vec<_>>()).expect("the batch is valid");
    store.commit(&[LogChange::PurgeThrough(id(49))]).expect("the batch is valid");
    std::mem::forget(store);
    // The lock lives as long as the process: look at a copy.
    fs::copy(dir.path().join("raft.db"), copy.path().join("raft.db")).expect("the file can be copied");
    let store = RedbLogStore::open(copy.path(), RedbOptions::default()).expect("the copy opens");
    let indexes: Vec<u64> = store
        .read(0, 200, usize::MAX)
        .expect("the copy is sound")
        .iter()
        .map(|record| record.id.index)
        .collect();
    assert_eq!(indexes, (50..100).collect::<Vec<_>>());
}
