//! Rows of the database files, with right checksums: what a disk cannot make up, but another program may have written.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use ledger_core::ports::{LogStore as _, StateStore as _};
use redb::{Database, StorageBackend, TableDefinition};
use storage_adapters::redb::{OpenCheck, RedbLogStore, RedbOptions, RedbStateStore};

const META: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("meta");
const SIGNED: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("signed");
const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const CACHE_BYTES: usize = 1 << 20;

/// Which row the first byte of an input chooses: the table's number in checksums, and the key.
const META_ROWS: [(u8, &[u8]); 7] = [
    (0xE0, b"vote"),
    (0xE0, b"committed"),
    (0xE0, b"purged"),
    (0xE0, b"bounds"),
    (0xE2, b"applied"),
    (0xE2, b"dropping"),
    (0xE3, b"format"),
];
const SIGNED_ROW: u8 = 7;
const RECORD_ROW: u8 = 8;

/// A file in memory that can be looked at after it was closed.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn holding(content: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(content.to_vec())))
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics under this lock")
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.content().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = self.content();
        out.copy_from_slice(content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.content().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut content = self.content();
        let room = content.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        room.copy_from_slice(data);
        Ok(())
    }
}

fn options() -> RedbOptions {
    RedbOptions {
        log_cache_bytes: CACHE_BYTES,
        state_cache_bytes: CACHE_BYTES,
        blocks_cache_bytes: CACHE_BYTES,
        check: OpenCheck::default(),
        ..RedbOptions::default()
    }
}

/// New files as this program makes them.
fn new_files() -> &'static [Vec<u8>; 3] {
    static FILES: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    FILES.get_or_init(|| {
        let (raft, state, blocks) = (Memory::default(), Memory::default(), Memory::default());
        drop(RedbLogStore::with_backend(raft.clone(), options()).expect("a new log"));
        drop(RedbStateStore::with_backends(state.clone(), blocks.clone(), options()).expect("a new state"));
        [raft.content().clone(), state.content().clone(), blocks.content().clone()]
    })
}

/// The layout of a framed row, from `docs/formats.md`.
fn framed(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let sum = crc32c::crc32c(&[table]);
    let sum = crc32c::crc32c_append(sum, &(key.len() as u64).to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, key), value);
    [&sum.to_be_bytes()[..], value].concat()
}

/// A file with one more row.
fn with_row(file: &[u8], write: impl FnOnce(&redb::WriteTransaction)) -> Memory {
    let memory = Memory::holding(file);
    let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(memory.clone());
    let database: Database = database.expect("a sound file opens");
    let transaction = database.begin_write().expect("it can be written");
    write(&transaction);
    transaction.commit().expect("it can be written");
    drop(database);
    memory
}

/// Any value in any row of ours opens or is refused; a log that opens can be read twice with one answer.
pub fn redb_rows(bytes: &[u8]) -> bool {
    let Some((row, value)) = bytes.split_first() else { return false };
    let [raft, state, blocks] = new_files();
    match *row % 9 {
        RECORD_ROW => {
            let index = 0_u64;
            let sum = crc32c::crc32c_append(crc32c::crc32c(&index.to_be_bytes()), value);
            let record = [value, &sum.to_be_bytes()].concat();
            let bounds = [0_u64, 1, 0, 0].map(u64::to_be_bytes).concat();
            log_opens(with_row(raft, |write| {
                let mut log = write.open_table(LOG).expect("the table is there");
                log.insert(index, record.as_slice()).expect("it can be written");
                let mut meta = write.open_table(META).expect("the table is there");
                let bounds = framed(0xE0, b"bounds", &bounds);
                meta.insert(&b"bounds"[..], bounds.as_slice()).expect("it can be written");
            }))
        }
        SIGNED_ROW => {
            let (key, value) = value.split_at(value.len().min(16));
            let stored = framed(0xE1, key, value);
            log_opens(with_row(raft, |write| {
                let mut signed = write.open_table(SIGNED).expect("the table is there");
                signed.insert(key, stored.as_slice()).expect("it can be written");
            }))
        }
        row => {
            let (table, key) = META_ROWS[usize::from(row)];
            let stored = framed(table, key, value);
            let put = |write: &redb::WriteTransaction| {
                let mut meta = write.open_table(META).expect("the table is there");
                meta.insert(key, stored.as_slice()).expect("it can be written");
            };
            if table == 0xE2 {
                state_opens(with_row(state, put), blocks)
            } else {
                log_opens(with_row(raft, put))
            }
        }
    }
}

fn log_opens(raft: Memory) -> bool {
    let Ok(log) = RedbLogStore::with_backend(raft, options()) else { return false };
    let read = || Some((log.snapshot().ok()?, log.read(0, u64::MAX, usize::MAX).ok()?));
    let first = read();
    assert_eq!(first, read());
    first.is_some()
}

fn state_opens(state: Memory, blocks: &[u8]) -> bool {
    let Ok(store) = RedbStateStore::with_backends(state, Memory::holding(blocks), options()) else {
        return false;
    };
    let applied = store.applied().expect("it was read when the store opened");
    assert_eq!(applied, store.applied().expect("it can be read again"));
    true
}

pub fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let vote = [numbers(&[3]), vec![1], numbers(&[7])].concat();
    let record = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&[1, kind][..], &numbers(&[1, 0]), &[5; 16], &length, payload].concat()
    };
    let format = [&2_u32.to_be_bytes()[..], b"raft.db"].concat();
    let rows: [(&str, u8, Vec<u8>); 11] = [
        ("vote", 0, vote),
        ("vote-for-nobody", 0, [numbers(&[3]), vec![0]].concat()),
        ("committed", 1, numbers(&[1, 0, 5])),
        ("purged", 2, numbers(&[1, 0, 5])),
        ("bounds", 3, numbers(&[0, 1, 0, 0])),
        ("applied", 4, [numbers(&[1, 0, 5]), b"members".to_vec()].concat()),
        ("dropping", 5, [numbers(&[1, 3, 0]), numbers(&[0])].concat()),
        ("format", 6, format),
        ("signed", SIGNED_ROW, [vec![4; 16], numbers(&[9]), vec![6; 32]].concat()),
        ("record-blank", RECORD_ROW, record(0, b"")),
        ("record-proposal", RECORD_ROW, record(1, b"a proposal")),
    ];
    rows.into_iter()
        .map(|(name, row, value)| ("redb_rows", name.to_owned(), [vec![row], value].concat()))
        .collect()
}
