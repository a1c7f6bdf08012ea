//! The elements of a list header, from the right.

use http::HeaderValue;
use http::header::ValueIter;

/// How commas inside an element are told from those between elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Every comma separates.
    None,
    /// A comma inside a quoted string (RFC 9110, 5.6.4) does not.
    QuotedStrings,
}

/// More bytes than the cap lie between here and the next comma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CapReached;

/// All lines of a header as one list, walked from its right end, without copying.
///
/// Quoted strings are found from the right too. The rightmost element is what the last proxy appended; read from the left,
/// a quote that a client left open would swallow it.
pub(super) struct ElementsFromRight<'a> {
    lines: ValueIter<'a, HeaderValue>,
    rest: Option<&'a [u8]>,
    quoting: Quoting,
    budget_bytes: usize,
}

impl<'a> ElementsFromRight<'a> {
    pub(super) fn new(lines: ValueIter<'a, HeaderValue>, quoting: Quoting, budget_bytes: usize) -> Self {
        Self { lines, rest: None, quoting, budget_bytes }
    }
}

impl<'a> Iterator for ElementsFromRight<'a> {
    type Item = Result<&'a [u8], CapReached>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => self.lines.next_back()?.as_bytes(),
        };
        let visible = rest.len().min(self.budget_bytes);
        let (hidden, window) = rest.split_at(rest.len() - visible);
        match last_comma(window, self.quoting) {
            Some(comma) => {
                let (before, element) = rest.split_at(hidden.len() + comma);
                let element = element.strip_prefix(b",").unwrap_or(element);
                self.budget_bytes = self.budget_bytes.saturating_sub(element.len() + 1);
                self.rest = Some(before);
                Some(Ok(element.trim_ascii()))
            }
            None if hidden.is_empty() => {
                // The end of a line counts as the comma that joins it to the line before.
                self.budget_bytes = self.budget_bytes.saturating_sub(rest.len() + 1);
                Some(Ok(rest.trim_ascii()))
            }
            None => {
                self.budget_bytes = 0;
                self.rest = Some(rest);
                Some(Err(CapReached))
            }
        }
    }
}

/// Where the last comma is that stands outside of quoted strings.
fn last_comma(bytes: &[u8], quoting: Quoting) -> Option<usize> {
    if quoting == Quoting::None {
        return bytes.iter().rposition(|byte| *byte == b',');
    }
    let mut quoted = false;
    for (position, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'"' if !(quoted && escaped(bytes, position)) => quoted = !quoted,
            b',' if !quoted => return Some(position),
            _ => {}
        }
    }
    None
}

/// Whether an odd number of backslashes stands before `position`.
fn escaped(bytes: &[u8], position: usize) -> bool {
    let before = bytes.get(..position).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn elements(lines: &[&[u8]], quoting: Quoting, budget_bytes: usize) -> Vec<Result<Vec<u8>, CapReached>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x", HeaderValue::from_bytes(line).expect("a value"));
        }
        let from_right = ElementsFromRight::new(headers.get_all("x").iter(), quoting, budget_bytes);
        from_right.take(100).map(|element| element.map(<[u8]>::to_vec)).collect()
    }

    fn text(list: &[&str]) -> Vec<Result<Vec<u8>, CapReached>> {
        list.iter().map(|element| Ok(element.as_bytes().to_vec())).collect()
    }

    #[test]
    fn all_lines_are_one_list_and_it_is_read_from_the_right() {
        assert_eq!(elements(&[b"a, b", b"c"], Quoting::None, 100), text(&["c", "b", "a"]));
        assert_eq!(elements(&[b"", b"a,,b "], Quoting::None, 100), text(&["b", "", "a", ""]));
        assert_eq!(elements(&[], Quoting::None, 100), text(&[]));
    }

    #[test]
    fn a_comma_in_a_quoted_string_separates_nothing() {
        let line: &[u8] = br#"a="1,2\",3", b="4""#;
        assert_eq!(elements(&[line], Quoting::QuotedStrings, 100), text(&[r#"b="4""#, r#"a="1,2\",3""#]));
    }

    #[test]
    fn a_quote_that_a_client_left_open_does_not_swallow_what_a_proxy_appended() {
        for client in [r#"for=""#, r#"for="x"#, r#"\""#, r#"""""#, r#"for="a\"#] {
            let line = format!("{client}, for=192.0.2.1");
            let read = elements(&[line.as_bytes()], Quoting::QuotedStrings, 100);
            assert_eq!(read.first(), Some(&Ok(b"for=192.0.2.1".to_vec())), "{client}");
        }
    }

    #[test]
    fn bytes_are_counted_from_the_right_and_the_cap_ends_the_walk() {
        let long = format!("{}, b, c", "a".repeat(100));
        let read = elements(&[long.as_bytes()], Quoting::None, 50);
        assert_eq!(read.get(..2), Some(text(&["c", "b"]).as_slice()));
        assert_eq!(read.get(2), Some(&Err(CapReached)));
        // Exactly enough, and one too few.
        assert_eq!(elements(&[b"aaaa"], Quoting::None, 4), text(&["aaaa"]));
        assert_eq!(elements(&[b"aaaa"], Quoting::None, 3).first(), Some(&Err(CapReached)));
    }

    proptest! {
        #[test]
        fn without_quotes_the_elements_are_those_of_splitting_the_joined_lines(
            lines in prop::collection::vec("[a-z, ]{0,12}", 0..5)
        ) {
            let raw: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
            let joined = lines.join(",");
            let mut expected: Vec<&str> = joined.split(',').map(str::trim).collect();
            expected.reverse();
            if lines.is_empty() { expected.clear(); }
            prop_assert_eq!(&elements(&raw, Quoting::None, 1000), &text(&expected));
            prop_assert_eq!(&elements(&raw, Quoting::QuotedStrings, 1000), &text(&expected));
        }
    }
}
