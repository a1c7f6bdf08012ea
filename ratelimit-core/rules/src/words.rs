//! Limits in words, for listings and messages.

use std::time::Duration;

use ratelimit_core::Limit;
use ratelimit_core::algorithms::CalendarUnit;

/// The name of a limit's algorithm, as rule files call it.
pub fn algorithm_name(limit: &Limit) -> &'static str {
    match limit {
        Limit::Gcra(_) => "gcra",
        Limit::FixedWindow(_) => "fixed_window",
        Limit::SlidingWindow(_) => "sliding_window",
        Limit::SlidingLog(_) => "sliding_log",
        Limit::Calendar(_) => "calendar",
        Limit::Concurrency(_) => "concurrency",
        Limit::Unlimited => "unlimited",
        Limit::DenyAll => "deny_all",
        _ => "other",
    }
}

/// A limit in words: `60 per minute, burst 20`.
pub fn limit_in_words(limit: &Limit) -> String {
    match limit {
        Limit::Gcra(gcra) => {
            format!("{} per {}, burst {}", gcra.rate().count, period(gcra.rate().period), gcra.burst())
        }
        Limit::FixedWindow(window) => format!("{} per {}", window.limit(), period(window.period())),
        Limit::SlidingWindow(window) => format!("{} per {}", window.limit(), period(window.period())),
        Limit::SlidingLog(log) => format!("{} per {}", log.limit(), period(log.period())),
        Limit::Calendar(calendar) => {
            let unit = match calendar.boundaries().unit() {
                CalendarUnit::Day => "day",
                CalendarUnit::Week => "week",
                CalendarUnit::Month => "month",
                CalendarUnit::Quarter => "quarter",
                CalendarUnit::Year => "year",
            };
            format!("{} per calendar {unit} in {}", calendar.limit(), calendar.boundaries().zone())
        }
        Limit::Concurrency(concurrency) => {
            format!("{} at a time, each for at most {}", concurrency.permits(), period(concurrency.expiry()))
        }
        Limit::Unlimited => "unlimited".to_owned(),
        Limit::DenyAll => "nothing".to_owned(),
        _ => format!("{} in all", limit.size()),
    }
}

/// A length of time: by its unit when it is one, else in the largest unit of which it is a multiple.
fn period(period: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("week", 604_800_000_000_000),
        ("day", 86_400_000_000_000),
        ("hour", 3_600_000_000_000),
        ("minute", 60_000_000_000),
        ("second", 1_000_000_000),
        ("millisecond", 1_000_000),
        ("microsecond", 1_000),
    ];
    let ns = period.as_nanos();
    match UNITS.iter().find(|(_, unit)| ns.is_multiple_of(*unit)) {
        Some((name, unit)) if ns == *unit => (*name).to_owned(),
        Some((name, unit)) => format!("{} {name}s", ns / unit),
        None => format!("{ns} nanoseconds"),
    }
}

#[cfg(test)]
mod tests {
    use ratelimit_core::Rate;

    use super::*;

    #[test]
    fn limits_are_told_as_people_say_them() {
        let told = |limit: Result<Limit, _>| limit_in_words(&limit.expect("a limit"));
        assert_eq!(told(Limit::gcra(Rate::per_minute(60), 20)), "60 per minute, burst 20");
        assert_eq!(told(Limit::fixed_window(5, Duration::from_secs(86_400))), "5 per day");
        assert_eq!(told(Limit::sliding_log(5, Duration::from_millis(1_500))), "5 per 1500 milliseconds");
        assert_eq!(
            told(Limit::concurrency(3, Duration::from_secs(90))),
            "3 at a time, each for at most 90 seconds"
        );
    }
}
