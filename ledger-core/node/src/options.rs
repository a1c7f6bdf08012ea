//! How a node works: limits, intervals, and the clock.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::cluster::{ClusterOptions, VOTERS_MAX};
use crate::peers::MemberRecord;
use crate::worker::Threads;

/// How a new ledger comes into being.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bootstrap {
    /// This node is the only voter.
    Single,
    /// These nodes are the voters, this one among them. One of them makes the cluster so; the same list given to
    /// several of them makes the same cluster.
    Members(Vec<MemberRecord>),
    /// The node waits until the leader of its cluster sends it everything.
    Joined,
}

/// How a node works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most transactions in one log entry. Default 4,096: more gain nothing, an `fsync` is paid by then.
    pub batch_size: usize,
    /// How long a batch waits to fill. Default 0: take all that is queued, at once.
    pub batch_delay: Duration,
    /// Most transactions that wait to be proposed. Default 16,384; more are refused with a retry time.
    pub queue_transactions_max: usize,
    /// Most bytes of transactions that wait to be proposed. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// How often applied state is written to the state store. Default 5 s: as much is replayed after a crash.
    pub flush_interval: Duration,
    /// Applied but unwritten bytes that start a flush early. Default 64 MiB.
    pub flush_bytes: usize,
    /// Applied but unwritten bytes at which applying waits for the flush. Default 256 MiB.
    pub overlay_bytes_max: usize,
    /// How often expired entities are looked for, at most 60 s. Default 60 s.
    pub gc_interval: Duration,
    /// How often a snapshot is written, when anything changed; zero = only on demand. Default 1 h.
    pub snapshot_every: Duration,
    /// Newest snapshots that are kept. Default 3.
    pub snapshot_keep: usize,
    /// How a new ledger comes into being.
    pub bootstrap: Bootstrap,
    /// What makes this node a member of a cluster. `None` = the ledger runs alone, without a way to peers.
    pub cluster: Option<ClusterOptions>,
    /// Where the node's workers run. Default: on threads of their own.
    pub threads: Threads,
    /// The clock. Default: the operating system's.
    pub clock: Arc<dyn Clock>,
}

/// Longest interval between two searches for expired entities.
pub const GC_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Longest time that a batch may wait to fill.
pub const BATCH_DELAY_MAX: Duration = Duration::from_secs(1);
/// Longest interval between two automatic snapshots: 30 days.
pub const SNAPSHOT_EVERY_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A queue has room for at least one transaction of the largest size with its framing.
pub const QUEUE_BYTES_MIN: usize = 5 * 1_048_576;

/// A setting that a node cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// A limit is too low.
    #[error("{name} is {given}; it must be at least {min}")]
    TooLow {
        /// The field.
        name: &'static str,
        /// Its value.
        given: usize,
        /// The least that works.
        min: usize,
    },
    /// A limit is too high.
    #[error("{name} is {given}; it must be at most {max}")]
    TooHigh {
        /// The field.
        name: &'static str,
        /// Its value.
        given: usize,
        /// The most that works.
        max: usize,
    },
    /// Several members, but no way to them.
    #[error("a ledger of several members needs a way to its peers: set `cluster`")]
    NoWayToPeers,
    /// An interval is outside its range.
    #[error("{name} is {given:?}; it must be from {min:?} to {max:?}")]
    Interval {
        /// The field.
        name: &'static str,
        /// Its value.
        given: Duration,
        /// The shortest that works.
        min: Duration,
        /// The longest that works.
        max: Duration,
    },
}

impl ClusterOptions {
    fn validate(&self) -> Result<(), OptionsError> {
        at_least("voters_max", self.voters_max, 1)?;
        if self.voters_max > VOTERS_MAX {
            let (name, given, max) = ("voters_max", self.voters_max, VOTERS_MAX);
            return Err(OptionsError::TooHigh { name, given, max });
        }
        let hour = Duration::from_secs(3_600);
        let timing = &self.timing;
        within("heartbeat", timing.heartbeat, Duration::from_millis(10), hour)?;
        within("election_min", timing.election_min, timing.heartbeat * 2, hour)?;
        within("election_max", timing.election_max, timing.election_min + Duration::from_millis(1), hour)?;
        within("quorum_loss_silence", timing.quorum_loss_silence, timing.election_max * 2, hour)?;
        if let Some(silent_after) = self.silent_after {
            within("silent_after", silent_after, timing.election_max * 2, hour)?;
        }
        match self.lease_reads {
            Some(lease) => {
                within("clock_drift_max", lease.clock_drift_max, Duration::ZERO, timing.election_max)
            }
            None => Ok(()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_size: 4_096,
            batch_delay: Duration::ZERO,
            queue_transactions_max: 16_384,
            queue_bytes_max: 64 * 1_048_576,
            flush_interval: Duration::from_secs(5),
            flush_bytes: 64 * 1_048_576,
            overlay_bytes_max: 256 * 1_048_576,
            gc_interval: GC_INTERVAL_MAX,
            snapshot_every: Duration::from_secs(3_600),
            snapshot_keep: 3,
            bootstrap: Bootstrap::Single,
            cluster: None,
            threads: Threads::Own,
            clock: Arc::new(SystemClock),
        }
    }
}

impl Options {
    /// Checks every field.
    pub fn validate(&self) -> Result<(), OptionsError> {
        at_least("batch_size", self.batch_size, 1)?;
        at_least("queue_transactions_max", self.queue_transactions_max, 1)?;
        at_least("queue_bytes_max", self.queue_bytes_max, QUEUE_BYTES_MIN)?;
        at_least("flush_bytes", self.flush_bytes, 1)?;
        at_least("overlay_bytes_max", self.overlay_bytes_max, self.flush_bytes)?;
        let millisecond = Duration::from_millis(1);
        within("batch_delay", self.batch_delay, Duration::ZERO, BATCH_DELAY_MAX)?;
        within("flush_interval", self.flush_interval, millisecond, Duration::from_secs(3_600))?;
        within("gc_interval", self.gc_interval, millisecond, GC_INTERVAL_MAX)?;
        at_least("snapshot_keep", self.snapshot_keep, 1)?;
        within("snapshot_every", self.snapshot_every, Duration::ZERO, SNAPSHOT_EVERY_MAX)?;
        match &self.cluster {
            Some(cluster) => cluster.validate(),
            None if self.bootstrap == Bootstrap::Single => Ok(()),
            None => Err(OptionsError::NoWayToPeers),
        }
    }
}

fn at_least(name: &'static str, given: usize, min: usize) -> Result<(), OptionsError> {
    if given >= min { Ok(()) } else { Err(OptionsError::TooLow { name, given, min }) }
}

fn within(name: &'static str, given: Duration, min: Duration, max: Duration) -> Result<(), OptionsError> {
    if (min..=max).contains(&given) { Ok(()) } else { Err(OptionsError::Interval { name, given, min, max }) }
}
