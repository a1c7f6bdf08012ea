//! Random chains of hops, as what they mean and as header lines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tower_layers::client_ip::{ForwardingHeader, TrustedNetworks};

/// The proxies of these tests.
pub const TRUSTED: &str = "127.0.0.1, 10.1.0.0/24, 2001:db8:1::/48";

pub fn trusted() -> TrustedNetworks {
    TRUSTED.parse().expect("a list")
}

pub fn name(header: ForwardingHeader) -> &'static str {
    match header {
        ForwardingHeader::XForwardedFor => "x-forwarded-for",
        ForwardingHeader::Forwarded => "forwarded",
    }
}

/// One hop of a chain.
#[derive(Clone, Debug)]
pub struct Hop {
    /// What it means: an address, or nothing that can be read.
    pub address: Option<IpAddr>,
    /// Its element in `X-Forwarded-For`.
    pub x_forwarded_for: String,
    /// Its element in `Forwarded`.
    pub forwarded: String,
    /// Whether it begins a new line of the header.
    pub new_line: bool,
}

impl Hop {
    pub fn element(&self, header: ForwardingHeader) -> &str {
        match header {
            ForwardingHeader::XForwardedFor => &self.x_forwarded_for,
            ForwardingHeader::Forwarded => &self.forwarded,
        }
    }
}

/// Which forms other implementations read as we do.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// `2001:db8::1` without brackets in `X-Forwarded-For`.
    pub bare_ipv6: bool,
    /// `::ffff:192.0.2.1`.
    pub mapped: bool,
    /// `[::1` is no address.
    pub open_bracket: bool,
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => any::<u8>().prop_map(|low| IpAddr::from(Ipv4Addr::new(10, 1, 0, low))),
        1 => any::<u8>().prop_map(|low| IpAddr::from(Ipv4Addr::new(10, 1, 1, low))),
        2 => any::<u16>().prop_map(|low| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, low))),
        1 => any::<u16>().prop_map(|low| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, low))),
        1 => any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
    ]
}

fn written(address: IpAddr, port: Option<u16>, mapped: bool, forms: Forms) -> (String, String) {
    let port = port.map(|port| format!(":{}", port.max(1)));
    let suffix = port.as_deref().unwrap_or_default();
    let v6 = match address {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(v4) if mapped && forms.mapped => v4.to_ipv6_mapped(),
        IpAddr::V4(v4) if suffix.is_empty() => return (v4.to_string(), format!("for={v4}")),
        IpAddr::V4(v4) => return (format!("{v4}{suffix}"), format!("for=\"{v4}{suffix}\"")),
    };
    let x_forwarded_for = match (suffix, forms.bare_ipv6) {
        ("", true) => v6.to_string(),
        ("", false) => format!("[{v6}]:443"),
        _ => format!("[{v6}]{suffix}"),
    };
    (x_forwarded_for, format!("for=\"[{v6}]{suffix}\""))
}

fn readable(forms: Forms) -> impl Strategy<Value = Hop> {
    (address(), prop::option::of(any::<u16>()), any::<bool>(), any::<bool>()).prop_map(
        move |(address, port, mapped, new_line)| {
            let (x_forwarded_for, forwarded) = written(address, port, mapped, forms);
            Hop { address: Some(address), x_forwarded_for, forwarded, new_line }
        },
    )
}

fn unreadable(forms: Forms) -> impl Strategy<Value = Hop> {
    let mut words = vec!["unknown", "_hidden", "1.2.3", "1.2.3.256", "garbage", "10.1.0.1x", "2001:db8::g"];
    words.extend(forms.open_bracket.then_some("[::1"));
    (prop::sample::select(words), any::<bool>()).prop_map(|(word, new_line)| Hop {
        address: None,
        x_forwarded_for: word.to_owned(),
        forwarded: format!("for=\"{word}\";proto=https"),
        new_line,
    })
}

/// Chains of up to 12 hops, from the client to the nearest.
pub fn chain(forms: Forms) -> impl Strategy<Value = Vec<Hop>> {
    prop::collection::vec(prop_oneof![9 => readable(forms), 1 => unreadable(forms)], 0..12)
}

/// The chain as the lines of a header.
pub fn lines(header: ForwardingHeader, hops: &[Hop]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for hop in hops {
        match lines.last_mut() {
            Some(line) if !hop.new_line => *line = format!("{line}, {}", hop.element(header)),
            _ => lines.push(hop.element(header).to_owned()),
        }
    }
    lines
}

pub fn headers(header: ForwardingHeader, lines: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name(header), HeaderValue::from_str(line).expect("a value"));
    }
    headers
}
