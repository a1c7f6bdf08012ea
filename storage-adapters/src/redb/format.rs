//! The format row: which file this is, and how its rows are laid out.
//!
//! It stands in table `meta` under key `format` of every file, framed as every row, and keeps this
//! layout for ever: version (u32, big-endian), then the file's name in ASCII.

use std::path::Path;

use ::redb::{ReadableTable, Table as RedbTable, TableDefinition};
use ledger_core::ports::{StoreError, Table};

use super::failure::{Failure, OpenError};
use super::row::{self, RowTable};

/// The format of all three files that this program writes.
pub(super) const FORMAT_VERSION: u32 = 2;

/// The oldest format that this program can migrate. Between the two lie new tables only.
const OLDEST_VERSION: u32 = 1;

/// Key of the format row.
pub(super) const FORMAT_KEY: &[u8] = b"format";

/// A table of framed rows.
pub(super) type RowDefinition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Every file's table of single rows.
pub(super) const META: RowDefinition = TableDefinition::new("meta");

/// Which of the three files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Raft,
    Blocks,
    State,
}

impl FileKind {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Raft => "raft.db",
            Self::Blocks => "blocks.db",
            Self::State => "state.db",
        }
    }

    /// The tables of the state that live in this file.
    pub(super) fn state_tables(self) -> impl Iterator<Item = Table> {
        Table::ALL.into_iter().filter(move |table| match self {
            Self::Raft => false,
            Self::Blocks => table.is_append_only(),
            Self::State => !table.is_append_only(),
        })
    }
}

/// How a file's format stands to that of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatAge {
    Present,
    /// It can be migrated.
    Older(u32),
}

/// Writes the format row of a file.
pub(super) fn write(
    meta: &mut RedbTable<'_, &'static [u8], &'static [u8]>,
    kind: FileKind,
) -> Result<(), Failure> {
    let mut value = FORMAT_VERSION.to_be_bytes().to_vec();
    value.extend_from_slice(kind.file_name().as_bytes());
    let mut framed = Vec::new();
    row::seal(&mut framed, RowTable::FORMAT, FORMAT_KEY, &value);
    meta.insert(FORMAT_KEY, framed.as_slice())?;
    Ok(())
}

/// Refuses a file of another kind, or of a format that this program does not know; tells how old it is.
pub(super) fn check(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    kind: FileKind,
    path: &Path,
) -> Result<FormatAge, Failure> {
    let foreign = || OpenError::Foreign { path: path.to_owned(), expected: kind.file_name() };
    let stored = meta.get(FORMAT_KEY)?.ok_or_else(foreign)?;
    let value = row::open(RowTable::FORMAT, FORMAT_KEY, stored.value())?;
    let (version, name) =
        value.split_first_chunk::<4>().ok_or_else(|| RowTable::FORMAT.corrupt(FORMAT_KEY))?;
    let found = u32::from_be_bytes(*version);
    if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&found) {
        let what = path.display().to_string();
        return Err(StoreError::Format { what, found, known: FORMAT_VERSION }.into());
    }
    if name != kind.file_name().as_bytes() {
        return Err(foreign().into());
    }
    Ok(if found == FORMAT_VERSION { FormatAge::Present } else { FormatAge::Older(found) })
}
