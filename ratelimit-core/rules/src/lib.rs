//! Rate limit rules at work: the engine that a server runs, reloaded without losing a counter or a request.
//!
//! ```
//! use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Rule, RuleSet};
//! use ratelimit_core::{HashSecret, Limit, Nanos, Rate, TableSize};
//! use ratelimit_rules::{Descriptor, Engine, Request};
//!
//! let limit = Limit::gcra(Rate::per_minute(3), 3)?;
//! let node = Node::new("client_ip", NodeValue::Any).with_rule(Rule::new(limit));
//! let rules = RuleSet::new([Domain { name: "demo".to_owned(), nodes: vec![node] }])?;
//! let engine = Engine::new(rules, TableSize::for_keys(10_000), HashSecret([7; 16]))?;
//! let entries = [Entry { key: "client_ip", value: "192.0.2.1" }];
//! let descriptors = [Descriptor::new(&entries)];
//! let request = Request::new("demo", &descriptors);
//! let admitted = (0..4).filter(|_| engine.check(&request, Nanos(0)).is_ok_and(|answer| answer.allowed)).count();
//! assert_eq!(admitted, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - A request is charged everything or nothing, over all of its descriptors.
//! - A reload happens between two requests: each is decided once, by the rules of before or by those of after. It
//!   succeeds as a whole or changes nothing.
//! - A rule that stays at its place with its limit keeps its counters. With another limit each counter keeps the cells that
//!   were left, up to the new size; permits stay with who holds them.
//! - Memory is bounded: tables of a fixed size, of which each can be had before anything changes, at most [`TOP_MAX`] denied keys, requests of bounded size.
//!
//! # It is not
//!
//! A server, nor a reader of files or clocks: text, time and the secret of the hashing are arguments.
//!
//! # Map
//!
//! `request`, `limit_override`, `answer`: what goes in and comes out. `engine`: the façade over counters in memory. `store_engine/`: the one
//! over a store, and what happens without it. `in_force`: the rules, and their reload. `tallies`, `counts`: what was decided.
//! `file/`: rule files. `top`: the keys that are denied most. `words`: limits for people.

mod answer;
mod counts;
mod engine;
mod file;
mod in_force;
mod limit_override;
mod request;
mod store_engine;
mod tallies;
mod top;
mod words;

pub use answer::{Answer, RuleRef, Status};
pub use engine::{Engine, EngineError, EngineGrant, Reloaded, RuleView};
pub use file::{
    Epoch, FILE_BYTES_MAX, IdleField, NESTING_MAX, Problem, ReadRules, RuleFile, RuleFileError, RuleLine,
    RuleLines, Syntax, VALUES_MAX, read_rule_files, read_rules,
};
pub use in_force::{OVERRIDES_MAX, TABLES_MAX};
pub use limit_override::{LimitOverride, OverrideUnit};
pub use request::{Descriptor, ENTRIES_MAX, REQUEST_BYTES_MAX, Request, RequestError};
pub use store_engine::{
    FAILURE_INTERVAL, FAILURES_TO_DEGRADE, PROBES_TO_RETURN, RuleStore, StoreCallError, StoreEngine,
    StoreGrant, StoreHealth, TEND_INTERVAL, TendDeadlines, UNPUSHED_BYTES_MAX, UNPUSHED_KEYS_MAX,
};
pub use tallies::{Tallies, Totals};
pub use top::{TOP_MAX, TOP_VALUE_BYTES_MAX, TopDenied};
pub use words::{algorithm_name, limit_in_words};
