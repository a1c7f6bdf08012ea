//! One hop as text: an address, with or without port and zone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest text of an address that is looked at: an IPv6 address in full, brackets, a zone and a port.
const NODE_BYTES_MAX: usize = 128;

/// What an element of the header says about a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// Its address.
    Address(IpAddr),
    /// `unknown`, or a name that hides it (RFC 7239, 6.2 and 6.3).
    Hidden,
    /// Nothing that the grammar knows.
    Unreadable,
}

/// Whether a bare IPv6 address needs brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brackets {
    /// Around every IPv6 address (RFC 7239, 6).
    Always,
    /// Only before a port, as X-Forwarded-For is written.
    BeforePort,
}

/// The one form in which addresses are compared: `::ffff:a.b.c.d` is `a.b.c.d`, and so are its networks.
///
/// Only the mapped form (RFC 4291, 2.5.5.2) is the same host; `::a.b.c.d` is an IPv6 address like others.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
    }
}

/// `IP`, `IP:port`, `[IPv6]:port`, and with [`Brackets::Always`] `[IPv6]`. Ports are 1 to 65535; with
/// [`Brackets::Always`] also `_obfuscated`.
pub(super) fn address(text: &[u8], brackets: Brackets) -> Option<IpAddr> {
    if text.len() > NODE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if let Some(inside) = text.strip_prefix('[') {
        let (address, after) = inside.split_once(']')?;
        let bare = after.is_empty() && brackets == Brackets::Always;
        return (bare || port(after, brackets)).then(|| ipv6(address))?.map(|v6| canonical(v6.into()));
    }
    if brackets == Brackets::BeforePort
        && let Some(v6) = ipv6(text)
    {
        return Some(canonical(v6.into()));
    }
    let (address, after) = text.split_at(text.find(':').unwrap_or(text.len()));
    let v4: Ipv4Addr = address.parse().ok()?;
    (after.is_empty() || port(after, brackets)).then_some(v4.into())
}

/// Drops the zone, which means something on one machine only.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if zone.is_some_and(|zone| zone.is_empty() || !zone.bytes().all(unreserved)) {
        return None;
    }
    address.parse().ok()
}

/// `:` and a port.
fn port(text: &str, brackets: Brackets) -> bool {
    let Some(port) = text.strip_prefix(':') else { return false };
    if brackets == Brackets::Always && obfuscated(port) {
        return true;
    }
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    digits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `_` and letters, digits, `.`, `_`, `-` (RFC 7239, 6.3).
pub(super) fn obfuscated(text: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(named))
}
