//! Append-only logs: inclusion and consistency proofs of RFC 6962, checked as RFC 9162 section 2.1 writes it.

use crate::Hash;
use crate::error::ProofError;
use crate::hash::{log_empty, log_node};

/// Most hashes of a log path: a tree has fewer than 2^64 leaves.
pub const PATH_MAX: usize = 64;

/// Checks that leaf `index` of the log of `size` leaves and this root is `leaf`. RFC 9162 section 2.1.3.2.
///
/// `leaf` must be computed by the caller from the leaf's data ([`log_leaf`](crate::hash::log_leaf)): a hash taken
/// from elsewhere may be that of an inner node.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    let mut node_index = index;
    let mut last_index = size - 1;
    let mut computed = *leaf;
    for sibling in bounded(path)? {
        if last_index == 0 {
            return Err(ProofError::PathLength { given: path.len() });
        }
        if node_index & 1 == 1 || node_index == last_index {
            computed = log_node(sibling, &computed);
            skip_lone_levels(&mut node_index, &mut last_index);
        } else {
            computed = log_node(&computed, sibling);
        }
        node_index >>= 1;
        last_index >>= 1;
    }
    if last_index != 0 {
        return Err(ProofError::PathLength { given: path.len() });
    }
    same_root(root, computed)
}

/// Checks that the log of `old_size` leaves is a prefix of the log of `new_size` leaves. RFC 9162 section 2.1.4.2.
///
/// From an empty log or between equal sizes the path must be empty; an empty log has the root of no leaves.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    path: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::SizesReversed { old_size, new_size });
    }
    let path = bounded(path)?;
    if old_size == 0 || old_size == new_size {
        if !path.is_empty() {
            return Err(ProofError::PathLength { given: path.len() });
        }
        if old_size == 0 {
            same_root(old_root, log_empty())?;
        }
        return if old_size == new_size { same_root(new_root, *old_root) } else { Ok(()) };
    }
    // An old log that is a whole subtree of the new one starts from its own root, which the path then omits.
    let (start, rest) = if old_size.is_power_of_two() {
        (old_root, path)
    } else {
        path.split_first().ok_or(ProofError::PathLength { given: 0 })?
    };
    fold_consistency(old_size, new_size, start, rest, path.len(), [old_root, new_root])
}

fn fold_consistency(
    old_size: u64,
    new_size: u64,
    start: &Hash,
    rest: &[Hash],
    given: usize,
    [old_root, new_root]: [&Hash; 2],
) -> Result<(), ProofError> {
    let mut node_index = old_size - 1;
    let mut last_index = new_size - 1;
    while node_index & 1 == 1 {
        node_index >>= 1;
        last_index >>= 1;
    }
    let mut old_computed = *start;
    let mut new_computed = *start;
    for sibling in rest {
        if last_index == 0 {
            return Err(ProofError::PathLength { given });
        }
        if node_index & 1 == 1 || node_index == last_index {
            old_computed = log_node(sibling, &old_computed);
            new_computed = log_node(sibling, &new_computed);
            skip_lone_levels(&mut node_index, &mut last_index);
        } else {
            new_computed = log_node(&new_computed, sibling);
        }
        node_index >>= 1;
        last_index >>= 1;
    }
    if last_index != 0 {
        return Err(ProofError::PathLength { given });
    }
    same_root(old_root, old_computed)?;
    same_root(new_root, new_computed)
}

/// Climbs the levels at which the rightmost node has no sibling.
fn skip_lone_levels(node_index: &mut u64, last_index: &mut u64) {
    while *node_index & 1 == 0 && *node_index != 0 {
        *node_index >>= 1;
        *last_index >>= 1;
    }
}

fn bounded(path: &[Hash]) -> Result<&[Hash], ProofError> {
    if path.len() <= PATH_MAX {
        Ok(path)
    } else {
        Err(ProofError::TooLarge { what: "the log path", given: path.len(), max: PATH_MAX })
    }
}

fn same_root(expected: &Hash, computed: Hash) -> Result<(), ProofError> {
    if computed == *expected {
        Ok(())
    } else {
        Err(ProofError::RootMismatch { tree: "log", expected: *expected, computed })
    }
}

/// Root over a whole list of leaf hashes. RFC 9162 section 2.1.1.
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => log_empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = split(leaves);
            log_node(&root_of(left), &root_of(right))
        }
    }
}

/// Inclusion path of leaf `index` in a whole list of leaf hashes; `None` outside the list. RFC 9162 section 2.1.3.1.
pub fn inclusion_path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut subtree, mut index) = (leaves, index);
    while subtree.len() > 1 {
        let (left, right) = split(subtree);
        if index < left.len() {
            path.push(root_of(right));
            subtree = left;
        } else {
            path.push(root_of(left));
            index -= left.len();
            subtree = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Consistency path from the first `old_size` leaves to all; `None` when the list is shorter. RFC 9162 section 2.1.4.1.
pub fn consistency_path(leaves: &[Hash], old_size: usize) -> Option<Vec<Hash>> {
    if old_size > leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    if old_size == 0 || old_size == leaves.len() {
        return Some(path);
    }
    let (mut subtree, mut old) = (leaves, old_size);
    while old < subtree.len() {
        let (left, right) = split(subtree);
        if old <= left.len() {
            path.push(root_of(right));
            subtree = left;
        } else {
            path.push(root_of(left));
            old -= left.len();
            subtree = right;
        }
    }
    // The subtree that ends where the old log ends; when it is the whole old log, the verifier has its root.
    if old != old_size {
        path.push(root_of(subtree));
    }
    path.reverse();
    Some(path)
}

/// Splits at the largest power of two below the length; lists of at most one leaf stay whole on the left.
fn split(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
    let middle = leaves.len().div_ceil(2).next_power_of_two();
    leaves.split_at_checked(middle).unwrap_or((leaves, &[]))
}
