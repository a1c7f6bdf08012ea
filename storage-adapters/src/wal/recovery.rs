//! Opening a log: every frame is verified before anything is changed.

use std::collections::BTreeMap;

use ledger_core::ports::StoreError;

use super::change::{Changes, LogState};
use super::failure::{WalError, corrupt};
use super::files::WalFiles;
use super::frame::{ALIGNMENT, FRAME_VERSION, FrameHead, FrameKind, HEAD_BYTES, HeadFound, LogTag, Place};
use super::index::LogIndex;
use super::segment::{self, Counters, HEADER_BYTES, Maker, Segment};

const OPEN: &str = "open the log";
/// Bytes that are read at once, unless a frame is longer.
const WINDOW_BYTES: usize = 1 << 20;

/// A page of zeros: what nothing was written to.
const ZEROS: [u8; 4096] = [0; 4096];

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) tag: LogTag,
    pub(super) index: LogIndex,
    /// Every segment with frames, by number.
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) active: Segment,
    /// Where the frames end.
    pub(super) end: u64,
    /// Number of the last frame.
    pub(super) sequence: u64,
    /// The next segment, ready for use.
    pub(super) prepared: Option<Segment>,
    /// A segment with a write that was interrupted, and files that were never finished: the repair
    /// removes them.
    leftovers: Vec<String>,
    tail: Tail,
}

/// What stands behind the last frame.
#[derive(Debug, Default)]
struct Tail {
    /// The seal of the last frame is there.
    is_sealed: bool,
    /// Where the write that ended with the last frame began.
    write_start: u64,
    /// The bytes behind the seal's place that are not zero: first and one after the last.
    dirty: Option<(u64, u64)>,
}

/// Reads a log and changes nothing. `None` when there is no segment.
pub(super) fn read(files: &dyn WalFiles) -> Result<Option<Recovered>, StoreError> {
    let names = files
        .list()
        .map_err(|source| WalError::io("list", "the directory")(source).into_store_error(OPEN))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    let mut leftovers: Vec<String> = names.into_iter().filter(|name| segment::is_unfinished(name)).collect();
    let Some(opened) = open_all(files, &numbers)? else { return Ok(None) };
    let mut walk = Walk::new(opened.tag);
    let mut segments = BTreeMap::new();
    let mut unused = None;
    let last = opened.segments.last().map(|segment| segment.number);
    for segment in opened.segments {
        if walk.enter(&segment)? {
            segments.insert(segment.number, segment);
        } else if segments.is_empty() || Some(segment.number) != last {
            // Only the last segment may be without frames, and never the only one.
            return Err(corrupt(segment.number, HEADER_BYTES as u64));
        } else {
            unused = Some(segment);
        }
    }
    let Some(active) = segments.values().next_back().cloned() else { return Ok(None) };
    let tail = walk.tail(&active, unused.as_ref())?;
    let mut prepared = None;
    if let Some(unused) = unused {
        if walk.is_clean(&unused)? {
            prepared = Some(unused);
        } else {
            leftovers.push(unused.name());
        }
    }
    let index = walk.index.unwrap_or_default();
    if !index.is_complete() {
        let before = segments.keys().next().map_or(0, |first| first.saturating_sub(1));
        return Err(WalError::MissingSegment { segment: before }.into_store_error(OPEN));
    }
    Ok(Some(Recovered {
        tag: opened.tag,
        index,
        segments,
        active,
        end: walk.place.offset,
        sequence: walk.sequence,
        prepared,
        leftovers,
        tail,
    }))
}

impl Recovered {
    /// Makes the disk what was read: what is left of an interrupted write is zeroed, the last frame is
    /// made durable and then sealed.
    pub(super) fn repair(&self, maker: &Maker) -> Result<(), StoreError> {
        self.try_repair(maker).map_err(|error| error.into_store_error("repair the log"))
    }

