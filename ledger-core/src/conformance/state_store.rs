//! The guarantees of [`StateStore`].
#![expect(clippy::expect_used, reason = "a suite fails by panicking")]

use bytes::Bytes;

use crate::ports::{
    AppliedState, LogId, RowChange, ScanRange, StateBatch, StateStore, StateView, StoreError, Table,
};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn applied(index: u64) -> AppliedState {
    let membership = Bytes::from(format!("membership at {index}"));
    AppliedState { last_applied: LogId { term: 1, node: 7, index }, membership }
}

/// A batch whose rows are put in order.
fn batch(index: u64, mut rows: Vec<RowChange>) -> StateBatch {
    rows.sort_by(|left, right| (left.table, &left.key).cmp(&(right.table, &right.key)));
    StateBatch { dropped_vaults: Vec::new(), rows, applied: applied(index) }
}

fn put(table: Table, key: &[u8], value: &str) -> RowChange {
    RowChange { table, key: key.to_vec(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn delete(table: Table, key: &[u8]) -> RowChange {
    RowChange { table, key: key.to_vec(), value: None }
}

fn commit(store: &impl StateStore, batch: &StateBatch) {
    store.commit(batch).expect("the batch is valid");
}

fn get(store: &impl StateStore, table: Table, key: &[u8]) -> Option<Bytes> {
    store.get(table, key).expect("a sound store can be read")
}

fn scan(store: &impl StateStore, table: Table, prefix: &[u8], start: &[u8]) -> Rows {
    let mut rows = Vec::new();
    let range = ScanRange { prefix: prefix.to_vec(), start: start.to_vec() };
    let mut collect = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    };
    store.scan(table, &range, &mut collect).expect("a sound store can be scanned");
    rows
}

fn keys(rows: Rows) -> Vec<Vec<u8>> {
    rows.into_iter().map(|(key, _)| key).collect()
}

fn everything(store: &impl StateStore) -> Vec<(Table, Rows)> {
    Table::ALL.into_iter().map(|table| (table, scan(store, table, &[], &[]))).collect()
}

fn how_far(store: &impl StateStore) -> Option<AppliedState> {
    store.applied().expect("a sound store says how far it goes")
}

/// The key of `name` in a vault.
fn vault_key(vault: u64, name: &[u8]) -> Vec<u8> {
    [&vault.to_be_bytes()[..], name].concat()
}

/// One row of every table, of one vault where the table is per vault.
fn row_of_every_table(vault: u64, value: &str) -> Vec<RowChange> {
    Table::ALL.into_iter().map(|table| put(table, &vault_key(vault, b"name"), value)).collect()
}

/// **G1 atomic**: a batch applies in every table and moves `applied`; one that fails does neither.
pub fn g1_atomic<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    commit(&store, &batch(1, row_of_every_table(1, "first")));
    let (rows, far) = (everything(&store), how_far(&store));
    assert!(rows.iter().all(|(_, rows)| rows.len() == 1), "a batch applies in every table");
    assert_eq!(far, Some(applied(1)), "a batch moves the applied mark");

    let mut faulty = batch(2, row_of_every_table(2, "second"));
    faulty.dropped_vaults.push(1);
    faulty.rows.push(put(Table::Ledger, b"out of order", "x"));
    assert!(store.commit(&faulty).is_err(), "a batch out of order is refused");
    assert_eq!(everything(&store), rows, "a failed batch changes no row");
    assert_eq!(how_far(&store), far, "a failed batch does not move the applied mark");
    drop(store);

    let store = open();
    assert_eq!(everything(&store), rows, "a failed batch leaves no row behind on the disk");
    assert_eq!(how_far(&store), far, "a failed batch leaves the applied mark on the disk");
}

/// **G2 durable**: all that was committed is there when the store is opened again, batch after batch.
pub fn g2_durable<S: StateStore>(open: impl Fn() -> S) {
    let mut dropping = batch(4, vec![put(Table::Blocks, &vault_key(3, b"b"), "kept")]);
    dropping.dropped_vaults = vec![1];
    let batches = [
        batch(1, row_of_every_table(1, "first")),
        batch(2, row_of_every_table(2, "second")),
        batch(3, vec![delete(Table::Entities, &vault_key(2, b"name"))]),
        dropping,
        batch(5, vec![delete(Table::Undo, &vault_key(2, b"name"))]),
        batch(6, Vec::new()),
    ];
    for (batch, index) in batches.iter().zip(1..) {
        let store = open();
        commit(&store, batch);
        let rows = everything(&store);
        drop(store);
        let store = open();
        assert_eq!(everything(&store), rows, "rows survive a restart");
        assert_eq!(how_far(&store), Some(applied(index)), "the applied mark survives a restart");
    }
    let store = open();
    assert_eq!(get(&store, Table::Tiles, &vault_key(2, b"name")).as_deref(), Some(&b"second"[..]));
    assert_eq!(get(&store, Table::Entities, &vault_key(2, b"name")), None, "the deletion stands");
    assert_eq!(get(&store, Table::Blocks, &vault_key(3, b"b")).as_deref(), Some(&b"kept"[..]));
    assert_eq!(get(&store, Table::Blocks, &vault_key(1, b"name")), None, "the drop stands");
    let deleted = get(&store, Table::Undo, &vault_key(2, b"name"));
    assert_eq!(deleted, None, "the deletion in an append-only table stands");
}

/// **G3 visible**: what `commit` returned for is seen at once, by every thread.
#[expect(clippy::disallowed_methods, reason = "visibility across threads needs a second thread")]
pub fn g3_visible<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    assert_eq!(how_far(&store), None, "a new store goes nowhere");
    assert!(everything(&store).iter().all(|(_, rows)| rows.is_empty()), "a new store holds nothing");
    let key = vault_key(1, b"name");
    for index in 1..=20 {
        let value = format!("value {index}");
        commit(
            &store,
            &batch(index, vec![put(Table::Blocks, &key, &value), put(Table::Entities, &key, &value)]),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for table in [Table::Blocks, Table::Entities] {
                    assert_eq!(
                        get(&store, table, &key).as_deref(),
                        Some(value.as_bytes()),
                        "the row is seen"
                    );
                    let scanned = scan(&store, table, &[], &[]);
                    assert_eq!(scanned, [(key.clone(), value.clone().into_bytes())], "a scan sees it");
                }
                assert_eq!(how_far(&store), Some(applied(index)), "the applied mark is seen");
            });
        });
    }
    let both = [Table::Entities, Table::Blocks];
    commit(&store, &batch(21, both.map(|table| delete(table, &key)).to_vec()));
    for table in both {
        assert_eq!(get(&store, table, &key), None, "a deletion is seen");
        assert!(scan(&store, table, &[], &[]).is_empty(), "a scan sees a deletion");
    }
}

