//! How far the clocks of peers are from this node's.
//!
//! The leader's clock is the ledger's time, and time never goes back: a leader whose clock is far ahead of a quorum's
//! would take every later leader along. So it refuses to propose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;

/// How far a leader's clock may be ahead of a quorum's.
pub(crate) const CLOCK_AHEAD_MAX_MS: i64 = 10_000;

/// What followers' clocks said in their latest answers, as differences from this node's clock.
pub(crate) struct PeerClocks {
    clock: Arc<dyn Clock>,
    ahead_ms: Mutex<BTreeMap<u64, i64>>,
}

impl fmt::Debug for PeerClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerClocks").field(&*self.lock()).finish()
    }
}

impl PeerClocks {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ahead_ms: Mutex::new(BTreeMap::new()) }
    }

    /// A peer answered that its clock stands at `clock_ms`.
    pub fn observe(&self, node_id: u64, clock_ms: u64) {
        let ahead_ms = difference(clock_ms, self.clock.now_ms());
        self.lock().insert(node_id, ahead_ms);
    }

    /// How far this node's clock is ahead of the clocks of a quorum of `voters`, itself among them; 0 when it is not,
    /// or while too few have answered.
    pub fn ahead_of_quorum_ms(&self, this: u64, voters: impl IntoIterator<Item = u64>) -> i64 {
        let known = self.lock();
        // How far this node is ahead of each voter; an unknown one does not speak against it.
        let mut ahead: Vec<i64> = voters
            .into_iter()
            .map(|voter| if voter == this { 0 } else { known.get(&voter).map_or(0, |theirs| -theirs) })
            .collect();
        ahead.sort_unstable();
        // With a quorum of them it is ahead by at least this much.
        let quorum = ahead.len() / 2 + 1;
        ahead.len().checked_sub(quorum).and_then(|index| ahead.get(index)).copied().unwrap_or(0).max(0)
    }

    /// How far a peer's clock is ahead of this node's; `None` = it has not answered.
    pub fn ahead_ms(&self, node_id: u64) -> Option<i64> {
        self.lock().get(&node_id).copied()
    }

    /// Forgets those who are no members any more.
    pub fn retain(&self, is_member: impl Fn(u64) -> bool) {
        self.lock().retain(|node_id, _| is_member(*node_id));
    }

    /// Nothing panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, i64>> {
        self.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn difference(theirs_ms: u64, ours_ms: u64) -> i64 {
    let magnitude = i64::try_from(theirs_ms.abs_diff(ours_ms)).unwrap_or(i64::MAX);
    if theirs_ms >= ours_ms { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_clock_is_ahead_of_a_quorum_only_when_more_than_half_of_the_voters_say_so() {
        let clocks = PeerClocks::new(Arc::new(ManualClock::new(100_000)));
        let ahead = |clocks: &PeerClocks| clocks.ahead_of_quorum_ms(1, [1, 2, 3]);
        assert_eq!(ahead(&clocks), 0, "nobody has answered");
        clocks.observe(2, 40_000);
        assert_eq!(ahead(&clocks), 0, "one of three is behind");
        clocks.observe(3, 70_000);
        assert_eq!(ahead(&clocks), 30_000, "two of three are behind by at least that");
        clocks.observe(3, 200_000);
        assert_eq!(ahead(&clocks), 0, "this node's clock is between the others");
    }
}
