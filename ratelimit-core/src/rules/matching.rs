//! Which rules a request meets, and by which counters.

use std::collections::BTreeSet;

use super::rule::{Rule, Sharing};
use super::tree::{Domain, Node, NodeValue, RuleSet, label};
use crate::key::KeyParts;

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
    /// The place of the rule: domain and nodes, joined by dots. For people; it may be ambiguous.
    pub path: String,
    /// The place of the rule, exactly.
    pub place: KeyParts,
    /// The counter: domain, and for each entry its key and what tells its values apart.
    pub counter: KeyParts,
}

impl RuleSet {
    /// For each descriptor of the request, in order, the rule that it meets and that no other one replaces.
    ///
    /// At each entry the node of its exact value is taken; else the node of the longest prefix; else the node of any value.
    /// The rule is that of the node where the entries end: a descriptor that has more or fewer entries meets none.
    pub fn matches<'s>(&'s self, request: &Request<'_>) -> Vec<Option<Match<'s>>> {
        let Some(domain) = self.domain(request.domain) else { return vec![None; request.descriptors.len()] };
        let mut found: Vec<_> = request.descriptors.iter().map(|entries| descend(domain, entries)).collect();
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
}

fn descend<'s>(domain: &'s Domain, entries: &[Entry<'_>]) -> Option<Match<'s>> {
    let mut siblings = &domain.nodes;
    let mut path = domain.name.clone();
    let (mut place, mut counter) = (KeyParts::new([&domain.name]), KeyParts::new([&domain.name]));
    let mut last = None;
    for entry in entries {
        let node = best(siblings, entry)?;
        let (kind, pattern) = match &node.value {
            NodeValue::Exact(value) => (b"=", value.as_str()),
            NodeValue::Prefix(prefix) => (b"^", prefix.as_str()),
            NodeValue::Any => (b"*", ""),
        };
        place = place.with(node.key.as_bytes()).with(kind).with(pattern.as_bytes());
        counter = match node.sharing {
            Sharing::PerValue => counter.with(entry.key.as_bytes()).with(b"=").with(entry.value.as_bytes()),
            Sharing::Together => counter.with(entry.key.as_bytes()).with(kind).with(pattern.as_bytes()),
        };
        path.push('.');
        path.push_str(&label(node));
        siblings = &node.nodes;
        last = Some(node);
    }
    Some(Match { rule: last?.rule.as_ref()?, path, place, counter })
}

fn best<'s>(siblings: &'s [Node], entry: &Entry<'_>) -> Option<&'s Node> {
    let rank = |node: &Node| match &node.value {
        NodeValue::Exact(value) => (value == entry.value).then_some((2, 0)),
        NodeValue::Prefix(prefix) => entry.value.starts_with(prefix.as_str()).then_some((1, prefix.len())),
        NodeValue::Any => Some((0, 0)),
    };
    let of_key = siblings.iter().filter(|node| node.key == entry.key);
    let ranked = of_key.filter_map(|node| Some((rank(node)?, node)));
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, node)| node)
}
