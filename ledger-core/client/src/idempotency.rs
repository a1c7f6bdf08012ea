//! Idempotency keys stamped with the ledger's time.

use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ledger_core::transaction::IdempotencyKey;

use crate::error::ClientError;

/// What the client knows of the ledger's time: the last reply's, and when that came.
#[derive(Default)]
pub(crate) struct LedgerClock {
    last: Mutex<Option<(u64, Instant)>>,
}

impl LedgerClock {
    /// Takes the time of a reply; it never goes back.
    pub(crate) fn learn(&self, log_time_ms: u64) {
        if log_time_ms == 0 {
            return;
        }
        let mut last = self.lock();
        if last.is_none_or(|(known_ms, _)| log_time_ms > known_ms) {
            *last = Some((log_time_ms, Instant::now()));
        }
    }

    /// Replaces what was learned, also by something earlier: the ledger itself refused the old stamp.
    pub(crate) fn correct(&self, log_time_ms: u64) {
        *self.lock() = Some((log_time_ms, Instant::now()));
    }

    /// The ledger's time now, by the last reply and the time since; `None` before the first reply.
    pub(crate) fn now_ms(&self) -> Option<u64> {
        let (known_ms, at) = (*self.lock())?;
        let elapsed_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(known_ms.saturating_add(elapsed_ms))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, Instant)>> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A new key with this time.
pub(crate) fn mint(unix_ms: u64) -> Result<IdempotencyKey, ClientError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| ClientError::Randomness(error.to_string()))?;
    Ok(IdempotencyKey::from_parts(unix_ms, random))
}

/// This machine's clock, unix milliseconds.
pub(crate) fn wall_clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_replies_and_never_goes_back_by_itself() {
        let clock = LedgerClock::default();
        assert_eq!(clock.now_ms(), None);
        clock.learn(1_000_000);
        clock.learn(500);
        assert!(clock.now_ms().is_some_and(|now| (1_000_000..1_010_000).contains(&now)));
        clock.correct(500);
        assert!(clock.now_ms().is_some_and(|now| (500..10_500).contains(&now)));
    }

    #[test]
    fn minted_keys_carry_the_time_and_differ() {
        let (a, b) = (mint(1_234_567).ok(), mint(1_234_567).ok());
        assert_eq!(a.map(|key| key.unix_ms()), Some(1_234_567));
        assert_ne!(a, b);
    }
}
