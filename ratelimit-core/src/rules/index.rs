//! Where requests look: the nodes of each tree by key and value, and what is known of every place beforehand. A request
//! builds nothing of that, and no number of siblings makes it slower than their logarithm.

use std::collections::BTreeMap;

use super::matching::Counters;
use super::rule::Sharing;
use super::tree::{Domain, Node, NodeValue};
use crate::key::KeyParts;

/// The index of a tree, or of the part of it below a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch {
    pub trail: Trail,
    /// The number of the rule here among all rules, if there is one.
    pub number: Option<usize>,
    by_key: BTreeMap<String, OfKey>,
    /// As many as there are nodes below, in their order.
    pub below: Vec<Branch>,
}

/// The way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    pub path: String,
    pub place: KeyParts,
    pub counters: Counters,
}

/// The nodes of one key among siblings, by their place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfKey {
    exact: BTreeMap<String, usize>,
    /// In the order of the nodes.
    patterns: Vec<usize>,
    /// The longest first.
    prefixes: Vec<usize>,
    any: Option<usize>,
}

impl Branch {
    /// The index of a domain. `rules` is how many rules there are before it, and counts those in it.
    pub(super) fn of(domain: &Domain, rules: &mut usize) -> Self {
        let trail = Trail {
            path: domain.name.clone(),
            place: KeyParts::new([&domain.name]),
            counters: Counters::One,
        };
        Self::new(trail, None, &domain.nodes, rules)
    }

    /// No deeper than a domain may be, which was checked.
    fn new(trail: Trail, number: Option<usize>, nodes: &[Node], rules: &mut usize) -> Self {
        let mut by_key: BTreeMap<String, OfKey> = BTreeMap::new();
        let mut below = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let of_key = by_key.entry(node.key.clone()).or_default();
            match &node.value {
                NodeValue::Exact(value) => {
                    of_key.exact.insert(value.clone(), index);
                }
                NodeValue::Pattern(_) => of_key.patterns.push(index),
                NodeValue::Prefix(_) => of_key.prefixes.push(index),
                NodeValue::Any => of_key.any = Some(index),
            }
            let number = node.rule.is_some().then_some(*rules);
            *rules += usize::from(number.is_some());
            below.push(Self::new(trail.to(node), number, &node.nodes, rules));
        }
        let length = |index: &usize| match nodes.get(*index).map(|node| &node.value) {
            Some(NodeValue::Prefix(prefix)) => prefix.len(),
            _ => 0,
        };
        for of_key in by_key.values_mut() {
            of_key.prefixes.sort_by_key(|index| std::cmp::Reverse(length(index)));
        }
        Self { trail, number, by_key, below }
    }

    /// The place, among the nodes here, of the one that an entry takes.
    pub(super) fn best(&self, nodes: &[Node], key: &str, value: &str) -> Option<usize> {
        let of_key = self.by_key.get(key)?;
        let describes = |index: &&usize| match nodes.get(**index).map(|node| &node.value) {
            Some(NodeValue::Pattern(pattern)) => describes(pattern, value),
            Some(NodeValue::Prefix(prefix)) => value.starts_with(prefix.as_str()),
            _ => false,
        };
        let exact = of_key.exact.get(value);
        let found = exact.or_else(|| of_key.patterns.iter().chain(&of_key.prefixes).find(describes));
        found.copied().or(of_key.any)
    }
}

impl Trail {
    fn to(&self, node: &Node) -> Self {
        let (kind, pattern) = pattern(node);
        let many = node.sharing == Sharing::PerValue && !matches!(node.value, NodeValue::Exact(_));
        // Whose values share a counter has other counters than whose do not, so it is another place.
        let kind = match (&node.value, node.sharing) {
            (NodeValue::Prefix(_), Sharing::Together) => b"^:",
            (NodeValue::Pattern(_), Sharing::Together) => b"~:",
            (NodeValue::Any, Sharing::Together) => b"*:",
            (NodeValue::Exact(_), _) | (_, Sharing::PerValue) => kind,
        };
        Self {
            path: format!("{}.{}", self.path, node.label()),
            place: self.place.clone().with(node.key.as_bytes()).with(kind).with(pattern.as_bytes()),
            counters: if many { Counters::Many } else { self.counters },
        }
    }
}

/// What tells a node from its siblings of the same key.
pub(super) fn pattern(node: &Node) -> (&'static [u8], &str) {
    match &node.value {
        NodeValue::Exact(value) => (b"=", value),
        NodeValue::Prefix(prefix) => (b"^", prefix),
        NodeValue::Pattern(pattern) => (b"~", pattern),
        NodeValue::Any => (b"*", ""),
    }
}

/// Whether a text is what a pattern describes, each `*` of which stands for any text. Each part between two of them is
/// looked for once, from the left: no pattern takes more than a pass for each of its parts.
fn describes(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
}
