//! Writing a snapshot: header, rows of every table in order, trailer, hash.

use std::io::Write;
use std::ops::ControlFlow;

use ledger_verify::Hash;

use super::content::Counts;
use super::error::WriteError;
use super::frame::{FrameWriter, HashedSink, length};
use super::{
    FORMAT, HEADER_BYTES_MAX, Header, MAGIC, Progress, ROW_KEY_BYTES_MAX, ROW_VALUE_BYTES_MAX, ROWS_FORMAT,
    TRAILER_BYTES_MAX, Trailer,
};
use crate::codec;
use crate::ports::{ScanRange, StateView, Table};

/// A snapshot that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its trailer.
    pub trailer: Trailer,
    /// Its bytes, all of them.
    pub file_bytes: u64,
    /// The SHA-256 at its end, over every byte before.
    pub sha256: Hash,
}

/// Writes the snapshot of `view` that begins with `header`. Making it durable is the caller's part; `watch` is called
/// after every frame.
///
/// # Errors
///
/// When the view cannot be read, the sink cannot be written, or `watch` breaks it off: the sink then holds no
/// snapshot.
pub fn write<W: Write>(
    view: &dyn StateView,
    header: &Header,
    sink: W,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let mut sink = HashedSink::new(sink);
    let encoded = codec::encode("a snapshot header", header)?;
    fits("the header", encoded.len(), HEADER_BYTES_MAX)?;
    sink.put(&MAGIC)?;
    sink.put(&FORMAT.to_be_bytes())?;
    sink.put(&ROWS_FORMAT.to_be_bytes())?;
    sink.put(&length(encoded.len())?)?;
    sink.put(&encoded)?;
    let mut body = Body { frames: FrameWriter::new(sink)?, counts: Counts::default(), watch };
    for table in Table::ALL {
        body.table(view, table)?;
    }
    let trailer = body.counts.trailer();
    let mut sink = body.frames.finish()?;
    let encoded = codec::encode("a snapshot trailer", &trailer)?;
    fits("the trailer", encoded.len(), TRAILER_BYTES_MAX)?;
    sink.put(&length(encoded.len())?)?;
    sink.put(&encoded)?;
    // Once more, for those who read from the end.
    sink.put(&length(encoded.len())?)?;
    let (file_bytes, sha256) = sink.finish()?;
    Ok(Written { trailer, file_bytes, sha256 })
}

struct Body<'w, W> {
    frames: FrameWriter<W>,
    counts: Counts,
    watch: &'w mut dyn FnMut(&Progress) -> ControlFlow<()>,
}

impl<W: Write> Body<'_, W> {
    fn table(&mut self, view: &dyn StateView, table: Table) -> Result<(), WriteError> {
        let mut outcome = Ok(());
        let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
        view.scan(table, &everything, &mut |key, value| {
            outcome = self.row(table, key, value);
            outcome.is_ok()
        })?;
        outcome
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        fits("the key of a row", key.len(), ROW_KEY_BYTES_MAX)?;
        fits("a row", value.len(), ROW_VALUE_BYTES_MAX)?;
        self.counts.row(table, key, value);
        let mut frames = self.frames.put(&[table as u8])?;
        for part in [&length(key.len())?, &length(value.len())?, key, value] {
            frames += self.frames.put(part)?;
        }
        if frames > 0 {
            let progress = self.counts.progress(self.frames.sink.bytes);
            if (self.watch)(&progress).is_break() {
                return Err(WriteError::Cancelled);
            }
        }
        Ok(())
    }
}

fn fits(what: &'static str, given: usize, max: usize) -> Result<(), WriteError> {
    if given <= max { Ok(()) } else { Err(WriteError::TooLarge { what, given, max }) }
}
