//! The engine's numbers as metrics: published in steps, so that a request pays for none of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use ratelimit_core::AdHoc;
use ratelimit_core::rules::OnFailure;
use ratelimit_rules::{RuleView, StoreHealth, Tallies, Totals};

use crate::limit_service::LimitService;
use crate::meter::DECISIONS;

/// Rules with counters of their own; those behind them are counted together, as [`OTHER_RULES`].
pub const RULES_LABELLED_MAX: usize = 1_024;
/// The label of rules beyond that.
pub const OTHER_RULES: &str = "other";
/// The label of limits that came with requests.
const OVERRIDE: &str = "override";

/// Far below any scrape interval.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Each count of live keys reads the tables: once in this many steps.
const STEPS_OF_COUNT: u32 = 15;

const UNMATCHED: &str = "rate_limit_unmatched_descriptors_total";
const NEGATIVE: &str = "rate_limit_negative_hits_ignored_total";
const OVERFLOWED: &str = "rate_limit_overflowed_charges_total";
const LIVE_KEYS: &str = "rate_limit_live_keys";
const ROOM_KEYS: &str = "rate_limit_room_keys";
const STORE_ERRORS: &str = "rate_limit_store_errors_total";
const DEGRADED: &str = "rate_limit_store_degraded";
const DEGRADED_SECONDS: &str = "rate_limit_store_degraded_seconds_total";
const DEGRADED_DECISIONS: &str = "rate_limit_degraded_decisions_total";
const RULE_DEGRADED: &str = "rate_limit_rule_degraded";
const UNPUSHED_KEYS: &str = "rate_limit_unpushed_keys";
const RULES: &str = "rate_limit_rules";

/// Publishes what an engine and the table of `CL.THROTTLE` count.
pub struct RuleMetrics {
    limits: LimitService,
    ad_hoc: Arc<AdHoc>,
    published: BTreeMap<String, Tallies>,
    totals: Totals,
    ad_hoc_overflowed: u64,
}

impl RuleMetrics {
    /// Of these. `room_keys` is how many keys each table is made for.
    pub fn new(limits: LimitService, ad_hoc: Arc<AdHoc>, room_keys: u64) -> Self {
        describe_counter!(UNMATCHED, "Descriptors that met no rule.");
        describe_counter!(NEGATIVE, "Descriptors whose negative hits were ignored.");
        describe_counter!(
            OVERFLOWED,
            "Charges for which a table had no slot: they were counted in its sketch, which may deny early, or denied \
             where there is none."
        );
        describe_gauge!(
            LIVE_KEYS,
            "Keys that have used something of their limits: over all rules, and of CL.THROTTLE."
        );
        describe_gauge!(
            ROOM_KEYS,
            "Keys for which one table has room: that of a rule, and that of CL.THROTTLE."
        );
        describe_gauge!(RULES, "Rules that are in force.");
        describe_counter!(
            STORE_ERRORS,
            "Calls that the file of the counters did not answer: error, or slow."
        );
        describe_gauge!(
            DEGRADED,
            "1 while the file of the counters is not trusted and rules decide without it."
        );
        describe_counter!(DEGRADED_SECONDS, "Seconds for which that was so.");
        describe_counter!(DEGRADED_DECISIONS, "Decisions that a rule made without its counters.");
        describe_gauge!(RULE_DEGRADED, "1 while a rule decides without its counters, by what it does then.");
        describe_gauge!(UNPUSHED_KEYS, "Keys whose local consumption the file was not told yet.");
        gauge!(ROOM_KEYS).set(room_keys as f64);
        let (published, totals) = (BTreeMap::new(), Totals::default());
        Self { limits, ad_hoc, published, totals, ad_hoc_overflowed: 0 }
    }

