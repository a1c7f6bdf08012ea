//! Writing an increment: header, records in frames, trailer, hash.

use std::io::Write;
use std::ops::ControlFlow;

use ledger_verify::Hash;

use super::error::BackupError;
use super::gather::Gathered;
use super::increment::{
    FORMAT, IncrementProgress, IncrementTrailer, KIND_BLOCK, KIND_COMMAND, MAGIC, Record,
};
use crate::codec;
use crate::rows;
use crate::snapshot::frame::{FrameWriter, HashedSink, length};
use crate::snapshot::{HEADER_BYTES_MAX, ROW_VALUE_BYTES_MAX, TRAILER_BYTES_MAX};

/// An increment that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenIncrement {
    /// Its trailer.
    pub trailer: IncrementTrailer,
    /// Its bytes, all of them.
    pub file_bytes: u64,
    /// The SHA-256 at its end, over every byte before.
    pub sha256: Hash,
}

impl Gathered<'_> {
    /// Writes the increment. Making it durable is the caller's part; `watch` is called after every frame.
    ///
    /// # Errors
    ///
    /// When the view cannot be read, the sink cannot be written, or `watch` breaks it off: the sink then holds no
    /// increment.
    pub fn write<W: Write>(
        mut self,
        sink: W,
        watch: &mut dyn FnMut(&IncrementProgress) -> ControlFlow<()>,
    ) -> Result<WrittenIncrement, BackupError> {
        let mut sink = HashedSink::new(sink);
        let encoded = codec::encode("the header of an increment", &self.header)?;
        fits("the header", encoded.len(), HEADER_BYTES_MAX)?;
        sink.put(&MAGIC)?;
        sink.put(&FORMAT.to_be_bytes())?;
        sink.put(&length(encoded.len())?)?;
        sink.put(&encoded)?;
        let mut frames = FrameWriter::new(sink)?;
        let mut trailer = IncrementTrailer::default();
        while let Some(record) = self.next_record()? {
            let (kind, payload) = encode(&record)?;
            fits("a record", payload.len(), ROW_VALUE_BYTES_MAX)?;
            let written =
                frames.put(&[kind])? + frames.put(&length(payload.len())?)? + frames.put(&payload)?;
            trailer.count(&record, payload.len() as u64 + 5);
            let progress = IncrementProgress { blocks: trailer.blocks, file_bytes: frames.sink.bytes };
            if written > 0 && watch(&progress).is_break() {
                return Err(BackupError::Cancelled);
            }
        }
        let mut sink = frames.finish()?;
        let encoded = codec::encode("the trailer of an increment", &trailer)?;
        fits("the trailer", encoded.len(), TRAILER_BYTES_MAX)?;
        sink.put(&length(encoded.len())?)?;
        sink.put(&encoded)?;
        let (file_bytes, sha256) = sink.finish()?;
        Ok(WrittenIncrement { trailer, file_bytes, sha256 })
    }
}

fn encode(record: &Record) -> Result<(u8, Vec<u8>), BackupError> {
    Ok(match record {
        Record::Command(command) => (KIND_COMMAND, codec::encode("a journaled command", command)?.to_vec()),
        Record::Block(block) => {
            let mut payload = block.header.encode().to_vec();
            payload.extend_from_slice(&rows::encode_body(&block.transactions));
            (KIND_BLOCK, payload)
        }
    })
}

fn fits(what: &'static str, given: usize, max: usize) -> Result<(), BackupError> {
    let (bytes, limit) = (given as u64, max as u64);
    if given <= max { Ok(()) } else { Err(BackupError::TooLarge { what, given: bytes, max: limit }) }
}
