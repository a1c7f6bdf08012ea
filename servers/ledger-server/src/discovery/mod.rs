//! How a node finds the addresses of its peers: named on the command line, read from a file, looked up in DNS.
//!
//! All sources count together. One that fails makes the whole look incomplete, for a cluster must not be formed by those
//! who happen to be known.

mod address;
mod dns;
mod peers_cache;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_node::forming::PeerDiscovery;
use ledger_node::peers::PeerFuture;

pub use address::{AddressError, PeerAddress};
pub use dns::DnsName;
pub use peers_cache::{PeersCache, PeersCacheError};

use dns::{DnsSource, Found};

/// What `--join` and `--discovery` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiscoverySettings {
    /// Addresses as they were given.
    pub addresses: Vec<PeerAddress>,
    /// A file with addresses.
    pub file: Option<PathBuf>,
    /// How long the file's addresses count after they were written.
    pub file_ttl: Duration,
    /// A name whose addresses are those of the peers.
    pub dns: Option<DnsName>,
    /// Which DNS server to ask; `None` = as the system is configured.
    pub resolver: Option<SocketAddr>,
}

/// A setting that names no peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// More than one file.
    #[error("{} and {} are both files with addresses: one works", one.display(), other.display())]
    SeveralFiles {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// The resolver cannot be made.
    #[error("the DNS resolver cannot be set up: {reason}")]
    Resolver {
        /// Why.
        reason: String,
    },
}

impl DiscoverySettings {
    /// Takes the items of `--join`: what reads as `HOST:PORT`, or as an IP address alone, is an address; anything else is
    /// the path of a file.
    ///
    /// # Errors
    /// Two files.
    pub fn join(&mut self, items: &[String], default_port: u16) -> Result<(), DiscoveryError> {
        for item in items {
            match PeerAddress::parse(item, default_port) {
                Ok(address) => self.addresses.push(address),
                Err(_) => match &self.file {
                    Some(one) => {
                        return Err(DiscoveryError::SeveralFiles {
                            one: one.clone(),
                            other: PathBuf::from(item),
                        });
                    }
                    None => self.file = Some(PathBuf::from(item)),
                },
            }
        }
        Ok(())
    }

    /// Whether there is any source at all.
    pub fn names_peers(&self) -> bool {
        !self.addresses.is_empty() || self.file.is_some() || self.dns.is_some()
    }
}

/// Finds peers by all sources of the settings.
#[derive(Debug)]
pub struct Discovery {
    addresses: Vec<PeerAddress>,
    file: Option<PeersCache>,
    dns: Option<DnsSource>,
}

impl Discovery {
    /// Sets the sources up; nothing is looked up yet.
    ///
    /// # Errors
    /// The system's DNS configuration cannot be used.
    pub fn new(settings: DiscoverySettings) -> Result<Self, DiscoveryError> {
        let DiscoverySettings { addresses, file, file_ttl, dns, resolver } = settings;
        let dns = dns.map(|name| DnsSource::new(name, resolver)).transpose()?;
        Ok(Self { addresses, file: file.map(|path| PeersCache::new(path, file_ttl)), dns })
    }

    /// The file with addresses, when there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(PeersCache::path)
    }

    /// Remembers the peers' addresses in the file, for the next start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self, addresses: &BTreeSet<String>, now_s: u64) -> Result<(), PeersCacheError> {
        self.file.as_ref().map_or(Ok(()), |file| file.remember(addresses, now_s))
    }

    async fn look(&self) -> Result<Vec<String>, String> {
        let mut found: BTreeSet<String> = self.addresses.iter().map(PeerAddress::to_string).collect();
        if let Some(file) = &self.file {
            match file.read(now_s()) {
                Ok(addresses) => found.extend(addresses),
                // It will be written once the peers are known; others say who they are.
                Err(PeersCacheError::Missing { .. }) if !self.addresses.is_empty() || self.dns.is_some() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if let Some(dns) = &self.dns {
            match dns.addresses().await? {
                Found::Addresses(addresses) => found.extend(addresses),
                // Others that are known may answer all the same.
                Found::Nothing { reason } if found.is_empty() => return Err(reason),
                Found::Nothing { .. } => {}
            }
        }
        Ok(found.into_iter().collect())
    }
}

impl PeerDiscovery for Discovery {
    fn addresses(&self) -> PeerFuture<'_, Result<Vec<String>, String>> {
        Box::pin(self.look())
    }
}

fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
