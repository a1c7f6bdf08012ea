//! Segments of the write-ahead log, as they are or with right checksums: what a disk cannot make up, but another program may
//! have written.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use ledger_core::names::VaultId;
use ledger_core::ports::{
    LogChange, LogId, LogKind, LogRecord, LogSnapshot, LogStore, SignedMark, StoreError, StoredVote,
};
use storage_adapters::wal::{SEGMENT_BYTES_MIN, Upkeep, WalFile, WalFiles, WalLogStore, WalOptions};

const OPTIONS: WalOptions = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, upkeep: Upkeep::Inline };
const SEGMENTS_MAX: usize = 4;
const PAGE_BYTES: usize = 4_096;
/// Layout of a segment and of a frame, from `docs/formats.md`.
const HEADER_BYTES: usize = 64;
const HEAD_BYTES: usize = 40;
const FRAME_MAGIC: [u8; 4] = *b"SRWF";
const BATCH: u8 = 1;
const APPEND: u8 = 1;
/// Bytes of a record before its payload, and behind it.
const RECORD_HEAD_BYTES: usize = 30;
const SUM_BYTES: usize = 4;

/// Whether the checksums of an input are made right before it is read.
const AS_IT_IS: u8 = 0;
const WITH_RIGHT_SUMS: u8 = 1;

type Content = Arc<Mutex<Vec<u8>>>;

/// The log's directory in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Content>>>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics under this lock")
}

impl Memory {
    fn holding(segments: &[Vec<u8>]) -> Self {
        let named = segments.iter().enumerate();
        let files = named.map(|(number, content)| {
            (format!("{:020}.wal", number + 1), Arc::new(Mutex::new(content.clone())))
        });
        Self(Arc::new(Mutex::new(files.collect())))
    }

    fn image(&self) -> BTreeMap<String, Vec<u8>> {
        locked(&self.0).iter().map(|(name, content)| (name.clone(), locked(content).clone())).collect()
    }

    fn open(&self) -> Result<WalLogStore, StoreError> {
        let files: Arc<dyn WalFiles> = Arc::new(self.clone());
        WalLogStore::with_files(&files, OPTIONS)
    }
}

