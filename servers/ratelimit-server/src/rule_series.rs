//! What is told of each rule: series that go with their rule.

use std::collections::BTreeMap;

use ratelimit_core::rules::OnFailure;
use ratelimit_rules::{RuleView, Tallies};
use service_kit::series::{SeriesFamily, SeriesKind};

use crate::meter::DECISIONS;

/// Rules with counters of their own; those behind them are counted together, as [`OTHER_RULES`].
pub const RULES_LABELLED_MAX: usize = 1_024;
/// The label of rules beyond that.
pub const OTHER_RULES: &str = "other";
/// The label of limits that came with requests.
const OVERRIDE: &str = "override";

const DEGRADED_DECISIONS: &str = "rate_limit_degraded_decisions_total";
const RULE_DEGRADED: &str = "rate_limit_rule_degraded";

/// What was counted under each label that is told now.
#[derive(Debug, Default)]
pub(crate) struct RuleSeries {
    by_label: BTreeMap<String, Counted>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    /// What its rules said last.
    last: Tallies,
    /// What is told: it only grows as long as the label is there.
    told: Tallies,
}

/// What there is to tell.
pub(crate) struct RulesNow<'r> {
    pub rules: &'r [RuleView],
    pub overrides: Tallies,
    /// Whether rules decide without their counters; `None` when those are in memory.
    pub is_degraded: Option<bool>,
}

impl RuleSeries {
    /// The series of the rules in force, and of no others.
    pub(crate) fn families(&mut self, now: &RulesNow<'_>) -> Vec<SeriesFamily> {
        let mut by_label = labelled(now.rules);
        // A rule may have this name too: then they are counted together, as rules are that share one.
        let overrides = by_label.entry(OVERRIDE.to_owned()).or_default();
        *overrides = grown(*overrides, now.overrides, Tallies::default());
        let mut before = std::mem::take(&mut self.by_label);
        for (label, last) in by_label {
            let counted = before.remove(&label).unwrap_or_default();
            let told = grown(counted.told, last, counted.last);
            self.by_label.insert(label, Counted { last, told });
        }
        let mut families = vec![self.decisions(), self.degraded_decisions()];
        families.extend(now.is_degraded.map(|is_degraded| degraded(now.rules, is_degraded)));
        families
    }

    fn decisions(&self) -> SeriesFamily {
        let outcomes = |(label, counted): (&String, &Counted)| {
            let Tallies { allowed, denied, never_fits, .. } = counted.told;
            [("allowed", allowed), ("denied", denied), ("never_fits", never_fits)].map(|(outcome, count)| {
                (vec![("rule", label.clone()), ("outcome", outcome.to_owned())], count as f64)
            })
        };
        SeriesFamily {
            name: DECISIONS,
            kind: SeriesKind::Counter,
            help: "Decisions by rule and outcome, whatever other rules said.",
            series: self.by_label.iter().flat_map(outcomes).collect(),
        }
    }

    fn degraded_decisions(&self) -> SeriesFamily {
        let counted = self.by_label.iter().filter(|(_, counted)| counted.told.degraded > 0);
        let series =
            counted.map(|(label, counted)| (vec![("rule", label.clone())], counted.told.degraded as f64));
        SeriesFamily {
            name: DEGRADED_DECISIONS,
            kind: SeriesKind::Counter,
            help: "Decisions that a rule made without its counters.",
            series: series.collect(),
        }
    }
}

/// By name, else path. Rules that share one are counted together.
fn labelled(rules: &[RuleView]) -> BTreeMap<String, Tallies> {
    let mut by_label: BTreeMap<String, Tallies> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let label = if index < RULES_LABELLED_MAX { label(rule) } else { OTHER_RULES };
        let tallies = by_label.entry(label.to_owned()).or_default();
        *tallies = grown(*tallies, rule.tallies, Tallies::default());
    }
    by_label
}

fn label(rule: &RuleView) -> &str {
    rule.name.as_deref().unwrap_or(&rule.path)
}

/// What was told, and what was counted since. A rule that has gone takes nothing back from others of its name.
fn grown(told: Tallies, now: Tallies, before: Tallies) -> Tallies {
    let grown = |told: u64, now: u64, before: u64| told.saturating_add(now.saturating_sub(before));
    Tallies {
        allowed: grown(told.allowed, now.allowed, before.allowed),
        denied: grown(told.denied, now.denied, before.denied),
        never_fits: grown(told.never_fits, now.never_fits, before.never_fits),
        degraded: grown(told.degraded, now.degraded, before.degraded),
    }
}

