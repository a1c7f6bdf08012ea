//! Descriptors: the nodes of a domain's tree.

use std::collections::BTreeMap;

use ratelimit_core::rules::{DEPTH_MAX, NODES_MAX, Node, NodeValue, OnFailure, Rule, RuleError, Sharing};
use ratelimit_core::{Enforcement, Limit};

use super::Problem;
use super::civil::Civil;
use super::fields::Fields;
use super::limit::{envoy_limit, limit, replaces, unknown};
use super::located::{Fault, Located};

/// What says how a limit is enforced or counted. Files of the Envoy project's service do not have these fields, so nobody loses a
/// file by it that one of them without a limit is refused.
const OF_A_LIMIT: [&str; 4] = ["on_failure", "cost", "name", "replaces"];
/// The same, in fields that the Envoy project's service reads and drops where there is no limit.
const OF_A_LIMIT_THERE: [&str; 2] = ["shadow_mode", "quota_mode"];

/// Reads descriptors, counts them, and notes where their rules are.
pub(super) struct Descriptors<'c> {
    civil: &'c mut Civil,
    nodes: usize,
    noted: Noted,
}

/// What a file says beside its rules.
#[derive(Default)]
pub(super) struct Noted {
    /// The path of each rule, and the line of its limit.
    pub rules: Vec<(String, usize)>,
    /// Fields that change nothing, and their lines.
    pub idle: Vec<(&'static str, usize)>,
}

/// What belongs to a limit, and may stand beside it or within `rate_limit`.
struct Named {
    limit: Limit,
    line: usize,
    name: Option<String>,
    replaces: Vec<String>,
}

impl<'c> Descriptors<'c> {
    /// Those of a file.
    pub(super) fn new(civil: &'c mut Civil) -> Self {
        Self { civil, nodes: 0, noted: Noted::default() }
    }

    /// What was noted of everything that was read.
    pub(super) fn into_noted(self) -> Noted {
        self.noted
    }

    /// The nodes of a list below a path, at a depth that is counted from 1.
    pub(super) fn read(&mut self, list: &[Located], path: &str, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut lines: BTreeMap<(String, NodeValue), usize> = BTreeMap::new();
        let mut nodes = Vec::new();
        for located in list {
            let refused = |error| Fault::new(located.line, Problem::Rules(error));
            if depth > DEPTH_MAX {
                return Err(refused(RuleError::TooDeep {
                    path: "this descriptor".to_owned(),
                    depth_max: DEPTH_MAX,
                }));
            }
            self.nodes = self.nodes.saturating_add(1);
            if self.nodes > NODES_MAX {
                let domain = "of this file".to_owned();
                return Err(refused(RuleError::TooManyNodes { domain, nodes_max: NODES_MAX }));
            }
            let node = self.node(located, path, depth)?;
            let place = (node.key.clone(), node.value.clone());
            if let Some(first_line) = lines.insert(place, located.line) {
                return Err(Fault::new(located.line, Problem::DuplicateDescriptor { first_line }));
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn node(&mut self, located: &Located, path: &str, depth: usize) -> Result<Node, Fault> {
        let mut fields = Fields::of(located, "a descriptor")?;
        let (key_at, key) = fields.needed_name("key")?;
        if key.contains('*') {
            return Err(Fault::new(key_at, Problem::WildcardInKey));
        }
        let value = match fields.name("value")? {
            None => NodeValue::Any,
            Some((_, value)) if value.contains('*') => NodeValue::Pattern(value),
            Some((_, value)) => NodeValue::Exact(value),
        };
        let mut node = Node::new(&key, value);
        if fields.flag("share_threshold")? {
            if !matches!(node.value, NodeValue::Pattern(_)) {
                return Err(Fault::new(located.line, Problem::NothingToShare));
            }
            node.sharing = Sharing::Together;
        }
        let path = format!("{path}.{}", node.label());
        let line_of = |name: &&'static str| Some((*name, fields.line_of(name)?));
        let needs_limit = OF_A_LIMIT.iter().find_map(line_of);
        let set = |name: &&'static str| Some((*name, fields.line_of(name).filter(|_| fields.is_set(name))?));
        let enforced_at: Vec<_> = OF_A_LIMIT_THERE.iter().filter_map(set).collect();
        let rule = self.rule(&mut fields, &path)?;
        let below = fields.list("descriptors")?.unwrap_or_default();
        // What others make of them in metrics and headers does not change a decision.
        fields.flag("detailed_metric")?;
        fields.flag("value_to_metric")?;
        fields.take("metadata");
        fields.finish()?;
        if rule.is_none() {
            if let Some((field, line)) = needs_limit {
                return Err(Fault::new(line, Problem::WithoutLimit { field }));
            }
            self.noted.idle.extend(enforced_at);
        }
        node.rule = rule;
        node.nodes = self.read(below, &path, depth + 1)?;
        Ok(node)
    }

    fn rule(&mut self, fields: &mut Fields<'_>, path: &str) -> Result<Option<Rule>, Fault> {
        let enforcement = match (fields.flag("shadow_mode")?, fields.flag("quota_mode")?) {
            (true, _) => Enforcement::Shadow,
            (false, true) => Enforcement::Quota,
            (false, false) => Enforcement::Enforced,
        };
        let on_failure = fields.name("on_failure")?;
        let (cost, line) = (fields.number("cost")?.unwrap_or(1), fields.line);
        let Some(Named { limit, line: limit_at, name, replaces }) = self.named(fields)? else {
            return Ok(None);
        };
        self.noted.rules.push((path.to_owned(), limit_at));
        if name.as_ref().is_some_and(|name| replaces.contains(name)) {
            return Err(Fault::new(line, Problem::ReplacesItself));
        }
        if cost == 0 {
            let error = RuleError::ZeroCost { path: "this descriptor".to_owned() };
            return Err(Fault::new(line, Problem::Rules(error)));
        }
        let on_failure = match on_failure.as_ref().map(|(line, told)| (*line, told.as_str())) {
            None | Some((_, "open")) => OnFailure::Open,
            Some((_, "closed")) => OnFailure::Closed,
            Some((_, "local_share")) => OnFailure::LocalShare,
            Some((line, told)) => {
                return Err(unknown(line, "on_failure", told, "open, closed or local_share"));
            }
        };
        Ok(Some(Rule { limit, name, replaces, enforcement, on_failure, cost }))
    }

    fn named(&mut self, fields: &mut Fields<'_>) -> Result<Option<Named>, Fault> {
        let beside = (fields.name("name")?.map(|(_, name)| name), replaces(fields)?);
        match (fields.take("limit"), fields.take("rate_limit")) {
            (Some(_), Some(other)) => {
                Err(Fault::new(other.line, Problem::Conflict { one: "limit", other: "rate_limit" }))
            }
            (Some(located), None) => {
                let (name, replaces) = beside;
                Ok(Some(Named { limit: limit(located, self.civil)?, line: located.line, name, replaces }))
            }
            (None, Some(located)) => {
                let mut fields = Fields::of(located, "rate_limit")?;
                let limit = envoy_limit(&mut fields, self.civil)?;
                let name = fields.name("name")?.map(|(_, name)| name).or(beside.0);
                let replaces = [replaces(&mut fields)?, beside.1].concat();
                fields.finish()?;
                Ok(Some(Named { limit, line: located.line, name, replaces }))
            }
            (None, None) => Ok(None),
        }
    }
}
