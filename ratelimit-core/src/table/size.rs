//! How large a table is, and when it cannot be had.

use super::{LINE_BYTES, LINE_SLOTS, LINE_WORDS, STRIPES};

/// Lines of the smallest table: fewer would make two keys meet too often.
const LINES_MIN: u128 = 16;

/// How large a table is. All of it is reserved at once; what was never used is not resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Live keys that have a slot of their own; about one of 150 of them is in the sketch when so many are live.
    pub keys: u64,
    /// Bytes of the sketch that takes the keys beyond. 0 denies them instead.
    pub sketch_bytes: usize,
}

impl TableSize {
    /// What a sketch takes if nothing else is said: 4 MiB.
    pub const SKETCH_BYTES_DEFAULT: usize = 4 << 20;

    /// The most bytes that one table may reserve, sketch included: 16 GiB. That is 740 million keys of one word, 22 million
    /// keys of a log of 64, 722 thousand keys of 1,024 permits. A table that is larger is a mistake in a rule sooner than a
    /// wish; and since what is reserved is resident only when it is used, the system would grant it, and end the
    /// process when clients fill it.
    pub const BYTES_MAX: u64 = 16 << 30;

    /// Room for `keys` live keys, and the default sketch.
    pub const fn for_keys(keys: u64) -> Self {
        Self { keys, sketch_bytes: Self::SKETCH_BYTES_DEFAULT }
    }

    /// Bytes of a table of this size whose slots have so many words more.
    pub(crate) fn bytes(self, more_words: usize) -> Result<u64, TableError> {
        self.room(more_words).map(|room| room.bytes)
    }

    /// What a table of this size takes whose slots have so many words more. Whatever the numbers: nothing here wraps, since
    /// 2^64 keys of a few thousand words take less than 2^80 bytes.
    pub(super) fn room(self, more_words: usize) -> Result<Room, TableError> {
        // 69 % load: 23 bytes for each key of one word.
        let lines = (u128::from(self.keys) * 145 / (100 * LINE_SLOTS as u128)).max(LINES_MIN);
        let slots = lines * LINE_SLOTS as u128;
        let stripes = slots.min(STRIPES as u128);
        let words = slots * 2 + LINE_WORDS as u128 - 1 + slots * more_words as u128 + stripes;
        let bytes = words * (LINE_BYTES / LINE_WORDS) as u128 + self.sketch_bytes as u128;
        let too_large = TableError::TooLarge { keys: self.keys, bytes, bytes_max: Self::BYTES_MAX };
        if bytes > u128::from(Self::BYTES_MAX) {
            return Err(too_large);
        }
        // Only where addresses are shorter than the maximum.
        let fits = |count: u128| usize::try_from(count).map_err(|_| too_large);
        Ok(Room {
            lines: fits(lines)? as u64,
            stripes: fits(stripes)?,
            more_words,
            sketch_bytes: self.sketch_bytes,
            bytes: fits(bytes)? as u64,
        })
    }
}

/// What a table is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub lines: u64,
    pub stripes: usize,
    /// Words of each slot beside its tag and head.
    pub more_words: usize,
    pub sketch_bytes: usize,
    pub bytes: u64,
}

/// A table cannot be had; nothing was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// It would be larger than a table may be.
    #[error("a table for {keys} keys takes {bytes} bytes, {bytes_max} is the most: make room for fewer keys")]
    TooLarge {
        /// For how many keys it was to have room.
        keys: u64,
        /// What it would take.
        bytes: u128,
        /// The most: [`TableSize::BYTES_MAX`].
        bytes_max: u64,
    },
    /// The system does not give so much.
    #[error("the system has no {bytes} bytes for a table: make room for fewer keys")]
    NoMemory {
        /// What it would take.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_takes_is_known_whatever_is_asked_for() {
        let size = |keys| TableSize { keys, sketch_bytes: 0 };
        let bytes = |keys, more| size(keys).room(more).map(|room| room.bytes);
        assert_eq!(bytes(1_000_000, 0), Ok(1_450_000 * 16 + 7 * 8 + 1_024 * 8));
        assert_eq!(bytes(0, 2_048), Ok(64 * 2_050 * 8 + 7 * 8 + 64 * 8));
        // The figures of the documentation.
        assert!(bytes(740_000_000, 0).is_ok() && bytes(741_000_000, 0).is_err());
        assert!(bytes(22_000_000, 64).is_ok() && bytes(23_000_000, 64).is_err());
        assert!(bytes(722_000, 2_048).is_ok() && bytes(723_000, 2_048).is_err());
        let largest = 1_u128 << 64;
        let Err(TableError::TooLarge { bytes, .. }) = size(u64::MAX).room(2_048) else {
            panic!("it is too large")
        };
        assert!(bytes > largest * 145 / 100 * 16 * 1_024);
        let sketch = TableSize { keys: 1, sketch_bytes: usize::MAX };
        assert!(sketch.room(0).is_err());
    }
}
