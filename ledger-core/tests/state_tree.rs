//! The state tree against `jmt` 0.12 as the oracle for roots and proofs, and against itself.

use std::collections::BTreeMap;

use jmt::mock::MockTreeStore;
use jmt::{KeyHash, Sha256Jmt};
use ledger_core::state_tree::StateTree;
use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, sha256, state_leaf, state_node};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// A key hash with the new value's bytes, or `None` to delete.
type Change = (Hash, Option<Vec<u8>>);

/// The tree under test, `jmt` and a plain map, fed the same blocks.
#[derive(Default)]
struct Trio {
    tree: StateTree,
    jmt_store: MockTreeStore,
    jmt_version: u64,
    model: BTreeMap<Hash, Hash>,
}

impl Trio {
    fn apply(&mut self, block: &[Change]) {
        let hashed = |value: &Option<Vec<u8>>| value.as_ref().map(|bytes| sha256(&[bytes]));
        self.tree.update(block.iter().map(|(key_hash, value)| (*key_hash, hashed(value))).collect());

        // jmt wants each key once a version; the last change counts.
        let distinct: BTreeMap<Hash, Option<Vec<u8>>> = block.iter().cloned().collect();
        let sets = distinct.iter().map(|(key_hash, value)| (KeyHash(*key_hash), value.clone()));
        let (_, batch) = Sha256Jmt::new(&self.jmt_store).put_value_set(sets, self.jmt_version).unwrap();
        self.jmt_store.write_tree_update_batch(batch).unwrap();
        self.jmt_version += 1;

        for (key_hash, value) in distinct {
            match hashed(&value) {
                Some(value_hash) => self.model.insert(key_hash, value_hash),
                None => self.model.remove(&key_hash),
            };
        }
    }

    fn check_root(&self) {
        let jmt_root = Sha256Jmt::new(&self.jmt_store).get_root_hash(self.jmt_version - 1).unwrap();
        assert_eq!(self.tree.root(), jmt_root.0);
        assert_eq!(self.tree.len(), self.model.len() as u64);
        assert_eq!(self.tree.is_empty(), self.model.is_empty());
    }

    fn check_proof(&self, key_hash: &Hash) {
        let root = self.tree.root();
        let proof = self.tree.prove(key_hash);
        assert_eq!(self.tree.get(key_hash).as_ref(), self.model.get(key_hash));
        match self.model.get(key_hash) {
            Some(value_hash) => {
                proof.verify_presence(&root, key_hash, value_hash).unwrap();
                assert!(proof.verify_absence(&root, key_hash).is_err());
                assert!(proof.verify_presence(&root, key_hash, &[7; 32]).is_err());
            }
            None => {
                proof.verify_absence(&root, key_hash).unwrap();
                assert!(proof.verify_presence(&root, key_hash, &[7; 32]).is_err());
            }
        }
        let (_, jmt_proof) =
            Sha256Jmt::new(&self.jmt_store).get_with_proof(KeyHash(*key_hash), self.jmt_version - 1).unwrap();
        let jmt_json = serde_json::to_value(&jmt_proof).unwrap();
        let jmt_siblings: Vec<Hash> =
            jmt_json["siblings"].as_array().unwrap().iter().map(jmt_node_hash).collect();
        assert_eq!(proof.siblings, jmt_siblings);
        let jmt_leaf = Some(&jmt_json["leaf"]).filter(|leaf| !leaf.is_null()).map(jmt_leaf);
        let own_leaf = self.model.get(key_hash).map(|value_hash| (*key_hash, *value_hash));
        assert_eq!(own_leaf.or(proof.other_leaf), jmt_leaf);
    }
}

/// jmt keeps a proof's siblings private; its serialised form shows them.
fn jmt_node_hash(node: &Value) -> Hash {
    if let Some(inner) = node.get("Internal") {
        return state_node(&jmt_hash(&inner["left_child"]), &jmt_hash(&inner["right_child"]));
    }
    if let Some(leaf) = node.get("Leaf") {
        let (key_hash, value_hash) = jmt_leaf(leaf);
        return state_leaf(&key_hash, &value_hash);
    }
    assert_eq!(node, "Null");
    STATE_EMPTY
}

