//! How far the clocks of peers are from this node's.
//!
//! The leader's clock is the ledger's time, and time never goes back: a leader whose clock is far ahead of a quorum's
//! would take every later leader along. So it refuses to propose.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::ordered_watch;

/// How far a leader's clock may be ahead of a quorum's.
pub(crate) const CLOCK_AHEAD_MAX_MS: i64 = 10_000;

/// What followers' clocks said in their latest answers.
pub(crate) struct PeerClocks {
    clock: Arc<dyn Clock>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    answers: ordered_watch::Sender<()>,
}

/// A peer's clock, and when it was heard of: by a clock that nobody sets, so that this node's own jump shows at once and not
/// only with the next answer.
#[derive(Debug, Clone, Copy)]
struct Heard {
    clock_ms: u64,
    at: Instant,
    /// How far it was ahead of this node's.
    ahead_ms: i64,
}

impl Heard {
    /// Where that clock stands now, as far as can be known.
    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.clock_ms.saturating_add(since)
    }
}

impl fmt::Debug for PeerClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerClocks").field(&*self.lock()).finish()
    }
}

impl PeerClocks {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, heard: Mutex::default(), answers: ordered_watch::Sender::new(()) }
    }

    /// A peer answered that its clock stands at `clock_ms`.
    pub fn observe(&self, node_id: u64, clock_ms: u64) {
        let ahead_ms = difference(clock_ms, self.clock.now_ms());
        self.lock().insert(node_id, Heard { clock_ms, at: Instant::now(), ahead_ms });
        self.answers.replace(());
    }

    /// Tells of each answer.
    pub fn answers(&self) -> ordered_watch::Receiver<()> {
        self.answers.subscribe()
    }

    /// How far a time of this node is ahead of the clocks of a quorum of `voters`, its own among them: there is a quorum none
    /// of which is further behind. 0 when it is not ahead; `None` while fewer than a quorum are known.
    pub fn ahead_of_quorum_ms(&self, now_ms: u64, this: u64, voters: &BTreeSet<u64>) -> Option<i64> {
        let heard = self.lock();
        let ahead = |voter: &u64| match heard.get(voter) {
            _ if *voter == this => Some(0),
            known => known.map(|theirs| difference(now_ms, theirs.now_ms())),
        };
        let mut ahead: Vec<i64> = voters.iter().filter_map(ahead).collect();
        ahead.sort_unstable();
        let quorum = voters.len() / 2 + 1;
        ahead.get(quorum - 1).map(|ahead| (*ahead).max(0))
    }

    /// How far a peer's clock was ahead of this node's when it answered; `None` = it has not answered.
    pub fn ahead_ms(&self, node_id: u64) -> Option<i64> {
        self.lock().get(&node_id).map(|heard| heard.ahead_ms)
    }

    /// Forgets those who are no members any more.
    pub fn retain(&self, is_member: impl Fn(u64) -> bool) {
        self.lock().retain(|node_id, _| is_member(*node_id));
    }

    /// Nothing panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn voters(count: u64) -> BTreeSet<u64> {
        (1..=count).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_right_when_a_quorum_with_it_is_not_far_behind() {
        let clocks = PeerClocks::new(Arc::new(ManualClock::new(100_000)));
        let ahead = |count| clocks.ahead_of_quorum_ms(100_000, 1, &voters(count));
        assert_eq!(ahead(1), Some(0), "alone it is the quorum");
        assert_eq!((ahead(2), ahead(3)), (None, None), "nobody has answered");
        clocks.observe(2, 40_000);
        assert_eq!(ahead(2), Some(60_000), "of two, both are the quorum");
        assert_eq!(ahead(3), Some(60_000), "the third, which is silent, does not speak for it");
        assert_eq!(ahead(4), None, "two are no quorum of four");
        clocks.observe(3, 70_000);
        assert_eq!(ahead(3), Some(30_000), "the nearer one makes the quorum");
        assert_eq!(ahead(4), Some(60_000));
        clocks.observe(3, 200_000);
        assert_eq!(ahead(3), Some(0), "its clock is between the others");
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_own_clock_shows_before_the_next_answer() {
        let clocks = PeerClocks::new(Arc::new(ManualClock::new(100_000)));
        clocks.observe(2, 100_000);
        clocks.observe(3, 100_000);
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        let ahead = |now_ms| clocks.ahead_of_quorum_ms(now_ms, 1, &voters(3));
        assert_eq!(ahead(105_000), Some(0), "all clocks went on");
        assert_eq!(ahead(165_000), Some(60_000));
        assert_eq!(clocks.ahead_ms(2), Some(0), "as it was heard");
    }
}
