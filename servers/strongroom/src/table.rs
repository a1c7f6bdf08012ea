//! Aligned columns for people.

/// Widest cell that is padded, in characters: a longer one does not stretch its column.
const CELL_WIDTH_MAX: usize = 60;

/// Lines with a head and aligned columns; an empty table says so.
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "(none)\n".to_owned();
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head_width = head.get(column).map_or(0, |name| name.len());
        cells.filter(|width| *width <= CELL_WIDTH_MAX).chain([head_width]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|name| name.to_uppercase()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `name  value` lines, aligned.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// Text for a cell: control characters cannot move the cursor, long texts are cut.
pub fn cell(text: &str) -> String {
    let shown: String = text.chars().take(CELL_WIDTH_MAX).flat_map(char::escape_debug_if_control).collect();
    if text.chars().nth(CELL_WIDTH_MAX).is_some() { format!("{shown}…") } else { shown }
}

trait EscapeControl {
    fn escape_debug_if_control(self) -> Vec<char>;
}

impl EscapeControl for char {
    fn escape_debug_if_control(self) -> Vec<char> {
        if self.is_control() { self.escape_debug().collect() } else { vec![self] }
    }
}

/// A value for a cell: text when it is text, its size when it is not.
pub fn value_cell(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => cell(text),
        Err(_) => format!("({} bytes)", bytes.len()),
    }
}

/// Unix milliseconds as UTC, `2026-11-21 10:57:47.123Z`; `-` for 0.
pub fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let (days, ms_of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let (second, ms) = (ms_of_day / 1_000 % 60, ms_of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar, by eras of 400 years that start in March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_harmless() {
        let rows =
            vec![vec![cell("a\u{1b}[2J"), "1".to_owned()], vec!["long name".to_owned(), "22".to_owned()]];
        assert_eq!(render(&["key", "n"], &rows), "KEY         N\na\\u{1b}[2J  1\nlong name   22\n");
        assert_eq!(render(&["key"], &[]), "(none)\n");
    }

    #[test]
    fn times_are_dates_in_utc() {
        assert_eq!(time(0), "-");
        assert_eq!(time(951_827_696_789), "2000-02-29 12:34:56.789Z");
        assert_eq!(time(1_795_258_667_123), "2026-11-21 10:57:47.123Z");
        assert_eq!(time(4_102_444_799_999), "2099-12-31 23:59:59.999Z");
    }
}
