//! Presence and absence in the state tree, against the `jmt` crate.

use jmt::mock::MockTreeStore;
use jmt::storage::TreeWriter as _;
use jmt::{KeyHash, Sha256Jmt};
use ledger_verify::hash::{STATE_EMPTY, sha256, state_leaf, state_node};
use ledger_verify::state::{SIBLINGS_MAX, StateProof};
use ledger_verify::{Hash, ProofError};
use proptest::prelude::*;

use crate::fixture::flip;
use crate::state_oracle::StateTree;

/// A `jmt` tree in memory; each write is a version of its own.
struct Jmt {
    store: MockTreeStore,
    version: u64,
}

impl Jmt {
    fn new() -> Self {
        let jmt = Self { store: MockTreeStore::default(), version: 0 };
        let (_, batch) = Sha256Jmt::new(&jmt.store).put_value_set([], 0).unwrap();
        jmt.store.write_node_batch(&batch.node_batch).unwrap();
        jmt
    }

    fn write(&mut self, changes: Vec<(Hash, Option<Vec<u8>>)>) -> Hash {
        self.version += 1;
        let changes = changes.into_iter().map(|(key, value)| (KeyHash(key), value));
        let (root, batch) = Sha256Jmt::new(&self.store).put_value_set(changes, self.version).unwrap();
        self.store.write_node_batch(&batch.node_batch).unwrap();
        root.0
    }

    /// The value and the proof that `jmt` gives, in our form.
    fn prove(&self, key: &Hash) -> (Option<Vec<u8>>, StateProof) {
        let (value, proof) = Sha256Jmt::new(&self.store).get_with_proof(KeyHash(*key), self.version).unwrap();
        // The siblings are private there; the serialised form has them.
        let document = serde_json::to_value(&proof).unwrap();
        let siblings = document["siblings"].as_array().unwrap().iter().map(sibling_hash).collect();
        let other_leaf = match &document["leaf"] {
            serde_json::Value::Null => None,
            leaf => {
                Some((array(&leaf["key_hash"]), array(&leaf["value_hash"]))).filter(|(found, _)| found != key)
            }
        };
        (value, StateProof { siblings, other_leaf })
    }
}

fn sibling_hash(node: &serde_json::Value) -> Hash {
    if node == "Null" {
        return STATE_EMPTY;
    }
    if let Some(inner) = node.get("Internal") {
        return state_node(&array(&inner["left_child"]), &array(&inner["right_child"]));
    }
    let leaf = &node["Leaf"];
    state_leaf(&array(&leaf["key_hash"]), &array(&leaf["value_hash"]))
}

fn array(value: &serde_json::Value) -> Hash {
    serde_json::from_value(value.clone()).unwrap()
}

fn key(number: u32) -> Hash {
    sha256(&[b"key", &number.to_be_bytes()])
}

fn value(number: u32) -> Vec<u8> {
    format!("value {number}").into_bytes()
}

#[test]
fn proofs_of_jmt_are_accepted_for_every_size_to_128_in_all_three_forms() {
    let (mut jmt, mut oracle) = (Jmt::new(), StateTree::default());
    let (mut present, mut empty, mut other) = (0, 0, 0);
    for size in 0..=128u32 {
        let root = if size == 0 { STATE_EMPTY } else { jmt.write(vec![(key(size), Some(value(size)))]) };
        if size > 0 {
            oracle.leaves.insert(key(size), sha256(&[&value(size)]));
        }
        assert_eq!(oracle.root(), root, "size {size}");
        for number in 1..=size + 40 {
            let key_hash = key(number);
            let (found, proof) = if size == 0 { (None, StateProof::default()) } else { jmt.prove(&key_hash) };
            assert_eq!(proof, oracle.prove(&key_hash));
            let value_hash = sha256(&[&value(number)]);
            let presence = proof.verify_presence(&root, &key_hash, &value_hash);
            let absence = proof.verify_absence(&root, &key_hash);
            assert_eq!(
                (presence.is_ok(), absence.is_ok()),
                (number <= size, number > size),
                "{number} of {size}"
            );
            assert_eq!(found.is_some(), number <= size);
            match (found, proof.other_leaf) {
                (Some(_), _) => present += 1,
                (None, None) => empty += 1,
                (None, Some(_)) => other += 1,
            }
        }
    }
    assert!(present > 1_000 && empty > 1_000 && other > 1_000, "{present} {empty} {other}");
}

