//! Inclusion and consistency against `ct-merkle`, the whole-list definition and flipped bits.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ledger_verify::hash::{log_empty, log_leaf, log_node};
use ledger_verify::log::{
    PATH_MAX, consistency_path, inclusion_path, root_of, verify_consistency, verify_inclusion,
};
use ledger_verify::{Hash, ProofError};
use sha2::Sha256;

use crate::fixture::{flip, hash_of_hex};

const SIZE_MAX: usize = 300;
const EXHAUSTIVE_MAX: usize = 48;

fn data(index: usize) -> Vec<u8> {
    format!("leaf {index}").into_bytes()
}

fn leaves(size: usize) -> Vec<Hash> {
    (0..size).map(|index| log_leaf(&data(index))).collect()
}

/// Every tree of 0 to `size` leaves, as the oracle builds it.
fn oracles(size: usize) -> Vec<MemoryBackedTree<Sha256, Vec<u8>>> {
    (0..=size)
        .map(|size| {
            let mut tree = MemoryBackedTree::new();
            (0..size).for_each(|index| tree.push(data(index)));
            tree
        })
        .collect()
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    assert!(rest.is_empty());
    hashes.to_vec()
}

fn oracle_root(tree: &MemoryBackedTree<Sha256, Vec<u8>>) -> Hash {
    (*tree.root().as_bytes()).into()
}

