//! The limits of a listener, each with its default and the reason for it.

use std::time::Duration;

/// What one listener allows. tonic and hyper leave most of these unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections open at once, counted before the TLS handshake. 4,096: a descriptor each, within common limits.
    pub connections_max: usize,
    /// Connections open at once from one IPv4 address or one IPv6 /64 network (a client owns all of the latter);
    /// loopback is spared. 64: a client needs one, a proxy some.
    pub connections_per_address_max: usize,
    /// Time for the TLS handshake. 5 s: three round trips over the worst of links.
    pub tls_handshake_timeout: Duration,
    /// Time until the protocol's first bytes have arrived, after the handshake. 5 s: a client sends them unasked.
    pub first_bytes_timeout: Duration,
    /// HTTP/1: time for a request's head. 5 s.
    pub header_read_timeout: Duration,
    /// HTTP/2 streams open at once on one connection. 100, as browsers and proxies expect at least.
    pub streams_per_connection_max: u32,
    /// Requests worked on at once for one connection; further ones wait. 64.
    pub requests_per_connection_max: usize,
    /// Streams reset by the client before they were accepted (rapid reset, CVE-2023-44487). 20.
    pub pending_accept_resets_max: usize,
    /// Streams that we reset for the client's errors before the connection is closed (RUSTSEC-2024-0003). 128.
    pub local_error_resets_max: usize,
    /// Decoded size of a request's headers, in bytes. 16 KiB: a token, a trace, an id.
    pub header_list_bytes_max: u32,
    /// Time between keep-alive pings. 30 s, below the idle timeout of common load balancers.
    pub keepalive_interval: Duration,
    /// Time for a ping's answer. 10 s.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is asked to close, so that clients spread over new servers. 30 min.
    pub connection_age_max: Duration,
    /// Time that requests under way get after that. 30 s, the request timeout.
    pub connection_age_grace: Duration,
    /// HTTP/2 flow control window of a stream, in bytes. 1 MiB: the largest value in one flight.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow control window of a connection, in bytes; bounds what a client can make us buffer. 16 MiB.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame accepted, in bytes. 64 KiB: a 1 MiB value takes 16 frames, not 64.
    pub frame_bytes_max: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_address_max: 64,
            tls_handshake_timeout: Duration::from_secs(5),
            first_bytes_timeout: Duration::from_secs(5),
            header_read_timeout: Duration::from_secs(5),
            streams_per_connection_max: 100,
            requests_per_connection_max: 64,
            pending_accept_resets_max: 20,
            local_error_resets_max: 128,
            header_list_bytes_max: 16 << 10,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age_max: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(30),
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 16 << 20,
            frame_bytes_max: 64 << 10,
        }
    }
}

impl ListenerLimits {
    /// Limits between the nodes of a cluster: few connections with many streams, a chunk of a snapshot in one flight,
    /// and a silent peer noticed within seconds.
    pub fn peers() -> Self {
        Self {
            connections_max: 256,
            streams_per_connection_max: 256,
            requests_per_connection_max: 256,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            stream_window_bytes: 16 << 20,
            connection_window_bytes: 32 << 20,
            ..Self::default()
        }
    }

    /// Limits of the probes' port: few clients, short requests.
    pub fn probes() -> Self {
        Self { connections_max: 256, ..Self::default() }
    }

    /// Checks the limits against each other and against HTTP/2.
    ///
    /// # Errors
    /// The first limit that cannot work.
    pub fn validate(&self) -> Result<(), LimitError> {
        let counts = [
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("streams_per_connection_max", self.streams_per_connection_max as usize),
            ("requests_per_connection_max", self.requests_per_connection_max),
        ];
        let times = [
            ("tls_handshake_timeout", self.tls_handshake_timeout),
            ("first_bytes_timeout", self.first_bytes_timeout),
            ("header_read_timeout", self.header_read_timeout),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("connection_age_max", self.connection_age_max),
        ];
        let zero_count = counts.iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name);
        let zero_time = times.iter().filter(|(_, time)| time.is_zero()).map(|(name, _)| *name);
        if let Some(limit) = zero_count.chain(zero_time).next() {
            return Err(LimitError::Zero { limit });
        }
        // RFC 9113: windows up to 2^31-1 from 65,535, frames from 2^14 to 2^24-1.
        let ranges = [
            ("connections_max", self.connections_max as u64, 1, tokio::sync::Semaphore::MAX_PERMITS as u64),
            ("stream_window_bytes", self.stream_window_bytes.into(), 65_535, (1 << 31) - 1),
            (
                "connection_window_bytes",
                self.connection_window_bytes.into(),
                self.stream_window_bytes.into(),
                (1 << 31) - 1,
            ),
            ("frame_bytes_max", self.frame_bytes_max.into(), 1 << 14, (1 << 24) - 1),
            ("header_list_bytes_max", self.header_list_bytes_max.into(), 1 << 10, 1 << 20),
        ];
        for (limit, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(LimitError::OutOfRange { limit, value, min, max });
            }
        }
        Ok(())
    }
}

/// A limit that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// Nothing would be served.
    #[error("{limit} must not be zero")]
    Zero {
        /// The field.
        limit: &'static str,
    },
    /// Outside what the protocol or the other limits allow.
    #[error("{limit} is {value}: it must lie between {min} and {max}")]
    OutOfRange {
        /// The field.
        limit: &'static str,
        /// Its value.
        value: u64,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
}
