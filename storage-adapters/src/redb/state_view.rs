use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use ::redb::ReadTransaction;
use bytes::Bytes;
use ledger_core::ports::{AppliedState, ScanRange, StateView, StoreError, Table};

use super::failure::{Failure, guarded};
use super::row::{self, RowTable};
use super::state_store::{Content, RowTableReader, definition};

/// One read transaction of each file, begun while no commit was under way. Pages that it shows are not
/// used again before it goes, so the files grow by what changes meanwhile.
pub(super) struct RedbStateView {
    pub(super) state: ReadTransaction,
    pub(super) blocks: ReadTransaction,
    pub(super) applied: Option<AppliedState>,
    /// Dropped after the transactions: an install may replace the content meanwhile, and a closed file shows nothing.
    pub(super) _content: Arc<Content>,
}

impl RedbStateView {
    fn reader(&self, table: Table) -> Result<RowTableReader, Failure> {
        let file = if table.is_append_only() { &self.blocks } else { &self.state };
        Ok(file.open_table(definition(table))?)
    }
}

impl StateView for RedbStateView {
    fn applied(&self) -> Option<&AppliedState> {
        self.applied.as_ref()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded("read a row", || {
            let Some(framed) = self.reader(table)?.get(key)? else { return Ok(None) };
            Ok(Some(Bytes::copy_from_slice(row::open(table.into(), key, framed.value())?)))
        })
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        scan(|| self.reader(table), table, range, visit)
    }
}

/// Scans the rows of a table; a panic of the visitor is the caller's, only redb's become errors.
pub(super) fn scan(
    reader: impl FnOnce() -> Result<RowTableReader, Failure>,
    table: Table,
    range: &ScanRange,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    let visitor_panic = Cell::new(None);
    let mut visit = |key: &[u8], value: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| visit(key, value))).unwrap_or_else(|payload| {
            visitor_panic.set(Some(payload));
            false
        })
    };
    let scanned = guarded("scan rows", || scan_rows(&reader()?, table, range, &mut visit));
    if let Some(payload) = visitor_panic.take() {
        resume_unwind(payload);
    }
    scanned
}

fn scan_rows(
    rows: &RowTableReader,
    table: Table,
    range: &ScanRange,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), Failure> {
    let start = range.start.as_slice().max(range.prefix.as_slice());
    let mut previous: Option<Vec<u8>> = None;
    for entry in rows.range(start..)? {
        let (key, framed) = entry?;
        let key = key.value();
        // Each row carries its own key, so rows out of order mean that a page stands in another's place.
        if previous.as_deref().is_some_and(|previous| previous >= key) {
            return Err(RowTable::from(table).corrupt(key).into());
        }
        if !key.starts_with(&range.prefix) {
            break;
        }
        if !visit(key, row::open(table.into(), key, framed.value())?) {
            break;
        }
        let previous = previous.get_or_insert_default();
        previous.clear();
        previous.extend_from_slice(key);
    }
    Ok(())
}
