//! Large contents in real files.

use bytes::Bytes;
use ledger_core::ports::{AppliedState, LogId, RowChange, ScanRange, StateStore, Table};
use storage_adapters::redb::RedbStateStore;

use super::crash::OPTIONS;

const ROWS: u64 = 100_000;
const VALUE_BYTES: usize = 200;

fn applied(index: u64) -> AppliedState {
    AppliedState { last_applied: LogId { term: 1, node: 0, index }, membership: Bytes::new() }
}

fn row(table: Table, number: u64, fill: u8) -> RowChange {
    let key = [1_u64.to_be_bytes(), number.to_be_bytes()].concat();
    RowChange { table, key, value: Some(Bytes::from(vec![fill; VALUE_BYTES])) }
}

fn install(store: &RedbStateStore, fill: u8) {
    let mut install = store.begin_install().expect("nothing else is installed");
    for table in [Table::Entities, Table::Blocks] {
        for first in (0..ROWS).step_by(1_000) {
            let rows: Vec<_> = (first..first + 1_000).map(|number| row(table, number, fill)).collect();
            install.put(&rows).expect("there is room");
        }
    }
    install.seal(&applied(u64::from(fill))).expect("there is room");
    install.publish().expect("there is room");
}

#[test]
fn a_hundred_thousand_rows_are_installed_while_readers_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = RedbStateStore::open(dir.path(), OPTIONS).expect("the store opens");
    install(&store, 1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut scans = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let view = store.view().expect("a store has a view");
                let mark = view.applied().map_or(0, |applied| applied.last_applied.index);
                let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
                let (mut rows, mut foreign) = (0, 0);
                view.scan(Table::Entities, &everything, &mut |_, value| {
                    rows += 1;
                    foreign += u64::from(value.first().map(|fill| u64::from(*fill)) != Some(mark));
                    true
                })
                .expect("a view can be scanned");
                assert_eq!((rows, foreign), (ROWS, 0), "one content, whole");
                let key = row(Table::Blocks, 77, 0).key;
                let block = store.get(Table::Blocks, &key).expect("a store can be read");
                assert!(
                    block.is_some_and(|block| block.len() == VALUE_BYTES),
                    "a row is there at every moment"
                );
                scans += 1;
            }
            scans
        });
        install(&store, 2);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(reader.join().expect("the reader met one content at a time") > 0, "the reader read");
    });
    drop(store);
    let store = RedbStateStore::open(dir.path(), OPTIONS).expect("the store opens");
    assert_eq!(store.applied().expect("it can be read"), Some(applied(2)));
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("install"))
        .collect();
    assert!(left.is_empty(), "nothing is left over: {left:?}");
}
