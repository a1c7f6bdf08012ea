//! Requests as they arrive: arrays of bulk strings, or a line of words.
//!
//! A parser of our own: libraries for this format build a tree of values, whose size the sender chooses. A request here
//! is slices of the buffer that it arrived in, in an array of fixed length.

use std::ops::Deref;

/// Bytes of one request: a key of 4 KiB and the numbers, with room.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Arguments of a request, the command's name included.
pub const ARGUMENTS_MAX: usize = 32;
/// Bytes of a request that is a line of words.
pub const INLINE_BYTES_MAX: usize = 1 << 10;
/// Bytes of a line that says how many or how long: a sign and the digits of 64 bits, with room.
const HEADER_BYTES_MAX: usize = 32;

/// The arguments of a request. Derefs to a slice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments<'b> {
    words: [&'b [u8]; ARGUMENTS_MAX],
    count: usize,
}

impl<'b> Arguments<'b> {
    fn push(&mut self, word: &'b [u8]) -> Result<(), ProtocolError> {
        let place = self.words.get_mut(self.count).ok_or(ProtocolError::TooManyArguments)?;
        *place = word;
        self.count += 1;
        Ok(())
    }
}

impl<'b> Deref for Arguments<'b> {
    type Target = [&'b [u8]];

    fn deref(&self) -> &Self::Target {
        self.words.get(..self.count).unwrap_or_default()
    }
}

/// What the begin of a buffer is.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::large_enum_variant,
    reason = "it stays on the stack: a box would be an allocation for each request"
)]
pub enum Parsed<'b> {
    /// Part of a request.
    Incomplete,
    /// A request, which may have no arguments and wants no answer then.
    Request {
        /// Its arguments.
        arguments: Arguments<'b>,
        /// How much of the buffer it takes.
        bytes: usize,
    },
}

/// What is not this protocol. The connection is closed after it: nobody knows where the next request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of arguments is not a number.
    #[error("ERR Protocol error: invalid multibulk length")]
    ArrayLength,
    /// There are more than [`ARGUMENTS_MAX`].
    #[error("ERR Protocol error: a request has at most {ARGUMENTS_MAX} arguments")]
    TooManyArguments,
    /// An argument is something else than a bulk string.
    #[error("ERR Protocol error: expected '$' before each argument")]
    NotABulkString,
    /// The length of an argument is not a number, or negative.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// An argument does not end where it says.
    #[error("ERR Protocol error: an argument is not as long as it says")]
    BulkEnd,
    /// It is longer than [`REQUEST_BYTES_MAX`].
    #[error("ERR Protocol error: a request has at most {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// A line of words is longer than [`INLINE_BYTES_MAX`].
    #[error("ERR Protocol error: too big inline request")]
    InlineTooLong,
}

/// Reads one request from the begin of a buffer.
///
/// # Errors
/// As soon as the buffer cannot become a request any more.
pub fn parse(buffer: &[u8]) -> Result<Parsed<'_>, ProtocolError> {
    match buffer.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'*') => parse_array(buffer),
        Some(_) => parse_inline(buffer),
    }
}

fn parse_array(buffer: &[u8]) -> Result<Parsed<'_>, ProtocolError> {
    let Some((count, mut bytes)) = header(buffer, 0, ProtocolError::ArrayLength)? else {
        return Ok(Parsed::Incomplete);
    };
    let mut arguments = Arguments::default();
    if count > ARGUMENTS_MAX as i64 {
        return Err(ProtocolError::TooManyArguments);
    }
    for _ in 0..count.max(0) {
        match buffer.get(bytes) {
            None => return incomplete(buffer),
            Some(b'$') => {}
            Some(_) => return Err(ProtocolError::NotABulkString),
        }
        let Some((length, begin)) = header(buffer, bytes, ProtocolError::BulkLength)? else {
            return incomplete(buffer);
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        if length > REQUEST_BYTES_MAX || begin + length + 2 > REQUEST_BYTES_MAX {
            return Err(ProtocolError::TooLong);
        }
        let end = begin + length;
        match (buffer.get(begin..end), buffer.get(end..end + 2)) {
            (Some(word), Some(b"\r\n")) => arguments.push(word)?,
            (Some(_), Some(_)) => return Err(ProtocolError::BulkEnd),
            _ => return incomplete(buffer),
        }
        bytes = end + 2;
    }
    Ok(Parsed::Request { arguments, bytes })
}

/// More of it has to come, unless there cannot be more.
fn incomplete(buffer: &[u8]) -> Result<Parsed<'_>, ProtocolError> {
    if buffer.len() >= REQUEST_BYTES_MAX { Err(ProtocolError::TooLong) } else { Ok(Parsed::Incomplete) }
}