/// **G4 ordered**: a scan visits exactly the keys of its range, ascending, and stops when told.
pub fn g4_ordered<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    let names: [&[u8]; 9] = [&[], &[0], &[0, 0], &[0, 1], &[1], &[1, 0xFF], &[0x7F], &[0xFF], &[0xFF, 0xFF]];
    let mut all = Vec::new();
    for vault in [0, 1, 0xFF, 0x100, u64::MAX] {
        all.extend(names.map(|name| vault_key(vault, name)));
    }
    for table in [Table::Relationships, Table::Tiles] {
        // Written one by one, last first: the order is the store's, not the batch's.
        for key in all.iter().rev() {
            commit(&store, &batch(1, vec![put(table, key, "v")]));
        }
        let mut ascending = all.clone();
        ascending.sort();
        assert_eq!(keys(scan(&store, table, &[], &[])), ascending, "every key once, in byte order");
        for vault in [0, 1, 0xFF, 0x100, u64::MAX, 2] {
            let prefix = vault.to_be_bytes();
            let of = |start: &[u8]| -> Vec<Vec<u8>> {
                let in_range = |key: &&Vec<u8>| key.starts_with(&prefix) && key.as_slice() >= start;
                ascending.iter().filter(in_range).cloned().collect()
            };
            let start = vault_key(vault, &[1]);
            let beyond = vault_key(vault, &[0xFF, 0xFF, 0xFF]);
            assert_eq!(keys(scan(&store, table, &prefix, &[])), of(&[]), "exactly the keys of the prefix");
            assert_eq!(keys(scan(&store, table, &prefix, &start)), of(&start), "from the start on");
            assert_eq!(keys(scan(&store, table, &prefix, &[0])), of(&[0]), "a start before the prefix");
            assert!(scan(&store, table, &prefix, &beyond).is_empty(), "a start behind the prefix");
        }
        let mut visited = Vec::new();
        let range = ScanRange { prefix: Vec::new(), start: Vec::new() };
        let mut two = |key: &[u8], _: &[u8]| {
            visited.push(key.to_vec());
            visited.len() < 2
        };
        store.scan(table, &range, &mut two).expect("a sound store can be scanned");
        assert_eq!(visited.as_slice(), ascending.get(..2).unwrap_or_default(), "it stops when told");
    }
    assert!(scan(&store, Table::Entities, &[], &[]).is_empty(), "tables do not mix");
}