fn degraded(rules: &[RuleView], is_degraded: bool) -> SeriesFamily {
    let value = if is_degraded { 1.0 } else { 0.0 };
    let mut series = BTreeMap::new();
    for rule in rules.iter().take(RULES_LABELLED_MAX) {
        let decides = match rule.on_failure {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
            OnFailure::LocalShare => "local_share",
        };
        series.insert(vec![("rule", label(rule).to_owned()), ("decides", decides.to_owned())], value);
    }
    SeriesFamily {
        name: RULE_DEGRADED,
        kind: SeriesKind::Gauge,
        help: "1 while a rule decides without its counters, by what it does then.",
        series: series.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use ratelimit_core::Enforcement;

    use super::*;

    fn rule(name: &str, allowed: u64) -> RuleView {
        RuleView {
            path: format!("web.{name}"),
            name: Some(name.to_owned()),
            limit: "3 per minute".to_owned(),
            algorithm: "gcra",
            enforcement: Enforcement::Enforced,
            on_failure: OnFailure::Closed,
            tallies: Tallies { allowed, degraded: allowed, ..Tallies::default() },
        }
    }

    fn told(series: &mut RuleSeries, rules: &[RuleView]) -> Vec<String> {
        let now = RulesNow { rules, overrides: Tallies::default(), is_degraded: Some(true) };
        let line = |family: &SeriesFamily, labels: &[(&str, String)], value: f64| {
            let labels: Vec<&str> = labels.iter().map(|(_, value)| value.as_str()).collect();
            format!("{} {} {value}", family.name, labels.join(" "))
        };
        let families = series.families(&now);
        let lines = families
            .iter()
            .flat_map(|family| family.series.iter().map(|(labels, value)| line(family, labels, *value)));
        lines.filter(|line| !line.ends_with(" 0")).collect()
    }

    /// Series of a rule that was removed stayed for ever, and so did the 1 of one that decided without its counters.
    #[test]
    fn every_series_of_a_rule_goes_with_it() {
        let mut series = RuleSeries::default();
        let all = told(&mut series, &[rule("gone", 4), rule("stays", 2)]);
        assert_eq!(
            all,
            [
                "rate_limit_decisions_total gone allowed 4",
                "rate_limit_decisions_total stays allowed 2",
                "rate_limit_degraded_decisions_total gone 4",
                "rate_limit_degraded_decisions_total stays 2",
                "rate_limit_rule_degraded gone closed 1",
                "rate_limit_rule_degraded stays closed 1",
            ]
        );
        let rest = told(&mut series, &[rule("stays", 5)]);
        assert!(rest.iter().all(|line| !line.contains("gone")), "{rest:?}");
        assert!(rest.contains(&"rate_limit_decisions_total stays allowed 5".to_owned()), "{rest:?}");
        let back = told(&mut series, &[rule("gone", 1), rule("stays", 5)]);
        assert!(back.contains(&"rate_limit_decisions_total gone allowed 1".to_owned()), "{back:?}");
    }

    #[test]
    fn a_counter_of_rules_that_share_a_name_does_not_fall_when_one_of_them_goes() {
        let mut series = RuleSeries::default();
        told(&mut series, &[rule("both", 4), rule("both", 3)]);
        let rest = told(&mut series, &[rule("both", 3)]);
        assert!(rest.contains(&"rate_limit_decisions_total both allowed 7".to_owned()), "{rest:?}");
        let more = told(&mut series, &[rule("both", 5)]);
        assert!(more.contains(&"rate_limit_decisions_total both allowed 9".to_owned()), "{more:?}");
    }

    /// The numbers of such a rule were replaced by those of the limits that requests bring.
    #[test]
    fn a_rule_named_override_is_counted_with_the_overrides() {
        let overrides = Tallies { allowed: 5, ..Tallies::default() };
        let rules = [rule("override", 4)];
        let now = RulesNow { rules: &rules, overrides, is_degraded: None };
        let families = RuleSeries::default().families(&now);
        let allowed = families[0].series.iter().find(|(labels, _)| labels[1].1 == "allowed");
        assert_eq!(allowed.map(|(_, count)| *count), Some(9.0));
    }

    #[test]
    fn rules_beyond_the_bound_are_told_together() {
        let rules: Vec<RuleView> =
            (0..RULES_LABELLED_MAX + 3).map(|number| rule(&number.to_string(), 1)).collect();
        let lines = told(&mut RuleSeries::default(), &rules);
        assert!(lines.contains(&"rate_limit_decisions_total other allowed 3".to_owned()));
        assert_eq!(lines.len(), 3 * RULES_LABELLED_MAX + 2);
    }
}
