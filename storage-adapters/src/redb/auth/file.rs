//! The file, and what is known of it before anybody asks.

use ::redb::{Durability, ReadableDatabase, ReadableTable, TableError, WriteTransaction};
use auth_core::ports::{CommitDigest, CommitId, Position};

use super::failure::RedbAuthError;
use super::layout::{self, CHANGES, COMMIT_ROWS, COMMITS, ENDS, FORGOTTEN, FORMAT, LAST, META_ROWS, RECORDS};
use super::view::View;
use crate::redb::format::META;
use crate::redb::one_file::{Failure, OneFile, Place, damaged_row};
use crate::redb::row;

/// What every commit is judged by, beside the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last position.
    pub last: Position,
    /// The last id that was forgotten: it and those before it are refused.
    pub forgotten: Option<CommitId>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct AuthFile {
    file: OneFile,
    name: String,
}

impl AuthFile {
    /// Opens the file, or makes it.
    pub(super) fn open_or_create(place: &Place) -> Result<(Self, Progress), RedbAuthError> {
        match Self::open(place)? {
            Some(opened) => Ok(opened),
            None => Ok((Self::of(place, place.create(initialise)?), Progress::default())),
        }
    }

    /// Opens the file; `None` when there is none.
    pub(super) fn open(place: &Place) -> Result<Option<(Self, Progress)>, RedbAuthError> {
        let opened = place.open(progress)?;
        Ok(opened.map(|(file, progress)| (Self::of(place, file), progress)))
    }

    fn of(place: &Place, file: OneFile) -> Self {
        Self { file, name: place.name.clone() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A transaction that is durable when it is committed, with one fsync.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Failure> {
        let mut write = self.file.db()?.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        Ok(write)
    }

    /// What is committed now.
    pub(super) fn view(&self, last: Position) -> Result<View, Failure> {
        let read = self.file.db()?.begin_read()?;
        Ok(View {
            last,
            records: read.open_table(RECORDS)?,
            ends: read.open_table(ENDS)?,
            changes: read.open_table(CHANGES)?,
        })
    }

    /// What is known of commits.
    pub(super) fn known(&self, ids: &[CommitId]) -> Result<Vec<Option<(CommitDigest, Position)>>, Failure> {
        let commits = self.file.db()?.begin_read()?.open_table(COMMITS)?;
        ids.iter().map(|id| known(&commits, *id)).collect()
    }

    pub(super) fn syncs(&self) -> (u64, u64) {
        self.file.syncs()
    }

    pub(super) fn sync_failed(&self) -> bool {
        self.file.counters().sync_failed()
    }

    pub(super) fn was_full(&self) -> bool {
        self.file.counters().was_full()
    }
}

/// What is known of a commit.
pub(super) fn known(
    commits: &impl ReadableTable<&'static [u8], &'static [u8]>,
    id: CommitId,
) -> Result<Option<(CommitDigest, Position)>, Failure> {
    let key = id.to_bytes();
    let Some(framed) = commits.get(&key[..])? else { return Ok(None) };
    let value = row::open(COMMIT_ROWS, &key, framed.value())?;
    layout::decode_commit(value).map(Some).ok_or_else(|| damaged_row(COMMIT_ROWS, &key))
}

fn initialise(file: &OneFile) -> Result<(), Failure> {
    let mut write = file.db()?.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    FORMAT.write(&mut write.open_table(META)?)?;
    put_progress(&write, Progress::default())?;
    for table in [RECORDS, ENDS, COMMITS, CHANGES] {
        write.open_table(table)?;
    }
    write.commit()?;
    Ok(())
}

/// Writes what every commit is judged by.
pub(super) fn put_progress(write: &WriteTransaction, progress: Progress) -> Result<(), Failure> {
    let mut meta = write.open_table(META)?;
    let mut framed = Vec::new();
    row::seal(&mut framed, META_ROWS, LAST, &progress.last.0.to_be_bytes());
    meta.insert(LAST, framed.as_slice())?;
    if let Some(forgotten) = progress.forgotten {
        row::seal(&mut framed, META_ROWS, FORGOTTEN, &forgotten.to_bytes());
        meta.insert(FORGOTTEN, framed.as_slice())?;
    }
    Ok(())
}

fn progress(file: &OneFile) -> Result<Progress, Failure> {
    let read = file.db()?.begin_read()?;
    let meta = match read.open_table(META) {
        Err(TableError::Storage(error)) => return Err(error.into()),
        other => other.map_err(|_| Failure::Foreign)?,
    };
    FORMAT.check(&meta)?;
    let row = |key: &[u8]| -> Result<Option<Vec<u8>>, Failure> {
        let Some(framed) = meta.get(key)? else { return Ok(None) };
        Ok(Some(row::open(META_ROWS, key, framed.value())?.to_vec()))
    };
    let last = row(LAST)?.and_then(|row| layout::decode_u64(&row));
    let last = Position(last.ok_or_else(|| damaged_row(META_ROWS, LAST))?);
    let forgotten = match row(FORGOTTEN)? {
        None => None,
        Some(row) => Some(layout::decode_id(&row).ok_or_else(|| damaged_row(META_ROWS, FORGOTTEN))?),
    };
    Ok(Progress { last, forgotten })
}
