use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ledger_core::ports::{LogChange, LogRecord, LogSnapshot, LogStore, StoreError};

use super::change::{self, LogState, RecordPlace};
use super::directory::WalDirectory;
use super::failure::{WalError, corrupt};
use super::files::WalFiles;
use super::frame::{FrameHead, FrameKind, HEAD_BYTES, LogTag, Place, padded};
use super::index::LogIndex;
use super::options::{SEGMENT_BYTES_MIN, WalOptions};
use super::recovery;
use super::segment::{self, Counters, HEADER_BYTES, Maker, Segment};
use super::upkeep::{Job, Keeper};

const OPEN: &str = "open the log";
const COMMIT: &str = "commit the log";
const READ: &str = "read the log";
/// A segment is at least so many times as long as its state frame, so that a node with very many vaults
/// does not write more state than log.
const STATE_SHARE: u64 = 4;
/// Records that stand close together are read at once, up to so many bytes.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// The buffer of a larger batch is not kept.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// A [`LogStore`] in segment files: one write and one fsync a batch, whatever is in it.
#[derive(Debug)]
pub struct WalLogStore {
    tag: LogTag,
    contents: RwLock<Contents>,
    writer: Mutex<Writer>,
    counters: Arc<Counters>,
}

/// What reads need.
#[derive(Debug)]
struct Contents {
    index: LogIndex,
    segments: BTreeMap<u64, Segment>,
}

/// What the one writer needs beside.
#[derive(Debug)]
struct Writer {
    segment_bytes: u64,
    active: Segment,
    /// Where the next batch goes.
    end: u64,
    /// Number of the last frame.
    sequence: u64,
    buffer: Vec<u8>,
    /// The log takes nothing more.
    failed: bool,
    /// The write of the last batch's seal failed: the next commit reports it.
    unreported: Option<WalError>,
    /// A segment that was there when the log was opened.
    found: Option<Segment>,
    /// Segments to remove when the batch is sealed.
    unneeded: Option<Job>,
    keeper: Keeper,
}

/// What to do with an empty directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// A new log.
    Make,
    /// A log that was lost.
    Refuse,
}

impl WalLogStore {
    /// Opens `raft.wal` in `dir`, which must exist; makes it, for its owner only, when it is missing. Such
    /// a new log is made under another name and renamed: a log without a segment was lost.
    ///
    /// # Errors
    ///
    /// [`StoreError::Format`] for a log of a newer program; [`StoreError::Corrupt`], with segment and
    /// offset, where acknowledged bytes are damaged; otherwise [`StoreError::Engine`] with a
    /// [`WalError`]. Nothing is changed then.
    pub fn open(dir: &Path, options: WalOptions) -> Result<Self, StoreError> {
        let files = WalDirectory::open_or_make(dir, options)?;
        let files: Arc<dyn WalFiles> = Arc::new(files);
        Self::attach(&files, options, Empty::Refuse)
    }

    /// Opens the log that `files` hold; makes one where there is no segment. For fault injection.
    pub fn with_files(files: &Arc<dyn WalFiles>, options: WalOptions) -> Result<Self, StoreError> {
        Self::attach(files, options, Empty::Make)
    }

    pub(super) fn attach(
        files: &Arc<dyn WalFiles>,
        options: WalOptions,
        empty: Empty,
    ) -> Result<Self, StoreError> {
        let segment_bytes = options.segment_bytes;
        if segment_bytes < SEGMENT_BYTES_MIN {
            let error = WalError::SegmentTooSmall { found: segment_bytes, least: SEGMENT_BYTES_MIN };
            return Err(error.into_store_error(OPEN));
        }
        let maker = |tag| Maker {
            files: Arc::clone(files),
            tag,
            counters: Arc::new(Counters::default()),
            closing: Arc::new(AtomicBool::new(false)),
        };
        let mut found = recovery::read(files.as_ref())?;
        if found.is_none() {
            if empty == Empty::Refuse {
                return Err(WalError::Empty.into_store_error(OPEN));
            }
            let begun = begin(&maker(draw_tag()?), segment_bytes);
            begun.map_err(|error| error.into_store_error("make the log"))?;
            found = recovery::read(files.as_ref())?;
        }
        let recovered = found.ok_or_else(|| WalError::Empty.into_store_error(OPEN))?;
        let maker = maker(recovered.tag);
        recovered.repair(&maker)?;
        let counters = Arc::clone(&maker.counters);
        let keeper = Keeper::start(maker, options.upkeep).map_err(|source| {
            WalError::io("start the thread for", "segments")(source).into_store_error(OPEN)
        })?;
        let mut writer = Writer {
            segment_bytes,
            active: recovered.active,
            end: recovered.end,
            sequence: recovered.sequence,
            buffer: Vec::new(),
            failed: false,
            unreported: None,
            found: recovered.prepared,
            unneeded: None,
            keeper,
        };
        let mut contents = Contents { index: recovered.index, segments: recovered.segments };
        if writer.found.is_none() {
            writer.prepare_next(contents.index.marks());
        }
        contents.remove_unneeded(&mut writer);
        if let Some(unneeded) = writer.unneeded.take() {
            writer.keeper.submit(unneeded);
        }
        Ok(Self { tag: recovered.tag, contents: RwLock::new(contents), writer: Mutex::new(writer), counters })
    }

