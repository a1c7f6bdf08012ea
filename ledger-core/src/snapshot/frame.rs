//! Frames: the rows as one stream of bytes, cut into pieces of at most [`FRAME_BYTES`], each compressed on its own.
//!
//! Each length is checked before memory is taken for it, and a frame that would expand by more than
//! [`EXPANSION_MAX`] is refused: what a file of some size can cost its reader is bounded by that size.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::error::SnapshotError;
use super::{EXPANSION_MAX, FRAME_BYTES};

/// Comes before each frame.
pub(crate) const FRAME_MARK: u8 = 1;
/// Comes after the last frame.
pub(crate) const END_MARK: u8 = 0;
/// zstd's bound for an incompressible frame, rounded up.
const COMPRESSED_BYTES_MAX: usize = FRAME_BYTES + FRAME_BYTES / 128 + 1_024;
/// The fastest of zstd's normal levels: hashes do not compress, and a snapshot is written beside the ledger's work.
const LEVEL: i32 = 1;

/// Zero bytes after a frame, so that it is not more than [`EXPANSION_MAX`] times smaller than its content.
fn padding_bytes(plain: usize, compressed: usize) -> usize {
    plain.div_ceil(EXPANSION_MAX).saturating_sub(compressed)
}

/// Hashes and counts what is written.
pub(crate) struct HashedSink<W> {
    inner: W,
    sha: Sha256,
    pub(crate) bytes: u64,
}

impl<W: Write> HashedSink<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, sha: Sha256::new(), bytes: 0 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.sha.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Writes the hash of all that was put, and flushes.
    pub(crate) fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        let hash: [u8; 32] = self.sha.finalize().into();
        self.inner.write_all(&hash)?;
        self.inner.flush()?;
        Ok((self.bytes.saturating_add(hash.len() as u64), hash))
    }
}

/// Cuts what is put into frames.
pub(crate) struct FrameWriter<W> {
    pub(crate) sink: HashedSink<W>,
    compressor: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub(crate) fn new(sink: HashedSink<W>) -> io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Self { sink, compressor, plain: Vec::with_capacity(FRAME_BYTES) })
    }

    /// Adds bytes; returns how many frames were written.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let mut frames = 0;
        while !bytes.is_empty() {
            let room = FRAME_BYTES.saturating_sub(self.plain.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.plain.extend_from_slice(now);
            bytes = later;
            if self.plain.len() == FRAME_BYTES {
                self.write_frame()?;
                frames += 1;
            }
        }
        Ok(frames)
    }

    /// Writes what is left and the end mark; the sink is where the trailer goes.
    pub(crate) fn finish(mut self) -> io::Result<HashedSink<W>> {
        if !self.plain.is_empty() {
            self.write_frame()?;
        }
        self.sink.put(&[END_MARK])?;
        Ok(self.sink)
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let compressed = self.compressor.compress(&self.plain)?;
        self.sink.put(&[FRAME_MARK])?;
        self.sink.put(&length(self.plain.len())?)?;
        self.sink.put(&length(compressed.len())?)?;
        self.sink.put(&compressed)?;
        self.sink.put(&vec![0; padding_bytes(self.plain.len(), compressed.len())])?;
        self.plain.clear();
        Ok(())
    }
}

/// A length as the file has it.
pub(crate) fn length(bytes: usize) -> io::Result<[u8; 4]> {
    u32::try_from(bytes).map(u32::to_be_bytes).map_err(io::Error::other)
}

/// Hashes and counts what is read.
pub(crate) struct HashedInput<R> {
    inner: R,
    sha: Sha256,
    pub(crate) bytes: u64,
}

