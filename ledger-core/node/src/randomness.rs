//! Where a node's random numbers come from: the operating system, or a seed in simulations.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::directory::{DirectoryError, random_bytes};

/// A source of random bytes. Clones share it.
#[derive(Clone)]
pub(crate) struct Randomness(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<u64>>),
}

impl fmt::Debug for Randomness {
    /// Without the state, which tells what comes next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Randomness::System",
            Source::Seeded(_) => "Randomness::Seeded",
        })
    }
}

impl Randomness {
    /// The operating system's.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The same numbers for the same seed. Fit for simulations only: nothing about it is secret.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], DirectoryError> {
        let Source::Seeded(state) = &self.0 else { return random_bytes() };
        // Nothing panics while it holds this lock.
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let number = split_mix(&mut state).to_le_bytes();
            for (byte, from) in chunk.iter_mut().zip(number) {
                *byte = from;
            }
        }
        Ok(bytes)
    }
}

/// SplitMix64, by Steele, Lea and Flood.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let draw = |seed| -> ([u8; 20], [u8; 20]) {
            let source = Randomness::seeded(seed);
            (source.bytes().unwrap(), source.bytes().unwrap())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
    }
}
