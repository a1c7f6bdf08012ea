//! The bounds of what peers do, each with its default and the reason for it.

use std::time::Duration;

use ledger_node::peers::PEER_BODY_BYTES_MAX;
use service_kit::ListenerLimits;
use service_kit::admission::AdmissionLimits;
use service_kit::tls::RELOAD_INTERVAL;

/// Most bytes of one message: a body, and room for who sends it or for why it is refused.
pub(super) const MESSAGE_BYTES_MAX: usize = PEER_BODY_BYTES_MAX + (8 << 10);

/// Bodies above this size go over the connection for bulk, whatever their method: 256 KiB take two milliseconds at
/// 1 Gbit/s, a small part of the time between two heartbeats.
pub(super) const URGENT_BODY_BYTES_MAX: usize = 256 << 10;

/// Calls to one peer over one connection, waiting ones included; more are refused as busy.
pub(super) const CALLS_PER_LINK_MAX: usize = 1_024;
/// Bytes of bodies on their way over one connection; more wait, each within its own time.
pub(super) const BODY_BYTES_PER_LINK_MAX: usize = 4 * PEER_BODY_BYTES_MAX;

/// Connections that are remembered, to all peers: two for each name that an address was expected to have. Beyond it the
/// one that was used longest ago goes.
pub(super) const LINKS_MAX: usize = 256;
/// A connection that nobody uses for this long is closed: its peer may have left the cluster.
pub(super) const LINK_IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes of all peers' requests that a node holds at once (256 MiB); more are refused as busy. Four links with all that
/// may be on its way over each of them.
const REQUEST_BYTES_HELD_MAX: usize = 256 << 20;
/// So many bytes of each request are not counted (16 KiB): heartbeats and votes get through whatever else arrives.
pub(super) const UNCOUNTED_BYTES_PER_REQUEST: usize = 16 << 10;

/// What the transport between peers allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLimits {
    /// The peers' listener.
    pub listener: ListenerLimits,
    /// Requests of all peers that are worked on at once, and for how long. 4,096: several peers with all the streams of
    /// their connections. 10 min: the longest that a peer may wait for the installation of a snapshot; a shorter time
    /// comes with each call.
    pub admission: AdmissionLimits,
    /// Bytes of their bodies that are held at once, beyond the first 16 KiB of each; more are refused as busy. 256 MiB.
    pub request_bytes_max: usize,
    /// Time to find, connect to and shake hands with a peer. 2 s: three round trips over the worst of links, and less
    /// than the wait after two lost first packets.
    pub connect_timeout: Duration,
    /// Wait after a connection that failed; calls meanwhile fail with its error. 20 ms, doubled each time.
    pub retry_wait_first: Duration,
    /// The longest such wait. 500 ms: a peer that comes back is noticed within an election.
    pub retry_wait_longest: Duration,
    /// Time between pings of a silent connection. 1 s: a peer behind a cut cable is noticed before TCP would.
    pub keepalive_interval: Duration,
    /// Time for a ping's answer, after which the connection is given up. 2 s, four times the longest stall of a disk that
    /// a node must survive.
    pub keepalive_timeout: Duration,
    /// How often the certificate files are looked at. 5 s.
    pub certificates_interval: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            listener: ListenerLimits::peers(),
            admission: AdmissionLimits {
                requests_max: 4_096,
                request_timeout: Duration::from_secs(600),
                ..AdmissionLimits::default()
            },
            request_bytes_max: REQUEST_BYTES_HELD_MAX,
            connect_timeout: Duration::from_secs(2),
            retry_wait_first: Duration::from_millis(20),
            retry_wait_longest: Duration::from_millis(500),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
            certificates_interval: RELOAD_INTERVAL,
        }
    }
}
