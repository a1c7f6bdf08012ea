//! When writes succeeded: the gaps between them are what an outage is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The moments at which writes were acknowledged. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<Vec<Instant>>>);

impl Pulse {
    /// A write was acknowledged.
    pub fn beat(&self) {
        self.beats().push(Instant::now());
    }

    /// How many were.
    pub fn count(&self) -> usize {
        self.beats().len()
    }

    /// When the last one was.
    pub fn last(&self) -> Option<Instant> {
        self.beats().last().copied()
    }

    /// The longest time without one that overlaps the time from `from` to now; `None` when there was none since.
    pub fn longest_gap_since(&self, from: Instant) -> Option<Duration> {
        let beats = self.beats();
        let first = beats.partition_point(|beat| *beat < from);
        beats[first.saturating_sub(1)..].windows(2).map(|pair| pair[1] - pair[0]).max()
    }

    /// Nothing panics while it holds this lock, so a poisoned one guards no broken record.
    fn beats(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_last_success_before_the_moment_that_is_asked_about() {
        let pulse = Pulse::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        *pulse.beats() = [0, 500, 600, 1_600, 1_700].map(at).to_vec();
        assert_eq!(pulse.longest_gap_since(at(650)), Some(Duration::from_millis(1_000)));
        assert_eq!(pulse.longest_gap_since(at(100)), Some(Duration::from_millis(1_000)));
        assert_eq!(pulse.longest_gap_since(at(1_650)), Some(Duration::from_millis(100)));
        assert_eq!(pulse.longest_gap_since(at(1_800)), None);
    }
}
