//! What writer and reader count alike.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Progress, Trailer};
use crate::ports::Table;

/// Bytes of a row beside its key and value: table and two lengths.
const ROW_OVERHEAD_BYTES: u64 = 9;

/// The numbers of a trailer while rows pass.
#[derive(Default)]
pub(super) struct Counts {
    rows: BTreeMap<Table, u64>,
    keys: BTreeMap<u64, u64>,
    row_count: u64,
    plain_bytes: u64,
    idempotency: Sha256,
}

impl Counts {
    pub(super) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        *self.rows.entry(table).or_default() += 1;
        self.row_count += 1;
        let bytes = key.len() as u64 + value.len() as u64 + ROW_OVERHEAD_BYTES;
        self.plain_bytes = self.plain_bytes.saturating_add(bytes);
        match table {
            Table::Entities | Table::Relationships => {
                if let Some(vault) = vault_of(key) {
                    *self.keys.entry(vault).or_default() += 1;
                }
            }
            Table::Idempotency => {
                for part in [key, value] {
                    self.idempotency.update((part.len() as u64).to_be_bytes());
                    self.idempotency.update(part);
                }
            }
            _ => {}
        }
    }

    pub(super) fn progress(&self, file_bytes: u64) -> Progress {
        Progress { rows: self.row_count, plain_bytes: self.plain_bytes, file_bytes }
    }

    pub(super) fn trailer(&self) -> Trailer {
        Trailer {
            rows: self.rows.iter().map(|(table, count)| (*table as u8, *count)).collect(),
            keys: self.keys.iter().map(|(vault, count)| (*vault, *count)).collect(),
            plain_bytes: self.plain_bytes,
            idempotency_digest: self.idempotency.clone().finalize().into(),
        }
    }
}

/// The vault's number at the beginning of a row key.
pub(super) fn vault_of(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|number| u64::from_be_bytes(*number))
}
