//! The channels of a client: one per URL and connection, used in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use crate::call_line::CallLine;
use crate::connector::Connector;
use crate::error::ClientError;
use crate::options::ClientOptions;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct ChannelPool {
    lines: Vec<CallLine>,
    turn: AtomicUsize,
}

impl ChannelPool {
    /// Makes the channels; each connects when it is first used and again when it broke.
    pub(crate) fn new(
        options: &ClientOptions,
        authorization: Option<&MetadataValue<Ascii>>,
        runtime: &Handle,
    ) -> Result<Self, ClientError> {
        let mut lines = Vec::new();
        for _ in 0..options.connections {
            for url in options.url_list() {
                let connector = Connector { timeout: options.connect_timeout };
                let channel = endpoint(url, options)?.connect_with_connector_lazy(connector);
                lines.push(CallLine::new(channel, authorization.cloned(), runtime.clone()));
            }
        }
        Ok(Self { lines, turn: AtomicUsize::new(0) })
    }

    /// The next channel in turn.
    pub(crate) fn next(&self) -> Result<Channel, ClientError> {
        self.next_line().map(CallLine::channel)
    }

    /// The next channel in turn with its stream of calls.
    pub(crate) fn next_line(&self) -> Result<&CallLine, ClientError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.lines.len()).unwrap_or_default();
        self.lines.get(index).ok_or_else(|| ClientError::Options { what: "the client has no URL".to_owned() })
    }
}

fn endpoint(url: &str, options: &ClientOptions) -> Result<Endpoint, ClientError> {
    let refuse = |error: tonic::transport::Error| ClientError::Options {
        what: format!("{url:?} cannot be used: {}", causes(&error)),
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(refuse)?
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .user_agent(concat!("strongroom-ledger-client/", env!("CARGO_PKG_VERSION")))
        .map_err(refuse)?;
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(options.tls.client_config()?).map_err(refuse)?;
    }
    Ok(endpoint)
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
