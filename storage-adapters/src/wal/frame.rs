//! Frames: the unit that is written, found again and verified.

/// Bytes of a frame's head. A seal and an end mark are a head alone.
pub(super) const HEAD_BYTES: usize = 40;

/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// Version of the frames' layout.
pub(super) const FRAME_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"SRWF";
/// Bytes of the head before its own checksum.
const SUMMED_BYTES: usize = HEAD_BYTES - 4;

/// The random id of a log. It is part of every checksum, so that neither a frame of another log nor a
/// payload made by a client can pass for a frame of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogTag(pub(super) [u8; 16]);

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tag: LogTag,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// CRC-32C of what was read or is to be written at this place.
    pub(super) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut seed = [0; 32];
        let (tag, place) = seed.split_at_mut(16);
        let (segment, offset) = place.split_at_mut(8);
        tag.copy_from_slice(&self.tag.0);
        segment.copy_from_slice(&self.segment.to_be_bytes());
        offset.copy_from_slice(&self.offset.to_be_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&seed), bytes)
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// The changes of one commit.
    Batch = 1,
    /// Everything but the records, as it was when the segment began.
    State = 2,
    /// The frame before is durable.
    Seal = 3,
    /// The frame before is durable, and the next segment is in use.
    End = 4,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    /// Bytes behind the head, padding included.
    pub(super) length: u32,
    /// Changes in a batch.
    pub(super) changes: u32,
    /// Number of the frame in the log; a seal's or an end mark's is that of the frame before it.
    pub(super) sequence: u64,
    /// Offset in this segment below which all was durable when the frame was written, as all segments
    /// before this one were.
    pub(super) durable: u64,
    /// Checksum of the bytes behind the head, at the frame's place.
    pub(super) body_sum: u32,
}

/// What was found where a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFound {
    /// A head that was written here.
    Valid(FrameHead),
    /// A head that was written here by a newer program, with its version.
    Newer(u8),
    /// Anything else.
    Nothing,
}

impl FrameHead {
    pub(super) fn mark(kind: FrameKind, sequence: u64, place: &Place) -> Self {
        Self { kind, length: 0, changes: 0, sequence, durable: place.offset, body_sum: place.checksum(&[]) }
    }

    pub(super) fn encode(&self, place: &Place) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[FRAME_VERSION, self.kind as u8, 0, 0]);
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes.extend_from_slice(&self.changes.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.durable.to_be_bytes());
        bytes.extend_from_slice(&self.body_sum.to_be_bytes());
        let sum = place.checksum(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        head
    }

    pub(super) fn decode(bytes: &[u8], place: &Place) -> HeadFound {
        Self::found(bytes, place).unwrap_or(HeadFound::Nothing)
    }

    fn found(bytes: &[u8], place: &Place) -> Option<HeadFound> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let (summed, sum) = bytes.get(..HEAD_BYTES)?.split_at_checked(SUMMED_BYTES)?;
        if sum != place.checksum(summed).to_be_bytes() {
            return None;
        }
        let mut fields = Fields(summed);
        fields.take::<4>()?;
        let version = fields.u8()?;
        let kind = match (version, fields.u8()?) {
            (FRAME_VERSION, 1) => FrameKind::Batch,
            (FRAME_VERSION, 2) => FrameKind::State,
            (FRAME_VERSION, 3) => FrameKind::Seal,
            (FRAME_VERSION, 4) => FrameKind::End,
            _ => return Some(HeadFound::Newer(version)),
        };
        fields.take::<2>()?;
        Some(HeadFound::Valid(Self {
            kind,
            length: fields.u32()?,
            changes: fields.u32()?,
            sequence: fields.u64()?,
            durable: fields.u64()?,
            body_sum: fields.u32()?,
        }))
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        u64::from(self.length).saturating_add(HEAD_BYTES as u64)
    }
}

/// `length` with the padding that [`ALIGNMENT`] asks for.
pub(super) fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT as u64)
}

/// What is left to decode; every integer is big-endian.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}