/// **G5 faithful**: keys and values of every shape come back byte for byte, before and after a restart.
pub fn g5_faithful<S: StateStore>(open: impl Fn() -> S) {
    const LARGE_BYTES: usize = 5 << 20;
    let every_byte = (0..=u8::MAX).collect::<Vec<_>>();
    let large = every_byte.iter().copied().cycle().take(LARGE_BYTES).collect::<Vec<_>>();
    let rows: Rows = vec![
        (Vec::new(), b"the empty key".to_vec()),
        (vec![0], Vec::new()),
        (vec![0, 0], vec![0]),
        (every_byte.clone(), every_byte.clone()),
        (vec![1; 4096], vec![0xFF; 4096]),
        (vec![2], large),
    ];
    let mut ascending = rows.clone();
    ascending.sort();
    let tables = [Table::Ledger, Table::Expiries, Table::Blocks];
    let changes = tables.iter().flat_map(|table| {
        rows.iter().map(|(key, value)| RowChange {
            table: *table,
            key: key.clone(),
            value: Some(Bytes::from(value.clone())),
        })
    });
    let store = open();
    commit(&store, &batch(1, changes.collect()));
    let faithful = |store: &S| {
        for table in tables {
            for (key, value) in &rows {
                assert_eq!(get(store, table, key).as_deref(), Some(value.as_slice()), "as it was written");
            }
            assert_eq!(scan(store, table, &[], &[]), ascending, "a scan returns what was written");
        }
        assert_eq!(get(store, Table::Ledger, &[9]), None, "a key that was never written has no row");
    };
    faithful(&store);
    drop(store);
    let store = open();
    faithful(&store);
    let membership = Bytes::from(every_byte);
    let applied =
        AppliedState { last_applied: LogId { term: u64::MAX, node: 0, index: u64::MAX }, membership };
    commit(&store, &StateBatch { applied: applied.clone(), ..batch(2, Vec::new()) });
    assert_eq!(how_far(&store), Some(applied), "the applied mark comes back as it was written");
}