    fn try_repair(&self, maker: &Maker) -> Result<(), WalError> {
        for name in &self.leftovers {
            maker.remove(name)?;
        }
        if self.prepared.is_some() {
            // Its name may be newer than the last sync of the directory.
            maker.sync_names()?;
        }
        let counters = &maker.counters;
        if !self.tail.is_sealed {
            self.write_last_again(counters)?;
        }
        if let Some((from, to)) = self.tail.dirty {
            self.zero(counters, from, to)?;
        }
        if !self.tail.is_sealed || self.tail.dirty.is_some() {
            self.active.sync_aside(counters)?;
        }
        if !self.tail.is_sealed {
            // Only now: a seal must not reach the disk before the frame it vouches for.
            let place = self.active.place(self.tag, self.end);
            let seal = FrameHead::mark(FrameKind::Seal, self.sequence, &place).encode(&place);
            self.active.write(counters, self.end, &seal)?;
            self.active.sync_aside(counters)?;
        }
        Ok(())
    }

    /// After an fsync that failed the kernel may hold pages that it takes for written. Writing them again
    /// makes the sync that follows a real one.
    fn write_last_again(&self, counters: &Counters) -> Result<(), WalError> {
        let mut from = self.tail.write_start;
        let mut chunk = Vec::new();
        while from < self.end {
            let length = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            chunk.resize(length, 0);
            self.active.file.read_at(from, &mut chunk).map_err(WalError::io("read", &self.active.name()))?;
            self.active.write(counters, from, &chunk)?;
            from = from.saturating_add(length as u64);
        }
        Ok(())
    }

    fn zero(&self, counters: &Counters, from: u64, to: u64) -> Result<(), WalError> {
        let zeros = vec![0; WINDOW_BYTES.min(usize::try_from(to - from).unwrap_or(usize::MAX))];
        let mut from = from;
        while from < to {
            let length = usize::try_from(to - from).unwrap_or(usize::MAX).min(zeros.len());
            self.active.write(counters, from, zeros.get(..length).unwrap_or_default())?;
            from = from.saturating_add(length as u64);
        }
        Ok(())
    }
}

struct Opened {
    tag: LogTag,
    segments: Vec<Segment>,
}

/// Opens the segments, whose numbers must have no gap, and checks their headers.
fn open_all(files: &dyn WalFiles, numbers: &[u64]) -> Result<Option<Opened>, StoreError> {
    let mut opened: Option<Opened> = None;
    for number in numbers {
        let expected = opened.as_ref().and_then(|opened| opened.segments.last()).map(|last| last.number + 1);
        if let Some(segment) = expected.filter(|expected| expected != number) {
            return Err(WalError::MissingSegment { segment }.into_store_error(OPEN));
        }
        let (segment, tag) = segment::open(files, *number)?;
        let all = opened.get_or_insert_with(|| Opened { tag, segments: Vec::new() });
        if all.tag != tag {
            return Err(WalError::Foreign { segment: *number }.into_store_error(OPEN));
        }
        all.segments.push(segment);
    }
    Ok(opened)
}

/// The walk over the frames of all segments.
struct Walk {
    index: Option<LogIndex>,
    /// Where the walk stands: behind the last frame that verified.
    place: Place,
    sequence: u64,
    write_start: u64,
}

/// What stands at a place.
enum Found {
    /// A frame that verifies, with where its body begins in the window.
    Frame(FrameHead),
    /// A head that verifies, of a frame that does not.
    Head,
    Nothing,
}

impl Walk {
    fn new(tag: LogTag) -> Self {
        let place = Place { tag, segment: 0, offset: 0 };
        Self { index: None, place, sequence: 0, write_start: 0 }
    }

