//! Peers as the addresses of one DNS name, such as a headless service of Kubernetes.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::address::is_name;
use super::{AddressError, DiscoveryError};

/// Time for one question to one server, and how often it is asked.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// A name and the port that all its addresses have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName {
    name: String,
    port: u16,
}

impl DnsName {
    /// Reads `NAME` or `NAME:PORT`.
    ///
    /// # Errors
    /// No DNS name, or no port.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let refused = || AddressError { given: text.chars().take(80).collect() };
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?),
            None => (text, default_port),
        };
        if is_name(name) { Ok(Self { name: name.to_owned(), port }) } else { Err(refused()) }
    }
}

/// What a name has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Peers.
    Addresses(Vec<String>),
    /// No peers, at least not yet.
    Nothing {
        /// Why, with the name.
        reason: String,
    },
}

/// Asks for the addresses of a name.
#[derive(Clone)]
pub(super) struct DnsSource {
    name: DnsName,
    resolver: TokioResolver,
}

impl std::fmt::Debug for DnsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DnsSource {
    pub fn new(name: DnsName, server: Option<SocketAddr>) -> Result<Self, DiscoveryError> {
        let failed =
            |error: hickory_resolver::net::NetError| DiscoveryError::Resolver { reason: error.to_string() };
        let mut builder = match server {
            None => TokioResolver::builder_tokio().map_err(failed)?,
            Some(server) => {
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server(server)]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = QUESTION_TIMEOUT;
        options.attempts = ATTEMPTS;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Nodes come and go faster than the life of a record says.
        options.cache_size = 0;
        let resolver = builder.build().map_err(failed)?;
        Ok(Self { name, resolver })
    }

    /// The addresses now. A name without addresses has no peers yet.
    pub async fn addresses(&self) -> Result<Found, String> {
        let DnsName { name, port } = &self.name;
        let nothing = |what: &str| Found::Nothing { reason: format!("the DNS name {name} {what}") };
        match self.resolver.lookup_ip(name.as_str()).await {
            Ok(found) => {
                let found = found.iter().map(|ip| SocketAddr::new(ip, *port).to_string());
                Ok(Found::Addresses(found.collect()))
            }
            Err(error) if error.is_nx_domain() => Ok(nothing("does not exist")),
            Err(error) if error.is_no_records_found() => Ok(nothing("has no addresses")),
            Err(error) => Err(format!("{name} cannot be looked up: {error}")),
        }
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_port() {
        let name = |text: &str| DnsName::parse(text, 50_052).map(|name| (name.name, name.port));
        assert_eq!(name("ledger.example.com"), Ok(("ledger.example.com".to_owned(), 50_052)));
        assert_eq!(name("ledger.example.com.:7"), Ok(("ledger.example.com.".to_owned(), 7)));
        for wrong in ["", ":7", "ledger:0", "ledger:x", "led ger", "a..b"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
