//! The client's address as a key.

use std::net::IpAddr;

use super::extractor::{KeyError, KeyExtractor, RequestHead};
use super::request_key::{KeyWriter, PartKind};
use crate::client_ip::{AddressGroup, ClientIp, Grouping};

/// The client's address, or the network that shares its limit. Needs [`ClientIpLayer`](crate::client_ip::ClientIpLayer)
/// outside of the limit. With a wider [`Grouping`] (/56, /48) it is the key of a second, larger limit beside the first, so that
/// whoever holds a large network cannot use all of its parts.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress {
    grouping: Grouping,
}

impl ClientAddress {
    /// Addresses of one group share a key.
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping }
    }
}

impl KeyExtractor for ClientAddress {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        write(self.grouping.group(address(request)?), key)
    }
}

fn address(request: RequestHead<'_>) -> Result<IpAddr, KeyError> {
    let client = request.extensions.get::<ClientIp>();
    client.map(ClientIp::address).ok_or_else(|| KeyError::NotWired { what: "client address".to_owned() })
}

/// IPv4: four bytes. IPv6: the network's 16 and the length of its prefix.
fn write(group: AddressGroup, key: &mut KeyWriter) -> Result<(), KeyError> {
    match group {
        AddressGroup::Ipv4(address) => key.part(PartKind::Address, &address.octets()),
        AddressGroup::Ipv6 { network, prefix_bits } => {
            let mut bytes = [prefix_bits; 17];
            for (byte, octet) in bytes.iter_mut().zip(network.octets()) {
                *byte = octet;
            }
            key.part(PartKind::Address, &bytes)
        }
    }
}
