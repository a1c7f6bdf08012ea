//! Durations on the command line and in files: `500ms`, `60s`, `5m`, `12h`, `30d`.

use std::time::Duration;

/// Longest time to live, in days: a hundred years.
const TTL_DAYS_MAX: u64 = 36_525;

/// Parses a time to live longer than zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let malformed = || format!("{text:?} is not a duration: write 500ms, 60s, 5m, 12h or 30d");
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(malformed()),
    };
    let total_ms = number.checked_mul(unit_ms).filter(|ms| *ms <= TTL_DAYS_MAX * 86_400_000);
    match total_ms {
        Some(0) => Err("the duration must be longer than zero".to_owned()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(format!("the duration must be at most {TTL_DAYS_MAX} days")),
    }
}

/// When something that lives for `ttl` from `base_ms` expires, unix milliseconds. Never after what a signed number
/// holds: programs in many languages read it as one.
pub fn expires_at_ms(base_ms: u64, ttl: Duration) -> Result<u64, String> {
    let ttl_ms = u64::try_from(ttl.as_millis()).ok();
    ttl_ms
        .and_then(|ttl_ms| base_ms.checked_add(ttl_ms))
        .filter(|at_ms| i64::try_from(*at_ms).is_ok())
        .ok_or_else(|| {
            format!("an expiry is at most {} (unix milliseconds): shorten the time to live", i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse("30d"), Ok(Duration::from_secs(2_592_000)));
        for bad in ["", "60", "s", "-1s", "1.5s", "1w", "0s", "99999999999999999999s", "36526d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expiry_fits_a_signed_number() {
        let limit = i64::MAX as u64;
        assert_eq!(expires_at_ms(limit - 5, Duration::from_millis(5)), Ok(limit));
        for (base_ms, ttl) in [
            (limit - 4, Duration::from_millis(5)),
            (u64::MAX, Duration::from_millis(1)),
            (0, Duration::from_millis(u64::MAX)),
            (0, Duration::MAX),
        ] {
            assert!(expires_at_ms(base_ms, ttl).is_err(), "{base_ms} {ttl:?}");
        }
    }
}
