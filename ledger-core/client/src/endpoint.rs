//! The channels to one node.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::connector::Connector;
use crate::error::ClientError;
use crate::options::ClientOptions;

/// How often a connection with calls under way is asked whether it lives, and how long the answer may take.
struct KeepAlive {
    interval: Duration,
    timeout: Duration,
}

/// There is nobody else to ask.
const ALONE: KeepAlive = KeepAlive { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
/// Another node can answer what a frozen one does not: within 2.5 seconds the call goes there.
const ONE_OF_SEVERAL: KeepAlive =
    KeepAlive { interval: Duration::from_millis(1_000), timeout: Duration::from_millis(1_500) };

/// Channels to a URL; each connects when it is first used and again when it broke.
pub(crate) fn channels(url: &str, options: &ClientOptions) -> Result<Vec<Channel>, ClientError> {
    (0..options.connections)
        .map(|_| {
            let connector = Connector { timeout: options.connect_timeout };
            Ok(endpoint(url, options)?.connect_with_connector_lazy(connector))
        })
        .collect()
}

fn endpoint(url: &str, options: &ClientOptions) -> Result<Endpoint, ClientError> {
    let refuse = |error: tonic::transport::Error| ClientError::Options {
        what: format!("{url:?} cannot be used: {}", causes(&error)),
    };
    let keep_alive = if options.url_list().nth(1).is_some() { ONE_OF_SEVERAL } else { ALONE };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(refuse)?
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .http2_keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout)
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