fn jmt_leaf(leaf: &Value) -> (Hash, Hash) {
    (jmt_hash(&leaf["key_hash"]), jmt_hash(&leaf["value_hash"]))
}

fn jmt_hash(hash: &Value) -> Hash {
    serde_json::from_value(hash.clone()).unwrap()
}

fn numbered(number: u32) -> Hash {
    sha256(&[&number.to_be_bytes()])
}

/// `base` with the bit at `position` flipped: shares exactly `position` leading bits with it.
fn flipped(base: Hash, position: usize) -> Hash {
    let mut key_hash = base;
    key_hash[position / 8] ^= 0x80 >> (position % 8);
    key_hash
}

/// Keys that a history meets again and again; half of them share long prefixes, up to 255 bits.
fn key_hash() -> impl Strategy<Value = Hash> {
    prop_oneof![
        2 => (0u32..24).prop_map(numbered),
        1 => (0u32..24, 0usize..256).prop_map(|(number, position)| flipped(numbered(number), position)),
        2 => prop::sample::select(vec![0usize, 1, 3, 4, 63, 64, 127, 250, 252, 254, 255])
            .prop_map(|position| flipped(numbered(0), position)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    (key_hash(), prop_oneof![3 => vec(any::<u8>(), 1..4).prop_map(Some), 2 => Just(None)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_version_of_a_random_history_has_the_root_and_the_proofs_of_jmt(
        blocks in vec(vec(change(), 1..30), 1..8),
        strangers in vec(key_hash(), 8),
    ) {
        let mut trio = Trio::default();
        trio.apply(&[(numbered(1_000), Some(vec![1]))]);
        for block in &blocks {
            trio.apply(block);
            trio.check_root();
            for (key_hash, _) in block {
                trio.check_proof(key_hash);
            }
            for key_hash in &strangers {
                trio.check_proof(key_hash);
            }
        }
        let rebuilt = StateTree::from_leaves(trio.model.into_iter().rev().collect());
        prop_assert_eq!(rebuilt.root(), trio.tree.root());
        prop_assert_eq!(rebuilt.len(), trio.tree.len());
    }

    #[test]
    fn one_block_and_one_block_a_change_end_at_the_same_root(changes in vec(change(), 1..80)) {
        let hashed = changes.iter().map(|(key_hash, value)| (*key_hash, value.as_ref().map(|bytes| sha256(&[bytes]))));
        let mut at_once = StateTree::new();
        at_once.update(hashed.clone().collect());
        let mut one_by_one = StateTree::new();
        hashed.for_each(|change| one_by_one.update(vec![change]));
        prop_assert_eq!(at_once.root(), one_by_one.root());
        prop_assert_eq!(at_once.len(), one_by_one.len());
    }

    #[test]
    fn deleting_what_a_block_inserted_restores_the_root(
        kept in vec(key_hash(), 0..20),
        inserted in vec(key_hash(), 1..20),
    ) {
        let mut tree = StateTree::from_leaves(kept.iter().map(|key_hash| (*key_hash, [1; 32])).collect());
        let (root, len) = (tree.root(), tree.len());
        let new: Vec<Hash> = inserted.into_iter().filter(|key_hash| !kept.contains(key_hash)).collect();
        tree.update(new.iter().map(|key_hash| (*key_hash, Some([2; 32]))).collect());
        prop_assert!(new.is_empty() || tree.root() != root);
        tree.update(new.iter().map(|key_hash| (*key_hash, None)).collect());
        prop_assert_eq!(tree.root(), root);
        prop_assert_eq!(tree.len(), len);
    }
}

#[test]
fn trees_of_no_one_and_two_keys_have_the_roots_of_their_definition() {
    let (low, high) = (flipped([0; 32], 255), flipped([0; 32], 0));
    let mut tree = StateTree::new();
    assert_eq!((tree.root(), tree.len(), tree.is_empty()), (STATE_EMPTY, 0, true));
    assert_eq!(tree.prove(&low).siblings, Vec::<Hash>::new());
    tree.prove(&low).verify_absence(&STATE_EMPTY, &low).unwrap();

    tree.update(vec![(low, Some([1; 32]))]);
    assert_eq!((tree.root(), tree.len(), tree.is_empty()), (state_leaf(&low, &[1; 32]), 1, false));
    assert_eq!(tree.prove(&low).siblings, Vec::<Hash>::new());
    assert_eq!(tree.prove(&high).other_leaf, Some((low, [1; 32])));

    tree.update(vec![(high, Some([2; 32]))]);
    let root = state_node(&state_leaf(&low, &[1; 32]), &state_leaf(&high, &[2; 32]));
    assert_eq!((tree.root(), tree.len()), (root, 2));
    assert_eq!(tree.prove(&low).siblings, vec![state_leaf(&high, &[2; 32])]);
}

#[test]
fn absence_is_proved_by_an_empty_subtree_and_by_another_leaf() {
    // 000.., 001.. and 1..: under 01 nothing stands, and 1.. stands alone in the right half.
    let keys = [[0; 32], flipped([0; 32], 2), flipped([0; 32], 0)];
    let tree = StateTree::from_leaves(keys.iter().map(|key_hash| (*key_hash, [9; 32])).collect());
    let root = tree.root();

    let in_empty_subtree = flipped([0; 32], 1);
    let proof = tree.prove(&in_empty_subtree);
    assert_eq!((proof.siblings.len(), proof.other_leaf), (2, None));
    proof.verify_absence(&root, &in_empty_subtree).unwrap();

    let beside_leaf = flipped(keys[2], 255);
    let proof = tree.prove(&beside_leaf);
    assert_eq!((proof.siblings.len(), proof.other_leaf), (1, Some((keys[2], [9; 32]))));
    proof.verify_absence(&root, &beside_leaf).unwrap();
}

#[test]
fn two_keys_that_share_any_number_of_bits_agree_with_jmt_and_take_that_many_siblings() {
    for shared_bits in 0..256 {
        let (first, second) = (numbered(5), flipped(numbered(5), shared_bits));
        let mut trio = Trio::default();
        trio.apply(&[(first, Some(vec![1])), (second, Some(vec![2]))]);
        trio.check_root();
        assert_eq!(trio.tree.prove(&first).siblings.len(), shared_bits + 1);
        for key_hash in [first, second, flipped(first, 255), flipped(first, shared_bits / 2)] {
            trio.check_proof(&key_hash);
        }
        trio.apply(&[(second, None)]);
        trio.check_root();
        assert_eq!(trio.tree.root(), state_leaf(&first, &sha256(&[&[1]])));
    }
}

#[test]
fn emptying_a_tree_returns_through_every_earlier_root() {
    let keys: Vec<Hash> =
        (0..200).map(numbered).chain((0..256).map(|bit| flipped(numbered(3), bit))).collect();
    let mut tree = StateTree::new();
    let mut roots = vec![tree.root()];
    for key_hash in &keys {
        tree.update(vec![(*key_hash, Some([1; 32]))]);
        roots.push(tree.root());
    }
    assert_eq!(tree.len(), keys.len() as u64);
    for key_hash in keys.iter().rev() {
        assert_eq!(Some(tree.root()), roots.pop());
        tree.update(vec![(*key_hash, None)]);
    }
    assert_eq!((tree.root(), tree.len()), (STATE_EMPTY, 0));
}

#[test]
fn deletes_of_absent_keys_and_sets_to_the_same_value_change_nothing() {
    let mut tree = StateTree::new();
    tree.update(vec![(numbered(1), None), (numbered(2), None), (flipped(numbered(2), 255), None)]);
    assert_eq!((tree.root(), tree.len()), (STATE_EMPTY, 0));

    let leaves: Vec<(Hash, Hash)> = (0..500).map(|number| (numbered(number), [1; 32])).collect();
    tree.update(leaves.iter().map(|(key_hash, value_hash)| (*key_hash, Some(*value_hash))).collect());
    let (root, memory_bytes) = (tree.root(), tree.memory_bytes());
    tree.update((500..900).map(|number| (numbered(number), None)).collect());
    tree.update((0..500).map(|number| (flipped(numbered(number), 255), None)).collect());
    tree.update(leaves.iter().map(|(key_hash, value_hash)| (*key_hash, Some(*value_hash))).collect());
    assert_eq!((tree.root(), tree.len(), tree.memory_bytes()), (root, 500, memory_bytes));
}

#[test]
fn of_several_entries_for_one_key_the_last_wins() {
    let [a, b] = [numbered(1), numbered(2)];
    let built = StateTree::from_leaves(vec![(a, [1; 32]), (b, [2; 32]), (a, [3; 32])]);
    assert_eq!((built.get(&a), built.get(&b), built.len()), (Some([3; 32]), Some([2; 32]), 2));

    let mut tree = StateTree::new();
    tree.update(vec![(a, Some([1; 32])), (b, Some([2; 32])), (a, None), (b, None), (a, Some([3; 32]))]);
    assert_eq!((tree.get(&a), tree.get(&b), tree.len()), (Some([3; 32]), None, 1));
}

#[test]
fn memory_of_deleted_keys_serves_later_keys() {
    let mut tree = StateTree::from_leaves((0..20_000).map(|number| (numbered(number), [1; 32])).collect());
    let mut memory_bytes = Vec::new();
    for round in 1..=12u32 {
        let old = (round - 1) * 20_000;
        tree.update((old..old + 20_000).map(|number| (numbered(number), None)).collect());
        assert_eq!((tree.root(), tree.len()), (STATE_EMPTY, 0));
        tree.update((old + 20_000..old + 40_000).map(|number| (numbered(number), Some([1; 32]))).collect());
        memory_bytes.push(tree.memory_bytes());
    }
    // The number of inner nodes of 20,000 random keys varies by some hundred, so by a chunk.
    assert!(memory_bytes[11] <= memory_bytes[0] + 2 * 4096 * 40, "grows: {memory_bytes:?}");
}

#[test]
fn a_large_tree_under_churn_stays_the_tree_of_its_leaves() {
    let mut tree = StateTree::new();
    let mut model = BTreeMap::new();
    for round in 0..40u32 {
        let block: Vec<(Hash, Option<Hash>)> = (0..1_000u32)
            .map(|i| {
                let draw = u32::from_be_bytes(
                    sha256(&[&round.to_be_bytes(), &i.to_be_bytes()])[..4].try_into().unwrap(),
                );
                let value = (!draw.is_multiple_of(3)).then(|| numbered(draw));
                (numbered(draw % 12_000), value)
            })
            .collect();
        for (key_hash, value) in &block {
            match value {
                Some(value_hash) => model.insert(*key_hash, *value_hash),
                None => model.remove(key_hash),
            };
        }
        tree.update(block);
        let rebuilt =
            StateTree::from_leaves(model.iter().map(|(key_hash, value)| (*key_hash, *value)).collect());
        assert_eq!((tree.root(), tree.len()), (rebuilt.root(), model.len() as u64));
    }
    assert!(tree.len() > 5_000, "the churn must leave a tree of several chunks");
    for (key_hash, value_hash) in &model {
        assert_eq!(tree.get(key_hash), Some(*value_hash));
    }
}

#[test]
fn a_tree_of_many_keys_takes_at_most_150_bytes_a_key() {
    let keys = 100_000u32;
    let tree = StateTree::from_leaves((0..keys).map(|number| (numbered(number), [1; 32])).collect());
    assert!(tree.memory_bytes() <= 150 * keys as usize, "{} bytes", tree.memory_bytes());
}
