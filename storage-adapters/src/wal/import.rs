use std::path::Path;

use ledger_core::ports::{LogChange, LogRecord, LogStore, StoreError};

use super::directory::WalDirectory;
use super::failure::WalError;
use super::log_store::WalLogStore;
use super::options::WalOptions;

/// Bytes of records that one batch of the copy takes.
const BATCH_BYTES: usize = 4 << 20;

/// Copies all that another log store holds into a new log in `dir`, for a data directory that changes its
/// engine. The copy is made under another name, compared with the source, made durable, and only then
/// named: a crash leaves the source alone or a whole copy. The source must take no commits meanwhile.
///
/// # Errors
///
/// As [`WalLogStore::open`] and [`LogStore::read`]; [`WalError::Exists`] when `dir` has a log already.
pub fn import(source: &dyn LogStore, dir: &Path, options: WalOptions) -> Result<(), StoreError> {
    WalDirectory::make(dir, options, |copy| {
        copy_all(source, copy)?;
        compare(source, copy)
    })
}

fn copy_all(source: &dyn LogStore, copy: &WalLogStore) -> Result<(), StoreError> {
    let remembered = source.snapshot()?;
    let mut changes: Vec<LogChange> = remembered.purged.map(LogChange::PurgeThrough).into_iter().collect();
    changes.extend(remembered.vote.map(LogChange::SaveVote));
    changes.extend(remembered.committed.map(LogChange::SaveCommitted));
    changes.extend(remembered.signed.iter().copied().map(LogChange::SaveSigned));
    copy.commit(&changes)?;
    each_batch(source, |records| {
        copy.commit(&records.iter().cloned().map(LogChange::Append).collect::<Vec<_>>())
    })
}

fn compare(source: &dyn LogStore, copy: &WalLogStore) -> Result<(), StoreError> {
    let differs = |index| Err(WalError::ImportDiffers { index }.into_store_error("import the log"));
    let remembered = source.snapshot()?;
    if copy.snapshot()? != remembered {
        return differs(remembered.last.map_or(0, |last| last.index));
    }
    each_batch(source, |records| {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let copied = copy.read(first.id.index, last.id.index.saturating_add(1), usize::MAX)?;
        if copied == records { Ok(()) } else { differs(first.id.index) }
    })
}

/// All records, in order, a batch at a time.
fn each_batch(
    source: &dyn LogStore,
    mut visit: impl FnMut(&[LogRecord]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut next = 0;
    loop {
        let records = source.read(next, u64::MAX, BATCH_BYTES)?;
        let Some(last) = records.last() else { return Ok(()) };
        next = last.id.index.saturating_add(1);
        visit(&records)?;
    }
}
