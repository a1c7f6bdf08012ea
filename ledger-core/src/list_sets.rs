//! The sets behind provable lists: for every resource of a vault the tree of its (relation, subject) pairs.
//!
//! A set's root and count are a leaf of the vault's state tree. Sets hold hashes only and have no rows of their own:
//! they follow from the relationships, from which they are rebuilt when a ledger opens.
//!
//! Cost: a set of up to [`SMALL_MEMBERS_MAX`] members takes 64 bytes a member and some 60 for itself, a larger one
//! about 125 bytes a member. A block hashes each touched set once; the members of one relation share the first
//! 16 bits of their keys, so a set of two or more members hashes at least as many nodes.

use std::collections::HashMap;

use ledger_verify::Hash;
use ledger_verify::list::{ListLeaf, member_key, member_value_hash, state_key_hash};
use ledger_verify::transaction::RelationshipRef;

use crate::state_tree::{StateTree, root_of_sorted};

/// Largest set that is kept as a sorted list and hashed anew with every change.
pub const SMALL_MEMBERS_MAX: usize = 16;

/// A leaf of the state tree to write (its value hash) or to remove.
pub type LeafChange = (Hash, Option<Hash>);

/// A relationship that was created or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListChange {
    list: Hash,
    member: Hash,
    value: Option<Hash>,
}

impl ListChange {
    /// It exists now.
    pub fn created(tuple: &RelationshipRef<'_>) -> Self {
        let value = member_value_hash(tuple.relation, tuple.subject);
        Self { value: Some(value), ..Self::deleted(tuple) }
    }

    /// It does not exist any more.
    pub fn deleted(tuple: &RelationshipRef<'_>) -> Self {
        let member = member_key(tuple.relation, tuple.subject);
        Self { list: state_key_hash(tuple.resource), member, value: None }
    }
}

/// The sets of one vault.
#[derive(Debug, Default)]
pub struct ListSets {
    /// By the state tree's key hash of the resource's list leaf.
    sets: HashMap<Hash, ListSet>,
}

/// Members as (key, value hash).
#[derive(Debug)]
enum ListSet {
    /// Ordered by key.
    Small(Box<[(Hash, Hash)]>),
    Large(Box<StateTree>),
}

impl ListSets {
    /// No sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sets of relationships in any order.
    pub fn from_changes(changes: Vec<ListChange>) -> Self {
        let mut sets = Self::new();
        sets.apply(changes);
        sets
    }

    /// How many resources have relationships: that many list leaves the state tree has.
    pub fn len(&self) -> u64 {
        self.sets.len() as u64
    }

    /// True without any relationship.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The list leaf of a resource; `None` without relationships.
    pub fn leaf(&self, resource: &str) -> Option<ListLeaf> {
        self.sets.get(&state_key_hash(resource)).map(ListSet::leaf)
    }

    /// Every list leaf as the state tree holds it: key hash and value hash, in any order.
    pub fn leaves(&self) -> impl Iterator<Item = (Hash, Hash)> {
        self.sets.iter().map(|(list, set)| (*list, set.leaf().hash()))
    }

    /// Applies the changes of one block in their order and returns the list leaves that differ, in any order.
    pub fn apply(&mut self, mut changes: Vec<ListChange>) -> Vec<LeafChange> {
        // Stable: of several changes of one member the last counts, as the tree's update has it.
        changes.sort_by_key(|change| change.list);
        changes
            .chunk_by(|a, b| a.list == b.list)
            .filter_map(|of_one| {
                let list = of_one.first()?.list;
                let members = of_one.iter().map(|change| (change.member, change.value)).collect();
                Some((list, self.apply_to(list, members)))
            })
            .collect()
    }

    fn apply_to(&mut self, list: Hash, changes: Vec<(Hash, Option<Hash>)>) -> Option<Hash> {
        let set = self.sets.remove(&list).unwrap_or_else(ListSet::empty).changed(changes);
        if set.len() == 0 {
            return None;
        }
        let leaf = set.leaf().hash();
        self.sets.insert(list, set);
        Some(leaf)
    }

    /// Bytes of memory that the sets occupy.
    pub fn memory_bytes(&self) -> usize {
        let entry = size_of::<(Hash, ListSet)>() + 1;
        self.sets.capacity() * entry + self.sets.values().map(ListSet::heap_bytes).sum::<usize>()
    }
}

impl ListSet {
    fn empty() -> Self {
        Self::Small(Box::default())
    }

    fn changed(self, changes: Vec<(Hash, Option<Hash>)>) -> Self {
        let members = match self {
            Self::Large(mut tree) => {
                tree.update(changes);
                return Self::Large(tree);
            }
            Self::Small(members) => members,
        };
        let mut members = members.into_vec();
        if members.len() + changes.len() > 4 * SMALL_MEMBERS_MAX {
            let mut tree = StateTree::from_leaves(members);
            tree.update(changes);
            return Self::Large(Box::new(tree));
        }
        for (key, value) in changes {
            let place = members.binary_search_by_key(&key, |(key, _)| *key);
            match (place, value) {
                (Ok(index), None) => drop(members.remove(index)),
                (Err(index), Some(value)) => members.insert(index, (key, value)),
                // A member's value follows from its key.
                (Ok(_), Some(_)) | (Err(_), None) => {}
            }
        }
        if members.len() > SMALL_MEMBERS_MAX {
            Self::Large(Box::new(StateTree::from_leaves(members)))
        } else {
            Self::Small(members.into_boxed_slice())
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Small(members) => members.len() as u64,
            Self::Large(tree) => tree.len(),
        }
    }

    fn leaf(&self) -> ListLeaf {
        let root = match self {
            Self::Small(members) => root_of_sorted(members),
            Self::Large(tree) => tree.root(),
        };
        ListLeaf { count: self.len(), root }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Small(members) => size_of_val::<[(Hash, Hash)]>(members),
            Self::Large(tree) => tree.memory_bytes(),
        }
    }
}
