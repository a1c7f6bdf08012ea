//! Which rules a request meets, and by which counters.

use std::collections::BTreeSet;

use super::index::{Branch, Trail, pattern};
use super::rule::{Rule, Sharing};
use super::tree::{Domain, Node, RuleSet};
use crate::key::KeyParts;

/// Bytes of a counter for each entry beside its key and value: three lengths, and what kind of value it is.
const ENTRY_BYTES: usize = 13;

/// An entry of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'r> {
    /// What is described.
    pub key: &'r str,
    /// How.
    pub value: &'r str,
}

/// What a request says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'r> {
    /// The domain.
    pub domain: &'r str,
    /// The descriptors: each may meet one rule.
    pub descriptors: &'r [&'r [Entry<'r>]],
}

/// A rule that a descriptor meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<'s> {
    /// The rule.
    pub rule: &'s Rule,
    /// Its place in the list of [`RuleSet::rules`].
    pub number: usize,
    /// The place of the rule: domain and nodes, joined by dots. For people; it may be ambiguous.
    pub path: &'s str,
    /// The place of the rule, exactly.
    pub place: &'s KeyParts,
    /// The counter: domain, and for each entry its key and what tells its values apart.
    pub counter: KeyParts,
}

/// A rule in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<'s> {
    /// The rule.
    pub rule: &'s Rule,
    /// As in [`Match`].
    pub path: String,
    /// As in [`Match`].
    pub place: KeyParts,
    /// How many counters it can have.
    pub counters: Counters,
}

/// How many counters a rule can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counters {
    /// One: no node on the way to it tells several values apart.
    One,
    /// As many as there are values.
    Many,
}

impl RuleSet {
    /// For each descriptor of the request, in order, the rule that it meets and that no other one replaces.
    ///
    /// At each entry the node of its exact value is taken; else the first of the patterns that match, in the order of the
    /// nodes; else the node of the longest prefix; else the node of any value.
    /// The rule is that of the node where the entries end: a descriptor that has more or fewer entries meets none.
    pub fn matches<'s>(&'s self, request: &Request<'_>) -> Vec<Option<Match<'s>>> {
        let known = self.domain(request.domain).zip(self.index_of(request.domain));
        let Some((domain, index)) = known else { return vec![None; request.descriptors.len()] };
        let descend = |entries: &&[Entry<'_>]| descend(domain, index, entries);
        let mut found: Vec<_> = request.descriptors.iter().map(descend).collect();
        let rules = found.iter().flatten().map(|found| found.rule);
        let replaced: BTreeSet<&str> =
            rules.flat_map(|rule| rule.replaces.iter().map(String::as_str)).collect();
        for place in &mut found {
            let name = place.as_ref().and_then(|found| found.rule.name.as_deref());
            if name.is_some_and(|name| replaced.contains(name)) {
                *place = None;
            }
        }
        found
    }

    /// All rules, each domain's in the order of its nodes, a node's own before those below it.
    pub fn rules(&self) -> Vec<Placed<'_>> {
        let mut all = Vec::new();
        let mut open: Vec<(&Branch, &Node)> = Vec::new();
        for (domain, index) in self.domains().zip(self.indices()) {
            open.extend(index.below.iter().zip(&domain.nodes).rev());
            while let Some((branch, node)) = open.pop() {
                open.extend(branch.below.iter().zip(&node.nodes).rev());
                let Trail { path, place, counters } = &branch.trail;
                let (path, place, counters) = (path.clone(), place.clone(), *counters);
                all.extend(node.rule.as_ref().map(|rule| Placed { rule, path, place, counters }));
            }
        }
        all
    }
}

fn descend<'s>(domain: &'s Domain, index: &'s Branch, entries: &[Entry<'_>]) -> Option<Match<'s>> {
    let (mut nodes, mut branch) = (&domain.nodes, index);
    let room = entries.iter().map(|entry| entry.key.len().saturating_add(entry.value.len()));
    let mut counter =
        index.trail.place.roomier(room.sum::<usize>().saturating_add(ENTRY_BYTES * entries.len()));
    let mut last = None;
    for entry in entries {
        let best = branch.best(nodes, entry.key, entry.value)?;
        let node = nodes.get(best)?;
        let (kind, value) = match node.sharing {
            Sharing::PerValue => (&b"="[..], entry.value),
            Sharing::Together => pattern(node),
        };
        counter = counter.with(entry.key.as_bytes()).with(kind).with(value.as_bytes());
        (nodes, branch) = (&node.nodes, branch.below.get(best)?);
        last = Some(node);
    }
    let (rule, number) = (last?.rule.as_ref()?, branch.number?);
    Some(Match { rule, number, path: &branch.trail.path, place: &branch.trail.place, counter })
}
