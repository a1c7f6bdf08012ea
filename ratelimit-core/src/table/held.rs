//! A key whose state nobody else can change: part of a decision about several keys, or of one whose state is long.

use super::word::{Wait, Word};
use super::{LOCK, Slot, Table};
use crate::algorithms::{At, Compact, Words};

/// A key of a table, held. It is let go by exactly one of [`keep`](Held::keep) and [`leave`](Held::leave).
pub(crate) struct Held<'t, W: Word = std::sync::atomic::AtomicU64> {
    table: &'t Table<W>,
    tag: u64,
    place: Place<'t, W>,
}

enum Place<'t, W> {
    /// The key had a slot in this state.
    Slot(Slot<'t, W>, u64),
    /// The key was given a slot.
    Fresh(Slot<'t, W>),
    /// There was no slot to give.
    Nowhere,
}

impl<W: Word> Table<W> {
    /// Holds the key, whose stripe the caller holds until the key is let go. A key without a slot is given one, if there is one.
    pub(crate) fn hold(&self, tag: u64, is_dead: impl Fn(u64) -> bool) -> Held<'_, W> {
        self.hold_known(tag).unwrap_or_else(|| {
            let place = self.claim(tag, is_dead).map_or(Place::Nowhere, Place::Fresh);
            Held { table: self, tag, place }
        })
    }

    /// Holds the key if it has a slot. The caller holds its stripe.
    pub(crate) fn hold_known(&self, tag: u64) -> Option<Held<'_, W>> {
        let mut wait = Wait::default();
        while let Some(seen) = self.find_settled(tag) {
            if seen.slot.head.replace(seen.state, seen.state | LOCK).is_ok() {
                // The head of a long state may come back with another key, unlike that of a state of one word. A tag
                // changes only while its head is locked, so now it is certain whose slot this is.
                if seen.slot.tag.load() == tag {
                    return Some(Held { table: self, tag, place: Place::Slot(seen.slot, seen.state) });
                }
                seen.slot.head.store(seen.state);
            }
            wait.pause::<W>();
        }
        None
    }
}

impl<W: Word> Held<'_, W> {
    /// Whether the key was given its slot just now.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.place, Place::Fresh(_))
    }

    /// Whether there was no slot to give.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(self.place, Place::Nowhere)
    }

    /// Whether what is kept is kept anywhere: in a slot, or in the sketch.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_nowhere() || self.table.sketch.takes_any()
    }

    /// Counts a charge that found no room.
    pub(crate) fn count_overflow(&self) {
        self.table.count_overflow();
    }

    /// The state that a decision begins with. Without a slot and without a sketch nothing is left.
    pub(crate) fn state(&self, algorithm: &(impl Compact + ?Sized), at: At) -> u64 {
        match &self.place {
            Place::Slot(_, state) => *state,
            Place::Nowhere if !self.table.sketch.takes_any() => algorithm.exhausted(at),
            Place::Fresh(_) | Place::Nowhere => self.table.start(algorithm, self.tag, at),
        }
    }

    /// Stores the new state and lets the key go.
    pub(crate) fn keep(self, algorithm: &(impl Compact + ?Sized), state: u64) {
        match self.place {
            Place::Slot(slot, _) => slot.head.store(state),
            Place::Fresh(slot) => slot.head.store(self.table.above_floor(state)),
            Place::Nowhere => {
                self.table.count_overflow();
                self.table.sketch.enter(self.tag, state, algorithm);
            }
        }
    }

    /// Lets the key go as it was.
    pub(crate) fn leave(self) {
        match self.place {
            Place::Slot(slot, state) => slot.head.store(state),
            // Not the dead state that the slot had with another tag: that must never come back.
            Place::Fresh(slot) => slot.head.store(0),
            Place::Nowhere => {}
        }
    }

    /// The further words of the key's slot; those of a slot just given are 0. `None` without a slot.
    pub(crate) fn words(&mut self) -> Option<SlotWords<'_, W>> {
        let (slot, fresh) = match &self.place {
            Place::Slot(slot, _) => (slot, false),
            Place::Fresh(slot) => (slot, true),
            Place::Nowhere => return None,
        };
        let count = self.table.more_words;
        let words = self.table.more.get(slot.number * count..)?.get(..count)?;
        if fresh {
            words.iter().for_each(|word| word.store(0));
            self.place = Place::Slot(*slot, 0);
        }
        Some(SlotWords { words })
    }

    /// Stores the head that [`words`](Held::words) go with, and lets the key go.
    pub(crate) fn keep_words(self, head: u64) {
        if let Place::Slot(slot, _) | Place::Fresh(slot) = self.place {
            slot.head.store(head & !LOCK);
        }
    }
}

/// The words of a slot that is held.
pub(crate) struct SlotWords<'t, W> {
    words: &'t [W],
}

impl<W: Word> Words for SlotWords<'_, W> {
    fn count(&self) -> usize {
        self.words.len()
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, Word::load)
    }

    fn replace(&mut self, index: usize, word: u64) {
        if let Some(place) = self.words.get(index) {
            place.store(word);
        }
    }
}
