//! Base 32 as Douglas Crockford defined it: no I, L, O or U, so that nothing is mistaken for something else.

use zeroize::Zeroizing;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The digits of all whole groups of five bits; up to four bits at the end are left out.
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 8 / 5));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            let digit = (held >> bits & 31) as usize;
            text.push(char::from(DIGITS.get(digit).copied().unwrap_or_default()));
        }
    }
    text
}

/// Reads digits into `bytes`, whose last up to four bits stay zero. `None`: a digit that is none, or not just as many as fit.
pub(crate) fn decode(digits: impl Iterator<Item = char>, bytes: &mut [u8]) -> Option<()> {
    let (mut held, mut bits, mut room) = (0_u32, 0_u32, bytes.iter_mut());
    for digit in digits {
        let upper = match digit.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = DIGITS.iter().position(|d| char::from(*d) == upper)?;
        held = (held << 5 | u32::try_from(value).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *room.next()? = u8::try_from(held >> bits & 0xff).ok()?;
        }
    }
    match (room.next(), room.next(), bits) {
        (None, _, 0) => Some(()),
        (Some(last), None, 4..) => {
            *last = u8::try_from((held << (8 - bits)) & 0xff).ok()?;
            Some(())
        }
        _ => None,
    }
}