    /// Publishes for ever.
    pub async fn run(mut self) -> Infallible {
        let mut interval = tokio::time::interval(PUBLISH_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut steps = 0_u32;
        loop {
            interval.tick().await;
            self.publish();
            if steps.is_multiple_of(STEPS_OF_COUNT) {
                let (limits, ad_hoc) = (self.limits.clone(), Arc::clone(&self.ad_hoc));
                // A number that is missing once is no failure.
                let _ = tokio::task::spawn_blocking(move || publish_live_keys(&limits, &ad_hoc)).await;
            }
            steps = steps.wrapping_add(1);
        }
    }

    /// Publishes what was counted since the last time.
    pub fn publish(&mut self) {
        let rules = self.limits.engine().rules();
        gauge!(RULES).set(rules.len() as f64);
        if let Some(health) = self.limits.engine().health(self.limits.now()) {
            publish_health(&health, &rules);
        }
        let mut by_label = labelled(&rules);
        let totals = self.limits.engine().totals();
        by_label.insert(OVERRIDE.to_owned(), totals.overrides);
        for (label, now) in &by_label {
            let before = self.published.get(label).copied().unwrap_or_default();
            let count = |outcome: &'static str, now: u64, before: u64| {
                let more = now.saturating_sub(before);
                counter!(DECISIONS, "rule" => label.clone(), "outcome" => outcome).increment(more);
            };
            count("allowed", now.allowed, before.allowed);
            count("denied", now.denied, before.denied);
            count("never_fits", now.never_fits, before.never_fits);
            let degraded = now.degraded.saturating_sub(before.degraded);
            if degraded > 0 {
                counter!(DEGRADED_DECISIONS, "rule" => label.clone()).increment(degraded);
            }
        }
        self.published = by_label;
        let more = |now: u64, before: u64| now.saturating_sub(before);
        counter!(UNMATCHED).increment(more(totals.unmatched, self.totals.unmatched));
        let ignored = more(totals.negative_hits_ignored, self.totals.negative_hits_ignored);
        counter!(NEGATIVE).increment(ignored);
        let overflowed = more(totals.overflowed, self.totals.overflowed);
        counter!(OVERFLOWED, "table" => "rules").increment(overflowed);
        self.totals = totals;
        let overflowed = self.ad_hoc.overflowed();
        counter!(OVERFLOWED, "table" => "ad_hoc").increment(more(overflowed, self.ad_hoc_overflowed));
        self.ad_hoc_overflowed = overflowed;
    }
}

/// By name, else path. Rules that share one are counted together.
fn labelled(rules: &[RuleView]) -> BTreeMap<String, Tallies> {
    let mut by_label: BTreeMap<String, Tallies> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let name = rule.name.as_deref().unwrap_or(&rule.path);
        let label = if index < RULES_LABELLED_MAX { name } else { OTHER_RULES };
        let tallies = by_label.entry(label.to_owned()).or_default();
        tallies.allowed = tallies.allowed.saturating_add(rule.tallies.allowed);
        tallies.denied = tallies.denied.saturating_add(rule.tallies.denied);
        tallies.never_fits = tallies.never_fits.saturating_add(rule.tallies.never_fits);
        tallies.degraded = tallies.degraded.saturating_add(rule.tallies.degraded);
    }
    by_label
}

fn publish_health(health: &StoreHealth, rules: &[RuleView]) {
    counter!(STORE_ERRORS, "reason" => "error").absolute(health.errors);
    counter!(STORE_ERRORS, "reason" => "slow").absolute(health.slow);
    counter!(DEGRADED_SECONDS).absolute(health.degraded.as_secs());
    gauge!(UNPUSHED_KEYS).set(health.unpushed_keys as f64);
    let degraded = if health.is_degraded { 1.0 } else { 0.0 };
    gauge!(DEGRADED).set(degraded);
    for rule in rules.iter().take(RULES_LABELLED_MAX) {
        let name = rule.name.clone().unwrap_or_else(|| rule.path.clone());
        let decides = match rule.on_failure {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
            OnFailure::LocalShare => "local_share",
        };
        gauge!(RULE_DEGRADED, "rule" => name, "decides" => decides).set(degraded);
    }
}

fn publish_live_keys(limits: &LimitService, ad_hoc: &AdHoc) {
    let now = limits.now();
    gauge!(LIVE_KEYS, "table" => "rules").set(limits.engine().live_keys(now) as f64);
    gauge!(LIVE_KEYS, "table" => "ad_hoc").set(ad_hoc.live_keys(now) as f64);
}
