//! The only randomness of a run. Everyone who rolls has dice of their own, made from the seed and a name, so that more
//! rolls in one place do not shift those of another.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A seeded source of choices.
#[derive(Debug)]
pub struct Dice(SmallRng);

impl Dice {
    /// The dice of `owner` in the run of `seed`.
    pub fn new(seed: u64, owner: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        owner.hash(&mut hasher);
        Self(SmallRng::seed_from_u64(hasher.finish()))
    }

    /// A number of a range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// An index below `count`, which is at least 1.
    pub fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// Whether something happens that happens `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.0.random_range(0..1_000) < per_mille
    }

    /// One of several.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// A seed for somebody else.
    pub fn seed(&mut self) -> u64 {
        self.0.random()
    }
}
