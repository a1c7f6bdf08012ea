//! Reading a snapshot, front to back; and its ends alone, for a listing.

use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;

use super::error::SnapshotError;
use super::frame::{FrameReader, HashedInput, bounded};
use super::{
    FORMAT, HEADER_BYTES_MAX, Header, MAGIC, ROW_KEY_BYTES_MAX, ROW_VALUE_BYTES_MAX, ROWS_FORMAT,
    TRAILER_BYTES_MAX, Trailer,
};
use crate::codec;
use crate::ports::Table;

/// Bytes after the trailer: its length once more, and the hash.
const TAIL_BYTES: u64 = 4 + 32;

/// A row of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Bytes,
}

/// A snapshot whose header is read.
pub(crate) struct Reader<R> {
    pub header: Header,
    pub frames: FrameReader<R>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn open(input: R) -> Result<Self, SnapshotError> {
        let mut input = HashedInput::new(input);
        let header = header(&mut input)?;
        Ok(Self { header, frames: FrameReader::new(input)? })
    }

    /// The next row; `None` after the last.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        if !self.frames.has_more()? {
            return Ok(None);
        }
        let [number] = self.frames.array()?;
        let key_bytes = u32::from_be_bytes(self.frames.array()?) as usize;
        let value_bytes = u32::from_be_bytes(self.frames.array()?) as usize;
        bounded("the key of a row", key_bytes, ROW_KEY_BYTES_MAX)?;
        bounded("a row", value_bytes, ROW_VALUE_BYTES_MAX)?;
        let table = Table::of_number(number)
            .ok_or_else(|| self.frames.input.damaged(format!("there is no table {number}")))?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        self.frames.take(key_bytes, &mut key)?;
        self.frames.take(value_bytes, &mut value)?;
        Ok(Some(Row { table, key, value: value.into() }))
    }

    /// Reads the trailer and compares the hash; also how many bytes the file has, and its hash.
    pub(crate) fn finish(self) -> Result<(Trailer, u64, [u8; 32]), SnapshotError> {
        let mut input = self.frames.input;
        let length = input.u32()? as usize;
        bounded("the trailer", length, TRAILER_BYTES_MAX)?;
        let mut encoded = Vec::new();
        input.take(length, &mut encoded)?;
        if input.u32()? as usize != length {
            return Err(input.damaged("the trailer has two lengths"));
        }
        let trailer = codec::decode("a snapshot trailer", &encoded)
            .map_err(|error| input.damaged(error.to_string()))?;
        let (bytes, hash) = input.finish()?;
        Ok((trailer, bytes, hash))
    }
}

fn header<R: Read>(input: &mut HashedInput<R>) -> Result<Header, SnapshotError> {
    if input.array()? != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    match input.u32()? {
        FORMAT => {}
        found => return Err(SnapshotError::format(found)),
    }
    match input.u32()? {
        ROWS_FORMAT => {}
        found => return Err(SnapshotError::rows_format(found)),
    }
    let length = input.u32()? as usize;
    bounded("the header", length, HEADER_BYTES_MAX)?;
    let mut encoded = Vec::new();
    input.take(length, &mut encoded)?;
    codec::decode("a snapshot header", &encoded).map_err(|error| input.damaged(error.to_string()))
}

/// What the two ends of a snapshot say; its rows are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The SHA-256 that stands at its end.
    pub sha256: [u8; 32],
}

/// Reads header and trailer of a snapshot, for a listing: damage between them goes unnoticed.
///
/// # Errors
///
/// When the file is no snapshot of a known format, or ends too early.
pub fn summarise<F: Read + Seek>(mut file: F) -> Result<Summary, SnapshotError> {
    let mut input = HashedInput::new(&mut file);
    let header = header(&mut input)?;
    let after_header = input.bytes;
    let file_bytes = file.seek(SeekFrom::End(0)).map_err(SnapshotError::Io)?;
    let truncated = SnapshotError::Truncated { at_byte: file_bytes };
    let Some(at) = file_bytes.checked_sub(TAIL_BYTES).filter(|at| *at > after_header) else {
        return Err(truncated);
    };
    file.seek(SeekFrom::Start(at)).map_err(SnapshotError::Io)?;
    let mut tail = HashedInput::new(&mut file);
    let (length, sha256) = (tail.u32()? as usize, tail.array()?);
    bounded("the trailer", length, TRAILER_BYTES_MAX)?;
    let Some(at) = at.checked_sub(length as u64).filter(|at| *at > after_header) else {
        return Err(truncated);
    };
    file.seek(SeekFrom::Start(at)).map_err(SnapshotError::Io)?;
    let mut encoded = Vec::new();
    let mut input = HashedInput::new(&mut file);
    input.take(length, &mut encoded)?;
    let trailer = codec::decode("a snapshot trailer", &encoded)
        .map_err(|error| SnapshotError::Damaged { at_byte: file_bytes, what: error.to_string() })?;
    Ok(Summary { header, trailer, file_bytes, sha256 })
}