#[test]
fn the_constants_of_rfc_6962_hold() {
    assert_eq!(log_empty(), hash_of_hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    assert_eq!(
        log_leaf(b""),
        hash_of_hex("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
    );
    assert_eq!(
        log_leaf(b"L123456"),
        hash_of_hex("395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56")
    );
    // The published vector hashes two short strings, so it is written with the primitive below `log_node`.
    assert_eq!(
        ledger_verify::hash::sha256(&[&[1], b"N123", b"N456"]),
        hash_of_hex("aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb")
    );
    let (left, right) = (log_leaf(b"l"), log_leaf(b"r"));
    assert_eq!(log_node(&left, &right), ledger_verify::hash::sha256(&[&[1], &left, &right]));
}

#[test]
fn every_leaf_of_every_size_to_300_is_included_with_the_path_of_ct_merkle() {
    let all = leaves(SIZE_MAX);
    for (size, oracle) in oracles(SIZE_MAX).iter().enumerate() {
        let root = root_of(&all[..size]);
        assert_eq!(root, oracle_root(oracle), "size {size}");
        for index in 0..size {
            let path = hashes(oracle.prove_inclusion(index).as_bytes());
            if size <= EXHAUSTIVE_MAX || index % 97 == size % 97 {
                assert_eq!(inclusion_path(&all[..size], index).as_ref(), Some(&path), "{index} of {size}");
            }
            verify_inclusion(&all[index], index as u64, size as u64, &path, &root)
                .unwrap_or_else(|error| panic!("leaf {index} of {size}: {error}"));
        }
        assert_eq!(inclusion_path(&all[..size], size), None);
    }
}

#[test]
fn every_pair_of_sizes_to_300_is_consistent_with_the_path_of_ct_merkle() {
    let all = leaves(SIZE_MAX);
    let roots: Vec<Hash> = (0..=SIZE_MAX).map(|size| root_of(&all[..size])).collect();
    for (new, oracle) in oracles(SIZE_MAX).iter().enumerate() {
        for old in 1..new {
            let path = hashes(oracle.prove_consistency(new - old).as_bytes());
            if new <= EXHAUSTIVE_MAX || old % 97 == new % 97 {
                assert_eq!(consistency_path(&all[..new], old).as_ref(), Some(&path), "{old} in {new}");
            }
            verify_consistency(old as u64, new as u64, &path, &roots[old], &roots[new])
                .unwrap_or_else(|error| panic!("{old} in {new}: {error}"));
        }
        assert_eq!(consistency_path(&all[..new], 0), Some(vec![]));
        assert_eq!(consistency_path(&all[..new], new), Some(vec![]));
        assert_eq!(consistency_path(&all[..new], new + 1), None);
    }
}

#[test]
fn no_flipped_bit_of_an_inclusion_proof_is_accepted_in_any_size_to_48() {
    let all = leaves(EXHAUSTIVE_MAX);
    for size in 1..=EXHAUSTIVE_MAX {
        let root = root_of(&all[..size]);
        for index in 0..size {
            let path = inclusion_path(&all[..size], index).unwrap();
            let refused = |leaf: &Hash, index: u64, path: &[Hash], root: &Hash| {
                assert!(verify_inclusion(leaf, index, size as u64, path, root).is_err(), "{index} of {size}");
            };
            for bit in 0..256 {
                refused(&flip(&all[index], bit), index as u64, &path, &root);
                refused(&all[index], index as u64, &path, &flip(&root, bit));
                for position in 0..path.len() {
                    let mut path = path.clone();
                    path[position] = flip(&path[position], bit);
                    refused(&all[index], index as u64, &path, &root);
                }
            }
            for bit in 0..64 {
                refused(&all[index], index as u64 ^ 1 << bit, &path, &root);
            }
        }
    }
}

#[test]
fn no_flipped_bit_of_a_consistency_proof_is_accepted_in_any_size_to_48() {
    let all = leaves(EXHAUSTIVE_MAX);
    for new in 1..=EXHAUSTIVE_MAX {
        let new_root = root_of(&all[..new]);
        for old in 1..new {
            let old_root = root_of(&all[..old]);
            let path = consistency_path(&all[..new], old).unwrap();
            let refused = |path: &[Hash], old_root: &Hash, new_root: &Hash| {
                let verdict = verify_consistency(old as u64, new as u64, path, old_root, new_root);
                assert!(verdict.is_err(), "{old} in {new}");
            };
            for bit in 0..256 {
                refused(&path, &flip(&old_root, bit), &new_root);
                refused(&path, &old_root, &flip(&new_root, bit));
                for position in 0..path.len() {
                    let mut path = path.clone();
                    path[position] = flip(&path[position], bit);
                    refused(&path, &old_root, &new_root);
                }
            }
        }
    }
}

#[test]
fn one_flipped_bit_in_each_hash_is_refused_in_every_size_to_300() {
    let all = leaves(SIZE_MAX);
    let roots: Vec<Hash> = (0..=SIZE_MAX).map(|size| root_of(&all[..size])).collect();
    for (size, oracle) in oracles(SIZE_MAX).iter().enumerate() {
        for index in 0..size {
            let bit = (index * 31 + size * 7) % 256;
            let mut path = hashes(oracle.prove_inclusion(index).as_bytes());
            for position in 0..path.len() {
                path[position] = flip(&path[position], bit);
                assert!(
                    verify_inclusion(&all[index], index as u64, size as u64, &path, &roots[size]).is_err()
                );
                path[position] = flip(&path[position], bit);
            }
            let leaf = flip(&all[index], bit);
            assert!(verify_inclusion(&leaf, index as u64, size as u64, &path, &roots[size]).is_err());
            if index == 0 {
                continue;
            }
            let mut path = hashes(oracle.prove_consistency(size - index).as_bytes());
            for position in 0..path.len() {
                path[position] = flip(&path[position], bit);
                let (old, new) = (index as u64, size as u64);
                assert!(verify_consistency(old, new, &path, &roots[index], &roots[size]).is_err());
                path[position] = flip(&path[position], bit);
            }
        }
    }
}

#[test]
fn a_path_of_another_length_is_refused() {
    let all = leaves(EXHAUSTIVE_MAX);
    for size in 1..=EXHAUSTIVE_MAX {
        let root = root_of(&all[..size]);
        for index in 0..size {
            let path = inclusion_path(&all[..size], index).unwrap();
            let longer = [path.as_slice(), &[root]].concat();
            let verdict = verify_inclusion(&all[index], index as u64, size as u64, &longer, &root);
            assert_eq!(verdict, Err(ProofError::PathLength { given: longer.len() }));
            if let Some((_, shorter)) = path.split_last() {
                let verdict = verify_inclusion(&all[index], index as u64, size as u64, shorter, &root);
                assert_eq!(verdict, Err(ProofError::PathLength { given: shorter.len() }));
            }
        }
        for old in 1..size {
            let old_root = root_of(&all[..old]);
            let path = consistency_path(&all[..size], old).unwrap();
            let longer = [path.as_slice(), &[root]].concat();
            for wrong in [longer.as_slice(), &path[..path.len() - 1]] {
                let verdict = verify_consistency(old as u64, size as u64, wrong, &old_root, &root);
                assert_eq!(verdict, Err(ProofError::PathLength { given: wrong.len() }), "{old} in {size}");
            }
        }
    }
}

#[test]
fn an_inner_node_is_never_accepted_as_a_leaf() {
    for size in 2..=64usize {
        let all = leaves(size);
        let root = root_of(&all);
        // At every level, present the children of an inner node as if their concatenation were a leaf's data.
        let mut level = all.clone();
        while level.len() > 1 {
            let (pairs, _) = level.as_chunks::<2>();
            let parents: Vec<Hash> = pairs.iter().map(|[left, right]| log_node(left, right)).collect();
            for (index, [left, right]) in pairs.iter().enumerate() {
                let posing = log_leaf(&[left.as_slice(), right].concat());
                assert_ne!(posing, parents[index]);
                let path = inclusion_path(&parents, index).unwrap();
                let short_root = root_of(&parents);
                let size = parents.len() as u64;
                assert!(verify_inclusion(&posing, index as u64, size, &path, &short_root).is_err());
                // Even the node's own hash does not fit the shape of the real tree.
                let node = &parents[index];
                assert!(verify_inclusion(node, index as u64, all.len() as u64, &path, &root).is_err());
            }
            level = parents;
        }
    }
}

#[test]
fn an_index_outside_the_log_is_refused() {
    let leaf = log_leaf(b"only");
    for (index, size) in [(0, 0), (1, 1), (5, 5), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
        let verdict = verify_inclusion(&leaf, index, size, &[], &leaf);
        assert_eq!(verdict, Err(ProofError::IndexOutOfRange { index, size }));
    }
    assert_eq!(verify_inclusion(&leaf, 0, 1, &[], &leaf), Ok(()));
}

#[test]
fn the_largest_log_is_verified_without_overflow() {
    let leaf = log_leaf(b"x");
    for index in [0, 1, u64::MAX / 2, u64::MAX - 2, u64::MAX - 1] {
        let path = vec![leaf; PATH_MAX];
        // No such tree exists here; the point is that the answer is an error and not a panic.
        assert!(verify_inclusion(&leaf, index, u64::MAX, &path, &leaf).is_err());
        assert!(verify_consistency(index, u64::MAX, &path, &leaf, &leaf).is_err());
    }
    let path = vec![leaf; PATH_MAX + 1];
    let too_large = ProofError::TooLarge { what: "the log path", given: PATH_MAX + 1, max: PATH_MAX };
    assert_eq!(verify_inclusion(&leaf, 0, u64::MAX, &path, &leaf), Err(too_large.clone()));
    assert_eq!(verify_consistency(1, u64::MAX, &path, &leaf, &leaf), Err(too_large));
}

#[test]
fn an_empty_log_is_a_prefix_of_every_log_and_has_one_root() {
    let root = log_leaf(b"x");
    assert_eq!(verify_consistency(0, 0, &[], &log_empty(), &log_empty()), Ok(()));
    assert_eq!(verify_consistency(0, 7, &[], &log_empty(), &root), Ok(()));
    assert!(matches!(verify_consistency(0, 7, &[], &root, &root), Err(ProofError::RootMismatch { .. })));
    assert!(matches!(verify_consistency(0, 0, &[], &root, &root), Err(ProofError::RootMismatch { .. })));
    assert!(matches!(
        verify_consistency(0, 0, &[], &log_empty(), &root),
        Err(ProofError::RootMismatch { .. })
    ));
    let verdict = verify_consistency(0, 7, &[root], &log_empty(), &root);
    assert_eq!(verdict, Err(ProofError::PathLength { given: 1 }));
}

#[test]
fn equal_sizes_need_equal_roots_and_an_empty_path_and_sizes_never_shrink() {
    let (root, other) = (log_leaf(b"x"), log_leaf(b"y"));
    assert_eq!(verify_consistency(5, 5, &[], &root, &root), Ok(()));
    assert!(matches!(verify_consistency(5, 5, &[], &root, &other), Err(ProofError::RootMismatch { .. })));
    assert_eq!(verify_consistency(5, 5, &[root], &root, &root), Err(ProofError::PathLength { given: 1 }));
    let verdict = verify_consistency(6, 5, &[], &root, &root);
    assert_eq!(verdict, Err(ProofError::SizesReversed { old_size: 6, new_size: 5 }));
    for old in 1..9 {
        assert_eq!(verify_consistency(old, 9, &[], &root, &root), Err(ProofError::PathLength { given: 0 }));
    }
}