    /// Walks a segment to the last frame that verifies. `false` when it has no state frame to begin with;
    /// then the walk stands where it stood.
    fn enter(&mut self, segment: &Segment) -> Result<bool, StoreError> {
        let mut reader = Reader::new(segment);
        let start = Place { segment: segment.number, offset: HEADER_BYTES as u64, ..self.place };
        let Found::Frame(head) = reader.frame(&start)? else { return Ok(false) };
        if head.kind != FrameKind::State {
            return Err(corrupt(start.segment, start.offset));
        }
        let state = LogState::decode(reader.body(&start, &head)?);
        self.enter_state(&start, &head, state.ok_or_else(|| corrupt(start.segment, start.offset))?)?;
        self.advance(start, &head);
        loop {
            let place = self.place;
            let Found::Frame(head) = reader.frame(&place)? else { return Ok(true) };
            if head.kind != FrameKind::Batch {
                return Ok(true);
            }
            if head.sequence != self.sequence.wrapping_add(1) || head.durable > place.offset {
                return Err(corrupt(place.segment, place.offset));
            }
            let body = reader.body(&place, &head)?;
            self.apply(body, &place, &head).ok_or_else(|| corrupt(place.segment, place.offset))?;
            self.advance(place, &head);
        }
    }

    /// The state with which a segment begins must be the one that the frames before it led to.
    fn enter_state(&mut self, start: &Place, head: &FrameHead, state: LogState) -> Result<(), StoreError> {
        let Some(index) = &self.index else {
            self.index = Some(LogIndex::from_state(state));
            return Ok(());
        };
        // What does not verify in the segment before was durable when this one began.
        if state.previous_end != self.place.offset {
            return Err(corrupt(self.place.segment, self.place.offset.min(state.previous_end)));
        }
        if head.sequence != self.sequence.wrapping_add(1) || !index.agrees(&state) {
            return Err(corrupt(start.segment, start.offset));
        }
        Ok(())
    }

    fn advance(&mut self, place: Place, head: &FrameHead) {
        self.sequence = head.sequence;
        self.write_start = head.durable;
        self.place = place.at(place.offset.saturating_add(head.frame_bytes()));
    }

    fn apply(&mut self, body: &[u8], place: &Place, head: &FrameHead) -> Option<()> {
        let index = self.index.as_mut()?;
        let mut changes = Changes::of(body, place.at(place.offset.saturating_add(HEAD_BYTES as u64)));
        for _ in 0..head.changes {
            let (change, record) = changes.next()?;
            index.extent().after(&change).ok()?;
            index.apply(&change, record);
        }
        changes.is_finished().then_some(())
    }

    /// What stands behind the last frame of the last segment in use; an error when any of it says that
    /// this place was durable.
    fn tail(&self, active: &Segment, unused: Option<&Segment>) -> Result<Tail, StoreError> {
        let mut reader = Reader::new(active);
        let mut tail = Tail { is_sealed: false, write_start: self.write_start, dirty: None };
        let mut clean_from = self.place.offset;
        if let HeadFound::Valid(head) = reader.head(&self.place)? {
            match head.kind {
                FrameKind::End => {
                    let segment = active.number.saturating_add(1);
                    return Err(match unused {
                        Some(_) => corrupt(segment, HEADER_BYTES as u64),
                        None => WalError::MissingSegment { segment }.into_store_error(OPEN),
                    });
                }
                FrameKind::Seal if head.sequence != self.sequence => {
                    return Err(corrupt(active.number, self.place.offset));
                }
                FrameKind::Seal => {
                    tail.is_sealed = true;
                    clean_from = clean_from.saturating_add(HEAD_BYTES as u64);
                }
                FrameKind::Batch | FrameKind::State => {}
            }
        }
        tail.dirty = reader.dirty(clean_from)?;
        if let Some((from, to)) = tail.dirty {
            reader.each_head(&self.place.at(from), to, |head| {
                let is_durable = head.durable > self.place.offset;
                if is_durable { Err(corrupt(active.number, self.place.offset)) } else { Ok(()) }
            })?;
        }
        Ok(tail)
    }

