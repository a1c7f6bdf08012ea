//! A file that is only read, below a database that may want to write: what it writes stays in memory.
//!
//! redb makes a file good that its last writer did not close, and a reader alone cannot do that. Here it does so in
//! memory: the file keeps every byte, whatever ended its writer.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::redb::{BackendError, StorageBackend};

/// What is kept of the file's content is kept by pieces of this length.
const PIECE_BYTES: u64 = 4_096;
/// Most that is kept: making good a file whose commits saved their free list takes some pages.
const PIECES_MAX: usize = 65_536;

/// A backend whose writes never reach the one below.
#[derive(Debug)]
pub(super) struct UnwrittenBackend<B> {
    inner: B,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// Pieces that were written to, by their number.
    pieces: BTreeMap<u64, Vec<u8>>,
    length: u64,
    /// So far the file below is part of the content.
    inner_length: u64,
}

impl<B: StorageBackend> UnwrittenBackend<B> {
    pub(super) fn new(inner: B) -> io::Result<Self> {
        let length = inner.len()?;
        let changes = Changes { pieces: BTreeMap::new(), length, inner_length: length };
        Ok(Self { inner, changes: Mutex::new(changes) })
    }

    /// What stands at a place of one piece.
    fn read_piece(&self, changes: &Changes, number: u64, within: usize, out: &mut [u8]) -> io::Result<()> {
        if let Some(piece) = changes.pieces.get(&number) {
            let from = piece.get(within..within + out.len()).ok_or(io::ErrorKind::InvalidInput)?;
            out.copy_from_slice(from);
            return Ok(());
        }
        let offset = number * PIECE_BYTES + within as u64;
        let there = changes.inner_length.saturating_sub(offset).min(out.len() as u64) as usize;
        let (below, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if below.is_empty() { Ok(()) } else { self.inner.read(offset, below) }
    }

    /// Every change of the content is whole.
    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pieces of a range of the content: number, place in the piece, and where in a buffer of that range.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0_usize;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PIECE_BYTES) as usize;
        let end = length.min(done + PIECE_BYTES as usize - within);
        let range = done..end;
        done = end;
        (!range.is_empty()).then_some((at / PIECE_BYTES, within, range))
    })
}

impl<B: StorageBackend> StorageBackend for UnwrittenBackend<B> {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let changes = self.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > changes.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pieces(offset, out.len()).try_for_each(|(number, within, range)| {
            let out = out.get_mut(range).ok_or(io::ErrorKind::InvalidInput)?;
            self.read_piece(&changes, number, within, out)
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut changes = self.lock();
        changes.length = len;
        // What was cut off does not come back when it grows again.
        changes.inner_length = changes.inner_length.min(len);
        changes.pieces.split_off(&len.div_ceil(PIECE_BYTES));
        if let Some(last) = changes.pieces.get_mut(&(len / PIECE_BYTES)) {
            last.iter_mut().skip((len % PIECE_BYTES) as usize).for_each(|byte| *byte = 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut changes = self.lock();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > changes.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, range) in pieces(offset, data.len()) {
            if !changes.pieces.contains_key(&number) {
                if changes.pieces.len() >= PIECES_MAX {
                    return Err(io::Error::other("the file needs more repair than fits into memory"));
                }
                let mut piece = vec![0; PIECE_BYTES as usize];
                self.read_piece(&changes, number, 0, &mut piece)?;
                changes.pieces.insert(number, piece);
            }
            let piece = changes.pieces.get_mut(&number);
            let to = piece.and_then(|piece| piece.get_mut(within..within + range.len()));
            let (Some(to), Some(from)) = (to, data.get(range)) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }

    /// Whoever only reads shares the file with others that do, and keeps writers out.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use ::redb::backends::InMemoryBackend;

    use super::*;

    fn content(backend: &impl StorageBackend) -> Vec<u8> {
        let mut content = vec![0; backend.len().unwrap() as usize];
        backend.read(0, &mut content).unwrap();
        content
    }

    #[test]
    fn what_is_written_is_read_again_and_the_file_below_stays_as_it_is() {
        let below = InMemoryBackend::new();
        below.set_len(10_000).unwrap();
        below.write(0, &[7; 10_000]).unwrap();
        let over = UnwrittenBackend::new(below).unwrap();
        let mut expected = vec![7; 10_000];
        // Within a piece, over the bounds of several, and in two steps.
        for (offset, length, byte) in [(10, 20, 1), (4_000, 5_000, 2), (4_090, 10, 3), (9_999, 1, 4)] {
            over.write(offset, &vec![byte; length]).unwrap();
            expected[offset as usize..offset as usize + length].fill(byte);
            assert_eq!(content(&over), expected);
        }
        over.set_len(4_100).unwrap();
        over.set_len(12_000).unwrap();
        expected.truncate(4_100);
        expected.resize(12_000, 0);
        assert_eq!(content(&over), expected, "what was cut off is gone");
        assert!(over.write(11_999, &[0; 2]).is_err() && over.read(12_000, &mut [0]).is_err());
        assert_eq!(content(&over.inner), vec![7; 10_000]);
    }
}
