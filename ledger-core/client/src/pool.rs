//! The channels of a client: one per URL and connection, used in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::ClientError;
use crate::options::{ClientOptions, TlsOptions};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct ChannelPool {
    channels: Vec<Channel>,
    turn: AtomicUsize,
}

impl ChannelPool {
    /// Makes the channels; each connects when it is first used and again when it broke.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let mut channels = Vec::new();
        for _ in 0..options.connections {
            for url in options.url_list() {
                channels.push(endpoint(url, options)?.connect_lazy());
            }
        }
        Ok(Self { channels, turn: AtomicUsize::new(0) })
    }

    /// The next channel in turn.
    pub(crate) fn next(&self) -> Result<Channel, ClientError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.channels.len()).unwrap_or_default();
        self.channels
            .get(index)
            .cloned()
            .ok_or_else(|| ClientError::Options { what: "the client has no URL".to_owned() })
    }
}

fn endpoint(url: &str, options: &ClientOptions) -> Result<Endpoint, ClientError> {
    let refuse = |error: tonic::transport::Error| ClientError::Options {
        what: format!("{url:?} cannot be used: {}", causes(&error)),
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(refuse)?
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .user_agent(concat!("strongroom-ledger-client/", env!("CARGO_PKG_VERSION")))
        .map_err(refuse)?;
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(tls_config(&options.tls)?).map_err(refuse)?;
    }
    Ok(endpoint)
}

fn tls_config(tls: &TlsOptions) -> Result<ClientTlsConfig, ClientError> {
    let Some(ca) = &tls.ca_pem else {
        let what =
            "https:// needs the certificate authority of the server: name its PEM file (--tls-ca)".to_owned();
        return Err(ClientError::Options { what });
    };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    match (&tls.client_certificate_pem, &tls.client_key_pem) {
        (Some(certificate), Some(key)) => Ok(config.identity(Identity::from_pem(certificate, key))),
        (None, None) => Ok(config),
        _ => Err(ClientError::Options {
            what: "a client certificate needs its key and the key its certificate: give both".to_owned(),
        }),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
