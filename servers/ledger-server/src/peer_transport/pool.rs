//! The links of a node, to all its peers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ledger_node::peers::NodeName;

use super::client::Lane;
use super::connection::Target;
use super::limits::{LINK_IDLE_MAX, LINKS_MAX};
use super::link::Link;
use super::{PeerLimits, Security};

/// What a link leads to. Two names that are expected at one address are two links: what one has proved, the other has
/// not.
#[derive(Debug)]
pub(super) struct LinkKey {
    pub target: Target,
    pub lane: Lane,
}

type Known = (String, Option<NodeName>, Lane);

/// Links by what they lead to, made on first use.
pub(super) struct Pool {
    security: Security,
    limits: Arc<PeerLimits>,
    links: Mutex<HashMap<Known, Arc<Link>>>,
}

impl Pool {
    /// An empty pool, and a task on this runtime that closes what nobody uses.
    pub fn new(security: Security, limits: PeerLimits) -> Arc<Self> {
        let pool = Arc::new(Self { security, limits: Arc::new(limits), links: Mutex::default() });
        tokio::spawn(close_idle(Arc::downgrade(&pool)));
        pool
    }

    /// The link, used now.
    pub fn link(&self, key: LinkKey) -> Arc<Link> {
        let LinkKey { target, lane } = key;
        let mut links = self.lock();
        let is_full = links.len() >= LINKS_MAX;
        let link = match links.entry((target.address.clone(), target.expect.clone(), lane)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let link = Link::new(target, self.security.clone(), Arc::clone(&self.limits));
                Arc::clone(entry.insert(Arc::new(link)))
            }
        };
        link.touch();
        if is_full {
            forget_oldest(&mut links);
        }
        link
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Known, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls under way keep their link until they end.
fn forget_oldest(links: &mut HashMap<Known, Arc<Link>>) {
    while links.len() > LINKS_MAX {
        let oldest = links.iter().min_by_key(|(_, link)| link.used_at()).map(|(known, _)| known.clone());
        let Some(oldest) = oldest else { return };
        links.remove(&oldest);
    }
}

async fn close_idle(pool: Weak<Pool>) {
    let mut interval = tokio::time::interval(LINK_IDLE_MAX / 2);
    loop {
        interval.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        pool.lock().retain(|_, link| link.used_at().elapsed() < LINK_IDLE_MAX || Arc::strong_count(link) > 1);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("links", &self.lock().len()).finish_non_exhaustive()
    }
}