/// **G6 drop first**: exactly the rows of the dropped vaults go, from per-vault tables only, and rows of
/// the same batch are written afterwards.
pub fn g6_drop_first<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    for vault in [0, 1, 2, 0x100, u64::MAX] {
        commit(&store, &batch(1, row_of_every_table(vault, "old")));
    }
    let born = [Table::Entities, Table::Blocks].map(|table| put(table, &vault_key(1, b"new"), "new"));
    let mut dropping = batch(2, born.to_vec());
    dropping.dropped_vaults = vec![1, u64::MAX, 77];
    commit(&store, &dropping);

    let expected = |table: Table| {
        let mut keys = [0, 1, 2, 0x100, u64::MAX].map(|vault| vault_key(vault, b"name")).to_vec();
        if table.is_per_vault() {
            keys.retain(|key| *key != vault_key(1, b"name") && *key != vault_key(u64::MAX, b"name"));
        }
        if [Table::Entities, Table::Blocks].contains(&table) {
            keys.push(vault_key(1, b"new"));
        }
        keys.sort();
        keys
    };
    let exact = |store: &S| {
        for table in Table::ALL {
            assert_eq!(
                keys(scan(store, table, &[], &[])),
                expected(table),
                "{} keeps the rest",
                table.name()
            );
        }
    };
    exact(&store);
    drop(store);
    let store = open();
    exact(&store);
    commit(&store, &batch(3, vec![put(Table::Tiles, &vault_key(1, b"later"), "kept")]));
    drop(store);
    let kept = get(&open(), Table::Tiles, &vault_key(1, b"later"));
    assert_eq!(kept.as_deref(), Some(&b"kept"[..]), "a drop removes nothing that is written later");
}

/// **G7 fail-stop**: after an error of `commit` the store takes nothing more, and reads go on.
pub fn g7_fail_stop<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    let key = vault_key(1, b"name");
    commit(&store, &batch(1, vec![put(Table::Entities, &key, "first")]));
    let twice = [put(Table::Entities, &key, "second"), put(Table::Entities, &key, "third")];
    assert!(store.commit(&batch(2, twice.to_vec())).is_err(), "a key that stands twice is refused");
    for _ in 0..2 {
        let refused = store.commit(&batch(2, vec![put(Table::Entities, &key, "second")]));
        assert!(matches!(refused, Err(StoreError::Poisoned)), "after an error nothing is taken: {refused:?}");
    }
    assert_eq!(get(&store, Table::Entities, &key).as_deref(), Some(&b"first"[..]), "reads go on");
    assert_eq!(how_far(&store), Some(applied(1)), "nothing was taken");
    drop(store);

    let store = open();
    commit(&store, &batch(2, vec![put(Table::Entities, &key, "second")]));
    assert_eq!(
        get(&store, Table::Entities, &key).as_deref(),
        Some(&b"second"[..]),
        "opened again, it goes on"
    );
}

fn everything_in(view: &dyn StateView) -> Vec<(Table, Rows)> {
    let rows_of = |table: Table| {
        let mut rows = Vec::new();
        let range = ScanRange { prefix: Vec::new(), start: Vec::new() };
        let mut collect = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        };
        view.scan(table, &range, &mut collect).expect("a view can be scanned");
        for (key, value) in &rows {
            let found = view.get(table, key).expect("a view can be read");
            assert_eq!(found.as_deref(), Some(value.as_slice()), "a view reads what it scans");
        }
        (table, rows)
    };
    Table::ALL.into_iter().map(rows_of).collect()
}

