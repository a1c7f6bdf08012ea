//! The passwords that are tried first.

use std::sync::LazyLock;

/// The embedded list: one password a line, lower case ASCII, sorted by bytes, eight characters and more (a shorter one is refused
/// by every policy). It was put together by hand for this project: words that people choose, with the endings that they give them,
/// walks over keyboards, runs of digits and letters, and phrases. No published list was copied.
pub const COMMON_PASSWORDS: &str = include_str!("common_passwords.txt");

static SORTED: LazyLock<Vec<&'static str>> = LazyLock::new(|| COMMON_PASSWORDS.lines().collect());

/// Units up to this many code points make a password common when it is nothing but their repetition.
const REPEATED_UNIT_MAX: usize = 4;

/// Whether `password` is one that everyone tries, in any case of its letters: on the list, or one short unit or one listed
/// password over and over (the last repetition may be cut).
pub fn is_common(password: &str) -> bool {
    let folded: zeroize::Zeroizing<String> = zeroize::Zeroizing::new(password.to_lowercase());
    is_listed(&folded) || is_repetition(&folded)
}

fn is_listed(folded: &str) -> bool {
    SORTED.binary_search(&folded).is_ok()
}

fn is_repetition(folded: &str) -> bool {
    // Only the first 64 code points may be a unit: no listed password is longer, and so the work stays linear.
    let ends = folded.char_indices().map(|(at, _)| at).skip(1).take(64);
    for (index, end) in ends.enumerate() {
        let (unit, rest) = folded.split_at(end);
        let short = index < REPEATED_UNIT_MAX;
        if (short || is_listed(unit)) && repeats(rest, unit) {
            return true;
        }
    }
    false
}

/// Whether `rest` is `unit` again and again; the last time it may be cut, but once it has to be whole.
fn repeats(rest: &str, unit: &str) -> bool {
    if !rest.starts_with(unit) {
        return false;
    }
    let mut left = rest;
    while let Some(after) = left.strip_prefix(unit) {
        left = after;
    }
    unit.starts_with(left)
}