#[test]
fn no_flipped_bit_of_a_presence_proof_of_jmt_is_accepted() {
    let mut jmt = Jmt::new();
    let root = jmt.write((0..40).map(|number| (key(number), Some(value(number)))).collect());
    for number in 0..40 {
        let (_, proof) = jmt.prove(&key(number));
        let (key_hash, value_hash) = (key(number), sha256(&[&value(number)]));
        assert_eq!(proof.verify_presence(&root, &key_hash, &value_hash), Ok(()));
        for bit in 0..256 {
            assert!(proof.verify_presence(&flip(&root, bit), &key_hash, &value_hash).is_err());
            assert!(proof.verify_presence(&root, &flip(&key_hash, bit), &value_hash).is_err());
            assert!(proof.verify_presence(&root, &key_hash, &flip(&value_hash, bit)).is_err());
            for position in 0..proof.siblings.len() {
                let mut proof = proof.clone();
                proof.siblings[position] = flip(&proof.siblings[position], bit);
                assert!(proof.verify_presence(&root, &key_hash, &value_hash).is_err());
            }
        }
        assert!(proof.verify_presence(&root, &key(number + 1), &value_hash).is_err());
        assert!(proof.verify_presence(&root, &key_hash, &sha256(&[&value(number + 1)])).is_err());
        assert!(proof.verify_absence(&root, &key_hash).is_err());
    }
}

#[test]
fn no_flipped_bit_of_an_absence_proof_of_jmt_shows_a_present_key_absent() {
    let mut jmt = Jmt::new();
    let root = jmt.write((0..40).map(|number| (key(number), Some(value(number)))).collect());
    let mut forms = [0, 0];
    for number in 40..80 {
        let key_hash = key(number);
        let (_, proof) = jmt.prove(&key_hash);
        forms[usize::from(proof.other_leaf.is_some())] += 1;
        assert_eq!(proof.verify_absence(&root, &key_hash), Ok(()));
        let depth = proof.siblings.len();
        for bit in 0..256 {
            assert!(proof.verify_absence(&flip(&root, bit), &key_hash).is_err());
            // Below the proof's depth the empty place, or the lone leaf, stands for every key of that branch.
            let neighbour = flip(&key_hash, bit);
            assert_eq!(proof.verify_absence(&root, &neighbour).is_ok(), bit >= depth);
            assert!(bit < depth || jmt.prove(&neighbour).0.is_none());
            for position in 0..depth {
                let mut proof = proof.clone();
                proof.siblings[position] = flip(&proof.siblings[position], bit);
                assert!(proof.verify_absence(&root, &key_hash).is_err());
            }
            if let Some((other_key, other_value)) = proof.other_leaf {
                for flipped in [(flip(&other_key, bit), other_value), (other_key, flip(&other_value, bit))] {
                    let proof = StateProof { other_leaf: Some(flipped), ..proof.clone() };
                    assert!(proof.verify_absence(&root, &key_hash).is_err());
                }
            }
        }
        let without = StateProof { other_leaf: None, ..proof.clone() };
        assert_eq!(without.verify_absence(&root, &key_hash).is_ok(), proof.other_leaf.is_none());
    }
    assert!(forms.iter().all(|count| *count > 0), "{forms:?}");
}

#[test]
fn keys_that_share_255_bits_are_proved_256_levels_deep() {
    for shared in [0, 1, 3, 4, 7, 8, 63, 64, 65, 128, 254, 255] {
        let mut jmt = Jmt::new();
        let (first, second) = (key(1), flip(&key(1), shared));
        let root = jmt.write(vec![(first, Some(value(1))), (second, Some(value(2)))]);
        let (_, proof) = jmt.prove(&first);
        assert_eq!(proof.siblings.len(), shared + 1);
        assert_eq!(proof.verify_presence(&root, &first, &sha256(&[&value(1)])), Ok(()));
        let oracle = StateTree {
            leaves: [(first, sha256(&[&value(1)])), (second, sha256(&[&value(2)]))].into_iter().collect(),
        };
        assert_eq!((oracle.root(), oracle.prove(&first)), (root, proof));
    }
}

#[test]
fn the_empty_tree_proves_every_absence_and_no_presence() {
    let proof = StateProof::default();
    assert_eq!(proof.verify_absence(&STATE_EMPTY, &key(1)), Ok(()));
    assert!(matches!(
        proof.verify_presence(&STATE_EMPTY, &key(1), &key(2)),
        Err(ProofError::RootMismatch { .. })
    ));
    assert!(matches!(proof.verify_absence(&key(3), &key(1)), Err(ProofError::RootMismatch { .. })));
}

#[test]
fn a_presence_proof_that_names_another_leaf_is_refused() {
    let (key_hash, value_hash) = (key(1), key(2));
    let root = state_leaf(&key_hash, &value_hash);
    let plain = StateProof::default();
    assert_eq!(plain.verify_presence(&root, &key_hash, &value_hash), Ok(()));
    for other_leaf in [(key_hash, value_hash), (key(3), key(4))] {
        let proof = StateProof { other_leaf: Some(other_leaf), ..StateProof::default() };
        assert_eq!(proof.verify_presence(&root, &key_hash, &value_hash), Err(ProofError::NotPresence));
    }
}