    /// fsyncs of commits since the log was opened: one a batch.
    pub fn syncs(&self) -> u64 {
        Counters::read(&self.counters.syncs)
    }

    /// All other fsyncs since the log was opened: of its repair, of segments that were prepared, closed
    /// or removed, and of the directory. They do not count with the batches: a few for every 16 MiB.
    pub fn upkeep_syncs(&self) -> u64 {
        Counters::read(&self.counters.upkeep_syncs)
    }

    /// Writes of batches since the log was opened: one a batch.
    pub fn batch_writes(&self) -> u64 {
        Counters::read(&self.counters.batch_writes)
    }

    /// Bytes written since the log was opened, the zeros of prepared segments included.
    pub fn bytes_written(&self) -> u64 {
        Counters::read(&self.counters.bytes_written)
    }

    /// How often a commit went on to the next segment since the log was opened.
    pub fn rotations(&self) -> u64 {
        Counters::read(&self.counters.rotations)
    }

    /// Bytes of the segments that hold the log; the prepared one comes beside.
    pub fn segment_bytes(&self) -> u64 {
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        contents.segments.values().map(|segment| segment.size).sum()
    }

    fn write(&self, writer: &mut Writer, changes: &[LogChange]) -> Result<(), StoreError> {
        if let Some(error) = writer.unreported.take().or_else(|| writer.keeper.take_failure()) {
            return Err(error.into_store_error(COMMIT));
        }
        let fail = |error: WalError| error.into_store_error(COMMIT);
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        let refused = contents.index.extent().after_all(changes);
        refused.map_err(|source| StoreError::Engine { action: COMMIT, source: Box::new(source) })?;
        let body = body_bytes(changes).map_err(fail)?;
        let before =
            writer.make_room(body.saturating_add(HEAD_BYTES as u64), &contents.index).map_err(fail)?;
        drop(contents);

        let start = writer.end;
        let records = writer.encode(self.tag, changes, body, start);
        Counters::add(&self.counters.batch_writes, 1);
        writer.active.write(&self.counters, start, &writer.buffer).map_err(fail)?;
        writer.active.sync(&self.counters).map_err(fail)?;
        writer.end = start.saturating_add(writer.buffer.len() as u64);

        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.segments.entry(writer.active.number).or_insert_with(|| writer.active.clone());
        for (change, record) in changes.iter().zip(records) {
            contents.index.apply(change, record);
        }
        contents.remove_unneeded(writer);
        let marks = contents.index.marks();
        drop(contents);
        writer.seal(self.tag, &self.counters);
        if let Some(end) = before {
            Counters::add(&self.counters.rotations, 1);
            writer.keeper.submit(end);
            writer.prepare_next(marks);
        }
        if let Some(unneeded) = writer.unneeded.take() {
            writer.keeper.submit(unneeded);
        }
        Ok(())
    }

    /// Reads a run of records of one segment at once.
    fn read_run(
        &self,
        segment: &Segment,
        run: &[(u64, RecordPlace)],
        out: &mut Vec<LogRecord>,
    ) -> Result<(), StoreError> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { return Ok(()) };
        let length = usize::try_from(last.end().saturating_sub(first.offset));
        let mut bytes = vec![0; length.map_err(|_| corrupt(segment.number, first.offset))?];
        let read = segment.file.read_at(first.offset, &mut bytes);
        read.map_err(|source| WalError::io("read", &segment.name())(source).into_store_error(READ))?;
        for (index, record) in run {
            let place = segment.place(self.tag, record.offset);
            let from = usize::try_from(record.offset - first.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(record.length).unwrap_or(usize::MAX);
            let stored = bytes.get(from..from.saturating_add(length));
            let decoded = stored.and_then(|stored| change::decode_record(stored, &place));
            let decoded = decoded.filter(|decoded| decoded.id.index == *index);
            out.push(decoded.ok_or_else(|| corrupt(record.segment, record.offset))?);
        }
        Ok(())
    }
}

