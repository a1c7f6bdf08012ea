//! The file: made whole or not at all, read whole when it is opened, changed in durable transactions.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redb::{
    Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table as RedbTable, TableError,
    WriteTransaction,
};

use super::failure::RedbRateError;
use super::layout::{
    self, EPOCH, FORMAT, META_ROWS, POLICIES, POLICY_ROWS, RATE_ROWS, RATES, RowKey, SECRET, Secret,
    StoredPolicy,
};
use crate::redb::failure::panic_message;
use crate::redb::format::META;
use crate::redb::one_file::{Failure, OneFile, Place, damaged_row};
use crate::redb::row::{self, RowTable};

type Bytes = &'static [u8];

/// The open file.
#[derive(Debug)]
pub(super) struct RateFile(OneFile);

/// All that a file holds.
#[derive(Debug)]
pub(super) struct Content {
    pub epoch_ns: u64,
    pub secret: Secret,
    pub policies: BTreeMap<u32, StoredPolicy>,
    pub rows: BTreeMap<RowKey, u64>,
}

/// What one transaction does.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Written when it is there: the epoch of all words from then on.
    pub epoch_ns: Option<u64>,
    /// Encoded. A policy that goes takes its rows along.
    pub policies: BTreeMap<u32, Option<Vec<u8>>>,
    /// Words; `None` removes the row.
    pub rows: BTreeMap<RowKey, Option<u64>>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.epoch_ns.is_none() && self.policies.is_empty() && self.rows.is_empty()
    }
}

impl RateFile {
    /// Opens the file; `None` when there is none.
    pub(super) fn open(place: &Place) -> Result<Option<(Self, Content)>, RedbRateError> {
        let opened = place.open(content)?;
        Ok(opened.map(|(file, content)| (Self(file), content)))
    }

    /// Makes a file of that content, in the place of the one that may be there: durable, or as if nothing had been done.
    pub(super) fn create(place: &Place, secret: Secret, change: &Change) -> Result<Self, RedbRateError> {
        Ok(Self(place.create(|file| initialise(file, secret, change))?))
    }

    /// Makes a change durable: one transaction, one fsync. After an error it is unknown what the disk holds.
    pub(super) fn commit(&self, change: &Change) -> Result<(), RedbRateError> {
        let failed = |reason: String| RedbRateError::Failed { reason };
        match catch_unwind(AssertUnwindSafe(|| write(&self.0, change, |_| Ok(())))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(failed(failure.to_string())),
            Err(payload) => Err(failed(panic_message(payload.as_ref()))),
        }
    }

    /// fsyncs since it was opened, and how often it grew, each with an fsync.
    pub(super) fn syncs(&self) -> (u64, u64) {
        self.0.syncs()
    }
}

fn initialise(file: &OneFile, secret: Secret, change: &Change) -> Result<(), Failure> {
    write(file, change, |meta| {
        let mut framed = Vec::new();
        FORMAT.write(meta)?;
        row::seal(&mut framed, META_ROWS, SECRET, &secret.0);
        meta.insert(SECRET, framed.as_slice())?;
        Ok(())
    })
}

fn write(
    file: &OneFile,
    change: &Change,
    also: impl FnOnce(&mut RedbTable<'_, Bytes, Bytes>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut write = file.db()?.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    let mut meta = write.open_table(META)?;
    also(&mut meta)?;
    let mut framed = Vec::new();
    if let Some(epoch_ns) = change.epoch_ns {
        row::seal(&mut framed, META_ROWS, EPOCH, &epoch_ns.to_be_bytes());
        meta.insert(EPOCH, framed.as_slice())?;
    }
    drop(meta);
    put_policies(&write, change)?;
    let mut rates = write.open_table(RATES)?;
    for (key, word) in &change.rows {
        let key = key.to_bytes();
        match word {
            Some(word) => {
                row::seal(&mut framed, RATE_ROWS, &key, &word.to_be_bytes());
                rates.insert(&key[..], framed.as_slice())?;
            }
            None => {
                rates.remove(&key[..])?;
            }
        }
    }
    drop(rates);
    write.commit()?;
    Ok(())
}

fn content(file: &OneFile) -> Result<Content, Failure> {
    let read = file.db()?.begin_read()?;
    let meta = match read.open_table(META) {
        Err(TableError::Storage(error)) => return Err(error.into()),
        other => other.map_err(|_| Failure::Foreign)?,
    };
    FORMAT.check(&meta)?;
    let single = |key: &[u8]| {
        let framed = meta.get(key)?.ok_or_else(|| Failure::Row("a row of meta is missing".to_owned()))?;
        Ok::<_, Failure>(row::open(META_ROWS, key, framed.value())?.to_vec())
    };
    let epoch_ns = layout::decode_u64(&single(EPOCH)?).ok_or_else(|| damaged_row(META_ROWS, EPOCH))?;
    let secret = single(SECRET)?.as_slice().try_into().map_err(|_| damaged_row(META_ROWS, SECRET))?;
    let policies = rows_of(&read, POLICIES, POLICY_ROWS, |key, value| {
        Some((layout::decode_u32(key)?, layout::decode_policy(value)?))
    })?;
    let rows = rows_of(&read, RATES, RATE_ROWS, |key, value| {
        let (key, word) = (RowKey::from_bytes(key)?, layout::decode_u64(value)?);
        // A row goes with its policy.
        policies.contains_key(&key.policy).then_some((key, word))
    })?;
    Ok(Content { epoch_ns, secret: Secret(secret), policies, rows })
}

fn put_policies(write: &WriteTransaction, change: &Change) -> Result<(), Failure> {
    let mut policies = write.open_table(POLICIES)?;
    let mut rates = write.open_table(RATES)?;
    let mut framed = Vec::new();
    for (number, encoded) in &change.policies {
        let key = number.to_be_bytes();
        match encoded {
            Some(value) => {
                row::seal(&mut framed, POLICY_ROWS, &key, value);
                policies.insert(&key[..], framed.as_slice())?;
            }
            None => {
                policies.remove(&key[..])?;
                let (first, last) =
                    (RowKey::first_of(*number).to_bytes(), RowKey::last_of(*number).to_bytes());
                rates.retain_in(&first[..]..=&last[..], |_, _| false)?;
            }
        }
    }
    Ok(())
}

/// All rows of a table, each against its checksum.
fn rows_of<K: Ord, V>(
    read: &ReadTransaction,
    definition: crate::redb::format::RowDefinition,
    table: RowTable,
    decode: impl Fn(&[u8], &[u8]) -> Option<(K, V)>,
) -> Result<BTreeMap<K, V>, Failure> {
    let mut rows = BTreeMap::new();
    for entry in read.open_table(definition)?.iter()? {
        let (key, framed) = entry?;
        let value = row::open(table, key.value(), framed.value())?;
        let (key, value) = decode(key.value(), value).ok_or_else(|| damaged_row(table, key.value()))?;
        rows.insert(key, value);
    }
    Ok(rows)
}
