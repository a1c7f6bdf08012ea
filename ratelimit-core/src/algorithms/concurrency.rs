//! Permits that are held, and given back or forgotten.

use std::time::Duration;

use super::Words;
use crate::decision::{Decision, Outcome, Turns};
use crate::limit::LimitError;
use crate::ticks::{CellClock, Nanos};

/// The most permits of one key: each is kept with its holder.
pub const PERMITS_MAX: u64 = 1_024;

/// At most `permits` requests at the same time; each holds its permits under an id that is never used again, for at most
/// `expiry`.
///
/// # Guarantees
///
/// - At every instant at most `permits` are held.
/// - Releasing twice, or after the expiry, does nothing: it cannot free what another request holds.
/// - A holder that is gone costs its permits until they expire, not longer.
///
/// State: for each permit its holder's id and the nanosecond at which it expires; 0 is free. There may be room for more than
/// `permits`: what was held before the number was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    permits: u64,
    expiry_ns: u64,
}

/// Words per permit: the holder, and the expiry.
const PERMIT_WORDS: usize = 2;

impl Concurrency {
    pub(crate) fn new(permits: u64, expiry: Duration) -> Result<Self, LimitError> {
        let expiry_ns = crate::limit::period_ns(expiry)?;
        match permits {
            0 => Err(LimitError::ZeroCount),
            1..=PERMITS_MAX => Ok(Self { permits, expiry_ns }),
            _ => Err(LimitError::TooManyPermits { permits, permits_max: PERMITS_MAX }),
        }
    }

    /// How many may be held at the same time.
    pub fn permits(&self) -> u64 {
        self.permits
    }

    /// How long a permit that is not renewed is held.
    pub fn expiry(&self) -> Duration {
        Duration::from_nanos(self.expiry_ns)
    }

    pub(crate) fn words(&self) -> usize {
        self.permits as usize * PERMIT_WORDS
    }

    fn expires(permits: &dyn Words, index: usize) -> u64 {
        permits.word(index * PERMIT_WORDS + 1)
    }

    /// All that there is room for.
    fn indices(permits: &dyn Words) -> std::ops::Range<usize> {
        0..permits.count() / PERMIT_WORDS
    }

    /// Whether `cost` permits are free. When they are, [`charge`](Self::charge) takes them.
    pub(crate) fn decide(&self, permits: &dyn Words, now: Nanos, cost: u64) -> Decision {
        let expiries = Self::indices(permits).map(|index| Self::expires(permits, index));
        let (mut held, mut first, mut last) = (0_u64, u64::MAX, 0);
        for expires in expiries.clone().filter(|expires| *expires > now.0) {
            (held, first, last) = (held + 1, expires.min(first), expires.max(last));
        }
        let free = self.permits.saturating_sub(held);
        let outcome = match cost {
            _ if cost <= free => Outcome::Allowed,
            _ if cost > self.permits => Outcome::NeverFits,
            _ => Outcome::Denied,
        };
        // More than one may have to expire.
        let mut ends: Vec<u64> = Vec::new();
        if outcome == Outcome::Denied || held > self.permits {
            ends.extend(expiries.filter(|expires| *expires > now.0));
            ends.sort_unstable();
        }
        let end = |surplus: u64| {
            let rank = usize::try_from(surplus.saturating_sub(1)).ok();
            rank.and_then(|rank| ends.get(rank)).copied().unwrap_or(first)
        };
        let retry_at = end(held.saturating_add(cost).saturating_sub(self.permits));
        let charged = if outcome == Outcome::Allowed { cost } else { 0 };
        let own = if charged > 0 { now.0.saturating_add(self.expiry_ns) } else { 0 };
        let more_at = if held > 0 { end(held.saturating_add(1).saturating_sub(self.permits)) } else { own };
        let turns = Turns { clock: CellClock::NANOSECONDS, retry_at, more_at, full_at: own.max(last) };
        Decision::new(outcome, self.permits, free.saturating_sub(charged), now, turns)
    }

    /// What is held at `now`: holders, and when each permit of theirs expires.
    pub(crate) fn held(&self, permits: &dyn Words, now: Nanos) -> Vec<(u64, u64)> {
        let all = Self::indices(permits)
            .map(|index| (permits.word(index * PERMIT_WORDS), Self::expires(permits, index)));
        all.filter(|(_, expires)| *expires > now.0).collect()
    }

    /// Enters of permits that are held as many as are missing for so many to be held: those that expire last.
    pub(crate) fn absorb(&self, permits: &mut dyn Words, mut held: Vec<(u64, u64)>, now: Nanos) {
        let missing = held.len().saturating_sub(self.held(permits, now).len());
        held.sort_unstable_by_key(|(_, expires)| std::cmp::Reverse(*expires));
        let mut missing = held.into_iter().take(missing);
        for index in Self::indices(permits) {
            if Self::expires(permits, index) <= now.0
                && let Some((id, expires)) = missing.next()
            {
                permits.replace(index * PERMIT_WORDS, id);
                permits.replace(index * PERMIT_WORDS + 1, expires);
            }
        }
    }

    /// Takes `cost` permits that are free for `id`. Returns when they expire.
    pub(crate) fn charge(&self, permits: &mut dyn Words, now: Nanos, cost: u64, id: u64) -> u64 {
        let (expires, mut wanted) = (now.0.saturating_add(self.expiry_ns), cost);
        for index in Self::indices(permits) {
            if wanted > 0 && Self::expires(permits, index) <= now.0 {
                permits.replace(index * PERMIT_WORDS, id);
                permits.replace(index * PERMIT_WORDS + 1, expires);
                wanted -= 1;
            }
        }
        expires
    }

    /// Gives back what `id` still holds. Returns how many permits that were.
    pub(crate) fn release(&self, permits: &mut dyn Words, now: Nanos, id: u64) -> u64 {
        self.each_held(permits, now, id, 0)
    }

    /// Holds what `id` still holds for a whole expiry from now. Returns how many permits that are.
    pub(crate) fn renew(&self, permits: &mut dyn Words, now: Nanos, id: u64) -> u64 {
        self.each_held(permits, now, id, now.0.saturating_add(self.expiry_ns))
    }

    fn each_held(&self, permits: &mut dyn Words, now: Nanos, id: u64, expires: u64) -> u64 {
        let mut held = 0;
        for index in Self::indices(permits) {
            if permits.word(index * PERMIT_WORDS) == id && Self::expires(permits, index) > now.0 {
                permits.replace(index * PERMIT_WORDS + 1, expires);
                held += 1;
            }
        }
        held
    }
}
