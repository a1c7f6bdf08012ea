//! The file as others see it: its layout, who may read it, and what is not it.

use std::fs;

use auth_core::Millis;
use auth_core::ports::{AuthStore, AuthStoreError, Commit, CommitId, Expect, Position, ReadSet};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use storage_adapters::redb::auth::{RedbAuthError, RedbAuthStore};

use super::disk::Disk;
use super::files::RedbDisk;
use super::world::{Home, START, commit, key, options, run, try_commit, value};

type Bytes = &'static [u8];
type Rows = TableDefinition<'static, Bytes, Bytes>;

const META: Rows = TableDefinition::new("meta");
const RECORDS: Rows = TableDefinition::new("records");

/// As docs/formats.md frames rows.
fn framed(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let summed = [&[table][..], &(key.len() as u64).to_be_bytes(), key, value].concat();
    [&crc32c::crc32c(&summed).to_be_bytes()[..], value].concat()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

/// The golden vectors of docs/formats.md.
#[test]
fn the_file_has_the_documented_layout() {
    let home = Home::new();
    let store = home.open();
    let first = commit(1).expect(&key(5), Expect::Absent).put(&key(5), b"Ada", Some(Millis(START.0 + 1)));
    try_commit(&store, &first).expect("it is applied");
    try_commit(&store, &commit(2).put(&key(6), b"", None).delete(&key(7))).expect("it is applied");
    drop(store);
    let db = Database::open(home.path()).expect("a database");
    let read = db.begin_read().expect("it is read");
    let rows = |table: &'static str| -> Vec<(Vec<u8>, Vec<u8>)> {
        let table = read.open_table(Rows::new(table)).expect("a table");
        let rows = table.iter().expect("it is read").map(|row| row.expect("a row"));
        rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    };
    let row = |table: u8, key: &str, value: &str| (hex(key), framed(table, &hex(key), &hex(value)));
    assert_eq!(
        rows("meta"),
        [
            (b"format".to_vec(), framed(0xE3, b"format", b"\0\0\0\x01auth.db")),
            (b"last".to_vec(), framed(0xE7, b"last", &2u64.to_be_bytes())),
        ]
    );
    let (five, six) =
        ("ff00 0000000000000001 0008 0000000000000005", "ff00 0000000000000001 0008 0000000000000006");
    let seven = "ff00 0000000000000001 0008 0000000000000007";
    assert_eq!(
        rows("records"),
        [
            row(0xE8, five, "0000000000000001 01 0000019aaaac2601 416461"),
            row(0xE8, six, "0000000000000002 00"),
        ]
    );
    assert_eq!(rows("ends"), [row(0xE9, &format!("0000019aaaac2601 {five}"), "")]);
    assert_eq!(
        rows("commits"),
        [
            row(0xEA, "019aaaac2600 0000 0000000000000001", &format!("{} 0000000000000001", digest(&first))),
            row(
                0xEA,
                "019aaaac2600 0000 0000000000000002",
                &format!("{} 0000000000000002", digest(&commit(2).put(&key(6), b"", None).delete(&key(7)))),
            ),
        ]
    );
    assert_eq!(
        rows("changes"),
        [
            row(0xEB, "0000000000000001", &format!("0000019aaaac2600 0001 01 0014 {five}")),
            row(0xEB, "0000000000000002", &format!("0000019aaaac2600 0002 01 0014 {six} 00 0014 {seven}")),
        ]
    );
}

fn digest(commit: &Commit) -> String {
    commit.digest().0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(unix)]
#[test]
fn its_owner_alone_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    drop(home.open());
    let mode = fs::metadata(home.path()).expect("there is a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_process_has_it_at_a_time() {
    let home = Home::new();
    let store = home.open();
    let second = home.try_open();
    assert!(matches!(second, Err(RedbAuthError::InUse { .. })), "{second:?}");
    drop(store);
    drop(home.open());
}

