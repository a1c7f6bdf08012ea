//! A limit with what surrounds it.

use crate::limit::Limit;
use crate::limit_set::Enforcement;

/// What happens to requests while a rule's counters cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// They pass: for limits that protect comfort.
    #[default]
    Open,
    /// They are denied: for limits that protect credentials.
    Closed,
    /// Each node counts by itself, with its share of the limit.
    LocalShare,
}

/// Who shares a counter of a rule whose node matches several values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Each value has its own.
    #[default]
    PerValue,
    /// All values that the node matches have one.
    Together,
}

/// A limit, and how it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The limit.
    pub limit: Limit,
    /// By which other rules replace it and answers name it.
    pub name: Option<String>,
    /// Names of rules that do not count for a request that meets this one.
    pub replaces: Vec<String>,
    /// Whether it denies.
    pub enforcement: Enforcement,
    /// What happens without its counters.
    pub on_failure: OnFailure,
    /// Cells that each hit of a request takes.
    pub cost: u64,
}

impl Rule {
    /// A rule that is enforced, replaces nothing, and lets requests pass while its counters cannot be reached.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            name: None,
            replaces: Vec::new(),
            enforcement: Enforcement::Enforced,
            on_failure: OnFailure::Open,
            cost: 1,
        }
    }

    /// The rule under a name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// The rule, in place of those of these names.
    #[must_use]
    pub fn replacing(self, names: &[&str]) -> Self {
        Self { replaces: names.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    /// The rule, of which each hit takes so many cells.
    #[must_use]
    pub fn costing(self, cells: u64) -> Self {
        Self { cost: cells, ..self }
    }

    /// The rule, so enforced.
    #[must_use]
    pub fn enforced(self, enforcement: Enforcement) -> Self {
        Self { enforcement, ..self }
    }

    /// The rule, with this answer while its counters cannot be reached.
    #[must_use]
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        Self { on_failure, ..self }
    }
}
