//! Elements of `Forwarded` (RFC 7239).

use super::node::{self, Brackets, Hop};

/// Reads one element: pairs `name=value` between semicolons, of which exactly one is `for`.
pub(super) fn hop(element: &[u8]) -> Hop {
    let mut rest = element;
    let mut node: Option<Vec<u8>> = None;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first().is_some_and(|byte| *byte != b';') {
            let Some((name, value, after)) = pair(rest) else { return Hop::Unreadable };
            // RFC 7239, 4: a parameter occurs at most once in an element.
            if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                return Hop::Unreadable;
            }
            rest = after.trim_ascii_start();
        }
        match rest.split_first() {
            None => return node.map_or(Hop::Unreadable, |node| hop_of_node(&node)),
            Some((b';', after)) => rest = after,
            Some(_) => return Hop::Unreadable,
        }
    }
}

fn hop_of_node(node: &[u8]) -> Hop {
    if let Some(address) = node::address(node, Brackets::Always) {
        return Hop::Address(address);
    }
    let Ok(text) = std::str::from_utf8(node) else { return Hop::Unreadable };
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    if name.eq_ignore_ascii_case("unknown") || node::obfuscated(name) { Hop::Hidden } else { Hop::Unreadable }
}

/// `name=value` at the beginning: name, value without quotes, and what follows.
fn pair(text: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, after) = token(text)?;
    let after = after.strip_prefix(b"=")?;
    let (value, after) = match after.strip_prefix(b"\"") {
        Some(inside) => quoted(inside)?,
        None => token(after).map(|(value, after)| (value.to_vec(), after))?,
    };
    Some((name, value, after))
}

/// A token (RFC 9110, 5.6.2), not empty, and what follows.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The rest of a quoted string (RFC 9110, 5.6.4) after its first quote, unescaped, and what follows.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = match byte {
            b'"' => return Some((value, after)),
            b'\\' => {
                let (byte, after) = after.split_first()?;
                value.push(*byte);
                after
            }
            byte => {
                value.push(*byte);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_names_an_address_as_token_or_quoted_string() {
        let cases = [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=192.0.2.1", "192.0.2.1"),
            (r#"for="192.0.2.1:443""#, "192.0.2.1"),
            (r#"for="[2001:db8::1]""#, "2001:db8::1"),
            (r#"for="[2001:db8::1]:443";proto=https;by=203.0.113.1"#, "2001:db8::1"),
            (r#"proto=http;by="_x,y;\"z"; for="\1.2.3.4" "#, "1.2.3.4"),
            (r#";;for="192.0.2.1:_port";"#, "192.0.2.1"),
            (r#"for="[::ffff:192.0.2.1]""#, "192.0.2.1"),
        ];
        for (text, address) in cases {
            assert_eq!(hop(text.as_bytes()), Hop::Address(address.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn what_hides_a_hop_is_told_from_garbage() {
        for text in ["for=unknown", "for=Unknown;proto=http", "for=_secret", r#"for="_secret:_port""#] {
            assert_eq!(hop(text.as_bytes()), Hop::Hidden, "{text}");
        }
        let garbage = [
            "",
            ";",
            "192.0.2.1",
            "for",
            "for=",
            "for =1.2.3.4",
            "for= 1.2.3.4",
            "for=1.2.3.4:80",
            "for=2001:db8::1",
            r#"for="2001:db8::1""#,
            r#"for="[2001:db8::1]"#,
            r#"for="1.2.3.4"x"#,
            "for=1.2.3.4;for=1.2.3.4",
            "by=1.2.3.4",
            r#"for="1.2.3.4\"#,
            r#"for="""#,
            "for=1.2.3.4 proto=http",
            "proto=;for=1.2.3.4",
            "=1.2.3.4",
            "for=_",
        ];
        for text in garbage {
            assert_eq!(hop(text.as_bytes()), Hop::Unreadable, "{text}");
        }
    }
}
