//! The file as others see it: its layout, who may read it, and what is not it.

use std::fs;

use ratelimit_core::ports::RateStore;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use storage_adapters::redb::rates::{RateOptions, RedbRateError, RedbRateStore};

use super::world::{EPOCH, Home, START, admits, bucket, charge, key, options, policy, run, window};

type Bytes = &'static [u8];
type Rows = TableDefinition<'static, Bytes, Bytes>;

const META: Rows = TableDefinition::new("meta");
const POLICIES: Rows = TableDefinition::new("policies");
const RATES: Rows = TableDefinition::new("rates");

/// As docs/formats.md frames rows.
fn framed(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let summed = [&[table][..], &(key.len() as u64).to_be_bytes(), key, value].concat();
    [&crc32c::crc32c(&summed).to_be_bytes()[..], value].concat()
}

#[test]
fn the_file_has_the_documented_layout() {
    let home = Home::new();
    let store = home.open(vec![policy("w", window(3)), policy("b", bucket(20))], START);
    assert!(admits(&store, 0, &key("client"), 1, START));
    drop(store);
    let db = redb::Database::open(home.path()).expect("a database");
    let read = db.begin_read().expect("it is read");
    let meta = read.open_table(META).expect("a table");
    let get = |key: &str| meta.get(key.as_bytes()).expect("it is read").expect("a row").value().to_vec();
    assert_eq!(get("format"), framed(0xE3, b"format", b"\0\0\0\x01rates.db"));
    let epoch = u64::try_from(EPOCH.as_nanos()).expect("it fits");
    assert_eq!(get("epoch"), framed(0xE4, b"epoch", &epoch.to_be_bytes()));
    assert_eq!(get("secret").len(), 4 + 16);
    assert_eq!(meta.iter().expect("it is read").count(), 3);

    let policies = read.open_table(POLICIES).expect("a table");
    let row = policies.get(&1u32.to_be_bytes()[..]).expect("it is read").expect("a row").value().to_vec();
    // Version, name, bucket: 1 per hour, burst 20, no debt.
    let numbers = [1, 3_600_000_000_000, 20, 0u64].map(u64::to_be_bytes).concat();
    assert_eq!(row, framed(0xE5, &1u32.to_be_bytes(), &[&b"\x01\0\x01b\x02"[..], &numbers].concat()));
    assert_eq!(policies.iter().expect("it is read").count(), 2);

    let rates = read.open_table(RATES).expect("a table");
    let rows: Vec<(Vec<u8>, Vec<u8>)> = rates
        .iter()
        .expect("it is read")
        .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).expect("a row"))
        .collect();
    let [(key, value)] = rows.as_slice() else { panic!("one row: {rows:?}") };
    assert_eq!((key.len(), &key[..4]), (20, &0u32.to_be_bytes()[..]), "the policy, then the hash");
    // The window of 1,000 s after the epoch is the first, which is number 1; two of three are used: one, and one ahead.
    let word: u64 = 1 << 2 | 2;
    assert_eq!(*value, framed(0xE6, key, &word.to_be_bytes()));
}

#[cfg(unix)]
#[test]
fn its_owner_alone_may_read_it_and_it_tells_no_key() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let store = home.open(vec![policy("w", window(3))], START);
    assert!(admits(&store, 0, &key("203.0.113.9"), 1, START));
    drop(store);
    let mode = fs::metadata(home.path()).expect("there is a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bytes = fs::read(home.path()).expect("it can be read");
    assert!(!bytes.windows(11).any(|window| window == b"203.0.113.9"));
}

#[test]
fn one_process_has_it_at_a_time() {
    let home = Home::new();
    let store = home.open(vec![policy("w", window(3))], START);
    let second = home.try_open(vec![policy("w", window(3))], options(), START);
    assert!(matches!(second, Err(RedbRateError::InUse { .. })), "{second:?}");
    assert!(matches!(RedbRateStore::recorded_epoch(&home.path()), Err(RedbRateError::InUse { .. })));
    run(store.close(START)).expect("it closes");
    home.open(vec![policy("w", window(3))], START);
    drop(store);
}

