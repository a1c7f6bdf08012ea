//! The table in memory: a fixed number of slots, made of atomic words alone.
//!
//! A key has two lines of four slots, chosen by its tag; a line is one cache line. A slot is a tag and a *head*, the
//! state of the key that the tag stands for. 0 is the head of a slot that was never used.
//!
//! # Guarantees
//!
//! - A decision that stores nothing (a denial, a look) writes nothing and waits for nobody. A charge of a key that has a
//!   slot is one compare-and-swap.
//! - A key has at most one slot. Only whoever holds the key's stripe gives it one.
//! - A slot is given away only when its state is dead, so as good as none. A live key never loses its state.
//! - What a slot's head held before it was given away never comes back to it: a charge that was decided on it
//!   fails. It follows from three rules. Charges make a head larger; whoever takes a slot first raises the *floor* to
//!   the dead state found there; a key's first head, and what a refund leaves, are above the floor.
//!   Heads of long states (logs, permits) do come back; they change only under their lock, whose holder looks at the tag
//!   again.
//! - When both lines are full of live keys, the key is counted in the sketch, which can only deny more.
//!
//! Decisions about several keys lock: first the stripes of all keys in ascending order, then the slots. Whoever holds a
//! slot waits for nothing, except within such a decision, where no two wait for each other because of the order.

mod held;
#[cfg(test)]
mod interleavings;
mod size;
mod sketch;
pub(crate) mod word;

use std::sync::atomic::AtomicU64;

pub(crate) use held::Held;
use size::Room;
pub use size::{TableError, TableSize};
use sketch::Sketch;
use word::{Wait, Word};

use crate::algorithms::{At, Compact, Step};

/// Slots of a line; with two words each it fills a cache line.
const LINE_SLOTS: usize = 4;
const LINE_WORDS: usize = LINE_SLOTS * 2;
const LINE_BYTES: usize = 64;

/// Set in a head while its slot changes hands or is part of a decision about several keys.
const LOCK: u64 = 1 << 63;

/// The head of a key whose state a successor has taken. No state is as large.
const MOVED: u64 = LOCK - 1;

/// The most stripes that order who gives slots to keys. Not tied to lines: any number is right.
const STRIPES: usize = 1_024;

/// See the module's documentation.
pub(crate) struct Table<W: Word = AtomicU64> {
    words: Box<[W]>,
    /// Index of the first word that begins a cache line.
    first: usize,
    lines: u64,
    /// `more_words` words for each slot, for states that do not fit one word.
    more: Box<[W]>,
    more_words: usize,
    stripes: Box<[W]>,
    floor: W,
    sketch: Sketch<W>,
    overflowed: W,
    /// 1 once a successor takes the keys: then no key gets a slot here, and none is entered into the sketch.
    sealed: W,
}

/// A slot of a key.
struct Slot<'t, W> {
    tag: &'t W,
    head: &'t W,
    number: usize,
}

impl<W> Clone for Slot<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Slot<'_, W> {}

/// A slot whose tag is the key's, and the state that it held with that tag.
struct Seen<'t, W> {
    slot: Slot<'t, W>,
    state: u64,
}

impl<W: Word> Table<W> {
    /// A table whose slots have `more_words` words beside a tag and a head.
    pub(crate) fn new(size: TableSize, more_words: usize) -> Result<Self, TableError> {
        let room = size.room(more_words)?;
        Self::with(room).ok_or(TableError::NoMemory { bytes: room.bytes })
    }

    /// `None` when the system does not give the memory.
    fn with(room: Room) -> Option<Self> {
        let Room { lines, stripes, more_words, sketch_bytes, .. } = room;
        let slots = usize::try_from(lines).ok()?.checked_mul(LINE_SLOTS)?;
        let words = W::zeroed(slots.checked_mul(2)?.checked_add(LINE_WORDS - 1)?)?;
        let misaligned = words.as_ptr().addr() % LINE_BYTES / size_of::<u64>() % LINE_WORDS;
        Some(Self {
            first: if misaligned == 0 { 0 } else { LINE_WORDS - misaligned },
            words,
            lines,
            more: W::zeroed(slots.checked_mul(more_words)?)?,
            more_words,
            stripes: W::zeroed(stripes)?,
            floor: W::new(0),
            sketch: Sketch::new(sketch_bytes)?,
            overflowed: W::new(0),
            sealed: W::new(0),
        })
    }

