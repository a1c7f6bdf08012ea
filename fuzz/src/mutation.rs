//! Damage to inputs, the same for the same seed.

/// Most bytes that an input may grow to.
pub const INPUT_BYTES_MAX: usize = 1 << 16;
/// Most changes of one input.
const CHANGES_MAX: usize = 6;
/// What decoders stumble over: ends of ranges, lengths, digits, quotes and brackets.
const TELLING: [u8; 16] =
    [0, 1, 0x7F, 0x80, 0xFF, b'0', b'9', b'-', b'"', b'{', b'[', b'\\', b'\n', b'=', b'.', b' '];

/// Numbers that a seed repeats (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0, less than `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bounded = (mixed ^ (mixed >> 31)) % limit.max(1) as u64;
        usize::try_from(bounded).unwrap_or_default()
    }
}

/// One of `inputs`, changed.
pub fn mutated(inputs: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = inputs.get(dice.below(inputs.len())).cloned().unwrap_or_default();
    for _ in 0..=dice.below(CHANGES_MAX) {
        change(&mut bytes, inputs, dice);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let end = at + dice.below(bytes.len() - at + 1).min(64);
    match dice.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = TELLING[dice.below(TELLING.len())],
        2 if !bytes.is_empty() => bytes[at] = dice.below(256) as u8,
        3 => bytes.insert(at, TELLING[dice.below(TELLING.len())]),
        4 => drop(bytes.drain(at..end)),
        5 => bytes.truncate(at),
        6 => {
            let copied = bytes[at..end].to_vec();
            bytes.splice(at..at, copied);
        }
        7 => {
            // The beginning of this one and the end of another.
            let other = inputs.get(dice.below(inputs.len())).map_or(&[][..], Vec::as_slice);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
        _ => bytes[at..end].fill(TELLING[dice.below(5)]),
    }
}