#[test]
fn an_absence_proof_through_the_key_itself_or_another_branch_is_refused() {
    let (key_hash, value_hash) = (key(1), key(2));
    let root = state_leaf(&key_hash, &value_hash);
    let itself = StateProof { siblings: vec![], other_leaf: Some((key_hash, value_hash)) };
    assert_eq!(itself.verify_absence(&root, &key_hash), Err(ProofError::KeyIsPresent));
    assert_eq!(itself.verify_absence(&root, &key(3)), Ok(()));

    // A real leaf, but on the other side of the root: it says nothing about the key.
    let across = flip(&key_hash, 0);
    let root = match key_hash[0] & 0x80 {
        0 => state_node(&state_leaf(&key_hash, &value_hash), &state_leaf(&across, &value_hash)),
        _ => state_node(&state_leaf(&across, &value_hash), &state_leaf(&key_hash, &value_hash)),
    };
    let sibling = state_leaf(&key_hash, &value_hash);
    let proof = StateProof { siblings: vec![sibling], other_leaf: Some((across, value_hash)) };
    let verdict = proof.verify_absence(&root, &key_hash);
    assert_eq!(verdict, Err(ProofError::OtherBranch { shared_bits: 0, depth: 1 }));
}

#[test]
fn an_inner_node_is_never_accepted_as_a_state_leaf() {
    let mut oracle = StateTree::default();
    oracle.leaves.extend((0..64).map(|number| (key(number), key(number + 1_000))));
    let root = oracle.root();
    for number in 0..64 {
        let proof = oracle.prove(&key(number));
        let (sibling, rest) = proof.siblings.split_first().unwrap();
        let leaf = state_leaf(&key(number), &key(number + 1_000));
        let shorter = StateProof { siblings: rest.to_vec(), other_leaf: None };
        // The children of the node above the leaf, posing as a leaf's key hash and value hash.
        for (left, right) in [(leaf, *sibling), (*sibling, leaf)] {
            assert!(shorter.verify_presence(&root, &left, &right).is_err());
            let other = StateProof { siblings: rest.to_vec(), other_leaf: Some((left, right)) };
            assert!(other.verify_absence(&root, &key(number)).is_err());
        }
    }
}

#[test]
fn proofs_that_are_too_deep_or_not_collapsed_are_refused() {
    let (key_hash, value_hash) = (key(1), key(2));
    let proof = StateProof { siblings: vec![key(3); SIBLINGS_MAX + 1], other_leaf: None };
    let too_large =
        ProofError::TooLarge { what: "the state proof", given: SIBLINGS_MAX + 1, max: SIBLINGS_MAX };
    assert_eq!(proof.verify_presence(&key(9), &key_hash, &value_hash), Err(too_large.clone()));
    assert_eq!(proof.verify_absence(&key(9), &key_hash), Err(too_large));

    // The right hash of a tree that no ledger builds: one leaf kept a level too deep.
    let leaf = state_leaf(&key_hash, &value_hash);
    let stretched = match key_hash[0] & 0x80 {
        0 => state_node(&leaf, &STATE_EMPTY),
        _ => state_node(&STATE_EMPTY, &leaf),
    };
    let proof = StateProof { siblings: vec![STATE_EMPTY], other_leaf: None };
    assert_eq!(proof.verify_presence(&stretched, &key_hash, &value_hash), Err(ProofError::NotCollapsed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_writes_and_deletes_the_proofs_of_jmt_are_those_of_the_definition(
        blocks in prop::collection::vec(prop::collection::btree_map(0..24u32, any::<Option<u16>>(), 1..12), 1..12)
    ) {
        let (mut jmt, mut oracle) = (Jmt::new(), StateTree::default());
        for block in blocks {
            let changes = block.iter().map(|(number, value)| (clustered_key(*number), value.map(bytes))).collect();
            let root = jmt.write(changes);
            for (number, value) in &block {
                match value {
                    Some(value) => oracle.leaves.insert(clustered_key(*number), sha256(&[&bytes(*value)])),
                    None => oracle.leaves.remove(&clustered_key(*number)),
                };
            }
            prop_assert_eq!(oracle.root(), root);
            for number in 0..24 {
                let key_hash = clustered_key(number);
                let (found, proof) = jmt.prove(&key_hash);
                prop_assert_eq!(&proof, &oracle.prove(&key_hash));
                match found {
                    Some(value) => prop_assert_eq!(proof.verify_presence(&root, &key_hash, &sha256(&[&value])), Ok(())),
                    None => prop_assert_eq!(proof.verify_absence(&root, &key_hash), Ok(())),
                }
            }
        }
    }
}

fn bytes(value: u16) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// Key hashes in three clusters with long shared prefixes, so that deletes collapse many levels.
fn clustered_key(number: u32) -> Hash {
    let mut key_hash = key(number % 3);
    key_hash[(number % 5 * 7) as usize] ^= (number / 3) as u8;
    key_hash
}
