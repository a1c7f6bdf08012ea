//! Points in time on the command line: `2026-11-21T10:57:47.123Z`, the same with a space, or unix milliseconds.

/// Parses a time as unix milliseconds.
pub fn parse(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("{text} is too large for unix milliseconds"));
    }
    date_and_time(text).ok_or_else(|| {
        format!("{text:?} is no time: write 2026-11-21T10:57:47Z (UTC, with milliseconds if you like) or unix milliseconds")
    })
}

/// A time in the form that [`parse`] takes, without a space.
pub fn shown(unix_ms: u64) -> String {
    crate::table::time(unix_ms).replace(' ', "T")
}

fn date_and_time(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once(['T', ' '])?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (time, ms) = match time.split_once('.') {
        Some((time, ms)) if ms.len() == 3 => (time, number(ms)?),
        Some(_) => return None,
        None => (time, 0),
    };
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    in_range.then_some(seconds * 1_000 + ms)
}

fn fields(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut next = |digits: usize| number(parts.next().filter(|part| part.len() == digits)?);
    let [first, second, third] = digits;
    let found = [next(first)?, next(second)?, next(third)?];
    parts.next().is_none().then_some(found)
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn days_of(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, by eras of 400 years that start in March.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let (year, shifted_month) =
        if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * shifted_month + 2) / 5 + day.saturating_sub(1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn times_are_read_as_they_are_printed() {
        for unix_ms in [1, 951_827_696_789, 1_795_258_667_123, 4_102_444_799_999, 1_709_164_800_000] {
            let shown = table::time(unix_ms);
            assert_eq!(parse(&shown), Ok(unix_ms), "{shown}");
            assert_eq!(parse(&shown.replace(' ', "T")), Ok(unix_ms), "{shown}");
            assert_eq!(parse(&unix_ms.to_string()), Ok(unix_ms));
        }
        assert_eq!(parse("1970-01-01T00:00:01Z"), Ok(1_000));
        assert_eq!(parse("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-21",
            "2026-11-21T10:57:47",
            "2026-13-21T10:57:47Z",
            "2025-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:57:47.1Z",
            "2026-11-21T10:57:47+01:00",
            "1969-12-31T23:59:59Z",
            "99999999999999999999999",
            "2026-1-21T10:57:47Z",
            "2026-11-21T10:57:é7Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
