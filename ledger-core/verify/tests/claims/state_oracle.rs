//! The state tree written down as its definition: slow, whole, obvious.

use std::collections::BTreeMap;

use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, state_leaf, state_node};
use ledger_verify::state::StateProof;

/// Leaves by key hash.
#[derive(Debug, Clone, Default)]
pub struct StateTree {
    pub leaves: BTreeMap<Hash, Hash>,
}

impl StateTree {
    pub fn root(&self) -> Hash {
        subtree(&self.pairs(), 0)
    }

    pub fn prove(&self, key: &Hash) -> StateProof {
        let (mut here, mut depth, mut siblings) = (self.pairs(), 0, Vec::new());
        while here.len() > 1 {
            let (left, right) = split(&here, depth);
            let (next, sibling) = if bit(key, depth) { (right, left) } else { (left, right) };
            siblings.push(subtree(&sibling, depth + 1));
            (here, depth) = (next, depth + 1);
        }
        siblings.reverse();
        StateProof { siblings, other_leaf: here.first().copied().filter(|(found, _)| found != key) }
    }

    fn pairs(&self) -> Vec<(Hash, Hash)> {
        self.leaves.iter().map(|(key, value)| (*key, *value)).collect()
    }
}

fn subtree(leaves: &[(Hash, Hash)], depth: usize) -> Hash {
    match leaves {
        [] => STATE_EMPTY,
        [(key, value)] => state_leaf(key, value),
        _ => {
            let (left, right) = split(leaves, depth);
            state_node(&subtree(&left, depth + 1), &subtree(&right, depth + 1))
        }
    }
}

type Leaves = Vec<(Hash, Hash)>;

fn split(leaves: &[(Hash, Hash)], depth: usize) -> (Leaves, Leaves) {
    leaves.iter().partition(|(key, _)| !bit(key, depth))
}

fn bit(key: &Hash, position: usize) -> bool {
    key[position / 8] & (0x80 >> (position % 8)) != 0
}
