//! How a node becomes part of exactly one cluster.
//!
//! A node that is told to **join** asks the nodes that it discovers until the leader of their cluster takes it in. Nodes
//! that are told to **form** a cluster of N look around until each of exactly N nodes sees the same N and nobody else.
//! The one with the lowest id then coordinates: it mints a cluster id and asks every other one to *promise* itself to it.
//! With all promises it founds the cluster; the others learn that, with the ledger's key, when they ask.
//!
//! Why there are never two clusters, whatever is lost, repeated, cut off or restarted:
//!
//! - A node is promised to one cluster at a time. The promise is durable before it is given, and a cluster is founded
//!   only with the promises of all its members: two clusters that share a node cannot both be founded.
//! - Only the coordinator can release a promise, and only of a cluster that it has not founded: its own promise, stored
//!   before it asks anyone, is what it has not given up. Once given up, a cluster id is never used again, so the answer
//!   "it will never exist" stays true however late it arrives.
//! - Nobody promises while an address that it was given is silent, or while it sees more than N nodes, or a cluster that
//!   exists already: so two halves of a list that is longer than N, cut off from each other, form nothing. Two clusters
//!   that share no node need lists that have nothing to do with each other.
//!
//! The price is the one of every atomic commitment: when the coordinator is lost for good between the promises and
//! telling anyone the outcome, the others end with an error that names it, and an operator decides.
//!
//! `machine` decides, without a clock or a socket; `driver` runs it over a transport; `standing_word` answers for a
//! member what its directory remembers, for as long as it runs.

mod driver;
mod errors;
mod events;
mod forced;
mod front;
mod living_members;
mod machine;
mod outlook;
mod restored;
#[cfg(test)]
mod schedules;
mod standing_word;
mod stored_members;

pub use driver::{Bootstrapping, Forming, FormingSettings, PeerDiscovery};
pub use errors::{FormingError, SilentPeer, Waiting};
pub use events::Goal;
pub use forced::{
    ForceError, ForcedCluster, UndecidedTail, check_force, check_not_interrupted, force_new_cluster,
};
pub use front::PeerFront;
pub use living_members::{LivingMember, living_members};
pub use restored::{PeersWord, PresentKey, Returning};
pub use stored_members::{StoredMembersError, stored_members};