    /// Whether a segment without a state frame is all zeros. It may hold the interrupted write that would
    /// have begun it; an error when it holds more.
    fn is_clean(&self, unused: &Segment) -> Result<bool, StoreError> {
        let start = Place { segment: unused.number, offset: HEADER_BYTES as u64, ..self.place };
        let mut reader = Reader::new(unused);
        let Some((from, to)) = reader.dirty(start.offset)? else { return Ok(true) };
        reader.each_head(&start.at(from), to, |head| {
            if head.durable > start.offset {
                return Err(corrupt(start.segment, start.offset));
            }
            // The numbers that its state and its first batch would have had.
            let expected = self.sequence.wrapping_add(if head.kind == FrameKind::State { 1 } else { 2 });
            if head.sequence == expected {
                Ok(())
            } else {
                Err(corrupt(self.place.segment, self.place.offset))
            }
        })?;
        Ok(false)
    }
}

/// Reads a segment through a window.
struct Reader<'a> {
    segment: &'a Segment,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Reader<'a> {
    fn new(segment: &'a Segment) -> Self {
        Self { segment, window: Vec::new(), window_start: 0 }
    }

    /// `length` bytes at `offset`, or fewer where the segment ends. Never more is allocated than the
    /// file has.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], StoreError> {
        let left = usize::try_from(self.segment.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let window_end = self.window_start.saturating_add(self.window.len() as u64);
        let is_inside = offset >= self.window_start && offset.saturating_add(length as u64) <= window_end;
        if !is_inside {
            self.window.resize(length.max(WINDOW_BYTES).min(left), 0);
            self.window_start = offset;
            let fail = WalError::io("read", &self.segment.name());
            let read = self.segment.file.read_at(offset, &mut self.window);
            read.map_err(|source| fail(source).into_store_error(OPEN))?;
        }
        let from = usize::try_from(offset - self.window_start).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from.saturating_add(length)).unwrap_or_default())
    }

    fn head(&mut self, place: &Place) -> Result<HeadFound, StoreError> {
        let found = FrameHead::decode(self.bytes(place.offset, HEAD_BYTES)?, place);
        if let HeadFound::Newer(version) = found {
            return Err(StoreError::Format {
                what: format!("segment {} of raft.wal, at offset {}", place.segment, place.offset),
                found: u32::from(version),
                known: u32::from(FRAME_VERSION),
            });
        }
        Ok(found)
    }

    fn frame(&mut self, place: &Place) -> Result<Found, StoreError> {
        let HeadFound::Valid(head) = self.head(place)? else { return Ok(Found::Nothing) };
        let body = self.body(place, &head)?;
        let is_whole = body.len() as u64 == u64::from(head.length) && place.checksum(body) == head.body_sum;
        Ok(if is_whole { Found::Frame(head) } else { Found::Head })
    }

    fn body(&mut self, place: &Place, head: &FrameHead) -> Result<&[u8], StoreError> {
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        self.bytes(place.offset.saturating_add(HEAD_BYTES as u64), length)
    }

    /// Shows every head that verifies between `from` and `to`. Its checksum is proof enough that it was
    /// written there, whatever became of its body.
    fn each_head(
        &mut self,
        from: &Place,
        to: u64,
        mut visit: impl FnMut(&FrameHead) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut place = from.at(from.offset - from.offset % ALIGNMENT as u64);
        while place.offset < to {
            if let HeadFound::Valid(head) = self.head(&place)? {
                visit(&head)?;
            }
            place = place.at(place.offset.saturating_add(ALIGNMENT as u64));
        }
        Ok(())
    }

    /// The first and one after the last byte at or behind `from` that is not zero.
    fn dirty(&mut self, from: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let mut dirty = None;
        let mut offset = from;
        while offset < self.segment.size {
            let bytes = self.bytes(offset, WINDOW_BYTES)?;
            let length = bytes.len() as u64;
            for page in bytes.chunks(ZEROS.len()) {
                if ZEROS.get(..page.len()) != Some(page) {
                    let first = page.iter().position(|byte| *byte != 0).unwrap_or_default() as u64;
                    let end = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                    let start = dirty.map_or(offset + first, |(start, _)| start);
                    dirty = Some((start, offset + end));
                }
                offset = offset.saturating_add(page.len() as u64);
            }
            if length == 0 {
                break;
            }
        }
        Ok(dirty)
    }
}
