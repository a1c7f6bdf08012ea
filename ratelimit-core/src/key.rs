//! Keys, and the tags that stand for them in a table.

// The value alone: `core` has no sockets.
use core::net::Ipv4Addr;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// The secret of a limiter's hashing: 128 random bits, drawn by whoever builds the limiter. Who knows it can choose keys
/// that crowd one line of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret(pub [u8; 16]);

impl std::fmt::Debug for HashSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HashSecret(..)")
    }
}

/// Turns keys into tags.
#[derive(Clone, Copy)]
pub struct Hasher {
    sip: (u64, u64),
    mask: u64,
    multipliers: [u64; 2],
}

impl Hasher {
    /// The hasher of a secret.
    pub fn new(secret: HashSecret) -> Self {
        let (first, second) = secret.0.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let sip = (word(first), word(second));
        let derived = |number: u64| {
            let mut hasher = SipHasher13::new_with_keys(sip.0, sip.1);
            hasher.write(b"integer keys");
            hasher.write_u64(number);
            hasher.finish()
        };
        // Odd, so that multiplying can be undone.
        Self { sip, mask: derived(0), multipliers: [derived(1) | 1, derived(2) | 1] }
    }

    /// A permutation of all 64-bit integers that the secret chooses: no two integers share a tag.
    #[inline]
    pub fn integer(&self, key: u64) -> u64 {
        let [first, second] = self.multipliers;
        let word = (key ^ self.mask).wrapping_mul(first);
        let word = (word ^ word >> 32).wrapping_mul(second);
        word ^ word >> 32
    }

    /// SipHash-1-3. Two keys share a tag with a chance of 2^-64: among ten million live keys 3 in a million.
    pub fn bytes(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.sip.0, self.sip.1);
        hasher.write(key);
        hasher.finish()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hasher(..)")
    }
}

/// What a limit is kept for: a client, an account, an address. A limiter has keys of one kind.
pub trait Key {
    /// The tag that stands for the key.
    fn tag(&self, hasher: &Hasher) -> u64;
}

/// Exact: two integers never share a state.
impl Key for u64 {
    #[inline]
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.integer(*self)
    }
}

/// Exact: two integers never share a state.
impl Key for u32 {
    #[inline]
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.integer(u64::from(*self))
    }
}

/// Exact: two addresses never share a state.
impl Key for Ipv4Addr {
    #[inline]
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.integer(u64::from(u32::from(*self)))
    }
}

impl Key for [u8] {
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.bytes(self)
    }
}

impl Key for str {
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.bytes(self.as_bytes())
    }
}

/// A key of several parts, as bytes: each part behind its length, so that no two lists of parts have the same bytes
/// whatever the parts contain. The layout is the one that stores use: 4 bytes of length, big-endian, then the part.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyParts(Vec<u8>);

impl KeyParts {
    /// The key of these parts.
    pub fn new<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        parts.into_iter().fold(Self::default(), |key, part| key.with(part.as_ref()))
    }

    /// The key with one part more. Of a part of 4 GiB or more the first 4 GiB count.
    #[must_use]
    pub fn with(mut self, part: &[u8]) -> Self {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part.get(..length as usize).unwrap_or(part));
        self
    }

    /// The same key with room for so many bytes more.
    pub(crate) fn roomier(&self, bytes: usize) -> Self {
        let mut roomier = Vec::with_capacity(self.0.len().saturating_add(bytes));
        roomier.extend_from_slice(&self.0);
        Self(roomier)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Key for KeyParts {
    fn tag(&self, hasher: &Hasher) -> u64 {
        hasher.bytes(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn hasher(seed: u8) -> Hasher {
        Hasher::new(HashSecret([seed; 16]))
    }

    /// The inverse of an odd number modulo 2^64, by Newton's iteration.
    fn inverse(odd: u64) -> u64 {
        (0..6).fold(odd, |inverse, _| inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse))))
    }

    fn undone(hasher: &Hasher, tag: u64) -> u64 {
        let [first, second] = hasher.multipliers;
        let word = (tag ^ tag >> 32).wrapping_mul(inverse(second));
        (word ^ word >> 32).wrapping_mul(inverse(first)) ^ hasher.mask
    }

    proptest! {
        #[test]
        fn every_integer_can_be_found_again_from_its_tag(key: u64, seed: u8) {
            let hasher = hasher(seed);
            prop_assert_eq!(undone(&hasher, hasher.integer(key)), key);
        }

        #[test]
        fn keys_of_different_parts_have_different_bytes(
            a in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..4),
            b in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..4),
        ) {
            prop_assert_eq!(KeyParts::new(&a) == KeyParts::new(&b), a == b);
        }
    }

    #[test]
    fn neighbouring_integers_spread_over_the_lines_under_every_secret() {
        for (seed, shift) in (0..20).flat_map(|seed| [0, 8, 16, 32, 48].map(|shift| (seed, shift))) {
            let hasher = hasher(seed);
            let lines = |of: fn(u64) -> u64| {
                (0..4_096u64).map(|key| of(hasher.integer(key << shift)) >> 52).collect::<HashSet<_>>().len()
            };
            // 4,096 balls in 4,096 bins leave 37 % of them empty.
            assert!(lines(|tag| tag) > 2_300, "home lines, secret {seed}, shift {shift}");
            assert!(lines(|tag| tag.rotate_left(32)) > 2_300, "other lines, secret {seed}, shift {shift}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        assert_eq!(format!("{:?} {:?}", HashSecret([7; 16]), hasher(7)), "HashSecret(..) Hasher(..)");
    }
}
