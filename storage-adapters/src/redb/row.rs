//! Framing of rows: what tells a row that was written from one that the disk made up.

use ledger_core::ports::{StoreError, Table};

/// Bytes that the framing adds to a value.
const CHECKSUM_BYTES: usize = 4;

/// A table whose rows are framed. The number is part of every checksum, so that a row which turns up
/// in another table, or in another file, does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowTable {
    pub(super) number: u8,
    pub(super) name: &'static str,
}

impl RowTable {
    pub(super) const RAFT_META: Self = Self { number: 0xE0, name: "raft.db meta" };
    pub(super) const RAFT_SIGNED: Self = Self { number: 0xE1, name: "raft.db signed" };
    pub(super) const STATE_META: Self = Self { number: 0xE2, name: "state.db meta" };
    /// The row that says what a file is; the same in all three, so that a file under a wrong name is
    /// told from a damaged one.
    pub(super) const FORMAT: Self = Self { number: 0xE3, name: "format" };

    /// The error for a row of this table that is not what was written.
    pub(super) fn corrupt(self, key: &[u8]) -> StoreError {
        corrupt(self.name, key)
    }
}

impl From<Table> for RowTable {
    fn from(table: Table) -> Self {
        Self { number: table as u8, name: table.name() }
    }
}

/// Replaces the content of `framed` with the framed value.
pub(super) fn seal(framed: &mut Vec<u8>, table: RowTable, key: &[u8], value: &[u8]) {
    framed.clear();
    framed.reserve(CHECKSUM_BYTES.saturating_add(value.len()));
    framed.extend_from_slice(&checksum(table, key, value).to_be_bytes());
    framed.extend_from_slice(value);
}

/// The value inside a framed row, once its checksum is found right.
pub(super) fn open<'a>(table: RowTable, key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let (stored, value) = framed.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(|| table.corrupt(key))?;
    if u32::from_be_bytes(*stored) != checksum(table, key, value) {
        return Err(table.corrupt(key));
    }
    Ok(value)
}

/// The error for a row that is not what was written.
pub(super) fn corrupt(table: &'static str, key: &[u8]) -> StoreError {
    StoreError::Corrupt { table, key: hex(key) }
}

/// The key's length is part of the sum: no byte can move between key and value.
fn checksum(table: RowTable, key: &[u8], value: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&[table.number]);
    let sum = crc32c::crc32c_append(sum, &(key.len() as u64).to_be_bytes());
    let sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, value)
}

fn hex(key: &[u8]) -> String {
    use std::fmt::Write;
    key.iter().fold(String::with_capacity(key.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
