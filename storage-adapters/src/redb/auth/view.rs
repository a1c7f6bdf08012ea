//! Reading: one state of the file.

use std::ops::Bound;

use ::redb::{ReadOnlyTable, ReadableTable};
use auth_core::ports::{
    AuthStoreError, CHANGE_BYTES_PER_READ_MAX, Change, ChangePage, Direction, ExpiredRecord, Page, Position,
    RANGE_BYTES_PER_READ_MAX, RangeRead, ReadSet, Record, Row, Snapshot,
};
use auth_core::{Key, Millis};

use super::layout::{self, CHANGE_ROWS, END_ROWS, RECORD_ROWS, StoredRecord};
use crate::redb::one_file::{Failure, damaged_row};
use crate::redb::row;

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What was committed when it was made.
pub(super) struct View {
    pub last: Position,
    pub records: Rows,
    pub ends: Rows,
    pub changes: Rows,
}

impl View {
    pub(super) fn read(&self, reads: &ReadSet, now: Millis) -> Result<Snapshot, Failure> {
        let records = reads.keys.iter().map(|key| self.record(key, now)).collect::<Result<_, _>>()?;
        let mut bytes_left = RANGE_BYTES_PER_READ_MAX;
        let pages = reads.ranges.iter().map(|range| self.page(range, now, &mut bytes_left));
        let pages = pages.collect::<Result<_, _>>()?;
        Ok(Snapshot { position: self.last, records, pages })
    }

    fn record(&self, key: &Key, now: Millis) -> Result<Option<Record>, Failure> {
        let Some(framed) = self.records.get(key.as_bytes())? else { return Ok(None) };
        let stored = open_record(key.as_bytes(), framed.value())?;
        Ok((!stored.is_expired(now)).then(|| stored.to_record()))
    }

    fn page(&self, read: &RangeRead, now: Millis, bytes_left: &mut usize) -> Result<Page, Failure> {
        let mut rows: Vec<Row> = Vec::new();
        if read.range.is_empty() {
            return Ok(Page { rows, rest: None });
        }
        let end = read.range.end().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = self.records.range::<&[u8]>((Bound::Included(read.range.first()), end))?;
        loop {
            let next = match read.direction {
                Direction::Ascending => found.next(),
                Direction::Descending => found.next_back(),
            };
            let Some(entry) = next else { return Ok(Page { rows, rest: None }) };
            let (key, framed) = entry?;
            let stored = open_record(key.value(), framed.value())?;
            if stored.is_expired(now) {
                continue;
            }
            let key = Key::decode(key.value()).ok_or_else(|| damaged_row(RECORD_ROWS, key.value()))?;
            let row = Row { key, record: stored.to_record() };
            if rows.len() >= read.rows_max || (!rows.is_empty() && row.size_bytes() > *bytes_left) {
                let rest = read.rest_behind(rows.last().map(|row| &row.key));
                return Ok(Page { rows, rest: Some(rest) });
            }
            *bytes_left = bytes_left.saturating_sub(row.size_bytes());
            rows.push(row);
        }
    }

    pub(super) fn expired(&self, now: Millis, rows_max: usize) -> Result<Vec<ExpiredRecord>, Failure> {
        let mut expired = Vec::new();
        for entry in self.ends.iter()?.take(rows_max) {
            let (key, framed) = entry?;
            row::open(END_ROWS, key.value(), framed.value())?;
            let decoded = layout::decode_end_key(key.value());
            let (expires_at, key) = decoded.ok_or_else(|| damaged_row(END_ROWS, key.value()))?;
            if expires_at > now {
                break;
            }
            expired.push(ExpiredRecord { key, expires_at });
        }
        Ok(expired)
    }

    pub(super) fn changes(
        &self,
        after: Position,
        commits_max: usize,
    ) -> Result<Result<ChangePage, AuthStoreError>, Failure> {
        // Positions have no gaps.
        let oldest = match self.changes.first()? {
            Some((key, _)) => Position(change_position(key.value())?.0.saturating_sub(1)),
            None => self.last,
        };
        if after < oldest || after > self.last {
            return Ok(Err(AuthStoreError::PositionLost { oldest, newest: self.last }));
        }
        let first = after.0.saturating_add(1).to_be_bytes();
        let mut changes: Vec<Change> = Vec::new();
        let (mut bytes, mut expected) = (0_usize, after);
        for entry in self.changes.range::<&[u8]>(&first[..]..)?.take(commits_max) {
            let (key, framed) = entry?;
            expected = Position(expected.0.saturating_add(1));
            let position = change_position(key.value())?;
            if position != expected {
                return Err(damaged_row(CHANGE_ROWS, &expected.0.to_be_bytes()));
            }
            let value = row::open(CHANGE_ROWS, key.value(), framed.value())?;
            let change = layout::decode_change(position, value);
            let change = change.ok_or_else(|| damaged_row(CHANGE_ROWS, key.value()))?;
            bytes = bytes.saturating_add(change.size_bytes());
            if bytes > CHANGE_BYTES_PER_READ_MAX && !changes.is_empty() {
                break;
            }
            changes.push(change);
        }
        let next = changes.last().map_or(after, |change| change.position);
        Ok(Ok(ChangePage { changes, next }))
    }
}

fn change_position(key: &[u8]) -> Result<Position, Failure> {
    layout::decode_u64(key).map(Position).ok_or_else(|| damaged_row(CHANGE_ROWS, key))
}

/// A framed record.
pub(super) fn open_record<'f>(key: &[u8], framed: &'f [u8]) -> Result<StoredRecord<'f>, Failure> {
    let value = row::open(RECORD_ROWS, key, framed)?;
    layout::decode_record(value).ok_or_else(|| damaged_row(RECORD_ROWS, key))
}
