//! Rules: which limits a request meets.
//!
//! A request belongs to a domain and has *descriptors*, each a list of entries `(key, value)`. A domain holds a tree of
//! keys and values; a descriptor that leads to a node with a rule meets the rule's limit. The semantics are those of
//! the Envoy project's rate limit service, so that its rule files keep their meaning; counters are told apart by an
//! injective encoding, which there they are not.

mod index;
mod matching;
mod rule;
mod tree;

pub use matching::{Counters, Entry, Match, Placed, Request};
pub use rule::{OnFailure, Rule, Sharing};
pub use tree::{Domain, Node, NodeValue, RuleError, RuleSet};

/// Keys below each other.
pub const DEPTH_MAX: usize = 16;
/// Nodes of a domain.
pub const NODES_MAX: usize = 100_000;
/// Bytes of a name, a key or a value in a rule.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Descriptors of a request.
pub const DESCRIPTORS_MAX: usize = crate::HITS_MAX;
