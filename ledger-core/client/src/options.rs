//! How a client reaches a ledger.

use std::time::Duration;

use ledger_verify::note::VerifierKey;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::error::ClientError;
use crate::nodes::NODES_MAX;

/// Most channels of one client.
pub const CHANNELS_MAX: usize = 256;

/// How a client connects, waits and retries. Every field may be changed after [`ClientOptions::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Where the nodes are: `http://…` or `https://…`, several separated by commas.
    pub urls: String,
    /// Bearer token, `sr_…`; `None` sends none.
    pub token: Option<String>,
    /// Trust anchors and the client's own certificate; used with `https://` only.
    pub tls: TlsOptions,
    /// HTTP/2 connections per URL; calls take turns (default 1, at most 256 in all).
    pub connections: usize,
    /// Longest time for one try of a call (default 30 s).
    pub request_timeout: Duration,
    /// Longest time for a call with all its tries (default 60 s; at least that of one try).
    pub call_timeout: Duration,
    /// Longest time to open a connection (default 5 s).
    pub connect_timeout: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// How single reads and writes travel (default: over one stream per connection).
    pub calls: CallPath,
    /// What to do about a leader that `urls` does not name.
    pub unlisted_nodes: UnlistedNodes,
    /// HTTP/2 flow-control window of one stream, in bytes (default 4 MiB, one full answer).
    pub stream_window_bytes: u32,
    /// HTTP/2 flow-control window of one connection, in bytes (default 16 MiB).
    pub connection_window_bytes: u32,
    /// Keys that may sign checkpoints. Not empty: only these count, nothing is trusted on first use.
    pub verifier_keys: Vec<VerifierKey>,
}

impl ClientOptions {
    /// The defaults for a ledger at `urls`.
    pub fn new(urls: impl Into<String>) -> Self {
        Self {
            urls: urls.into(),
            token: None,
            tls: TlsOptions::default(),
            connections: 1,
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            retry: RetryPolicy::default(),
            calls: CallPath::Streamed,
            unlisted_nodes: UnlistedNodes::default(),
            stream_window_bytes: 4 * 1_048_576,
            connection_window_bytes: 16 * 1_048_576,
            verifier_keys: Vec::new(),
        }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// Refuses what cannot work, naming the field.
    pub fn validate(&self) -> Result<(), ClientError> {
        let refuse = |what: &str| Err(ClientError::Options { what: what.to_owned() });
        let count = self.url_list().count();
        if count == 0 {
            return refuse("no URL: give http://HOST:PORT or https://HOST:PORT");
        }
        if let Some(url) =
            self.url_list().find(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            return refuse(&format!("{url:?} is not a URL: write http://HOST:PORT or https://HOST:PORT"));
        }
        if self.connections == 0 || self.connections.saturating_mul(count) > CHANNELS_MAX {
            return refuse(&format!("connections must be 1 to {CHANNELS_MAX} over all URLs"));
        }
        if count > NODES_MAX {
            return refuse(&format!("at most {NODES_MAX} URLs can be named"));
        }
        if self.request_timeout.is_zero() || self.connect_timeout.is_zero() || self.call_timeout.is_zero() {
            return refuse("timeouts must be longer than zero");
        }
        if self.retry.tries_max == 0 {
            return refuse("a call needs at least one try");
        }
        if self.token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return refuse(
                "the token has characters that no token has: give the line of the token file alone",
            );
        }
        Ok(())
    }

    /// The URLs, one by one.
    pub fn url_list(&self) -> impl Iterator<Item = &str> {
        self.urls.split(',').map(str::trim).filter(|url| !url.is_empty())
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("urls", &self.urls)
            .field("token", &self.token.as_ref().map(|_| "[redacted]"))
            .field("connections", &self.connections)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// How gets, checks and writes travel. What they do, and when they are repeated, is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallPath {
    /// All of a connection over one stream, many in a message when many are made at once. Servers that have no such
    /// streams are sent requests.
    #[default]
    Streamed,
    /// Each as a request of its own, which proxies and logs can tell apart.
    Requests,
}

/// Certificates for `https://`. All texts are PEM.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Authorities that may have signed the server's certificate. There is no default trust store.
    pub ca_pem: Option<String>,
    /// The client's certificate chain, when the server asks for one.
    pub client_certificate_pem: Option<String>,
    /// The key of that certificate.
    pub client_key_pem: Option<String>,
    /// The name to expect in the server's certificate, when it is not the URL's host.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// The same for a channel of another gRPC service at the ledger's address, such as its health service.
    pub fn client_config(&self) -> Result<ClientTlsConfig, ClientError> {
        let Some(ca) = &self.ca_pem else {
            let what = "https:// needs the certificate authority of the server: name its PEM file (--tls-ca)";
            return Err(ClientError::Options { what: what.to_owned() });
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        match (&self.client_certificate_pem, &self.client_key_pem) {
            (Some(certificate), Some(key)) => Ok(config.identity(Identity::from_pem(certificate, key))),
            (None, None) => Ok(config),
            _ => Err(ClientError::Options {
                what: "a client certificate needs its key and the key its certificate: give both".to_owned(),
            }),
        }
    }
}

/// What a client does when a node tells it of a leader that its options do not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnlistedNodes {
    /// It tries in the background to reach that node, with the same scheme and TLS settings, and then sends calls there.
    #[default]
    Use,
    /// Nothing: the nodes that the options name pass the calls on.
    Ignore,
}

/// Exponential back-off with jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Tries in all, the first included (default 3). With several nodes: rounds in which each one that is not known to
    /// be down is asked once.
    pub tries_max: u32,
    /// For how long a call goes on while nodes answer that there is no leader (default 10 s).
    pub election_patience: Duration,
    /// Wait before the second try (default 100 ms).
    pub backoff_min: Duration,
    /// Longest wait (default 10 s).
    pub backoff_max: Duration,
    /// Growth from wait to wait (default 2).
    pub multiplier: f64,
    /// Each wait is varied by up to this share, up or down (default 0.25).
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries_max: 3,
            election_patience: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            multiplier: 2.0,
            jitter: 0.25,
        }
    }
}