/// The number of a line that begins with one byte of type at `at`, and where the line ends. `None` when it has not ended.
fn header(buffer: &[u8], at: usize, wrong: ProtocolError) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = buffer.get(at + 1..).unwrap_or_default();
    let line = line.get(..HEADER_BYTES_MAX).unwrap_or(line);
    let Some(length) = line.iter().position(|byte| *byte == b'\r') else {
        return if line.len() < HEADER_BYTES_MAX { Ok(None) } else { Err(wrong) };
    };
    match line.get(length + 1) {
        None if line.len() < HEADER_BYTES_MAX => Ok(None),
        Some(b'\n') => {
            let number = line.get(..length).and_then(integer).ok_or(wrong)?;
            Ok(Some((number, at + 1 + length + 2)))
        }
        _ => Err(wrong),
    }
}

fn parse_inline(buffer: &[u8]) -> Result<Parsed<'_>, ProtocolError> {
    let within = buffer.get(..INLINE_BYTES_MAX).unwrap_or(buffer);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        let may_come = within.len() < INLINE_BYTES_MAX;
        return if may_come { Ok(Parsed::Incomplete) } else { Err(ProtocolError::InlineTooLong) };
    };
    let mut arguments = Arguments::default();
    let words = within.get(..end).unwrap_or_default().split(u8::is_ascii_whitespace);
    for word in words.filter(|word| !word.is_empty()) {
        arguments.push(word)?;
    }
    Ok(Parsed::Request { arguments, bytes: end + 1 })
}

/// A decimal number of 64 bits, with a sign or without.
pub fn integer(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(buffer: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
        match parse(buffer) {
            Ok(Parsed::Request { arguments, bytes }) => {
                Some((arguments.iter().map(|word| word.to_vec()).collect(), bytes))
            }
            _ => None,
        }
    }

    fn encoded(words: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_request_is_read_whole_and_every_part_of_it_is_incomplete(
            request in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..=ARGUMENTS_MAX),
            next: Vec<u8>,
        ) {
            let mut bytes = encoded(&request);
            for end in 0..bytes.len() {
                prop_assert!(matches!(parse(&bytes[..end]), Ok(Parsed::Incomplete)), "{end}");
            }
            let length = bytes.len();
            bytes.extend(next);
            prop_assert_eq!(words(&bytes), Some((request, length)));
        }

        #[test]
        fn arbitrary_bytes_are_a_request_or_incomplete_or_an_error_and_never_wait_for_more_than_the_limit(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                "[*$:+0-9a-z\r\n -]{0,300}".prop_map(String::into_bytes),
                (any::<i64>(), any::<i64>()).prop_map(|(a, b)| format!("*{a}\r\n${b}\r\n").into_bytes()),
            ],
        ) {
            if let Ok(Parsed::Request { bytes: taken, .. }) = parse(&bytes) {
                prop_assert!(taken > 0 && taken <= bytes.len());
            }
            let mut long = bytes;
            long.resize(REQUEST_BYTES_MAX, b'x');
            prop_assert!(!matches!(parse(&long), Ok(Parsed::Incomplete)));
        }
    }

    #[test]
    fn what_is_too_long_or_malformed_is_told_before_all_of_it_has_come() {
        for (bytes, error) in [
            (&b"*x\r\n"[..], ProtocolError::ArrayLength),
            (b"*9999999999999999999999999999999999", ProtocolError::ArrayLength),
            (b"*33\r\n", ProtocolError::TooManyArguments),
            (b"*1\r\n:1\r\n", ProtocolError::NotABulkString),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$1x\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$9223372036854775807\r\n", ProtocolError::TooLong),
            (b"*1\r\n$8192\r\n", ProtocolError::TooLong),
            (b"*1\r\n$1\r\nabc", ProtocolError::BulkEnd),
            (&[b'a'; INLINE_BYTES_MAX], ProtocolError::InlineTooLong),
        ] {
            assert_eq!(parse(bytes).err(), Some(error), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn lines_of_words_and_empty_arrays_are_requests_too() {
        let word = |word: &str| word.as_bytes().to_vec();
        assert_eq!(words(b"  PING  hello\r\nx"), Some((vec![word("PING"), word("hello")], 15)));
        assert_eq!(words(b"\r\n"), Some((vec![], 2)));
        assert_eq!(words(b"*0\r\n"), Some((vec![], 4)));
        assert_eq!(words(b"*-1\r\n"), Some((vec![], 5)));
    }
}