impl<R: Read> HashedInput<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, sha: Sha256::new(), bytes: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        self.sha.update(bytes);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Replaces the content of `into` by `length` bytes; the caller has checked the length.
    pub(crate) fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), SnapshotError> {
        into.clear();
        into.resize(length, 0);
        self.fill(into)?;
        self.sha.update(&*into);
        Ok(())
    }

    /// Compares the hash of all that was read with the one that follows, after which nothing may come.
    pub(crate) fn finish(mut self) -> Result<(u64, [u8; 32]), SnapshotError> {
        let computed: [u8; 32] = std::mem::take(&mut self.sha).finalize().into();
        let mut stored = [0; 32];
        self.fill(&mut stored)?;
        if stored != computed {
            return Err(SnapshotError::Checksum);
        }
        let mut more = [0];
        match self.inner.read(&mut more) {
            Ok(0) => Ok((self.bytes, stored)),
            Ok(_) => Err(self.damaged("more bytes follow its end")),
            Err(error) => Err(SnapshotError::Io(error)),
        }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { at_byte: self.bytes, what: what.into() }
    }

    fn fill(&mut self, mut into: &mut [u8]) -> Result<(), SnapshotError> {
        while !into.is_empty() {
            match self.inner.read(into) {
                Ok(0) => return Err(SnapshotError::Truncated { at_byte: self.bytes }),
                Ok(read) => {
                    self.bytes = self.bytes.saturating_add(read as u64);
                    into = into.split_at_mut_checked(read).map_or(&mut [], |(_, rest)| rest);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SnapshotError::Io(error)),
            }
        }
        Ok(())
    }
}

/// Joins frames to the stream of rows.
pub(crate) struct FrameReader<R> {
    pub(crate) input: HashedInput<R>,
    decompressor: zstd::bulk::Decompressor<'static>,
    compressed: Vec<u8>,
    plain: Vec<u8>,
    /// Bytes of `plain` that were handed out.
    taken: usize,
    pub(crate) plain_bytes: u64,
    pub(crate) frames: u64,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    pub(crate) fn new(input: HashedInput<R>) -> Result<Self, SnapshotError> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(SnapshotError::Io)?;
        let (compressed, plain) = (Vec::new(), Vec::with_capacity(FRAME_BYTES));
        Ok(Self { input, decompressor, compressed, plain, taken: 0, plain_bytes: 0, frames: 0, ended: false })
    }

    /// Whether another byte of rows follows.
    pub(crate) fn has_more(&mut self) -> Result<bool, SnapshotError> {
        if self.taken < self.plain.len() {
            return Ok(true);
        }
        if !self.ended {
            self.ended = !self.next_frame()?;
        }
        Ok(!self.ended)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = Vec::with_capacity(N);
        self.take(N, &mut bytes)?;
        <[u8; N]>::try_from(bytes).map_err(|_| self.input.damaged("a row is cut off"))
    }

    /// Appends `length` bytes to `into`, whose memory grows no faster than bytes are there.
    pub(crate) fn take(&mut self, mut length: usize, into: &mut Vec<u8>) -> Result<(), SnapshotError> {
        while length > 0 {
            if !self.has_more()? {
                return Err(self.input.damaged("a row is cut off"));
            }
            let end = self.taken.saturating_add(length).min(self.plain.len());
            let piece = self.plain.get(self.taken..end).unwrap_or_default();
            into.extend_from_slice(piece);
            length = length.saturating_sub(piece.len());
            self.taken = end;
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<bool, SnapshotError> {
        match self.input.array::<1>()? {
            [FRAME_MARK] => {}
            [END_MARK] => return Ok(false),
            [other] => return Err(self.input.damaged(format!("{other} is no mark of a frame"))),
        }
        let plain = self.input.u32()? as usize;
        let compressed = self.input.u32()? as usize;
        bounded("a frame", plain, FRAME_BYTES)?;
        bounded("a compressed frame", compressed, COMPRESSED_BYTES_MAX)?;
        if plain == 0 {
            return Err(self.input.damaged("a frame is empty"));
        }
        self.input.take(compressed, &mut self.compressed)?;
        self.plain.clear();
        // The vector has this capacity, and zstd writes no byte beyond it.
        let written = self.decompressor.decompress_to_buffer(&self.compressed, &mut self.plain);
        match written {
            Ok(written) if written == plain && self.plain.len() == plain => {}
            Ok(_) => return Err(self.input.damaged("a frame has another length than it says")),
            Err(error) => return Err(self.input.damaged(format!("a frame does not decompress: {error}"))),
        }
        self.input.take(padding_bytes(plain, compressed), &mut self.compressed)?;
        if self.compressed.iter().any(|byte| *byte != 0) {
            return Err(self.input.damaged("the padding of a frame is not zero"));
        }
        self.taken = 0;
        self.plain_bytes = self.plain_bytes.saturating_add(plain as u64);
        self.frames = self.frames.saturating_add(1);
        Ok(true)
    }
}

pub(crate) fn bounded(what: &'static str, given: usize, max: usize) -> Result<(), SnapshotError> {
    if given <= max {
        Ok(())
    } else {
        Err(SnapshotError::TooLarge { what, given: given as u64, max: max as u64 })
    }
}
