//! A limit that takes over the keys of another while both are in use.
//!
//! Ticks differ from limit to limit, so each has a table of its own. A key moves when the first request about it reaches the
//! successor: its state is taken, with which nobody can charge it in the old table any more, and converted. What the sketch
//! of the old table knows is not a key's own and stays; it is converted with each request, which may deny early.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::change::{self, Keep};
use crate::decision::{Decision, Outcome};
use crate::keyed::KeyedLimit;
use crate::limit::Limit;
use crate::table::TableSize;
use crate::ticks::Nanos;

/// Limits whose keys may wait to be taken over, one behind the other.
pub const GENERATIONS_MAX: u32 = 32;

/// There is somebody before.
const INHERITS: u8 = 1;
/// There is somebody after.
const SUCCEEDED: u8 = 2;

/// Who was before, and who comes after.
#[derive(Default)]
pub(crate) struct Succession {
    /// [`INHERITS`] and [`SUCCEEDED`]. Read with every request, so it is not behind the lock.
    state: AtomicU8,
    before: RwLock<Option<Before>>,
    after: OnceLock<Weak<KeyedLimit>>,
}

struct Before {
    keyed: Arc<KeyedLimit>,
    keep: Keep,
    /// How many are one behind the other, this one included.
    generations: u32,
    /// When its last key is dead, counted from the first request that asks.
    over_at: OnceLock<Nanos>,
}

/// A limiter cannot be succeeded so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotSucceed {
    /// The states of one of the limits have more than one word.
    #[error("the keys of a log or of permits cannot be taken over: make a new limiter")]
    LongState,
    /// Too many limits wait for their keys to be taken over.
    #[error(
        "{generations_max} earlier limits still have live keys: change limits less often, or make a new limiter"
    )]
    TooManyGenerations {
        /// The most.
        generations_max: u32,
    },
    /// There is one already.
    #[error("this limiter has a successor: ask that one")]
    HasSuccessor,
}

impl Succession {
    /// Whether there is nobody before or after.
    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        self.state.load(Ordering::Acquire) == 0
    }

    /// Whether requests are the successor's to answer.
    pub(crate) fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) & SUCCEEDED != 0
    }

    /// The successor. When it is gone too, nobody keeps the keys.
    pub(crate) fn successor(&self) -> Option<Arc<KeyedLimit>> {
        self.after.get().and_then(Weak::upgrade)
    }

    /// The answer of the successor; nothing is admitted without one.
    pub(crate) fn check(&self, tag: u64, cost: u64, now: Nanos) -> Decision {
        match self.successor() {
            Some(after) => after.check(tag, cost, now),
            None => Decision::timeless(Outcome::NeverFits, 0, now),
        }
    }

    /// Lets go of who was before.
    fn forget(&self) {
        self.state.fetch_and(!INHERITS, Ordering::AcqRel);
        *self.before.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl KeyedLimit {
    /// A limit that takes over the keys of `old`.
    pub(crate) fn succeed(
        old: &Arc<Self>,
        limit: Limit,
        keep: Keep,
        size: TableSize,
    ) -> Result<Arc<Self>, CannotSucceed> {
        let generations = old.next_generation(&limit)?;
        let new = Arc::new(Self::new(limit, size));
        old.succession().after.set(Arc::downgrade(&new)).map_err(|_| CannotSucceed::HasSuccessor)?;
        if old.limit().compact().is_some() && new.limit().compact().is_some() {
            let before = Before { keyed: old.clone(), keep, generations, over_at: OnceLock::new() };
            *new.succession().before.write().unwrap_or_else(PoisonError::into_inner) = Some(before);
            new.succession().state.fetch_or(INHERITS, Ordering::AcqRel);
        }
        // Only now: whoever finds the table sealed finds the successor.
        old.succession().state.fetch_or(SUCCEEDED, Ordering::AcqRel);
        old.table().seal();
        Ok(new)
    }

    /// How many will be one behind the other when a successor with `limit` comes, unless there cannot be one.
    pub(crate) fn next_generation(&self, limit: &Limit) -> Result<u32, CannotSucceed> {
        if self.limit().is_long() || limit.is_long() {
            return Err(CannotSucceed::LongState);
        }
        if self.succession().after.get().is_some() {
            return Err(CannotSucceed::HasSuccessor);
        }
        match self.generations().saturating_add(1) {
            ..=GENERATIONS_MAX => Ok(self.generations().saturating_add(1)),
            _ => Err(CannotSucceed::TooManyGenerations { generations_max: GENERATIONS_MAX }),
        }
    }

    /// How many earlier limits wait for their keys to be taken over.
    pub(crate) fn generations(&self) -> u32 {
        let before = self.succession().before.read().unwrap_or_else(PoisonError::into_inner);
        before.as_ref().map_or(0, |before| before.generations)
    }

    /// Lets go of earlier limits that have no live keys. Reads their whole tables.
    pub(crate) fn forget_barren(&self, now: Nanos) {
        let before = self.succession().before.read().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = before.as_ref().map(|before| before.keyed.clone()) else { return };
        drop(before);
        old.forget_barren(now);
        if old.succession().state.load(Ordering::Acquire) & INHERITS == 0
            && old.table().overflowed() == 0
            && old.live_keys(now) == 0
        {
            self.succession().forget();
        }
    }

    /// Takes over the key, if there is anyone to take it over from.
    pub(crate) fn inherit(&self, tag: u64, now: Nanos) {
        if self.succession().state.load(Ordering::Acquire) & INHERITS != 0 {
            self.inherit_slowly(tag, now);
        }
    }

    #[cold]
    fn inherit_slowly(&self, tag: u64, now: Nanos) {
        let Some(algorithm) = self.limit().compact() else { return };
        let _stripe = self.table().lock_stripe(self.table().stripe(tag));
        if self.table().is_sealed() {
            return; // its successor takes the key from both
        }
        let inherited = self.inherited(tag, now);
        if inherited > 0 {
            let at = algorithm.at(now);
            self.table().force_held(algorithm, tag, at, |state| algorithm.merge(state, inherited));
        }
    }

    /// Takes the key from whoever was before; its state in the words of this limit, 0 when there is none. The caller holds
    /// the key's stripe here; those of earlier limits are taken in the order of succession.
    fn inherited(&self, tag: u64, now: Nanos) -> u64 {
        let before = self.succession().before.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Before { keyed: old, keep, over_at, .. }) = &*before else { return 0 };
        if now > *over_at.get_or_init(|| now.after(old.limit().memory())) {
            drop(before);
            self.succession().forget();
            return 0;
        }
        change::carried(old.limit(), old.surrendered(tag, now), self.limit(), *keep, now)
    }

    /// Gives the key up to the successor, together with what it would have inherited itself.
    fn surrendered(&self, tag: u64, now: Nanos) -> u64 {
        let Some(algorithm) = self.limit().compact() else { return 0 };
        let _stripe = self.table().lock_stripe(self.table().stripe(tag));
        let inherited = self.inherited(tag, now);
        algorithm.merge(self.table().take(algorithm, tag, algorithm.at(now)), inherited)
    }
}

impl Limit {
    /// Whether a state has more than one word, so that it cannot be converted.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Self::SlidingLog(_) | Self::Concurrency(_))
    }

    /// How long a key may be live after its last charge.
    fn memory(&self) -> Duration {
        match self {
            Self::Gcra(gcra) => gcra.forgets_after(),
            Self::FixedWindow(window) => window.period(),
            Self::SlidingWindow(window) => window.period().saturating_mul(2),
            Self::Calendar(calendar) => calendar.boundaries().unit_max(),
            _ => Duration::MAX,
        }
    }
}
