//! Elements of `X-Forwarded-For`.

use super::node::{self, Brackets, Hop};

/// Reads one element: `IP`, `IP:port` or `[IPv6]:port`.
pub(super) fn hop(element: &[u8]) -> Hop {
    if let Some(address) = node::address(element, Brackets::BeforePort) {
        return Hop::Address(address);
    }
    let hidden = std::str::from_utf8(element)
        .is_ok_and(|text| text.eq_ignore_ascii_case("unknown") || node::obfuscated(text));
    if hidden { Hop::Hidden } else { Hop::Unreadable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_an_address_with_or_without_port_and_zone() {
        let cases = [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25]:1", "fe80::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
            ("::192.0.2.1", "::192.0.2.1"),
        ];
        for (text, address) in cases {
            assert_eq!(hop(text.as_bytes()), Hop::Address(address.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_no_address() {
        let garbage = [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.256",
            "1.2.3.4:",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:+1",
            "1.2.3.4:000001",
            "1.2.3.4:80:80",
            "[1.2.3.4]:80",
            "[::1",
            "[::1]",
            "::1]:80",
            "[::1]80",
            "[::1]:",
            "fe80::1%",
            "fe80::1%et h",
            "1.2.3.4%eth0",
            "for=1.2.3.4",
            "\"1.2.3.4\"",
            "1.2.3.4 5.6.7.8",
            "localhost",
            "0x7f.1",
            "2130706433",
            "1.2.3.4\u{660}",
            "::ffff:1.2.3.4:80:443",
        ];
        for text in garbage {
            assert_eq!(hop(text.as_bytes()), Hop::Unreadable, "{text}");
        }
        assert_eq!(hop(b"\xff1.2.3.4"), Hop::Unreadable);
        assert_eq!(hop("[".repeat(4_000).as_bytes()), Hop::Unreadable);
        for text in ["unknown", "Unknown", "_hidden", "_a.b-c_d"] {
            assert_eq!(hop(text.as_bytes()), Hop::Hidden, "{text}");
        }
    }
}