    /// Decides about `cost` for the key, and charges it when it is allowed. `None` when a successor has the key.
    #[inline]
    pub(crate) fn charge(
        &self,
        algorithm: &(impl Compact + ?Sized),
        tag: u64,
        at: At,
        cost: u64,
    ) -> Option<Step> {
        if let Some(seen) = self.find(tag) {
            let step = algorithm.decide(seen.state, at, cost);
            match step.next {
                None => return Some(step),
                Some(next) if seen.slot.head.replace(seen.state, next).is_ok() => return Some(step),
                Some(_) => {}
            }
        }
        self.charge_slowly(algorithm, tag, at, cost)
    }

    /// The key has no slot, or somebody was faster.
    #[cold]
    #[inline(never)]
    fn charge_slowly(
        &self,
        algorithm: &(impl Compact + ?Sized),
        tag: u64,
        at: At,
        cost: u64,
    ) -> Option<Step> {
        let decide = |state| {
            let step = algorithm.decide(state, at, cost);
            (step.next, step)
        };
        if let Some(step) = self.update(tag, decide) {
            return Some(step);
        }
        let look = algorithm.decide(self.start(algorithm, tag, at), at, cost);
        if look.next.is_none() && !self.is_sealed() {
            return Some(look);
        }
        let _stripe = self.lock_stripe(self.stripe(tag));
        if self.is_sealed() {
            return None;
        }
        if let Some(step) = self.update(tag, decide) {
            return Some(step);
        }
        let step = algorithm.decide(self.start(algorithm, tag, at), at, cost);
        let Some(next) = step.next else { return Some(step) };
        if self.give(algorithm, tag, at, next) {
            return Some(step);
        }
        Some(algorithm.decide(algorithm.exhausted(at), at, cost))
    }

    /// Gives a key without a slot this state, in a slot or else in the sketch; `false` when there is neither. The caller
    /// holds the key's stripe.
    fn give(&self, algorithm: &(impl Compact + ?Sized), tag: u64, at: At, state: u64) -> bool {
        if let Some(slot) = self.claim(tag, |state| algorithm.is_dead(state, at)) {
            slot.head.store(self.above_floor(state));
            return true;
        }
        self.count_overflow();
        if self.sketch.takes_any() {
            self.sketch.enter(tag, state, algorithm);
        }
        self.sketch.takes_any()
    }

    /// From now on a successor takes the keys.
    pub(crate) fn seal(&self) {
        self.sealed.store(1);
    }

