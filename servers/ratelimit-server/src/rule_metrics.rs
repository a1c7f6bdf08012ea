//! The engine's numbers as metrics: published in steps, so that a request pays for none of it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use ratelimit_core::AdHoc;
use ratelimit_rules::{StoreHealth, Totals};
use service_kit::metrics::MetricsHandle;
use service_kit::series::SeriesFamily;

use crate::limit_service::LimitService;
use crate::rule_series::{RuleSeries, RulesNow};

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
const UNPUSHED_KEYS: &str = "rate_limit_unpushed_keys";
const RULES: &str = "rate_limit_rules";

/// Publishes what an engine and the table of `CL.THROTTLE` count.
pub struct RuleMetrics {
    limits: LimitService,
    ad_hoc: Arc<AdHoc>,
    totals: Totals,
    ad_hoc_overflowed: u64,
}

impl RuleMetrics {
    /// Of these. `room_keys` is how many keys each table is made for. What is told of each rule is asked for when the page is made.
    pub fn new(limits: LimitService, ad_hoc: Arc<AdHoc>, room_keys: u64, page: &MetricsHandle) -> Self {
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
        describe_gauge!(UNPUSHED_KEYS, "Keys whose local consumption the file was not told yet.");
        gauge!(ROOM_KEYS).set(room_keys as f64);
        let (asked, series) = (limits.clone(), Mutex::new(RuleSeries::default()));
        page.ask_for_series(move || families(&asked, &series));
        Self { limits, ad_hoc, totals: Totals::default(), ad_hoc_overflowed: 0 }
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
        let engine = self.limits.engine();
        gauge!(RULES).set(engine.rules().len() as f64);
        if let Some(health) = engine.health(self.limits.now()) {
            publish_health(&health);
        }
        let totals = engine.totals();
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

/// What is told of each rule that is in force.
fn families(limits: &LimitService, series: &Mutex<RuleSeries>) -> Vec<SeriesFamily> {
    let engine = limits.engine();
    let (rules, overrides) = (engine.rules(), engine.totals().overrides);
    let is_degraded = engine.health(limits.now()).map(|health| health.is_degraded);
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    series.families(&RulesNow { rules: &rules, overrides, is_degraded })
}

fn publish_health(health: &StoreHealth) {
    counter!(STORE_ERRORS, "reason" => "error").absolute(health.errors);
    counter!(STORE_ERRORS, "reason" => "slow").absolute(health.slow);
    counter!(DEGRADED_SECONDS).absolute(health.degraded.as_secs());
    gauge!(UNPUSHED_KEYS).set(health.unpushed_keys as f64);
    gauge!(DEGRADED).set(if health.is_degraded { 1.0 } else { 0.0 });
}

fn publish_live_keys(limits: &LimitService, ad_hoc: &AdHoc) {
    let now = limits.now();
    gauge!(LIVE_KEYS, "table" => "rules").set(limits.engine().live_keys(now) as f64);
    gauge!(LIVE_KEYS, "table" => "ad_hoc").set(ad_hoc.live_keys(now) as f64);
}