/// **G8 consistent view**: a view shows all tables and the applied mark of one moment, while batches that
/// change, delete, drop and fail are committed beside it, and on another thread too.
#[expect(clippy::disallowed_methods, reason = "a view is read on a thread of its own")]
pub fn g8_consistent_view<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    let empty = store.view().expect("an empty store has a view");
    commit(&store, &batch(1, row_of_every_table(1, "first")));
    let first = store.view().expect("a store has a view");
    let first_rows = everything(&store);
    commit(&store, &batch(2, row_of_every_table(2, "second")));
    commit(&store, &batch(3, row_of_every_table(2, "second again")));
    commit(&store, &batch(4, vec![delete(Table::Entities, &vault_key(2, b"name"))]));
    let fourth = store.view().expect("a store has a view");
    let fourth_rows = everything(&store);
    let mut dropping = batch(5, vec![put(Table::Blocks, &vault_key(3, b"b"), "later")]);
    dropping.dropped_vaults = vec![1, 2];
    commit(&store, &dropping);
    let twice = [put(Table::Entities, b"same", "1"), put(Table::Entities, b"same", "2")];
    assert!(store.commit(&batch(6, twice.to_vec())).is_err(), "a key that stands twice is refused");

    assert!(empty.applied().is_none(), "the view of an empty store goes nowhere");
    assert!(everything_in(empty.as_ref()).iter().all(|(_, rows)| rows.is_empty()), "and holds nothing");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(first.applied(), Some(&applied(1)), "the mark of its moment");
            assert_eq!(everything_in(first.as_ref()), first_rows, "the rows of its moment");
            drop(first);
        });
    });
    assert_eq!(fourth.applied(), Some(&applied(4)), "each view has its own moment");
    assert_eq!(everything_in(fourth.as_ref()), fourth_rows, "each view has its own rows");
    let prefix = ScanRange { prefix: vault_key(2, b""), start: vault_key(2, b"name") };
    let mut visited = 0;
    let mut one = |_: &[u8], _: &[u8]| {
        visited += 1;
        false
    };
    fourth.scan(Table::Tiles, &prefix, &mut one).expect("a view can be scanned");
    assert_eq!(visited, 1, "a view scans a range, and stops when told");
    let beyond = ScanRange { prefix: vault_key(9, b""), start: Vec::new() };
    let mut visited = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        visited += 1;
        true
    };
    fourth.scan(Table::Tiles, &beyond, &mut count).expect("a view can be scanned");
    assert_eq!(visited, 0, "no row has this prefix");
}

/// Installs rows as the new content, a few at a time.
fn replace(store: &impl StateStore, rows: &[RowChange], index: u64) {
    let mut install = store.begin_install().expect("nothing else is installed");
    for part in rows.chunks(5) {
        install.put(part).expect("the rows ascend");
    }
    install.seal(&applied(index)).expect("a sound store can be written");
    install.publish().expect("a sound store can be written");
}

/// The new content of the tests: in every table a row that the old one has with another value, and one that it has
/// not; what else the old one has is not in it.
fn new_content() -> Vec<RowChange> {
    let mut rows = row_of_every_table(2, "new");
    rows.extend(row_of_every_table(5, "new"));
    batch(9, rows).rows
}

fn as_rows(changes: &[RowChange]) -> Vec<(Table, Rows)> {
    let of = |table| {
        let of_table = changes.iter().filter(|row| row.table == table);
        (
            table,
            of_table.map(|row| (row.key.clone(), row.value.clone().unwrap_or_default().to_vec())).collect(),
        )
    };
    Table::ALL.into_iter().map(of).collect()
}

/// **G9 installed whole**: new content takes the place of all that was there, at once and for good; what is not
/// published leaves nothing; readers and commits beside it meet one content or the other.
pub fn g9_installed_whole<S: StateStore>(open: impl Fn() -> S) {
    let store = open();
    for vault in [1, 2, 3] {
        commit(&store, &batch(vault, row_of_every_table(vault, "old")));
    }
    let (old, new) = (everything(&store), new_content());
    refuses_what_is_out_of_turn(&store);
    assert_eq!(everything(&store), old, "what was refused or dropped leaves nothing");

    let mut install = store.begin_install().expect("nothing else is installed");
    install.put(&new).expect("the rows ascend");
    commit(&store, &batch(4, vec![put(Table::Entities, &vault_key(1, b"beside"), "it")]));
    install.seal(&applied(9)).expect("a sound store can be written");
    let sealed = install.view().expect("what is sealed can be read");
    assert_eq!(everything_in(sealed.as_ref()), as_rows(&new), "what is sealed is what was given");
    assert_eq!(sealed.applied(), Some(&applied(9)), "with its mark");
    drop(sealed);
    assert_eq!(how_far(&store), Some(applied(4)), "commits go on until it is published");
    let before = store.view().expect("a store has a view");
    let rows_before = everything(&store);
    install.publish().expect("a sound store can be written");
    assert_eq!(everything(&store), as_rows(&new), "exactly what was given is there");
    assert_eq!(how_far(&store), Some(applied(9)), "with its mark");
    assert_eq!(everything_in(before.as_ref()), rows_before, "a view shows what it was taken of");
    assert_eq!(before.applied(), Some(&applied(4)), "with the mark of its moment");
    drop(before);
    commit(&store, &batch(10, vec![put(Table::Blocks, &vault_key(7, b"after"), "it")]));
    let after = everything(&store);
    drop(store);
    let store = open();
    assert_eq!(everything(&store), after, "it survives a restart, with what was committed since");
    assert_eq!(how_far(&store), Some(applied(10)), "so does the mark");

    replace(&store, &[], 11);
    assert!(everything(&store).iter().all(|(_, rows)| rows.is_empty()), "an empty content is one too");
    reads_meet_one_content(&store);
    let rows = everything(&store);
    drop(store);
    assert_eq!(everything(&open()), rows, "the last install survives");
}

