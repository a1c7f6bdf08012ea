//! What a block changed, as it was before: enough to go back to every earlier state root, and to find a
//! key's earlier versions without a search.

use std::collections::HashMap;

use bytes::Bytes;
use ledger_verify::Hash;

/// What stood under a key before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub value_hash: Hash,
    /// Height of the block that had written it; 0 for leaves that are derived from others.
    pub modified_height: u64,
}

/// What a block did to one leaf of the state tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// `None` = there was no leaf.
    pub before: Option<Before>,
    /// The new value hash; `None` = there is no leaf.
    pub after: Option<Hash>,
}

/// One entry of an undo row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UndoEntry {
    pub key_hash: Hash,
    pub before: Option<Before>,
    /// Whether the block left no leaf there: it has a tombstone then.
    pub is_deleted: bool,
}

/// Set when there was a leaf before.
const EXISTED: u8 = 1;
/// Set when there is none after.
const DELETED: u8 = 2;

/// The changes of a block in the order of the undo row, which every node agrees on.
pub(super) fn in_key_order(changes: HashMap<Hash, Change>) -> Vec<(Hash, Change)> {
    let mut ordered: Vec<(Hash, Change)> = changes.into_iter().collect();
    ordered.sort_unstable_by_key(|(key_hash, _)| *key_hash);
    ordered
}

/// The undo row: for every change key hash, flags, and, when there was a leaf, its value hash and the
/// height that had written it (u64, big-endian).
pub(super) fn encode(changes: &[(Hash, Change)]) -> Bytes {
    let mut row = Vec::with_capacity(changes.len().saturating_mul(73));
    for (key_hash, change) in changes {
        row.extend_from_slice(key_hash);
        let deleted = if change.after.is_none() { DELETED } else { 0 };
        match change.before {
            Some(before) => {
                row.push(EXISTED | deleted);
                row.extend_from_slice(&before.value_hash);
                row.extend_from_slice(&before.modified_height.to_be_bytes());
            }
            None => row.push(deleted),
        }
    }
    row.into()
}

/// The entries of an undo row; an item is `None` when the rest of the row is not one.
pub(super) fn decode(row: &[u8]) -> impl Iterator<Item = Option<UndoEntry>> {
    let mut rest = row;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = take_entry(&mut rest);
        if entry.is_none() {
            rest = &[];
        }
        Some(entry)
    })
}

fn take_entry(rest: &mut &[u8]) -> Option<UndoEntry> {
    let (key_hash, after_key) = rest.split_first_chunk::<32>()?;
    let (flags, mut after) = after_key.split_first()?;
    if flags & !(EXISTED | DELETED) != 0 {
        return None;
    }
    let before = if flags & EXISTED != 0 {
        let (value_hash, height) = after.split_first_chunk::<32>()?;
        let (height, end) = height.split_first_chunk::<8>()?;
        after = end;
        Some(Before { value_hash: *value_hash, modified_height: u64::from_be_bytes(*height) })
    } else {
        None
    };
    *rest = after;
    Some(UndoEntry { key_hash: *key_hash, before, is_deleted: flags & DELETED != 0 })
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_undo_row_comes_back_as_it_was_and_a_cut_one_is_refused() {
        let before = Before { value_hash: [9; 32], modified_height: 77 };
        let changes = HashMap::from([
            ([3; 32], Change { before: None, after: None }),
            ([1; 32], Change { before: Some(before), after: Some([8; 32]) }),
            ([2; 32], Change { before: Some(before), after: None }),
        ]);
        let ordered = in_key_order(changes);
        assert_eq!(ordered.iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [1, 2, 3]);
        let row = encode(&ordered);
        let entries: Vec<UndoEntry> = decode(&row).map(Option::unwrap).collect();
        let expected = ordered.iter().map(|(key_hash, change)| UndoEntry {
            key_hash: *key_hash,
            before: change.before,
            is_deleted: change.after.is_none(),
        });
        assert_eq!(entries, expected.collect::<Vec<_>>());
        for length in 0..row.len() {
            let whole = [0, 73, 146].contains(&length);
            assert_eq!(decode(&row[..length]).all(|entry| entry.is_some()), whole, "{length}");
        }
        assert!(decode(&[[0; 32].as_slice(), &[4]].concat()).any(|entry| entry.is_none()), "unknown flags");
    }
}
