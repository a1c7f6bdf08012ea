//! What a request meets, beside a model that looks at every node in turn.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Request, Rule, RuleSet, Sharing};
use ratelimit_core::{KeyParts, Limit};

/// Whether a text is what a pattern describes, by its definition: a `*` stands for any text.
fn describes(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|from| describes(rest, &text[from..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(begin, text)| begin == first && describes(rest, text))
        }
    }
}

/// The node that an entry takes: its exact value; else the first pattern in the order of the nodes; else the longest
/// prefix; else any value.
fn best<'n>(nodes: &'n [Node], key: &str, value: &str) -> Option<&'n Node> {
    let of_key = || nodes.iter().filter(|node| node.key == key);
    let exact = of_key().find(|node| matches!(&node.value, NodeValue::Exact(exact) if exact == value));
    let pattern = of_key().find(
        |node| matches!(&node.value, NodeValue::Pattern(pattern) if describes(pattern.as_bytes(), value.as_bytes())),
    );
    let length = |node: &&Node| match &node.value {
        NodeValue::Prefix(prefix) if value.starts_with(prefix.as_str()) => Some(prefix.len()),
        _ => None,
    };
    let prefix = of_key().filter(|node| length(node).is_some()).max_by_key(|node| length(node));
    exact.or(pattern).or(prefix).or_else(|| of_key().find(|node| node.value == NodeValue::Any))
}

/// The size of the limit that is met, and the bytes of its counter.
fn met(domain: &str, nodes: &[Node], entries: &[(String, String)]) -> Option<(u64, KeyParts)> {
    let (mut nodes, mut last, mut counter) = (nodes, None, KeyParts::new([domain]));
    for (key, value) in entries {
        let node = best(nodes, key, value)?;
        let told = match (&node.value, node.sharing) {
            (_, Sharing::PerValue) => ("=", value.as_str()),
            (NodeValue::Exact(value), _) => ("=", value.as_str()),
            (NodeValue::Prefix(prefix), _) => ("^", prefix.as_str()),
            (NodeValue::Pattern(pattern), _) => ("~", pattern.as_str()),
            (NodeValue::Any, _) => ("*", ""),
        };
        counter = counter.with(key.as_bytes()).with(told.0.as_bytes()).with(told.1.as_bytes());
        (nodes, last) = (&node.nodes, Some(node));
    }
    let rule = last?.rule.as_ref()?;
    Some((rule.limit.size(), counter))
}

fn value() -> impl Strategy<Value = NodeValue> {
    prop_oneof![
        3 => "[ab]{0,3}".prop_map(NodeValue::Exact),
        2 => "[ab]{0,3}".prop_map(NodeValue::Prefix),
        2 => "[ab*]{0,4}".prop_map(NodeValue::Pattern),
        1 => Just(NodeValue::Any),
    ]
}

fn nodes(depth: u32) -> BoxedStrategy<Vec<Node>> {
    let below = if depth == 0 { Just(Vec::new()).boxed() } else { nodes(depth - 1) };
    let node = ("[kl]", value(), prop::option::of(1..1_000_000u64), any::<bool>(), below);
    let node = node.prop_map(|(key, value, size, together, nodes)| {
        let limit = |size| Limit::fixed_window(size, Duration::from_secs(60)).expect("a limit");
        let sharing = if together && !matches!(value, NodeValue::Exact(_)) {
            Sharing::Together
        } else {
            Sharing::PerValue
        };
        Node { key, value, rule: size.map(|size| Rule::new(limit(size))), sharing, nodes }
    });
    prop::collection::vec(node, 0..7)
        .prop_map(|mut nodes| {
            nodes.sort_by_key(|node| (node.key.clone(), node.value.clone()));
            nodes.dedup_by_key(|node| (node.key.clone(), node.value.clone()));
            nodes
        })
        .prop_shuffle()
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_the_tree_a_request_meets_what_looking_at_every_node_finds(
        nodes in nodes(2),
        asked in prop::collection::vec(prop::collection::vec(("[klm]", "[ab]{0,4}"), 1..4), 1..20),
    ) {
        let rules = RuleSet::new([Domain { name: "web".to_owned(), nodes: nodes.clone() }]).expect("rules");
        let placed = rules.rules();
        for entries in &asked {
            let borrowed: Vec<Entry<'_>> = entries.iter().map(|(key, value)| Entry { key, value }).collect();
            let found = rules.matches(&Request { domain: "web", descriptors: &[&borrowed] }).remove(0);
            if let Some(found) = &found {
                // Its number finds it in the list.
                prop_assert_eq!(&placed[found.number].place, found.place);
                prop_assert_eq!(&placed[found.number].path, found.path);
                prop_assert_eq!(placed[found.number].rule, found.rule);
            }
            let found = found.map(|found| (found.rule.limit.size(), found.counter));
            prop_assert_eq!(found, met("web", &nodes, entries), "{:?}", entries);
        }
    }
}
