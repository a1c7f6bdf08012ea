//! Walking the rows of a vault in pieces, damaged ones included.

use super::StateError;
use crate::overlay::Overlay;
use crate::ports::{ScanRange, StoreError, Table};

/// A stored row, or the key of one whose checksum does not match.
pub(super) enum FoundRow<'a> {
    Whole { key: &'a [u8], value: &'a [u8] },
    Corrupt { key: &'a [u8] },
}

/// Visits at most `limit` rows from `range.start`; returns where the next piece begins, `None` at the end.
pub(super) fn piece(
    overlay: &Overlay,
    table: Table,
    range: &ScanRange,
    limit: usize,
    visit: &mut dyn FnMut(FoundRow<'_>),
) -> Result<Option<Vec<u8>>, StateError> {
    let (mut count, mut next) = (0, None);
    let scanned = overlay.scan(table, range, &mut |key, value| {
        if count == limit {
            next = Some(key.to_vec());
            return false;
        }
        count += 1;
        visit(FoundRow::Whole { key, value });
        true
    });
    match scanned {
        Ok(()) => Ok(next),
        // A corrupt row ends a scan: note it, and go on behind it.
        Err(StoreError::Corrupt { table: name, key }) => {
            let Some(mut key) = from_hex(&key) else {
                return Err(StoreError::Corrupt { table: name, key }.into());
            };
            // A newer row may hide the corrupt one until the next flush.
            match overlay.get(table, &key) {
                Ok(Some(value)) => visit(FoundRow::Whole { key: &key, value: &value }),
                Ok(None) => {}
                Err(StoreError::Corrupt { .. }) => visit(FoundRow::Corrupt { key: &key }),
                Err(error) => return Err(error.into()),
            }
            key.push(0);
            Ok(Some(key))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}