#[test]
fn what_is_not_such_a_file_is_refused_and_not_changed() {
    let policies = || vec![policy("w", window(3))];
    let home = Home::new();
    fs::write(home.path(), b"").expect("it is written");
    let empty = home.try_open(policies(), options(), START).expect_err("it is empty");
    assert!(matches!(empty, RedbRateError::Damaged { .. }), "{empty}");

    fs::write(home.path(), vec![7; 10_000]).expect("it is written");
    let garbage = home.try_open(policies(), options(), START).expect_err("it is garbage");
    assert!(matches!(garbage, RedbRateError::Damaged { .. }), "{garbage}");
    assert_eq!(fs::read(home.path()).expect("it is there"), vec![7; 10_000]);

    fs::remove_file(home.path()).expect("it is there");
    drop(redb::Database::create(home.path()).expect("a database"));
    let foreign = home.try_open(policies(), options(), START).expect_err("it has no tables");
    assert!(matches!(foreign, RedbRateError::Foreign { .. }), "{foreign}");

    let directory = home.directory.path().to_owned();
    let directory = RedbRateStore::open(&directory, policies(), options(), START).expect_err("no file");
    assert!(matches!(directory, RedbRateError::NoFile { .. }), "{directory}");
    let nowhere = home.directory.path().join("nowhere/rates.db");
    let nowhere = RedbRateStore::open(&nowhere, policies(), options(), START).expect_err("no directory");
    assert!(matches!(nowhere, RedbRateError::NoFile { .. }), "{nowhere}");
}

/// Changes a row of a file, as a newer program or a failing disk would.
fn changed(home: &Home, table: Rows, key: &[u8], value: &[u8]) {
    let db = redb::Database::open(home.path()).expect("a database");
    let write = db.begin_write().expect("it is written");
    write.open_table(table).expect("a table").insert(key, value).expect("it is written");
    write.commit().expect("it is written");
}

#[test]
fn a_newer_format_and_damaged_rows_are_refused_with_what_is_wrong() {
    let policies = || vec![policy("w", window(3))];
    let damage: [(Rows, Bytes, Vec<u8>); 5] = [
        (META, b"epoch", framed(0xE4, b"epoch", b"short")),
        (META, b"secret", framed(0xE4, b"secret", &[0; 15])),
        (POLICIES, &[0, 0, 0, 0], framed(0xE5, &[0, 0, 0, 0], b"\x02")),
        (RATES, &[0; 20], vec![0; 12]),
        // Of no policy that there is.
        (RATES, &[9; 20], framed(0xE6, &[9; 20], &[0; 8])),
    ];
    for (table, key, value) in damage {
        let home = Home::new();
        drop(home.open(policies(), START));
        changed(&home, table, key, &value);
        let error = home.try_open(policies(), options(), START).expect_err("a row is damaged");
        assert!(matches!(error, RedbRateError::Damaged { .. }), "{key:?}: {error}");
    }
    let home = Home::new();
    drop(home.open(policies(), START));
    changed(&home, META, b"format", &framed(0xE3, b"format", b"\0\0\0\x02rates.db"));
    let error = home.try_open(policies(), options(), START).expect_err("it is newer");
    assert!(matches!(error, RedbRateError::Format { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn nothing_of_a_store_shows_its_secret() {
    let home = Home::new();
    let store = home.open(vec![policy("w", window(3))], START);
    let grant = run(store.check(&[charge(0, &key("client"), 1)], START)).expect("it decides").1;
    let shown = format!("{store:?} {:?}", RateOptions::counting_from(EPOCH));
    assert!(grant.is_some() && !shown.to_lowercase().contains("secret"), "{shown}");
}