fn refuses_what_is_out_of_turn(store: &impl StateStore) {
    let new = new_content();
    let mut install = store.begin_install().expect("nothing else is installed");
    assert!(store.begin_install().is_err(), "one install at a time");
    assert!(install.view().is_err(), "nothing is shown before it is sealed");
    install.put(&new).expect("the rows ascend");
    assert!(install.put(new.get(..1).unwrap_or_default()).is_err(), "rows ascend over all calls");
    drop(install);
    let install = store.begin_install().expect("the one before is gone");
    assert!(install.publish().is_err(), "nothing is published before it is sealed");
    let mut install = store.begin_install().expect("the one before is gone");
    let deletion = [delete(Table::Entities, b"x")];
    assert!(install.put(&deletion).is_err(), "new content has nothing to delete");
    drop(install);
    let mut install = store.begin_install().expect("the one before is gone");
    install.put(&new).expect("the rows ascend");
    install.seal(&applied(9)).expect("a sound store can be written");
    assert!(install.put(&[put(Table::Fenced, &[0xFF; 40], "late")]).is_err(), "nothing comes after the seal");
    drop(install);
}

/// Reads on another thread, while contents are exchanged, see rows of one content only.
#[expect(clippy::disallowed_methods, reason = "readers are threads of their own")]
fn reads_meet_one_content(store: &impl StateStore) {
    const ROUNDS: u64 = 8;
    let rows = |round: u64| {
        let name = |number: u64| put(Table::Entities, &vault_key(number, b"r"), &round.to_string());
        let block = |number: u64| put(Table::Blocks, &vault_key(number, b"r"), &round.to_string());
        let mut rows: Vec<RowChange> = (0..50).map(name).collect();
        rows.extend((0..50).map(block));
        rows
    };
    replace(store, &rows(0), 20);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0_u64;
            while !done.load(std::sync::atomic::Ordering::SeqCst) || seen == 0 {
                for table in [Table::Entities, Table::Blocks] {
                    let found = scan(store, table, &[], &[]);
                    let first = found.first().map(|(_, value)| value.clone());
                    let same = found.iter().all(|(_, value)| Some(value) == first.as_ref());
                    assert!(same && found.len() == 50, "a scan sees one content");
                }
                let view = store.view().expect("a store has a view");
                let mark = view.applied().map_or(0, |applied| applied.last_applied.index);
                for (_, found) in everything_in(view.as_ref()) {
                    let of_the_mark =
                        found.iter().all(|(_, value)| *value == (mark - 20).to_string().into_bytes());
                    assert!(of_the_mark, "a view has the rows of its mark");
                }
                seen += 1;
            }
        });
        for round in 1..=ROUNDS {
            replace(store, &rows(round), 20 + round);
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().expect("the reader met one content at a time");
    });
}