impl LogStore for WalLogStore {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        Ok(self.contents.read().unwrap_or_else(PoisonError::into_inner).index.snapshot())
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        let places = contents.places(from, to, bytes_max);
        // With the files, which stay readable when a purge removes their names meanwhile.
        let mut runs = Vec::new();
        for run in places.chunk_by(|(_, before), (_, place)| before.segment == place.segment) {
            let Some((_, first)) = run.first() else { continue };
            let segment = contents.segments.get(&first.segment).cloned();
            runs.push((segment.ok_or_else(|| corrupt(first.segment, first.offset))?, run));
        }
        drop(contents);
        let mut records = Vec::with_capacity(places.len());
        for (segment, mut rest) in runs {
            while let Some((_, first)) = rest.first() {
                let near = rest.partition_point(|(_, place)| place.end() - first.offset <= RUN_BYTES_MAX);
                let (near, far) = rest.split_at(near.max(1));
                self.read_run(&segment, near, &mut records)?;
                rest = far;
            }
        }
        Ok(records)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.failed {
            return Err(StoreError::Poisoned);
        }
        if changes.is_empty() {
            return Ok(());
        }
        // Set while the batch is under way, so that not even a panic in it leaves a log that goes on.
        writer.failed = true;
        self.write(&mut writer, changes)?;
        writer.failed = false;
        Ok(())
    }
}

impl Drop for WalLogStore {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !writer.failed && writer.unreported.is_none() {
            // The seal; without it the next open only has more to do.
            let _ = writer.active.sync_aside(&self.counters);
        }
    }
}

impl Contents {
    /// Where the records of a range stand, up to the one that reaches `bytes_max` (G8).
    fn places(&self, from: u64, to: u64, bytes_max: usize) -> Vec<(u64, RecordPlace)> {
        let mut places = Vec::new();
        let mut bytes = 0_usize;
        for (index, place) in self.index.places(from, to) {
            places.push((index, place));
            bytes = bytes.saturating_add(place.size_bytes());
            if bytes >= bytes_max {
                break;
            }
        }
        places
    }

    /// Lets go of the segments before the first that a record stands in. The state frame of the active
    /// one holds everything else.
    fn remove_unneeded(&mut self, writer: &mut Writer) {
        let oldest = self.index.oldest_segment().unwrap_or(writer.active.number);
        if self.segments.first_key_value().is_none_or(|(number, _)| *number >= oldest) {
            return;
        }
        let needed = self.segments.split_off(&oldest);
        let unneeded = std::mem::replace(&mut self.segments, needed);
        writer.unneeded = Some(Job::Remove(unneeded.into_keys().collect()));
    }
}

