//! Segment files: their names, their header, and how one is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ledger_core::ports::StoreError;

use super::failure::{WalError, corrupt};
use super::files::{WalFile, WalFiles};
use super::frame::{Fields, LogTag, Place};

/// Bytes of a segment before its first frame.
pub(super) const HEADER_BYTES: usize = 64;

/// Version of the segments' layout.
const SEGMENT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"SRWALSEG";
const SUMMED_BYTES: usize = HEADER_BYTES - 4;
/// Bytes that one write fills with zeros.
const FILL_BYTES: usize = 1 << 20;
const PAGE_BYTES: u64 = 4096;
const SUFFIX: &str = ".wal";
/// A segment that is being made.
const NEW_SUFFIX: &str = ".new";

/// What a log counts, over all its files.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) syncs: AtomicU64,
    pub(super) upkeep_syncs: AtomicU64,
    pub(super) batch_writes: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) rotations: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A segment file that is there under its own name.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) size: u64,
    pub(super) file: Arc<dyn WalFile>,
}

impl Segment {
    pub(super) fn place(&self, tag: LogTag, offset: u64) -> Place {
        Place { tag, segment: self.number, offset }
    }

    pub(super) fn name(&self) -> String {
        name(self.number)
    }

    pub(super) fn write(&self, counters: &Counters, offset: u64, bytes: &[u8]) -> Result<(), WalError> {
        Counters::add(&counters.bytes_written, bytes.len() as u64);
        self.file.write_at(offset, bytes).map_err(WalError::io("write", &self.name()))
    }

    /// Syncs on the path of a commit.
    pub(super) fn sync(&self, counters: &Counters) -> Result<(), WalError> {
        Counters::add(&counters.syncs, 1);
        self.file.sync_data().map_err(WalError::io("sync", &self.name()))
    }

    /// Syncs off that path.
    pub(super) fn sync_aside(&self, counters: &Counters) -> Result<(), WalError> {
        Counters::add(&counters.upkeep_syncs, 1);
        self.file.sync_data().map_err(WalError::io("sync", &self.name()))
    }
}

/// The file name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number in the file name of a segment.
pub(super) fn number_of(candidate: &str) -> Option<u64> {
    let number = candidate.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(number) == candidate).then_some(number)
}

/// Whether a segment under this name was never finished.
pub(super) fn is_unfinished(candidate: &str) -> bool {
    candidate.ends_with(NEW_SUFFIX)
}

/// Bytes of a segment that holds so many bytes of frames; at least `standard`.
pub(super) fn size_for(frame_bytes: u64, standard: u64) -> u64 {
    frame_bytes.saturating_add(HEADER_BYTES as u64).max(standard).next_multiple_of(PAGE_BYTES)
}

/// What makes segments of one log.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) files: Arc<dyn WalFiles>,
    pub(super) tag: LogTag,
    pub(super) counters: Arc<Counters>,
    /// The log is being closed: what is not finished is not needed.
    pub(super) closing: Arc<AtomicBool>,
}

impl Maker {
    /// A segment of `size` bytes: header, `frames`, zeros; durable, then named. `None` when the log is
    /// being closed.
    pub(super) fn make(&self, number: u64, size: u64, frames: &[u8]) -> Result<Option<Segment>, WalError> {
        let unfinished = format!("{number:020}{NEW_SUFFIX}");
        let made = self.fill(&unfinished, number, size, frames);
        if !matches!(made, Ok(Some(_))) {
            // Room for what is more important; an open removes it anyway.
            let _ = self.files.remove(&unfinished);
        }
        let Some(segment) = made? else { return Ok(None) };
        let name = segment.name();
        self.files.rename(&unfinished, &name).map_err(WalError::io("name", &name))?;
        self.sync_names()?;
        Ok(Some(segment))
    }