    /// Whether a successor takes the keys.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load() != 0
    }

    /// Takes the state of a key for a successor: afterwards nobody can charge it here. 0 when there is none any more. The
    /// caller holds the key's stripe.
    pub(crate) fn take(&self, algorithm: &(impl Compact + ?Sized), tag: u64, at: At) -> u64 {
        let taken = self.update(tag, |state| (Some(MOVED), state));
        // A key that was taken before has no slot that could be found, and no entry in the sketch since.
        let moved = self.lines_of(tag).any(|slot| slot.tag.load() == tag && slot.head.load() == MOVED);
        taken.unwrap_or_else(|| if moved { 0 } else { self.start(algorithm, tag, at) })
    }

    /// Decides without charging.
    pub(crate) fn look(&self, algorithm: &(impl Compact + ?Sized), tag: u64, at: At, cost: u64) -> Step {
        algorithm.decide(self.state(algorithm, tag, at), at, cost)
    }

    /// The state that a decision about the key begins with.
    pub(crate) fn state(&self, algorithm: &(impl Compact + ?Sized), tag: u64, at: At) -> u64 {
        self.find_settled(tag).map_or_else(|| self.start(algorithm, tag, at), |seen| seen.state)
    }

    /// Replaces the state of a key that has a slot, as often as somebody is faster: `change` gives the new state, `None` to
    /// leave it, and the answer. `None` when the key has no slot.
    fn update<T>(&self, tag: u64, change: impl Fn(u64) -> (Option<u64>, T)) -> Option<T> {
        let mut wait = Wait::default();
        loop {
            let seen = self.find_settled(tag)?;
            let (next, answer) = change(seen.state);
            match next {
                None => return Some(answer),
                Some(next) if seen.slot.head.replace(seen.state, next).is_ok() => return Some(answer),
                Some(_) => wait.pause::<W>(),
            }
        }
    }

    /// Lowers the state of a key to what `lower` makes of it. Does nothing for a key without a slot: what the sketch holds
    /// may be another key's.
    pub(crate) fn lower(&self, tag: u64, lower: impl Fn(u64) -> u64) {
        self.update(tag, |state| {
            let next = self.above_floor(lower(state)).min(state);
            ((next < state).then_some(next), ())
        });
    }

    /// Raises the state of a key to what `raise` makes of it, whatever that admits. The caller holds nothing. `false` when a
    /// successor has the key.
    pub(crate) fn force(
        &self,
        algorithm: &(impl Compact + ?Sized),
        tag: u64,
        at: At,
        raise: impl Fn(u64) -> u64,
    ) -> bool {
        let _stripe = self.lock_stripe(self.stripe(tag));
        if self.is_sealed() {
            return false;
        }
        self.force_held(algorithm, tag, at, raise);
        true
    }

    /// As [`force`](Self::force), when the caller holds the key's stripe and has seen that the table is not sealed. It may be
    /// by now: then the successor waits for the stripe.
    pub(crate) fn force_held(
        &self,
        algorithm: &(impl Compact + ?Sized),
        tag: u64,
        at: At,
        raise: impl Fn(u64) -> u64,
    ) {
        let raised = |state: u64| (Some(raise(state)).filter(|next| *next > state), ());
        if self.update(tag, raised).is_none() {
            let start = self.start(algorithm, tag, at);
            self.give(algorithm, tag, at, raise(start).max(start));
        }
    }

    /// What a key without a slot begins with: what the sketch knows of it.
    pub(crate) fn start(&self, algorithm: &(impl Compact + ?Sized), tag: u64, at: At) -> u64 {
        self.sketch.estimate(tag, algorithm, at)
    }

    /// The first state that a key's slot may have, and the last that a refund may leave: above every dead state that any
    /// slot was taken with. It matters only to threads whose clock is behind; for others the floor is dead itself.
    fn above_floor(&self, state: u64) -> u64 {
        match self.floor.load() {
            0 => state,
            floor => state.max(floor.saturating_add(1)),
        }
    }

    /// Words of each slot beside its tag and head.
    pub(crate) fn more_words(&self) -> usize {
        self.more_words
    }

    /// The slots whose state is not dead. Reads the whole table.
    pub(crate) fn live(&self, is_dead: impl Fn(u64) -> bool) -> u64 {
        let lines = (0..self.lines).flat_map(|line| self.line(line));
        lines.filter(|slot| !is_dead(slot.head.load() & !LOCK)).count() as u64
    }

    /// How often a key was charged for which there was no slot.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load()
    }

    /// Bytes that are reserved for keys, and for the sketch.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (
            size_of_val(&*self.words) + size_of_val(&*self.more) + size_of_val(&*self.stripes),
            self.sketch.bytes(),
        )
    }

    /// Counts a charge for which there was no slot.
    fn count_overflow(&self) {
        let mut count = self.overflowed.load();
        while let Err(now) = self.overflowed.replace(count, count.saturating_add(1)) {
            count = now;
        }
    }

    #[inline]
    fn home(&self, tag: u64) -> u64 {
        ((u128::from(tag) * u128::from(self.lines)) >> 64) as u64
    }

    #[inline]
    fn other(&self, tag: u64) -> u64 {
        ((u128::from(tag.rotate_left(32)) * u128::from(self.lines)) >> 64) as u64
    }

    #[inline]
    fn line(&self, line: u64) -> impl Iterator<Item = Slot<'_, W>> {
        let begin = self.first + line as usize * LINE_WORDS;
        let words = self.words.get(begin..).and_then(<[W]>::first_chunk::<LINE_WORDS>);
        let slots = words.map(|words| words.as_chunks::<2>().0).unwrap_or_default();
        slots.iter().enumerate().map(move |(index, [tag, head])| Slot {
            tag,
            head,
            number: line as usize * LINE_SLOTS + index,
        })
    }

    /// The slots in which the key may be.
    fn lines_of(&self, tag: u64) -> impl Iterator<Item = Slot<'_, W>> {
        [self.home(tag), self.other(tag)].into_iter().flat_map(move |line| self.line(line))
    }

    /// The key's slot, if it has one that is not locked.
    #[inline]
    fn find(&self, tag: u64) -> Option<Seen<'_, W>> {
        for line in [self.home(tag), self.other(tag)] {
            for slot in self.line(line) {
                if slot.tag.load() == tag {
                    let state = slot.head.load();
                    // Neither 0, nor moved, nor locked. And was that still the key's? A slot's tag changes only while its
                    // head is locked.
                    if state.wrapping_sub(1) < MOVED - 1 && slot.tag.load() == tag {
                        return Some(Seen { slot, state });
                    }
                }
            }
        }
        None
    }

    /// The key's slot, once nobody has it locked.
    fn find_settled(&self, tag: u64) -> Option<Seen<'_, W>> {
        let mut wait = Wait::default();
        loop {
            if let Some(seen) = self.find(tag) {
                return Some(seen);
            }
            if !self.lines_of(tag).any(|slot| slot.tag.load() == tag && slot.head.load() & LOCK != 0) {
                return None;
            }
            wait.pause::<W>();
        }
    }

    /// Takes a dead slot of the key's lines, gives it the key's tag and leaves it locked. The caller holds the key's stripe, the key has no slot, and storing a head unlocks it.
    fn claim(&self, tag: u64, is_dead: impl Fn(u64) -> bool) -> Option<Slot<'_, W>> {
        let free = |slot: &Slot<'_, W>| {
            let state = slot.head.load();
            (state & LOCK == 0 && is_dead(state)).then_some(state)
        };
        loop {
            let (home, other) = (self.home(tag), self.other(tag));
            let free_in = |line| self.line(line).filter(|slot| free(slot).is_some()).count();
            // The home line as long as it has room, so that most keys are found with one look; the other when only that
            // keeps the lines even.
            let at_home = free_in(home);
            let line = if at_home > 1 || at_home >= free_in(other) { home } else { other };
            let (slot, state) = self.line(line).find_map(|slot| free(&slot).map(|state| (slot, state)))?;
            if slot.head.replace(state, LOCK).is_ok() {
                if state > self.floor.load() {
                    self.floor.raise(state);
                }
                slot.tag.store(tag);
                return Some(slot);
            }
        }
    }

    /// The stripe of a key: who holds it may give the key a slot.
    #[inline]
    pub(crate) fn stripe(&self, tag: u64) -> usize {
        (tag % self.stripes.len().max(1) as u64) as usize
    }

    /// Waits for the stripe, and holds it until the guard is dropped.
    pub(crate) fn lock_stripe(&self, stripe: usize) -> Option<StripeGuard<'_, W>> {
        let word = self.stripes.get(stripe)?;
        let mut wait = Wait::default();
        while word.load() != 0 || word.replace(0, 1).is_err() {
            wait.pause::<W>();
        }
        Some(StripeGuard { word })
    }
}

/// A stripe, held.
pub(crate) struct StripeGuard<'t, W: Word> {
    word: &'t W,
}

impl<W: Word> Drop for StripeGuard<'_, W> {
    fn drop(&mut self) {
        self.word.store(0);
    }
}