impl WalFiles for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(locked(&self.0).keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let content = Content::default();
        locked(&self.0).insert(name.to_owned(), content.clone());
        Ok(Arc::new(MemoryFile(content)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let content = locked(&self.0).get(name).cloned();
        Ok(Arc::new(MemoryFile(content.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = locked(&self.0);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        locked(&self.0).remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile(Content);

impl WalFile for MemoryFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = locked(&self.0);
        out.copy_from_slice(content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut content = locked(&self.0);
        let end = start + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A log of any segments opens, or is refused and not changed. One that opens says the same twice and after it was opened
/// again, and goes on. An input is whether its checksums are made right, and then the segments: length (u16) and bytes; the
/// zeros at the end of a segment are left out.
pub fn wal_segments(bytes: &[u8]) -> bool {
    let Some((sums, segments)) = bytes.split_first() else { return false };
    let segments = parse_segments(segments, *sums);
    let memory = Memory::holding(&segments);
    let before = memory.image();
    let Ok(log) = memory.open() else {
        assert_eq!(memory.image(), before, "what is refused is not changed");
        return false;
    };
    let found = content(&log);
    assert_eq!(found, content(&log), "read twice");
    drop(log);
    let log = memory.open().expect("what opened opens again");
    assert_eq!(content(&log), found, "opened again");
    let vote = StoredVote { term: 9, node: Some(3), committed: false };
    log.commit(&[LogChange::SaveVote(vote)]).expect("a log that opened takes a vote");
    drop(log);
    let log = memory.open().expect("what was written opens again");
    let (snapshot, records) = content(&log);
    assert_eq!(snapshot, LogSnapshot { vote: Some(vote), ..found.0 }, "with one vote more");
    assert_eq!(records, found.1, "the records are untouched");
    // An empty directory becomes a new log: that is no decoding.
    !segments.is_empty()
}

/// Vote, marks and bounds; and the records, `None` when one is damaged.
fn content(log: &WalLogStore) -> (LogSnapshot, Option<Vec<LogRecord>>) {
    let snapshot = log.snapshot().expect("it is in memory");
    (snapshot, log.read(0, u64::MAX, usize::MAX).ok())
}

fn parse_segments(mut bytes: &[u8], sums: u8) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>()
        && segments.len() < SEGMENTS_MAX
    {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let mut content = content.to_vec();
        content.resize(content.len().max(1).next_multiple_of(PAGE_BYTES), 0);
        if sums == WITH_RIGHT_SUMS {
            put_sums(&mut content, segments.len() as u64 + 1);
        }
        segments.push(content);
        bytes = rest;
    }
    segments
}

/// Makes every checksum right, of what can be recognised: header, frames, records.
fn put_sums(segment: &mut [u8], number: u64) {
    let length = (segment.len() as u64).to_be_bytes();
    segment[16..24].copy_from_slice(&number.to_be_bytes());
    segment[24..32].copy_from_slice(&length);
    let sum = crc32c::crc32c(&segment[..HEADER_BYTES - SUM_BYTES]);
    segment[HEADER_BYTES - SUM_BYTES..HEADER_BYTES].copy_from_slice(&sum.to_be_bytes());
    let seed = [&segment[32..48], &number.to_be_bytes()[..]].concat();
    let mut at = HEADER_BYTES;
    while at + HEAD_BYTES <= segment.len() && segment[at..].starts_with(&FRAME_MAGIC) {
        let length = u32_at(segment, at + 8);
        let end = at.saturating_add(HEAD_BYTES).saturating_add(length).min(segment.len());
        if segment[at + 5] == BATCH {
            put_record_sums(segment, at + HEAD_BYTES, end, &seed);
        }
        let sum = sum_at(&seed, at, &segment[at + HEAD_BYTES..end]);
        segment[at + 32..at + 36].copy_from_slice(&sum);
        let sum = sum_at(&seed, at, &segment[at..at + 36]);
        segment[at + 36..at + HEAD_BYTES].copy_from_slice(&sum);
        at = end;
    }
}

/// The records of a batch, as far as its changes can be told apart.
fn put_record_sums(segment: &mut [u8], mut at: usize, end: usize, seed: &[u8]) {
    while at < end {
        let bytes = match segment[at] {
            APPEND if at + RECORD_HEAD_BYTES <= end => {
                let payload = u32_at(segment, at + RECORD_HEAD_BYTES - 4);
                let sum_from = at.saturating_add(RECORD_HEAD_BYTES).saturating_add(payload);
                if sum_from.saturating_add(SUM_BYTES) > end {
                    return;
                }
                let sum = sum_at(seed, at, &segment[at..sum_from]);
                segment[sum_from..sum_from + SUM_BYTES].copy_from_slice(&sum);
                sum_from + SUM_BYTES - at
            }
            2 => 1 + 18,
            3 => 1 + 9,
            4 | 5 => 1 + 24,
            6 => 1 + 56,
            _ => return,
        };
        at += bytes;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let number = bytes[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn sum_at(seed: &[u8], at: usize, bytes: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c_append(crc32c::crc32c(seed), &(at as u64).to_be_bytes());
    crc32c::crc32c_append(sum, bytes).to_be_bytes()
}

fn append(index: u64, kind: LogKind, payload: &[u8]) -> LogChange {
    let id = LogId { term: 2, node: 1, index };
    LogChange::Append(LogRecord { id, kind, payload: Bytes::copy_from_slice(payload) })
}

/// A short life: every kind of change, in one segment.
fn every_change(log: &WalLogStore) {
    let mark = SignedMark { vault: VaultId([4; 16]), size: 9, root: [6; 32] };
    let id = |index| LogId { term: 2, node: 1, index };
    let batches = [
        vec![LogChange::SaveVote(StoredVote { term: 2, node: Some(1), committed: true })],
        vec![append(1, LogKind::Membership, b"members"), append(2, LogKind::Blank, b"")],
        vec![append(3, LogKind::Proposal, b"a proposal"), LogChange::SaveCommitted(id(2))],
        vec![LogChange::SaveSigned(mark), LogChange::TruncateAfter(Some(2))],
        vec![append(3, LogKind::Proposal, b"another"), LogChange::PurgeThrough(id(1))],
    ];
    batches.iter().for_each(|batch| log.commit(batch).expect("the batch is valid"));
}

/// The log of a life, with a tag that is the same every time.
fn written(life: fn(&WalLogStore)) -> Vec<Vec<u8>> {
    let memory = Memory::default();
    let log = memory.open().expect("a new log");
    life(&log);
    drop(log);
    let mut segments: Vec<Vec<u8>> = memory.image().into_values().collect();
    for (number, segment) in segments.iter_mut().enumerate() {
        segment[32..48].fill(7);
        put_sums(segment, number as u64 + 1);
    }
    segments
}

pub fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let several = |log: &WalLogStore| {
        every_change(log);
        for index in 4..12 {
            log.commit(&[append(index, LogKind::Proposal, &[b'p'; 900])]).expect("the batch is valid");
        }
    };
    let new = written(|_| {});
    let changes = written(every_change);
    // A frame that the power cut took in the middle: its seal is gone with its end.
    let mut torn = changes.clone();
    let end = torn[0].iter().rposition(|byte| *byte != 0).expect("it has frames") + 1;
    torn[0].truncate(end - HEAD_BYTES - 8);
    let lives = [("new", new), ("every-change", changes), ("torn", torn), ("several", written(several))];
    let mut seeds = Vec::new();
    for (name, segments) in lives {
        for (sums, suffix) in [(AS_IT_IS, ""), (WITH_RIGHT_SUMS, "-right-sums")] {
            seeds.push(("wal_segments", format!("{name}{suffix}"), input(sums, &segments)));
        }
    }
    seeds
}

fn input(sums: u8, segments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![sums];
    for segment in segments {
        let length = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.extend_from_slice(&u16::try_from(length).expect("small segments").to_be_bytes());
        bytes.extend_from_slice(&segment[..length]);
    }
    bytes
}