    fn fill(&self, name: &str, number: u64, size: u64, frames: &[u8]) -> Result<Option<Segment>, WalError> {
        let file = self.files.create(name).map_err(WalError::io("make", name))?;
        let segment = Segment { number, size, file };
        let mut chunk = encode_header(number, size, self.tag);
        chunk.extend_from_slice(frames);
        let mut offset = 0;
        while offset < size {
            if self.closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let fill = usize::try_from(size - offset).unwrap_or(usize::MAX).min(FILL_BYTES);
            // Zeros, not only reserved blocks: a block that was never written costs the commit that first
            // writes it a change of the file's metadata. A compressing or copying file system may differ.
            chunk.resize(fill.max(chunk.len()), 0);
            Counters::add(&self.counters.bytes_written, chunk.len() as u64);
            segment.file.write_at(offset, &chunk).map_err(WalError::io("fill", name))?;
            offset = offset.saturating_add(chunk.len() as u64);
            chunk.clear();
        }
        segment.sync_aside(&self.counters)?;
        Ok(Some(segment))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), WalError> {
        self.files.remove(name).map_err(WalError::io("remove", name))?;
        self.sync_names()
    }

    pub(super) fn sync_names(&self) -> Result<(), WalError> {
        Counters::add(&self.counters.upkeep_syncs, 1);
        self.files.sync().map_err(WalError::io("sync", "the directory"))
    }
}

fn encode_header(number: u64, size: u64, tag: LogTag) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&SEGMENT_VERSION.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&number.to_be_bytes());
    header.extend_from_slice(&size.to_be_bytes());
    header.extend_from_slice(&tag.0);
    header.resize(SUMMED_BYTES, 0);
    let sum = crc32c::crc32c(&header);
    header.extend_from_slice(&sum.to_be_bytes());
    header
}

/// Opens a segment and checks its header and its length. Returns the log's tag with it.
pub(super) fn open(files: &dyn WalFiles, number: u64) -> Result<(Segment, LogTag), StoreError> {
    let open = "open the log";
    let name = name(number);
    let fail = |action| {
        let wrap = WalError::io(action, &name);
        move |source| wrap(source).into_store_error(open)
    };
    let file = files.open(&name).map_err(fail("open"))?;
    let length = file.length_bytes().map_err(fail("measure"))?;
    if length < HEADER_BYTES as u64 {
        return Err(corrupt(number, 0));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header).map_err(fail("read"))?;
    let (stored_number, size, tag) = decode_header(number, &header)?;
    if stored_number != number {
        return Err(WalError::Foreign { segment: number }.into_store_error(open));
    }
    if length != size {
        return Err(
            WalError::WrongLength { segment: number, found: length, expected: size }.into_store_error(open)
        );
    }
    Ok((Segment { number, size, file }, tag))
}

fn decode_header(number: u64, header: &[u8; HEADER_BYTES]) -> Result<(u64, u64, LogTag), StoreError> {
    let corrupt = || corrupt(number, 0);
    let mut fields = Fields(header);
    if fields.take().ok_or_else(corrupt)? != MAGIC {
        return Err(corrupt());
    }
    // Before the checksum: a newer layout may have it elsewhere.
    let found = fields.u32().ok_or_else(corrupt)?;
    if found > SEGMENT_VERSION {
        let what = format!("segment {number} of raft.wal");
        return Err(StoreError::Format { what, found, known: SEGMENT_VERSION });
    }
    let (summed, sum) = header.split_at_checked(SUMMED_BYTES).ok_or_else(corrupt)?;
    if found != SEGMENT_VERSION || sum != crc32c::crc32c(summed).to_be_bytes() {
        return Err(corrupt());
    }
    fields.take::<4>().ok_or_else(corrupt)?;
    let number = fields.u64().ok_or_else(corrupt)?;
    let size = fields.u64().ok_or_else(corrupt)?;
    Ok((number, size, LogTag(fields.take().ok_or_else(corrupt)?)))
}
