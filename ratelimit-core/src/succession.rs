//! A limit that takes over the keys of another while both are in use.
//!
//! Ticks differ from limit to limit, so each has a table of its own. A key moves when the first request about it reaches the
//! successor: its state is taken, with which nobody can charge it in the old table any more, and converted, as it was when
//! the limit changed. What the sketch of the old table knows is not a key's own and stays; it is converted with each
//! request, which may deny early. A key for which the successor has no room is denied, and stays where it is.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use crate::change::{self, Keep, Usage};
use crate::decision::{Decision, Outcome};
use crate::keyed::{KeyedLimit, Pending};
use crate::limit::Limit;
use crate::table::{TableError, TableSize};
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
    /// When the limit changed; if nobody said so, the first request that asks.
    since: OnceLock<Nanos>,
}

/// A limiter cannot be succeeded so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotSucceed {
    /// Its table cannot be had.
    #[error(transparent)]
    Table(#[from] TableError),
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
        old.next_generation()?;
        let new = Arc::new(Self::heir_of(Some(old), limit, size)?);
        Self::hand_over(old, &new, keep, None)?;
        Ok(new)
    }

    /// Makes `new` the successor of `old`, of which it is the heir. When it fails nothing has changed.
    pub(crate) fn hand_over(
        old: &Arc<Self>,
        new: &Arc<Self>,
        keep: Keep,
        since: Option<Nanos>,
    ) -> Result<(), CannotSucceed> {
        let generations = old.next_generation()?;
        old.succession().after.set(Arc::downgrade(new)).map_err(|_| CannotSucceed::HasSuccessor)?;
        if old.limit().counts() && new.limit().counts() {
            let since = since.map_or_else(OnceLock::new, OnceLock::from);
            let before = Before { keyed: old.clone(), keep, generations, since };
            *new.succession().before.write().unwrap_or_else(PoisonError::into_inner) = Some(before);
            new.succession().state.fetch_or(INHERITS, Ordering::AcqRel);
        }
        // Only now: whoever finds the table sealed finds the successor.
        old.succession().state.fetch_or(SUCCEEDED, Ordering::AcqRel);
        old.table().seal();
        Ok(())
    }

    /// How many will be one behind the other when a successor comes, unless there cannot be one.
    pub(crate) fn next_generation(&self) -> Result<u32, CannotSucceed> {
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

    /// Lets go of earlier limits that had no live keys when they were changed. Reads their whole tables.
    pub(crate) fn forget_barren(&self, now: Nanos) {
        let before = self.succession().before.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Before { keyed: old, since, .. }) = &*before else { return };
        let (old, since) = (old.clone(), since.get().copied().unwrap_or(now));
        drop(before);
        old.forget_barren(since);
        if old.succession().state.load(Ordering::Acquire) & INHERITS == 0
            && old.table().overflowed() == 0
            && old.live_keys(since) == 0
        {
            self.succession().forget();
        }
    }

    /// Takes over the key, if there is anyone to take it over from. `false` when there is no room for it: then it is denied, even
    /// if there should be room a moment later, because it would begin anew.
    #[must_use]
    pub(crate) fn inherit(&self, tag: u64, now: Nanos) -> bool {
        self.succession().state.load(Ordering::Acquire) & INHERITS == 0 || self.inherit_slowly(tag, now)
    }

    #[cold]
    fn inherit_slowly(&self, tag: u64, now: Nanos) -> bool {
        let _stripe = self.table().lock_stripe(self.table().stripe(tag));
        if self.table().is_sealed() {
            return true; // its successor takes the key from both
        }
        if !self.limit().counts() {
            return true;
        }
        let pending = self.hold(tag, now);
        if !pending.has_room() {
            pending.refuse();
            return false;
        }
        let usage = match (&pending, self.condensed(), self.inherited(tag, now)) {
            (Pending::Compact { .. }, Some(condensed), Usage::Log(ends)) => {
                let end = ends.iter().copied().max().unwrap_or(0);
                Usage::Word(condensed.packed(end, ends.len() as u64))
            }
            (_, _, usage) => usage,
        };
        pending.absorb(usage);
        true
    }

    /// Takes the key from whoever was before: what it has used of this limit. The caller holds the key's stripe here; those of
    /// earlier limits are taken in the order of succession.
    fn inherited(&self, tag: u64, now: Nanos) -> Usage {
        let before = self.succession().before.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Before { keyed: old, keep, since, .. }) = &*before else { return Usage::Nothing };
        let since = *since.get_or_init(|| now);
        // By then whatever was carried is dead.
        if now > since.after(self.memory()) {
            drop(before);
            self.succession().forget();
            return Usage::Nothing;
        }
        change::carried(old.limit(), old.surrendered(tag, since), self.limit(), *keep, since)
    }

    /// Gives the key up to the successor, together with what it would have inherited itself.
    fn surrendered(&self, tag: u64, now: Nanos) -> Usage {
        let _stripe = self.table().lock_stripe(self.table().stripe(tag));
        let inherited = self.inherited(tag, now);
        self.taken(tag, now).merged(inherited, self.limit())
    }
}