#[test]
fn a_newer_format_and_files_of_others_are_refused_by_name_and_left_alone() {
    let home = Home::new();
    drop(home.open());
    let overwrite = |value: Vec<u8>| {
        let db = Database::open(home.path()).expect("a database");
        let write = db.begin_write().expect("a transaction");
        let mut meta = write.open_table(META).expect("a table");
        meta.insert(&b"format"[..], value.as_slice()).expect("it is written");
        drop(meta);
        write.commit().expect("it is committed");
    };
    overwrite(framed(0xE3, b"format", b"\0\0\0\x02auth.db"));
    let newer = home.try_open().expect_err("a newer one");
    assert!(matches!(newer, RedbAuthError::Format { found: 2, known: 1, .. }), "{newer:?}");
    assert!(newer.to_string().contains("auth.db has format 2"), "{newer}");
    overwrite(framed(0xE3, b"format", b"\0\0\0\x01rates.db"));
    let foreign = home.try_open().expect_err("counters of rate limits");
    assert!(matches!(foreign, RedbAuthError::Foreign { .. }), "{foreign:?}");
    overwrite(vec![1, 2, 3, 4, 5]);
    assert!(matches!(home.try_open(), Err(RedbAuthError::Damaged { .. })));

    for content in [&b""[..], b"no database", &[7; 10_000]] {
        fs::write(home.path(), content).expect("it is written");
        let refused = home.try_open().expect_err("it is no database");
        assert!(matches!(refused, RedbAuthError::Damaged { .. }), "{refused:?}");
        assert_eq!(fs::read(home.path()).expect("it is read"), content, "it was left alone");
    }
    let nowhere = RedbAuthStore::open(&home.directory.path().join("missing").join("auth.db"), options());
    assert!(matches!(nowhere, Err(RedbAuthError::NoFile { .. })), "{nowhere:?}");
}

/// A bit of one record flips on the disk: it is told to who asks for that record, and to nobody else.
#[test]
fn a_damaged_record_is_told_and_the_others_are_served() {
    let home = Home::new();
    let store = home.open();
    try_commit(&store, &commit(1).put(&key(1), b"one", None).put(&key(2), b"two", None))
        .expect("it is applied");
    drop(store);
    let db = Database::open(home.path()).expect("a database");
    let write = db.begin_write().expect("a transaction");
    let mut records = write.open_table(RECORDS).expect("a table");
    let mut row = records.get(key(1).as_bytes()).expect("it is read").expect("a row").value().to_vec();
    if let Some(last) = row.last_mut() {
        *last ^= 1;
    }
    records.insert(key(1).as_bytes(), row.as_slice()).expect("it is written");
    drop(records);
    write.commit().expect("it is committed");
    drop(db);

    let store = home.open();
    let read = run(store.read(&ReadSet::of([key(1)]), START));
    assert!(
        matches!(&read, Err(AuthStoreError::Unavailable { source }) if source.to_string().contains("damaged")),
        "{read:?}"
    );
    for over in
        [commit(2).put(&key(1), b"x", None), commit(3).expect(&key(1), Expect::Present).delete(&key(2))]
    {
        let refused = try_commit(&store, &over);
        assert!(matches!(&refused, Err(AuthStoreError::Unavailable { .. })), "{refused:?}");
    }
    assert_eq!(value(&store, &key(2)), Some(b"two".to_vec()));
    try_commit(&store, &commit(4).put(&key(2), b"more", None)).expect("others are served");
    assert!(store.failure().is_none());
}

#[test]
fn old_ids_and_changes_make_room_in_the_file() {
    let disk = Disk::default();
    let store =
        RedbAuthStore::with_files(RedbDisk(disk.clone()).files(), "auth.db", options()).expect("it opens");
    // A commit every three seconds, for an hour of which ten minutes are kept.
    for number in 0..1_200 {
        let now = Millis(START.0 + number * 3_000);
        let put =
            Commit::new(CommitId::new(now, [3; 10])).put(&key(number % 10), b"x", Some(Millis(now.0 + 1)));
        run(store.commit(&put, now)).expect("it is applied");
    }
    let page = run(store.changes(Position(1_200), 1)).expect("the end of the feed");
    assert!(page.changes.is_empty());
    drop(store);
    let home = Home::new();
    fs::write(home.path(), disk.image().bytes("auth.db")).expect("it is copied");
    let db = Database::open(home.path()).expect("a database");
    let read = db.begin_read().expect("it is read");
    let count = |table: &'static str| {
        read.open_table(Rows::new(table)).expect("a table").iter().expect("it is read").count()
    };
    assert_eq!([count("commits"), count("changes"), count("records"), count("ends")], [200, 200, 10, 10]);
}
