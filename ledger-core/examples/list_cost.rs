//! What provable lists cost: memory per relationship, and microseconds per relationship that a block changes.
//!
//! `cargo run --release -p ledger-core --example list_cost`
#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::Instant;

use ledger_core::list_sets::{ListChange, ListSets};
use ledger_core::state_tree::StateTree;
use ledger_verify::Hash;
use ledger_verify::state::StateKey;
use ledger_verify::transaction::RelationshipRef;

const RELATIONSHIPS: usize = 300_000;
const BLOCK: usize = 500;

fn main() {
    println!("{RELATIONSHIPS} relationships, blocks of {BLOCK} on random resources");
    for head in [
        ["members of", "sets", "list leaves", "sets", "list leaves", "own leaves"],
        ["a resource", "B/tuple", "B/tuple", "us/tuple", "us/tuple", "us/tuple"],
    ] {
        let [first, rest @ ..] = head;
        println!("{first:>11} {}", rest.map(|name| format!("{name:>12}")).join(" "));
    }
    for members in [1, 3, 10, 100, 3_000] {
        measure(members);
    }
}

fn measure(members: usize) {
    let resources = RELATIONSHIPS / members;
    let change = |number: usize| {
        let (resource, subject) = (number % resources, number / resources);
        let tuple = (format!("pkg:name{resource}"), format!("pkg:dependant{subject}"));
        (tuple, number)
    };
    let mut tree = StateTree::new();
    let mut sets = ListSets::new();
    let load: Vec<ListChange> = (0..RELATIONSHIPS).map(|number| created(&change(number).0)).collect();
    let leaves = sets.apply(load);
    let relationships = (0..RELATIONSHIPS).map(|number| (key(&change(number).0), Some([1; 32]))).collect();
    tree.update(relationships);
    let before = tree.memory_bytes();
    tree.update(leaves);
    let tree_bytes = tree.memory_bytes() - before;

    // New relationships on resources all over the vault, as an import in random order brings them.
    let (mut in_sets, mut in_tree, mut of_own) = (0.0, 0.0, 0.0);
    let blocks = 100;
    for block in 0..blocks {
        let tuples: Vec<_> = (0..BLOCK)
            .map(|index| {
                let scattered = (block * BLOCK + index).wrapping_mul(2_654_435_761) % resources;
                (format!("pkg:name{scattered}"), format!("pkg:new{block}-{index}"))
            })
            .collect();
        let started = Instant::now();
        let leaves = sets.apply(tuples.iter().map(created).collect());
        in_sets += started.elapsed().as_secs_f64();
        let started = Instant::now();
        tree.update(leaves);
        in_tree += started.elapsed().as_secs_f64();
        // What a relationship costs without lists.
        let own = tuples.iter().map(|tuple| (key(tuple), Some([2; 32]))).collect();
        let started = Instant::now();
        tree.update(own);
        of_own += started.elapsed().as_secs_f64();
    }
    let per_tuple = |seconds: f64| seconds * 1e6 / (blocks * BLOCK) as f64;
    println!(
        "{members:>11} {:>12.0} {:>12.0} {:>12.2} {:>12.2} {:>12.2}",
        sets.memory_bytes() as f64 / (RELATIONSHIPS + blocks * BLOCK) as f64,
        tree_bytes as f64 / RELATIONSHIPS as f64,
        per_tuple(in_sets),
        per_tuple(in_tree),
        per_tuple(of_own),
    );
}

fn created(tuple: &(String, String)) -> ListChange {
    ListChange::created(&reference(tuple))
}

fn key(tuple: &(String, String)) -> Hash {
    StateKey::Relationship(reference(tuple)).hash()
}

fn reference((resource, subject): &(String, String)) -> RelationshipRef<'_> {
    RelationshipRef { resource, relation: "required_by", subject }
}
