//! Writing structured fields (RFC 9651): the few forms that the rate limit headers need.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Largest integer that a structured field holds (RFC 9651, 3.3.1). Larger quotas are written as this one.
pub const INTEGER_MAX: u64 = 999_999_999_999_999;

/// A list of strings with parameters.
#[derive(Default)]
pub(super) struct StringList {
    text: String,
}

impl StringList {
    /// Adds an item. `name` is printable ASCII: its type says so.
    pub(super) fn item(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        push_string(&mut self.text, name);
    }

    /// Adds a parameter to the last item.
    pub(super) fn integer(&mut self, key: &str, value: u64) {
        // Writing to a string does not fail.
        let _ = write!(self.text, ";{key}={}", value.min(INTEGER_MAX));
    }

    /// Adds a parameter to the last item.
    pub(super) fn string(&mut self, key: &str, value: &str) {
        let _ = write!(self.text, ";{key}=");
        push_string(&mut self.text, value);
    }

    /// Adds a parameter to the last item.
    pub(super) fn bytes(&mut self, key: &str, value: &[u8]) {
        let _ = write!(self.text, ";{key}=:{}:", STANDARD.encode(value));
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// RFC 9651, 4.1.6: between quotes, with `"` and `\` escaped.
pub(super) fn push_string(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}