impl Writer {
    /// Leaves in the buffer what must stand before a frame of `frame_bytes`: nothing, or the state frame
    /// of a segment that becomes the active one. Returns then what closes the segment before.
    fn make_room(&mut self, frame_bytes: u64, index: &LogIndex) -> Result<Option<Job>, WalError> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        // A seal must fit behind it.
        let needed = frame_bytes.saturating_add(HEAD_BYTES as u64);
        if self.end.saturating_add(needed) <= self.active.size {
            return Ok(None);
        }
        let state = index.state(self.end);
        let next =
            self.next_segment(needed.saturating_add(state_frame_bytes(index.marks())), index.marks())?;
        let before = std::mem::replace(&mut self.active, next);
        let end = Job::End { segment: before, offset: self.end, sequence: self.sequence };
        self.end = HEADER_BYTES as u64;
        self.sequence = self.sequence.wrapping_add(1);
        let place = self.active.place(self.keeper.maker().tag, self.end);
        self.buffer = encode_state(&state, self.sequence, &place);
        Ok(Some(end))
    }

    /// The prepared segment, or a new one where there is none or a larger one is needed.
    fn next_segment(&mut self, frame_bytes: u64, marks: usize) -> Result<Segment, WalError> {
        let number = self.active.number.saturating_add(1);
        let prepared = self.found.take().map(Ok).or_else(|| self.keeper.take_prepared());
        let maker = self.keeper.maker();
        match prepared {
            Some(Ok(segment)) if segment.size >= segment::size_for(frame_bytes, 0) => return Ok(segment),
            Some(Ok(segment)) => maker.remove(&segment.name())?,
            // Space may have been freed since. Any other failure is final.
            Some(Err(error)) if !error.is_full() => return Err(error),
            Some(Err(_)) | None => {}
        }
        let size = segment::size_for(frame_bytes, standard_bytes(self.segment_bytes, marks));
        maker.make(number, size, &[])?.ok_or(WalError::Empty)
    }

    fn prepare_next(&mut self, marks: usize) {
        let size = segment::size_for(0, standard_bytes(self.segment_bytes, marks));
        self.keeper.submit(Job::Prepare(self.active.number.saturating_add(1), size));
    }

    /// Puts the frame of a batch behind what is in the buffer, whose first byte belongs at `start`.
    fn encode(
        &mut self,
        tag: LogTag,
        changes: &[LogChange],
        body_bytes: u64,
        start: u64,
    ) -> Vec<Option<RecordPlace>> {
        self.sequence = self.sequence.wrapping_add(1);
        let buffer = &mut self.buffer;
        let head_at = buffer.len();
        let body_at = head_at.saturating_add(HEAD_BYTES);
        buffer.reserve(usize::try_from(body_bytes).unwrap_or_default().saturating_add(HEAD_BYTES));
        buffer.resize(body_at, 0);
        let origin = self.active.place(tag, start);
        let records = changes.iter().map(|change| change::encode(buffer, change, &origin)).collect();
        buffer.resize(usize::try_from(padded(buffer.len() as u64)).unwrap_or(usize::MAX), 0);
        let place = origin.at(start.saturating_add(head_at as u64));
        let body = buffer.get(body_at..).unwrap_or_default();
        let head = FrameHead {
            kind: FrameKind::Batch,
            length: u32::try_from(body.len()).unwrap_or(u32::MAX),
            changes: u32::try_from(changes.len()).unwrap_or(u32::MAX),
            sequence: self.sequence,
            durable: start,
            body_sum: place.checksum(body),
        };
        if let Some(space) = buffer.get_mut(head_at..body_at) {
            space.copy_from_slice(&head.encode(&place));
        }
        records
    }

    /// Says behind the last batch that it is durable. The batch stands whatever becomes of this write.
    fn seal(&mut self, tag: LogTag, counters: &Counters) {
        let place = self.active.place(tag, self.end);
        let seal = FrameHead::mark(FrameKind::Seal, self.sequence, &place).encode(&place);
        self.unreported = self.active.write(counters, self.end, &seal).err();
    }
}

fn body_bytes(changes: &[LogChange]) -> Result<u64, WalError> {
    let bytes = changes.iter().map(change::encoded_bytes).fold(0, u64::saturating_add);
    // The length, with its padding, is a u32; the number of changes is less.
    let is_countable = u32::try_from(bytes).is_ok_and(|bytes| bytes <= u32::MAX - 8);
    if is_countable { Ok(padded(bytes)) } else { Err(WalError::BatchTooLarge { bytes }) }
}

fn state_frame_bytes(marks: usize) -> u64 {
    padded(LogState::encoded_bytes(marks)).saturating_add(HEAD_BYTES as u64)
}

fn standard_bytes(segment_bytes: u64, marks: usize) -> u64 {
    segment_bytes.max(state_frame_bytes(marks).saturating_mul(STATE_SHARE))
}

/// The state frame with which a segment begins.
fn encode_state(state: &LogState, sequence: u64, place: &Place) -> Vec<u8> {
    let mut body = Vec::new();
    state.encode(&mut body);
    body.resize(usize::try_from(padded(body.len() as u64)).unwrap_or(usize::MAX), 0);
    let head = FrameHead {
        kind: FrameKind::State,
        length: u32::try_from(body.len()).unwrap_or(u32::MAX),
        changes: 0,
        sequence,
        durable: place.offset,
        body_sum: place.checksum(&body),
    };
    [&head.encode(place)[..], &body].concat()
}

fn draw_tag() -> Result<LogTag, StoreError> {
    let mut tag = [0; 16];
    getrandom::fill(&mut tag)
        .map_err(|source| WalError::Random { source }.into_store_error("make the log"))?;
    Ok(LogTag(tag))
}

/// Makes the first segment of a log, with its state, before it gets its name.
fn begin(maker: &Maker, segment_bytes: u64) -> Result<(), WalError> {
    const FIRST: u64 = 1;
    let place = Place { tag: maker.tag, segment: FIRST, offset: HEADER_BYTES as u64 };
    let state = encode_state(&LogState::default(), 0, &place);
    maker.make(FIRST, segment::size_for(0, segment_bytes), &state).map(drop)
}
