//! Reading an increment, front to back.

use std::io::Read;

use bytes::Bytes;
use ledger_verify::header::{BlockHeader, HEADER_BYTES};

use super::error::BackupError;
use super::increment::{
    BlockRecord, FORMAT, IncrementHeader, IncrementProgress, IncrementTrailer, KIND_BLOCK, KIND_COMMAND,
    MAGIC, Record,
};
use crate::codec;
use crate::rows;
use crate::snapshot::frame::{FrameReader, HashedInput, bounded};
use crate::snapshot::{HEADER_BYTES_MAX, ROW_VALUE_BYTES_MAX, TRAILER_BYTES_MAX};

/// An increment whose header is read. Memory is bounded by a frame and the largest record.
pub struct Increment<R> {
    header: IncrementHeader,
    frames: FrameReader<R>,
    counted: IncrementTrailer,
    /// Index of the last record.
    last: u64,
}

/// What a whole increment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementSummary {
    /// Its header.
    pub header: IncrementHeader,
    /// Its trailer.
    pub trailer: IncrementTrailer,
    /// Its bytes, all of them.
    pub file_bytes: u64,
}

impl<R: Read> Increment<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// When the input is no increment of a known format, or cannot be read.
    pub fn open(input: R) -> Result<Self, BackupError> {
        let of = BackupError::of_frames;
        let mut input = HashedInput::new(input);
        if input.array().map_err(of)? != MAGIC {
            return Err(BackupError::Foreign);
        }
        match input.u32().map_err(of)? {
            FORMAT => {}
            found => return Err(BackupError::Format { found }),
        }
        let length = input.u32().map_err(of)? as usize;
        bounded("the header", length, HEADER_BYTES_MAX).map_err(of)?;
        let mut encoded = Vec::new();
        input.take(length, &mut encoded).map_err(of)?;
        let header: IncrementHeader = codec::decode("the header of an increment", &encoded)
            .map_err(|error| of(input.damaged(error.to_string())))?;
        if header.applied.index < header.after {
            return Err(BackupError::inconsistent("an increment ends before it begins"));
        }
        let frames = FrameReader::new(input).map_err(of)?;
        let last = header.after;
        Ok(Self { header, frames, counted: IncrementTrailer::default(), last })
    }

    /// What it says about itself.
    pub fn header(&self) -> &IncrementHeader {
        &self.header
    }

    /// How far reading is.
    pub fn progress(&self) -> IncrementProgress {
        IncrementProgress { blocks: self.counted.blocks, file_bytes: self.frames.input.bytes }
    }

    /// The next record; `None` after the last.
    ///
    /// # Errors
    ///
    /// When it does not decode or stands in the wrong place.
    pub fn next_record(&mut self) -> Result<Option<Record>, BackupError> {
        let of = BackupError::of_frames;
        if !self.frames.has_more().map_err(of)? {
            return Ok(None);
        }
        let [kind] = self.frames.array().map_err(of)?;
        let length = u32::from_be_bytes(self.frames.array().map_err(of)?) as usize;
        bounded("a record", length, ROW_VALUE_BYTES_MAX).map_err(of)?;
        let mut payload = Vec::new();
        self.frames.take(length, &mut payload).map_err(of)?;
        let damaged = |what: &str| of(self.frames.input.damaged(what));
        let record = match kind {
            KIND_COMMAND => Record::Command(
                codec::decode("a journaled command", &payload)
                    .map_err(|error| damaged(&error.to_string()))?,
            ),
            KIND_BLOCK => {
                Record::Block(block(&payload.into()).ok_or_else(|| damaged("a block does not decode"))?)
            }
            _ => return Err(damaged("a record has an unknown kind")),
        };
        self.place(&record)?;
        self.counted.count(&record, length as u64 + 5);
        Ok(Some(record))
    }

    /// Records ascend by index, the command of an index before its blocks.
    fn place(&mut self, record: &Record) -> Result<(), BackupError> {
        let (index, last) = (record.index(), self.last);
        let is_block = matches!(record, Record::Block(_));
        let ascends = index > last || (index == last && index > self.header.after && is_block);
        if !ascends || index > self.header.applied.index {
            return Err(BackupError::inconsistent(format!("a record of entry {index} stands after {last}")));
        }
        self.last = index;
        Ok(())
    }

    /// Reads what is left, compares counts and hash.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit.
    pub fn finish(mut self) -> Result<IncrementSummary, BackupError> {
        while self.next_record()?.is_some() {}
        let of = BackupError::of_frames;
        let mut input = self.frames.input;
        let length = input.u32().map_err(of)? as usize;
        bounded("the trailer", length, TRAILER_BYTES_MAX).map_err(of)?;
        let mut encoded = Vec::new();
        input.take(length, &mut encoded).map_err(of)?;
        let trailer: IncrementTrailer = codec::decode("the trailer of an increment", &encoded)
            .map_err(|error| of(input.damaged(error.to_string())))?;
        if trailer != self.counted {
            return Err(BackupError::inconsistent(
                "the trailer of an increment does not count what it holds",
            ));
        }
        let (file_bytes, _) = input.finish().map_err(of)?;
        Ok(IncrementSummary { header: self.header, trailer, file_bytes })
    }
}

fn block(payload: &Bytes) -> Option<BlockRecord> {
    let header = BlockHeader::decode(payload.get(..HEADER_BYTES)?).ok()?;
    let transactions = rows::decode_body(&payload.slice(HEADER_BYTES..))?;
    (transactions.len() == header.tx_count as usize).then_some(BlockRecord { header, transactions })
}
