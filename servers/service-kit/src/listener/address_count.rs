//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts of open connections by address. Bounded by the connections in all: an address without one has no entry.
#[derive(Clone, Debug)]
pub(super) struct AddressCounts {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

/// One counted connection; dropping it counts down.
#[derive(Debug)]
pub(super) struct CountedAddress {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// `None` for loopback, which is not counted.
    address: Option<IpAddr>,
}

impl AddressCounts {
    pub(super) fn new(limit: usize) -> Self {
        Self { counts: Arc::default(), limit }
    }

    /// Counts one more connection; `None` when the address has its share.
    pub(super) fn admit(&self, address: IpAddr) -> Option<CountedAddress> {
        let counts = Arc::clone(&self.counts);
        let Some(address) = counted(address) else {
            return Some(CountedAddress { counts, address: None });
        };
        let mut open = lock(&self.counts);
        let count = open.get(&address).copied().unwrap_or_default();
        if count >= self.limit {
            return None;
        }
        open.insert(address, count + 1);
        Some(CountedAddress { counts, address: Some(address) })
    }
}

impl Drop for CountedAddress {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = lock(&self.counts);
        match open.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&address)),
        }
    }
}

/// The address that stands for a client: none for loopback, the /64 network for IPv6.
fn counted(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    })
}

fn lock(counts: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a test address")
    }

    #[test]
    fn an_address_gets_its_share_and_no_more_until_one_closes() {
        let counts = AddressCounts::new(2);
        let first = counts.admit(ip("203.0.113.7"));
        let second = counts.admit(ip("203.0.113.7"));
        assert!(first.is_some() && second.is_some());
        assert!(counts.admit(ip("203.0.113.7")).is_none());
        assert!(counts.admit(ip("::ffff:203.0.113.7")).is_none(), "the same address, mapped");
        assert!(counts.admit(ip("203.0.113.8")).is_some(), "another address has a share of its own");
        drop(first);
        assert!(counts.admit(ip("203.0.113.7")).is_some());
    }

    #[test]
    fn one_ipv6_network_shares_one_count() {
        let counts = AddressCounts::new(1);
        let _open = counts.admit(ip("2001:db8:1:2::1"));
        assert!(counts.admit(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(counts.admit(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn loopback_is_spared() {
        let counts = AddressCounts::new(1);
        let open: Vec<_> = ["127.0.0.1", "127.0.0.1", "::1", "::1", "::ffff:127.0.0.1"]
            .into_iter()
            .map(|address| counts.admit(ip(address)))
            .collect();
        assert!(open.iter().all(Option::is_some));
    }

    #[test]
    fn closed_connections_leave_no_entry() {
        let counts = AddressCounts::new(4);
        let open: Vec<_> = (0..4).map(|_| counts.admit(ip("198.51.100.1"))).collect();
        assert_eq!(lock(&counts.counts).len(), 1);
        drop(open);
        assert!(lock(&counts.counts).is_empty());
    }
}
