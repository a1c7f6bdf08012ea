//! What is known of files beside the rules in them: where each rule is, and what changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ratelimit_core::rules::RuleSet;

/// Rules that were read.
#[derive(Debug, Clone, Default)]
pub struct ReadRules {
    /// The rules.
    pub rules: RuleSet,
    /// Where they are.
    pub lines: RuleLines,
    /// What changes nothing, and would be missed by whoever wrote it. Files of the Envoy project's service may have it.
    pub idle: Vec<IdleField>,
}

/// A field without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleField {
    /// In which file.
    pub file: String,
    /// In which line, from 1.
    pub line: usize,
    /// Its name.
    pub field: &'static str,
}

impl std::fmt::Display for IdleField {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, field } = self;
        write!(
            formatter,
            "{file}:{line}: {field} changes nothing: this descriptor has no limit, and those below do not take it over"
        )
    }
}

/// The line of a rule's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleLine {
    /// In which file.
    pub file: Arc<str>,
    /// In which line, from 1.
    pub line: usize,
}

/// Where rules are, by the paths that [`EngineError`](crate::EngineError) and listings have.
#[derive(Debug, Clone, Default)]
pub struct RuleLines(BTreeMap<String, RuleLine>);

impl RuleLines {
    /// Where the rule with this path is. Where dots in keys and values make the same path of two, the first.
    pub fn of(&self, path: &str) -> Option<&RuleLine> {
        self.0.get(path)
    }

    pub(super) fn note(&mut self, file: &str, rules: Vec<(String, usize)>) {
        let file: Arc<str> = file.into();
        for (path, line) in rules {
            self.0.entry(path).or_insert_with(|| RuleLine { file: Arc::clone(&file), line });
        }
    }
}
