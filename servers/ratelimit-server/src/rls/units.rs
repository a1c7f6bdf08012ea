//! Limits as the protocol knows them: a count and a unit.

use std::time::Duration;

use ratelimit_core::algorithms::CalendarUnit;
use ratelimit_core::{Limit, LimitError};
use ratelimit_rules::{Epoch, LimitOverride, OverrideUnit, RuleRef};

use super::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use super::proto::envoy::service::ratelimit::v3::rate_limit_response::RateLimit;
use super::proto::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use super::proto::envoy::r#type::v3::RateLimitUnit;

/// The units of the protocol, and their lengths.
const UNITS: [(Unit, OverrideUnit); 7] = [
    (Unit::Second, OverrideUnit::Second),
    (Unit::Minute, OverrideUnit::Minute),
    (Unit::Hour, OverrideUnit::Hour),
    (Unit::Day, OverrideUnit::Day),
    (Unit::Week, OverrideUnit::Week),
    (Unit::Month, OverrideUnit::Month),
    (Unit::Year, OverrideUnit::Year),
];

/// A limit that a descriptor brings cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum OverrideError {
    /// There is no such unit.
    #[error("the unit {unit} of a limit is not known: use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR")]
    Unit {
        /// Its number.
        unit: i32,
    },
    /// The limit itself.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// The limit that a descriptor brings: windows of the wall clock, as in Envoy's own service. 0 denies all.
pub(super) fn limit_of(given: &RateLimitOverride, epoch: Epoch) -> Result<LimitOverride, OverrideError> {
    let unknown = OverrideError::Unit { unit: given.unit };
    let unit = RateLimitUnit::try_from(given.unit).map_err(|_| unknown.clone())?;
    let same = |(named, _): &&(Unit, OverrideUnit)| named.as_str_name() == unit.as_str_name();
    let (_, unit) = UNITS.iter().find(same).ok_or(unknown)?;
    Ok(LimitOverride::new(given.requests_per_unit, *unit, epoch)?)
}

/// A rule's limit as the proxy shows it. A period that is no unit has none, and the count is what the limit holds.
pub(super) fn told(rule: &RuleRef) -> Option<RateLimit> {
    let per = |count: u64, period: Duration| {
        let unit = UNITS.iter().find(|(_, unit)| unit.period() == period);
        unit.map(|(unit, _)| (count, *unit))
    };
    let counted = match &rule.limit {
        Limit::Unlimited => return None,
        Limit::Gcra(bucket) => per(bucket.rate().count, bucket.rate().period),
        Limit::FixedWindow(window) => per(window.limit(), window.period()),
        Limit::SlidingWindow(window) => per(window.limit(), window.period()),
        Limit::SlidingLog(log) => per(log.limit(), log.period()),
        Limit::Calendar(calendar) => match calendar.boundaries().unit() {
            CalendarUnit::Day => Some((calendar.limit(), Unit::Day)),
            CalendarUnit::Week => Some((calendar.limit(), Unit::Week)),
            CalendarUnit::Month => Some((calendar.limit(), Unit::Month)),
            CalendarUnit::Year => Some((calendar.limit(), Unit::Year)),
            CalendarUnit::Quarter => None,
        },
        _ => None,
    };
    let (count, unit) = counted.unwrap_or((rule.limit.size(), Unit::Unknown));
    Some(RateLimit {
        name: rule.name.clone().unwrap_or_default(),
        requests_per_unit: u32::try_from(count).unwrap_or(u32::MAX),
        unit: unit.into(),
    })
}

#[cfg(test)]
mod tests {
    use ratelimit_core::Rate;

    use super::*;

    fn told_of(limit: Limit) -> (u32, Unit) {
        let told = told(&RuleRef { path: "web.key".to_owned(), name: None, limit }).expect("told");
        (told.requests_per_unit, told.unit())
    }

    #[test]
    fn a_bucket_is_told_by_its_rate_when_its_period_is_a_unit_and_else_by_its_size() {
        let gcra = |rate, burst| Limit::gcra(rate, burst).expect("a limit");
        assert_eq!(told_of(gcra(Rate::per_minute(60), 20)), (60, Unit::Minute));
        assert_eq!(told_of(gcra(Rate::new(10, Duration::from_secs(300)), 4)), (4, Unit::Unknown));
        let week = Limit::fixed_window(7, Duration::from_secs(604_800)).expect("a limit");
        assert_eq!(told_of(week), (7, Unit::Week));
    }

    #[test]
    fn a_limit_that_a_descriptor_brings_is_a_window_of_the_wall_clock() {
        // The engine began 100 s into an hour of the wall clock, which is 40 s into a minute.
        let epoch = Epoch(Duration::from_secs(3_600 * 1_000 + 100));
        let given = |requests_per_unit, unit| {
            limit_of(&RateLimitOverride { requests_per_unit, unit }, epoch)
                .map(|given| (given.limit().clone(), given))
        };
        let window = |count, period, phase| {
            Limit::fixed_window_from(count, Duration::from_secs(period), Duration::from_secs(phase))
                .expect("a limit")
        };
        assert_eq!(given(5, 3).expect("a limit").0, window(5, 3_600, 100));
        assert_eq!(given(u32::MAX, 2).expect("a limit").0, window(u32::MAX.into(), 60, 40));
        assert_eq!(given(0, 1).expect("a limit").0, Limit::DenyAll);
        assert_eq!(given(5, 0).expect_err("none"), OverrideError::Unit { unit: 0 });
        assert_eq!(given(5, 99).expect_err("none"), OverrideError::Unit { unit: 99 });
        for unit in 1..=7 {
            assert!(given(u32::MAX, unit).is_ok(), "{unit}");
        }
    }
}
