//! Limits, as files write them.

use std::time::Duration;

use ratelimit_core::algorithms::CalendarUnit;
use ratelimit_core::{Limit, LimitError, Rate};

use super::Problem;
use super::civil::Civil;
use super::fields::{Fields, text, wrong};
use super::located::{Fault, Located, Value};

const ALGORITHMS: &str = "gcra, fixed_window, sliding_window, sliding_log, strict_window, calendar, concurrency, \
                          unlimited or deny_all";
const ENVOY_UNITS: &str = "second, minute, hour, day, week, month or year";
const CALENDAR_UNITS: &str = "day, week, month, quarter or year";
const PERIODS: &str = "second, minute, hour, day, week, or a number of them such as 90s, 10m or 500ms";
const SHORT: &str = "unlimited, deny_all, or a rate such as \"60/minute\" or \"60/minute burst 20\"";

/// `limit`: a rate in words, or a map.
pub(super) fn limit(located: &Located, civil: &mut Civil) -> Result<Limit, Fault> {
    if let Value::Map(_) = &located.value {
        return long(Fields::of(located, "a limit")?, civil);
    }
    let told = text(located, "limit")?;
    let limit = match told.as_str() {
        "unlimited" => Ok(Limit::Unlimited),
        "deny_all" => Ok(Limit::DenyAll),
        rate => short(rate).ok_or_else(|| unknown(located.line, "limit", rate, SHORT))?,
    };
    limit.map_err(|error| Fault::new(located.line, error.into()))
}

/// `60/minute` or `60/minute burst 20`. `None` when it is neither.
fn short(told: &str) -> Option<Result<Limit, LimitError>> {
    let mut words = told.split_ascii_whitespace();
    let (count, per) = words.next()?.split_once('/')?;
    let count = whole(count)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => count,
        (Some("burst"), Some(burst), None) => whole(burst)?,
        _ => return None,
    };
    Some(Limit::gcra(Rate::new(count, period(per)?), burst))
}

fn long(mut fields: Fields<'_>, civil: &mut Civil) -> Result<Limit, Fault> {
    let line = fields.line;
    let fault = |error: LimitError| Fault::new(line, error.into());
    let (named_at, algorithm) = fields.name("algorithm")?.unwrap_or((line, "gcra".to_owned()));
    let limit = match algorithm.as_str() {
        "gcra" => {
            let (count, period) = (fields.needed_number("count")?, needed_period(&mut fields, "per")?);
            let burst = fields.number("burst")?.unwrap_or(count);
            let debt = fields.number("debt")?.unwrap_or(0);
            Limit::gcra_with_debt(Rate::new(count, period), burst, debt)
        }
        "fixed_window" => {
            let (count, period) = (fields.needed_number("count")?, needed_period(&mut fields, "per")?);
            Limit::fixed_window_from(count, period, civil.phase(period))
        }
        "sliding_window" => {
            Limit::sliding_window(fields.needed_number("count")?, needed_period(&mut fields, "per")?)
        }
        "sliding_log" => {
            Limit::sliding_log(fields.needed_number("count")?, needed_period(&mut fields, "per")?)
        }
        "strict_window" => {
            Limit::strict_window(fields.needed_number("count")?, needed_period(&mut fields, "per")?)
        }
        "concurrency" => {
            Limit::concurrency(fields.needed_number("count")?, needed_period(&mut fields, "expires")?)
        }
        "calendar" => {
            let count = fields.needed_number("count")?;
            let (unit_at, unit) = fields.needed_name("per")?;
            let unit = calendar_unit(&unit).ok_or_else(|| unknown(unit_at, "per", &unit, CALENDAR_UNITS))?;
            let (zone_at, zone) = fields.name("zone")?.unwrap_or((line, "UTC".to_owned()));
            let boundaries = civil.boundaries(unit, &zone).map_err(|problem| Fault::new(zone_at, problem))?;
            Limit::calendar(count, boundaries)
        }
        "unlimited" => Ok(Limit::Unlimited),
        "deny_all" => Ok(Limit::DenyAll),
        other => return Err(unknown(named_at, "algorithm", other, ALGORITHMS)),
    };
    fields.finish()?;
    limit.map_err(fault)
}

