//! The tree of a domain, and the checks that it passes before it is used.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Branch;
use super::rule::{Rule, Sharing};
use super::{DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX};

/// Which values a node matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeValue {
    /// This one.
    Exact(String),
    /// All that begin with this.
    Prefix(String),
    /// All that this describes: text in which each `*` stands for any text.
    Pattern(String),
    /// All that no other node of the same key matches.
    Any,
}

/// A key and its values at one place of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The key of an entry.
    pub key: String,
    /// Its values.
    pub value: NodeValue,
    /// What a descriptor meets that ends here.
    pub rule: Option<Rule>,
    /// Who shares its counters, where several values match.
    pub sharing: Sharing,
    /// What may follow.
    pub nodes: Vec<Node>,
}

impl Node {
    /// A node without a rule.
    pub fn new(key: &str, value: NodeValue) -> Self {
        Self { key: key.to_owned(), value, rule: None, sharing: Sharing::PerValue, nodes: Vec::new() }
    }

    /// The node with a rule.
    #[must_use]
    pub fn with_rule(self, rule: Rule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The node with another below it.
    #[must_use]
    pub fn with_node(mut self, node: Node) -> Self {
        self.nodes.push(node);
        self
    }

    /// The node, whose values share counters so.
    #[must_use]
    pub fn shared(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// What paths call it: `key`, `key=value`, `key=prefix*` or `key=pattern`.
    pub fn label(&self) -> String {
        match &self.value {
            NodeValue::Exact(value) => format!("{}={value}", self.key),
            NodeValue::Prefix(prefix) => format!("{}={prefix}*", self.key),
            NodeValue::Pattern(pattern) => format!("{}={pattern}", self.key),
            NodeValue::Any => self.key.clone(),
        }
    }
}

/// A domain: its name and what descriptors may begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The name by which requests call it.
    pub name: String,
    /// What descriptors may begin with.
    pub nodes: Vec<Node>,
}

/// Domains that passed every check. Values of it are compared by what they say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    domains: BTreeMap<String, Domain>,
    /// Of the same names. What it says follows from the domains.
    index: BTreeMap<String, Branch>,
}

impl RuleSet {
    /// The rules of these domains.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with them, and where.
    pub fn new(domains: impl IntoIterator<Item = Domain>) -> Result<Self, RuleError> {
        let mut checked = BTreeMap::new();
        for domain in domains {
            check_domain(&domain)?;
            let name = domain.name.clone();
            if checked.insert(name.clone(), domain).is_some() {
                return Err(RuleError::DuplicateDomain { name });
            }
        }
        let mut rules = 0;
        let index = checked.iter().map(|(name, domain)| (name.clone(), Branch::of(domain, &mut rules)));
        let index = index.collect();
        Ok(Self { domains: checked, index })
    }

    /// The domain of a name.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    pub(super) fn index_of(&self, name: &str) -> Option<&Branch> {
        self.index.get(name)
    }

    /// Those of all domains, in their order.
    pub(super) fn indices(&self) -> impl Iterator<Item = &Branch> {
        self.index.values()
    }

    /// All domains, by name.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }
}

fn check_domain(domain: &Domain) -> Result<(), RuleError> {
    check_text(&domain.name, &domain.name)?;
    let mut nodes = 0usize;
    let mut open = vec![(domain.name.clone(), 1, &domain.nodes)];
    while let Some((path, depth, siblings)) = open.pop() {
        if depth > DEPTH_MAX && !siblings.is_empty() {
            return Err(RuleError::TooDeep { path, depth_max: DEPTH_MAX });
        }
        let mut seen = BTreeSet::new();
        for node in siblings {
            let path = format!("{path}.{}", node.label());
            check_node(node, &path)?;
            if !seen.insert((&node.key, &node.value)) {
                return Err(RuleError::DuplicateNode { path });
            }
            nodes = nodes.saturating_add(1);
            if nodes > NODES_MAX {
                return Err(RuleError::TooManyNodes { domain: domain.name.clone(), nodes_max: NODES_MAX });
            }
            open.push((path, depth + 1, &node.nodes));
        }
    }
    Ok(())
}

fn check_node(node: &Node, path: &str) -> Result<(), RuleError> {
    check_text(&node.key, path)?;
    if let NodeValue::Exact(value) | NodeValue::Prefix(value) | NodeValue::Pattern(value) = &node.value
        && value.len() > TEXT_BYTES_MAX
    {
        return Err(RuleError::TextTooLong { path: path.to_owned(), bytes_max: TEXT_BYTES_MAX });
    }
    if node.sharing == Sharing::Together && matches!(node.value, NodeValue::Exact(_)) {
        return Err(RuleError::NothingToShare { path: path.to_owned() });
    }
    let Some(rule) = &node.rule else { return Ok(()) };
    if rule.cost == 0 {
        return Err(RuleError::ZeroCost { path: path.to_owned() });
    }
    for name in rule.replaces.iter().chain(&rule.name) {
        check_text(name, path)?;
    }
    match rule.name.as_ref().filter(|name| rule.replaces.contains(name)) {
        Some(_) => Err(RuleError::ReplacesItself { path: path.to_owned() }),
        None => Ok(()),
    }
}

fn check_text(text: &str, path: &str) -> Result<(), RuleError> {
    match text.len() {
        0 => Err(RuleError::Empty { path: path.to_owned() }),
        1..=TEXT_BYTES_MAX => Ok(()),
        _ => Err(RuleError::TextTooLong { path: path.to_owned(), bytes_max: TEXT_BYTES_MAX }),
    }
}

/// What is wrong with rules. `path` is the domain and the nodes that lead there, joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Two domains have one name.
    #[error("the domain {name} is there twice: merge them")]
    DuplicateDomain {
        /// The name.
        name: String,
    },
    /// Two nodes at one place have the same key and values.
    #[error("{path} is there twice: merge them")]
    DuplicateNode {
        /// Where.
        path: String,
    },
    /// A name or key is empty.
    #[error("a name or key at {path:?} is empty: give it one")]
    Empty {
        /// Where.
        path: String,
    },
    /// A name, key or value is too long.
    #[error("a name, key or value at {path} has more than {bytes_max} bytes: shorten it")]
    TextTooLong {
        /// Where.
        path: String,
        /// The most.
        bytes_max: usize,
    },
    /// Nodes are nested too deeply.
    #[error("{path} is deeper than {depth_max} levels: use fewer keys")]
    TooDeep {
        /// Where.
        path: String,
        /// The most.
        depth_max: usize,
    },
    /// A domain has too many nodes.
    #[error("the domain {domain} has more than {nodes_max} nodes: use values that match several")]
    TooManyNodes {
        /// The domain.
        domain: String,
        /// The most.
        nodes_max: usize,
    },
    /// A rule names itself among those that it replaces.
    #[error("the rule at {path} replaces itself: remove its own name from what it replaces")]
    ReplacesItself {
        /// Where.
        path: String,
    },
    /// A hit costs nothing.
    #[error("a hit on {path} costs 0 cells: use at least 1, or an unlimited limit")]
    ZeroCost {
        /// Where.
        path: String,
    },
    /// A node with one value cannot share its counter between values.
    #[error(
        "{path} matches one value, so there is nothing to share: remove the sharing or end the value with *"
    )]
    NothingToShare {
        /// Where.
        path: String,
    },
}
