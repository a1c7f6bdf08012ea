//! From the peer and the header to the client.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

use super::elements::{ElementsFromRight, Quoting};
use super::node::{Hop, canonical};
use super::trusted_networks::TrustedNetworks;
use super::warning::{self, PeerWarning};
use super::{forwarded, x_forwarded_for};

/// Most elements of the header that are looked at, from the right.
pub const HOPS_MAX: u8 = 32;

/// Most bytes of the header that are looked at, from the right, all lines together.
pub const HEADER_BYTES_MAX: usize = 4_096;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The one header that the proxies write. The other is not looked at: a client could send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: addresses, each with or without a port.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): its parameter `for`.
    Forwarded,
}

impl ForwardingHeader {
    fn name(self) -> &'static HeaderName {
        match self {
            Self::XForwardedFor => &X_FORWARDED_FOR,
            Self::Forwarded => &FORWARDED,
        }
    }

    fn elements(self, headers: &HeaderMap) -> ElementsFromRight<'_> {
        let quoting = match self {
            Self::XForwardedFor => Quoting::None,
            Self::Forwarded => Quoting::QuotedStrings,
        };
        ElementsFromRight::new(headers.get_all(self.name()).iter(), quoting, HEADER_BYTES_MAX)
    }

    fn hop(self, element: &[u8]) -> Hop {
        match self {
            Self::XForwardedFor => x_forwarded_for::hop(element),
            Self::Forwarded => forwarded::hop(element),
        }
    }
}

/// How many proxies stand in front, the peer included: 1 to [`HOPS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopCount(u8);

/// A count of proxies that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} proxies are not 1 to {HOPS_MAX}; with none, use ClientIpPolicy::peer_only")]
pub struct HopCountError {
    /// What was given.
    pub count: u8,
}

impl HopCount {
    /// # Errors
    /// When `count` is 0 or more than [`HOPS_MAX`].
    pub fn new(count: u8) -> Result<Self, HopCountError> {
        if (1..=HOPS_MAX).contains(&count) { Ok(Self(count)) } else { Err(HopCountError { count }) }
    }
}

/// Whose word about the hop before them is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The hosts of these networks.
    Networks(TrustedNetworks),
    /// The peer and the hops behind it, as many as there are proxies, whatever their addresses are. Who reaches us past
    /// a proxy chooses its address: only for ports that nobody but the proxies reaches.
    Hops(HopCount),
}

impl Trust {
    /// `position` counts from the peer, which is 0.
    fn covers(&self, position: u8, address: IpAddr) -> bool {
        match self {
            Self::Networks(networks) => networks.contains(address),
            Self::Hops(HopCount(count)) => position < *count,
        }
    }
}

/// Where a client's address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIpPolicy {
    source: Option<(ForwardingHeader, Trust)>,
}

/// Why the walk along the hops ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The next element hides its hop: `unknown` or `_name`.
    Hidden,
    /// The next element is no address.
    Unreadable,
    /// [`HOPS_MAX`] elements were read.
    HopsMax,
    /// The next element goes beyond [`HEADER_BYTES_MAX`].
    HeaderBytesMax,
}

/// What an address rests on. `hops` is how many elements of the header were passed or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The connection: the peer is not trusted, or nobody is.
    Peer,
    /// The first hop from the right that is not trusted.
    UntrustedHop {
        /// Its position from the right, from 1.
        hops: u8,
    },
    /// Every hop is trusted: the leftmost, or the peer without any.
    AllTrusted {
        /// How many there are.
        hops: u8,
    },
    /// The last trusted hop before something that ends the walk.
    Stopped {
        /// How many hops were passed.
        hops: u8,
        /// What ended it.
        reason: StopReason,
    },
}

/// A client's address, and what it rests on. Found in a request's extensions behind [`ClientIpLayer`](super::ClientIpLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp {
    address: IpAddr,
    evidence: Evidence,
}

impl ClientIp {
    /// The address. Never a mapped one.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What it rests on.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }
}

impl ClientIpPolicy {
    /// The peer is the client; no header is read. For a server that clients reach without a proxy.
    pub fn peer_only() -> Self {
        Self { source: None }
    }

    /// Proxies in these networks append to `header`.
    pub fn behind(header: ForwardingHeader, proxies: TrustedNetworks) -> Self {
        Self { source: Some((header, Trust::Networks(proxies))) }
    }

    /// So many proxies, of whatever address, append to `header`: see [`Trust::Hops`].
    pub fn behind_count(header: ForwardingHeader, proxies: HopCount) -> Self {
        Self { source: Some((header, Trust::Hops(proxies))) }
    }

    /// Whose word is believed; `None`: nobody's.
    pub fn trust(&self) -> Option<&Trust> {
        self.source.as_ref().map(|(_, trust)| trust)
    }

    /// The client of a request that came over a connection from `peer`.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> ClientIp {
        let peer = canonical(peer);
        match &self.source {
            Some((header, trust)) if trust.covers(0, peer) => walk(*header, trust, peer, headers),
            _ => ClientIp { address: peer, evidence: Evidence::Peer },
        }
    }

    /// What to tell an operator who sees this peer. Nothing when a list is set.
    pub fn peer_warning(&self, peer: IpAddr, headers: &HeaderMap) -> Option<PeerWarning> {
        let peer = canonical(peer);
        if self.source.is_some() || !warning::is_private(peer) {
            return None;
        }
        let forwarded = headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        Some(if forwarded { PeerWarning::UnreadHeader { peer } } else { PeerWarning::PrivatePeer { peer } })
    }
}

fn walk(header: ForwardingHeader, trust: &Trust, peer: IpAddr, headers: &HeaderMap) -> ClientIp {
    let mut address = peer;
    let mut hops = 0;
    for element in header.elements(headers) {
        if hops == HOPS_MAX {
            return ClientIp { address, evidence: Evidence::Stopped { hops, reason: StopReason::HopsMax } };
        }
        let hop = match element.map(|element| header.hop(element)) {
            Ok(Hop::Address(hop)) => Ok(hop),
            Ok(Hop::Hidden) => Err(StopReason::Hidden),
            Ok(Hop::Unreadable) => Err(StopReason::Unreadable),
            Err(_) => Err(StopReason::HeaderBytesMax),
        };
        match hop {
            Err(reason) => return ClientIp { address, evidence: Evidence::Stopped { hops, reason } },
            Ok(hop) => address = hop,
        }
        hops += 1;
        if !trust.covers(hops, address) {
            return ClientIp { address, evidence: Evidence::UntrustedHop { hops } };
        }
    }
    ClientIp { address, evidence: Evidence::AllTrusted { hops } }
}