/// `rate_limit` as the Envoy project's service means it: a count in each window of the wall clock, a month of 30 days, a year
/// of 365; 0 denies all.
pub(super) fn envoy_limit(fields: &mut Fields<'_>, civil: &Civil) -> Result<Limit, Fault> {
    let line = fields.line;
    let unlimited = fields.flag("unlimited")?;
    let unit = fields.name("unit")?;
    let count = fields.number("requests_per_unit")?.unwrap_or(0);
    let known = unit.as_ref().and_then(|(_, unit)| envoy_unit(unit));
    if unlimited {
        return match known {
            Some(_) => Err(Fault::new(line, Problem::Conflict { one: "unlimited", other: "unit" })),
            None => Ok(Limit::Unlimited),
        };
    }
    let Some((unit_at, unit)) = unit else {
        return Err(Fault::new(line, Problem::Missing { field: "unit", what: "rate_limit" }));
    };
    let period = known.ok_or_else(|| unknown(unit_at, "unit", &unit, ENVOY_UNITS))?;
    match count {
        0 => Ok(Limit::DenyAll),
        count => Limit::fixed_window_from(count, period, civil.phase(period))
            .map_err(|error| Fault::new(line, error.into())),
    }
}

fn envoy_unit(unit: &str) -> Option<Duration> {
    const DAY: u64 = 86_400;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => DAY,
        "week" => 7 * DAY,
        "month" => 30 * DAY,
        "year" => 365 * DAY,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

fn calendar_unit(unit: &str) -> Option<CalendarUnit> {
    Some(match unit {
        "day" => CalendarUnit::Day,
        "week" => CalendarUnit::Week,
        "month" => CalendarUnit::Month,
        "quarter" => CalendarUnit::Quarter,
        "year" => CalendarUnit::Year,
        _ => return None,
    })
}

fn needed_period(fields: &mut Fields<'_>, field: &'static str) -> Result<Duration, Fault> {
    let (line, told) = fields.needed_name(field)?;
    period(&told).ok_or_else(|| unknown(line, field, &told, PERIODS))
}

/// `minute`, `90s`, `10 minutes`.
fn period(told: &str) -> Option<Duration> {
    let digits = told.len() - told.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (count, unit) = told.split_at_checked(digits)?;
    let count = if count.is_empty() { 1 } else { whole(count)? };
    let nanoseconds: u64 = match unit.trim() {
        "ms" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "second" | "seconds" => 1_000_000_000,
        "m" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        "w" | "week" | "weeks" => 604_800_000_000_000,
        _ => return None,
    };
    Some(Duration::from_nanos(count.checked_mul(nanoseconds)?))
}

/// A whole number of decimal digits alone.
fn whole(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

pub(super) fn unknown(line: usize, field: &'static str, value: &str, known: &'static str) -> Fault {
    Fault::new(line, Problem::UnknownValue { field, value: value.to_owned(), known })
}

/// The names in `replaces`: of Envoy's files `- name: x`, else the name alone.
pub(super) fn replaces(fields: &mut Fields<'_>) -> Result<Vec<String>, Fault> {
    let Some(list) = fields.list("replaces")? else { return Ok(Vec::new()) };
    let name = |located: &Located| {
        if !matches!(located.value, Value::Map(_)) {
            let name = text(located, "replaces")?;
            return if name.is_empty() { Err(wrong(located.line, "replaces", "names")) } else { Ok(name) };
        }
        let mut fields = Fields::of(located, "replaces")?;
        let (_, name) = fields.needed_name("name")?;
        fields.finish()?;
        Ok(name)
    };
    list.iter().map(name).collect()
}
